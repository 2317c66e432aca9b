//! Parquet files: those of Lakerunner's collector, and logs of any other shape.

use std::fs::File;
use std::io::{BufRead, Write};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::file::reader::ChunkReader;
use serde_json::{Map, Value};
use tidemill_types::Signal;

use super::arrow_values::row_members;
use super::lakerunner::{CollectorRow, MARKER_COLUMN, SKETCH_COLUMN, log_row, metric_row};
use super::loose::{JSON_BODY_KEYS, loose_log};
use super::parquet_schema::check_schema;
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
    let (batches, shape) = match guarded(|| open_rows(signal, file)) {
        Ok(opened) => opened,
        Err(problem) => return Ok(End::Failed(problem)),
    };
    let mut batches = batches;
    let mut pieces = Pieces::new(signal);
    let mut row: u64 = 0;
    let end = loop {
        let batch = match guarded(|| batches.next().transpose().map_err(told)) {
            Ok(Some(batch)) => batch,
            Ok(None) => break End::Complete,
            Err(problem) => break End::Failed(format!("row[{row}]: {problem}")),
        };
        for place in 0..batch.num_rows() {
            match row_members(&batch, place).and_then(|members| shape.convert(members)) {
                Ok(converted) => pieces.add(converted.frame, &converted.record, sink)?,
                Err(reason) => sink.refuse(1, Issue { path: format!("row[{row}]"), reason }),
            }
            row += 1;
        }
    };
    pieces.walk(sink)?;
    Ok(end)
}

fn open_rows(
    signal: Signal,
    file: impl ChunkReader + 'static,
) -> std::result::Result<(ParquetRecordBatchReader, Shape), String> {
    check_schema(&file).map_err(told)?;
    // The writer's own Arrow types do not matter here, and texts are read as views, which share what a dictionary repeats.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::load(&file, options.clone()).map_err(told)?;
    let fields: Vec<FieldRef> = metadata.schema().fields().iter().map(with_views).collect();
    let schema = Arc::new(Schema::new(fields));
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options.with_schema(schema));
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.map_err(told)?);
    let shape = Shape::of(signal, builder.schema())?;
    let wanted: Vec<usize> = (0..builder.schema().fields().len())
        .filter(|place| builder.schema().field(*place).name() != SKETCH_COLUMN)
        .collect();
    let mask = match shape {
        Shape::Loose => ProjectionMask::all(),
        Shape::CollectorLogs | Shape::CollectorMetrics => ProjectionMask::roots(builder.parquet_schema(), wanted),
    };
    let batches = builder.with_batch_size(BATCH_ROWS).with_projection(mask).build().map_err(told)?;
    Ok((batches, shape))
}

fn told(error: impl std::fmt::Display) -> String {
    format!("Parquet: {error}")
}

/// The reader of Parquet files takes some lies of a file for faults of its own and panics; here they are the file's.
fn guarded<T>(read: impl FnOnce() -> std::result::Result<T, String>) -> std::result::Result<T, String> {
    std::panic::catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err("Parquet: the file is malformed; its reader panicked".to_owned()))
}

/// The same field, its texts and bytes as views.
fn with_views(field: &FieldRef) -> FieldRef {
    let kind = match field.data_type() {
        DataType::Utf8 => DataType::Utf8View,
        DataType::Binary => DataType::BinaryView,
        DataType::List(item) => DataType::List(with_views(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(with_views).collect()),
        DataType::Map(entries, is_sorted) => DataType::Map(with_views(entries), *is_sorted),
        other => other.clone(),
    };
    Arc::new(field.as_ref().clone().with_data_type(kind))
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
