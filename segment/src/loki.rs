//! What Loki's clients push, as OTLP: one resource for each stream, one record for each entry.
//!
//! A stream's labels become resource attributes under their own names, but `service_name`, which becomes `service.name`; structured
//! metadata becomes record attributes. The scope [`PUSH_SCOPE`] says that a record came this way, so that readers can give its stream
//! back exactly. What is wrong with a stream or an entry is told with its place, and the others are kept. Formats: Grafana Loki's
//! documentation, "Loki HTTP API", `POST /loki/api/v1/push`, and `push.proto`.

mod json;
mod label_text;
mod protobuf;

use std::collections::BTreeMap;

use tidemill_types::TimestampNs;

use crate::ingest::{Issue, REPORTED_ISSUES};
use crate::otlp::writer::{
    close_message, open_message, put_attribute, put_bytes_field, put_fixed64_field, put_message_field,
};

/// The scope of records that came by Loki's push.
pub const PUSH_SCOPE: &str = "tidemill.loki.push";
/// A stream has at most this many labels; Loki's default.
const MOST_LABELS: usize = 15;
/// Bytes of a label's name; Loki's default.
const MOST_NAME_BYTES: usize = 1_024;
/// Bytes of a label's value; Loki's default.
const MOST_VALUE_BYTES: usize = 2_048;

/// How a push is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LokiEncoding {
    /// `{"streams": [{"stream": {…}, "values": [["<ns>", "<line>", {…}]]}]}`
    Json,
    /// `logproto.PushRequest`, no longer compressed.
    Protobuf,
}

/// A push as an OTLP request.
#[derive(Debug, Default)]
pub struct LokiPush {
    /// `ExportLogsServiceRequest`.
    pub otlp: Vec<u8>,
    /// Streams of the push, also those without entries.
    pub streams: u64,
    /// Entries in the request.
    pub entries: u64,
    /// Entries left out.
    pub rejected: u64,
    /// Why, for the first of them.
    pub issues: Vec<Issue>,
}

/// Converts an uncompressed push. Entries later than `latest` are refused.
///
/// # Errors
/// When the push as a whole is malformed; the issue names the place.
pub fn convert_loki_push(encoding: LokiEncoding, body: &[u8], latest: TimestampNs) -> Result<LokiPush, Issue> {
    let mut writer = Writer { push: LokiPush::default(), latest };
    match encoding {
        LokiEncoding::Json => json::read(body, &mut writer)?,
        LokiEncoding::Protobuf => protobuf::read(body, &mut writer)?,
    }
    Ok(writer.push)
}

/// Labels of a stream by name; a repeated name has its last value.
type Labels = BTreeMap<String, String>;

/// One entry.
struct Entry<'a> {
    time_ns: i64,
    line: &'a str,
    metadata: &'a [(&'a str, &'a str)],
}

/// Writes the request while the push is read.
struct Writer {
    push: LokiPush,
    latest: TimestampNs,
}

/// A stream that is being written.
struct OpenStream {
    /// Where resource and scope begin; nothing where the stream is refused.
    messages: Option<(usize, usize)>,
    name: String,
}

impl Writer {
    /// Begins a stream. What is wrong with its labels refuses its entries.
    fn begin(&mut self, labels: Labels) -> OpenStream {
        let index = self.push.streams;
        self.push.streams += 1;
        let name = format!("streams[{index}] {}", label_text::print(&labels));
        let labels: Labels = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        if let Err(reason) = check(&labels) {
            self.issue(name.clone(), reason);
            return OpenStream { messages: None, name };
        }
        let out = &mut self.push.otlp;
        let resource = open_message(out, 1);
        put_message_field(out, 1, |out| {
            for (label, value) in &labels {
                let key = if label == "service_name" { "service.name" } else { label.as_str() };
                put_attribute(out, 1, key, |out| put_bytes_field(out, 1, value.as_bytes()));
            }
        });
        let scope = open_message(out, 2);
        put_message_field(out, 1, |out| put_bytes_field(out, 1, PUSH_SCOPE.as_bytes()));
        OpenStream { messages: Some((resource, scope)), name }
    }

    fn entry(&mut self, stream: &OpenStream, entry: &Entry<'_>) {
        let reason = match stream.messages {
            // Told once, for the stream.
            None => {
                self.push.rejected += 1;
                return;
            }
            Some(_) if entry.time_ns > self.latest.0 => "has timestamp too new",
            Some(_) if entry.time_ns < TimestampNs::EARLIEST_VALID.0 => "has timestamp too old: before 2000-01-01",
            Some(_) => "",
        };
        if !reason.is_empty() {
            self.push.rejected += 1;
            self.issue(format!("{} entry at {}", stream.name, entry.time_ns), reason.to_owned());
            return;
        }
        self.push.entries += 1;
        put_message_field(&mut self.push.otlp, 2, |out| {
            put_fixed64_field(out, 1, entry.time_ns as u64);
            put_message_field(out, 5, |out| put_bytes_field(out, 1, entry.line.as_bytes()));
            for (name, value) in entry.metadata {
                put_attribute(out, 6, name, |out| put_bytes_field(out, 1, value.as_bytes()));
            }
        });
    }

    fn end(&mut self, stream: OpenStream) {
        if let Some((resource, scope)) = stream.messages {
            close_message(&mut self.push.otlp, scope);
            close_message(&mut self.push.otlp, resource);
        }
    }

    fn issue(&mut self, path: String, reason: String) {
        if self.push.issues.len() < REPORTED_ISSUES {
            self.push.issues.push(Issue { path, reason });
        }
    }
}

fn check(labels: &Labels) -> Result<(), String> {
    if labels.is_empty() {
        return Err("at least one label pair is required per stream".to_owned());
    }
    if labels.len() > MOST_LABELS {
        return Err(format!("has {} label names; limit {MOST_LABELS}", labels.len()));
    }
    for (name, value) in labels {
        if name.len() > MOST_NAME_BYTES {
            return Err(format!("has a label name of {} bytes; limit {MOST_NAME_BYTES}", name.len()));
        }
        let mut bytes = name.bytes();
        let starts = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if !starts || !bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(format!("{name:?} is no label name (letters, digits and underscores, no digit first)"));
        }
        if value.len() > MOST_VALUE_BYTES {
            return Err(format!("has label {name:?} with a value of {} bytes; limit {MOST_VALUE_BYTES}", value.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
