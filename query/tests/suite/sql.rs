//! Statements over real segments in a folder.

use std::time::{Duration, Instant};

use crate::world::{SECOND_NS, START_NS, World, attribute, log, logs, organization};
use futures::StreamExt;
use serde_json::json;
use tidemill_query::{Cardinality, Error, QueryLimits};
use tidemill_store::Metastore;
use tidemill_types::{ErrorKind, Signal, TimeRange, TimestampNs};

fn numbered(count: i64, service: &str) -> serde_json::Value {
    let records = (0..count).map(|number| {
        let at = START_NS + number * SECOND_NS;
        log(
            at,
            &format!("request {number} done"),
            vec![attribute("number", json!(number)), attribute("path", json!("/a"))],
        )
    });
    logs(service, records.collect())
}

#[tokio::test]
async fn rows_come_back_as_they_were_sent() {
    let mut world = World::new().await;
    let mut record = log(
        START_NS + 1,
        "hello",
        vec![
            attribute("text", json!("it's \"x\"")),
            attribute("whole", json!(9_007_199_254_740_993_i64)),
            attribute("part", json!(2.0)),
            attribute("flag", json!(true)),
            attribute("list", json!({ "arrayValue": { "values": [{ "intValue": "1" }] } })),
        ],
    );
    record["traceId"] = json!("5b8efff798038103d269b633813fc60c");
    record["spanId"] = json!("eee19b7ec3c1b174");
    world.ingest(Signal::Logs, &logs("api", vec![record])).await;
    let (rows, _) = world
        .sql(
            "SELECT time, service_name, body, trace_id, span_id, attr('text'), attr('whole'), attr('part'), attr('flag'), \
             attr('list'), resource('region'), attributes, resource FROM logs",
        )
        .await;
    let expected = [
        "2024-05-01T00:00:00.000000001Z",
        "api",
        "hello",
        "5b8efff798038103d269b633813fc60c",
        "eee19b7ec3c1b174",
        "it's \"x\"",
        "9007199254740993",
        "2.0",
        "true",
        "[1]",
        "eu",
        r#"{"flag":true,"list":[1],"part":2.0,"text":"it's \"x\"","whole":9007199254740993}"#,
        r#"{"region":"eu","service.name":"api"}"#,
    ];
    assert_eq!(rows, [expected.map(str::to_owned).to_vec()]);
}

#[tokio::test]
async fn filters_aggregates_and_joins() {
    let mut world = World::new().await;
    world.ingest(Signal::Logs, &numbered(100, "api")).await;
    world.ingest(Signal::Logs, &numbered(50, "cart")).await;
    assert_eq!(world.value("SELECT count(*) FROM logs").await, "150");
    assert_eq!(world.value("SELECT count(*) FROM logs WHERE service_name = 'cart'").await, "50");
    assert_eq!(world.value("SELECT count(*) FROM logs WHERE resource('service.name') IN ('cart', 'web')").await, "50");
    assert_eq!(world.value("SELECT sum(attr('number')) FROM logs WHERE attr('number') >= 90").await, "945");
    assert_eq!(world.value("SELECT count(*) FROM logs WHERE body LIKE '%request 7%'").await, "12");
    assert_eq!(world.value("SELECT count(*) FROM logs WHERE has_token(body, '7')").await, "2");
    assert_eq!(world.value("SELECT count(*) FROM logs WHERE time < '2024-05-01T00:00:10Z'").await, "20");
    let (rows, stats) = world.sql("SELECT body FROM logs WHERE time > now() - INTERVAL '1 hour'").await;
    assert_eq!((rows.len(), stats.segments_pruned, stats.requests), (0, 2, 0), "the catalog alone rules them out");
    assert_eq!(
        world.value("SELECT count(*) FROM logs a JOIN logs b ON a.attr('number') = b.attr('number') WHERE a.service_name = 'api' AND b.service_name = 'cart'").await,
        "50"
    );
    let (rows, _) = world.sql("SELECT service_name, count(*) FROM logs GROUP BY 1 ORDER BY 1").await;
    assert_eq!(rows, [["api", "100"], ["cart", "50"]]);
    let (rows, _) =
        world.sql("WITH x AS (SELECT attr('number') AS n FROM logs) SELECT max(n) FROM x UNION ALL SELECT 7").await;
    assert_eq!(rows.len(), 2);
    let (rows, _) = world.sql("SELECT * FROM logs WHERE attr('number') = 3 AND service_name = 'api'").await;
    let (described, _) = world.sql("DESCRIBE logs").await;
    assert_eq!(rows[0].len(), described.len(), "* has the fixed columns only");
    let (rows, _) = world.sql("SHOW TABLES").await;
    assert_eq!(rows.len(), 3);
    let (rows, _) = world.sql("EXPLAIN SELECT body FROM logs WHERE service_name = 'api'").await;
    assert!(rows.iter().any(|row| row[1].contains("SegmentScan: table=logs, segments=1")), "{rows:?}");
}

