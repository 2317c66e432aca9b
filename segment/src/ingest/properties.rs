//! How level 0 columns are written: fast first, statistics everywhere, a bloom filter on trace ids.

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use tidemill_types::Signal;

use super::promotion::Promotion;
use crate::schema::AttributeScope;

/// Properties for segments of `signal` whose first row group has `rows` rows.
pub(crate) fn level_0_properties(signal: Signal, promotion: &Promotion, rows: usize) -> WriterProperties {
    let column = |name: &str| ColumnPath::from(name);
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("tidemill ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("1 is a zstd level")))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(None)
        .set_sorting_columns(Some(vec![SortingColumn { column_idx: 0, descending: false, nulls_first: false }]));
    for name in ["time", "arrival_time", "observed_time", "end_time", "start_time"] {
        builder = builder
            .set_column_dictionary_enabled(column(name), false)
            .set_column_encoding(column(name), Encoding::DELTA_BINARY_PACKED);
    }
    // Free text: a dictionary would only be filled and thrown away, and its smallest value tells nothing.
    for name in ["body", "exemplars"].into_iter().chain(AttributeScope::ALL.map(AttributeScope::overflow_column)) {
        builder = builder.set_column_statistics_enabled(column(name), EnabledStatistics::None);
    }
    let plain = ["body", "span_id", "parent_span_id", "duration_ns", "value", "value_int", "sum"];
    for name in plain.into_iter().chain(promotion.distinct.iter().map(String::as_str)) {
        builder = builder.set_column_dictionary_enabled(column(name), false);
    }
    if signal != Signal::Metrics {
        builder = builder
            .set_column_bloom_filter_enabled(column("trace_id"), true)
            .set_column_bloom_filter_fpp(column("trace_id"), 0.01)
            .set_column_bloom_filter_max_ndv(column("trace_id"), rows.max(1) as u64);
    }
    builder.build()
}
