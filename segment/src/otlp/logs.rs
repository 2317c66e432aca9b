//! `LogRecord`.

use super::fault::{Fault, InField};
use super::value::{AnyRef, Attribute, decode_any};
use super::wire::Fields;
use super::{decode_id, push_attribute};

/// One log record; absent fields have proto3's defaults.
#[derive(Debug)]
pub(crate) struct LogRow<'a> {
    /// Bytes of the message.
    pub size: usize,
    pub time: u64,
    pub observed_time: u64,
    pub severity_number: i32,
    pub severity_text: &'a str,
    pub body: AnyRef<'a>,
    pub attributes: Vec<Attribute<'a>>,
    pub dropped: u32,
    pub flags: u32,
    pub trace_id: Option<&'a [u8; 16]>,
    pub span_id: Option<&'a [u8; 8]>,
    pub event_name: &'a str,
}

impl<'a> LogRow<'a> {
    /// A row that reads as an empty message.
    pub(crate) fn empty() -> Self {
        Self {
            size: 0,
            time: 0,
            observed_time: 0,
            severity_number: 0,
            severity_text: "",
            body: AnyRef::Empty,
            attributes: Vec::new(),
            dropped: 0,
            flags: 0,
            trace_id: None,
            span_id: None,
            event_name: "",
        }
    }

    /// Makes this the row of `message`, keeping its allocations.
    pub(crate) fn decode(&mut self, message: &'a [u8]) -> Result<(), Fault> {
        let mut attributes = std::mem::take(&mut self.attributes);
        attributes.clear();
        *self = Self { size: message.len(), attributes, ..Self::empty() };
        let mut fields = Fields::of(message);
        while let Some((number, wire)) = fields.next()? {
            match number {
                1 => self.time = wire.fixed64().in_field("timeUnixNano")?,
                2 => self.severity_number = wire.int32().in_field("severityNumber")?,
                3 => self.severity_text = wire.text().in_field("severityText")?,
                5 => {
                    self.body =
                        wire.bytes().map_err(Fault::from).and_then(|bytes| decode_any(bytes, 0)).in_field("body")?
                }
                6 => push_attribute(&mut self.attributes, wire)?,
                7 => self.dropped = wire.uint32().in_field("droppedAttributesCount")?,
                8 => self.flags = wire.fixed32().in_field("flags")?,
                9 => self.trace_id = decode_id(wire, "traceId")?,
                10 => self.span_id = decode_id(wire, "spanId")?,
                11 => self.observed_time = wire.fixed64().in_field("observedTimeUnixNano")?,
                12 => self.event_name = wire.text().in_field("eventName")?,
                _ => {}
            }
        }
        Ok(())
    }
}
