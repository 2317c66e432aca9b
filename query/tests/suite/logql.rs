//! LogQL over segments: what is told to the scan changes no answer.

use serde_json::{Value as Json, json};
use tidemill_eval::logql::MetricParams;
use tidemill_lang::logql::{ast::Query, parse};
use tidemill_query::QueryLimits;
use tidemill_query::logql::{NumbersAnswer, StreamTotals};
use tidemill_types::{Signal, TimeRange, TimestampNs};

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
    // The catalog itself tells of segments whose rows all have a service.
    let all = r#"sum(count_over_time({service_name=~".+"}[2h]))"#;
    let told = ask(&world.cold(), all).await;
    assert_eq!((told.stats.requests, told.stats.cache_hits), (0, 0), "no segment is opened");
    assert!(told.answer.to_json().to_string().contains("\"2800\""), "{:?}", told.answer.to_json());
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

/// Lines of OTLP with attributes of every kind, and lines of Loki's push, whose levels are attributes.
fn lines_with_labels(seed: i64) -> Json {
    let record = |number: i64, is_pushed: bool| {
        let (severity, text) = SEVERITIES[((number * 5 + seed) % 14) as usize];
        let mut attributes = vec![json!({ "key": "amount", "value": { "intValue": (number % 5).to_string() } })];
        if number % 4 == 0 {
            let route = json!({ "key": "route", "value": { "stringValue": format!("/{}", number % 3) } });
            attributes.push(json!({ "key": "http", "value": { "kvlistValue": { "values": [route] } } }));
        }
        if number % 7 == 0 {
            attributes.push(json!({ "key": "detected_level", "value": { "stringValue": "error" } }));
            attributes.push(json!({ "key": "k8s.pod.name", "value": { "stringValue": "another" } }));
        }
        json!({
            "timeUnixNano": (START_NS + (number * 7 + seed) * SECOND_NS).to_string(),
            "severityNumber": if is_pushed { 0 } else { severity.unwrap_or(0) },
            "severityText": if is_pushed { "" } else { text },
            "body": { "stringValue": format!(r#"{{"amount": {number}.5, "user": "u{}"}}"#, number % 3) },
            "attributes": attributes,
        })
    };
    let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let lines = |is_pushed: bool| -> Vec<Json> { (0..200).map(|number| record(number, is_pushed)).collect() };
    json!({ "resourceLogs": [
        {
            "resource": { "attributes": [
                attribute("service.name", "cart"), attribute("k8s.pod.name", &format!("p{seed}")), attribute("host.arch", "arm"),
            ] },
            "scopeLogs": [{ "scope": { "name": "lib", "attributes": [attribute("kind", "x")] }, "logRecords": lines(false) }],
        },
        {
            "resource": { "attributes": [attribute("service.name", "shop"), attribute("env", "prod")] },
            "scopeLogs": [{ "scope": { "name": tidemill_segment::loki::PUSH_SCOPE }, "logRecords": lines(true) }],
        },
    ] })
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_are_not_wanted_change_no_answer() {
    let mut world = World::new().await;
    let mut metas = world.ingest(Signal::Logs, &records(1)).await;
    for seed in 0..3 {
        metas.extend(world.ingest(Signal::Logs, &lines_with_labels(seed)).await);
    }
    let all = r#"{service_name=~".+"}"#;
    let queries = [
        format!("sum by (http_route) (count_over_time({all}[2h]))"),
        format!("sum by (k8s_pod_name, k8s_pod_name_extracted) (count_over_time({all}[2h]))"),
        format!("sum by (host_arch, detected_level) (count_over_time({all}[2h]))"),
        format!("sum by (env, kind) (bytes_over_time({all}[2h]))"),
        format!("sum by (scope_name, severity_text) (count_over_time({all}[50m]))"),
        format!("sum by (observed_timestamp, severity_number) (count_over_time({all}[50m]))"),
        format!(
            r#"sum by (service_name) (sum_over_time({all} |= "amount" | json amount="amount" | unwrap amount [2h]))"#
        ),
        format!(r#"sum by (user) (sum_over_time({all} |= "amount" | json | unwrap amount_extracted [2h]))"#),
        format!(r#"quantile_over_time(0.9, {all} | unwrap amount [2h]) by (service_name)"#),
        format!(
            r#"first_over_time({all} |= "user" | json total="amount" | unwrap total [2h]) by (service_name, host_arch)"#
        ),
        format!("sum by (amount) (count_over_time({all} | amount > 2 [2h]))"),
        format!(r#"sum(count_over_time({all} | drop detected_level | detected_level="error" [2h]))"#),
        format!(r#"sum by (service_name) (rate({all} | keep service_name, amount | amount="3" [2h]))"#),
        format!(r#"sum by (level) (count_over_time({all} | label_format level=detected_level | level!="info" [2h]))"#),
        format!(
            r#"sum by (minute) (count_over_time({all} | label_format minute="{{{{ __timestamp__ | date \"04\" }}}}" [2h]))"#
        ),
        format!("count_over_time({all}[2h])"),
        r#"sum by (detected_level) (count_over_time({env="prod"}[2h]))"#.to_owned(),
        r#"sum by (amount) (count_over_time({k8s_pod_name=~"p.*"}[2h] offset 30m))"#.to_owned(),
    ];
    for level in 0..3 {
        let plain = world.without_indexes();
        for query in &queries {
            let (answer, expected) = (numbers(&world, query).await, numbers(&plain, query).await);
            assert!(answer.to_string().contains("value"), "{query}: nothing to compare: {answer}");
            assert_eq!(answer, expected, "{query} at level {level}");
        }
        if level < 2 {
            metas = world.compact(&metas, level + 1).await;
        }
    }
    // A label that no key can give costs no attributes, and one that a key gives does.
    let mut read = Vec::new();
    for label in ["nowhere", "amount"] {
        let query = format!("sum by ({label}) (count_over_time({all}[2h]))");
        read.push(ask(&world.cold(), &query).await.stats.bytes_read);
    }
    assert!(0 < read[0] && read[0] < read[1], "{read:?} bytes");
}

/// Lines of a few streams, many of each.
fn lines_of_streams(seed: i64) -> Json {
    let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let record = |number: i64| {
        let (severity, text) = SEVERITIES[((number / 9 + seed) % 14) as usize];
        let mut attributes = vec![attribute("route", "/x")];
        if number % 3 == 0 {
            attributes.push(attribute("detected_level", "error"));
        }
        json!({
            "timeUnixNano": (START_NS + (number * 3 + seed) * SECOND_NS / 2).to_string(),
            "severityNumber": severity.unwrap_or(0),
            "severityText": text,
            "body": { "stringValue": format!("line {number}") },
            "attributes": attributes,
        })
    };
    let lines = || -> Vec<Json> { (0..1_500).map(record).collect() };
    let of = |service: &str, pod: &str, scope: &str| {
        let mut attributes = vec![attribute("k8s.pod.name", pod), attribute("host.arch", "arm")];
        if !service.is_empty() {
            attributes.push(attribute("service.name", service));
        }
        json!({
            "resource": { "attributes": attributes },
            "scopeLogs": [{ "scope": { "name": scope }, "logRecords": lines() }],
        })
    };
    let push = tidemill_segment::loki::PUSH_SCOPE;
    json!({ "resourceLogs": [of("cart", "p1", "lib"), of("cart", "p2", ""), of("shop", "p1", push), of("", "p3", "lib")] })
}

/// Stream tables give the answers that rows give, and no row is read where they do.
#[tokio::test(flavor = "multi_thread")]
async fn lines_are_counted_by_stream_tables() {
    let mut world = World::new().await;
    let mut metas = Vec::new();
    for seed in 0..3 {
        metas.extend(world.ingest(Signal::Logs, &lines_of_streams(seed)).await);
    }
    world.compact(&metas, 1).await;
    let all = r#"{k8s_pod_name=~".+"}"#;
    // Whether rows must be read every time: where lines of a stream are not alike, or windows tell them apart.
    let queries = [
        (format!("sum by (service_name) (count_over_time({all}[2h]))"), false),
        (format!("sum by (k8s_pod_name, host_arch) (rate({all}[2h]))"), false),
        (format!("sum by (service_name, k8s_pod_name) (count_over_time({all} | host_arch=\"arm\" [2h]))"), false),
        (format!("sum(count_over_time({{k8s_pod_name=\"p1\"}}[2h])) / sum(count_over_time({all}[2h]))"), false),
        (format!("absent_over_time({all} | k8s_pod_name=\"p9\" [2h])"), false),
        (
            format!("sum by (pod) (count_over_time({all} | label_format pod=k8s_pod_name | drop k8s_pod_name [2h]))"),
            false,
        ),
        ("sum(count_over_time({service_name=\"unknown_service\"}[2h]))".to_owned(), false),
        (format!("sum by (detected_level) (count_over_time({all}[2h]))"), true),
        (format!("sum by (service_name) (count_over_time({all} |= \"7\" [2h]))"), true),
        (format!("sum by (service_name) (bytes_over_time({all}[2h]))"), false),
        (
            format!(
                "sum by (k8s_pod_name) (bytes_rate({all}[2h])) / ignoring() sum by (k8s_pod_name) (rate({all}[2h]))"
            ),
            false,
        ),
        (format!("sum by (service_name) (bytes_over_time({all} |= \"7\" [2h]))"), true),
        (format!("sum by (service_name) (bytes_over_time({all} | line_format \"x\" [2h]))"), true),
        (format!("sum by (route) (count_over_time({all}[2h]))"), true),
        (format!("sum by (severity_number, k8s_pod_name) (count_over_time({all}[2h]))"), true),
        (format!("sum by (service_name) (count_over_time({all}[50m]))"), true),
    ];
    let plain = world.without_indexes();
    for (query, reads_rows) in &queries {
        let expected = numbers(&plain, query).await;
        assert!(expected.to_string().contains("value"), "{query}: nothing to compare: {expected}");
        for world in [&world.cold(), &world] {
            let found = ask(world, query).await;
            assert_eq!(found.answer.to_json(), expected, "{query}");
            let scanned = found.stats.rows_scanned;
            assert_eq!(scanned > 0, *reads_rows, "{query} scanned {scanned} rows");
            assert!(*reads_rows || found.stats.requests <= 1, "{query}: a footer and its streams are read together");
        }
    }
    let shop = "sum by (k8s_pod_name) (count_over_time({service_name=\"shop\"}[2h]))";
    let found = ask(&world, shop).await;
    assert_eq!((found.answer.to_json(), found.stats.rows_scanned), (numbers(&plain, shop).await, 0));
    // Of OTLP alone the level is the stream's.
    let levels = "sum by (detected_level, service_name) (count_over_time({service_name=~\".+\"}[2h]))";
    let mut otlp = World::new().await;
    let mut lines = lines_of_streams(0);
    let resources = lines["resourceLogs"].as_array_mut().expect("a list");
    resources.remove(2);
    for record in resources.iter_mut().flat_map(|own| own["scopeLogs"][0]["logRecords"].as_array_mut().expect("a list"))
    {
        record["attributes"] = json!([]);
    }
    let metas = otlp.ingest(Signal::Logs, &lines).await;
    otlp.compact(&metas, 1).await;
    let expected = numbers(&otlp.without_indexes(), levels).await;
    let found = ask(&otlp, levels).await;
    assert_eq!((found.answer.to_json(), found.stats.rows_scanned), (expected, 0));
}

/// Streams are listed without reading rows of those row groups that lie in the time, and are the same.
#[tokio::test(flavor = "multi_thread")]
async fn streams_of_tables_are_those_of_rows() {
    let mut world = World::new().await;
    let mut metas = world.ingest(Signal::Logs, &lines_of_streams(0)).await;
    metas = world.compact(&metas, 1).await;
    world.ingest(Signal::Logs, &lines_with_labels(1)).await;
    let plain = world.without_indexes();
    let matchers = |text: &str| tidemill_lang::logql::parse_matchers(text).expect("a selector");
    let end = metas[0].time.end.0;
    for selectors in [vec![], vec![matchers("{k8s_pod_name=\"p1\"}"), matchers("{service_name=~\"un.*\"}")]] {
        for (start, end) in
            [(START_NS, START_NS + 7_200 * SECOND_NS), (START_NS + 600 * SECOND_NS, end), (START_NS, end - 1)]
        {
            let time = TimeRange { start: TimestampNs(start), end: TimestampNs(end) };
            let hour = StreamTotals::Every(3_600 * SECOND_NS);
            for totals in [StreamTotals::Unneeded, StreamTotals::Whole, hour, StreamTotals::Every(60 * SECOND_NS)] {
                let mut found = Vec::new();
                for of in [&world, &world, &plain] {
                    let limits = QueryLimits::default();
                    let asked = of.engine.logql_streams(of.organization, selectors.clone(), time, totals, limits);
                    found.push(asked.await.expect("streams").streams);
                }
                assert!(!found[0].is_empty());
                assert_eq!(found[0], found[2], "{totals:?} of {selectors:?} from {start} to {end}");
                assert_eq!(found[1], found[2], "{totals:?} of {selectors:?} from {start} to {end} again");
            }
        }
    }
    let time = TimeRange { start: TimestampNs(START_NS), end: TimestampNs(metas[0].time.end.0) };
    let limits = QueryLimits::default();
    for totals in [StreamTotals::Unneeded, StreamTotals::Whole] {
        let again = world.engine.logql_streams(world.organization, vec![], time, totals, limits).await;
        let read = again.expect("streams").stats;
        assert!(read.rows_scanned < 600, "{} rows, of level 0 alone", read.rows_scanned);
    }
}
