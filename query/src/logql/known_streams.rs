//! How many lines of each stream and level row groups have, in memory. Compacted rows of a stream stand together, so that a row group has
//! few runs of them, and each is told by its first row. Segments never change, so that what was learned stays true.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringViewBuilder, UInt32Array};
use arrow::compute::{concat_batches, partition, take_record_batch};
use arrow::datatypes::{DataType, Int32Type, Schema};
use arrow::error::ArrowError;
use futures::StreamExt as _;
use moka::sync::Cache;
use parquet::arrow::ProjectionMask;
use tidemill_types::{Level, SegmentId, Signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::scan::{Conversion, OpenSegment, SegmentLoader, stored_rows};
use crate::stats::{Counter, StatsHandle};
use crate::tables::TableColumns;
use crate::{Error, Result};

/// The columns that streams and levels come from.
const COLUMNS: [&str; 5] = ["service_name", "scope_name", "resource", "severity_number", "severity_text"];
/// The column of lines.
const BODY: &str = "body";
/// Row groups that have more streams and levels than one in so many rows are left to be read.
const ROWS_OF_ONE: usize = 16;
/// As are those of which a stream has more severities.
const MOST_SEVERITIES: usize = 64;
/// Row groups that are learned at a time.
const TOGETHER: usize = 8;

/// What is known of the streams of row groups.
#[derive(Debug)]
pub(crate) struct KnownStreams(Cache<(SegmentId, usize), Known>);

#[derive(Debug, Clone)]
enum Known {
    /// It was asked for once.
    Asked,
    /// There are too many.
    TooMany,
    Streams(Arc<GroupStreams>),
}

/// The streams of a row group.
#[derive(Debug)]
pub(super) struct GroupStreams {
    /// A row of each, with [`COLUMNS`]; the same may stand there several times.
    pub(super) rows: RecordBatch,
    /// How many rows of the row group are like it.
    pub(super) lines: Vec<u64>,
    /// The bytes of their lines, where these were read.
    pub(super) bytes: Option<Vec<u64>>,
}

/// What of streams is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// How many lines they have.
    Lines,
    /// Bytes as well.
    Bytes,
}

/// When streams are learned that are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learn {
    /// Not for this: an index finds the few rows that are wanted.
    Never,
    /// Now: to read all rows takes longer.
    AtOnce,
    /// When they are asked for a second time.
    Again,
}

impl KnownStreams {
    pub(crate) fn new(bytes: u64) -> Self {
        let weigh = |_: &(SegmentId, usize), known: &Known| match known {
            Known::Asked | Known::TooMany => 128,
            Known::Streams(streams) => {
                let bytes = streams.rows.get_array_memory_size() + 16 * streams.lines.len() + 512;
                u32::try_from(bytes).unwrap_or(u32::MAX)
            }
        };
        Self(Cache::builder().max_capacity(bytes).weigher(weigh).build())
    }

    /// Of these row groups those whose streams are known, or are learned now.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub(super) async fn of_groups(
        &self,
        loader: &Arc<SegmentLoader>,
        open: &Arc<OpenSegment>,
        groups: &[usize],
        (need, learn): (Need, Learn),
        stats: &StatsHandle,
    ) -> Result<Vec<(usize, Arc<GroupStreams>)>> {
        let mut found = Vec::new();
        if open.meta.level == Level(0) {
            return Ok(found);
        }
        let mut learning = JoinSet::new();
        let turns = Arc::new(Semaphore::new(TOGETHER));
        for group in groups.iter().copied() {
            match self.0.get(&(open.meta.id, group)) {
                Some(Known::Streams(streams)) if need == Need::Lines || streams.bytes.is_some() => {
                    stats.add(Counter::CacheHits, 1);
                    found.push((group, streams));
                }
                Some(Known::TooMany) => {}
                Some(Known::Asked | Known::Streams(_)) | None if learn == Learn::Never => {}
                None if learn == Learn::Again => self.0.insert((open.meta.id, group), Known::Asked),
                Some(Known::Asked | Known::Streams(_)) | None => {
                    let (loader, open, stats) = (Arc::clone(loader), Arc::clone(open), stats.clone());
                    let turns = Arc::clone(&turns);
                    learning.spawn(async move {
                        let _turn = turns.acquire_owned().await.map_err(|_| Error::Cancelled)?;
                        Ok::<_, Error>((group, learned(&loader, &open, (group, need), &stats).await?))
                    });
                }
            }
        }
        while let Some(learned) = learning.join_next().await {
            let (group, streams) = learned.map_err(|_| Error::Cancelled)??;
            let known = streams.clone().map_or(Known::TooMany, Known::Streams);
            self.0.insert((open.meta.id, group), known);
            found.extend(streams.map(|streams| (group, streams)));
        }
        Ok(found)
    }
}