#[tokio::test]
async fn another_organization_sees_nothing() {
    let mut world = World::new().await;
    world.ingest(Signal::Logs, &numbered(10, "api")).await;
    let (rows, stats) = world.sql_for(organization(2), "SELECT count(*) FROM logs").await;
    assert_eq!(rows, [["0"]]);
    assert_eq!((stats.segments_considered, stats.requests), (0, 0));
    let infos = world.engine.attributes(organization(2), Signal::Logs, TimeRange::ALL).await.expect("it answers");
    assert!(infos.is_empty());
}

/// A statement that was planned before is answered over what there is now, for whoever asks.
#[tokio::test]
async fn plans_that_are_known_hold_nothing_of_their_queries() {
    let mut world = World::new().await;
    let rows = "SELECT service_name, count(*) AS n, sum(attr('number')), (SELECT max(body) FROM logs) FROM logs \
                WHERE attr('number') < 100 GROUP BY 1 ORDER BY 1";
    for count in [3, 5] {
        world.ingest(Signal::Logs, &numbered(count, &format!("api-{count}"))).await;
        let (found, stats) = world.sql(rows).await;
        let expected: Vec<Vec<String>> = [3_i64, 5]
            .into_iter()
            .filter(|own| *own <= count)
            .map(|own| {
                let last = format!("request {} done", count - 1);
                vec![format!("api-{own}"), own.to_string(), (own * (own - 1) / 2).to_string(), last]
            })
            .collect();
        assert_eq!(found, expected);
        assert!(stats.rows_scanned > 0, "{stats:?}");
    }
    assert_eq!(world.sql_for(organization(2), rows).await.0.len(), 0);
    let one = logs("web", vec![log(START_NS, "x", vec![attribute("number", json!(0.5))])]);
    world.ingest(Signal::Logs, &one).await;
    assert_eq!(world.sql(rows).await.0[2], ["web", "1", "0.5", "x"]);
    // Limits of a query are its own.
    let early = TimeRange { start: TimestampNs(START_NS), end: TimestampNs(START_NS + SECOND_NS) };
    let count = "SELECT count(*) FROM logs";
    assert_eq!(world.value(count).await, "9");
    let limits = QueryLimits { within: Some(early), ..QueryLimits::default() };
    let stream = world.engine.sql(world.organization, count, limits).await.expect("it runs");
    assert_eq!(crate::world::rows(&stream.collect().await.expect("it ends")), [["3"]]);
    // Rows that a statement makes itself are made anew.
    for made in ["SELECT sum(value) FROM generate_series(1, 4)", "SELECT sum(x) FROM (VALUES (3), (7)) AS t(x)"] {
        assert_eq!([world.value(made).await, world.value(made).await], ["10", "10"], "{made}");
    }
    // What may answer otherwise another time is planned every time.
    for changing in ["SELECT now()", "SELECT random()", "SELECT count(*), now() FROM logs WHERE time < now()"] {
        let (first, second) = (world.sql(changing).await.0, world.sql(changing).await.0);
        assert_ne!(first, second, "{changing}");
    }
}

#[tokio::test]
async fn types_of_attributes_join_over_segments() {
    let mut world = World::new().await;
    let one = |value| logs("api", vec![log(START_NS, "x", vec![attribute("v", value), attribute("same", json!(1))])]);
    world.ingest(Signal::Logs, &one(json!(1))).await;
    assert_eq!(world.value("SELECT sum(attr('v')) FROM logs").await, "1");
    world.ingest(Signal::Logs, &one(json!(0.5))).await;
    assert_eq!(world.value("SELECT sum(attr('v')) FROM logs").await, "1.5");
    world.ingest(Signal::Logs, &one(json!("three"))).await;
    let (rows, _) = world.sql("SELECT attr('v') FROM logs ORDER BY 1").await;
    assert_eq!(rows, [["0.5"], ["1"], ["three"]]);
    assert_eq!(world.value("SELECT sum(attr('same')) FROM logs").await, "3");
}

