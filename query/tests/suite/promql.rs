//! PromQL over segments: names, labels, kinds of metrics, repeated samples, limits.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tidemill_eval::Labels;
use tidemill_eval::promql::json::encode_answer;
use tidemill_eval::promql::{Engine, MemoryStore, selector_of};
use tidemill_query::promql::{LabelSelect, PromqlLimits, PromqlRequest};
use tidemill_types::Signal;

use crate::world::{SECOND_NS, START_NS, World, attribute, organization};

const START_MS: i64 = START_NS / 1_000_000;

async fn ask_with(world: &World, query: &str, at_s: i64, limits: PromqlLimits) -> Result<Json, tidemill_eval::Error> {
    let at = START_MS + at_s * 1_000;
    let request = PromqlRequest { query: query.to_owned(), start_ms: at, end_ms: at, step_ms: 0, lookback_ms: None };
    let answer = world.engine.promql(world.organization, request, limits).await?;
    Ok(serde_json::from_str(&encode_answer(&answer.value, &answer.notes, query)).expect("an answer is JSON"))
}

/// The series of an instant query with their values, as `name{labels} value`.
async fn ask(world: &World, query: &str, at_s: i64) -> Vec<String> {
    let answer = ask_with(world, query, at_s, PromqlLimits::default()).await;
    let answer = answer.unwrap_or_else(|error| panic!("{query}: {error}"));
    let mut lines: Vec<String> = answer["data"]["result"]
        .as_array()
        .unwrap_or_else(|| panic!("{query}: {answer}"))
        .iter()
        .map(|series| {
            let pairs = series["metric"].as_object().expect("labels").iter();
            let pairs = pairs.map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()));
            let labels = Labels::of(pairs);
            format!("{labels} {}", series["value"][1].as_str().unwrap_or("histogram"))
        })
        .collect();
    lines.sort();
    lines
}

fn point(second: i64, more: Json) -> Json {
    let mut point = json!({
        "timeUnixNano": (START_NS + second * SECOND_NS).to_string(),
        "attributes": [attribute("http.method", json!("GET"))],
    });
    point.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    point
}

fn metrics(metrics: Json) -> Json {
    let resource = [
        ("service.name", "cart"),
        ("service.namespace", "shop"),
        ("service.instance.id", "i-1"),
        ("k8s.pod.name", "cart-0"),
        ("os.type", "linux"),
    ];
    let resource: Vec<Json> = resource.iter().map(|(key, value)| attribute(key, json!(value))).collect();
    json!({ "resourceMetrics": [{
        "resource": { "attributes": resource },
        "scopeMetrics": [{ "scope": { "name": "lib" }, "metrics": metrics }],
    }] })
}

/// One metric of each kind, at 10 s and 20 s.
fn all_kinds() -> Json {
    let counts = |at: u64| {
        let rise = at / 10;
        json!({
            "count": (4 * rise).to_string(), "sum": 10.0 * rise as f64,
            "bucketCounts": [rise.to_string(), (2 * rise).to_string(), rise.to_string()], "explicitBounds": [0.5, 1.0],
        })
    };
    let exponential = json!({
        "count": "3", "sum": 6.0, "scale": 0, "zeroCount": "1",
        "positive": { "offset": 0, "bucketCounts": ["2"] }, "negative": { "offset": 0, "bucketCounts": [] },
    });
    let summary = json!({ "count": "7", "sum": 2.5, "quantileValues": [{ "quantile": 0.5, "value": 0.25 }] });
    let numbers =
        |values: [f64; 2]| [point(10, json!({ "asDouble": values[0] })), point(20, json!({ "asDouble": values[1] }))];
    metrics(json!([
        { "name": "queue.size", "unit": "{items}", "gauge": { "dataPoints": numbers([3.0, 4.0]) } },
        { "name": "http.requests", "unit": "1",
          "sum": { "isMonotonic": true, "aggregationTemporality": 2, "dataPoints": numbers([10.0, 30.0]) } },
        { "name": "jobs.done", "sum": { "isMonotonic": true, "aggregationTemporality": 1, "dataPoints": numbers([5.0, 6.0]) } },
        { "name": "latency", "unit": "s", "histogram": {
            "aggregationTemporality": 2, "dataPoints": [point(10, counts(10)), point(20, counts(20))] } },
        { "name": "size", "unit": "By", "exponentialHistogram": {
            "aggregationTemporality": 2, "dataPoints": [point(10, exponential.clone()), point(20, exponential)] } },
        { "name": "old", "summary": { "dataPoints": [point(20, summary)] } },
    ]))
}

