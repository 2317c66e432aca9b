//! OTLP/JSON files: one request, or any number after each other, on one line each or spread over lines.

use std::io::BufRead;

use tidemill_types::Signal;

use crate::error::Result;
use crate::ingest::Issue;
use crate::otlp::from_json::convert;
use crate::otlp::logs::LogRow;
use crate::otlp::metrics::{MetricRow, PointRow};
use crate::otlp::spans::SpanRow;
use crate::otlp::stream::{End, walk_requests};
use crate::otlp::{Frame, ResourceRow, Sink};

/// One request may have this many bytes; it is held in memory.
const REQUEST_LIMIT_BYTES: usize = 64 << 20;

/// Walks all requests of the reader. A request that is no JSON, or wrong outside of its records, is refused as one.
///
/// # Errors
/// What the sink answers.
pub(crate) fn walk_json_requests<S: Sink>(signal: Signal, reader: &mut dyn BufRead, sink: &mut S) -> Result<End> {
    let mut text = Vec::new();
    let mut index = 0;
    loop {
        match next_value(reader, &mut text) {
            Ok(true) => {}
            Ok(false) => return Ok(End::Complete),
            Err(problem) => return Ok(End::Failed(format!("request[{index}]: {problem}"))),
        }
        let mut placed = Placed { index, sink };
        match convert(signal, &text) {
            Ok(converted) => {
                let untold = converted.rejected - converted.issues.len() as u64;
                for (place, issue) in converted.issues.into_iter().enumerate() {
                    placed.refuse(if place == 0 { 1 + untold } else { 1 }, issue);
                }
                // Converted by us, so that its frames are whole.
                walk_requests(signal, &mut converted.protobuf.as_slice(), &mut placed)?;
            }
            Err(issue) => placed.refuse(1, issue),
        }
        index += 1;
    }
}

/// Reads the next JSON object into `text`, up to the brace that closes it.
fn next_value(reader: &mut dyn BufRead, text: &mut Vec<u8>) -> std::result::Result<bool, String> {
    text.clear();
    let mut scan = Scan::default();
    loop {
        let buffered = reader.fill_buf().map_err(|error| error.to_string())?;
        if buffered.is_empty() {
            return if text.is_empty() { Ok(false) } else { Err("the input ends inside an object".to_owned()) };
        }
        let mut used = 0;
        if text.is_empty() {
            used = buffered.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            match buffered.get(used) {
                Some(b'{') | None => {}
                Some(_) => return Err("expected a JSON object".to_owned()),
            }
        }
        let (more, ended) = scan.step(&buffered[used..]);
        text.extend_from_slice(&buffered[used..used + more]);
        reader.consume(used + more);
        if text.len() > REQUEST_LIMIT_BYTES {
            return Err(format!("more than {REQUEST_LIMIT_BYTES} bytes"));
        }
        if ended {
            return Ok(true);
        }
    }
}

/// Follows braces, knowing strings.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// How many of `bytes` belong to the value, and whether it ends with them.
    fn step(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (place, byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return (place + 1, true);
                    }
                }
                _ => {}
            }
        }
        (bytes.len(), false)
    }
}

/// A sink whose issues say in which request they are.
struct Placed<'s, S> {
    index: usize,
    sink: &'s mut S,
}

impl<S: Sink> Sink for Placed<'_, S> {
    fn enter_resource(&mut self, resource: &ResourceRow<'_>) {
        self.sink.enter_resource(resource);
    }

    fn enter_scope(&mut self, frame: Frame<'_, '_>) {
        self.sink.enter_scope(frame);
    }

    fn enter_metric(&mut self, frame: Frame<'_, '_>, metric: &MetricRow<'_>) {
        self.sink.enter_metric(frame, metric);
    }

    fn log(&mut self, frame: Frame<'_, '_>, log: &LogRow<'_>) -> Result<()> {
        self.sink.log(frame, log)
    }

    fn point(&mut self, frame: Frame<'_, '_>, metric: &MetricRow<'_>, point: &PointRow<'_>) -> Result<()> {
        self.sink.point(frame, metric, point)
    }

    fn span(&mut self, frame: Frame<'_, '_>, span: &SpanRow<'_>) -> Result<()> {
        self.sink.span(frame, span)
    }

    fn refuse(&mut self, records: u64, mut issue: Issue) {
        let dot = if issue.path.is_empty() { "" } else { "." };
        issue.path = format!("request[{}]{dot}{}", self.index, issue.path);
        self.sink.refuse(records, issue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_split_wherever_they_end() {
        let mut reader = b" {\"a\":\"}\\\"\"}\n{\n\"b\":[{}]\n}{}  ".as_slice();
        let mut text = Vec::new();
        let mut found = Vec::new();
        while next_value(&mut reader, &mut text).expect("three objects") {
            found.push(String::from_utf8(text.clone()).expect("text"));
        }
        assert_eq!(found, ["{\"a\":\"}\\\"\"}", "{\n\"b\":[{}]\n}", "{}"]);
        assert!(next_value(&mut b"{\"a\":".as_slice(), &mut text).is_err());
        assert!(next_value(&mut b"[1]".as_slice(), &mut text).is_err());
    }
}
