//! Reading the rows of a scan: open, rule out, read, recheck, convert.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::cast::as_boolean_array;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::{
    collect_columns, conjunction, conjunction_opt, reassign_expr_columns, split_conjunction,
};
use futures::stream::{BoxStream, StreamExt};
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicate, ArrowReaderMetadata, RowFilter};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::bloom_filter::Sbbf;
use tidemill_segment::index::{Condition, RowBlocks};
use tidemill_types::{SegmentMeta, Signal};

use super::ScanRequest;
use super::blocks::{RowSet, rows_by_pages};
use super::conditions::index_condition;
use super::convert::Conversion;
use super::open::{KEPT_COLUMN_BYTES, OpenSegment, SegmentLoader, SegmentReader};
use super::pages::{PageRequest, row_group_pages};
use super::prune::{RowGroupStatistics, TimeStatistics, kept, pruning_predicate, statistics_column};
use super::repeats::Repeats;
use super::severity::SeverityClasses;
use super::work::{Next, RowGroupUnit, Unit, WorkHeap};
use crate::stats::{Counter, StatsHandle};
use crate::tables::LogicalColumn;
use crate::{Error, Result};

/// Segments opened at a time by one partition when their order does not matter.
const OPEN_TOGETHER: usize = 8;
/// Columns of a row group of fewer bytes are read whole: to locate their pages would cost more than it saves.
const WHOLE_COLUMNS_BYTES: i64 = 128 << 10;

/// One scan under way, shared by its partitions.
pub(super) struct ScanRun {
    request: Arc<ScanRequest>,
    loader: Arc<SegmentLoader>,
    stats: StatsHandle,
    work: Arc<WorkHeap>,
    /// Metrics only: which samples do not count.
    repeats: Option<Repeats>,
    /// Logs only: the severities that the predicate leaves.
    severities: Option<SeverityClasses>,
    /// Rows still wanted.
    remaining: AtomicUsize,
    batch_rows: usize,
}

impl ScanRun {
    pub(super) fn new(
        request: Arc<ScanRequest>,
        loader: Arc<SegmentLoader>,
        stats: StatsHandle,
        context: &TaskContext,
    ) -> Arc<Self> {
        let work = WorkHeap::new(request.order, request.segments.iter().cloned());
        let remaining = AtomicUsize::new(request.limit.unwrap_or(usize::MAX));
        let has_repeats = request.table.signal == Signal::Metrics;
        let repeats = has_repeats.then(|| Repeats::new(&request, context.memory_pool()));
        let batch_rows = context.session_config().batch_size();
        let compared = request.predicate.as_ref().filter(|_| request.uses_indexes);
        let compared = compared.filter(|_| request.table.signal == Signal::Logs);
        let severities = compared.and_then(|predicate| SeverityClasses::of(predicate, &request.table.schema));
        Arc::new(Self { request, loader, stats, work, repeats, severities, remaining, batch_rows })
    }

    /// One partition's share of the rows: whoever is free takes the next row group.
    pub(super) fn rows(self: Arc<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        let state = (self, None::<BoxStream<'static, Result<RecordBatch>>>, false);
        futures::stream::unfold(state, |(run, mut current, ended)| async move {
            if ended {
                return None;
            }
            loop {
                if run.remaining.load(Ordering::Relaxed) == 0 {
                    return None;
                }
                if let Some(rows) = &mut current {
                    match rows.next().await {
                        Some(Ok(batch)) => match run.take(batch) {
                            Some(batch) => return Some((Ok(batch), (run, current, false))),
                            None => continue,
                        },
                        Some(Err(error)) => return Some((Err(error), (run, None, true))),
                        None => {}
                    }
                }
                match run.next_row_group().await {
                    Ok(Some(rows)) => current = Some(rows),
                    Ok(None) => return None,
                    Err(error) => return Some((Err(error), (run, None, true))),
                }
            }
        })
        .boxed()
    }

    /// As many rows of a batch as are still wanted; `None` for none.
    fn take(&self, batch: RecordBatch) -> Option<RecordBatch> {
        let mut taken = 0;
        let _ = self.remaining.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |remaining| {
            taken = remaining.min(batch.num_rows());
            Some(remaining - taken)
        });
        if taken == 0 {
            return None;
        }
        self.stats.add(Counter::RowsMatched, taken as u64);
        Some(if taken < batch.num_rows() { batch.slice(0, taken) } else { batch })
    }