const LABELS: &str = "http_method=\"GET\", instance=\"i-1\", job=\"shop/cart\", k8s_pod_name=\"cart-0\", \
                      service_instance_id=\"i-1\", ";
const REST: &str = "service_name=\"cart\", service_namespace=\"shop\"";

#[tokio::test]
async fn metrics_are_named_and_shaped_as_prometheus_receives_them() {
    let mut world = World::new().await;
    let metas = world.ingest(Signal::Metrics, &all_kinds()).await;
    for level in [0, 1, 2] {
        let own = |name: &str, more: &str, value: &str| {
            // `le` and `quantile` stand among the others by name.
            match more {
                "" => format!("{name}{{{LABELS}{REST}}} {value}"),
                le if le.starts_with("le") => format!("{name}{{{LABELS}{REST}}} {value}")
                    .replace("service_instance_id", &format!("{le}, service_instance_id")),
                quantile => format!("{name}{{{LABELS}{REST}}} {value}")
                    .replace("service_instance_id", &format!("{quantile}, service_instance_id")),
            }
        };
        assert_eq!(ask(&world, "queue_size", 20).await, [own("queue_size", "", "4")], "level {level}");
        assert_eq!(ask(&world, "http_requests_total", 15).await, [own("http_requests_total", "", "10")]);
        assert_eq!(
            ask(&world, "latency_seconds_bucket", 20).await,
            [
                own("latency_seconds_bucket", "le=\"+Inf\"", "8"),
                own("latency_seconds_bucket", "le=\"0.5\"", "2"),
                own("latency_seconds_bucket", "le=\"1\"", "6"),
            ]
        );
        assert_eq!(ask(&world, "latency_seconds_bucket{le=\"1\"}", 20).await.len(), 1);
        assert_eq!(ask(&world, "latency_seconds_sum", 20).await, [own("latency_seconds_sum", "", "20")]);
        assert_eq!(ask(&world, "latency_seconds_count", 10).await, [own("latency_seconds_count", "", "4")]);
        assert_eq!(ask(&world, "old{quantile=\"0.5\"}", 20).await, [own("old", "quantile=\"0.5\"", "0.25")]);
        assert_eq!(ask(&world, "old_count", 20).await, [own("old_count", "", "7")]);
        assert_eq!(ask(&world, "sum(histogram_count(size_bytes))", 20).await, ["{} 3"]);
        assert_eq!(ask(&world, "sum(histogram_fraction(1, 2, size_bytes))", 20).await, ["{} 0.6666666666666666"]);
        // The name as it was sent, and attributes under theirs.
        let sent = ask(&world, "{\"http.requests\", \"http.method\"=\"GET\"}", 20).await;
        assert_eq!(sent.len(), 1);
        assert!(sent[0].starts_with("{\"http.requests\"") && sent[0].ends_with(" 30"), "{sent:?}");
        assert_eq!(ask(&world, "{\"http.requests\", \"http.method\"=\"PUT\"}", 20).await, [""; 0]);
        assert_eq!(
            ask(&world, "target_info", 20).await,
            ["target_info{instance=\"i-1\", job=\"shop/cart\", k8s_pod_name=\"cart-0\", os_type=\"linux\"} 1"]
        );
        // Deltas are added up, and their raw values are told to be such.
        assert_eq!(ask(&world, "sum(increase(jobs_done_total[15s]))", 20).await, ["{} 11"]);
        assert_eq!(ask(&world, "sum(rate(jobs_done_total[10s]))", 20).await, ["{} 0.6"]);
        let raw = ask_with(&world, "jobs_done_total", 20, PromqlLimits::default()).await.expect("is answered");
        assert!(raw["infos"][0].as_str().is_some_and(|info| info.contains("delta temporality")), "{raw}");
        if level == 0 {
            let merged = world.compact(&metas, 1).await;
            world.compact(&merged, 2).await;
        }
    }
}