#[tokio::test]
async fn values_of_several_types_in_one_segment_are_text() {
    let mut world = World::new().await;
    let records = [json!(1), json!(2), json!("x"), json!(true), json!(0.5)]
        .map(|value| log(START_NS, "x", vec![attribute("v", value)]));
    world.ingest(Signal::Logs, &logs("api", records.to_vec())).await;
    let (rows, _) = world.sql("SELECT attr('v') FROM logs ORDER BY 1").await;
    assert_eq!(rows, [["0.5"], ["1"], ["2"], ["true"], ["x"]]);
    assert_eq!(world.value("SELECT count(*) FROM logs WHERE attr('v') = '2'").await, "1");
}

#[tokio::test]
async fn an_unknown_attribute_is_null_and_said() {
    let mut world = World::new().await;
    world.ingest(Signal::Logs, &numbered(3, "api")).await;
    let (rows, stats) = world.sql("SELECT attr('numbr') FROM logs").await;
    assert_eq!(rows, [["NULL"], ["NULL"], ["NULL"]]);
    assert!(stats.warnings[0].contains("did you mean attr('number')?"), "{:?}", stats.warnings);
}

#[tokio::test]
async fn a_missing_object_is_an_error_and_never_fewer_rows() {
    let mut world = World::new().await;
    let metas = world.ingest(Signal::Logs, &numbered(3, "api")).await;
    world.ingest(Signal::Logs, &numbered(3, "cart")).await;
    std::fs::remove_file(world.object_path(&metas[0].object_key)).expect("it is removed");
    let error = world.problem("SELECT body FROM logs").await;
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&metas[0].object_key), "{error}");
}

#[tokio::test]
async fn damaged_footers_are_noticed() {
    let mut world = World::new().await;
    let metas = world.ingest(Signal::Logs, &numbered(3, "api")).await;
    let path = world.object_path(&metas[0].object_key);
    let mut bytes = std::fs::read(&path).expect("it is read");
    bytes[usize::try_from(metas[0].footer.offset).expect("small") + 10] ^= 1;
    std::fs::write(&path, bytes).expect("it is written");
    let error = world.problem("SELECT body FROM logs").await;
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("hash differs"), "{error}");
}

#[tokio::test]
async fn limits_hold() {
    let mut world = World::new().await;
    world.ingest(Signal::Logs, &numbered(2_000, "api")).await;
    let heavy = "SELECT count(*) FROM logs a, logs b, logs c WHERE a.body < b.body AND b.body < c.body";
    let limits = QueryLimits { time: Duration::from_millis(50), ..QueryLimits::default() };
    let error = match world.engine.sql(world.organization, heavy, limits).await {
        Err(error) => error,
        Ok(stream) => stream.collect().await.expect_err("it takes longer"),
    };
    assert_eq!(error.kind(), ErrorKind::Busy);
    let limits = QueryLimits { memory_bytes: 1 << 10, spill_bytes: 0, ..QueryLimits::default() };
    let sorted = "SELECT body FROM logs ORDER BY body";
    let error = match world.engine.sql(world.organization, sorted, limits).await {
        Err(error) => error,
        Ok(stream) => stream.collect().await.expect_err("it needs more memory"),
    };
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    // A join without equality whose one side does not fit: neither a panic nor rows that are there twice.
    let limits = QueryLimits { memory_bytes: 4 << 20, ..QueryLimits::default() };
    for kind in ["JOIN", "LEFT JOIN", "FULL JOIN"] {
        let joined = format!(
            "SELECT count(*) FROM (SELECT a.body AS x, b.body AS y FROM logs a JOIN logs b ON a.body <> b.body) c {kind} logs d ON d.body <> c.x"
        );
        let error = match world.engine.sql(world.organization, &joined, limits).await {
            Err(error) => error,
            Ok(stream) => stream.collect().await.expect_err("it needs more memory"),
        };
        assert_eq!(error.kind(), ErrorKind::Busy, "{kind}: {error}");
        assert!(error.to_string().contains("query.memory"), "{kind}: {error}");
    }
    // So is a window over more rows than there is memory for; over fewer, it answers.
    for window in ["OVER ()", "OVER (PARTITION BY a.body)"] {
        let over =
            |other: &str| format!("SELECT max(n) FROM (SELECT count(a.body) {window} AS n FROM logs a, {other} b)");
        let limits = QueryLimits { memory_bytes: 16 << 20, spill_bytes: 0, ..QueryLimits::default() };
        let error = match world.engine.sql(world.organization, &over("logs"), limits).await {
            Err(error) => error,
            Ok(stream) => stream.collect().await.expect_err("it needs more memory"),
        };
        assert_eq!(error.kind(), ErrorKind::Busy, "{window}: {error}");
        let (rows, _) = world.sql(&over("range(1, 4)")).await;
        assert_eq!(rows, [[if window == "OVER ()" { "6000" } else { "3" }]], "{window}");
    }
    let limits = QueryLimits { time: Duration::from_secs(1_800), ..QueryLimits::default() };
    assert_eq!(
        world.engine.sql(world.organization, "SELECT 1", limits).await.expect_err("too long").kind(),
        ErrorKind::Invalid
    );
    let half = TimeRange { start: TimestampNs(START_NS), end: TimestampNs(START_NS + 1_000 * SECOND_NS) };
    let limits = QueryLimits { within: Some(half), ..QueryLimits::default() };
    let stream = world.engine.sql(world.organization, "SELECT count(*) FROM logs", limits).await.expect("it runs");
    assert_eq!(crate::world::rows(&stream.collect().await.expect("it ends")), [["1000"]]);
}

