//! Walks one `ResourceLogs`, `ResourceSpans` or `ResourceMetrics`: the three have the same frame.
//!
//! A record that is wrong inside is refused and the walk goes on; where a frame is broken the rest of that frame cannot be found, is
//! refused as one, and the walk goes on after it.

use tidemill_types::Signal;

use super::fault::{Fault, InField};
use super::logs::LogRow;
use super::metrics::{PointRow, decode_metric};
use super::spans::SpanRow;
use super::value::Attribute;
use super::wire::Fields;
use super::{Frame, RECORD_LIMIT_BYTES, ResourceRow, ScopeRow, Sink, push_attribute};
use crate::error::Result;
use crate::ingest::Issue;

/// Whether a message is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it is there; a length beyond its end is a fault.
    Whole,
    /// The input ended inside it; what is cut off is not a fault of the message.
    Clipped,
}

/// The names of a signal's frames in OTLP/JSON, which paths use.
pub(crate) struct FrameNames {
    pub resources: &'static str,
    pub scopes: &'static str,
    pub records: &'static str,
}

/// The frames of `signal`.
pub(crate) fn frame_names(signal: Signal) -> FrameNames {
    match signal {
        Signal::Logs => FrameNames { resources: "resourceLogs", scopes: "scopeLogs", records: "logRecords" },
        Signal::Metrics => FrameNames { resources: "resourceMetrics", scopes: "scopeMetrics", records: "metrics" },
        Signal::Traces => FrameNames { resources: "resourceSpans", scopes: "scopeSpans", records: "spans" },
    }
}

/// What a walk met besides rows.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// The first broken frame: what is wrong is not one record, but the structure around records.
    pub broken_frame: Option<Issue>,
}

impl Walked {
    fn refuse_frame<S: Sink>(&mut self, issue: Issue, sink: &mut S) {
        self.broken_frame.get_or_insert_with(|| issue.clone());
        sink.refuse(1, issue);
    }
}

/// Walks the `index`-th resource of an input.
///
/// # Errors
/// Only what the sink answers.
pub(crate) fn walk_resource<S: Sink>(
    signal: Signal,
    index: u64,
    message: &[u8],
    extent: Extent,
    sink: &mut S,
) -> Result<Walked> {
    let names = frame_names(signal);
    let base = format!("{}[{index}]", names.resources);
    let mut walked = Walked::default();
    let mut resource = ResourceRow::default();
    let mut fault = None;
    let mut scopes: Vec<(&[u8], Extent)> = Vec::new();
    let mut fields = Fields::of_clipped(message, extent == Extent::Clipped);
    loop {
        let (number, wire) = match fields.next() {
            Ok(Some(field)) => field,
            Ok(None) => break,
            Err(broken) => {
                walked.refuse_frame(issue(&base, Fault::from(broken)), sink);
                break;
            }
        };
        let inner = if fields.was_cut() { Extent::Clipped } else { Extent::Whole };
        match number {
            1 if inner == Extent::Whole => match wire.bytes() {
                Ok(bytes) => fault = decode_resource(bytes, &mut resource).err().map(|fault| fault.within("resource")),
                Err(wrong) => fault = Some(Fault::from(wrong).within("resource")),
            },
            2 => match wire.bytes() {
                Ok(bytes) => scopes.push((bytes, inner)),
                Err(wrong) => {
                    walked.refuse_frame(issue(&base, Fault::from(wrong).within_item(names.scopes, scopes.len())), sink);
                }
            },
            3 if inner == Extent::Whole => match wire.text() {
                Ok(url) => resource.schema_url = url,
                Err(wrong) => fault = Some(Fault::from(wrong).within("schemaUrl")),
            },
            _ => {}
        }
    }
    if let Some(fault) = fault {
        let records = scopes.iter().map(|(scope, _)| count_records(signal, scope)).sum();
        if records > 0 {
            sink.refuse(records, issue(&base, fault));
        }
        return Ok(walked);
    }
    sink.enter_resource(&resource);
    for (place, (scope, inner)) in scopes.into_iter().enumerate() {
        let path = || format!("{base}.{}[{place}]", names.scopes);
        walk_scope(signal, &path, &resource, (scope, inner), sink, &mut walked)?;
    }
    Ok(walked)
}

