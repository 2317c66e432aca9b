//! Opening segments: the footer in one request, checked against the catalog's hash, kept in memory.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Schema, TimestampNanosecondType};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use moka::future::Cache;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::{
    ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetStatisticsPolicy,
};
use tidemill_segment::index::{Condition, IndexDirectory, RowBlocks};
use tidemill_segment::read::{AttributeEntry, AttributeScope, AttributeType, SegmentFooter};
use tidemill_store::ObjectStore;
use tidemill_store::buckets::Buckets;
use tidemill_types::{ByteRange, ErrorKind, SegmentId, SegmentMeta, TimeRange, TimestampNs};
use tokio::sync::OnceCell;

use super::ahead::{Ahead, TOGETHER_BYTES};
use super::known_lines::KnownLines;
use super::known_rows::KnownRows;
use crate::attributes::AttributeKey;
use crate::stats::{Counter, StatsHandle};
use crate::{Error, QueryOptions, Result};

/// Footers fetched at a time while planning.
const FOOTERS_TOGETHER: usize = 16;
/// What is read of a row group at a time is kept in memory up to this size.
pub(super) const KEPT_COLUMN_BYTES: u64 = 64 << 10;
/// Answers of indexes may take one in so many bytes of what footers may.
const SHARE_OF_ANSWERS: u64 = 8;
/// How much before a footer is read with it, where a part of the index section is wanted that may lie there.
const BEFORE_FOOTER_BYTES: u64 = 32 << 10;
/// A decoded footer takes about this many times its encoded size.
const DECODED_FOOTER_FACTOR: u64 = 6;

/// Reads segments' bytes for all queries of a process.
#[derive(Debug)]
pub(crate) struct SegmentLoader {
    buckets: Arc<Buckets>,
    footers: Cache<SegmentId, Arc<OpenSegment>>,
    /// Small ranges of segments: index sections, bloom filters, page locations, short columns.
    kept: Cache<(SegmentId, u64, u64), Bytes>,
    /// What segments' indexes answered.
    index_answers: Cache<(SegmentId, Condition), Option<RowBlocks>>,
    /// What conditions on long texts have told.
    pub(super) known_rows: KnownRows,
    /// The texts that met them.
    pub(super) known_lines: KnownLines,
    coalesce_gap_bytes: u64,
}

/// An object whose bytes are kept under the id of its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObjectPlace<'a> {
    pub(crate) id: SegmentId,
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
}

impl<'a> From<&'a SegmentMeta> for ObjectPlace<'a> {
    fn from(meta: &'a SegmentMeta) -> Self {
        Self { id: meta.id, bucket: &meta.bucket, key: &meta.object_key }
    }
}

/// A segment whose footer is known.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    pub(crate) meta: SegmentMeta,
    pub(crate) footer: SegmentFooter,
    pub(crate) reader: ArrowReaderMetadata,
    /// The times of each row group.
    pub(crate) row_group_times: Vec<TimeRange>,
    attributes: HashMap<AttributeKey, AttributePlace>,
    directory: OnceCell<Option<Arc<IndexDirectory>>>,
}

/// Where one segment's values of an attribute are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AttributePlace {
    /// Its own column, and the type of its values there.
    pub(crate) column: Option<(String, AttributeType)>,
    /// Whether (further) values may be in the overflow column.
    pub(crate) in_overflow: bool,
}