#[tokio::test]
async fn of_equal_series_and_time_the_last_arrival_counts_and_stale_series_end() {
    let mut world = World::new().await;
    let gauge = |points: Json| metrics(json!([{ "name": "load", "gauge": { "dataPoints": points } }]));
    let owner = world.organization;
    let day = 86_400 * SECOND_NS;
    let late = gauge(json!([point(10, json!({ "asDouble": 5.0 })), point(20, json!({ "asDouble": 6.0 }))]));
    let early = gauge(json!([point(10, json!({ "asDouble": 1.0 })), point(40, json!({ "flags": 1 }))]));
    let mut metas = world.ingest_for(owner, Signal::Metrics, &late, START_NS + day + 2).await;
    metas.extend(world.ingest_for(owner, Signal::Metrics, &early, START_NS + day + 1).await);
    for level in ["as it arrived", "compacted"] {
        assert_eq!(ask(&world, "sum(load)", 12).await, ["{} 5"], "{level}");
        assert_eq!(ask(&world, "sum(count_over_time(load[1m]))", 60).await, ["{} 2"], "{level}");
        assert_eq!(ask(&world, "sum(load)", 39).await, ["{} 6"], "{level}");
        assert_eq!(ask(&world, "load", 41).await, [""; 0], "{level}: a stale series has ended");
        if level == "as it arrived" {
            world.compact(&metas, 1).await;
        }
    }
}

/// As each bound and quantile of a point without a value says, whatever else lies in its segment.
#[tokio::test]
async fn histograms_and_summaries_end_with_all_their_series() {
    let mut world = World::new().await;
    let owner = world.organization;
    let both = |second: i64, flags: u32| {
        let counted = json!({ "count": "6", "sum": 5.0, "bucketCounts": ["1", "2", "3"], "explicitBounds": [0.5, 2.0], "flags": flags });
        let summed =
            json!({ "count": "7", "sum": 2.5, "quantileValues": [{ "quantile": 0.5, "value": 0.25 }], "flags": flags });
        metrics(json!([
            { "name": "hst", "histogram": { "aggregationTemporality": 2, "dataPoints": [point(second, counted)] } },
            { "name": "sms", "summary": { "dataPoints": [point(second, summed)] } },
        ]))
    };
    let day = 86_400 * SECOND_NS;
    let mut metas = world.ingest_for(owner, Signal::Metrics, &both(10, 0), START_NS + day + 1).await;
    metas.extend(world.ingest_for(owner, Signal::Metrics, &both(30, 1), START_NS + day + 2).await);
    for level in ["as it arrived", "compacted"] {
        assert_eq!(ask(&world, "count({__name__=~\"hst.*|sms.*\"})", 20).await, ["{} 8"], "{level}");
        assert_eq!(ask(&world, "{__name__=~\"hst.*|sms.*\"}", 40).await, [""; 0], "{level}");
        if level == "as it arrived" {
            world.compact(&metas, 1).await;
        }
    }
}

