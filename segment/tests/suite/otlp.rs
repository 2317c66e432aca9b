//! OTLP protobuf to segments, checked against the official message types; and no input, however broken, may panic or be half counted.

use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::support::requests::Maker;
use crate::support::{ARRIVAL, encode, expected, sorted_rows};
use tidemill_segment::push::{PushEncoding, check_push};
use tidemill_types::Signal;

/// Columns that hold JSON text become JSON, so that spelling does not count; series are compared elsewhere.
fn parsed(mut rows: Vec<Value>) -> Vec<Value> {
    for row in &mut rows {
        let row = row.as_object_mut().expect("rows are objects");
        row.remove("series");
        let json_columns = if row.contains_key("body_type") {
            ["body", "exemplars", "metadata"]
        } else {
            ["exemplars", "metadata", "metadata"]
        };
        for name in json_columns {
            if let Some(Value::String(text)) = row.get(name) {
                let value = serde_json::from_str(text).expect("the column holds JSON");
                row.insert(name.to_owned(), value);
            }
        }
        for list in ["events", "links"] {
            for element in row.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(Value::String(text)) = element.get("attributes") {
                    element["attributes"] = serde_json::from_str(text).expect("the column holds JSON");
                }
            }
        }
    }
    rows.sort_by_cached_key(Value::to_string);
    rows
}

fn assert_same(seed: u64, expected: Vec<Value>, found: Vec<Value>) {
    let found = parsed(found);
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(expected, found, "seed {seed}");
    }
    assert_eq!(expected.len(), found.len(), "seed {seed}");
}

#[test]
fn every_field_of_every_log_record_is_kept() {
    for seed in 0..60 {
        let request = Maker(&mut StdRng::seed_from_u64(seed)).logs();
        let (report, drafts) = encode(Signal::Logs, "logs", &request.encode_to_vec());
        assert_eq!(report.rejected, 0, "seed {seed}: {:?}", report.issues);
        assert_same(seed, expected::log_rows(&request), sorted_rows(&drafts));
    }
}

#[test]
fn every_field_of_every_span_is_kept() {
    for seed in 0..60 {
        let request = Maker(&mut StdRng::seed_from_u64(seed)).traces();
        let (report, drafts) = encode(Signal::Traces, "traces", &request.encode_to_vec());
        assert_eq!(report.rejected, 0, "seed {seed}: {:?}", report.issues);
        assert_same(seed, expected::span_rows(&request), sorted_rows(&drafts));
    }
}

#[test]
fn every_field_of_every_data_point_is_kept() {
    for seed in 0..60 {
        let request = Maker(&mut StdRng::seed_from_u64(seed)).metrics();
        let (report, drafts) = encode(Signal::Metrics, "metrics", &request.encode_to_vec());
        assert_eq!(report.rejected, 0, "seed {seed}: {:?}", report.issues);
        assert_same(seed, expected::point_rows(&request), sorted_rows(&drafts));
    }
}

fn request_bytes(signal: Signal, random: &mut StdRng) -> Vec<u8> {
    let mut maker = Maker(random);
    match signal {
        Signal::Logs => maker.logs().encode_to_vec(),
        Signal::Metrics => maker.metrics().encode_to_vec(),
        Signal::Traces => maker.traces().encode_to_vec(),
    }
}

/// Flips, cuts, repeats, inserts.
fn mutate(bytes: &mut Vec<u8>, random: &mut StdRng) {
    for _ in 0..random.random_range(1..6) {
        if bytes.is_empty() {
            bytes.push(random.random());
        }
        let place = random.random_range(0..bytes.len());
        match random.random_range(0..6) {
            0 => bytes[place] = random.random(),
            1 => bytes[place] ^= 1 << random.random_range(0..8),
            2 => bytes.truncate(place),
            3 => bytes.insert(place, random.random()),
            4 => drop(bytes.remove(place)),
            _ => {
                let end = random.random_range(place..bytes.len());
                let copy = bytes[place..end].to_vec();
                bytes.splice(place..place, copy);
            }
        }
    }
}

#[test]
fn no_bytes_panic_and_every_row_is_counted() {
    for seed in 0..600 {
        let mut random = StdRng::seed_from_u64(seed);
        let signal = Signal::ALL[seed as usize % 3];
        let mut bytes = request_bytes(signal, &mut random);
        mutate(&mut bytes, &mut random);
        let (report, drafts) = encode(signal, "input", &bytes);
        let rows: u64 = drafts.iter().map(|draft| draft.rows).sum();
        assert_eq!(rows, report.accepted, "seed {seed}");
        assert!((report.rejected == 0) == report.issues.is_empty(), "seed {seed}: {report:?}");
        if let Ok(check) = check_push(signal, PushEncoding::Protobuf, &bytes) {
            let counts = (check.records, check.rejected, check.issues);
            assert_eq!(counts, (report.accepted, report.rejected, report.issues), "seed {seed}");
            assert!(report.failure.is_none() || bytes.is_empty(), "seed {seed}: {:?}", report.failure);
        }
    }
}

