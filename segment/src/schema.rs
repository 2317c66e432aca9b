//! The physical columns of a segment: fixed ones per signal, then promoted attributes, then one overflow column per attribute scope.
//!
//! `docs/segment-format.md` describes each; [`core_fields`] is the list in file order. Names of promoted columns survive readers that
//! ignore case; the footer maps them back to the attribute's own key.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};
use tidemill_types::Signal;

/// The most attributes that a segment gives columns of their own.
pub const PROMOTED_LIMIT: usize = 200;
/// Longer keys stay in the overflow column.
pub const PROMOTED_KEY_BYTES: usize = 128;

/// Whose attribute it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttributeScope {
    /// The log record's, span's or data point's own.
    Record,
    /// The resource's.
    Resource,
    /// The instrumentation scope's.
    Scope,
}

impl AttributeScope {
    /// Every scope, in the order of their columns.
    pub const ALL: [Self; 3] = [Self::Record, Self::Resource, Self::Scope];

    /// What the names of its columns start with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Record => "a_",
            Self::Resource => "r_",
            Self::Scope => "s_",
        }
    }

    /// The column of JSON objects that holds what has no column of its own.
    pub fn overflow_column(self) -> &'static str {
        match self {
            Self::Record => "a_rest",
            Self::Resource => "r_rest",
            Self::Scope => "s_rest",
        }
    }
}

/// The type of a promoted column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttributeType {
    /// `stringValue`, a UTF-8 column.
    String,
    /// `intValue`, an int64 column.
    Int,
    /// `doubleValue`, a float64 column.
    Double,
    /// `boolValue`, a boolean column.
    Bool,
}

impl AttributeType {
    /// The column's Arrow type.
    pub fn data_type(self) -> DataType {
        match self {
            Self::String => DataType::Utf8,
            Self::Int => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Bool => DataType::Boolean,
        }
    }
}

/// An attribute that has a column of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PromotedColumn {
    /// The physical column; `service_name` for the resource's `service.name`.
    pub column: String,
    /// Whose attribute.
    pub scope: AttributeScope,
    /// The attribute's key as it was sent.
    pub key: String,
    /// The one type of its values; values of other types stay in the overflow column.
    #[serde(rename = "type")]
    pub kind: AttributeType,
}

/// The resource attribute that lives in the column `service_name`.
pub const SERVICE_NAME_KEY: &str = "service.name";
/// The column of the resource attribute `service.name`.
pub const SERVICE_NAME_COLUMN: &str = "service_name";

/// Hands out column names: lower-cased, what is not `[a-z0-9_]` replaced by `_`, made unique by `_2`, `_3` and so on.
#[derive(Debug)]
pub struct ColumnNames {
    taken: HashSet<String>,
}

impl Default for ColumnNames {
    fn default() -> Self {
        Self { taken: AttributeScope::ALL.map(|scope| scope.overflow_column().to_owned()).into() }
    }
}

impl ColumnNames {
    /// A name for the column of attribute `key`, never given out before by this value.
    pub fn name(&mut self, scope: AttributeScope, key: &str) -> String {
        let mut base = scope.prefix().to_owned();
        base.extend(key.chars().map(|letter| match letter.to_ascii_lowercase() {
            plain @ ('a'..='z' | '0'..='9' | '_') => plain,
            _ => '_',
        }));
        let mut name = base.clone();
        let mut number = 2;
        while !self.taken.insert(name.clone()) {
            name = format!("{base}_{number}");
            number += 1;
        }
        name
    }
}

/// The whole schema of a segment's rows: core columns, promoted columns in their order, overflow columns.
pub fn segment_schema(signal: Signal, promoted: &[PromotedColumn]) -> SchemaRef {
    let mut fields = core_fields(signal);
    for column in promoted.iter().filter(|column| column.column != SERVICE_NAME_COLUMN) {
        fields.push(Field::new(&column.column, column.kind.data_type(), true));
    }
    for scope in AttributeScope::ALL {
        fields.push(Field::new(scope.overflow_column(), DataType::Utf8, true));
    }
    Arc::new(Schema::new(fields))
}

/// The fixed columns of a signal's raw segments, in file order.
pub fn core_fields(signal: Signal) -> Vec<Field> {
    let mut fields = shared_fields();
    fields.extend(match signal {
        Signal::Logs => log_fields(),
        Signal::Metrics => metric_fields(),
        Signal::Traces => span_fields(),
    });
    fields
}

/// `timestamp(ns, UTC)`.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

fn shared_fields() -> Vec<Field> {
    vec![
        Field::new("time", timestamp_type(), false),
        Field::new("arrival_time", timestamp_type(), false),
        Field::new("original_time", DataType::Int64, true),
        Field::new(SERVICE_NAME_COLUMN, DataType::Utf8, true),
        Field::new("scope_name", DataType::Utf8, true),
        Field::new("scope_version", DataType::Utf8, true),
        Field::new("resource_schema_url", DataType::Utf8, true),
        Field::new("scope_schema_url", DataType::Utf8, true),
        Field::new("resource_dropped", DataType::UInt32, true),
        Field::new("scope_dropped", DataType::UInt32, true),
        Field::new("dropped_attributes", DataType::UInt32, true),
    ]
}

