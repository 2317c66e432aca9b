//! The core columns of spans.

use std::sync::Arc;

use arrow::array::{ArrayRef, StructArray};
use arrow::datatypes::{DataType, Int64Type, TimestampNanosecondType, UInt32Type};

use super::columns::{IdColumn, NumberColumn, Placement, TextColumn, build_list};
use super::tables::push_count;
use super::time::stored_time;
use crate::json::write_attributes;
use crate::otlp::spans::{SpanRow, kind_name, status_name};
use crate::schema::{event_fields, link_fields, list_of, timestamp_type};

/// Spans of one partition that are not written yet.
#[derive(Debug, Default)]
pub(crate) struct SpanColumns {
    trace_id: IdColumn<16>,
    span_id: IdColumn<8>,
    parent_span_id: IdColumn<8>,
    trace_state: TextColumn,
    name: TextColumn,
    kind: TextColumn,
    end_time: NumberColumn<TimestampNanosecondType>,
    duration: NumberColumn<Int64Type>,
    status_code: TextColumn,
    status_message: TextColumn,
    flags: NumberColumn<UInt32Type>,
    events: EventColumns,
    links: LinkColumns,
    dropped_events: NumberColumn<UInt32Type>,
    dropped_links: NumberColumn<UInt32Type>,
}

#[derive(Debug, Default)]
struct EventColumns {
    rows: Vec<u32>,
    ends: Vec<usize>,
    count: u32,
    time: NumberColumn<TimestampNanosecondType>,
    name: TextColumn,
    attributes: TextColumn,
    dropped: NumberColumn<UInt32Type>,
}

#[derive(Debug, Default)]
struct LinkColumns {
    rows: Vec<u32>,
    ends: Vec<usize>,
    count: u32,
    trace_id: IdColumn<16>,
    span_id: IdColumn<8>,
    trace_state: TextColumn,
    attributes: TextColumn,
    flags: NumberColumn<UInt32Type>,
    dropped: NumberColumn<UInt32Type>,
}

impl SpanColumns {
    #[inline]
    pub(crate) fn push(&mut self, row: u32, span: &SpanRow<'_>) {
        self.trace_id.push_some(row, span.trace_id);
        self.span_id.push_some(row, span.span_id);
        self.parent_span_id.push_some(row, span.parent_span_id);
        self.trace_state.push_some(row, span.trace_state);
        self.name.push(row, span.name);
        self.kind.push(row, kind_name(span.kind));
        let (start, end) = (stored_time(span.start_time), stored_time(span.end_time));
        self.end_time.push_some(row, end);
        // From the times as they were sent, so that a replaced start does not bend the duration; a negative one is kept as it is.
        self.duration.push_some(row, start.zip(end).map(|(start, end)| end - start));
        self.status_code.push(row, status_name(span.status_code));
        self.status_message.push_some(row, span.status_message);
        push_count(&mut self.flags, row, span.flags);
        if !span.events.is_empty() {
            self.events.push(row, span);
        }
        if !span.links.is_empty() {
            self.links.push(row, span);
        }
        push_count(&mut self.dropped_events, row, span.dropped_events);
        push_count(&mut self.dropped_links, row, span.dropped_links);
    }

    /// Arrays in the order of the schema.
    pub(crate) fn build(&mut self, rows: Placement<'_>, out: &mut Vec<ArrayRef>) {
        out.push(self.trace_id.build(rows));
        out.push(self.span_id.build(rows));
        out.push(self.parent_span_id.build(rows));
        out.push(self.trace_state.build(rows));
        out.push(self.name.build(rows));
        out.push(self.kind.build(rows));
        out.push(self.end_time.build(rows, &timestamp_type()));
        out.push(self.duration.build(rows, &DataType::Int64));
        out.push(self.status_code.build(rows));
        out.push(self.status_message.build(rows));
        out.push(self.flags.build(rows, &DataType::UInt32));
        out.push(self.events.build(rows));
        out.push(self.links.build(rows));
        out.push(self.dropped_events.build(rows, &DataType::UInt32));
        out.push(self.dropped_links.build(rows, &DataType::UInt32));
    }

    pub(crate) fn clear(&mut self) {
        // Events and links are rebuilt: they are few, and their parts are many.
        self.events = EventColumns::default();
        self.links = LinkColumns::default();
        self.trace_id.clear();
        self.span_id.clear();
        self.parent_span_id.clear();
        self.trace_state.clear();
        self.name.clear();
        self.kind.clear();
        self.end_time.clear();
        self.duration.clear();
        self.status_code.clear();
        self.status_message.clear();
        self.flags.clear();
        self.dropped_events.clear();
        self.dropped_links.clear();
    }
}

impl EventColumns {
    fn push(&mut self, row: u32, span: &SpanRow<'_>) {
        if self.ends.is_empty() {
            self.ends.push(0);
        }
        for event in &span.events {
            let place = self.count;
            self.time.push_some(place, stored_time(event.time));
            self.name.push(place, event.name);
            if !event.attributes.is_empty() {
                self.attributes.push_written(place, |out| write_attributes(out, &event.attributes));
            }
            push_count(&mut self.dropped, place, event.dropped);
            self.count += 1;
        }
        self.rows.push(row);
        self.ends.push(self.count as usize);
    }

    fn build(&mut self, rows: Placement<'_>) -> ArrayRef {
        let elements = Placement { rows: self.count as usize, source: None };
        let arrays = vec![
            self.time.build(elements, &timestamp_type()),
            self.name.build_plain(elements),
            self.attributes.build_plain(elements),
            self.dropped.build(elements, &DataType::UInt32),
        ];
        let array = StructArray::new(event_fields(), arrays, None);
        build_list(&self.rows, &self.ends, Arc::new(array), rows, &list_of(DataType::Struct(event_fields())))
    }
}

impl LinkColumns {
    fn push(&mut self, row: u32, span: &SpanRow<'_>) {
        if self.ends.is_empty() {
            self.ends.push(0);
        }
        for link in &span.links {
            let place = self.count;
            self.trace_id.push_some(place, link.trace_id);
            self.span_id.push_some(place, link.span_id);
            self.trace_state.push_some(place, link.trace_state);
            if !link.attributes.is_empty() {
                self.attributes.push_written(place, |out| write_attributes(out, &link.attributes));
            }
            push_count(&mut self.flags, place, link.flags);
            push_count(&mut self.dropped, place, link.dropped);
            self.count += 1;
        }
        self.rows.push(row);
        self.ends.push(self.count as usize);
    }

    fn build(&mut self, rows: Placement<'_>) -> ArrayRef {
        let elements = Placement { rows: self.count as usize, source: None };
        let arrays = vec![
            self.trace_id.build(elements),
            self.span_id.build(elements),
            self.trace_state.build_plain(elements),
            self.attributes.build_plain(elements),
            self.flags.build(elements, &DataType::UInt32),
            self.dropped.build(elements, &DataType::UInt32),
        ];
        let array = StructArray::new(link_fields(), arrays, None);
        build_list(&self.rows, &self.ends, Arc::new(array), rows, &list_of(DataType::Struct(link_fields())))
    }
}
