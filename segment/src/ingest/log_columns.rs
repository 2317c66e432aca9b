//! The core columns of logs.

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::{DataType, Int32Type, TimestampNanosecondType, UInt32Type};

use super::columns::{IdColumn, NumberColumn, Placement, TextColumn};
use super::tables::push_count;
use super::time::stored_time;
use crate::json::write_value;
use crate::otlp::logs::LogRow;
use crate::otlp::value::AnyRef;
use crate::schema::timestamp_type;

/// Log records of one partition that are not written yet.
#[derive(Debug, Default)]
pub(crate) struct LogColumns {
    observed_time: NumberColumn<TimestampNanosecondType>,
    severity_number: NumberColumn<Int32Type>,
    severity_text: TextColumn,
    body: TextColumn,
    body_type: TextColumn,
    event_name: TextColumn,
    trace_id: IdColumn<16>,
    span_id: IdColumn<8>,
    flags: NumberColumn<UInt32Type>,
}

impl LogColumns {
    #[inline]
    pub(crate) fn push(&mut self, row: u32, log: &LogRow<'_>) {
        self.observed_time.push_some(row, stored_time(log.observed_time));
        if log.severity_number != 0 {
            self.severity_number.push(row, log.severity_number);
        }
        self.severity_text.push_some(row, log.severity_text);
        match log.body {
            AnyRef::Empty => {}
            AnyRef::String(text) => self.body.push(row, text),
            structured => {
                self.body.push_written(row, |out| write_value(out, structured));
                self.body_type.push(row, "json");
            }
        }
        self.event_name.push_some(row, log.event_name);
        self.trace_id.push_some(row, log.trace_id);
        self.span_id.push_some(row, log.span_id);
        push_count(&mut self.flags, row, log.flags);
    }

    /// Arrays in the order of the schema.
    pub(crate) fn build(&mut self, rows: Placement<'_>, out: &mut Vec<ArrayRef>) {
        out.push(self.observed_time.build(rows, &timestamp_type()));
        out.push(self.severity_number.build(rows, &DataType::Int32));
        out.push(self.severity_text.build(rows));
        out.push(self.body.build_long(rows));
        out.push(self.body_type.build(rows));
        out.push(self.event_name.build(rows));
        out.push(self.trace_id.build(rows));
        out.push(self.span_id.build(rows));
        out.push(self.flags.build(rows, &DataType::UInt32));
        // Patterns are found when rows are sorted by them, at level 1.
        out.push(new_null_array(&DataType::UInt64, rows.rows));
    }

    pub(crate) fn clear(&mut self) {
        self.observed_time.clear();
        self.severity_number.clear();
        self.severity_text.clear();
        self.body.clear();
        self.body_type.clear();
        self.event_name.clear();
        self.trace_id.clear();
        self.span_id.clear();
        self.flags.clear();
    }
}