fn log_fields() -> Vec<Field> {
    vec![
        Field::new("observed_time", timestamp_type(), true),
        Field::new("severity_number", DataType::Int32, true),
        Field::new("severity_text", DataType::Utf8, true),
        Field::new("body", DataType::Utf8, true),
        Field::new("body_type", DataType::Utf8, true),
        Field::new("event_name", DataType::Utf8, true),
        Field::new("trace_id", DataType::FixedSizeBinary(16), true),
        Field::new("span_id", DataType::FixedSizeBinary(8), true),
        Field::new("flags", DataType::UInt32, true),
        Field::new("pattern", DataType::UInt64, true),
    ]
}

fn metric_fields() -> Vec<Field> {
    vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("description", DataType::Utf8, true),
        Field::new("unit", DataType::Utf8, true),
        Field::new("kind", DataType::Utf8, false),
        Field::new("temporality", DataType::Utf8, true),
        Field::new("is_monotonic", DataType::Boolean, true),
        Field::new("start_time", timestamp_type(), true),
        Field::new("value", DataType::Float64, true),
        Field::new("value_int", DataType::Int64, true),
        Field::new("flags", DataType::UInt32, true),
        Field::new("series", DataType::FixedSizeBinary(16), false),
        Field::new("count", DataType::UInt64, true),
        Field::new("sum", DataType::Float64, true),
        Field::new("min", DataType::Float64, true),
        Field::new("max", DataType::Float64, true),
        Field::new("bucket_counts", list_of(DataType::UInt64), true),
        Field::new("explicit_bounds", list_of(DataType::Float64), true),
        Field::new("scale", DataType::Int32, true),
        Field::new("zero_count", DataType::UInt64, true),
        Field::new("zero_threshold", DataType::Float64, true),
        Field::new("positive_offset", DataType::Int32, true),
        Field::new("positive_counts", list_of(DataType::UInt64), true),
        Field::new("negative_offset", DataType::Int32, true),
        Field::new("negative_counts", list_of(DataType::UInt64), true),
        Field::new("quantiles", list_of(DataType::Struct(quantile_fields())), true),
        Field::new("exemplars", DataType::Utf8, true),
        Field::new("metadata", DataType::Utf8, true),
    ]
}

fn span_fields() -> Vec<Field> {
    vec![
        Field::new("trace_id", DataType::FixedSizeBinary(16), true),
        Field::new("span_id", DataType::FixedSizeBinary(8), true),
        Field::new("parent_span_id", DataType::FixedSizeBinary(8), true),
        Field::new("trace_state", DataType::Utf8, true),
        Field::new("name", DataType::Utf8, false),
        Field::new("kind", DataType::Utf8, false),
        Field::new("end_time", timestamp_type(), true),
        Field::new("duration_ns", DataType::Int64, true),
        Field::new("status_code", DataType::Utf8, false),
        Field::new("status_message", DataType::Utf8, true),
        Field::new("flags", DataType::UInt32, true),
        Field::new("events", list_of(DataType::Struct(event_fields())), true),
        Field::new("links", list_of(DataType::Struct(link_fields())), true),
        Field::new("dropped_events", DataType::UInt32, true),
        Field::new("dropped_links", DataType::UInt32, true),
    ]
}

/// The fields of an element of `quantiles`.
pub fn quantile_fields() -> Fields {
    Fields::from(vec![Field::new("quantile", DataType::Float64, false), Field::new("value", DataType::Float64, false)])
}

/// The fields of an element of `events`.
pub fn event_fields() -> Fields {
    Fields::from(vec![
        Field::new("time", timestamp_type(), true),
        Field::new("name", DataType::Utf8, false),
        Field::new("attributes", DataType::Utf8, true),
        Field::new("dropped", DataType::UInt32, true),
    ])
}

/// The fields of an element of `links`.
pub fn link_fields() -> Fields {
    Fields::from(vec![
        Field::new("trace_id", DataType::FixedSizeBinary(16), true),
        Field::new("span_id", DataType::FixedSizeBinary(8), true),
        Field::new("trace_state", DataType::Utf8, true),
        Field::new("attributes", DataType::Utf8, true),
        Field::new("flags", DataType::UInt32, true),
        Field::new("dropped", DataType::UInt32, true),
    ])
}

/// A list whose elements are never null.
pub fn list_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("element", element, false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_readers_that_ignore_case() {
        let mut names = ColumnNames::default();
        assert_eq!(names.name(AttributeScope::Record, "http.Method"), "a_http_method");
        assert_eq!(names.name(AttributeScope::Record, "http_method"), "a_http_method_2");
        assert_eq!(names.name(AttributeScope::Resource, "http_method"), "r_http_method");
        assert_eq!(names.name(AttributeScope::Record, "rest"), "a_rest_2");
        assert_eq!(names.name(AttributeScope::Record, "straße"), "a_stra_e");
    }

    #[test]
    fn no_core_column_can_clash_with_a_promoted_one() {
        for signal in Signal::ALL {
            for field in core_fields(signal) {
                assert!(AttributeScope::ALL.iter().all(|scope| !field.name().starts_with(scope.prefix())), "{field}");
            }
        }
    }
}