/// Memory and time of an evaluation end where its limits say.
#[tokio::test]
async fn evaluations_are_bounded_and_end_with_their_callers() {
    let mut world = World::new().await;
    world.ingest(Signal::Metrics, &all_kinds()).await;
    let doubled = (0..40).fold("queue_size".to_owned(), |inner, _| {
        format!("label_replace({inner}, \"job\", \"$1$1\", \"job\", \"(.*)\")")
    });
    for query in [
        "max_over_time(queue_size[290y:1ms])",
        "count_over_time(nothing[290y:1ms])",
        "count_over_time(queue_size[30d:1ms])",
        &doubled,
    ] {
        let refused = ask_with(&world, query, 20, PromqlLimits::default()).await.expect_err("is refused");
        assert!(matches!(refused, tidemill_eval::Error::Limit(_)), "{query}: {refused}");
    }
    let endless = "max_over_time(max_over_time(vector(1)[1d:1s])[1d:1s])";
    let (asked, long) = (Instant::now(), Duration::from_secs(10));
    let limits = PromqlLimits { time: Duration::from_millis(200), concurrency: 1, ..PromqlLimits::default() };
    assert!(ask_with(&world, endless, 20, limits).await.is_err());
    let limits = PromqlLimits { concurrency: 1, ..PromqlLimits::default() };
    while ask_with(&world, "1", 20, limits).await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(asked.elapsed() < long, "it goes on after its time");
    }
    let left = tokio::time::timeout(Duration::from_millis(200), ask_with(&world, endless, 20, limits));
    assert!(left.await.is_err());
    while ask_with(&world, "1", 20, limits).await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(asked.elapsed() < long, "it goes on without its caller");
    }
}

/// Under the name as it was sent two metrics of the same labels would be one series.
#[tokio::test]
async fn metrics_that_share_their_sent_name_are_not_mixed() {
    let mut world = World::new().await;
    let sum = |unit: &str, value: f64, second: i64| {
        json!({ "name": "mrg.bytes", "unit": unit, "sum": { "isMonotonic": true, "aggregationTemporality": 2,
                "dataPoints": [point(second, json!({ "asDouble": value }))] } })
    };
    world.ingest(Signal::Metrics, &metrics(json!([sum("s", 10.0, 10)]))).await;
    assert_eq!(ask(&world, "sum({\"mrg.bytes\"})", 20).await, ["{} 10"]);
    world.ingest(Signal::Metrics, &metrics(json!([sum("{x}", 1000.0, 15)]))).await;
    let mixed =
        ask_with(&world, "{\"mrg.bytes\"}", 20, PromqlLimits::default()).await.expect_err("says which there are");
    let told = std::error::Error::source(&mixed).map(ToString::to_string).unwrap_or_default();
    assert!(told.contains("mrg_bytes_total") && told.contains("mrg_bytes_seconds_total"), "{told}");
    assert_eq!(ask(&world, "sum(mrg_bytes_seconds_total)", 20).await, ["{} 10"]);
}

#[tokio::test]
async fn limits_say_what_to_narrow_and_organizations_see_their_own() {
    let mut world = World::new().await;
    world.ingest(Signal::Metrics, &all_kinds()).await;
    let most = PromqlLimits::default();
    for (limits, word) in [
        (PromqlLimits { series: 0, ..most }, "promql.max_series"),
        (PromqlLimits { samples: 1, ..most }, "promql.max_samples"),
        (PromqlLimits { memory: 1, ..most }, "promql.memory"),
        (PromqlLimits { bytes: 1, ..most }, "promql.max_bytes"),
    ] {
        let cold = world.cold();
        let error = ask_with(&cold, "{job=\"shop/cart\"}", 20, limits).await.expect_err(word);
        assert!(matches!(&error, tidemill_eval::Error::Limit(text) if text.contains(word)), "{error}");
    }
    // Few samples, and many values of them.
    let (query, start_ms) = ("{job=\"shop/cart\"}".to_owned(), START_MS + 20_000);
    let request = PromqlRequest { query, start_ms, end_ms: start_ms + 10_000, step_ms: 1, lookback_ms: None };
    let limits = PromqlLimits { memory: 100_000, ..most };
    let error = world.engine.promql(world.organization, request.clone(), limits).await.expect_err("is too much");
    assert!(error.to_string().contains("take a longer step"), "{error}");
    world.engine.promql(world.organization, request, most).await.expect("fits");
    world.organization = organization(2);
    assert_eq!(ask(&world, "{__name__=~\".+\"}", 20).await, [""; 0]);
}

