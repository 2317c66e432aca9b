//! Metrics and spans in SQL, and samples that were sent more than once.

use crate::world::{SECOND_NS, START_NS, World, attribute};
use serde_json::{Value, json};
use tidemill_query::QueryLimits;
use tidemill_query::scan::{Matcher, MatcherTarget, RowRequest};
use tidemill_query::{AttributeKey, AttributeScope};
use tidemill_types::{Signal, TimeRange, TimestampNs};

fn gauge(host: &str, points: &[(i64, f64)]) -> Value {
    let points: Vec<Value> = points
        .iter()
        .map(|(second, value)| {
            json!({
                "timeUnixNano": (START_NS + second * SECOND_NS).to_string(),
                "asDouble": value,
                "attributes": [attribute("cpu", json!("0"))],
            })
        })
        .collect();
    json!({ "resourceMetrics": [{
        "resource": { "attributes": [attribute("service.name", json!("agent")), attribute("host.name", json!(host))] },
        "scopeMetrics": [{ "metrics": [{ "name": "system.load", "unit": "1", "gauge": { "dataPoints": points } }] }],
    }] })
}

#[tokio::test]
async fn of_equal_series_and_time_the_last_arrival_counts() {
    let mut world = World::new().await;
    let day = 86_400 * SECOND_NS;
    let owner = world.organization;
    let late = gauge("one", &[(10, 5.0), (20, 6.0)]);
    let early = gauge("one", &[(10, 1.0), (30, 3.0), (30, 4.0)]);
    let mut metas = world.ingest_for(owner, Signal::Metrics, &late, START_NS + day + 2).await;
    metas.extend(world.ingest_for(owner, Signal::Metrics, &early, START_NS + day + 1).await);
    world.ingest_for(owner, Signal::Metrics, &gauge("two", &[(10, 9.0)]), START_NS + day + 3).await;
    for level in ["as it arrived", "compacted"] {
        let (rows, _) = world
            .sql("SELECT resource('host.name'), value FROM metrics WHERE name = 'system.load' ORDER BY time, 1")
            .await;
        assert_eq!(rows, [["one", "5.0"], ["two", "9.0"], ["one", "6.0"], ["one", "4.0"]], "{level}");
        // A condition on values is applied after the last arrival is known.
        assert_eq!(world.value("SELECT count(*) FROM metrics WHERE value < 2").await, "0", "{level}");
        assert_eq!(world.value("SELECT count(*) FROM metrics").await, "4", "{level}");
        if level == "as it arrived" {
            world.compact(&metas, 1).await;
        }
    }
}

/// A counter that began anew after 30 s, a histogram of two points, and an exponential one.
fn counter_and_histograms(host: &str) -> Value {
    let at = |second: i64| (START_NS + second * SECOND_NS).to_string();
    let counts = [(0, 10.0), (10, 14.0), (20, 20.0), (30, 3.0), (40, 5.0)];
    let counts = counts.map(|(second, value)| json!({ "timeUnixNano": at(second), "asDouble": value }));
    let histogram = |second: i64, counts: [u32; 3]| {
        let all: u32 = counts.iter().sum();
        json!({
            "timeUnixNano": at(second), "count": all.to_string(), "sum": 1.0,
            "bucketCounts": counts.map(|count| count.to_string()), "explicitBounds": [1.0, 2.0],
        })
    };
    let exponential = json!({
        "timeUnixNano": at(0), "count": "4", "sum": 9.0, "scale": 0, "zeroCount": "0",
        "positive": { "offset": 0, "bucketCounts": ["2", "2"] },
    });
    let points = [histogram(0, [1, 1, 0]), histogram(10, [1, 3, 2])];
    json!({ "resourceMetrics": [{
        "resource": { "attributes": [attribute("host.name", json!(host))] },
        "scopeMetrics": [{ "metrics": [
            { "name": "requests", "sum": { "aggregationTemporality": 2, "isMonotonic": true, "dataPoints": counts } },
            { "name": "seconds", "histogram": { "aggregationTemporality": 2, "dataPoints": points } },
            { "name": "fine", "exponentialHistogram": { "aggregationTemporality": 2, "dataPoints": [exponential] } },
        ] }],
    }] })
}

