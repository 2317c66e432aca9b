//! The tables and their logical columns: `logs`, `metrics`, `spans`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidemill_segment::read::{AttributeScope, AttributeType};
use tidemill_segment::schema::core_fields;
use tidemill_types::Signal;

use crate::attributes::{AttributeKey, logical_type};

/// A column as SQL sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogicalColumn {
    /// A physical column as it is.
    Plain(String),
    /// A physical fixed-size binary, as lower-case hexadecimal text.
    Hex(String),
    /// All attributes of a scope as one JSON object, its keys sorted.
    Object(AttributeScope),
    /// One attribute.
    Attribute(AttributeKey, AttributeType),
}

/// The columns of a table, the named attributes of one query last.
#[derive(Debug, Clone)]
pub(crate) struct TableColumns {
    pub(crate) signal: Signal,
    pub(crate) columns: Vec<LogicalColumn>,
    pub(crate) schema: SchemaRef,
}

impl TableColumns {
    pub(crate) fn new(signal: Signal, attributes: &[(AttributeKey, AttributeType)]) -> Self {
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        for field in core_fields(signal) {
            let (column, kind) = match field.data_type() {
                DataType::FixedSizeBinary(_) => (LogicalColumn::Hex(field.name().clone()), DataType::Utf8View),
                DataType::Utf8 => (LogicalColumn::Plain(field.name().clone()), DataType::Utf8View),
                other => (LogicalColumn::Plain(field.name().clone()), other.clone()),
            };
            columns.push(column);
            fields.push(Field::new(field.name(), kind, field.is_nullable()));
        }
        for scope in AttributeScope::ALL {
            columns.push(LogicalColumn::Object(scope));
            fields.push(Field::new(object_column(scope), DataType::Utf8View, false));
        }
        for (key, kind) in attributes {
            columns.push(LogicalColumn::Attribute(key.clone(), *kind));
            fields.push(Field::new(key.column_name(), logical_type(*kind), true));
        }
        Self { signal, columns, schema: Arc::new(Schema::new(fields)) }
    }

    pub(crate) fn column(&self, name: &str) -> Option<&LogicalColumn> {
        self.schema.index_of(name).ok().map(|index| &self.columns[index])
    }
}

/// The column that holds all attributes of a scope.
pub(crate) fn object_column(scope: AttributeScope) -> &'static str {
    match scope {
        AttributeScope::Record => "attributes",
        AttributeScope::Resource => "resource",
        AttributeScope::Scope => "scope",
    }
}

/// The signal of a table.
pub(crate) fn table_signal(name: &str) -> Option<Signal> {
    Signal::ALL.into_iter().find(|signal| signal.table().eq_ignore_ascii_case(name))
}

/// What a fixed column means, for `DESCRIBE`.
pub(crate) fn column_meaning(signal: Signal, name: &str) -> &'static str {
    match (signal, name) {
        (_, "time") => "when it happened: event, else observed, else arrival time",
        (_, "arrival_time") => "when it arrived",
        (_, "original_time") => "the sender's time in nanoseconds, where it was out of range and replaced",
        (_, "service_name") => "resource attribute service.name",
        (_, "scope_name") => "instrumentation scope",
        (_, "scope_version") => "version of the instrumentation scope",
        (_, "resource_schema_url" | "scope_schema_url") => "schema URL",
        (_, "resource_dropped" | "scope_dropped" | "dropped_attributes") => "attributes that the sender dropped",
        (_, "attributes") => "all attributes of the record as JSON; one alone: attr('key')",
        (_, "resource") => "all resource attributes as JSON; one alone: resource('key')",
        (_, "scope") => "all scope attributes as JSON; one alone: scope('key')",
        (_, "trace_id" | "span_id" | "parent_span_id") => "lower-case hexadecimal",
        (_, "flags") => "OpenTelemetry flags",
        (Signal::Logs, "observed_time") => "when a collector saw it",
        (Signal::Logs, "severity_number") => "1 trace, 5 debug, 9 info, 13 warn, 17 error, 21 fatal",
        (Signal::Logs, "severity_text") => "the level as the source named it",
        (Signal::Logs, "body") => "the message",
        (Signal::Logs, "body_type") => "json when body holds a structured value as JSON, null when it is text",
        (Signal::Logs, "event_name") => "the name of an event",
        (Signal::Logs, "pattern") => "hash of the message with its variable parts masked",
        (Signal::Metrics, "kind") => "gauge, sum, histogram, exponential_histogram or summary",
        (Signal::Metrics, "temporality") => "delta or cumulative",
        (Signal::Metrics, "value") => "value of a gauge or sum",
        (Signal::Metrics, "value_int") => "its exact value where it was sent as an integer",
        (Signal::Metrics, "series") => "identity of the series, 128 bits, hexadecimal",
        (Signal::Metrics, "start_time") => "since when a sum or histogram counts",
        (Signal::Traces, "kind") => "internal, server, client, producer, consumer or unspecified",
        (Signal::Traces, "duration_ns") => "end minus start in nanoseconds",
        (Signal::Traces, "status_code") => "unset, ok or error",
        _ => "",
    }
}
