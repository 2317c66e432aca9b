//! A query gives the same over one partition, over several in one process, and from the serialized answers of partitions.

use std::sync::Arc;

use tidemill_eval::Labels;
use tidemill_eval::promql::partial::Partial;
use tidemill_eval::promql::{Annotations, Buckets, Engine, Histogram, MemoryStore, STALE_NAN, Source, Value};

/// Samples of counters, gauges, classic and native histograms, with resets, gaps and stale markers.
fn store() -> MemoryStore {
    let mut store = MemoryStore::default();
    let mut state = 42u64;
    let mut next = move || {
        // xorshift64*, so that the data is the same in every run.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f64 / 16_777_216.0
    };
    for instance in 0..17 {
        let labels = |name: &str, more: &[(&str, &str)]| {
            let base = [("__name__", name), ("job", ["api", "web", "db"][instance % 3])];
            let instance = instance.to_string();
            Labels::of(base.into_iter().chain([("instance", instance.as_str())]).chain(more.iter().copied()))
        };
        let mut total = 0.0;
        for minute in 0..40i64 {
            let time = minute * 15_000;
            total = if next() < 0.05 { 0.0 } else { total + next() * 10.0 };
            if next() > 0.1 {
                store.add_float(&labels("requests_total", &[]), time, total, 0);
            }
            let gauge = if minute == 20 { STALE_NAN } else { (next() - 0.5) * 1e3 };
            store.add_float(&labels("load", &[]), time, gauge, 0);
            let counts = [total.floor(), total.floor() + 2.0, 3.0];
            for (bound, count) in [("1", 1.0), ("2", 3.0), ("+Inf", 4.0)] {
                store.add_float(&labels("sizes_bucket", &[("le", bound)]), time, count * total, 0);
            }
            let count = counts.iter().sum();
            let positive = Buckets::run(instance as i32 - 4, counts.to_vec());
            let histogram =
                Histogram { schema: (instance % 3) as i32, count, sum: count * 2.0, positive, ..Histogram::default() };
            store.add_histogram(&labels("latency", &[]), time, Arc::new(histogram), 0);
            store.add_float(&labels("target_info", &[("version", "1")]), time, 1.0, 0);
        }
    }
    store
}

const QUERIES: &[&str] = &[
    "load",
    "-load",
    "load > 0",
    "load * 2 + 1",
    "sum(load)",
    "avg by (job) (load)",
    "stddev without (instance) (load)",
    "stdvar(load)",
    "count(load > 100)",
    "min by (job) (load) - max by (job) (load)",
    "group(load)",
    "quantile by (job) (0.9, load)",
    "topk(3, load)",
    "bottomk by (job) (2, load)",
    "topk(scalar(count(requests_total)) / 5, load)",
    "limitk(4, load)",
    "limit_ratio(0.5, load)",
    "count_values(\"value\", round(load, 100))",
    "sum by (job) (rate(requests_total[2m]))",
    "sum(increase(requests_total[5m] offset 1m))",
    "max(avg_over_time(load[3m]))",
    "topk(2, increase(requests_total[3m]))",
    "sum by (job) (last_over_time(load[1m]))",
    "histogram_quantile(0.9, sum by (job, le) (rate(sizes_bucket[2m])))",
    "histogram_quantile(0.5, sum by (job) (latency))",
    "histogram_count(rate(latency[2m]))",
    "sum(histogram_sum(latency))",
    "avg by (job) (latency)",
    "latency * 2",
    "histogram_fraction(0, 2, sum(latency))",
    "load / on (instance, job) group_left () requests_total",
    "sum by (job) (load) + sum by (job) (requests_total)",
    "load and requests_total > 20",
    "load or requests_total",
    "load unless on (job) (requests_total{job=\"api\"})",
    "absent(nothing)",
    "absent_over_time(load{instance=\"99\"}[30s])",
    "max_over_time(sum(load)[2m:30s])",
    "sum(max_over_time(load[2m:30s]))",
    "label_replace(load, \"x\", \"$1\", \"instance\", \"(.).*\")",
    "sum(load @ 330)",
    "deriv(load[5m])",
    "predict_linear(load[5m], 60)",
    "clamp(load, -10, 10)",
    "timestamp(load)",
    "vector(1) + sum(load)",
    "scalar(sum(load))",
    "time()",
    "sum(quantile_over_time(0.5, load[3m]))",
    "sum(load) / count(load)",
];

/// What differs shows as text: NaN has no equality.
fn told((value, notes): (Value, Annotations)) -> String {
    let value = match value {
        Value::Vector(mut samples) => {
            samples.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Vector(samples)
        }
        other => other,
    };
    format!("{value:?} {notes:?}")
}

#[test]
fn partitions_give_equal_answers() {
    let engine = Engine::default();
    let whole = store();
    let parts = store().divided(3);
    let whole: [&dyn Source; 1] = [&whole];
    let several: Vec<&dyn Source> = parts.iter().map(|part| part as &dyn Source).collect();
    for query in QUERIES {
        for times in [(450_000, 450_000, 0), (0, 590_000, 30_000)] {
            let evaluate = |sources: &[&dyn Source]| match times {
                (at, _, 0) => engine.instant(query, at, sources),
                times => engine.range(query, times, sources),
            };
            let expected = evaluate(&whole).unwrap_or_else(|error| panic!("{query}: {error}"));
            assert!(!told(expected.clone()).starts_with("Vector([])"), "{query} at {times:?} gives nothing");
            let expected = told(expected);
            assert_eq!(
                told(evaluate(&several).expect(query)),
                expected,
                "{query} at {times:?} over several partitions"
            );

            let tasks = engine.tasks(query, times).expect(query);
            let mut notes = Annotations::default();
            let answers = tasks.into_iter().map(|task| {
                let answer = |source: &&dyn Source| {
                    let (partial, said) = engine.run_task(query, times, task, *source).expect(query);
                    notes.merge(said);
                    Partial::decode(&partial.encode().expect("encodes")).expect("decodes")
                };
                (task, several.iter().map(answer).collect::<Vec<_>>())
            });
            let answers: Vec<_> = answers.collect();
            let (value, said) = engine.finish(query, times, answers).unwrap_or_else(|error| panic!("{query}: {error}"));
            notes.merge(said);
            assert_eq!(told((value, notes)), expected, "{query} at {times:?} from serialized answers");
        }
    }
}