/// Joins that compare billions of pairs of few rows, and hardly give any.
const HEAVY_JOINS: [&str; 3] = [
    "SELECT count(*) FROM logs a, logs b, logs c WHERE a.body < b.body AND b.body < c.body AND a.body > c.body",
    "SELECT count(*) FROM logs a JOIN logs b ON a.service_name = b.service_name JOIN logs c ON b.service_name = c.service_name AND a.body || b.body < c.body",
    "SELECT count(a.body || b.body || c.body) FROM logs a CROSS JOIN logs b CROSS JOIN logs c",
];

#[tokio::test]
async fn joins_end_with_their_time_or_their_reader() {
    let mut world = World::new().await;
    world.ingest(Signal::Logs, &numbered(2_000, "api")).await;
    let long = Duration::from_secs(10);
    for statement in HEAVY_JOINS {
        let limits = QueryLimits { time: Duration::from_millis(200), ..QueryLimits::default() };
        let asked = Instant::now();
        let error = match world.engine.sql(world.organization, statement, limits).await {
            Err(error) => error,
            Ok(stream) => stream.collect().await.expect_err("it takes longer"),
        };
        assert!(matches!(error, Error::TimeLimit { .. }), "{statement}: {error}");
        // Somebody asks, and leaves.
        let query = world.engine.sql(world.organization, statement, QueryLimits::default());
        assert!(tokio::time::timeout(Duration::from_millis(200), query).await.is_err(), "{statement}");
        while world.engine.running_queries() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(asked.elapsed() < long, "{statement}: it goes on");
        }
    }
}

#[tokio::test]
async fn texts_that_grow_without_end_are_refused() {
    let mut world = World::new().await;
    world.ingest(Signal::Logs, &numbered(3, "api")).await;
    let long = "e".repeat(2_000);
    let nested = (0..3).fold("body".to_owned(), |text, _| format!("replace({text}, 'e', '{long}')"));
    let error = world.problem(&format!("SELECT length({nested}) FROM logs")).await;
    let nested = nested.replace("body", "'eeee'");
    let other = world.problem(&format!("SELECT length({nested})")).await;
    for error in [error, other] {
        assert!(error.to_string().contains("replace would make"), "{error}");
    }
    let (rows, _) = world.sql("SELECT replace(body, 'done', 'left') FROM logs WHERE body LIKE '% 1 %'").await;
    assert_eq!(rows, [["request 1 left"]]);
}