    async fn next_row_group(&self) -> Result<Option<BoxStream<'static, Result<RecordBatch>>>> {
        let is_ordered = !self.request.dynamic.is_empty() || self.request.limit.is_some();
        let together = if is_ordered { 1 } else { OPEN_TOGETHER };
        while let Some(next) = self.work.next(together).await {
            match next {
                Next::Open(segments, opening) => {
                    let segments = self.not_beaten(segments, |meta| meta.time);
                    let opened = futures::future::join_all(segments.iter().map(|meta| self.row_groups(meta))).await;
                    for units in opened {
                        self.work.push(units?.into_iter().map(Unit::RowGroup));
                    }
                    drop(opening);
                }
                Next::Read(unit) => {
                    let mut units = self.not_beaten(vec![unit], |unit| unit.open.row_group_times[unit.group]);
                    match units.pop() {
                        Some(unit) => return self.read(unit).await.map(Some),
                        None => self.stats.add(Counter::RowGroupsPruned, 1),
                    }
                }
            }
        }
        Ok(None)
    }

    /// Leaves out what the newest bounds of a sort or join above rule out by time.
    fn not_beaten<T>(&self, items: Vec<T>, time: impl Fn(&T) -> tidemill_types::TimeRange) -> Vec<T> {
        let Some(bounds) = conjunction_opt(self.request.dynamic.iter().cloned()) else { return items };
        let Some(pruning) = pruning_predicate(&bounds, &self.request.table.schema) else { return items };
        let keep = pruning.prune(&TimeStatistics::new(items.iter().map(time)));
        kept(items, keep)
    }

    /// The row groups of a segment that may hold matching rows.
    async fn row_groups(&self, meta: &SegmentMeta) -> Result<Vec<RowGroupUnit>> {
        let open = self.loader.open(meta, &self.stats).await?;
        let all: Vec<usize> = (0..open.row_group_times.len()).collect();
        self.stats.add(Counter::RowGroupsConsidered, all.len() as u64);
        let considered = all.len();
        let mut groups: Vec<usize> = all.into_iter().filter(|group| self.request.may_read(meta, *group)).collect();
        if let Some(pruning) = &self.request.pruning {
            let statistics = RowGroupStatistics {
                open: &open,
                table: &self.request.table,
                groups: groups.clone(),
                blooms: Default::default(),
            };
            groups = kept(groups, pruning.prune(&statistics));
            groups = self.check_blooms(&open, groups).await?;
        }
        let of_severity: Vec<(usize, RowSet)> = groups
            .into_iter()
            .map(|group| (group, self.severity_rows(&open, group)))
            .filter(|(_, rows)| !rows.is_empty())
            .collect();
        let indexed = match of_severity.is_empty() {
            true => None,
            false => self.index_rows(&open).await?,
        };
        let units: Vec<RowGroupUnit> = of_severity
            .into_iter()
            .map(|(group, rows)| {
                let first = open.rows_before(group);
                let rows = match &indexed {
                    Some(blocks) => {
                        rows.intersect(&RowSet::of_segment(&blocks.ranges, first, open.row_group_rows(group)))
                    }
                    None => rows,
                };
                RowGroupUnit { open: Arc::clone(&open), group, rows }
            })
            .filter(|unit| !unit.rows.is_empty())
            .collect();
        self.stats.add(Counter::RowGroupsPruned, (considered - units.len()) as u64);
        Ok(units)
    }

    fn severity_rows(&self, open: &OpenSegment, group: usize) -> RowSet {
        match &self.severities {
            Some(classes) => classes.rows(open, group),
            None => RowSet::all(open.row_group_rows(group)),
        }
    }

    /// The rows that the segment's own index leaves; `None` for all.
    async fn index_rows(&self, open: &OpenSegment) -> Result<Option<RowBlocks>> {
        let Some(predicate) = self.request.predicate.as_ref().filter(|_| self.request.uses_indexes) else {
            return Ok(None);
        };
        let parts = split_conjunction(predicate).into_iter();
        let mut conditions: Vec<Condition> =
            parts.filter_map(|part| index_condition(part, &self.request.table, open)).collect();
        match conditions.len() {
            0 => Ok(None),
            1 => open.index_rows(&self.loader, &conditions.remove(0), &self.stats).await,
            _ => open.index_rows(&self.loader, &Condition::All(conditions), &self.stats).await,
        }
    }

    /// Rules out row groups by the bloom filters of columns that must equal constants.
    async fn check_blooms(&self, open: &Arc<OpenSegment>, groups: Vec<usize>) -> Result<Vec<usize>> {
        let Some(pruning) = self.request.pruning.as_ref().filter(|_| !groups.is_empty()) else { return Ok(groups) };
        let mut statistics =
            RowGroupStatistics { open, table: &self.request.table, groups: groups.clone(), blooms: Default::default() };
        for name in pruning.literal_columns() {
            let Some(column) = statistics.bloom_column(&name) else { continue };
            let blooms = self.load_blooms(open, &groups, column).await?;
            if blooms.iter().any(Option::is_some) {
                statistics.blooms.insert(name, blooms);
            }
        }
        if statistics.blooms.is_empty() {
            return Ok(groups);
        }
        Ok(kept(groups, pruning.prune(&statistics)))
    }

    async fn load_blooms(&self, open: &Arc<OpenSegment>, groups: &[usize], column: usize) -> Result<Vec<Option<Sbbf>>> {
        let ranges: Vec<Option<std::ops::Range<u64>>> = groups
            .iter()
            .map(|group| {
                let chunk = open.reader.metadata().row_group(*group).column(column);
                let start = u64::try_from(chunk.bloom_filter_offset()?).ok()?;
                let len = u64::try_from(chunk.bloom_filter_length()?).ok()?;
                Some(start..start.checked_add(len)?)
            })
            .collect();
        let wanted: Vec<std::ops::Range<u64>> = ranges.iter().flatten().cloned().collect();
        let mut parts = self.loader.fetch(&open.meta, &wanted, &self.stats).await?.into_iter();
        ranges
            .into_iter()
            .map(|range| match range.and_then(|_| parts.next()) {
                None => Ok(None),
                Some(bytes) => {
                    Sbbf::from_bytes(&bytes).map(Some).map_err(|error| Error::corrupt(&open.meta.object_key, error))
                }
            })
            .collect()
    }

    /// Reads a row group: predicates first, cheap columns before long ones, then the columns asked for of the rows that match.
    async fn read(&self, unit: RowGroupUnit) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let RowGroupUnit { open, group, mut rows } = unit;
        let object_key = open.meta.object_key.clone();
        if let Some(repeats) = &self.repeats {
            let replaced = repeats.replaced_rows(&open, group, &self.request, &self.loader, &self.stats).await?;
            rows = rows.intersect(&RowSet::without(open.row_group_rows(group), &replaced));
        }
        let failure: Arc<Mutex<Option<Error>>> = Arc::default();
        let matchers = self.matchers(&open, &failure)?;
        let conversion = Conversion::new(&open, &self.request.output_columns(), Arc::clone(&self.request.schema));
        let read = matchers.iter().map(|matcher| &matcher.conversion).chain([&conversion]);
        let leaves = leaves_of(read, &open);
        let bytes: i64 =
            leaves.iter().map(|leaf| open.reader.metadata().row_group(group).column(*leaf).compressed_size()).sum();
        // Short columns of a whole row group fit in one batch, and each batch costs something of its own.
        let is_short = u64::try_from(bytes).is_ok_and(|bytes| bytes <= KEPT_COLUMN_BYTES);
        let batch_rows = if is_short { open.row_group_rows(group).max(1) } else { self.batch_rows };
        let skips_rows = !matchers.is_empty() || !rows.is_all();
        let (metadata, group_in_metadata) = if skips_rows && bytes > WHOLE_COLUMNS_BYTES {
            let (pages, left) = self.locate_pages(&open, group, &leaves).await?;
            rows = rows.intersect(&left);
            (pages, 0)
        } else {
            (open.reader.clone(), group)
        };
        if rows.is_empty() {
            self.stats.add(Counter::RowGroupsPruned, 1);
            return Ok(futures::stream::empty().boxed());
        }
        self.stats.add(Counter::RowGroupsRead, 1);
        self.stats.add(Counter::RowsScanned, rows.len() as u64);
        let reader = SegmentReader {
            loader: Arc::clone(&self.loader),
            open,
            stats: self.stats.clone(),
            failure: Arc::clone(&failure),
        };
        let matchers = matchers.into_iter().map(|matcher| Box::new(matcher) as Box<dyn ArrowPredicate>).collect();
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
            .with_row_groups(vec![group_in_metadata])
            .with_projection(conversion.mask.clone())
            .with_row_filter(RowFilter::new(matchers))
            .with_batch_size(batch_rows);
        if !rows.is_all() {
            builder = builder.with_row_selection(rows.selection());
        }
        let stream = builder.build().map_err(|error| Error::corrupt(&object_key, error))?;
        let rows = stream.map(move |batch| match batch {
            Ok(batch) => conversion.convert(&batch),
            Err(error) => Err(failure.lock().take().unwrap_or_else(|| Error::corrupt(&object_key, error))),
        });
        Ok(rows.boxed())
    }

    /// Where the pages of `leaves` are, and the rows that the bounds of pages leave.
    async fn locate_pages(
        &self,
        open: &Arc<OpenSegment>,
        group: usize,
        leaves: &[usize],
    ) -> Result<(ArrowReaderMetadata, RowSet)> {
        // Rows of logs are sorted by nothing that statements compare, so that bounds of their pages rule out little.
        let predicate = self.request.predicate.as_ref().filter(|_| open.meta.signal != Signal::Logs);
        let compared = predicate.into_iter().flat_map(collect_columns);
        let bounded: Vec<usize> = compared
            .filter_map(|column| open.leaf(&statistics_column(column.name(), &self.request.table, open)?))
            .collect();
        let request = PageRequest { group, located: leaves, bounded: &bounded };
        let pages = row_group_pages(&self.loader, open, &self.stats, &request).await?;
        let left = match predicate {
            Some(predicate) => rows_by_pages(predicate, &self.request.table, open, &pages, group),
            None => RowSet::all(open.row_group_rows(group)),
        };
        Ok((pages, left))
    }

    fn matchers(&self, open: &Arc<OpenSegment>, failure: &Arc<Mutex<Option<Error>>>) -> Result<Vec<RowMatcher>> {
        let mut stages: [Vec<Arc<dyn PhysicalExpr>>; 3] = Default::default();
        stages[0].extend(self.request.dynamic.iter().cloned());
        for part in self.request.predicate.iter().flat_map(|predicate| split_conjunction(predicate)) {
            stages[self.cost_of(part)].push(Arc::clone(part));
        }
        let stages = stages.into_iter().filter(|parts| !parts.is_empty()).map(conjunction);
        stages.map(|stage| RowMatcher::new(open, &self.request, stage, Arc::clone(failure))).collect()
    }

    /// 0 for short columns, 1 for attributes, 2 for long texts.
    fn cost_of(&self, part: &Arc<dyn PhysicalExpr>) -> usize {
        let costs =
            collect_columns(part).into_iter().map(|column| match self.request.table.columns.get(column.index()) {
                Some(LogicalColumn::Plain(name)) if name == "body" => 2,
                Some(LogicalColumn::Object(_)) | None => 2,
                Some(LogicalColumn::Attribute(..)) => 1,
                Some(_) => 0,
            });
        costs.max().unwrap_or(0)
    }
}