#[tokio::test]
async fn series_labels_and_metadata_are_listed() {
    let mut world = World::new().await;
    let metas = world.ingest(Signal::Metrics, &all_kinds()).await;
    for level in [0, 1] {
        let select = |text: &str| LabelSelect {
            selectors: vec![selector_of(text).expect("a selector")],
            start_ms: START_MS,
            end_ms: START_MS + 60_000,
        };
        let list = async |text: &str| {
            world
                .engine
                .promql_series(world.organization, select(text), PromqlLimits::default())
                .await
                .expect("lists")
                .0
        };
        assert_eq!(list("{job=\"shop/cart\",__name__=~\"latency.*\"}").await.len(), 5, "level {level}");
        assert_eq!(list("{__name__=\"target_info\"}").await.len(), 1);
        let times = (START_MS, START_MS + 60_000);
        let told = world.engine.promql_metadata(world.organization, None, times, PromqlLimits::default()).await;
        let told = told.expect("is told");
        let kind = |name: &str| told[name].first().map(|entry| entry.kind);
        assert_eq!(
            ["http_requests_total", "latency_seconds", "old", "queue_size", "target_info"].map(kind),
            ["counter", "histogram", "summary", "gauge", "gauge"].map(Some)
        );
        let unit = |name: &str| told[name].first().map(|entry| entry.unit.as_str());
        assert_eq!(
            ["http_requests_total", "latency_seconds", "size_bytes", "queue_size"].map(unit),
            ["", "seconds", "bytes", ""].map(Some)
        );
        if level == 0 {
            world.compact(&metas, 1).await;
        }
    }
}

