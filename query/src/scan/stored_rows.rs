//! Rows of one segment as they are stored, for readers that know themselves which they want.

use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;

use super::ahead::Ahead;
use super::open::{OpenSegment, SegmentLoader, SegmentReader};
use crate::stats::StatsHandle;
use crate::{Error, Result};

/// The rows that `choose` leaves of all row groups, columns and rows of a segment.
///
/// # Errors
/// The choice is none of the segment's; the rows' own errors come with them.
pub(crate) fn stored_rows(
    loader: &Arc<SegmentLoader>,
    open: &Arc<OpenSegment>,
    stats: &StatsHandle,
    choose: impl FnOnce(ParquetRecordBatchStreamBuilder<SegmentReader>) -> ParquetRecordBatchStreamBuilder<SegmentReader>,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let open = Arc::clone(open);
    let failure = Arc::default();
    let reader = SegmentReader {
        loader: Arc::clone(loader),
        open: Arc::clone(&open),
        stats: stats.clone(),
        failure: Arc::clone(&failure),
        ahead: Ahead::default(),
    };
    let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, open.reader.clone());
    let corrupt = |open: &OpenSegment, error| Error::corrupt(&open.meta.object_key, error);
    let rows = choose(builder).build().map_err(|error| corrupt(&open, error))?;
    let told = move |error| failure.lock().take().unwrap_or_else(|| corrupt(&open, error));
    Ok(rows.map(move |batch| batch.map_err(&told)).boxed())
}
