//! Shared by the tests of this crate: seeded requests, encoding them, and reading segments back as JSON rows.

pub mod expected;
pub mod requests;
pub mod stored;

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimestampNanosecondType, UInt32Type, UInt64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value, json};
use tidemill_segment::ingest::{BundleEncoder, IngestOptions, InputDescription, InputReport};
use tidemill_segment::read::{AttributeScope, SegmentFooter};
use tidemill_segment::{DraftBody, DraftSegment};
use tidemill_types::{Signal, TimestampNs};

/// 2023-11-14T22:13:20Z.
pub const ARRIVAL: TimestampNs = TimestampNs(1_700_000_000_000_000_000);

/// A folder of the shared samples: below `TIDEMILL_SHARED`, or `shared` beside the repository.
pub fn samples(name: &str) -> PathBuf {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared"));
    let shared = std::env::var_os("TIDEMILL_SHARED").map_or_else(beside, PathBuf::from);
    let folder = shared.join("samples").join(name);
    assert!(folder.is_dir(), "{} is missing: set TIDEMILL_SHARED to the folder of shared samples", folder.display());
    folder
}

/// Options that spool into a folder that does not exist until it is needed.
pub fn options(signal: Signal) -> IngestOptions {
    let spool = std::env::temp_dir().join(format!("tidemill-segment-tests-{}", std::process::id()));
    IngestOptions { signal, promote: Vec::new(), spool, memory_bytes: 64 << 20 }
}

/// One input in, its report and its segments out.
pub fn encode(signal: Signal, label: &str, bytes: &[u8]) -> (InputReport, Vec<DraftSegment>) {
    let mut encoder = BundleEncoder::new(options(signal)).expect("sane options");
    let input = InputDescription { label: label.to_owned(), format: None, arrival: ARRIVAL };
    let report = encoder.read_input(&input, &mut std::io::Cursor::new(bytes)).expect("a slice can be read");
    (report, encoder.finish().expect("segments can be written"))
}

/// The rows of all drafts as JSON, sorted by their text.
pub fn sorted_rows(drafts: &[DraftSegment]) -> Vec<Value> {
    let mut rows: Vec<Value> = drafts.iter().flat_map(draft_rows).collect();
    rows.sort_by_cached_key(Value::to_string);
    rows
}

/// The rows of a draft: core columns without nulls, attributes gathered from their columns.
pub fn draft_rows(draft: &DraftSegment) -> Vec<Value> {
    match &draft.body {
        DraftBody::Memory(bytes) => file_rows(bytes.clone()),
        DraftBody::File(file) => file_rows(std::fs::read(file.path()).expect("the spool file is there").into()),
    }
}

/// The rows of a segment file.
pub fn file_rows(bytes: bytes::Bytes) -> Vec<Value> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("a Parquet file");
    let footer = SegmentFooter::from_metadata(builder.metadata()).expect("a segment");
    let mut rows = Vec::new();
    for batch in builder.build().expect("a reader") {
        let batch = batch.expect("readable rows");
        rows.extend((0..batch.num_rows()).map(|row| row_json(&footer, &batch, row)));
    }
    rows
}

fn row_json(footer: &SegmentFooter, batch: &RecordBatch, row: usize) -> Value {
    let mut out = Map::new();
    let mut attributes: BTreeMap<AttributeScope, Map<String, Value>> = BTreeMap::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if column.is_null(row) {
            continue;
        }
        let name = field.name().as_str();
        let value = cell(column, row);
        if let Some(scope) = AttributeScope::ALL.into_iter().find(|scope| scope.overflow_column() == name) {
            let rest: Map<String, Value> =
                serde_json::from_str(value.as_str().expect("text")).expect("overflow columns hold JSON objects");
            attributes.entry(scope).or_default().extend(rest);
            continue;
        }
        if let Some(entry) = footer.attributes.iter().find(|entry| entry.column.as_deref() == Some(name)) {
            attributes.entry(entry.scope).or_default().insert(entry.key.clone(), value.clone());
            if name != "service_name" {
                continue;
            }
        }
        out.insert(name.to_owned(), value);
    }
    for (scope, name) in AttributeScope::ALL.into_iter().zip(["attributes", "resource", "scope"]) {
        out.insert(name.to_owned(), Value::Object(attributes.remove(&scope).unwrap_or_default()));
    }
    Value::Object(out)
}

/// A double as JSON: others than finite numbers as `{"doubleValue":…}`.
pub fn double(number: f64) -> Value {
    if number.is_finite() {
        json!(number)
    } else if number.is_nan() {
        json!({"doubleValue": "NaN"})
    } else {
        json!({"doubleValue": if number > 0.0 { "Infinity" } else { "-Infinity" }})
    }
}

fn cell(column: &dyn Array, row: usize) -> Value {
    match column.data_type() {
        DataType::Timestamp(..) => json!(column.as_primitive::<TimestampNanosecondType>().value(row)),
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(row)),
        DataType::Int32 => json!(column.as_primitive::<Int32Type>().value(row)),
        DataType::UInt32 => json!(column.as_primitive::<UInt32Type>().value(row)),
        DataType::UInt64 => json!(column.as_primitive::<UInt64Type>().value(row)),
        DataType::Float64 => double(column.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => json!(column.as_boolean().value(row)),
        DataType::Utf8 => json!(column.as_string::<i32>().value(row)),
        DataType::FixedSizeBinary(_) => json!(hex::encode(column.as_fixed_size_binary().value(row))),
        DataType::List(_) => {
            let elements = column.as_list::<i32>().value(row);
            (0..elements.len()).map(|place| cell(&elements, place)).collect()
        }
        DataType::Struct(fields) => {
            let members = column.as_struct();
            let present = fields.iter().zip(members.columns()).filter(|(_, member)| !member.is_null(row));
            Value::Object(present.map(|(field, member)| (field.name().clone(), cell(member, row))).collect())
        }
        other => panic!("{other} is no type of a segment"),
    }
}
