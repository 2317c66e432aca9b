//! `Span`, its events and links.

use super::fault::{Fault, InField};
use super::value::Attribute;
use super::wire::{Fields, Wire};
use super::{decode_id, push_attribute};

/// One span; absent fields have proto3's defaults.
#[derive(Debug, Default)]
pub(crate) struct SpanRow<'a> {
    /// Bytes of the message.
    pub size: usize,
    pub trace_id: Option<&'a [u8; 16]>,
    pub span_id: Option<&'a [u8; 8]>,
    pub parent_span_id: Option<&'a [u8; 8]>,
    pub trace_state: &'a str,
    pub name: &'a str,
    pub kind: i32,
    pub start_time: u64,
    pub end_time: u64,
    pub attributes: Vec<Attribute<'a>>,
    pub dropped: u32,
    pub events: Vec<EventRow<'a>>,
    pub dropped_events: u32,
    pub links: Vec<LinkRow<'a>>,
    pub dropped_links: u32,
    pub status_code: i32,
    pub status_message: &'a str,
    pub flags: u32,
}

/// A span's event.
#[derive(Debug, Default)]
pub(crate) struct EventRow<'a> {
    pub time: u64,
    pub name: &'a str,
    pub attributes: Vec<Attribute<'a>>,
    pub dropped: u32,
}

/// A span's link to another span.
#[derive(Debug, Default)]
pub(crate) struct LinkRow<'a> {
    pub trace_id: Option<&'a [u8; 16]>,
    pub span_id: Option<&'a [u8; 8]>,
    pub trace_state: &'a str,
    pub attributes: Vec<Attribute<'a>>,
    pub dropped: u32,
    pub flags: u32,
}

impl<'a> SpanRow<'a> {
    /// Makes this the row of `message`, keeping its allocations.
    pub(crate) fn decode(&mut self, message: &'a [u8]) -> Result<(), Fault> {
        let mut attributes = std::mem::take(&mut self.attributes);
        let mut events = std::mem::take(&mut self.events);
        let mut links = std::mem::take(&mut self.links);
        attributes.clear();
        events.clear();
        links.clear();
        *self = Self { size: message.len(), attributes, events, links, ..Self::default() };
        let mut fields = Fields::of(message);
        while let Some((number, wire)) = fields.next()? {
            match number {
                1 => self.trace_id = decode_id(wire, "traceId")?,
                2 => self.span_id = decode_id(wire, "spanId")?,
                3 => self.trace_state = wire.text().in_field("traceState")?,
                4 => self.parent_span_id = decode_id(wire, "parentSpanId")?,
                5 => self.name = wire.text().in_field("name")?,
                6 => self.kind = wire.int32().in_field("kind")?,
                7 => self.start_time = wire.fixed64().in_field("startTimeUnixNano")?,
                8 => self.end_time = wire.fixed64().in_field("endTimeUnixNano")?,
                9 => push_attribute(&mut self.attributes, wire)?,
                10 => self.dropped = wire.uint32().in_field("droppedAttributesCount")?,
                11 => {
                    let event = decode_event(wire).map_err(|fault| fault.within_item("events", self.events.len()))?;
                    self.events.push(event);
                }
                12 => self.dropped_events = wire.uint32().in_field("droppedEventsCount")?,
                13 => {
                    let link = decode_link(wire).map_err(|fault| fault.within_item("links", self.links.len()))?;
                    self.links.push(link);
                }
                14 => self.dropped_links = wire.uint32().in_field("droppedLinksCount")?,
                15 => self.decode_status(wire).in_field("status")?,
                16 => self.flags = wire.fixed32().in_field("flags")?,
                _ => {}
            }
        }
        Ok(())
    }

    fn decode_status(&mut self, wire: Wire<'a>) -> Result<(), Fault> {
        let mut fields = Fields::of(wire.bytes()?);
        while let Some((number, wire)) = fields.next()? {
            match number {
                2 => self.status_message = wire.text().in_field("message")?,
                3 => self.status_code = wire.int32().in_field("code")?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn decode_event(wire: Wire<'_>) -> Result<EventRow<'_>, Fault> {
    let mut event = EventRow::default();
    let mut fields = Fields::of(wire.bytes()?);
    while let Some((number, wire)) = fields.next()? {
        match number {
            1 => event.time = wire.fixed64().in_field("timeUnixNano")?,
            2 => event.name = wire.text().in_field("name")?,
            3 => push_attribute(&mut event.attributes, wire)?,
            4 => event.dropped = wire.uint32().in_field("droppedAttributesCount")?,
            _ => {}
        }
    }
    Ok(event)
}

fn decode_link(wire: Wire<'_>) -> Result<LinkRow<'_>, Fault> {
    let mut link = LinkRow::default();
    let mut fields = Fields::of(wire.bytes()?);
    while let Some((number, wire)) = fields.next()? {
        match number {
            1 => link.trace_id = decode_id(wire, "traceId")?,
            2 => link.span_id = decode_id(wire, "spanId")?,
            3 => link.trace_state = wire.text().in_field("traceState")?,
            4 => push_attribute(&mut link.attributes, wire)?,
            5 => link.dropped = wire.uint32().in_field("droppedAttributesCount")?,
            6 => link.flags = wire.fixed32().in_field("flags")?,
            _ => {}
        }
    }
    Ok(link)
}

/// The name of a span kind as the column holds it; unknown numbers read as unspecified.
pub(crate) fn kind_name(kind: i32) -> &'static str {
    match kind {
        1 => "internal",
        2 => "server",
        3 => "client",
        4 => "producer",
        5 => "consumer",
        _ => "unspecified",
    }
}

/// The name of a status code as the column holds it.
pub(crate) fn status_name(code: i32) -> &'static str {
    match code {
        1 => "ok",
        2 => "error",
        _ => "unset",
    }
}
