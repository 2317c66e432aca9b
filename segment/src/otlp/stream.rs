//! Walks concatenated export requests from a reader, holding one resource at a time.
//!
//! Concatenated requests are one valid request, as protobuf defines it: the top level is one long list of resources.

use std::io::{BufRead, ErrorKind, Read};

use tidemill_types::Signal;

use super::Sink;
use super::walk::{Extent, frame_names, walk_resource};
use crate::error::Result;

/// One resource with all its records may have this many bytes; it is held in memory.
pub(crate) const RESOURCE_LIMIT_BYTES: u64 = 256 << 20;

/// How a walk over an input ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// At the end of the input.
    Complete,
    /// The input cannot be read any further; rows before were handed over.
    Failed(String),
}

/// Walks requests of `signal` until the reader ends.
///
/// # Errors
/// Only what the sink answers; an error of the reader is [`End::Failed`].
pub(crate) fn walk_requests<S: Sink>(signal: Signal, reader: &mut dyn BufRead, sink: &mut S) -> Result<End> {
    let name = frame_names(signal).resources;
    let mut message = Vec::new();
    let mut index = 0;
    loop {
        let (problem, complete) = match read_resource(reader, &mut message) {
            Ok(Next::Resource) => (None, true),
            Ok(Next::End) => return Ok(End::Complete),
            Ok(Next::Skipped) => continue,
            Err(problem) => (Some(format!("{name}[{index}]: {problem}")), false),
        };
        if complete {
            walk_resource(signal, index, &message, Extent::Whole, sink)?;
        } else if !message.is_empty() {
            walk_resource(signal, index, &message, Extent::Clipped, sink)?;
        }
        if let Some(problem) = problem {
            return Ok(End::Failed(problem));
        }
        index += 1;
    }
}

enum Next {
    Resource,
    Skipped,
    End,
}

/// Reads the next top-level field; a resource's bytes, as far as they are there, into `message`.
fn read_resource(reader: &mut dyn BufRead, message: &mut Vec<u8>) -> std::result::Result<Next, String> {
    message.clear();
    let Some(first) = read_byte(reader)? else { return Ok(Next::End) };
    let tag = read_varint_after(first, reader)?;
    let (number, wire_type) = (tag >> 3, tag & 7);
    match (number, wire_type) {
        (0, _) => Err("field number 0: this is no protobuf message".to_owned()),
        (1, 2) => {
            let length = read_varint(reader)?;
            if length > RESOURCE_LIMIT_BYTES {
                return Err(format!("{length} bytes, a resource may have {RESOURCE_LIMIT_BYTES}"));
            }
            let read = reader.take(length).read_to_end(message);
            match read {
                Ok(_) if message.len() as u64 == length => Ok(Next::Resource),
                Ok(_) => Err(format!("the input ends after {} of {length} bytes", message.len())),
                Err(error) => Err(format!("after {} of {length} bytes: {error}", message.len())),
            }
        }
        (1, other) => Err(format!("wire type {other}, expected 2: this is no export request")),
        (_, 0) => read_varint(reader).map(|_| Next::Skipped),
        (_, 1) => skip(reader, 8),
        (_, 2) => {
            let length = read_varint(reader)?;
            skip(reader, length)
        }
        (_, 5) => skip(reader, 4),
        (_, other) => Err(format!("wire type {other} is not supported")),
    }
}

fn skip(reader: &mut dyn BufRead, length: u64) -> std::result::Result<Next, String> {
    let skipped = std::io::copy(&mut reader.take(length), &mut std::io::sink()).map_err(|error| error.to_string())?;
    if skipped == length { Ok(Next::Skipped) } else { Err("the input ends inside an unknown field".to_owned()) }
}

fn read_varint(reader: &mut dyn BufRead) -> std::result::Result<u64, String> {
    let first = read_byte(reader)?.ok_or("the input ends inside a field")?;
    read_varint_after(first, reader)
}

fn read_varint_after(first: u8, reader: &mut dyn BufRead) -> std::result::Result<u64, String> {
    let mut value = u64::from(first & 0x7f);
    let mut byte = first;
    for place in 1..10 {
        if byte < 0x80 {
            return Ok(value);
        }
        byte = read_byte(reader)?.ok_or("the input ends inside a field")?;
        value |= u64::from(byte & 0x7f) << (7 * place);
    }
    if byte < 0x80 { Ok(value) } else { Err("a varint has more than ten bytes".to_owned()) }
}

fn read_byte(reader: &mut dyn BufRead) -> std::result::Result<Option<u8>, String> {
    loop {
        match reader.fill_buf() {
            Ok([]) => return Ok(None),
            Ok([byte, ..]) => {
                let byte = *byte;
                reader.consume(1);
                return Ok(Some(byte));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}
