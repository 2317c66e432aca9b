//! Rollups against sums made from the raw rows, along the whole chain of tiers.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, TimestampNanosecondType, UInt64Type};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    metric, number_data_point,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prost::Message;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::support::requests::Maker;
use crate::support::stored::{draft_bytes, store};
use crate::support::{ARRIVAL, encode};
use tidemill_segment::DraftSegment;
use tidemill_segment::merge::MergeInput;
use tidemill_segment::rollup::{RollupOptions, rollup_hour};
use tidemill_types::{Hour, Signal, Tier, TimestampNs};

fn rollup(folder: &Path, inputs: Vec<MergeInput>, tier: Tier, hour: Hour) -> Option<DraftSegment> {
    let options = RollupOptions { tier, hour, covers_ingest_seq: 7, replaces: Vec::new(), spool: folder.to_owned() };
    rollup_hour(inputs, options).expect("rolls up")
}

fn read(draft: &DraftSegment) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(draft_bytes(draft)).expect("a Parquet file");
    // Without the footer, which counts the rows of its inputs.
    let schema = Arc::new(builder.schema().as_ref().clone().with_metadata(HashMap::new()));
    let batches: Vec<RecordBatch> = builder.build().expect("reads").map(|batch| batch.expect("rows")).collect();
    concat_batches(&schema, &batches).expect("one schema")
}

/// All tiers of an hour, finest first.
fn chain(folder: &Path, raw: Vec<MergeInput>, hour: Hour) -> Vec<RecordBatch> {
    let mut inputs = raw;
    let mut tiers = Vec::new();
    for (place, tier) in Tier::ROLLUPS.into_iter().enumerate() {
        let Some(draft) = rollup(folder, inputs, tier, hour) else { return tiers };
        assert_eq!((draft.tier, draft.hours.as_slice(), draft.covers_ingest_seq), (tier, &[hour][..], 7));
        tiers.push(read(&draft));
        inputs = vec![store(folder, &draft, 1_000 + place as i64)];
    }
    tiers
}

fn doubles(batch: &RecordBatch, name: &str) -> Vec<Option<f64>> {
    batch.column_by_name(name).expect(name).as_primitive::<Float64Type>().iter().collect()
}

fn counts(batch: &RecordBatch, name: &str) -> Vec<Option<u64>> {
    batch.column_by_name(name).expect(name).as_primitive::<UInt64Type>().iter().collect()
}

fn times(batch: &RecordBatch, name: &str) -> Vec<Option<i64>> {
    batch.column_by_name(name).expect(name).as_primitive::<TimestampNanosecondType>().iter().collect()
}

fn near(left: f64, right: f64) -> bool {
    (left.is_nan() && right.is_nan()) || (left - right).abs() <= 1e-9 * left.abs().max(right.abs()).max(1.0)
}

const START: i64 = 1_699_999_200_000_000_000;
const SECOND: i64 = 1_000_000_000;

