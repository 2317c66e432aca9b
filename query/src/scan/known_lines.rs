//! Lines of the records that met a condition on long texts, in memory. Where few rows of a row group meet it, they lie apart, and to read
//! them again decompresses pages that are mostly of others.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringViewArray};
use moka::sync::Cache;
use tidemill_types::SegmentId;

use super::convert::Conversion;
use super::known_rows::ConditionId;
use crate::{Error, Result};

/// Lines are kept of row groups of which at most one row in so many meets the condition.
const ROWS_OF_ONE: usize = 4;

/// A segment, a row group of it, and a condition.
pub(super) type LinesKey = (SegmentId, usize, ConditionId);

/// Lines by what they meet, in the order of their rows.
#[derive(Debug, Clone)]
pub(super) struct KnownLines(Cache<LinesKey, StringViewArray>);

impl KnownLines {
    pub(super) fn new(bytes: u64) -> Self {
        let weigh = |_: &LinesKey, lines: &StringViewArray| {
            u32::try_from(lines.get_array_memory_size() + 256).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(bytes).weigher(weigh).build())
    }

    /// The lines of all rows that meet the condition, if they are in memory.
    pub(super) fn get(&self, key: &LinesKey) -> Option<StringViewArray> {
        self.0.get(key)
    }

    /// Takes the lines of the `rows` rows that meet the condition as they are read; nothing where they are many of `all`.
    pub(super) fn collect(&self, key: LinesKey, rows: usize, all: usize) -> Option<Collector> {
        let is_worth_it = rows > 0 && rows.saturating_mul(ROWS_OF_ONE) <= all;
        is_worth_it.then(|| Collector { known: self.clone(), key, missing: rows, parts: Vec::new() })
    }
}

/// Lines that are being read.
#[derive(Debug)]
pub(super) struct Collector {
    known: KnownLines,
    key: LinesKey,
    missing: usize,
    parts: Vec<StringViewArray>,
}

impl Collector {
    fn add(&mut self, lines: &ArrayRef) {
        let Some(lines) = lines.as_string_view_opt().filter(|lines| lines.len() <= self.missing) else { return };
        self.missing -= lines.len();
        // Without the pages that they lie in.
        self.parts.push(lines.gc());
        if self.missing == 0 {
            let parts: Vec<&dyn Array> = self.parts.iter().map(|part| part as &dyn Array).collect();
            if let Ok(all) = arrow::compute::concat(&parts) {
                self.known.0.insert(self.key, all.as_string_view().clone());
            }
        }
    }
}

/// What becomes of rows that are read: the columns asked for, the lines among them from memory or kept for the next query.
#[derive(Debug)]
pub(super) struct Output {
    conversion: Arc<Conversion>,
    /// Where lines stand among the columns.
    place: usize,
    given: Option<StringViewArray>,
    collector: Option<Collector>,
}

impl Output {
    /// Rows as they are converted.
    pub(super) fn plain(conversion: Arc<Conversion>) -> Self {
        Self { conversion, place: 0, given: None, collector: None }
    }

    /// Rows whose lines, in column `place`, are these; the conversion leaves the column to them.
    pub(super) fn given(conversion: Arc<Conversion>, place: usize, lines: StringViewArray) -> Self {
        Self { conversion, place, given: Some(lines), collector: None }
    }

    /// Rows whose lines, in column `place`, are kept.
    pub(super) fn collected(conversion: Arc<Conversion>, place: usize, collector: Option<Collector>) -> Self {
        Self { conversion, place, given: None, collector }
    }

    pub(super) fn conversion(&self) -> &Conversion {
        &self.conversion
    }

    /// The next rows.
    ///
    /// # Errors
    /// Those of the conversion.
    pub(super) fn convert(&mut self, rows: &RecordBatch) -> Result<RecordBatch> {
        let batch = self.conversion.convert(rows)?;
        if let Some(collector) = &mut self.collector {
            collector.add(batch.column(self.place));
        }
        let Some(lines) = &mut self.given else { return Ok(batch) };
        let short = || Error::corrupt(self.conversion.object_key(), "more rows meet a condition than met it before");
        if lines.len() < batch.num_rows() {
            return Err(short());
        }
        let mut columns = batch.columns().to_vec();
        columns[self.place] = Arc::new(lines.slice(0, batch.num_rows()));
        *lines = lines.slice(batch.num_rows(), lines.len() - batch.num_rows());
        RecordBatch::try_new(batch.schema(), columns)
            .map_err(|error| Error::corrupt(self.conversion.object_key(), error))
    }
}