#[test]
fn a_cut_input_keeps_the_records_before_the_cut() {
    let mut random = StdRng::seed_from_u64(7);
    for signal in Signal::ALL {
        let bytes = request_bytes(signal, &mut random);
        let whole = encode(signal, "input", &bytes).0.accepted;
        let mut last = 0;
        for end in (1..bytes.len()).step_by(bytes.len() / 40 + 1) {
            let (report, _) = encode(signal, "input", &bytes[..end]);
            assert!(report.accepted >= last && report.accepted <= whole, "{end} of {}", bytes.len());
            assert_eq!(report.rejected, 0, "a cut is no fault of a record");
            last = report.accepted;
        }
    }
}

#[test]
fn a_truncated_gzip_keeps_rows_and_says_where_it_ends() {
    use std::io::Write;
    let mut random = StdRng::seed_from_u64(3);
    let mut bytes = Vec::new();
    while bytes.len() < 400_000 {
        bytes.extend(request_bytes(Signal::Logs, &mut random));
    }
    let whole = encode(Signal::Logs, "logs", &bytes).0.accepted;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes).expect("memory");
    let gzip = gzip.finish().expect("memory");
    assert_eq!(encode(Signal::Logs, "logs.gz", &gzip).0.accepted, whole);
    let (report, _) = encode(Signal::Logs, "logs.gz", &gzip[..gzip.len() / 2]);
    assert!(report.accepted > 0 && report.accepted < whole, "{}", report.accepted);
    let failure = report.failure.expect("a truncated gzip is told");
    assert!(failure.starts_with("resourceLogs["), "{failure}");
}

#[test]
fn a_decompression_bomb_is_stopped() {
    // One unknown field of 512 MiB of zeros.
    let mut bytes = vec![0x7a, 0x80, 0x80, 0x80, 0x80, 0x02];
    bytes.resize(64 << 20, 0);
    let bomb = zstd::encode_all(&bytes[..], 3).expect("memory");
    let (report, drafts) = encode(Signal::Logs, "bomb", &bomb);
    let failure = report.failure.expect("a bomb is refused");
    assert!(failure.contains("200 times"), "{failure}");
    assert!(drafts.is_empty());
}

#[test]
fn refusals_name_the_place() {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    let good = LogRecord { time_unix_nano: ARRIVAL.0 as u64, ..LogRecord::default() };
    let bad = LogRecord { trace_id: vec![1; 15], ..good.clone() };
    let scope = ScopeLogs { log_records: vec![good.clone(), bad, good], ..ScopeLogs::default() };
    let resource = ResourceLogs { scope_logs: vec![ScopeLogs::default(), scope], ..ResourceLogs::default() };
    let request = ExportLogsServiceRequest { resource_logs: vec![ResourceLogs::default(), resource] };
    let (report, drafts) = encode(Signal::Logs, "logs", &request.encode_to_vec());
    assert_eq!((report.accepted, report.rejected, drafts[0].rows), (2, 1, 2));
    assert_eq!(
        report.issues[0].to_string(),
        "resourceLogs[1].scopeLogs[1].logRecords[1].traceId: 15 bytes, expected 16"
    );
}

#[test]
fn values_nested_too_deep_are_refused() {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, any_value};
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    for (depth, refused) in [(32, 0), (33, 1)] {
        let mut body = AnyValue { value: Some(any_value::Value::IntValue(1)) };
        for _ in 0..depth {
            body = AnyValue { value: Some(any_value::Value::ArrayValue(ArrayValue { values: vec![body] })) };
        }
        let log = LogRecord { body: Some(body), ..LogRecord::default() };
        let scope = ScopeLogs { log_records: vec![log], ..ScopeLogs::default() };
        let resource = ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() };
        let request = ExportLogsServiceRequest { resource_logs: vec![resource] };
        let (report, _) = encode(Signal::Logs, "logs", &request.encode_to_vec());
        assert_eq!(report.rejected, refused, "depth {depth}: {:?}", report.issues);
    }
}