fn point(at_s: i64, start_s: i64, value: f64) -> NumberDataPoint {
    NumberDataPoint {
        time_unix_nano: (START + at_s * SECOND) as u64,
        start_time_unix_nano: (START + start_s * SECOND) as u64,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

fn request(metrics: Vec<Metric>) -> Vec<u8> {
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

fn counter(points: Vec<NumberDataPoint>, temporality: AggregationTemporality) -> Metric {
    let sum = Sum { data_points: points, aggregation_temporality: temporality.into(), is_monotonic: true };
    Metric { name: "requests".to_owned(), data: Some(metric::Data::Sum(sum)), ..Metric::default() }
}

fn only_hour(metrics: Vec<Metric>) -> Vec<RecordBatch> {
    let folder = tempfile::tempdir().expect("a folder");
    let (report, drafts) = encode(Signal::Metrics, "metrics", &request(metrics));
    assert_eq!(report.rejected, 0);
    let inputs = drafts.iter().enumerate().map(|(work, draft)| store(folder.path(), draft, work as i64)).collect();
    chain(folder.path(), inputs, TimestampNs(START).hour())
}

#[test]
fn counters_reset_and_windows_are_closed_at_their_end() {
    assert_eq!(START % (3_600 * SECOND), 0, "an hour starts here");
    // The point at 0 s lies in the hour before; the one at 3600 s in this one.
    let points = [(0, -50, 1.0), (5, -50, 4.0), (10, -50, 6.0), (15, -50, 2.0), (25, 20, 9.0), (3_600, 20, 11.0)];
    let points = points.map(|(at, start, value)| point(at, start, value)).to_vec();
    let tiers = only_hour(vec![counter(points, AggregationTemporality::Cumulative)]);
    assert_eq!(tiers.len(), 5);
    let end = |seconds: i64| Some(START + seconds * SECOND);
    assert_eq!(times(&tiers[0], "time"), [end(10), end(20), end(30), end(3_600)]);
    assert_eq!(counts(&tiers[0], "samples"), [Some(2), Some(1), Some(1), Some(1)]);
    assert_eq!(doubles(&tiers[0], "increase"), [Some(2.0), Some(0.0), Some(0.0), Some(0.0)]);
    // 4 to 6, reset to 2, a new start counts 9, then 2 more.
    assert_eq!(times(&tiers[4], "time"), [end(3_600)]);
    assert_eq!(doubles(&tiers[4], "increase"), [Some(2.0 + 2.0 + 9.0 + 2.0)]);
    assert_eq!(counts(&tiers[4], "resets"), [Some(2)]);
    assert_eq!((doubles(&tiers[4], "first"), doubles(&tiers[4], "last")), (vec![Some(4.0)], vec![Some(11.0)]));
    assert_eq!((times(&tiers[4], "first_time"), times(&tiers[4], "last_time")), (vec![end(5)], vec![end(3_600)]));
}

#[test]
fn deltas_are_summed_and_stale_markers_counted() {
    let mut points: Vec<NumberDataPoint> =
        [(5, 1.0), (65, 2.0), (70, 3.0)].map(|(at, value)| point(at, at - 5, value)).to_vec();
    points.push(NumberDataPoint { flags: 1, value: None, ..point(80, 75, 0.0) });
    let tiers = only_hour(vec![counter(points, AggregationTemporality::Delta)]);
    assert_eq!(doubles(&tiers[1], "increase"), [Some(1.0), Some(5.0)]);
    assert_eq!(counts(&tiers[4], "stale"), [Some(1)]);
    assert_eq!(times(&tiers[4], "stale_time"), [Some(START + 80 * SECOND)]);
    assert_eq!((counts(&tiers[4], "samples"), doubles(&tiers[4], "increase")), (vec![Some(3)], vec![Some(6.0)]));
}

#[test]
fn cumulative_histograms_become_increases() {
    let histogram_point = |at_s: i64, counts: [u64; 3], sum: f64| HistogramDataPoint {
        time_unix_nano: (START + at_s * SECOND) as u64,
        start_time_unix_nano: (START - SECOND) as u64,
        count: counts.iter().sum(),
        sum: Some(sum),
        bucket_counts: counts.to_vec(),
        explicit_bounds: vec![1.0, 2.0],
        ..HistogramDataPoint::default()
    };
    let data_points = vec![
        histogram_point(5, [1, 0, 0], 0.5),
        histogram_point(65, [2, 3, 0], 6.0),
        histogram_point(3_000, [2, 3, 4], 30.0),
    ];
    let histogram = Histogram { data_points, aggregation_temporality: AggregationTemporality::Cumulative.into() };
    let metric =
        Metric { name: "latency".to_owned(), data: Some(metric::Data::Histogram(histogram)), ..Metric::default() };
    let tiers = only_hour(vec![metric]);
    assert_eq!(counts(&tiers[4], "count"), [Some(8)]);
    assert_eq!(doubles(&tiers[4], "sum"), [Some(29.5)]);
    let buckets = tiers[4].column_by_name("bucket_counts").expect("is there").as_list::<i32>().value(0);
    assert_eq!(buckets.as_primitive::<UInt64Type>().values(), &[1, 3, 4]);
}

/// A rollup segment as it was first written; later builds must read it and compute the next tier from it.
#[test]
fn version_1_is_still_read() {
    let points = [(5, 1.0), (65, 2.0), (70, 4.0)].map(|(at, value)| point(at, 0, value)).to_vec();
    let folder = tempfile::tempdir().expect("a folder");
    let (_, drafts) =
        encode(Signal::Metrics, "metrics", &request(vec![counter(points, AggregationTemporality::Cumulative)]));
    let hour = TimestampNs(START).hour();
    let draft = rollup(folder.path(), vec![store(folder.path(), &drafts[0], 1)], Tier(10), hour).expect("has rows");
    let input = store(folder.path(), &draft, 2);
    std::fs::write(&input.file, include_bytes!("../samples/rollup-v1.parquet")).expect("writes");
    let coarser = read(&rollup(folder.path(), vec![input], Tier(60), hour).expect("has rows"));
    assert_eq!(
        (counts(&coarser, "samples"), doubles(&coarser, "increase")),
        (vec![Some(1), Some(2)], vec![Some(0.0), Some(2.0)])
    );
    assert_eq!(times(&coarser, "last_time"), [Some(START + 5 * SECOND), Some(START + 70 * SECOND)]);
}

#[test]
fn repeated_samples_count_once_and_every_kind_passes() {
    let mut folded = 0;
    for seed in 0..30 {
        let folder = tempfile::tempdir().expect("a folder");
        let body = Maker(&mut StdRng::seed_from_u64(seed)).metrics().encode_to_vec();
        let (_, drafts) = encode(Signal::Metrics, "metrics", &body);
        let inputs = |times: i64| -> Vec<MergeInput> {
            let numbered = drafts.iter().enumerate();
            (0..times)
                .flat_map(|time| numbered.clone().map(move |(work, draft)| (time * 1_000 + work as i64, draft)))
                .map(|(work, draft)| store(folder.path(), draft, work))
                .collect()
        };
        for back in 0..2 {
            let hour = Hour(ARRIVAL.hour().0 - back);
            let (once, twice) = (chain(folder.path(), inputs(1), hour), chain(folder.path(), inputs(2), hour));
            folded += once.len();
            // As text: values that are NaN are equal here.
            assert_eq!(format!("{once:?}"), format!("{twice:?}"), "seed {seed}");
        }
    }
    assert!(folded > 20, "{folded}");
}

#[test]
fn totals_of_real_points_stay_the_same_in_every_tier() {
    let shared = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("TIDEMILL_SHARED").map_or_else(shared, Into::into);
    let bytes =
        std::fs::read(shared.join("samples/nezha-otlp/metrics_day.binpb.gz")).expect("the shared samples are there");
    let folder = tempfile::tempdir().expect("a folder");
    let (_, drafts) = encode(Signal::Metrics, "metrics_day.binpb.gz", &bytes);
    let draft = drafts.iter().max_by_key(|draft| draft.rows).expect("there is one");
    let hour = draft.hours[draft.hours.len() / 2];
    let raw = read(draft);
    let (time, value) = (times(&raw, "time"), doubles(&raw, "value"));
    let series = raw.column_by_name("series").expect("is there").as_fixed_size_binary();
    let range = hour.range();
    let mut sums: HashMap<&[u8], (u64, f64)> = HashMap::new();
    let mut last: HashMap<(&[u8], i64), f64> = HashMap::new();
    for row in 0..raw.num_rows() {
        let at = time[row].expect("is never null");
        if at > range.start.0 && at <= range.end.0 {
            last.insert((series.value(row), at), value[row].expect("a gauge"));
        }
    }
    for ((series, _), value) in &last {
        let sum = sums.entry(series).or_default();
        *sum = (sum.0 + 1, sum.1 + value);
    }
    assert!(sums.len() > 100, "{}", sums.len());
    for tier in chain(folder.path(), vec![store(folder.path(), draft, 1)], hour) {
        let (samples, sum) = (counts(&tier, "samples"), doubles(&tier, "value_sum"));
        let series = tier.column_by_name("series").expect("is there").as_fixed_size_binary();
        let mut found: HashMap<&[u8], (u64, f64)> = HashMap::new();
        for row in 0..tier.num_rows() {
            let all = found.entry(series.value(row)).or_default();
            *all = (all.0 + samples[row].expect("not null"), all.1 + sum[row].expect("numbers only"));
        }
        assert_eq!(found.len(), sums.len());
        for (series, (count, sum)) in &sums {
            let (found_count, found_sum) = found[series];
            assert!(*count == found_count && near(*sum, found_sum), "{count} {found_count} {sum} {found_sum}");
        }
    }
}
