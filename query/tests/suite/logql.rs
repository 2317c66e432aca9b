//! LogQL over segments: what is told to the scan changes no answer.

use serde_json::{Value as Json, json};
use tidemill_eval::logql::MetricParams;
use tidemill_lang::logql::{ast::Query, parse};
use tidemill_query::QueryLimits;
use tidemill_query::logql::NumbersAnswer;
use tidemill_types::Signal;

use crate::world::{SECOND_NS, START_NS, World};

/// Severities as senders have them: numbers, numbers of no level, texts alone, both, none.
const SEVERITIES: [(Option<i32>, &str); 14] = [
    (Some(1), ""),
    (Some(9), ""),
    (Some(13), "warn"),
    (Some(17), "ERROR"),
    (Some(18), "info"),
    (Some(21), ""),
    (Some(0), "error"),
    (Some(30), "wrn"),
    (None, "eror"),
    (None, "critical"),
    (None, "WARNING"),
    (None, "Fatal"),
    (None, "loud"),
    (None, ""),
];

fn records(seed: i64) -> Json {
    let record = |number: i64| {
        let (severity, text) = SEVERITIES[((number * 5 + seed) % 14) as usize];
        let mut record = json!({
            "timeUnixNano": (START_NS + (number * 7 + seed) * SECOND_NS / 10).to_string(),
            "severityText": text,
            "body": { "stringValue": format!("line {number} of {seed}") },
        });
        if let Some(severity) = severity {
            record["severityNumber"] = json!(severity);
        }
        record
    };
    let records: Vec<Json> = (0..700).map(record).collect();
    json!({ "resourceLogs": [{
        "resource": { "attributes": [
            { "key": "service.name", "value": { "stringValue": if seed % 2 == 0 { "cart" } else { "shop" } } },
        ] },
        "scopeLogs": [{ "logRecords": records }],
    }] })
}

/// The answer at the end of the records, as JSON.
async fn numbers(world: &World, query: &str) -> Json {
    ask(world, query).await.answer.to_json()
}

async fn rows_scanned(world: &World, query: &str) -> u64 {
    ask(world, query).await.stats.rows_scanned
}

async fn ask(world: &World, query: &str) -> NumbersAnswer {
    let Query::Metric(metric) = parse(query).unwrap_or_else(|error| panic!("{query}: {error}")) else {
        panic!("{query} is no query for numbers")
    };
    let end_ns = START_NS + 3_600 * SECOND_NS;
    let params = MetricParams { start_ns: end_ns, end_ns, step_ns: None, now_ns: end_ns };
    let answer = world.engine.logql_numbers(world.organization, &metric, params, QueryLimits::default()).await;
    answer.unwrap_or_else(|error| panic!("{query}: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_footers_count_is_what_lines_count() {
    let mut world = World::new().await;
    let mut metas = Vec::new();
    for seed in 0..4 {
        metas.extend(world.ingest(Signal::Logs, &records(seed)).await);
    }
    // Without a service, for which a selector may not hold.
    let lone = json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": [
        { "timeUnixNano": (START_NS + SECOND_NS).to_string(), "body": { "stringValue": "alone" } },
    ] }] }] });
    metas.extend(world.ingest(Signal::Logs, &lone).await);
    for level in 0..3 {
        let plain = world.without_indexes();
        for (query, is_counted) in [
            (r#"sum(count_over_time({service_name=~".+"}[2h]))"#, true),
            (r#"sum(rate({service_name=~"cart|shop"}[2h]))"#, true),
            (r#"sum(count_over_time({service_name="cart"}[2h]))"#, false),
            (r#"sum(count_over_time({service_name!="cart", service_name=~".+"}[2h]))"#, false),
            (r#"sum(count_over_time({service_name=~".+"}[58m]))"#, false),
            (r#"sum(count_over_time({service_name=~".+"} |= "line 7" [2h]))"#, false),
            (r#"sum by (service_name) (count_over_time({service_name=~".+"}[2h]))"#, false),
            (r#"max(count_over_time({service_name=~".+"}[2h]))"#, false),
            (r#"sum(count_over_time({service_name=~".+"}[2h] offset 30m))"#, false),
        ] {
            let (answer, expected) = (numbers(&world, query).await, numbers(&plain, query).await);
            assert!(answer.to_string().contains("value"), "{query}: nothing to compare: {answer}");
            assert_eq!(answer, expected, "{query} at level {level}");
            if is_counted && level == 0 {
                let scanned = (rows_scanned(&world, query).await, rows_scanned(&plain, query).await);
                assert!(scanned.0 <= 1 && scanned.1 > 2_000, "{query}: {scanned:?} rows");
            }
        }
        if level < 2 {
            metas = world.compact(&metas, level + 1).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_told_to_the_scan_change_no_answer() {
    let mut world = World::new().await;
    let mut metas = Vec::new();
    for seed in 0..4 {
        metas.extend(world.ingest(Signal::Logs, &records(seed)).await);
    }
    let queries = [
        r#"sum by (detected_level) (count_over_time({service_name=~".+"}[2h]))"#,
        r#"sum by (service_name) (count_over_time({service_name=~".+"} | detected_level="error" [2h]))"#,
        r#"sum(count_over_time({service_name=~".+"} | detected_level=~"error|fatal|critical" [2h]))"#,
        r#"sum(count_over_time({service_name="cart"} | detected_level="warn" [2h]))"#,
        r#"sum(count_over_time({service_name=~".+"} | detected_level="unknown" [2h]))"#,
        r#"sum by (detected_level) (count_over_time({service_name=~".+"} | detected_level!="info" [2h]))"#,
    ];
    let mut first: Vec<Json> = Vec::new();
    for level in 0..3 {
        let plain = world.without_indexes();
        for (at, query) in queries.iter().enumerate() {
            let answer = numbers(&world, query).await;
            assert!(answer.to_string().contains("value"), "{query}: nothing to compare: {answer}");
            assert_eq!(answer, numbers(&plain, query).await, "{query} at level {level}");
            match first.get(at) {
                Some(known) => assert_eq!(answer, *known, "{query} at level {level}"),
                None => first.push(answer),
            }
        }
        if level < 2 {
            metas = world.compact(&metas, level + 1).await;
        }
    }
    // Seven of the fourteen: 17, 18, 21, "error" beside 0, "eror", "critical" and "Fatal".
    assert!(first[2].to_string().contains("\"1400\""), "{}", first[2]);
}