/// The leaves that any of `conversions` reads.
fn leaves_of<'a>(conversions: impl Iterator<Item = &'a Conversion>, open: &OpenSegment) -> Vec<usize> {
    let masks: Vec<&ProjectionMask> = conversions.map(|conversion| &conversion.mask).collect();
    let all = 0..open.reader.parquet_schema().num_columns();
    all.filter(|leaf| masks.iter().any(|mask| mask.leaf_included(*leaf))).collect()
}

/// Rechecks rows of one segment against part of the predicate.
struct RowMatcher {
    conversion: Conversion,
    predicate: Arc<dyn PhysicalExpr>,
    failure: Arc<Mutex<Option<Error>>>,
}

impl RowMatcher {
    fn new(
        open: &Arc<OpenSegment>,
        request: &ScanRequest,
        predicate: Arc<dyn PhysicalExpr>,
        failure: Arc<Mutex<Option<Error>>>,
    ) -> Result<Self> {
        let mut places: Vec<usize> = collect_columns(&predicate).into_iter().map(|column| column.index()).collect();
        places.sort_unstable();
        places.dedup();
        let columns: Vec<LogicalColumn> = places.iter().map(|place| request.table.columns[*place].clone()).collect();
        let schema: SchemaRef = Arc::new(Schema::new(
            places.iter().map(|place| request.table.schema.field(*place).clone()).collect::<Vec<_>>(),
        ));
        let predicate = reassign_expr_columns(predicate, &schema)?;
        Ok(Self { conversion: Conversion::new(open, &columns, schema), predicate, failure })
    }

    fn matches(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let batch = self.conversion.convert(batch)?;
        let answer = self.predicate.evaluate(&batch)?.into_array(batch.num_rows())?;
        Ok(as_boolean_array(&answer)?.clone())
    }
}

impl ArrowPredicate for RowMatcher {
    fn projection(&self) -> &ProjectionMask {
        &self.conversion.mask
    }

    fn evaluate(&mut self, batch: RecordBatch) -> std::result::Result<BooleanArray, ArrowError> {
        self.matches(&batch).map_err(|error| {
            let text = error.to_string();
            self.failure.lock().get_or_insert(error);
            ArrowError::ComputeError(text)
        })
    }
}
