//! The stream tables of segments of compacted logs, in memory: how many lines of each stream and level their row groups have. Segments
//! never change, so that what was read stays true.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use moka::future::Cache;
use tidemill_segment::index::{StreamRows, StreamTable};
use tidemill_types::{SegmentId, SegmentMeta, Signal};

use crate::scan::{Conversion, OpenSegment, SegmentLoader};
use crate::stats::{Counter, StatsHandle};
use crate::tables::TableColumns;
use crate::{Error, Result};

/// The columns that streams and levels come from.
const COLUMNS: [&str; 5] = ["service_name", "scope_name", "resource", "severity_number", "severity_text"];
/// The footer's name for the table.
const PART: &str = "streams";
/// Tables read at a time.
const TOGETHER: usize = 16;

/// The stream tables that are in memory.
#[derive(Debug)]
pub(crate) struct StreamTables(Cache<SegmentId, Arc<SegmentStreams>>);

/// The streams of a segment.
#[derive(Debug)]
pub(super) struct SegmentStreams {
    /// A row of each stream and severity, with [`COLUMNS`].
    pub(super) heads: RecordBatch,
    /// What each row group has of them.
    pub(super) groups: Vec<Vec<StreamRows>>,
}

/// A segment, and its streams where it has a table.
pub(super) type WithStreams = (Arc<OpenSegment>, Option<Arc<SegmentStreams>>);

impl StreamTables {
    pub(crate) fn new(bytes: u64) -> Self {
        let weigh = |_: &SegmentId, streams: &Arc<SegmentStreams>| {
            let entries: usize = streams.groups.iter().map(Vec::len).sum();
            let bytes = streams.heads.get_array_memory_size() + size_of::<StreamRows>() * entries + 512;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(bytes).weigher(weigh).build())
    }

    /// Opens segments with their streams, some at a time, in any order. Where `are_wanted` says no, no table is read.
    pub(super) fn open_all<'t>(
        &'t self,
        loader: &'t Arc<SegmentLoader>,
        segments: Vec<SegmentMeta>,
        are_wanted: impl Fn(&OpenSegment) -> bool + Send + 't,
        stats: &'t StatsHandle,
    ) -> BoxStream<'t, Result<WithStreams>> {
        let with_streams = move |open: Arc<OpenSegment>| {
            let is_wanted = are_wanted(&open);
            async move {
                let streams = if is_wanted { self.of(loader, &open, stats).await? } else { None };
                Ok((open, streams))
            }
        };
        loader.open_all_with(segments, Some(PART), stats).map_ok(with_streams).try_buffer_unordered(TOGETHER).boxed()
    }

    /// The streams of a segment; `None` where it has no table.
    async fn of(
        &self,
        loader: &Arc<SegmentLoader>,
        open: &Arc<OpenSegment>,
        stats: &StatsHandle,
    ) -> Result<Option<Arc<SegmentStreams>>> {
        let Some(range) = open.part(PART) else { return Ok(None) };
        if let Some(streams) = self.0.get(&open.meta.id).await {
            stats.add(Counter::CacheHits, 1);
            return Ok(Some(streams));
        }
        let read = async {
            let parts = loader.fetch_kept(&open.meta, &[range], stats).await?;
            let bytes = parts.first().ok_or_else(|| corrupt(open, "the store returned no bytes"))?;
            let table = StreamTable::decode(bytes).map_err(|error| corrupt(open, error))?;
            if table.groups().len() != open.row_group_times.len() {
                return Err(corrupt(open, "its stream table has another number of row groups"));
            }
            Ok(Arc::new(SegmentStreams { heads: heads(open, &table)?, groups: table.groups().to_vec() }))
        };
        let read = self.0.try_get_with(open.meta.id, read).await;
        read.map(Some).map_err(|error: Arc<Error>| Error::clone(&error))
    }
}

/// The rows of a table with [`COLUMNS`].
fn heads(open: &Arc<OpenSegment>, table: &StreamTable) -> Result<RecordBatch> {
    static TABLE: LazyLock<TableColumns> = LazyLock::new(|| TableColumns::new(Signal::Logs, &[]));
    let failed = |error: ArrowError| corrupt(open, error);
    // As if its rows had been read with the others.
    let stored = table.heads();
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in stored.schema().fields().iter().zip(stored.columns()) {
        let field = open.reader.schema().field_with_name(field.name()).map_err(failed)?.clone();
        columns.push(cast(column, field.data_type()).map_err(failed)?);
        fields.push(field);
    }
    let stored = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(failed)?;
    let columns: Vec<_> = COLUMNS.iter().filter_map(|name| TABLE.column(name).cloned()).collect();
    let fields: std::result::Result<Vec<_>, _> =
        COLUMNS.iter().map(|name| TABLE.schema.field_with_name(name).cloned()).collect();
    Conversion::new(open, &columns, Arc::new(Schema::new(fields.map_err(failed)?))).convert(&stored)
}

fn corrupt(open: &OpenSegment, problem: impl std::fmt::Display) -> Error {
    Error::corrupt(&open.meta.object_key, problem)
}