impl SegmentLoader {
    pub(crate) fn new(buckets: Arc<Buckets>, options: &QueryOptions) -> Self {
        let (footer_cache_bytes, coalesce_gap_bytes) = (options.footer_cache_bytes, options.coalesce_gap_bytes);
        let known_rows = KnownRows::new(options.matches_cache_bytes);
        let known_lines = KnownLines::new(options.lines_cache_bytes);
        let footers = Cache::builder()
            .max_capacity(footer_cache_bytes)
            .weigher(|_, open: &Arc<OpenSegment>| {
                let bytes = open.meta.footer.len.saturating_mul(DECODED_FOOTER_FACTOR).saturating_add(1_024);
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            .build();
        let kept = Cache::builder()
            .max_capacity(footer_cache_bytes)
            .weigher(|_, bytes: &Bytes| u32::try_from(bytes.len() + 128).unwrap_or(u32::MAX))
            .build();
        let weigh = |(_, condition): &(SegmentId, Condition), answer: &Option<RowBlocks>| {
            let ranges = answer.as_ref().map_or(0, |rows| size_of_val(rows.ranges.as_slice()));
            u32::try_from(condition.memory_bytes() + ranges + 128).unwrap_or(u32::MAX)
        };
        let index_answers = Cache::builder().max_capacity(footer_cache_bytes / SHARE_OF_ANSWERS).weigher(weigh).build();
        Self { buckets, footers, kept, index_answers, known_rows, known_lines, coalesce_gap_bytes }
    }

    /// The segment with its footer, from memory where it is there.
    ///
    /// # Errors
    /// `SegmentMissing` when its object is gone, `SegmentCorrupt` when its footer is not the one in the catalog.
    pub(crate) async fn open(&self, meta: &SegmentMeta, stats: &StatsHandle) -> Result<Arc<OpenSegment>> {
        self.open_with(meta, None, stats).await
    }

    /// As [`Self::open`], for a reader that wants a part of the index section next: where that lies shortly before the footer, it is read
    /// with it in one request, for [`Self::fetch_kept`] to find.
    async fn open_with(
        &self,
        meta: &SegmentMeta,
        part: Option<&'static str>,
        stats: &StatsHandle,
    ) -> Result<Arc<OpenSegment>> {
        if let Some(open) = self.footers.get(&meta.id).await {
            stats.add(Counter::CacheHits, 1);
            return Ok(open);
        }
        let opening = async {
            let start = meta.footer.offset;
            let before = part.map_or(0, |_| meta.index.len.min(BEFORE_FOOTER_BYTES).min(start));
            let range = start - before..start.saturating_add(meta.footer.len);
            let mut parts = self.fetch(meta, std::slice::from_ref(&range), stats).await?;
            let no_bytes = || Error::corrupt(&meta.object_key, "the store returned no bytes");
            let bytes = parts.pop().ok_or_else(no_bytes)?;
            let footer = usize::try_from(before).ok().and_then(|at| bytes.get(at..)).ok_or_else(no_bytes)?;
            let open = OpenSegment::decode(meta, footer)?;
            if let Some(wanted) = part.and_then(|name| open.part(name)) {
                let inside = |at: u64| at.checked_sub(range.start).and_then(|at| usize::try_from(at).ok());
                let own = inside(wanted.start).zip(inside(wanted.end)).and_then(|(from, until)| bytes.get(from..until));
                if let Some(own) = own {
                    self.kept.insert((meta.id, wanted.start, wanted.end), Bytes::copy_from_slice(own)).await;
                }
            }
            Ok(Arc::new(open))
        };
        self.footers.try_get_with(meta.id, opening).await.map_err(|error: Arc<Error>| Error::clone(&error))
    }

    /// Opens segments, some at a time, in any order.
    pub(crate) fn open_all(
        self: &Arc<Self>,
        segments: Vec<SegmentMeta>,
        stats: &StatsHandle,
    ) -> BoxStream<'static, Result<Arc<OpenSegment>>> {
        self.open_all_with(segments, None, stats)
    }

    /// As [`Self::open_all`], for a reader that wants a part of the index section of each next.
    pub(crate) fn open_all_with(
        self: &Arc<Self>,
        segments: Vec<SegmentMeta>,
        part: Option<&'static str>,
        stats: &StatsHandle,
    ) -> BoxStream<'static, Result<Arc<OpenSegment>>> {
        let (loader, stats) = (Arc::clone(self), stats.clone());
        let open_one = move |meta: SegmentMeta| {
            let (loader, stats) = (Arc::clone(&loader), stats.clone());
            async move { loader.open_with(&meta, part, &stats).await }
        };
        futures::stream::iter(segments).map(open_one).buffer_unordered(FOOTERS_TOGETHER).boxed()
    }

