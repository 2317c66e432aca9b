//! Answers as bytes: Arrow IPC stream, JSON lines, CSV, and a table for people.
//!
//! Owns: the encodings. Numbers in JSON are plain, also int64 beyond 2^53: a reader that keeps numbers as doubles must ask for
//! Arrow or CSV, or cast to text in the query. NaN and infinities are null in JSON. Times are RFC 3339 in UTC with nanoseconds.
//! Never: runs anything. Start with [`Encoder`].

mod csv;
mod json;

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::pretty::pretty_format_batches;
use arrow_ipc::writer::StreamWriter;

/// A table is laid out in blocks of so many rows, each with widths of its own.
const TABLE_BLOCK_ROWS: usize = 10_000;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// Arrow IPC stream.
    ArrowStream,
    /// One JSON object a line, every column present.
    JsonLines,
    /// Comma-separated values with a header; lists and structs as JSON.
    Csv,
    /// A drawn table.
    Table,
}

impl OutputFormat {
    /// The HTTP media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::ArrowStream => "application/vnd.apache.arrow.stream",
            Self::JsonLines => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Table => "text/plain; charset=utf-8",
        }
    }

    /// The format that an `Accept` header prefers; JSON lines when it accepts anything.
    ///
    /// # Errors
    /// What can be had, when the header names nothing of it.
    pub fn from_accept(accept: Option<&str>) -> Result<Self, String> {
        let Some(accept) = accept else { return Ok(Self::JsonLines) };
        let mut best: Option<(f64, Self)> = None;
        for part in accept.split(',') {
            let mut parameters = part.split(';').map(str::trim);
            let media_type = parameters.next().unwrap_or_default().to_ascii_lowercase();
            let format = match media_type.as_str() {
                "application/vnd.apache.arrow.stream" => Self::ArrowStream,
                "application/x-ndjson" | "application/jsonl" | "application/json" | "application/*" | "*/*" | "" => {
                    Self::JsonLines
                }
                "text/csv" | "text/*" => Self::Csv,
                "text/plain" => Self::Table,
                _ => continue,
            };
            let weight = parameters.find_map(|it| it.strip_prefix("q=")).map_or(Ok(1.0), str::parse);
            let weight = weight.map_err(|_| format!("Accept {accept:?} has a weight that is no number"))?;
            if weight > best.map_or(0.0, |(weight, _)| weight) {
                best = Some((weight, format));
            }
        }
        best.map(|(_, format)| format).ok_or_else(|| {
            format!(
                "Accept {accept:?} names none of application/vnd.apache.arrow.stream, application/x-ndjson, text/csv, text/plain"
            )
        })
    }
}

impl FromStr for OutputFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "arrow" => Ok(Self::ArrowStream),
            "json" => Ok(Self::JsonLines),
            "csv" => Ok(Self::Csv),
            "table" => Ok(Self::Table),
            other => Err(format!("{other:?} is no output format; one of table, json, csv, arrow")),
        }
    }
}

/// A batch with no more values, in no more memory, is encoded at once.
const FEW_VALUES: usize = 2_000;
const FEW_BYTES: usize = 64 << 10;

/// Writes the batches of one answer.
pub struct Encoder {
    schema: SchemaRef,
    kind: Kind,
}

enum Kind {
    Arrow(Box<StreamWriter<Vec<u8>>>),
    Json,
    Csv { has_header: bool },
    Table { held: Vec<RecordBatch>, rows: usize, has_written: bool },
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder for batches of `schema`.
    ///
    /// # Errors
    /// When the format cannot express the schema.
    pub fn new(format: OutputFormat, schema: &Schema) -> Result<Self, ArrowError> {
        let schema = plain_schema(schema);
        let kind = match format {
            OutputFormat::ArrowStream => Kind::Arrow(Box::new(StreamWriter::try_new(Vec::new(), &schema)?)),
            OutputFormat::JsonLines => Kind::Json,
            OutputFormat::Csv => Kind::Csv { has_header: false },
            OutputFormat::Table => Kind::Table { held: Vec::new(), rows: 0, has_written: false },
        };
        Ok(Self { schema, kind })
    }

    /// Whether the next step, of one more batch or the last, takes so little that the way to another thread would take longer.
    pub fn takes_little(&self, batch: Option<&RecordBatch>) -> bool {
        let is_little = |batch: &RecordBatch| {
            let values = batch.num_rows().saturating_mul(batch.num_columns());
            values <= FEW_VALUES && batch.get_array_memory_size() <= FEW_BYTES
        };
        // A table is drawn of all that it holds.
        batch.is_none_or(is_little) && !matches!(self.kind, Kind::Table { .. })
    }

    /// The bytes of one more batch; may be empty where the format gathers.
    ///
    /// # Errors
    /// When a value cannot be written.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        let batch = self.plain(batch)?;
        match &mut self.kind {
            Kind::Arrow(writer) => {
                writer.write(&batch)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Kind::Json => json::encode_lines(&batch),
            Kind::Csv { has_header } => csv::encode(&batch, !std::mem::replace(has_header, true)),
            Kind::Table { held, rows, .. } => {
                *rows += batch.num_rows();
                held.push(batch);
                if *rows < TABLE_BLOCK_ROWS { Ok(Vec::new()) } else { self.draw() }
            }
        }
    }

    /// The last bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn finish(mut self) -> Result<Vec<u8>, ArrowError> {
        let empty = RecordBatch::new_empty(Arc::clone(&self.schema));
        match &mut self.kind {
            Kind::Arrow(writer) => {
                writer.finish()?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Kind::Json | Kind::Csv { has_header: true } => Ok(Vec::new()),
            Kind::Csv { has_header: false } => csv::encode(&empty, true),
            Kind::Table { held, has_written, .. } => {
                if held.is_empty() && *has_written {
                    return Ok(Vec::new());
                }
                if held.is_empty() {
                    held.push(empty);
                }
                self.draw()
            }
        }
    }

    fn draw(&mut self) -> Result<Vec<u8>, ArrowError> {
        let Kind::Table { held, rows, has_written } = &mut self.kind else { return Ok(Vec::new()) };
        let mut text = pretty_format_batches(held)?.to_string();
        text.push('\n');
        held.clear();
        (*rows, *has_written) = (0, true);
        Ok(text.into_bytes())
    }

    /// Text views become plain text, which every reader of Arrow knows.
    fn plain(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let columns = batch.columns().iter().zip(self.schema.fields());
        let columns = columns.map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => cast(column, field.data_type()),
        });
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns.collect::<Result<_, _>>()?, &options)
    }
}

fn plain_schema(schema: &Schema) -> SchemaRef {
    let plain = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8View => Field::new(field.name(), DataType::Utf8, field.is_nullable()),
        DataType::BinaryView => Field::new(field.name(), DataType::Binary, field.is_nullable()),
        other => Field::new(field.name(), other.clone(), field.is_nullable()),
    };
    Arc::new(Schema::new(schema.fields().iter().map(plain).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests;
