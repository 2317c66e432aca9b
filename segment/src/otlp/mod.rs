//! OTLP as it comes over the wire: a protobuf reader of our own that borrows from the message and refuses record by record.
//!
//! Rows are handed to a [`Sink`]; checking a push and encoding a bundle are two sinks behind one walker, so that what was acknowledged
//! is what is stored. Start with [`stream::walk_requests`] and [`walk::walk_resource`].

pub(crate) mod fault;
pub(crate) mod from_json;
mod json_schema;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod spans;
pub(crate) mod stream;
pub(crate) mod value;
pub(crate) mod walk;
pub(crate) mod wire;
pub(crate) mod writer;

use fault::{Fault, InField};
use value::{Attribute, decode_attribute};
use wire::Wire;

use crate::error::Result;
use crate::ingest::Issue;

/// One record may have this many bytes.
pub(crate) const RECORD_LIMIT_BYTES: usize = 16 << 20;

/// A resource with what its message says of it.
#[derive(Debug, Default)]
pub(crate) struct ResourceRow<'a> {
    /// The bytes of the `Resource` message; equal bytes mean an equal resource.
    pub raw: &'a [u8],
    pub attributes: Vec<Attribute<'a>>,
    pub dropped: u32,
    pub schema_url: &'a str,
}

/// An instrumentation scope with what its message says of it.
#[derive(Debug, Default)]
pub(crate) struct ScopeRow<'a> {
    /// The bytes of the `InstrumentationScope` message.
    pub raw: &'a [u8],
    pub name: &'a str,
    pub version: &'a str,
    pub attributes: Vec<Attribute<'a>>,
    pub dropped: u32,
    pub schema_url: &'a str,
}

/// The resource and scope that records stand in.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'f, 'a> {
    pub resource: &'f ResourceRow<'a>,
    pub scope: &'f ScopeRow<'a>,
}

/// Takes the rows of a walk, in their order.
pub(crate) trait Sink {
    /// Another resource begins.
    fn enter_resource(&mut self, resource: &ResourceRow<'_>);
    /// Another scope begins.
    fn enter_scope(&mut self, frame: Frame<'_, '_>);
    /// Another metric begins.
    fn enter_metric(&mut self, frame: Frame<'_, '_>, metric: &metrics::MetricRow<'_>);
    /// A log record.
    fn log(&mut self, frame: Frame<'_, '_>, log: &logs::LogRow<'_>) -> Result<()>;
    /// A data point of the last metric.
    fn point(
        &mut self,
        frame: Frame<'_, '_>,
        metric: &metrics::MetricRow<'_>,
        point: &metrics::PointRow<'_>,
    ) -> Result<()>;
    /// A span.
    fn span(&mut self, frame: Frame<'_, '_>, span: &spans::SpanRow<'_>) -> Result<()>;
    /// `records` records are refused.
    fn refuse(&mut self, records: u64, issue: Issue);
}

/// Appends the attribute in `wire` to `attributes`.
#[inline]
pub(crate) fn push_attribute<'a>(
    attributes: &mut Vec<Attribute<'a>>,
    wire: Wire<'a>,
) -> std::result::Result<(), Fault> {
    let message = wire.bytes().in_field("attributes")?;
    match decode_attribute(message, 0) {
        Ok(attribute) => {
            attributes.push(attribute);
            Ok(())
        }
        Err(fault) => Err(fault.within_item("attributes", attributes.len())),
    }
}

/// An id of `N` bytes; empty and all zero mean none, other lengths are refused.
#[inline]
pub(crate) fn decode_id<'a, const N: usize>(
    wire: Wire<'a>,
    field: &str,
) -> std::result::Result<Option<&'a [u8; N]>, Fault> {
    let bytes = wire.bytes().in_field(field)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    match <&[u8; N]>::try_from(bytes) {
        Ok(id) => Ok(Some(id).filter(|id| **id != [0; N])),
        Err(_) => Err(Fault::new(format!("{} bytes, expected {N}", bytes.len())).within(field)),
    }
}