#[tokio::test]
async fn exemplars_of_histograms_lie_in_their_buckets() {
    let mut world = World::new().await;
    let exemplar = |value: f64| {
        json!({ "timeUnixNano": (START_NS + 20 * SECOND_NS).to_string(), "asDouble": value,
                "traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "spanId": "00f067aa0ba902b7" })
    };
    let counted = point(
        20,
        json!({ "count": "4", "sum": 9.0, "bucketCounts": ["1", "2", "1"], "explicitBounds": [0.5, 1.0],
                "exemplars": [exemplar(0.7), exemplar(5.0), exemplar(1.0)] }),
    );
    let latency = json!({ "name": "latency", "unit": "s",
                          "histogram": { "aggregationTemporality": 2, "dataPoints": [counted] } });
    let metas = world.ingest(Signal::Metrics, &metrics(json!([latency]))).await;
    for level in [0, 1] {
        let times = (START_MS, START_MS + 60_000);
        let ask = async |text: &str| -> Vec<(String, Vec<f64>)> {
            let selectors = vec![selector_of(text).expect("a selector")];
            let found =
                world.engine.promql_exemplars(world.organization, selectors, times, PromqlLimits::default()).await;
            let found = found.expect("is answered").into_iter();
            let told = found.map(|own| {
                let mut values: Vec<f64> = own.exemplars.iter().map(|one| one.value).collect();
                values.sort_by(f64::total_cmp);
                (own.labels.get("le").to_owned(), values)
            });
            told.filter(|(_, values)| !values.is_empty()).collect()
        };
        let found = [("+Inf".to_owned(), vec![5.0]), ("1".to_owned(), vec![0.7, 1.0])];
        assert_eq!(ask("latency_seconds_bucket").await, found, "level {level}");
        assert_eq!(ask("latency_seconds_bucket{le=\"+Inf\"}").await, found[..1], "level {level}");
        assert_eq!(ask("latency_seconds_count").await, []);
        if level == 0 {
            world.compact(&metas, 1).await;
        }
    }
}

/// What a query reads, and what it matches.
async fn read(world: &World, query: &str) -> (u64, u64) {
    let at = START_MS + 20_000;
    let request = PromqlRequest { query: query.to_owned(), start_ms: at, end_ms: at, step_ms: 0, lookback_ms: None };
    let answer = world.engine.promql(world.organization, request, PromqlLimits::default()).await.expect("is answered");
    (answer.stats.row_groups_read, answer.stats.rows_matched)
}

#[tokio::test]
async fn points_are_read_once() {
    let mut world = World::new().await;
    world.ingest(Signal::Metrics, &all_kinds()).await;
    let query = "sum(min_over_time({__name__=~\"queue_size|http_requests_total\"}[7s]))";
    let (cold, matched) = read(&world, query).await;
    assert!(cold > 0 && matched > 0, "{cold} row groups, {matched} rows");
    assert_eq!(read(&world, query).await, (0, matched), "decoded points are in memory");
    // Two functions of one range, which no rollup tells, share what is read.
    let both = format!("{query} + {}", query.replace("min_over", "max_over"));
    assert_eq!(read(&world.cold(), &both).await, (cold, matched));
}

/// What is little and in memory takes another way than what is read first, or is much.
#[tokio::test]
async fn what_is_in_memory_is_answered_as_what_is_read() {
    let mut world = World::new().await;
    world.ingest(Signal::Metrics, &all_kinds()).await;
    let ask = async |world: &World, query: &str, (start_s, step_s): (i64, i64)| {
        let (start_ms, end_ms, step_ms) = (START_MS + start_s * 1_000, START_MS + 20_000, step_s * 1_000);
        let request = PromqlRequest { query: query.to_owned(), start_ms, end_ms, step_ms, lookback_ms: None };
        let answer = world.engine.promql(world.organization, request, PromqlLimits::default()).await;
        answer.map(|answer| encode_answer(&answer.value, &answer.notes, query)).map_err(|error| error.to_string())
    };
    for query in [
        "http_requests_total",
        "{__name__=~\".+\"}",
        "sum by (job) (rate(http_requests_total[10s])) + ignoring (x) vector(1)",
        "max_over_time(queue_size[10s:1s])",
        "absent(nothing) or queue_size @ end()",
        "info(queue_size)",
        "histogram_quantile(0.5, rate({__name__=~\".*bucket\"}[20s]))",
        // Wrong, and too much for the few.
        "queue_size + on () {__name__=~\".+\"}",
        "rate(",
        "count_over_time(vector(1)[2h:1s])",
    ] {
        for times in [(20, 0), (0, 5)] {
            let cold = ask(&world.cold(), query, times).await;
            ask(&world, query, times).await.ok();
            assert_eq!(ask(&world, query, times).await, cold, "{query}");
        }
    }
}

/// Series are shared between threads where there are many samples; the answer is the same to the bit.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_divided_answers_as_one_that_is_not() {
    let mut world = World::new().await;
    let points: Vec<Json> = (0..300_i64)
        .flat_map(|series| {
            (0..100_i64).map(move |second| {
                let mut point =
                    point(second, json!({ "asDouble": (series * 7919 % 101) as f64 + second as f64 / 3.0 }));
                point["attributes"] = json!([
                    attribute("number", json!(series.to_string())),
                    attribute("group", json!((series % 7).to_string())),
                ]);
                point
            })
        })
        .collect();
    let sum = json!({ "isMonotonic": true, "aggregationTemporality": 2, "dataPoints": points });
    world.ingest(Signal::Metrics, &metrics(json!([{ "name": "steps", "sum": sum }]))).await;
    for query in [
        "sum(rate(steps_total[20s]))",
        "sum by (group) (rate(steps_total[20s])) / ignoring (group) group_left sum(steps_total)",
        "topk(5, increase(steps_total[30s]))",
        "quantile by (group) (0.9, steps_total)",
        "stddev(steps_total) + avg(steps_total)",
        "steps_total > 90",
        "count(steps_total) or vector(1)",
    ] {
        let times = (START_MS + 30_000, START_MS + 99_000, 10_000);
        let request = PromqlRequest {
            query: query.to_owned(),
            start_ms: times.0,
            end_ms: times.1,
            step_ms: times.2,
            lookback_ms: None,
        };
        let divided = world.engine.promql(world.organization, request, PromqlLimits::default()).await;
        let divided = divided.unwrap_or_else(|error| panic!("{query}: {error}"));
        let source = world.engine.promql_source(world.organization, PromqlLimits::default()).await.expect("a source");
        let whole = tokio::task::spawn_blocking(move || {
            let engine = Engine::default();
            engine.range(query, times, &[source.as_ref()])
        });
        let (value, notes) = whole.await.expect("evaluated").expect("an answer");
        let text = encode_answer(&value, &notes, query);
        assert!(text.contains("\"values\""), "{query}: {text}");
        assert_eq!(encode_answer(&divided.value, &divided.notes, query), text, "{query}");
    }
}

/// Many samples are put together and evaluated in parts on several threads, and give what one evaluation of them all gives.
#[tokio::test(flavor = "multi_thread")]
async fn parts_of_many_series_give_what_all_give() {
    let (mut world, mut memory) = (World::new().await, MemoryStore::default());
    let times = [0..150, 140..300, 300..400];
    for (part, times) in times.into_iter().enumerate() {
        let points = (0..80_i64).flat_map(|series| times.clone().map(move |at| (series, at)));
        // A gap in some, and counters that begin anew in others; what arrives later stands.
        let points = points.filter(|(series, at)| series % 7 != 3 || !(100..200).contains(at));
        let told: Vec<Json> = points
            .map(|(series, at)| {
                let since = if series % 5 == 2 && at > 210 { at - 210 } else { at };
                let value = (since * (series + 3)) as f64 / 4.0 + part as f64;
                let labels = [("__name__", "load_total"), ("n", &series.to_string()), ("g", &(series % 6).to_string())];
                let time = START_MS + at * 15_000;
                memory.add_float(&Labels::of(labels), time, value, 0);
                json!({ "timeUnixNano": (time * 1_000_000).to_string(), "asDouble": value,
                        "attributes": [attribute("n", json!(series.to_string())), attribute("g", json!((series % 6).to_string()))] })
            })
            .collect();
        let load =
            json!({ "name": "load", "sum": { "isMonotonic": true, "aggregationTemporality": 2, "dataPoints": told } });
        let request = json!({ "resourceMetrics": [{ "scopeMetrics": [{ "metrics": [load] }] }] });
        let arrival_ns = START_NS + SECOND_NS * 86_400 + part as i64;
        world.ingest_for(world.organization, Signal::Metrics, &request, arrival_ns).await;
    }
    let (start_ms, end_ms, step_ms) = (START_MS + 7_000, START_MS + 400 * 15_000, 60_000);
    for query in [
        "sum(rate(load_total[5m]))",
        "sum by (g) (increase(load_total[2m]))",
        "topk(3, rate(load_total[5m]))",
        "quantile(0.7, load_total)",
        "avg_over_time(load_total[10m]) > 300",
        "rate(load_total[5m]) / on (n) group_left () load_total",
        "count by (g) (load_total offset 3m) + on (g) sum by (g) (resets(load_total[20m]))",
        "rate(load_total{n=\"9\"}[5m])",
        "absent_over_time(load_total{n=\"80\"}[5m])",
    ] {
        let request = PromqlRequest { query: query.to_owned(), start_ms, end_ms, step_ms, lookback_ms: None };
        let own = world.engine.promql(world.organization, request, PromqlLimits::default()).await;
        let own = own.unwrap_or_else(|error| panic!("{query}: {error}"));
        let all = Engine::default().range(query, (start_ms, end_ms, step_ms), &[&memory]);
        let (value, notes) = all.unwrap_or_else(|error| panic!("{query}: {error}"));
        let (own, all) = (encode_answer(&own.value, &own.notes, query), encode_answer(&value, &notes, query));
        assert!(all.contains("values"), "{query}: nothing to compare: {all}");
        assert_eq!(own, all, "{query}");
    }
}
