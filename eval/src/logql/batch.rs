//! The input: batches of log lines with the streams that they are of.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray, StringViewArray, UInt32Array};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampNanosecondType, UInt32Type};

use crate::error::{Error, Result};

/// The column of a line's time: nanoseconds since 1970, `Timestamp(Nanosecond)` or `Int64`, never null.
pub const TIME_COLUMN: &str = "time";
/// The column of the lines: `Utf8`, never null.
pub const LINE_COLUMN: &str = "line";
/// The column of the streams: `UInt32`, the index of each line's stream in the batch's table, never null.
pub const STREAM_COLUMN: &str = "stream";

/// The labels of a stream, sorted by name, and structured metadata that all of its lines share.
///
/// The same stream may stand in a table several times, with other metadata each time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamLabels {
    labels: Arc<[(Arc<str>, Arc<str>)]>,
    metadata: Arc<[(Arc<str>, Arc<str>)]>,
}

impl StreamLabels {
    /// The labels of `pairs`; a label with an empty value is none, of a name that occurs twice the last stands.
    pub fn of<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        Self { labels: sorted(pairs), metadata: Arc::default() }
    }

    /// With metadata of all lines instead of what it had; of a name that a line has a value of its own for, the line's stands.
    #[must_use]
    pub fn with_metadata<N: AsRef<str>, V: AsRef<str>>(self, pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        Self { metadata: sorted(pairs), ..self }
    }

    /// The value of label `name`; empty where the stream lacks it.
    pub fn get(&self, name: &str) -> &str {
        self.labels.iter().find(|(own, _)| **own == *name).map_or("", |(_, value)| value)
    }

    /// Names and values of the labels in order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Names and values of the metadata in order of the names.
    pub(super) fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        self.metadata.iter().map(|(name, value)| (&**name, &**value))
    }
}

fn sorted<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Arc<[(Arc<str>, Arc<str>)]> {
    let mut labels: std::collections::BTreeMap<Arc<str>, Arc<str>> = std::collections::BTreeMap::new();
    for (name, value) in pairs {
        labels.insert(name.as_ref().into(), value.as_ref().into());
    }
    labels.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// Lines of some streams.
///
/// Every column of the record batch beside [`TIME_COLUMN`], [`LINE_COLUMN`] and [`STREAM_COLUMN`] is structured metadata under the
/// column's name: `Utf8`, null where the line has none.
#[derive(Debug, Clone)]
pub struct LogBatch {
    pub(super) streams: Arc<[StreamLabels]>,
    pub(super) time: Int64Array,
    pub(super) line: StringViewArray,
    pub(super) stream: UInt32Array,
    pub(super) metadata: Vec<(String, StringArray)>,
}

impl LogBatch {
    /// A batch over `rows` and the table of its streams.
    ///
    /// # Errors
    /// A column is missing, of another type, or null where it must not be; or a line's stream lies outside the table.
    pub fn new(rows: &RecordBatch, streams: Arc<[StreamLabels]>) -> Result<Self> {
        let column = |name: &str| {
            let column = rows.column_by_name(name).ok_or_else(|| Error::Data(format!("log lines without {name:?}")))?;
            match column.null_count() {
                0 => Ok(column),
                nulls => Err(Error::Data(format!("{nulls} log lines without {name:?}"))),
            }
        };
        let time = match column(TIME_COLUMN)?.data_type() {
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                column(TIME_COLUMN)?.as_primitive::<TimestampNanosecondType>().reinterpret_cast::<Int64Type>()
            }
            DataType::Int64 => column(TIME_COLUMN)?.as_primitive::<Int64Type>().clone(),
            other => return Err(Error::Data(format!("column {TIME_COLUMN:?} of log lines is {other}"))),
        };
        let line = StringViewArray::from(&text_column(column(LINE_COLUMN)?, LINE_COLUMN)?);
        let stream = column(STREAM_COLUMN)?
            .as_primitive_opt::<UInt32Type>()
            .ok_or_else(|| Error::Data(format!("column {STREAM_COLUMN:?} of log lines is not UInt32")))?
            .clone();
        if let Some(beyond) = stream.values().iter().find(|index| **index as usize >= streams.len()) {
            return Err(Error::Data(format!("a log line of stream {beyond}, of {} streams", streams.len())));
        }
        let mut metadata = Vec::new();
        for (index, field) in rows.schema().fields().iter().enumerate() {
            if ![TIME_COLUMN, LINE_COLUMN, STREAM_COLUMN].contains(&field.name().as_str()) {
                metadata.push((field.name().clone(), text_column(rows.column(index), field.name())?));
            }
        }
        Ok(Self { streams, time, line, stream, metadata })
    }

    /// A batch of columns that are typed already; `metadata` may have names of any kind.
    ///
    /// # Errors
    /// Columns differ in length, a line has no time, text or stream, or its stream lies outside the table.
    pub fn of_columns(
        streams: Arc<[StreamLabels]>,
        time: Int64Array,
        line: StringViewArray,
        stream: UInt32Array,
        metadata: Vec<(String, StringArray)>,
    ) -> Result<Self> {
        let rows = line.len();
        let is_even = time.len() == rows && stream.len() == rows && metadata.iter().all(|(_, own)| own.len() == rows);
        if !is_even || time.null_count() + line.null_count() + stream.null_count() > 0 {
            return Err(Error::Data("columns of log lines that do not fit together".to_owned()));
        }
        if let Some(beyond) = stream.values().iter().find(|index| **index as usize >= streams.len()) {
            return Err(Error::Data(format!("a log line of stream {beyond}, of {} streams", streams.len())));
        }
        Ok(Self { streams, time, line, stream, metadata })
    }

    /// How many lines it has.
    pub fn rows(&self) -> usize {
        self.line.len()
    }
}

fn text_column(column: &arrow::array::ArrayRef, name: &str) -> Result<StringArray> {
    let column = column.as_string_opt::<i32>();
    column.cloned().ok_or_else(|| Error::Data(format!("column {name:?} of log lines is not Utf8")))
}
