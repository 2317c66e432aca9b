//! TraceQL and traces by id over segments: what is read, and that indexes, levels and partitions change no answer.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tidemill_eval::traceql::{MetricsParams, SearchParams};
use tidemill_lang::traceql::parse;
use tidemill_query::QueryLimits;
use tidemill_types::{SegmentMeta, Signal, TimeRange};

use crate::world::{SECOND_NS, START_NS, World, attribute};

/// Spans of some traces over an hour from `hour`; values of attributes have several types.
fn request(random: &mut StdRng, hour: i64, traces: std::ops::Range<u32>) -> Value {
    let mut spans = Vec::new();
    for trace in traces {
        let trace_id =
            format!("{:032x}", u128::from(trace + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        let start = START_NS + (hour * 3_600 + random.random_range(0..3_600)) * SECOND_NS;
        let count = random.random_range(1..6);
        for number in 0..count {
            let time = start + i64::from(number) * SECOND_NS / 10;
            let value = match random.random_range(0..6) {
                0 => json!(number),
                1 => json!(f64::from(number) + 0.5),
                2 => json!(number.to_string()),
                3 => json!(number % 2 == 0),
                4 => json!({ "arrayValue": { "values": [{ "intValue": number.to_string() }, { "intValue": "2" }] } }),
                _ => json!("text"),
            };
            let parent = if number == 0 { String::new() } else { format!("{:016x}", random.random_range(1..=number)) };
            spans.push(json!({
                "traceId": trace_id,
                "spanId": format!("{:016x}", number + 1),
                "parentSpanId": parent,
                "name": format!("step {}", number % 3),
                "kind": random.random_range(0..6),
                "startTimeUnixNano": time.to_string(),
                "endTimeUnixNano": (time + random.random_range(0..5) * SECOND_NS / 7).to_string(),
                "status": { "code": random.random_range(0..3) },
                "attributes": [attribute("mixed", value), attribute("number", json!(number))],
            }));
        }
    }
    let half = spans.split_off(spans.len() / 2);
    let resource = |name: &str, spans: Vec<Value>| {
        json!({
            "resource": { "attributes": [attribute("service.name", json!(name)), attribute("region", json!("eu"))] },
            "scopeSpans": [{ "scope": { "name": "scope" }, "spans": spans }],
        })
    };
    json!({ "resourceSpans": [resource("one", spans), resource("two", half)] })
}

async fn world(seed: u64) -> World {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new().await;
    let mut metas: Vec<SegmentMeta> = Vec::new();
    for hour in 0..6 {
        let traces = u32::try_from(hour).expect("small") * 30;
        let request = request(&mut random, hour, traces..traces + 30);
        metas.extend(world.ingest(Signal::Traces, &request).await);
    }
    // Some merged, some as they came.
    world.compact(&metas[..3], 1).await;
    world
}

async fn search(world: &World, query: &str, limit: usize) -> Value {
    let params =
        SearchParams { start_ns: START_NS, end_ns: START_NS + 6 * 3_600 * SECOND_NS, limit, spans_per_spanset: 0 };
    let parsed = parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let found = world.engine.search_traces(world.organization, parsed, params, QueryLimits::default()).await;
    let found = found.unwrap_or_else(|error| panic!("{query}: {error}"));
    found.answer.iter().map(|trace| trace.to_json()).collect()
}

async fn metrics(world: &World, query: &str) -> Value {
    let params =
        MetricsParams { start_ns: START_NS, end_ns: START_NS + 6 * 3_600 * SECOND_NS, step_ns: Some(600 * SECOND_NS) };
    let parsed = parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let found = world.engine.trace_metrics(world.organization, parsed, params, QueryLimits::default()).await;
    let mut answer = found.unwrap_or_else(|error| panic!("{query}: {error}")).answer.to_json();
    // Which spans stand for others depends on the order of reading.
    for series in answer["series"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        series.remove("exemplars");
    }
    answer
}

/// Conditions of every kind, of which some can be asked of segments.
const CONDITIONS: [&str; 24] = [
    "span.mixed = 2",
    "span.mixed > 1",
    "span.mixed < 2.5",
    "span.mixed = 0.5",
    "span.mixed = 0",
    "span.mixed = `2`",
    "span.mixed =~ `t.*`",
    "span.mixed = true",
    "span.mixed != 2",
    "span.mixed != nil",
    "span.mixed = nil",
    "!(span.mixed = 2)",
    "span.number >= 2",
    "span.number = 1.0",
    ".region = `eu`",
    ".number = 3",
    "resource.service.name = `one`",
    "resource.service.name != `one`",
    "status = error",
    "kind != server",
    "duration < 200ms",
    "name = `step 1` || statusMessage = ``",
    "rootName = `step 0` && span:parentID != ``",
    "2 < span.number",
];

#[tokio::test]
async fn conditions_asked_of_segments_change_no_answer() {
    let world = world(5).await;
    let mut answered = 0;
    for condition in CONDITIONS {
        let query = format!("{{ {condition} }}");
        let asked = search(&world, &query, 1_000).await;
        // Nothing is asked of the segments, and the same holds of the spans.
        let plain = search(&world, &format!("{{ true }} | {query}"), 1_000).await;
        let evaluated = search(&world, &format!("{{ !(!({condition})) }}"), 1_000).await;
        let ids = |answer: &Value| -> Vec<Value> {
            answer.as_array().expect("a list").iter().map(|trace| trace["traceID"].clone()).collect()
        };
        assert_eq!(ids(&asked), ids(&evaluated), "{condition}");
        assert_eq!(ids(&asked), ids(&plain), "{condition}");
        answered += ids(&asked).len();
        for limit in [1, 7] {
            let few = search(&world, &query, limit).await;
            let most = ids(&asked).len().min(limit);
            assert_eq!(ids(&few), ids(&asked)[..most], "{condition}, {limit} traces");
        }
        let counted = metrics(&world, &format!("{{ {condition} }} | count_over_time() by (span.mixed)")).await;
        let whole = metrics(&world, &format!("{{ !(!({condition})) }} | count_over_time() by (span.mixed)")).await;
        assert_eq!(counted, whole, "{condition}");
        // What looks at traces counts the same spans.
        let traces =
            metrics(&world, &format!("({{ {condition} && nestedSetLeft >= 0 }}) | count_over_time() by (span.mixed)"))
                .await;
        assert_eq!(counted, traces, "{condition}");
    }
    assert!(answered > 1_000, "{answered}");
}

#[tokio::test]
async fn levels_change_no_answer() {
    let mut world = world(9).await;
    let queries = ["{ span.number = 2 } >> { }", "{ } | count() > 3", "{ } && { status = error } | by(name)"];
    let mut before = Vec::new();
    for query in queries {
        before.push(search(&world, query, 1_000).await);
    }
    let series = metrics(&world, "{ } | quantile_over_time(duration, .5, .9) by (resource.service.name)").await;
    let live = tidemill_store::Metastore::segments(&*world.metastore, &Default::default()).await.expect("lists");
    let live: Vec<SegmentMeta> = live.into_iter().filter(|meta| meta.signal == Signal::Traces).collect();
    world.compact(&live, 2).await;
    for (query, before) in queries.into_iter().zip(before) {
        assert_eq!(search(&world, query, 1_000).await, before, "{query}");
        assert!(!before.as_array().expect("a list").is_empty(), "{query}");
    }
    assert_eq!(metrics(&world, "{ } | quantile_over_time(duration, .5, .9) by (resource.service.name)").await, series);
}

#[tokio::test]
async fn a_trace_comes_back_as_it_was_sent() {
    let mut world = World::new().await;
    let value = |kind: &str, value: Value| json!({ "key": kind, "value": { kind: value } });
    let attributes = json!([
        value("arrayValue", json!({ "values": [{ "stringValue": "x" }, { "doubleValue": 2.0 }] })),
        value("boolValue", json!(true)),
        value("bytesValue", json!("AP8=")),
        value("doubleValue", json!(7.0)),
        value("intValue", json!("-9223372036854775808")),
        value("kvlistValue", json!({ "values": [{ "key": "k", "value": { "intValue": "1" } }] })),
        value("stringValue", json!("")),
    ]);
    let id = "000102030405060708090a0b0c0d0e0f";
    let span = json!({
        "traceId": id, "spanId": "0102030405060708", "parentSpanId": "1112131415161718", "traceState": "a=b", "flags": 257,
        "name": "n", "kind": 3, "startTimeUnixNano": START_NS.to_string(), "endTimeUnixNano": (START_NS + 5).to_string(),
        "attributes": attributes, "droppedAttributesCount": 1, "droppedEventsCount": 2, "droppedLinksCount": 3,
        "events": [{ "timeUnixNano": (START_NS + 1).to_string(), "name": "e", "attributes": attributes, "droppedAttributesCount": 4 }],
        "links": [{ "traceId": "0f0e0d0c0b0a09080706050403020100", "spanId": "0807060504030201", "traceState": "c=d", "flags": 1,
            "attributes": attributes, "droppedAttributesCount": 5 }],
        "status": { "code": 2, "message": "m" },
    });
    let request = json!({ "resourceSpans": [{
        "resource": { "attributes": attributes, "droppedAttributesCount": 6 },
        "schemaUrl": "https://one",
        "scopeSpans": [{ "scope": { "name": "s", "version": "1", "attributes": attributes, "droppedAttributesCount": 7 },
            "schemaUrl": "https://two", "spans": [span] }],
    }] });
    let body = serde_json::to_vec(&request).expect("JSON");
    let sent = tidemill_segment::push::check_push(Signal::Traces, tidemill_segment::push::PushEncoding::Json, &body);
    let sent = sent.expect("is well-formed").protobuf.expect("JSON becomes protobuf");
    let sent: opentelemetry_proto::tonic::trace::v1::TracesData = prost::Message::decode(&sent[..]).expect("is OTLP");
    let metas = world.ingest(Signal::Traces, &request).await;
    let mut bytes = [0; 16];
    hex::decode_to_slice(id, &mut bytes).expect("an id");
    for level in [0, 1, 2] {
        let found = world.engine.trace(world.organization, bytes, TimeRange::ALL, QueryLimits::default()).await;
        assert_eq!(found.expect("answers").answer.expect("is there"), sent, "level {level}");
        if level < 2 {
            let live =
                tidemill_store::Metastore::segments(&*world.metastore, &Default::default()).await.expect("lists");
            assert_eq!(live.len(), metas.len());
            world.compact(&live, level + 1).await;
        }
    }
    let other = crate::world::organization(2);
    let strange = world.engine.trace(other, bytes, TimeRange::ALL, QueryLimits::default()).await.expect("answers");
    assert_eq!(strange.answer, None);
}
