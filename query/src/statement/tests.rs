//! What is allowed, what is refused, and what attribute calls become.

use super::*;

fn query(text: &str) -> QueryStatement {
    match parse_statement(text) {
        Ok(Statement::Query(query)) => query,
        other => panic!("{text}: {other:?}"),
    }
}

fn problem(text: &str) -> String {
    parse_statement(text).expect_err(text).to_string()
}

#[test]
fn reading_statements_are_allowed() {
    for text in [
        "SELECT 1",
        "select * from logs;",
        "WITH x AS (SELECT * FROM logs) SELECT count(*) FROM x UNION ALL SELECT count(*) FROM spans",
        "SELECT * FROM (SELECT time FROM metrics) m JOIN spans s ON s.time = m.time",
        "EXPLAIN SELECT * FROM logs",
        "EXPLAIN ANALYZE SELECT * FROM logs",
        "SELECT * FROM generate_series(1, 3)",
        "SELECT body FROM logs WHERE time > now() - interval '1 hour' ORDER BY time DESC LIMIT 5",
        "SELECT (SELECT max(time) FROM logs), EXISTS (SELECT 1 FROM spans)",
        "VALUES (1), (2)",
    ] {
        query(text);
    }
    assert!(matches!(parse_statement("SHOW TABLES"), Ok(Statement::ShowTables)));
    assert!(matches!(parse_statement("DESCRIBE spans"), Ok(Statement::Describe(Signal::Traces))));
}

#[test]
fn what_is_no_sql_is_told_with_its_place() {
    assert_eq!(problem("SELEC 1"), "Expected: an SQL statement, found: SELEC at Line: 1, Column: 1");
    assert!(
        problem("SELECT 'a").starts_with("Unterminated string literal at Line: 1, Column: 8"),
        "{}",
        problem("SELECT 'a")
    );
}

#[test]
fn what_nests_or_multiplies_without_bound_is_refused() {
    let ors = |count: usize| {
        let all: Vec<String> = (0..count).map(|number| format!("body = '{number}'")).collect();
        format!("SELECT count(*) FROM logs WHERE {}", all.join(" OR "))
    };
    query(&ors(900));
    assert!(problem(&ors(1_100)).contains("IN (…)"));
    let values: Vec<String> = (0..20_000).map(|number| format!("'{number}'")).collect();
    query(&format!("SELECT count(*) FROM logs WHERE body IN ({})", values.join(", ")));
    let doubled = |count: usize| {
        let all = (1..count).map(|at| format!(", a{at} AS (SELECT l.x FROM a{0} l, a{0} r)", at - 1));
        format!("WITH a0 AS (SELECT 1 AS x){} SELECT x FROM a{}", all.collect::<String>(), count - 1)
    };
    query(&doubled(9));
    assert!(problem(&doubled(40)).contains("at most 500"), "{}", problem(&doubled(40)));
    // A name of an inner WITH hides that of an outer one, and a use in a condition counts as any other.
    let hidden = "WITH a AS (SELECT 1 AS x) SELECT * FROM (WITH a AS (SELECT 2 AS x) SELECT x FROM a) b WHERE x IN (SELECT x FROM a)";
    query(hidden);
    let inside = doubled(40).replace("SELECT x FROM a39", "SELECT 1 WHERE 1 IN (SELECT x FROM a39)");
    assert!(problem(&inside).contains("at most 500"));
}

#[test]
fn everything_else_is_refused() {
    for text in [
        "INSERT INTO logs VALUES (1)",
        "DELETE FROM logs",
        "UPDATE logs SET body = ''",
        "DROP TABLE logs",
        "CREATE TABLE x AS SELECT 1",
        "CREATE VIEW x AS SELECT 1",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        "COPY logs TO '/tmp/x.csv'",
        "COPY (SELECT 1) TO 's3://b/x.parquet'",
        "SET datafusion.execution.batch_size = 1",
        "RESET datafusion.execution.batch_size",
        "SHOW ALL",
        "BEGIN",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "EXPLAIN DROP TABLE logs",
        "EXPLAIN COPY logs TO '/tmp/x'",
        "SELECT 1 INTO x FROM logs",
        "SELECT * FROM logs FOR UPDATE",
        "WITH x AS (DELETE FROM logs RETURNING 1) SELECT * FROM x",
        "WITH RECURSIVE x AS (SELECT 1 UNION ALL SELECT * FROM x) SELECT * FROM x",
        "TABLE \"x.csv\"",
        "SELECT 1; SELECT 2",
        "",
    ] {
        assert!(!problem(text).is_empty());
    }
}

#[test]
fn files_urls_and_other_catalogs_are_no_tables() {
    for text in [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM \"file:///etc/passwd\"",
        "SELECT * FROM \"s3://bucket/other.parquet\"",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM datafusion.public.logs",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_parquet('x')",
        "SELECT * FROM parquet_metadata('x')",
        "SELECT * FROM TABLE(read_csv('/etc/passwd'))",
        "SELECT (SELECT max(a) FROM \"/etc/passwd\")",
        "SELECT * FROM logs WHERE body IN (SELECT a FROM \"x.csv\")",
        "SELECT * FROM logs UNION ALL SELECT * FROM \"x.csv\"",
        "DESCRIBE \"x.csv\"",
    ] {
        let problem = problem(text);
        assert!(
            problem.contains("does not exist") || problem.contains("refused") || problem.contains("not supported"),
            "{problem}"
        );
    }
}

#[test]
fn attribute_calls_become_columns() {
    let query = query("SELECT attr('http.method'), l.resource('it''s'), count(*) FROM logs l WHERE scope('x') = 'y'");
    let text = query.parsed.to_string();
    assert!(text.contains("\"attr('http.method')\""), "{text}");
    assert!(text.contains("l.\"resource('it''s')\""), "{text}");
    assert!(text.contains("\"scope('x')\" = 'y'"), "{text}");
    assert_eq!(query.attributes.len(), 3);
    assert_eq!(query.tables, BTreeSet::from([Signal::Logs]));
}

#[test]
fn a_star_leaves_attribute_columns_out() {
    let text = query("SELECT * FROM logs WHERE attr('a') = 1").parsed.to_string();
    assert!(text.contains("* EXCLUDE (\"attr('a')\")"), "{text}");
    let text =
        query("SELECT * FROM logs l JOIN spans s ON l.trace_id = s.trace_id WHERE l.attr('a') = 1").parsed.to_string();
    assert!(text.contains("l.* EXCLUDE (\"attr('a')\"), s.* EXCLUDE"), "{text}");
    assert!(!query("SELECT * FROM logs").parsed.to_string().contains("EXCLUDE"));
}

#[test]
fn attribute_calls_take_one_literal() {
    for text in [
        "SELECT attr(body) FROM logs",
        "SELECT attr() FROM logs",
        "SELECT attr('a', 'b') FROM logs",
        "SELECT attr(1) FROM logs",
    ] {
        assert!(problem(text).contains("one key in single quotes"));
    }
}

#[test]
fn a_subquery_may_not_hide_a_table() {
    assert!(problem("WITH logs AS (SELECT 1) SELECT * FROM logs").contains("named like a table"));
}
