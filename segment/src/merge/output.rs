//! Writing one output of a merge: rows in their final order, the index of each row block, the footer.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, TimestampNanosecondType};
use tidemill_types::{ByteRange, Signal, Tier};

use super::attributes::MergePlan;
use super::input::is_attribute_column;
use super::properties::compacted_properties;
use crate::coverage::Coverage;
use crate::draft::DraftSegment;
use crate::error::{Error, Result};
use crate::footer::{IndexPart, SegmentFooter, covered_inputs};
use crate::identities::IDENTITIES_PART;
use crate::index::{BLOCK_ROWS, IndexBuilder, IndexMode, IndexedColumn, SeriesTableBuilder, StreamTableBuilder};
use crate::schema::SERVICE_NAME_COLUMN;
use crate::severity::{SeverityClass, SeverityRows};
use crate::write::{ROW_GROUP_ROWS, SegmentWriter};

/// The footer's name for the index directory.
pub(crate) const DIRECTORY_PART: &str = "directory";
/// The footer's name for the series table.
pub(crate) const SERIES_PART: &str = "series";
/// The footer's name for the stream table.
pub(crate) const STREAMS_PART: &str = "streams";

/// A segment being written.
pub(crate) struct Output<'a> {
    plan: &'a MergePlan,
    ordinal: u32,
    outputs: u32,
    writer: Option<SegmentWriter>,
    index: IndexBuilder,
    /// Column of the batch, ordinal in the index.
    texts: Vec<(usize, u16)>,
    values: Vec<(usize, u16)>,
    rows: u64,
    group_rows: usize,
    coverage: Coverage,
    /// Logs: how the rows of each row group are shared between the classes, the current one last.
    severity_rows: Vec<SeverityRows>,
    pub(crate) duplicate_rows: Option<u64>,
    /// Metrics: the series so far.
    pub(crate) series: Option<SeriesTableBuilder>,
    /// Logs: the streams so far.
    streams: Option<StreamTableBuilder>,
}

impl<'a> Output<'a> {
    pub(crate) fn new(plan: &'a MergePlan, ordinal: u32, outputs: u32) -> Self {
        let columns = indexed_columns(plan);
        let place = |mode| {
            let numbered = columns.iter().enumerate().filter(move |(_, column)| column.mode == mode);
            numbered
                .filter_map(|(number, column)| Some((plan.schema.index_of(&column.name).ok()?, number as u16)))
                .collect::<Vec<_>>()
        };
        let (texts, values) = (place(IndexMode::Tokens), place(IndexMode::Values));
        Self {
            plan,
            ordinal,
            outputs,
            writer: None,
            index: IndexBuilder::new(columns),
            texts,
            values,
            rows: 0,
            group_rows: 0,
            coverage: Coverage::default(),
            severity_rows: Vec::new(),
            duplicate_rows: None,
            series: None,
            streams: None,
        }
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds rows; a row group ends when it is full.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if self.writer.is_none() {
            let properties = compacted_properties(self.plan.signal, batch);
            let schema = Arc::clone(&self.plan.schema);
            self.writer = Some(SegmentWriter::create(&self.plan.options.spool, schema, properties)?);
            if self.plan.signal == Signal::Logs {
                self.streams = Some(StreamTableBuilder::new(batch.schema_ref())?);
            }
        }
        self.note(batch);
        let mut from = 0;
        while from < batch.num_rows() {
            let rows = (batch.num_rows() - from).min(ROW_GROUP_ROWS - self.group_rows);
            let slice = batch.slice(from, rows);
            self.index_rows(&slice)?;
            self.count_classes(&slice);
            if let Some(streams) = &mut self.streams {
                streams.add(&slice)?;
            }
            self.writer.as_mut().expect("was made above").write(&slice)?;
            self.group_rows += rows;
            self.rows += rows as u64;
            from += rows;
            if self.group_rows == ROW_GROUP_ROWS {
                self.end_row_group()?;
            }
        }
        Ok(())
    }

