//! OTLP/JSON files: one request, or any number after each other, on one line each or spread over lines.

use std::io::BufRead;

use tidemill_types::Signal;

use super::read_line;
use super::recognize::{is_request, without_mark};
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

/// Walks all requests of the reader. A request that is no JSON, or wrong outside of its records, is refused as one, and the walk goes on
/// with the next line that starts a request.
///
/// # Errors
/// What the sink answers.
pub(crate) fn walk_json_requests<S: Sink>(signal: Signal, reader: &mut dyn BufRead, sink: &mut S) -> Result<End> {
    let mut requests = Requests::of(reader);
    let mut index = 0;
    loop {
        let mut placed = Placed { index, sink };
        match requests.next() {
            Ok(Next::Request) => walk_request(signal, &requests.text, &mut placed)?,
            Ok(Next::Broken(reason)) => placed.refuse(1, Issue { path: String::new(), reason }),
            Ok(Next::End) => return Ok(End::Complete),
            Err(error) => return Ok(End::Failed(format!("request[{index}]: {error}"))),
        }
        index += 1;
    }
}

fn walk_request<S: Sink>(signal: Signal, text: &[u8], placed: &mut Placed<'_, S>) -> Result<()> {
    match convert(signal, text) {
        Ok(converted) if converted.is_foreign => {
            placed.refuse(1, Issue { path: String::new(), reason: format!("no export request of {signal}") });
            Ok(())
        }
        Ok(converted) => {
            let untold = converted.rejected - converted.issues.len() as u64;
            for (place, issue) in converted.issues.into_iter().enumerate() {
                placed.refuse(if place == 0 { 1 + untold } else { 1 }, issue);
            }
            // Converted by us, so that its frames are whole.
            walk_requests(signal, &mut converted.protobuf.as_slice(), placed).map(drop)
        }
        Err(issue) => {
            placed.refuse(1, issue);
            Ok(())
        }
    }
}

/// Splits an input into objects.
struct Requests<'r> {
    reader: &'r mut dyn BufRead,
    line: Vec<u8>,
    /// How much of the line is used.
    used: usize,
    /// The line's number, from 1.
    number: u64,
    /// What came last is broken: lines are skipped up to one that starts a request.
    is_lost: bool,
    text: Vec<u8>,
}

enum Next {
    /// An object is in `text`.
    Request,
    /// Something is none, for this reason.
    Broken(String),
    End,
}

impl<'r> Requests<'r> {
    fn of(reader: &'r mut dyn BufRead) -> Self {
        Self { reader, line: Vec::new(), used: 0, number: 0, is_lost: false, text: Vec::new() }
    }

    fn next(&mut self) -> std::io::Result<Next> {
        self.text.clear();
        let mut scan = Scan::default();
        let mut from_line = self.number;
        loop {
            if self.used >= self.line.len() {
                match self.read_line()? {
                    None if self.text.is_empty() => return Ok(Next::End),
                    None => return Ok(self.broken(from_line, "the input ends inside an object")),
                    Some(false) => {
                        let reason = format!("more than {REQUEST_LIMIT_BYTES} bytes");
                        return Ok(self.broken(if self.text.is_empty() { self.number } else { from_line }, &reason));
                    }
                    Some(true) => {}
                }
                let starts = is_request(self.line.trim_ascii_start());
                if self.is_lost && !starts {
                    self.used = self.line.len();
                    continue;
                }
                if starts && !self.text.is_empty() {
                    return Ok(self.broken(from_line, "another request begins inside of it"));
                }
            }
            self.is_lost = false;
            let mut rest = &self.line[self.used..];
            if self.text.is_empty() {
                rest = rest.trim_ascii_start();
                from_line = self.number;
                match rest.first() {
                    Some(b'{') => {}
                    None => {
                        self.used = self.line.len();
                        continue;
                    }
                    Some(_) => {
                        self.used = self.line.len();
                        return Ok(self.broken(from_line, "expected a JSON object"));
                    }
                }
            }
            let (taken, is_whole) = scan.step(rest);
            if self.text.len() + taken > REQUEST_LIMIT_BYTES {
                self.used = self.line.len();
                return Ok(self.broken(from_line, &format!("more than {REQUEST_LIMIT_BYTES} bytes")));
            }
            self.text.extend_from_slice(&rest[..taken]);
            self.used = self.line.len() - rest.len() + taken;
            if is_whole {
                return Ok(Next::Request);
            }
        }
    }

    /// Reads a line with its end; see [`read_line`].
    fn read_line(&mut self) -> std::io::Result<Option<bool>> {
        self.used = 0;
        let read = read_line(self.reader, &mut self.line, REQUEST_LIMIT_BYTES)?;
        self.number += 1;
        if self.number == 1 {
            self.used = self.line.len() - without_mark(&self.line).len();
        }
        match read {
            Some(true) => self.line.push(b'\n'),
            _ => self.line.clear(),
        }
        Ok(read)
    }

    fn broken(&mut self, line: u64, reason: &str) -> Next {
        self.is_lost = true;
        Next::Broken(format!("from line {line}: {reason}"))
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

    fn split(text: &str) -> Vec<String> {
        let mut reader = text.as_bytes();
        let mut requests = Requests::of(&mut reader);
        let mut found = Vec::new();
        loop {
            match requests.next().expect("memory") {
                Next::Request => found.push(String::from_utf8(requests.text.clone()).expect("text")),
                Next::Broken(reason) => found.push(reason),
                Next::End => return found,
            }
        }
    }

    #[test]
    fn objects_are_split_wherever_they_end() {
        let found = split(" {\"a\":\"}\\\"\"}\n{\n\"b\":[{}]\n}{}  ");
        assert_eq!(found, ["{\"a\":\"}\\\"\"}", "{\n\"b\":[{}]\n}", "{}"]);
        assert_eq!(split("\u{feff}{}\n\n"), ["{}"]);
        assert_eq!(split(""), [""; 0]);
    }

    #[test]
    fn what_is_broken_ends_where_the_next_request_begins() {
        let whole = "{\"resourceLogs\":[]}";
        let found = split(&format!("{{\"resourceLogs\":[\"\n{whole}\nnonsense\n}}]\n{whole}\n[1]\n{whole}{{\"a\":"));
        let expected = [
            "from line 1: another request begins inside of it",
            whole,
            "from line 3: expected a JSON object",
            whole,
            "from line 6: expected a JSON object",
            whole,
            "from line 7: the input ends inside an object",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn no_request_fills_the_memory() {
        let long = format!("{{\"resourceLogs\":\"{}\"}}\n{{}}", "x".repeat(REQUEST_LIMIT_BYTES));
        assert_eq!(split(&long), ["from line 1: more than 67108864 bytes", "{}"]);
        let lines = format!("{{\n{}", "[[[[[[[[[[[[[[[\n".repeat(REQUEST_LIMIT_BYTES / 16 + 1));
        assert_eq!(split(&lines), ["from line 1: more than 67108864 bytes"]);
    }
}
