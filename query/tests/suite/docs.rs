//! Every example of docs/sql.md runs, and those that show rows find some.

use crate::world::{SECOND_NS, START_NS, World, attribute, log, logs};
use serde_json::json;
use tidemill_types::Signal;

const TRACE: &str = "5b8efff798038103d269b633813fc60c";

async fn example_world() -> World {
    let mut world = World::new().await;
    let records = (0..20).map(|number: i64| {
        let attributes = vec![attribute("number", json!(number)), attribute("path", json!("/a"))];
        let mut record = log(START_NS + number * SECOND_NS, &format!("request {number} done"), attributes);
        record["traceId"] = json!(TRACE);
        record
    });
    world.ingest(Signal::Logs, &logs("api", records.collect())).await;
    let span = json!({
        "traceId": TRACE, "spanId": "eee19b7ec3c1b174", "name": "GET /", "kind": 2,
        "startTimeUnixNano": START_NS.to_string(), "endTimeUnixNano": (START_NS + 1_500).to_string(),
        "attributes": [attribute("http.response.status_code", json!(500))],
    });
    let spans = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] });
    world.ingest(Signal::Traces, &spans).await;
    let point = json!({ "timeUnixNano": START_NS.to_string(), "asDouble": 0.5 });
    let at = |second: i64| (START_NS + second * SECOND_NS).to_string();
    let counts: Vec<_> = (0..3).map(|at_s| json!({ "timeUnixNano": at(at_s), "asDouble": 2 * at_s })).collect();
    let histogram = json!({
        "timeUnixNano": at(0), "count": "3", "sum": 4.0, "bucketCounts": ["1", "1", "1"], "explicitBounds": [1.0, 2.0],
    });
    let exponential = json!({
        "timeUnixNano": at(0), "count": "4", "sum": 9.0, "scale": 0, "zeroCount": "1",
        "positive": { "offset": 0, "bucketCounts": ["1", "2"] },
    });
    let metrics = json!({ "resourceMetrics": [{
        "resource": { "attributes": [attribute("host.name", json!("one"))] },
        "scopeMetrics": [{ "metrics": [
            { "name": "system.load", "gauge": { "dataPoints": [point] } },
            { "name": "requests", "sum": { "aggregationTemporality": 2, "isMonotonic": true, "dataPoints": counts } },
            { "name": "seconds", "histogram": { "aggregationTemporality": 2, "dataPoints": [histogram] } },
            { "name": "fine", "exponentialHistogram": { "aggregationTemporality": 2, "dataPoints": [exponential] } },
        ] }],
    }] });
    world.ingest(Signal::Metrics, &metrics).await;
    world
}

#[tokio::test]
async fn the_examples_run() {
    let page = include_str!("../../../docs/sql.md");
    let examples: Vec<&str> =
        page.split("```sql\n").skip(1).map(|rest| rest.split("```").next().expect("it is closed")).collect();
    assert!(examples.len() >= 8, "{}", examples.len());
    let world = example_world().await;
    for example in examples {
        let (rows, stats) = world.sql(example).await;
        assert!(!rows.is_empty(), "no rows: {example}");
        assert!(stats.warnings.is_empty(), "{example}: {:?}", stats.warnings);
    }
}
