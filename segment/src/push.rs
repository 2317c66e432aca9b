//! Checking a pushed request before it is acknowledged, with the same walker that later encodes it.

use bytes::Bytes;
use tidemill_types::Signal;

use crate::error::Result;
use crate::ingest::{Issue, REPORTED_ISSUES};
use crate::otlp::fault::Fault;
use crate::otlp::from_json::convert;
use crate::otlp::logs::LogRow;
use crate::otlp::metrics::{MetricRow, PointRow};
use crate::otlp::spans::SpanRow;
use crate::otlp::walk::{Extent, frame_names, walk_resource};
use crate::otlp::wire::Fields;
use crate::otlp::{Frame, ResourceRow, Sink};

/// A pushed request may have this many bytes, uncompressed.
pub const REQUEST_LIMIT_BYTES: usize = 64 << 20;

/// How a pushed request is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushEncoding {
    /// OTLP protobuf.
    Protobuf,
    /// OTLP/JSON.
    Json,
}

/// What a well-formed request holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushCheck {
    /// Log records, spans or data points that will be stored.
    pub records: u64,
    /// Records that will be refused.
    pub rejected: u64,
    /// Why, for the first of them.
    pub issues: Vec<Issue>,
    /// How many of the refused records `protobuf` does not hold any more, so that nobody will meet them again.
    pub left_out: u64,
    /// For JSON, the same request as protobuf.
    pub protobuf: Option<Bytes>,
}

/// Checks an uncompressed export request of `signal`.
///
/// # Errors
/// When the request as a whole is malformed; the issue names the place.
pub fn check_push(signal: Signal, encoding: PushEncoding, body: &[u8]) -> std::result::Result<PushCheck, Issue> {
    if body.len() > REQUEST_LIMIT_BYTES {
        let reason = format!("{} bytes, a request may have {REQUEST_LIMIT_BYTES}", body.len());
        return Err(Issue { path: String::new(), reason });
    }
    match encoding {
        PushEncoding::Protobuf => check_protobuf(signal, body),
        PushEncoding::Json => check_json(signal, body),
    }
}

fn check_protobuf(signal: Signal, body: &[u8]) -> std::result::Result<PushCheck, Issue> {
    let name = frame_names(signal).resources;
    let mut counter = Counter::default();
    let mut index = 0;
    let mut fields = Fields::of(body);
    loop {
        let whole = |fault: Fault| fault.within_item(name, index as usize).into_issue();
        let (number, wire) = match fields.next() {
            Ok(Some(field)) => field,
            Ok(None) => break,
            Err(broken) => return Err(whole(broken.into())),
        };
        if number != 1 {
            continue;
        }
        let message = wire.bytes().map_err(|wrong| whole(wrong.into()))?;
        let walked = walk_resource(signal, index, message, Extent::Whole, &mut counter);
        if let Some(issue) = walked.expect("a counter never fails").broken_frame {
            return Err(issue);
        }
        index += 1;
    }
    let Counter { records, rejected, issues } = counter;
    Ok(PushCheck { records, rejected, issues, left_out: 0, protobuf: None })
}

fn check_json(signal: Signal, body: &[u8]) -> std::result::Result<PushCheck, Issue> {
    let converted = convert(signal, body)?;
    let mut check = check_protobuf(signal, &converted.protobuf)?;
    check.rejected += converted.rejected;
    check.left_out = converted.rejected;
    check.issues.splice(0..0, converted.issues);
    check.issues.truncate(REPORTED_ISSUES);
    check.protobuf = Some(Bytes::from(converted.protobuf));
    Ok(check)
}

/// A sink that only counts.
#[derive(Default)]
struct Counter {
    records: u64,
    rejected: u64,
    issues: Vec<Issue>,
}

impl Sink for Counter {
    fn enter_resource(&mut self, _: &ResourceRow<'_>) {}

    fn enter_scope(&mut self, _: Frame<'_, '_>) {}

    fn enter_metric(&mut self, _: Frame<'_, '_>, _: &MetricRow<'_>) {}

    fn log(&mut self, _: Frame<'_, '_>, _: &LogRow<'_>) -> Result<()> {
        self.records += 1;
        Ok(())
    }

    fn point(&mut self, _: Frame<'_, '_>, _: &MetricRow<'_>, _: &PointRow<'_>) -> Result<()> {
        self.records += 1;
        Ok(())
    }

    fn span(&mut self, _: Frame<'_, '_>, _: &SpanRow<'_>) -> Result<()> {
        self.records += 1;
        Ok(())
    }

    fn refuse(&mut self, records: u64, issue: Issue) {
        self.rejected += records;
        if self.issues.len() < REPORTED_ISSUES {
            self.issues.push(issue);
        }
    }
}
