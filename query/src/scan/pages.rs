//! Page locations and page bounds of one row group, fetched for the columns that are read and no others.
//!
//! Parquet's own reader fetches the page index of the whole file in one range: for a needle in a large segment that is most of
//! what would be read. Here the metadata is cut down to one row group first.

use std::ops::Range;
use std::sync::Arc;

use parquet::DecodeResult;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder, RowGroupMetaData,
};

use super::open::{OpenSegment, SegmentLoader, reader_metadata};
use crate::stats::StatsHandle;
use crate::{Error, Result};

/// Which pages are asked about.
pub(super) struct PageRequest<'a> {
    pub(super) group: usize,
    /// Leaves that will be read: their page locations are wanted.
    pub(super) located: &'a [usize],
    /// Leaves that predicates compare: their page bounds are wanted.
    pub(super) bounded: &'a [usize],
}

/// Reader's metadata that knows one row group only, as its group 0, with the pages asked for.
pub(super) async fn row_group_pages(
    loader: &SegmentLoader,
    open: &OpenSegment,
    stats: &StatsHandle,
    request: &PageRequest<'_>,
) -> Result<ArrowReaderMetadata> {
    let corrupt = |error: ParquetError| Error::corrupt(&open.meta.object_key, error);
    let whole = open.reader.metadata();
    let group = whole.row_group(request.group);
    let alone = |group: RowGroupMetaData| ParquetMetaData::new(whole.file_metadata().clone(), vec![group]);
    let located = alone(only_offsets(group, request.located).map_err(corrupt)?);
    let bounded = alone(only_bounds(group, request.bounded).map_err(corrupt)?);
    let decoder = |metadata, bounds, offsets| {
        let decoder = ParquetMetaDataPushDecoder::try_new_with_metadata(open.meta.bytes, metadata);
        Ok(decoder?.with_column_index_policy(bounds).with_offset_index_policy(offsets))
    };
    let mut decoders = vec![decoder(located, PageIndexPolicy::Skip, PageIndexPolicy::Optional).map_err(corrupt)?];
    if !request.bounded.is_empty() {
        decoders.push(decoder(bounded, PageIndexPolicy::Optional, PageIndexPolicy::Skip).map_err(corrupt)?);
    }
    let mut decoded = decode(loader, open, stats, decoders).await?.into_iter();
    let offsets = decoded.next().and_then(|located| located.offset_index().cloned());
    let bounds = decoded.next().and_then(|bounded| bounded.column_index().cloned());
    let metadata = alone(group.clone()).into_builder().set_column_index(bounds).set_offset_index(offsets).build();
    reader_metadata(&open.meta, Arc::new(metadata))
}

/// What the decoders give; what they need is fetched together.
async fn decode(
    loader: &SegmentLoader,
    open: &OpenSegment,
    stats: &StatsHandle,
    mut decoders: Vec<ParquetMetaDataPushDecoder>,
) -> Result<Vec<ParquetMetaData>> {
    let corrupt = |error: ParquetError| Error::corrupt(&open.meta.object_key, error);
    let mut decoded: Vec<Option<ParquetMetaData>> = decoders.iter().map(|_| None).collect();
    loop {
        let mut needed = Vec::new();
        for (at, (decoder, done)) in decoders.iter_mut().zip(&mut decoded).enumerate() {
            if done.is_some() {
                continue;
            }
            match decoder.try_decode().map_err(corrupt)? {
                DecodeResult::NeedsData(ranges) => needed.push((at, ranges)),
                DecodeResult::Data(metadata) => *done = Some(metadata),
                DecodeResult::Finished => {
                    return Err(Error::corrupt(&open.meta.object_key, "its page index ended early"));
                }
            }
        }
        if needed.is_empty() {
            return Ok(decoded.into_iter().flatten().collect());
        }
        let all: Vec<Range<u64>> = needed.iter().flat_map(|(_, ranges)| ranges).cloned().collect();
        let mut parts = loader.fetch_kept(&open.meta, &all, stats).await?.into_iter();
        for (at, ranges) in needed {
            let own = parts.by_ref().take(ranges.len()).collect();
            decoders[at].push_ranges(ranges, own).map_err(corrupt)?;
        }
    }
}

/// The row group as if all leaves but `leaves` had the page locations of one of them: what is not read needs none, but Parquet's
/// decoder knows all or nothing.
fn only_offsets(group: &RowGroupMetaData, leaves: &[usize]) -> std::result::Result<RowGroupMetaData, ParquetError> {
    let place = |column: &ColumnChunkMetaData| (column.offset_index_offset(), column.offset_index_length());
    let stand_in = leaves.iter().map(|leaf| place(group.column(*leaf))).find(|place| place.0.is_some());
    rebuild(group, |leaf, column| {
        let own = place(column);
        let (offset, length) = if leaves.contains(&leaf) { own } else { stand_in.unwrap_or(own) };
        column.clone().into_builder().set_offset_index_offset(offset).set_offset_index_length(length).build()
    })
}

/// The row group as if only `leaves` had page bounds.
fn only_bounds(group: &RowGroupMetaData, leaves: &[usize]) -> std::result::Result<RowGroupMetaData, ParquetError> {
    rebuild(group, |leaf, column| {
        let is_wanted = leaves.contains(&leaf);
        let offset = column.column_index_offset().filter(|_| is_wanted);
        let length = column.column_index_length().filter(|_| is_wanted);
        column.clone().into_builder().set_column_index_offset(offset).set_column_index_length(length).build()
    })
}

fn rebuild(
    group: &RowGroupMetaData,
    change: impl Fn(usize, &ColumnChunkMetaData) -> std::result::Result<ColumnChunkMetaData, ParquetError>,
) -> std::result::Result<RowGroupMetaData, ParquetError> {
    let columns = group.columns().iter().enumerate().map(|(leaf, column)| change(leaf, column));
    group.clone().into_builder().set_column_metadata(columns.collect::<std::result::Result<_, _>>()?).build()
}