    /// Reads ranges of a segment; near ones in one request.
    pub(crate) async fn fetch(
        &self,
        meta: &SegmentMeta,
        ranges: &[Range<u64>],
        stats: &StatsHandle,
    ) -> Result<Vec<Bytes>> {
        self.fetch_object(meta.into(), ranges, stats).await
    }

    async fn fetch_object(
        &self,
        object: ObjectPlace<'_>,
        ranges: &[Range<u64>],
        stats: &StatsHandle,
    ) -> Result<Vec<Bytes>> {
        if ranges.is_empty() {
            return Ok(Vec::new());
        }
        let store: Arc<dyn ObjectStore> = self.buckets.get(object.bucket)?;
        let merged = merge_ranges(ranges, self.coalesce_gap_bytes);
        stats.add(Counter::Requests, merged.len() as u64);
        stats.add(Counter::BytesRead, merged.iter().map(|range| range.end - range.start).sum());
        let parts = store.get_ranges(object.key, &merged).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                Error::SegmentMissing { bucket: object.bucket.to_owned(), object_key: object.key.to_owned() }
            }
            _ => Error::from(error),
        })?;
        ranges.iter().map(|range| slice_of(range, &merged, &parts, object.key)).collect()
    }

    /// Reads ranges of a segment in one request, where what covers them all is not much; else near ones together.
    pub(super) async fn fetch_together(
        &self,
        meta: &SegmentMeta,
        ranges: Vec<Range<u64>>,
        stats: &StatsHandle,
    ) -> Result<Ahead> {
        let Some(start) = ranges.iter().map(|range| range.start).min() else { return Ok(Ahead::default()) };
        let end = ranges.iter().map(|range| range.end).max().unwrap_or(0);
        let ranges = if end - start <= TOGETHER_BYTES { std::iter::once(start..end).collect() } else { ranges };
        let merged = merge_ranges(&ranges, self.coalesce_gap_bytes);
        let parts = self.fetch(meta, &merged, stats).await?;
        Ok(Ahead::new(merged.into_iter().zip(parts)))
    }

    /// Reads small ranges that queries ask for again and again: indexes, bloom filters, page locations.
    pub(crate) async fn fetch_kept(
        &self,
        meta: &SegmentMeta,
        ranges: &[Range<u64>],
        stats: &StatsHandle,
    ) -> Result<Vec<Bytes>> {
        self.fetch_object_kept(meta.into(), ranges, stats).await
    }

    /// Fetches those of the ranges that are not in memory yet, together, for [`Self::fetch_kept`] to find.
    pub(crate) async fn keep(
        &self,
        meta: &SegmentMeta,
        mut ranges: Vec<Range<u64>>,
        stats: &StatsHandle,
    ) -> Result<()> {
        ranges.retain(|range| !self.kept.contains_key(&(meta.id, range.start, range.end)));
        if !ranges.is_empty() {
            self.fetch_kept(meta, &ranges, stats).await?;
        }
        Ok(())
    }

    /// The same of any object that is never written twice.
    pub(crate) async fn fetch_object_kept(
        &self,
        object: ObjectPlace<'_>,
        ranges: &[Range<u64>],
        stats: &StatsHandle,
    ) -> Result<Vec<Bytes>> {
        let mut parts: Vec<Option<Bytes>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            parts.push(self.kept.get(&(object.id, range.start, range.end)).await);
        }
        let missing: Vec<Range<u64>> =
            ranges.iter().zip(&parts).filter(|(_, part)| part.is_none()).map(|(range, _)| range.clone()).collect();
        stats.add(Counter::CacheHits, (ranges.len() - missing.len()) as u64);
        let mut fetched = missing.iter().zip(self.fetch_object(object, &missing, stats).await?);
        let short = || Error::corrupt(object.key, "the store returned fewer ranges than asked for");
        let mut all = Vec::with_capacity(ranges.len());
        for part in parts {
            if let Some(bytes) = part {
                all.push(bytes);
                continue;
            }
            let (range, bytes) = fetched.next().ok_or_else(short)?;
            // A slice would keep all of its request alive.
            let bytes = Bytes::copy_from_slice(&bytes);
            self.kept.insert((object.id, range.start, range.end), bytes.clone()).await;
            all.push(bytes);
        }
        Ok(all)
    }
}