    pub(crate) fn end_row_group(&mut self) -> Result<()> {
        if let Some(writer) = self.writer.as_mut().filter(|_| self.group_rows > 0) {
            writer.end_row_group()?;
            self.group_rows = 0;
            if let Some(streams) = &mut self.streams {
                streams.end_group();
            }
        }
        Ok(())
    }

    /// Ends the file; `None` when it has no rows.
    pub(crate) fn finish(mut self) -> Result<Option<DraftSegment>> {
        self.end_row_group()?;
        let (Some(mut writer), Some(time)) = (self.writer.take(), self.coverage.time()) else { return Ok(None) };
        let encoded = self.index.finish()?;
        let directory = writer.append(&encoded.directory)?;
        let sections = writer.append(&encoded.sections)?;
        let mut index = ByteRange { offset: directory.offset, len: directory.len + sections.len };
        let mut parts = vec![IndexPart { name: DIRECTORY_PART.to_owned(), range: directory }];
        if let Some(series) = &self.series {
            let range = writer.append(&series.encode()?)?;
            index.len += range.len;
            parts.push(IndexPart { name: SERIES_PART.to_owned(), range });
        }
        if let Some(table) = self.streams.map(StreamTableBuilder::encode).transpose()?.flatten() {
            let range = writer.append(&table)?;
            index.len += range.len;
            parts.push(IndexPart { name: STREAMS_PART.to_owned(), range });
        }
        if self.ordinal == 0 && !self.plan.identities.is_empty() {
            let range = writer.append(&self.plan.identities)?;
            parts.push(IndexPart { name: IDENTITIES_PART.to_owned(), range });
        }
        let inputs = &self.plan.inputs;
        let share = |rows: u64| match self.outputs {
            1 => rows,
            _ => (u128::from(rows) * u128::from(self.rows)).div_ceil(u128::from(self.plan.rows().max(1))) as u64,
        };
        let mut attributes = self.plan.attributes.clone();
        attributes.iter_mut().for_each(|entry| entry.rows = share(entry.rows));
        let first = &inputs[0].footer;
        let footer = SegmentFooter {
            signal: self.plan.signal,
            tier: Tier::RAW,
            level: self.plan.options.level,
            time,
            ingest_day: inputs.iter().map(|input| input.footer.ingest_day).max().unwrap_or(first.ingest_day),
            rows: self.rows,
            services: self.coverage.services(),
            hours: self.coverage.hours(),
            attributes,
            attributes_truncated: self.plan.attributes_truncated,
            duplicate_rows: self.duplicate_rows,
            severity_rows: self.severity_rows,
            index,
            sections: parts,
            replaces: inputs.iter().map(|input| input.input.meta.id).collect(),
            outputs: self.outputs,
            ordinal: self.ordinal,
            inputs: covered_inputs(inputs.iter().map(|input| &input.footer)),
            ..first.clone()
        };
        writer.finish(&footer).map(Some)
    }

    fn note(&mut self, batch: &RecordBatch) {
        let times = batch.column(0).as_primitive::<TimestampNanosecondType>();
        self.coverage.note_times(self.plan.signal, times.values());
        if let Some(column) = batch.column_by_name(SERVICE_NAME_COLUMN) {
            let coverage = &mut self.coverage;
            each_value(column, 0, batch.num_rows(), |name| coverage.note_service(&String::from_utf8_lossy(name)));
            if column.logical_null_count() > 0 {
                coverage.note_nameless();
            }
        } else {
            self.coverage.note_nameless();
        }
    }

    fn count_classes(&mut self, batch: &RecordBatch) {
        if self.plan.signal != Signal::Logs {
            return;
        }
        if self.group_rows == 0 {
            self.severity_rows.push(SeverityRows::default());
        }
        if let Some(current) = self.severity_rows.last_mut() {
            current.count(&SeverityClass::of_rows(batch));
        }
    }