#[tokio::test]
async fn counters_and_histograms_have_functions() {
    let mut world = World::new().await;
    world.ingest(Signal::Metrics, &counter_and_histograms("one")).await;
    world.ingest(Signal::Metrics, &counter_and_histograms("two")).await;
    let growth = "SELECT resource('host.name'), increase(time, value), rate(time, value) FROM metrics \
                  WHERE name = 'requests' GROUP BY 1, series ORDER BY 1";
    // Ten up to 20, then from zero to 5, in 40 s.
    let (rows, _) = world.sql(growth).await;
    assert_eq!(rows, [["one", "15.0", "0.375"], ["two", "15.0", "0.375"]]);
    let moving = "SELECT increase(time, value) OVER (PARTITION BY series ORDER BY time ROWS 1 PRECEDING) FROM metrics \
                  WHERE name = 'requests' AND resource('host.name') = 'one' ORDER BY time";
    let (rows, _) = world.sql(moving).await;
    assert_eq!(rows, [["NULL"], ["4.0"], ["6.0"], ["3.0"], ["2.0"]]);
    // Of 4 + 8 + 4 values the eighth lies in the middle of the bucket up to 2.
    let (rows, _) = world
        .sql(
            "SELECT histogram_quantile(0.5, sum_counts(bucket_counts), explicit_bounds), sum_counts(bucket_counts) \
              FROM metrics WHERE name = 'seconds' GROUP BY explicit_bounds",
        )
        .await;
    assert_eq!(rows, [["1.5", "[4, 8, 4]"]]);
    let exponential = |q: &str| {
        format!(
            "SELECT exponential_histogram_quantile({q}, scale, zero_count, zero_threshold, positive_offset, \
             positive_counts, negative_offset, negative_counts) FROM metrics WHERE name = 'fine' LIMIT 1"
        )
    };
    assert_eq!(world.value(&exponential("0.5")).await, "2.0", "the bound between (1, 2] and (2, 4]");
    assert_eq!(world.value(&exponential("1")).await, "4.0");
    let lone = "SELECT rate(time, value) FROM metrics WHERE name = 'requests' AND value = 14";
    assert_eq!(world.value(lone).await, "NULL", "one point of each host, at one time");
    let problem = world.problem("SELECT histogram_quantile(0.5, value, value) FROM metrics").await.to_string();
    assert!(problem.contains("bucket_counts and explicit_bounds"), "{problem}");
}

#[tokio::test]
async fn evaluators_read_rows_without_sql() {
    let mut world = World::new().await;
    world.ingest(Signal::Metrics, &gauge("one", &[(10, 1.0), (20, 2.0), (90, 3.0)])).await;
    world.ingest(Signal::Metrics, &gauge("two", &[(10, 7.0)])).await;
    let host = AttributeKey { scope: AttributeScope::Resource, key: "host.name".to_owned() };
    let request = RowRequest {
        signal: Signal::Metrics,
        time: TimeRange { start: TimestampNs(START_NS), end: TimestampNs(START_NS + 60 * SECOND_NS) },
        matchers: vec![
            Matcher::In(MatcherTarget::Column("name".to_owned()), vec!["system.load".to_owned()]),
            Matcher::NotIn(MatcherTarget::Attribute(host.clone()), vec!["two".to_owned()]),
            Matcher::Regex(MatcherTarget::Column("service_name".to_owned()), "^ag.nt$".to_owned()),
        ],
        columns: vec!["value".to_owned(), "series".to_owned()],
        attributes: vec![host],
        limit: None,
    };
    let stream = world.engine.rows(world.organization, request.clone(), QueryLimits::default()).await.expect("it runs");
    let mut rows = crate::world::rows(&stream.collect().await.expect("it ends"));
    rows.sort();
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[0][0].as_str(), rows[1][0].as_str(), rows[0][2].as_str()), ("1.0", "2.0", "one"));
    assert_eq!(rows[0][1], rows[1][1]);
    let wrong = RowRequest { columns: vec!["no".to_owned()], ..request };
    let error = world.engine.rows(world.organization, wrong, QueryLimits::default()).await.expect_err("no such column");
    assert!(error.to_string().contains("no column \"no\""), "{error}");
}

#[tokio::test]
async fn spans_have_their_parts() {
    let mut world = World::new().await;
    let span = json!({
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "parentSpanId": "eee19b7ec3c1b173",
        "name": "GET /", "kind": 2, "startTimeUnixNano": START_NS.to_string(),
        "endTimeUnixNano": (START_NS + 1_500).to_string(), "status": { "code": 2, "message": "no" },
        "attributes": [attribute("http.response.status_code", json!(500))],
        "events": [{ "timeUnixNano": START_NS.to_string(), "name": "exception", "attributes": [] }],
    });
    let request = json!({ "resourceSpans": [{
        "resource": { "attributes": [attribute("service.name", json!("web"))] },
        "scopeSpans": [{ "scope": { "name": "http" }, "spans": [span] }],
    }] });
    let metas = world.ingest(Signal::Traces, &request).await;
    for _ in 0..2 {
        let (rows, _) = world
            .sql(
                "SELECT trace_id, parent_span_id, name, kind, duration_ns, status_code, attr('http.response.status_code'), \
                 events[1]['name'] FROM spans WHERE trace_id = '5b8efff798038103d269b633813fc60c' AND attr('http.response.status_code') >= 500",
            )
            .await;
        let expected = [
            "5b8efff798038103d269b633813fc60c",
            "eee19b7ec3c1b173",
            "GET /",
            "server",
            "1500",
            "error",
            "500",
            "exception",
        ];
        assert_eq!(rows, [expected]);
        assert_eq!(
            world.value("SELECT count(*) FROM spans WHERE trace_id = '5b8efff798038103d269b633813fc60d'").await,
            "0"
        );
        if world.metastore_has(&metas[0]).await {
            world.compact(&metas, 1).await;
        }
    }
}