impl OpenSegment {
    fn decode(meta: &SegmentMeta, bytes: &[u8]) -> Result<Self> {
        let corrupt = |problem: String| Error::corrupt(&meta.object_key, problem);
        if blake3::hash(bytes).as_bytes() != &meta.footer_hash {
            return Err(corrupt("its footer is not the one that the catalog knows (the hash differs)".to_owned()));
        }
        // Nothing looks at them, and they are a good part of a footer.
        let options = ParquetMetaDataOptions::new()
            .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
            .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
        let metadata = ParquetMetaDataReader::decode_metadata_with_options(bytes, Some(&options));
        let metadata = metadata.map_err(|error| corrupt(error.to_string()))?;
        let footer = SegmentFooter::from_metadata(&metadata).map_err(|error| corrupt(error.to_string()))?;
        let reader = reader_metadata(meta, Arc::new(metadata))?;
        let row_group_times = row_group_times(meta, &reader)?;
        let place = |entry: &AttributeEntry| AttributePlace {
            column: entry.column.clone().zip(entry.kind),
            in_overflow: entry.overflows,
        };
        let attributes = footer
            .attributes
            .iter()
            .map(|entry| (AttributeKey { scope: entry.scope, key: entry.key.clone() }, place(entry)))
            .collect();
        Ok(Self { meta: meta.clone(), footer, reader, row_group_times, attributes, directory: OnceCell::new() })
    }

    /// Where a part of the index section lies.
    pub(crate) fn part(&self, name: &str) -> Option<Range<u64>> {
        let part = self.footer.sections.iter().find(|part| part.name == name)?;
        Some(part.range.offset..part.range.offset.saturating_add(part.range.len))
    }

    /// Where the values of an attribute are.
    pub(crate) fn place(&self, key: &AttributeKey) -> AttributePlace {
        let unlisted = AttributePlace { column: None, in_overflow: self.footer.attributes_truncated };
        self.attributes.get(key).cloned().unwrap_or(unlisted)
    }

    /// Whether some row may have an attribute of a scope whose key `fits`.
    pub(crate) fn may_have(&self, scope: AttributeScope, fits: impl Fn(&str) -> bool) -> bool {
        self.footer.attributes_truncated
            || self.footer.attributes.iter().any(|entry| entry.scope == scope && fits(&entry.key))
    }

    /// The attributes of a scope that have columns, by key.
    pub(crate) fn promoted_of(&self, scope: AttributeScope) -> Vec<(&str, &str, AttributeType)> {
        let mut columns: Vec<(&str, &str, AttributeType)> = self
            .footer
            .attributes
            .iter()
            .filter(|entry| entry.scope == scope)
            .filter_map(|entry| Some((entry.key.as_str(), entry.column.as_deref()?, entry.kind?)))
            .collect();
        columns.sort_unstable();
        columns
    }

