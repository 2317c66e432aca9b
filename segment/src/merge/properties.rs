//! How the columns of level 1 and 2 are written: smaller than level 0, with page statistics where rows are sorted or filtered.

use std::collections::HashSet;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use tidemill_types::Signal;

use crate::index::BLOCK_ROWS;
use crate::schema::AttributeScope;

/// Rows that are looked at to choose encodings.
const SAMPLE_ROWS: usize = 8192;
/// A page of bodies is this large at most.
const BODY_PAGE_BYTES: usize = 8 << 20;
/// Beyond this share of distinct values a dictionary is larger than the values.
const DISTINCT_SHARE: f64 = 0.6;
/// Times and durations: neighbours are close, so their differences pack well.
const DELTA_COLUMNS: [&str; 7] =
    ["time", "arrival_time", "observed_time", "start_time", "end_time", "original_time", "value_int"];
/// Columns whose pages are skipped by queries.
const PAGE_STATISTICS: [&str; 10] = [
    "time",
    "service_name",
    "severity_number",
    "name",
    "series",
    "trace_id",
    "duration_ns",
    "status_code",
    "kind",
    "pattern",
];

/// Properties of a segment of `signal` whose rows look like `sample`.
pub(crate) fn compacted_properties(signal: Signal, sample: &RecordBatch) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("tidemill ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).expect("3 is a zstd level")))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_data_page_row_count_limit(BLOCK_ROWS)
        .set_max_row_group_row_count(None)
        .set_sorting_columns(sorting_columns(signal, sample));
    for name in PAGE_STATISTICS {
        builder = builder.set_column_statistics_enabled(ColumnPath::from(name), EnabledStatistics::Page);
    }
    for name in ["body", "exemplars"].into_iter().chain(AttributeScope::ALL.map(AttributeScope::overflow_column)) {
        builder = builder.set_column_statistics_enabled(ColumnPath::from(name), EnabledStatistics::None);
    }
    // A page of bodies ends with its row block, however long they are: the larger it is, the better it compresses.
    builder = builder.set_column_data_page_size_limit(ColumnPath::from("body"), BODY_PAGE_BYTES);
    if signal == Signal::Logs {
        // In the order of the rows these are a few runs; compression would only be work for every reader.
        for name in ["service_name", "severity_number", "severity_text"] {
            builder = builder.set_column_compression(ColumnPath::from(name), Compression::UNCOMPRESSED);
        }
    }
    for name in ["body", "span_id"] {
        builder = builder.set_column_dictionary_enabled(ColumnPath::from(name), false);
    }
    for name in DELTA_COLUMNS {
        builder = builder
            .set_column_dictionary_enabled(ColumnPath::from(name), false)
            .set_column_encoding(ColumnPath::from(name), Encoding::DELTA_BINARY_PACKED);
    }
    for (field, column) in sample.schema().fields().iter().zip(sample.columns()) {
        let path = || ColumnPath::from(field.name().as_str());
        match field.data_type() {
            DataType::Float64 if is_distinct_double(column.as_primitive::<Float64Type>()) => {
                builder = builder
                    .set_column_dictionary_enabled(path(), false)
                    .set_column_encoding(path(), Encoding::BYTE_STREAM_SPLIT);
            }
            DataType::Utf8 if is_distinct_text(column.as_string::<i32>()) => {
                builder = builder.set_column_dictionary_enabled(path(), false);
            }
            DataType::FixedSizeBinary(_) if field.name() == "parent_span_id" => {
                builder = builder.set_column_dictionary_enabled(path(), signal == Signal::Traces);
            }
            _ => {}
        }
    }
    builder.build()
}

/// By which columns the rows of each row group are sorted. What logs are sorted by, class and stream, are no columns.
fn sorting_columns(signal: Signal, sample: &RecordBatch) -> Option<Vec<SortingColumn>> {
    let names: &[&str] = match signal {
        Signal::Logs => return None,
        Signal::Metrics => &["name", "series", "time"],
        Signal::Traces => &["trace_id", "time"],
    };
    let schema = sample.schema();
    names
        .iter()
        .map(|name| {
            // Parquet numbers leaf columns; all of these stand before the first nested one.
            let column_idx = i32::try_from(schema.index_of(name).ok()?).ok()?;
            Some(SortingColumn { column_idx, descending: false, nulls_first: true })
        })
        .collect()
}

fn is_distinct_double(column: &arrow::array::Float64Array) -> bool {
    let values = column.iter().flatten().take(SAMPLE_ROWS);
    let (mut count, mut distinct) = (0, HashSet::new());
    for value in values {
        count += 1;
        distinct.insert(value.to_bits());
    }
    count > 0 && distinct.len() as f64 > DISTINCT_SHARE * f64::from(count)
}

fn is_distinct_text(column: &arrow::array::StringArray) -> bool {
    let (mut count, mut distinct) = (0, HashSet::new());
    for value in column.iter().flatten().take(SAMPLE_ROWS) {
        count += 1;
        distinct.insert(value);
    }
    count >= 64 && distinct.len() as f64 > DISTINCT_SHARE * f64::from(count)
}