#[test]
fn a_large_resource_is_not_multiplied_in_memory() {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    // Two MiB, twelve as JSON, that every row repeats in the file.
    let text = any_value::Value::StringValue("\u{1}".repeat(2 << 20));
    let large = KeyValue { key: "x".repeat(200), value: Some(AnyValue { value: Some(text) }), ..KeyValue::default() };
    let log = LogRecord { time_unix_nano: ARRIVAL.0 as u64, ..LogRecord::default() };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource { attributes: vec![large], ..Resource::default() }),
            scope_logs: vec![ScopeLogs { log_records: vec![log; 60], ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    };
    let (report, drafts) = encode(Signal::Logs, "logs", &request.encode_to_vec());
    assert_eq!((report.accepted, drafts[0].rows), (60, 60));
    let groups = match &drafts[0].body {
        tidemill_segment::DraftBody::Memory(bytes) => row_groups(bytes.clone()),
        tidemill_segment::DraftBody::File(file) => {
            row_groups(std::fs::read(file.path()).expect("the spool file").into())
        }
    };
    assert!(groups > 1, "memory is bounded by writing row groups early");
}

fn row_groups(bytes: bytes::Bytes) -> usize {
    let builder =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes).expect("a Parquet file");
    builder.metadata().num_row_groups()
}

#[test]
fn rows_of_many_days_become_segments_that_know_of_each_other() {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use std::collections::BTreeSet;
    const DAYS: u64 = 80;
    let log = |place: u64| LogRecord {
        time_unix_nano: ARRIVAL.0 as u64 - (place % DAYS) * 86_400_000_000_000,
        severity_number: place as i32,
        ..LogRecord::default()
    };
    let scope = ScopeLogs { log_records: (1..=3 * DAYS).map(log).collect(), ..ScopeLogs::default() };
    let resource = ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() };
    let request = ExportLogsServiceRequest { resource_logs: vec![resource] };
    let (report, drafts) = encode(Signal::Logs, "a/logs_1", &request.encode_to_vec());
    assert_eq!(report.accepted, 3 * DAYS);
    let numbers: BTreeSet<i64> =
        sorted_rows(&drafts).iter().map(|row| row["severity_number"].as_i64().expect("a number")).collect();
    assert_eq!(numbers.len() as u64, 3 * DAYS, "each row is there once");
    let days: BTreeSet<i32> = drafts.iter().map(|draft| draft.day.0).collect();
    assert_eq!(days.len() as u64, DAYS);
    for (place, draft) in drafts.iter().enumerate() {
        let tidemill_segment::DraftBody::Memory(bytes) = &draft.body else { panic!("small segments stay in memory") };
        let builder = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes.clone())
            .expect("a Parquet file");
        let footer = tidemill_segment::read::SegmentFooter::from_metadata(builder.metadata()).expect("a segment");
        assert_eq!((footer.outputs as usize, footer.ordinal as usize), (drafts.len(), place));
        assert_eq!(footer.inputs, [tidemill_segment::footer::input_name("a/logs_1")]);
    }
}

#[test]
fn a_draft_and_its_stored_bytes_make_the_same_catalog_row() {
    use tidemill_segment::read::{StoredObject, segment_meta};
    use tidemill_types::keys::SegmentKey;
    use tidemill_types::{LeaseToken, OrganizationId, WorkId};
    let id = |text: &str| text.parse().expect("a UUID");
    let request = Maker(&mut StdRng::seed_from_u64(1)).traces();
    let (_, drafts) = encode(Signal::Traces, "traces", &request.encode_to_vec());
    for draft in &drafts {
        let key = SegmentKey {
            organization: OrganizationId(id("dddddddd-aaaa-4ff9-ae8f-365873c552f0")),
            signal: draft.signal,
            day: draft.day,
            tier: draft.tier,
            level: draft.level,
            work: WorkId(7),
            token: LeaseToken(id("dddddddd-aaaa-4ff9-ae8f-365873c552f1")),
            ordinal: 0,
        };
        let meta = draft.meta(&key, "bucket", 1, Some("etag".to_owned()));
        let tidemill_segment::DraftBody::Memory(bytes) = &draft.body else { panic!("small segments stay in memory") };
        let object = StoredObject {
            bucket: "bucket".to_owned(),
            instance_num: 1,
            key: key.object_key(),
            bytes: bytes.len() as u64,
            etag: Some("etag".to_owned()),
        };
        let need =
            segment_meta(&object, &bytes[bytes.len() - 8..]).expect("a segment").expect_err("asks for the footer");
        let tail = &bytes[bytes.len() - need as usize..];
        assert_eq!(segment_meta(&object, tail).expect("a segment").expect("the tail is enough").0, meta);
    }
}