    /// The rows that may meet `condition`, by the segment's own index; `None` when it has none or it cannot tell.
    pub(crate) async fn index_rows(
        &self,
        loader: &SegmentLoader,
        condition: &Condition,
        stats: &StatsHandle,
    ) -> Result<Option<RowBlocks>> {
        let key = (self.meta.id, condition.clone());
        if let Some(answer) = loader.index_answers.get(&key).await {
            stats.add(Counter::CacheHits, 1);
            return Ok(answer);
        }
        let corrupt = |error: tidemill_segment::Error| Error::corrupt(&self.meta.object_key, error);
        let Some(directory) = self.directory.get_or_try_init(|| self.read_directory(loader, stats)).await? else {
            return Ok(None);
        };
        let needed = directory.needed(condition);
        let start = self.meta.index.offset;
        let ranges: Vec<Range<u64>> =
            needed.iter().map(|range| start + range.offset..start + range.offset + range.len).collect();
        let parts = loader.fetch_kept(&self.meta, &ranges, stats).await?;
        let held: Vec<(ByteRange, Bytes)> = needed.into_iter().zip(parts).collect();
        let answer = directory.select(condition, held.as_slice()).map_err(corrupt)?;
        loader.index_answers.insert(key, answer.clone()).await;
        Ok(answer)
    }

    async fn read_directory(&self, loader: &SegmentLoader, stats: &StatsHandle) -> Result<Option<Arc<IndexDirectory>>> {
        let Some(range) = self.part("directory") else { return Ok(None) };
        let bytes = loader.fetch(&self.meta, &[range], stats).await?;
        let bytes =
            bytes.first().ok_or_else(|| Error::corrupt(&self.meta.object_key, "the store returned no bytes"))?;
        let directory = IndexDirectory::decode(bytes).map_err(|error| Error::corrupt(&self.meta.object_key, error))?;
        Ok(Some(Arc::new(directory)))
    }

    pub(crate) fn has_column(&self, name: &str) -> bool {
        self.reader.schema().index_of(name).is_ok()
    }

    /// The place of a column that is no list or struct among the leaves of the Parquet schema.
    pub(crate) fn leaf(&self, name: &str) -> Option<usize> {
        self.reader.parquet_schema().columns().iter().position(|column| column.path().parts() == [name])
    }

    /// Rows before a row group.
    pub(crate) fn rows_before(&self, group: usize) -> u64 {
        (0..group).map(|before| self.row_group_rows(before) as u64).sum()
    }

    pub(crate) fn row_group_rows(&self, group: usize) -> usize {
        usize::try_from(self.reader.metadata().row_group(group).num_rows()).unwrap_or(0)
    }
}

/// Reads text as views: dictionary pages are then shared and not copied.
pub(super) fn reader_metadata(meta: &SegmentMeta, metadata: Arc<ParquetMetaData>) -> Result<ArrowReaderMetadata> {
    let corrupt = |error: parquet::errors::ParquetError| Error::corrupt(&meta.object_key, error);
    let schema = parquet_to_arrow_schema(metadata.file_metadata().schema_descr(), None).map_err(corrupt)?;
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Utf8 => field.as_ref().clone().with_data_type(DataType::Utf8View),
            _ => field.as_ref().clone(),
        })
        .collect();
    let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields)));
    ArrowReaderMetadata::try_new(metadata, options).map_err(corrupt)
}

fn row_group_times(meta: &SegmentMeta, reader: &ArrowReaderMetadata) -> Result<Vec<TimeRange>> {
    let groups = reader.metadata().row_groups();
    let corrupt = |error: parquet::errors::ParquetError| Error::corrupt(&meta.object_key, error);
    let Ok(converter) = StatisticsConverter::try_new("time", reader.schema(), reader.parquet_schema()) else {
        return Ok(vec![meta.time; groups.len()]);
    };
    let first = converter.row_group_mins(groups).map_err(corrupt)?;
    let last = converter.row_group_maxes(groups).map_err(corrupt)?;
    let (Some(first), Some(last)) =
        (first.as_primitive_opt::<TimestampNanosecondType>(), last.as_primitive_opt::<TimestampNanosecondType>())
    else {
        return Err(Error::corrupt(&meta.object_key, "column time is not timestamp(ns)"));
    };
    let times = (0..groups.len()).map(|group| {
        if first.is_null(group) || last.is_null(group) {
            return meta.time;
        }
        TimeRange { start: TimestampNs(first.value(group)), end: TimestampNs(last.value(group).saturating_add(1)) }
    });
    Ok(times.collect())
}

