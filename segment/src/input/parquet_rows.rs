//! Parquet files: those of Lakerunner's collector, and logs of any other shape.

use std::fs::File;
use std::io::{BufRead, Write};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::json::LineDelimitedWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::ChunkReader;
use serde_json::{Map, Value};
use tidemill_types::Signal;

use super::lakerunner::{CollectorRow, MARKER_COLUMN, SKETCH_COLUMN, log_row, metric_row};
use super::loose::{JSON_BODY_KEYS, loose_log};
use super::pieces::Pieces;
use crate::draft::DraftBody;
use crate::error::{Error, Result};
use crate::ingest::Issue;
use crate::otlp::Sink;
use crate::otlp::stream::End;
use crate::spool::Spool;

/// Rows converted at once.
const BATCH_ROWS: usize = 1_024;

/// Walks all rows of the file; it is spooled first, because a Parquet file is read from its end.
///
/// # Errors
/// What the sink answers, and failures of the spool.
pub(crate) fn walk_parquet<S: Sink>(
    signal: Signal,
    spool: &Path,
    reader: &mut dyn BufRead,
    sink: &mut S,
) -> Result<End> {
    let mut file = Spool::new(spool);
    loop {
        let buffered = match reader.fill_buf() {
            Ok([]) => break,
            Ok(buffered) => buffered,
            Err(error) => return Ok(End::Failed(error.to_string())),
        };
        let length = buffered.len();
        file.write_all(buffered).map_err(|source| Error::Spool { path: spool.to_owned(), source })?;
        reader.consume(length);
    }
    let (body, _) = file.finish(0)?;
    match body {
        DraftBody::Memory(bytes) => walk_rows(signal, bytes, sink),
        DraftBody::File(spooled) => {
            let fail = |source| Error::Spool { path: spooled.path().to_owned(), source };
            walk_rows(signal, File::open(spooled.path()).map_err(fail)?, sink)
        }
    }
}

fn walk_rows<S: Sink>(signal: Signal, file: impl ChunkReader + 'static, sink: &mut S) -> Result<End> {
    let failed = |error: &dyn std::fmt::Display| Ok(End::Failed(format!("Parquet: {error}")));
    let builder = match ParquetRecordBatchReaderBuilder::try_new(file) {
        Ok(builder) => builder,
        Err(error) => return failed(&error),
    };
    let shape = match Shape::of(signal, builder.schema()) {
        Ok(shape) => shape,
        Err(problem) => return Ok(End::Failed(problem)),
    };
    let wanted: Vec<usize> = (0..builder.schema().fields().len())
        .filter(|place| builder.schema().field(*place).name() != SKETCH_COLUMN)
        .collect();
    let mask = match shape {
        Shape::Loose => ProjectionMask::all(),
        Shape::CollectorLogs | Shape::CollectorMetrics => ProjectionMask::roots(builder.parquet_schema(), wanted),
    };
    let batches = match builder.with_batch_size(BATCH_ROWS).with_projection(mask).build() {
        Ok(batches) => batches,
        Err(error) => return failed(&error),
    };
    let mut pieces = Pieces::new(signal);
    let mut row: u64 = 0;
    let mut end = End::Complete;
    for batch in batches {
        let objects = batch.and_then(|batch| objects_of(&batch));
        let objects = match objects {
            Ok(objects) => objects,
            Err(error) => {
                end = End::Failed(format!("Parquet: row[{row}]: {error}"));
                break;
            }
        };
        for line in objects.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let converted = serde_json::from_slice(line).map_err(|error| error.to_string());
            match converted.and_then(|members| shape.convert(members)) {
                Ok(converted) => pieces.add(converted.frame, &converted.record, sink)?,
                Err(reason) => sink.refuse(1, Issue { path: format!("row[{row}]"), reason }),
            }
            row += 1;
        }
    }
    pieces.walk(sink)?;
    Ok(end)
}

/// The rows as JSON objects, one a line.
fn objects_of(batch: &RecordBatch) -> std::result::Result<Vec<u8>, arrow::error::ArrowError> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

/// How rows are read.
#[derive(Clone, Copy)]
enum Shape {
    /// Columns of the collector, logs.
    CollectorLogs,
    /// Columns of the collector, metrics.
    CollectorMetrics,
    /// Logs of any shape.
    Loose,
}

impl Shape {
    fn of(signal: Signal, schema: &Schema) -> std::result::Result<Self, String> {
        let from_collector = schema.field_with_name(MARKER_COLUMN).is_ok();
        match (signal, from_collector) {
            (Signal::Logs, true) => Ok(Self::CollectorLogs),
            (Signal::Logs, false) => Ok(Self::Loose),
            (Signal::Metrics, true) => Ok(Self::CollectorMetrics),
            (Signal::Metrics, false) => Err(format!(
                "a Parquet file of metrics needs the columns {MARKER_COLUMN}, _cardinalhq.name and _cardinalhq.metric_type"
            )),
            (Signal::Traces, _) => Err("Parquet files of traces are not read; send OTLP".to_owned()),
        }
    }

    fn convert(self, members: Map<String, Value>) -> std::result::Result<CollectorRow, String> {
        match self {
            Self::CollectorLogs => log_row(members),
            Self::CollectorMetrics => metric_row(members),
            Self::Loose => {
                let log = loose_log(members, JSON_BODY_KEYS, None)?;
                Ok(CollectorRow { frame: (log.resource, Vec::new()), record: log.record })
            }
        }
    }
}