fn walk_scope<S: Sink>(
    signal: Signal,
    path: &dyn Fn() -> String,
    resource: &ResourceRow<'_>,
    (message, extent): (&[u8], Extent),
    sink: &mut S,
    walked: &mut Walked,
) -> Result<()> {
    let names = frame_names(signal);
    let mut scope = ScopeRow::default();
    if let Err(fault) = find_scope(message, &mut scope) {
        let records = count_records(signal, message);
        if records > 0 {
            sink.refuse(records, issue(&path(), fault));
        }
        return Ok(());
    }
    let frame = Frame { resource, scope: &scope };
    sink.enter_scope(frame);
    let mut rows = Rows { signal, log: LogRow::empty(), span: SpanRow::default(), point: PointRow::default() };
    let mut place = 0;
    let mut fields = Fields::of_clipped(message, extent == Extent::Clipped);
    loop {
        let record = match fields.next() {
            Ok(Some((2, wire))) => wire.bytes(),
            Ok(Some(_)) => continue,
            Ok(None) => return Ok(()),
            Err(broken) => Err(broken),
        };
        let record_path = || format!("{}.{}[{place}]", path(), names.records);
        match record {
            Ok(bytes) => rows.walk_record(&record_path, (bytes, fields.was_cut()), frame, sink)?,
            Err(broken) => {
                walked.refuse_frame(issue(&record_path(), Fault::from(broken)), sink);
                return Ok(());
            }
        }
        place += 1;
    }
}

/// Rows whose allocations live as long as their scope's walk.
struct Rows<'a> {
    signal: Signal,
    log: LogRow<'a>,
    span: SpanRow<'a>,
    point: PointRow<'a>,
}

impl<'a> Rows<'a> {
    #[inline]
    fn walk_record<S: Sink>(
        &mut self,
        path: &dyn Fn() -> String,
        (message, cut): (&'a [u8], bool),
        frame: Frame<'_, '_>,
        sink: &mut S,
    ) -> Result<()> {
        // A record that was cut off is dropped whole; of a metric, its points may stand before the fields that give them meaning.
        if cut {
            return Ok(());
        }
        if self.signal == Signal::Metrics {
            return self.walk_metric(path, message, frame, sink);
        }
        if message.len() > RECORD_LIMIT_BYTES {
            sink.refuse(1, issue(&path(), too_large(message)));
            return Ok(());
        }
        let decoded = match self.signal {
            Signal::Logs => self.log.decode(message),
            _ => self.span.decode(message),
        };
        match (decoded, self.signal) {
            (Err(fault), _) => sink.refuse(1, issue(&path(), fault)),
            (Ok(()), Signal::Logs) => sink.log(frame, &self.log)?,
            (Ok(()), _) => sink.span(frame, &self.span)?,
        }
        Ok(())
    }

    fn walk_metric<S: Sink>(
        &mut self,
        path: &dyn Fn() -> String,
        message: &'a [u8],
        frame: Frame<'_, '_>,
        sink: &mut S,
    ) -> Result<()> {
        let metric = match decode_metric(message) {
            Ok(Some(metric)) => metric,
            Ok(None) => return Ok(()),
            Err(fault) => {
                sink.refuse(1, issue(&path(), fault));
                return Ok(());
            }
        };
        if metric.name.is_empty() {
            sink.refuse(
                count_elements(metric.data).max(1),
                issue(&path(), Fault::new("the name is empty").within("name")),
            );
            return Ok(());
        }
        sink.enter_metric(frame, &metric);
        let mut place = 0;
        let mut fields = Fields::of(metric.data);
        loop {
            let message = match fields.next() {
                Ok(Some((1, wire))) => wire.bytes(),
                Ok(Some(_)) => continue,
                // `decode_metric` met every field already, so that none can be broken.
                Ok(None) | Err(_) => return Ok(()),
            };
            let at = |fault: Fault| issue(&format!("{}.{}.dataPoints[{place}]", path(), metric.kind.field()), fault);
            match message {
                Err(broken) => sink.refuse(1, at(Fault::from(broken))),
                Ok(message) if message.len() > RECORD_LIMIT_BYTES => sink.refuse(1, at(too_large(message))),
                Ok(message) => match self.point.decode(metric.kind, message) {
                    Ok(()) => sink.point(frame, &metric, &self.point)?,
                    Err(fault) => sink.refuse(1, at(fault)),
                },
            }
            place += 1;
        }
    }
}

/// The fault of a record beyond the limit.
pub(crate) fn too_large(message: &[u8]) -> Fault {
    Fault::new(format!("{} bytes, a record may have {RECORD_LIMIT_BYTES}", message.len()))
}

fn issue(base: &str, fault: Fault) -> Issue {
    fault.within(base).into_issue()
}

fn decode_resource<'a>(message: &'a [u8], resource: &mut ResourceRow<'a>) -> std::result::Result<(), Fault> {
    resource.raw = message;
    let mut fields = Fields::of(message);
    while let Some((number, wire)) = fields.next()? {
        match number {
            1 => push_attribute(&mut resource.attributes, wire)?,
            2 => resource.dropped = wire.uint32().in_field("droppedAttributesCount")?,
            _ => {}
        }
    }
    Ok(())
}

