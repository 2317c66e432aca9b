//! PromQL over rollups: the answer is that of the points, to the bit.

use serde_json::{Value as Json, json};
use tidemill_eval::promql::json::encode_answer;
use tidemill_query::promql::{PromqlLimits, PromqlRequest};
use tidemill_types::{Hour, Signal, Tier};

use crate::world::{SECOND_NS, START_NS, World, attribute};

const START_MS: i64 = START_NS / 1_000_000;
const HOUR_S: i64 = 3_600;

fn point(time_ns: i64, value: f64, start_s: Option<i64>) -> Json {
    let mut point = json!({
        "timeUnixNano": (START_NS + time_ns).to_string(),
        "asDouble": value,
        "attributes": [attribute("zone", json!("a"))],
    });
    if let Some(start_s) = start_s {
        point["startTimeUnixNano"] = json!((START_NS + start_s * SECOND_NS).to_string());
    }
    point
}

fn request(scope: &str, metrics: &Json) -> Json {
    json!({ "resourceMetrics": [{
        "resource": { "attributes": [attribute("service.name", json!("shop"))] },
        "scopeMetrics": [{ "scope": { "name": scope }, "metrics": metrics }],
    }] })
}

/// Three hours of points, each 15 s.
fn points(value: impl Fn(i64) -> f64, start: impl Fn(i64) -> Option<i64>) -> Vec<Json> {
    // Some milliseconds past the second, as clients have it.
    (0..3 * HOUR_S).step_by(15).map(|at| point(at * SECOND_NS + 7_300_000, value(at), start(at))).collect()
}

async fn lake() -> World {
    let mut world = World::new().await;
    let sum = |name: &str, temporality: u8, points: Vec<Json>| {
        json!({ "name": name, "sum": {
            "isMonotonic": true, "aggregationTemporality": temporality, "dataPoints": points } })
    };
    let gauge = |name: &str, points: Vec<Json>| json!({ "name": name, "gauge": { "dataPoints": points } });
    let wave = |at: i64| ((at * 7_919) % 1_013) as f64 / 7.0;
    let rise = |at: i64| (at * at) as f64 / 3.0 + (at % 7) as f64;
    // Begins anew in the second hour: by its value, and by its start time alone.
    let falls = |at: i64| if at < 5_000 { at as f64 } else { (at - 5_000) as f64 };
    let restarts = |at: i64| Some(if at < 5_000 { -10 } else { 4_999 });
    let mut edge = points(wave, |_| None);
    edge.push(point(HOUR_S * SECOND_NS + 400_000, 1_000.0, None));
    // After the last hour that is rolled up.
    let mut late = points(wave, |_| None);
    // In the first millisecond after a range ends.
    late.push(point((HOUR_S + 1_800) * SECOND_NS + 300_000, 3_000.0, None));
    late.push(point(2 * HOUR_S * SECOND_NS + 400_000, 2_000.0, None));
    let histogram = |at: i64| {
        json!({
            "timeUnixNano": (START_NS + at * SECOND_NS).to_string(), "count": at.to_string(), "sum": 1.0,
            "bucketCounts": [(at / 2).to_string(), (at - at / 2).to_string()], "explicitBounds": [1.0],
            "attributes": [attribute("zone", json!("a"))],
        })
    };
    let histograms: Vec<Json> = (0..3 * HOUR_S).step_by(30).map(histogram).collect();
    let metrics = json!([
        gauge("level", points(wave, |_| None)),
        gauge("edge", edge),
        gauge("late", late),
        gauge("rare", vec![point(100 * SECOND_NS, 2.0, None), point(4_000 * SECOND_NS, 3.0, None)]),
        sum("steps", 2, points(rise, |_| None)),
        sum("since", 2, points(rise, |_| Some(-10))),
        sum("falls", 2, points(falls, |_| None)),
        sum("restarts", 2, points(rise, restarts)),
        sum("parts", 1, points(wave, |_| None)),
        json!({ "name": "latency", "histogram": { "aggregationTemporality": 2, "dataPoints": histograms } }),
        gauge("twice", points(wave, |_| None)),
    ]);
    world.ingest(Signal::Metrics, &request("one", &metrics)).await;
    let other = json!([gauge("twice", points(|at| wave(at) + 50.0, |_| None))]);
    world.ingest(Signal::Metrics, &request("other", &other)).await;
    // The third hour is not over yet.
    let first = Hour(i32::try_from(START_MS / 3_600_000).expect("a small number"));
    for hour in [first, Hour(first.0 + 1)] {
        for tier in Tier::ROLLUPS {
            world.roll_up(tier, hour).await;
        }
    }
    world
}