/// The streams of a row group by its rows; `None` where they are too many.
async fn learned(
    loader: &Arc<SegmentLoader>,
    open: &Arc<OpenSegment>,
    (group, need): (usize, Need),
    stats: &StatsHandle,
) -> Result<Option<Arc<GroupStreams>>> {
    static TABLE: LazyLock<TableColumns> = LazyLock::new(|| TableColumns::new(Signal::Logs, &[]));
    let corrupt = |error: ArrowError| Error::corrupt(&open.meta.object_key, error);
    let columns: Vec<_> = COLUMNS.iter().filter_map(|name| TABLE.column(name).cloned()).collect();
    let fields: std::result::Result<Vec<_>, _> =
        COLUMNS.iter().map(|name| TABLE.schema.field_with_name(name).cloned()).collect();
    let schema = Arc::new(Schema::new(fields.map_err(corrupt)?));
    let conversion = Conversion::new(open, &columns, Arc::clone(&schema));
    let mut mask = conversion.mask.clone();
    if need == Need::Bytes {
        mask.union(&ProjectionMask::roots(open.reader.parquet_schema(), open.reader.schema().index_of(BODY)));
    }
    let rows = open.row_group_rows(group);
    stats.add(Counter::RowGroupsRead, 1);
    stats.add(Counter::RowsScanned, rows as u64);
    let mut batches = stored_rows(loader, open, stats, |stored| {
        stored.with_row_groups(vec![group]).with_projection(mask).with_batch_size(rows.max(1))
    })?;
    let (mut heads, mut lines, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        if batch.num_columns() == 0 {
            return Ok(None);
        }
        let Some(found) = alike_rows(&batch, rows / ROWS_OF_ONE).map_err(corrupt)? else { return Ok(None) };
        let taken = take_record_batch(&batch, &found.iter().map(|alike| alike.first).collect::<UInt32Array>());
        heads.push(conversion.convert(&taken.map_err(corrupt)?)?);
        lines.extend(found.iter().map(|alike| alike.rows));
        bytes.extend(found.iter().map(|alike| alike.bytes));
    }
    let rows = concat_batches(&schema, &heads).map_err(corrupt)?;
    let alone: Vec<ArrayRef> = rows.columns().iter().map(alone).collect();
    let rows = RecordBatch::try_new(schema, alone).map_err(corrupt)?;
    let bytes = (need == Need::Bytes).then_some(bytes);
    Ok(Some(Arc::new(GroupStreams { rows, lines, bytes })))
}

/// Rows that are equal in what makes streams and levels.
struct Alike {
    severity: Severity,
    /// The first of them.
    first: u32,
    rows: u64,
    /// The bytes of their lines, where these were read.
    bytes: u64,
}

/// Rows that are equal in what makes streams and levels; `None` where there are more than `most` of them.
fn alike_rows(batch: &RecordBatch, most: usize) -> std::result::Result<Option<Vec<Alike>>, ArrowError> {
    let schema = batch.schema();
    let is_severity = |place: &usize| schema.field(*place).name().starts_with("severity_");
    let (severity, streams): (Vec<usize>, Vec<usize>) = (0..batch.num_columns()).partition(is_severity);
    let streams = streams.into_iter().filter(|place| schema.field(*place).name() != BODY);
    let columns: Vec<ArrayRef> = streams.map(|place| Arc::clone(batch.column(place))).collect();
    let body = batch.column_by_name(BODY).and_then(|body| body.as_string_view_opt());
    let bytes_of = |row: usize| body.filter(|body| body.is_valid(row)).map_or(0, |body| body.value(row).len() as u64);
    let runs = match columns.is_empty() {
        true => std::iter::once(0..batch.num_rows()).collect(),
        false => partition(&columns)?.ranges(),
    };
    let number = severity.iter().find_map(|place| batch.column(*place).as_primitive_opt::<Int32Type>());
    let text = severity.iter().find_map(|place| batch.column(*place).as_string_view_opt());
    // Views with the same bits are the same text.
    let severity_of = |row: usize| {
        let number = number.filter(|own| own.is_valid(row)).map(|own| own.value(row));
        (number, text.filter(|own| own.is_valid(row)).map(|own| own.views()[row]))
    };
    let mut all = Vec::new();
    let mut own: Vec<Alike> = Vec::new();
    for run in runs {
        for row in run {
            let (severity, bytes) = (severity_of(row), bytes_of(row));
            match own.iter_mut().find(|alike| alike.severity == severity) {
                Some(alike) => {
                    alike.rows += 1;
                    alike.bytes += bytes;
                }
                None => own.push(Alike { severity, first: row as u32, rows: 1, bytes }),
            }
            if own.len() > MOST_SEVERITIES {
                return Ok(None);
            }
        }
        all.append(&mut own);
        if all.len() > most {
            return Ok(None);
        }
    }
    Ok(Some(all))
}

/// Number and text of a severity, the text as its view.
type Severity = (Option<i32>, Option<u128>);

/// The same texts without the pages that they came from, each once.
fn alone(column: &ArrayRef) -> ArrayRef {
    if *column.data_type() != DataType::Utf8View {
        return Arc::clone(column);
    }
    let mut texts = StringViewBuilder::with_capacity(column.len()).with_deduplicate_strings();
    column.as_string_view().iter().for_each(|text| texts.append_option(text));
    Arc::new(texts.finish())
}