/// Finds the scope and the schema URL of a `ScopeLogs`, wherever they stand among the records. A broken frame is left for the walk over
/// the records to tell.
fn find_scope<'a>(message: &'a [u8], scope: &mut ScopeRow<'a>) -> std::result::Result<(), Fault> {
    let mut fields = Fields::of_clipped(message, true);
    while let Ok(Some((number, wire))) = fields.next() {
        match number {
            _ if fields.was_cut() => {}
            1 => {
                let bytes = wire.bytes().in_field("scope")?;
                scope.raw = bytes;
                decode_scope(bytes, scope).in_field("scope")?;
            }
            3 => scope.schema_url = wire.text().in_field("schemaUrl")?,
            _ => {}
        }
    }
    Ok(())
}

fn decode_scope<'a>(message: &'a [u8], scope: &mut ScopeRow<'a>) -> std::result::Result<(), Fault> {
    let mut attributes: Vec<Attribute<'a>> = Vec::new();
    let mut fields = Fields::of(message);
    while let Some((number, wire)) = fields.next()? {
        match number {
            1 => scope.name = wire.text().in_field("name")?,
            2 => scope.version = wire.text().in_field("version")?,
            3 => push_attribute(&mut attributes, wire)?,
            4 => scope.dropped = wire.uint32().in_field("droppedAttributesCount")?,
            _ => {}
        }
    }
    scope.attributes = attributes;
    Ok(())
}

/// How many records a scope's message frames; for metrics, how many data points.
fn count_records(signal: Signal, scope: &[u8]) -> u64 {
    let mut count = 0;
    let mut fields = Fields::of_clipped(scope, true);
    while let Ok(Some((number, wire))) = fields.next() {
        if number == 2 {
            count += match (signal, wire.bytes().map(decode_metric)) {
                (Signal::Metrics, Ok(Ok(Some(metric)))) => count_elements(metric.data),
                _ => 1,
            };
        }
    }
    count
}

fn count_elements(data: &[u8]) -> u64 {
    let mut count = 0;
    let mut fields = Fields::of_clipped(data, true);
    while let Ok(Some((number, _))) = fields.next() {
        count += u64::from(number == 1);
    }
    count
}
