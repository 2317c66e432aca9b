//! The input: batches of spans, in the columns of trace segments.

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampNanosecondType};

use super::attributes::AttributeScope;
use crate::error::{Error, Result};

/// A column of the batch that holds one attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeColumn {
    /// The column.
    pub column: String,
    /// Whose attribute.
    pub scope: AttributeScope,
    /// Its key.
    pub key: String,
}

/// Spans; every trace that has a span in the batch has all of them there.
///
/// Columns, as in trace segments: `trace_id` (16 bytes), `span_id` (8 bytes), `parent_span_id` (8 bytes, null for a root), `name`, `kind`,
/// `time` (the start, `Timestamp(Nanosecond)` or `Int64`), `duration_ns` (`Int64`), `status_code`, `status_message`, `scope_name`,
/// `scope_version`, `events` and `links` (lists of structs), a column for each attribute that the caller names, and `a_rest`, `r_rest` and
/// `s_rest` with the other attributes of spans, resources and scopes as JSON. Only the first five and `status_code` must be there.
#[derive(Debug, Clone)]
pub struct SpanBatch {
    pub(super) trace_id: FixedSizeBinaryArray,
    pub(super) span_id: FixedSizeBinaryArray,
    pub(super) parent_id: Option<FixedSizeBinaryArray>,
    pub(super) name: StringArray,
    pub(super) kind: StringArray,
    pub(super) start: Int64Array,
    pub(super) duration: Option<Int64Array>,
    pub(super) status: StringArray,
    pub(super) status_message: Option<StringArray>,
    pub(super) scope_name: Option<StringArray>,
    pub(super) scope_version: Option<StringArray>,
    pub(super) events: Option<ListArray>,
    pub(super) links: Option<ListArray>,
    pub(super) promoted: Vec<(AttributeScope, String, ArrayRef)>,
    pub(super) rest: Vec<(AttributeScope, StringArray)>,
}

impl SpanBatch {
    /// A batch over `rows`, of which `columns` hold attributes.
    ///
    /// # Errors
    /// A column is missing or of another type.
    pub fn new(rows: &RecordBatch, columns: &[AttributeColumn]) -> Result<Self> {
        let ids = |name: &str| -> Result<Option<FixedSizeBinaryArray>> {
            let Some(column) = rows.column_by_name(name) else { return Ok(None) };
            column.as_fixed_size_binary_opt().cloned().map(Some).ok_or_else(|| wrong(name, column))
        };
        let texts = |name: &str| -> Result<Option<StringArray>> {
            let Some(column) = rows.column_by_name(name) else { return Ok(None) };
            column.as_string_opt::<i32>().cloned().map(Some).ok_or_else(|| wrong(name, column))
        };
        let lists = |name: &str| -> Result<Option<ListArray>> {
            let Some(column) = rows.column_by_name(name) else { return Ok(None) };
            column.as_list_opt::<i32>().cloned().map(Some).ok_or_else(|| wrong(name, column))
        };
        let numbers = |name: &str| -> Result<Option<Int64Array>> {
            let Some(column) = rows.column_by_name(name) else { return Ok(None) };
            match column.data_type() {
                DataType::Int64 => Ok(Some(column.as_primitive::<Int64Type>().clone())),
                DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                    Ok(Some(column.as_primitive::<TimestampNanosecondType>().reinterpret_cast::<Int64Type>()))
                }
                _ => Err(wrong(name, column)),
            }
        };
        let mut promoted = Vec::new();
        for own in columns {
            let column = rows.column_by_name(&own.column).ok_or_else(|| missing(&own.column))?;
            let is_known =
                matches!(column.data_type(), DataType::Utf8 | DataType::Int64 | DataType::Float64 | DataType::Boolean);
            if !is_known {
                return Err(wrong(&own.column, column));
            }
            promoted.push((own.scope, own.key.clone(), column.clone()));
        }
        let mut rest = Vec::new();
        for scope in AttributeScope::ALL {
            if let Some(column) = texts(scope.rest_column())? {
                rest.push((scope, column));
            }
        }
        Ok(Self {
            trace_id: ids("trace_id")?.ok_or_else(|| missing("trace_id"))?,
            span_id: ids("span_id")?.ok_or_else(|| missing("span_id"))?,
            parent_id: ids("parent_span_id")?,
            name: texts("name")?.ok_or_else(|| missing("name"))?,
            kind: texts("kind")?.ok_or_else(|| missing("kind"))?,
            start: numbers("time")?.ok_or_else(|| missing("time"))?,
            duration: numbers("duration_ns")?,
            status: texts("status_code")?.ok_or_else(|| missing("status_code"))?,
            status_message: texts("status_message")?,
            scope_name: texts("scope_name")?,
            scope_version: texts("scope_version")?,
            events: lists("events")?,
            links: lists("links")?,
            promoted,
            rest,
        })
    }

    /// How many spans it has.
    pub fn rows(&self) -> usize {
        self.name.len()
    }

    pub(super) fn start_ns(&self, row: usize) -> i64 {
        self.start.value(row)
    }

    pub(super) fn duration_ns(&self, row: usize) -> i64 {
        self.duration.as_ref().filter(|column| column.is_valid(row)).map_or(0, |column| column.value(row))
    }

    /// The parent's id; none for a root.
    pub(super) fn parent_id(&self, row: usize) -> Option<&[u8]> {
        let column = self.parent_id.as_ref().filter(|column| column.is_valid(row))?;
        Some(column.value(row)).filter(|id| id.iter().any(|byte| *byte != 0))
    }

    /// The rows of each trace, traces in order of their first span.
    pub(super) fn traces(&self) -> Vec<Vec<usize>> {
        let mut traces: Vec<Vec<usize>> = Vec::new();
        let mut by_id: ahash::AHashMap<&[u8], usize> = ahash::AHashMap::new();
        for row in 0..self.rows() {
            if self.trace_id.is_null(row) {
                continue;
            }
            let id = self.trace_id.value(row);
            let is_same = traces.last().is_some_and(|rows| self.trace_id.value(rows[0]) == id);
            let at = if is_same {
                traces.len() - 1
            } else {
                *by_id.entry(id).or_insert_with(|| {
                    traces.push(Vec::new());
                    traces.len() - 1
                })
            };
            traces[at].push(row);
        }
        traces
    }
}

fn missing(name: &str) -> Error {
    Error::Data(format!("spans without the column {name:?}"))
}

fn wrong(name: &str, column: &ArrayRef) -> Error {
    Error::Data(format!("column {name:?} of spans is {}", column.data_type()))
}
