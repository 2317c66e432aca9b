//! JSON lines: one object a line, of any shape.

use std::io::BufRead;

use serde_json::{Map, Value};
use tidemill_types::Signal;

use super::loose::{JSON_BODY_KEYS, loose_log};
use super::pieces::Pieces;
use super::read_line;
use super::recognize::without_mark;
use crate::error::Result;
use crate::ingest::Issue;
use crate::otlp::stream::End;
use crate::otlp::{RECORD_LIMIT_BYTES, Sink};

/// Walks all lines of the reader; a line that is no object is refused alone, empty lines are nothing.
///
/// # Errors
/// What the sink answers.
pub(crate) fn walk_json_lines<S: Sink>(reader: &mut dyn BufRead, sink: &mut S) -> Result<End> {
    let mut pieces = Pieces::new(Signal::Logs);
    let mut line = Vec::new();
    let mut number: u64 = 0;
    let end = loop {
        number += 1;
        let refusal = match read_line(reader, &mut line, RECORD_LIMIT_BYTES) {
            Ok(None) => break End::Complete,
            Err(error) => break End::Failed(format!("line[{number}]: {error}")),
            Ok(Some(false)) => format!("more than {RECORD_LIMIT_BYTES} bytes"),
            Ok(Some(true)) if line.trim_ascii().is_empty() => continue,
            Ok(Some(true)) => match serde_json::from_slice::<Map<String, Value>>(match number {
                1 => without_mark(&line),
                _ => &line,
            }) {
                Err(error) => error.to_string(),
                Ok(members) => match loose_log(members, JSON_BODY_KEYS, None) {
                    Err(reason) => reason,
                    Ok(log) => {
                        pieces.add((log.resource, Vec::new()), &log.record, sink)?;
                        continue;
                    }
                },
            },
        };
        sink.refuse(1, Issue { path: format!("line[{number}]"), reason: refusal });
    };
    pieces.walk(sink)?;
    Ok(end)
}