/// The fewest ranges that cover `ranges`, joining those at most `gap` bytes apart.
fn merge_ranges(ranges: &[Range<u64>], gap: u64) -> Vec<Range<u64>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(gap) => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

fn slice_of(range: &Range<u64>, merged: &[Range<u64>], parts: &[Bytes], object_key: &str) -> Result<Bytes> {
    let place = merged.partition_point(|whole| whole.start <= range.start).saturating_sub(1);
    let short = || Error::corrupt(object_key, "the store returned fewer bytes than asked for");
    let (whole, part) = merged.get(place).zip(parts.get(place)).ok_or_else(short)?;
    let bounds = usize::try_from(range.start - whole.start).ok().zip(usize::try_from(range.end - whole.start).ok());
    let (start, end) = bounds.filter(|(_, end)| *end <= part.len()).ok_or_else(short)?;
    Ok(part.slice(start..end))
}

/// One query's way to a segment's bytes, for the Parquet reader.
pub(crate) struct SegmentReader {
    pub(crate) loader: Arc<SegmentLoader>,
    pub(crate) open: Arc<OpenSegment>,
    pub(crate) stats: StatsHandle,
    /// The first failure in our own words, which Parquet's error type would flatten.
    pub(crate) failure: Arc<Mutex<Option<Error>>>,
    /// What is there already.
    pub(crate) ahead: Ahead,
}

impl parquet::arrow::async_reader::AsyncFileReader for SegmentReader {
    fn get_bytes(&mut self, range: Range<u64>) -> futures::future::BoxFuture<'_, parquet::errors::Result<Bytes>> {
        Box::pin(async move {
            let mut parts = self.get_byte_ranges(vec![range]).await?;
            parts.pop().ok_or_else(|| parquet::errors::ParquetError::General("no bytes".to_owned()))
        })
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> futures::future::BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        Box::pin(async move {
            let (loader, meta) = (&self.loader, &self.open.meta);
            if let Some(parts) = ranges.iter().map(|range| self.ahead.get(range)).collect() {
                return Ok(parts);
            }
            // Columns that take so little are read by many queries.
            let fetched = match ranges.iter().map(|range| range.end - range.start).sum::<u64>() {
                0..=KEPT_COLUMN_BYTES => loader.fetch_kept(meta, &ranges, &self.stats).await,
                _ => loader.fetch(meta, &ranges, &self.stats).await,
            };
            fetched.map_err(|error| {
                let text = error.to_string();
                self.failure.lock().get_or_insert(error);
                parquet::errors::ParquetError::General(text)
            })
        })
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> futures::future::BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        Box::pin(async move { Ok(Arc::clone(self.open.reader.metadata())) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ranges_are_one_request_and_are_cut_apart_again() {
        let ranges = [100..110, 0..10, 15..20, 105..130];
        let merged = merge_ranges(&ranges, 5);
        assert_eq!(merged, [0..20, 100..130]);
        let object: Vec<u8> = (0..=255).collect();
        let parts: Vec<Bytes> = merged
            .iter()
            .map(|range| Bytes::copy_from_slice(&object[range.start as usize..range.end as usize]))
            .collect();
        for range in &ranges {
            let slice = slice_of(range, &merged, &parts, "key").expect("it is inside");
            assert_eq!(slice, object[range.start as usize..range.end as usize]);
        }
        assert!(slice_of(&(100..130), &merged, &[parts[0].clone(), parts[1].slice(0..3)], "key").is_err());
    }
}
