//! CSV with a header line: the column `data` is the body, a column of a known name the time, all others attributes.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use serde_json::{Map, Value};
use tidemill_types::Signal;

use super::loose::{CSV_BODY_KEYS, loose_log};
use super::pieces::Pieces;
use crate::error::Result;
use crate::ingest::Issue;
use crate::otlp::stream::End;
use crate::otlp::{RECORD_LIMIT_BYTES, Sink};

/// The service of rows that name none, as Lakerunner files them.
const SERVICE: &str = "csv-import";
/// A header may have this many columns.
const COLUMN_LIMIT: usize = 10_000;

/// Walks all rows of the reader; a row that does not fit the header is refused alone.
///
/// # Errors
/// What the sink answers.
pub(crate) fn walk_csv<S: Sink>(reader: &mut dyn BufRead, sink: &mut S) -> Result<End> {
    let taken = Rc::new(Cell::new(0));
    let metered = RowMeter { reader, taken: Rc::clone(&taken) };
    let mut rows = csv::ReaderBuilder::new().flexible(true).from_reader(metered);
    let header = match rows.byte_headers() {
        Ok(header) => header.clone(),
        Err(error) => return Ok(End::Failed(format!("header: {error}"))),
    };
    let names: Vec<String> = header.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
    if names.len() > COLUMN_LIMIT {
        return Ok(End::Failed(format!("header: {} columns, a file may have {COLUMN_LIMIT}", names.len())));
    }
    let mut pieces = Pieces::new(Signal::Logs);
    let mut row = csv::ByteRecord::new();
    let end = loop {
        taken.set(0);
        let from_line = rows.position().line();
        match rows.read_byte_record(&mut row) {
            Ok(true) => {}
            Ok(false) => break End::Complete,
            Err(error) => break End::Failed(format!("line[{from_line}]: {error}")),
        }
        let line = row.position().map_or(0, csv::Position::line);
        match read_row(&names, &row).and_then(|members| loose_log(members, CSV_BODY_KEYS, Some(SERVICE))) {
            Ok(log) => pieces.add((log.resource, Vec::new()), &log.record, sink)?,
            Err(reason) => sink.refuse(1, Issue { path: format!("line[{line}]"), reason }),
        }
    };
    pieces.walk(sink)?;
    Ok(end)
}

/// Counts what one row takes, because a quote that is never closed would make the rest of the file one cell.
struct RowMeter<'r> {
    reader: &'r mut dyn BufRead,
    taken: Rc<Cell<usize>>,
}

impl Read for RowMeter<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken.get() > RECORD_LIMIT_BYTES {
            let reason = format!("a row has more than {RECORD_LIMIT_BYTES} bytes; a quote may be left open");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let read = self.reader.read(buffer)?;
        self.taken.set(self.taken.get() + read);
        Ok(read)
    }
}

/// The row's cells by column; empty cells are absent.
fn read_row(names: &[String], row: &csv::ByteRecord) -> std::result::Result<Map<String, Value>, String> {
    if row.len() != names.len() {
        return Err(format!("{} cells, the header has {}", row.len(), names.len()));
    }
    if row.as_slice().len() > RECORD_LIMIT_BYTES {
        return Err(format!("{} bytes, a record may have {RECORD_LIMIT_BYTES}", row.as_slice().len()));
    }
    let mut members = Map::new();
    for (name, cell) in names.iter().zip(row) {
        if cell.is_empty() {
            continue;
        }
        let text = std::str::from_utf8(cell)
            .map_err(|error| format!("{name}: invalid UTF-8 from byte {}", error.valid_up_to()))?;
        if members.insert(name.clone(), Value::String(text.to_owned())).is_some() {
            return Err(format!("{name}: two columns have this name, and both have a value here"));
        }
    }
    Ok(members)
}