#[tokio::test]
async fn dropping_the_stream_frees_its_slot() {
    let mut world = World::new().await;
    world.ingest(Signal::Logs, &numbered(2_000, "api")).await;
    for _ in 0..40 {
        let text = "SELECT a.body FROM logs a, logs b";
        let mut stream =
            world.engine.sql(world.organization, text, QueryLimits::default()).await.expect("a slot is free");
        assert!(stream.next().await.is_some_and(|batch| batch.is_ok()));
        drop(stream);
        // The slot is free once the aborted task is gone; nothing else signals that.
        while world.engine.running_queries() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn attributes_are_listed_with_their_types() {
    let mut world = World::new().await;
    world.ingest(Signal::Logs, &numbered(3, "api")).await;
    let infos = world.engine.attributes(world.organization, Signal::Logs, TimeRange::ALL).await.expect("it answers");
    let found: Vec<(&str, &str, u64, Cardinality)> =
        infos.iter().map(|info| (info.expression.as_str(), info.kind.as_str(), info.rows, info.cardinality)).collect();
    let expected = [
        ("attr('number')", "int64", 3, Cardinality::About(3)),
        ("attr('path')", "text", 3, Cardinality::About(1)),
        ("resource('region')", "text", 3, Cardinality::About(1)),
        ("resource('service.name')", "text", 3, Cardinality::About(1)),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn what_retention_removed_is_said() {
    let mut world = World::new().await;
    world.ingest(Signal::Logs, &numbered(3, "api")).await;
    let mut organizations = world.metastore.organizations().await.expect("it answers");
    let mut owner =
        organizations.remove(organizations.iter().position(|one| one.id == world.organization).expect("it is there"));
    owner.retention_days = [Some(7), None, None];
    world.metastore.update_organization(&owner).await.expect("it is changed");
    let (_, stats) = world.sql("SELECT count(*) FROM logs WHERE time >= '2024-04-01T00:00:00Z'").await;
    assert!(stats.warnings[0].contains("past their retention"), "{:?}", stats.warnings);
    let (_, stats) = world.sql("SELECT count(*) FROM logs").await;
    assert!(stats.warnings.is_empty(), "{:?}", stats.warnings);
}

/// As deep as a statement may nest, in each way that it can.
#[tokio::test]
async fn the_deepest_statements_do_not_end_the_process() {
    let mut world = World::new().await;
    world.ingest(Signal::Logs, &numbered(3, "api")).await;
    let joined = |part: &str, separator: &str, count: usize| vec![part; count].join(separator);
    for (what, statement) in [
        ("sum", format!("SELECT {}", joined("1", "+", 2_000))),
        ("column", format!("SELECT count(*) FROM logs WHERE flags{} > 1", "+1".repeat(1_990))),
        ("or", format!("SELECT count(*) FROM logs WHERE {}", joined("body='x'", " OR ", 990))),
        ("and", format!("SELECT count(*) FROM logs WHERE {}", joined("body<>'x'", " AND ", 990))),
        ("text", format!("SELECT {} FROM logs", joined("body", "||", 1_990))),
        ("cast", format!("SELECT count(flags{}) FROM logs", "::bigint::int".repeat(490))),
        ("union", joined("SELECT 1", " UNION ALL ", 490)),
        ("in", format!("SELECT count(*) FROM logs WHERE body IN ({})", joined("'x'", ",", 20_000))),
    ] {
        let limits = QueryLimits::default();
        let outcome = match world.engine.sql(world.organization, &statement, limits).await {
            Ok(stream) => stream.collect().await.map(drop),
            Err(error) => Err(error),
        };
        assert!(outcome.is_ok(), "{what}: {outcome:?}");
    }
}

#[tokio::test]
async fn no_function_makes_a_value_as_large_as_a_number_says() {
    let world = World::new().await;
    for call in [
        "repeat('x', 1000000000)",
        "lpad('x', 2000000000)",
        "rpad('x', 2000000000)",
        "array_repeat(1, 2000000000)",
        "list_repeat(1, 2000000000)",
        "array_resize([1], 2000000000)",
        "list_resize([1], 2000000000)",
        "range(1, 3000000000)",
        "generate_series(1, 3000000000)",
    ] {
        let error = world.problem(&format!("SELECT length({call})")).await;
        assert_eq!(error.kind(), ErrorKind::Invalid, "{call}: {error}");
        assert!(error.to_string().contains("Invalid function"), "{call}: {error}");
    }
}

#[tokio::test]
async fn a_pattern_that_is_too_large_is_the_statement_s_fault() {
    let mut world = World::new().await;
    world.ingest(Signal::Logs, &numbered(3, "api")).await;
    let error = world.problem("SELECT count(*) FROM logs WHERE body ~ '(a{1000}){1000}'").await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("did not compile") && !error.to_string().contains("bug report"), "{error}");
    let error = world.problem("SELECT count(*) FROM logs WHERE body ~ '('").await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}