    fn index_rows(&mut self, batch: &RecordBatch) -> Result<()> {
        for start in (0..batch.num_rows()).step_by(BLOCK_ROWS) {
            let end = (start + BLOCK_ROWS).min(batch.num_rows());
            self.index.start_block((end - start) as u64)?;
            for (column, ordinal) in &self.texts {
                let index = &mut self.index;
                each_value(batch.column(*column), start, end, |text| {
                    if let Ok(text) = std::str::from_utf8(text) {
                        index.add_text(*ordinal, text);
                    }
                });
            }
            for (column, ordinal) in &self.values {
                let index = &mut self.index;
                each_value(batch.column(*column), start, end, |value| index.add_value(*ordinal, value));
            }
        }
        Ok(())
    }
}

/// Which columns are indexed, and how.
fn indexed_columns(plan: &MergePlan) -> Vec<IndexedColumn> {
    let mut columns = Vec::new();
    for field in plan.schema.fields() {
        let name = field.name();
        let is_text = matches!(field.data_type(), DataType::Utf8 | DataType::Dictionary(..));
        let mode = match name.as_str() {
            "body" => IndexMode::Tokens,
            // Spans are sorted by trace id, so page statistics find it there.
            "trace_id" if plan.signal == Signal::Logs => IndexMode::Values,
            "service_name" | "name" | "severity_text" | "event_name" | "scope_name" => IndexMode::Values,
            _ if is_text && is_attribute_column(name) => IndexMode::Values,
            _ => continue,
        };
        columns.push(IndexedColumn { name: name.clone(), mode });
    }
    columns
}

/// The text of a row of a column that is text, plain or a dictionary; `None` for null and for other columns.
pub(crate) fn text_at(column: &ArrayRef, row: usize) -> Option<&str> {
    match column.data_type() {
        DataType::Dictionary(..) => {
            let dictionary = column.as_dictionary::<Int32Type>();
            let key = dictionary.keys().is_valid(row).then(|| dictionary.keys().value(row) as usize)?;
            Some(dictionary.values().as_string::<i32>().value(key))
        }
        DataType::Utf8 => {
            let texts = column.as_string::<i32>();
            texts.is_valid(row).then(|| texts.value(row))
        }
        _ => None,
    }
}

/// Visits each value of the rows `start..end` that is not null; values of dictionaries once.
fn each_value(column: &ArrayRef, start: usize, end: usize, mut visit: impl FnMut(&[u8])) {
    match column.data_type() {
        DataType::Dictionary(..) => {
            let dictionary = column.as_dictionary::<Int32Type>();
            let values = dictionary.values().as_string::<i32>();
            let keys = dictionary.keys();
            let mut seen = vec![false; values.len()];
            let mut last = None;
            for row in (start..end).filter(|row| keys.is_valid(*row)) {
                let key = keys.value(row) as usize;
                if last.replace(key) != Some(key) && !seen[key] && values.is_valid(key) {
                    seen[key] = true;
                    visit(values.value(key).as_bytes());
                }
            }
        }
        DataType::Utf8 => {
            let texts = column.as_string::<i32>();
            (start..end).filter(|row| texts.is_valid(*row)).for_each(|row| visit(texts.value(row).as_bytes()));
        }
        DataType::FixedSizeBinary(_) => {
            let ids = column.as_fixed_size_binary();
            (start..end).filter(|row| ids.is_valid(*row)).for_each(|row| visit(ids.value(row)));
        }
        _ => {}
    }
}

/// Rows of several batches in a given order: (batch, row).
pub(crate) fn gather(batches: &[RecordBatch], order: &[(usize, usize)]) -> Result<RecordBatch> {
    let batches: Vec<&RecordBatch> = batches.iter().collect();
    arrow::compute::interleave_record_batch(&batches, order).map_err(Error::arrow("merge rows"))
}