/// The answer from rollups, and how many rows were matched for it and without them.
async fn compare(world: &World, plain: &World, query: &str, (start_s, end_s, step_s): (i64, i64, i64)) -> (u64, u64) {
    let request = PromqlRequest {
        query: query.to_owned(),
        start_ms: START_MS + start_s * 1_000,
        end_ms: START_MS + end_s * 1_000,
        step_ms: step_s * 1_000,
        lookback_ms: None,
    };
    let ask = async |world: &World| {
        let answer = world.engine.promql(world.organization, request.clone(), PromqlLimits::default()).await;
        let answer = answer.unwrap_or_else(|error| panic!("{query}: {error}"));
        (encode_answer(&answer.value, &answer.notes, query), answer.stats)
    };
    let ((rolled, stats), (expected, plain_stats)) = (ask(world).await, ask(plain).await);
    let (rows, all) = (stats.rows_matched, plain_stats.rows_matched);
    assert_eq!(plain_stats.rolled_up_hours, 0);
    assert!(rows == all || stats.rolled_up_hours > 0, "{query}: {rows} of {all} rows without an hour from rollups");
    assert!(expected.contains("\"value"), "{query}: nothing to compare: {expected}");
    assert_eq!(rolled, expected, "{query} from {start_s} to {end_s} by {step_s}");
    (rows, all)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rollups_tell_is_what_points_tell() {
    let world = lake().await;
    let plain = world.without_indexes();
    let hours = (HOUR_S, 3 * HOUR_S, HOUR_S);
    let minutes = (HOUR_S, 3 * HOUR_S, 60);
    for query in [
        "max_over_time(level[1h])",
        "min_over_time(level[1h])",
        "count_over_time(level[1h])",
        "first_over_time(level[1h])",
        "last_over_time(level[1h])",
        "present_over_time(level[1h])",
        "delta(level[1h])",
        "ts_of_last_over_time(level[1h])",
        "max_over_time(level[1h] offset 1h)",
        "rate(steps_total[1h])",
        "increase(since_total[1h])",
        "sum(rate({__name__=~\"steps_total|since_total\"}[1h]))",
        "count_over_time(parts_total[1h])",
    ] {
        let (rows, all) = compare(&world, &plain, query, hours).await;
        assert!(rows * 2 < all, "{query}: {rows} of {all} rows");
    }
    for query in ["max_over_time(level[5m])", "rate(steps_total[5m])", "increase(since_total[10m])"] {
        let (rows, all) = compare(&world, &plain, query, minutes).await;
        assert!(rows < all, "{query}: {rows} of {all} rows");
    }
    let (rows, all) = compare(&world, &plain, "max_over_time(level[1h])", (2 * HOUR_S, 2 * HOUR_S, 0)).await;
    assert!(rows * 10 < all, "an instant at the hour: {rows} of {all} rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rollups_do_not_tell_exactly_is_read_from_points() {
    let world = lake().await;
    let plain = world.without_indexes();
    for query in [
        // Began anew inside of a window.
        "increase(falls_total[1h])",
        "rate(restarts_total[1h])",
        // A gauge's falls are not counted by its rollup, the parts of a delta are added in another order.
        "rate(level[1h])",
        "increase(parts_total[1h])",
        // Within the first millisecond of a window, which for PromQL is the one before.
        "max_over_time(edge[1h])",
        "count_over_time(edge[10m])",
        "max_over_time(late[1h])",
        "last_over_time(late[10m])",
        // Two series of the lake are one of PromQL.
        "max_over_time(twice[1h])",
        "count_over_time(twice[1h])",
        "rate(latency_bucket[1h])",
        "sum_over_time(level[1h])",
        "avg_over_time(level[1h])",
        "max_over_time(rare[1h])",
        "delta(rare[2h])",
        "{__name__=~\"level|rare\"}",
        "last_over_time({__name__=~\"level|edge|latency.*\", zone=\"a\"}[1h])",
        "count(max_over_time({__name__=~\"level|edge|latency_bucket\", zone=\"a\"}[1h]))",
    ] {
        for times in [(HOUR_S, 3 * HOUR_S, HOUR_S), (HOUR_S, 3 * HOUR_S, 600), (HOUR_S + 7, 3 * HOUR_S, 600)] {
            compare(&world, &plain, query, times).await;
        }
    }
    for (query, times) in [
        ("max_over_time(late[30m])", (HOUR_S, HOUR_S + 1_800, 1_800)),
        ("max_over_time(late[5m])", (HOUR_S, HOUR_S + 1_802, 300)),
        ("max_over_time(level[7m])", (HOUR_S, 3 * HOUR_S, 60)),
        ("max_over_time(level[1h])", (HOUR_S, 3 * HOUR_S, 37)),
        ("max_over_time(level[1h] @ end())", (HOUR_S, 3 * HOUR_S - 11, HOUR_S)),
        ("increase(steps_total[1h] offset 90s)", (HOUR_S, 3 * HOUR_S, HOUR_S)),
        ("rate(steps_total[20s])", (HOUR_S, 3 * HOUR_S, 10)),
    ] {
        compare(&world, &plain, query, times).await;
    }
}
