//! An input as it is stored: bounded, decompressed, its format recognized, walked.
//!
//! OTLP protobuf is walked as it is. Every other format becomes OTLP protobuf in pieces first, so that there is one walker, one set of
//! rules for time, ids and bounds, and one place where rows are made. Start with [`walk_input`].

mod arrow_values;
mod csv_rows;
mod json_lines;
mod json_values;
mod lakerunner;
mod loose;
mod loose_time;
mod parquet_rows;
mod parquet_schema;
mod pieces;
mod recognize;
mod stored;

use std::io::{BufRead, Read};

use tidemill_types::Signal;

use crate::error::Result;
use crate::ingest::{IngestOptions, InputDescription, InputFormat};
use crate::otlp::Sink;
use crate::otlp::stream::{End, walk_requests};

pub(crate) use stored::StoredInput;

/// The format of an input as stored (plain, gzip or zstd), by its name and its first bytes.
///
/// # Errors
/// What the reader answers; bytes that cannot be decompressed are not an error.
pub fn recognize_input(label: &str, reader: &mut dyn Read) -> std::io::Result<InputFormat> {
    let mut stored = StoredInput::open(reader)?;
    let format = recognize::recognize(label, stored.look_ahead());
    match stored.meter().take_error() {
        Some(error) => Err(error),
        None => Ok(format),
    }
}

/// Walks all records of an input into `sink`.
///
/// # Errors
/// What the sink answers, and failures of the spool.
pub(crate) fn walk_input<S: Sink>(
    options: &IngestOptions,
    input: &InputDescription,
    mut stored: StoredInput<'_>,
    sink: &mut S,
) -> Result<End> {
    let format = input.format.unwrap_or_else(|| recognize::recognize(&input.label, stored.look_ahead()));
    let mut reader = stored.buffered();
    let signal = options.signal;
    let only_logs = |what: &str| Ok(End::Failed(format!("{what} can hold logs only, and this input is of {signal}")));
    match format {
        InputFormat::OtlpProtobuf => walk_requests(signal, &mut reader, sink),
        InputFormat::OtlpJson => json_values::walk_json_requests(signal, &mut reader, sink),
        InputFormat::JsonLines if signal == Signal::Logs => json_lines::walk_json_lines(&mut reader, sink),
        InputFormat::Csv if signal == Signal::Logs => csv_rows::walk_csv(&mut reader, sink),
        InputFormat::JsonLines => only_logs("JSON lines"),
        InputFormat::Csv => only_logs("CSV"),
        InputFormat::Parquet => parquet_rows::walk_parquet(signal, &options.spool, &mut reader, sink),
    }
}

/// Reads one line without its end; `Ok(None)` at the end of the input, `Ok(Some(false))` when the line is longer than `limit` and was
/// skipped.
fn read_line(reader: &mut dyn BufRead, line: &mut Vec<u8>, limit: usize) -> std::io::Result<Option<bool>> {
    line.clear();
    if reader.take(limit as u64 + 1).read_until(b'\n', line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Some(true));
    }
    if line.len() <= limit {
        return Ok(Some(true));
    }
    loop {
        let buffered = reader.fill_buf()?;
        let end = memchr::memchr(b'\n', buffered);
        let used = end.map_or(buffered.len(), |end| end + 1);
        if used == 0 {
            return Ok(Some(false));
        }
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(false));
        }
    }
}
