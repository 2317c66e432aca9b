//! Reading the rows of a scan: open, rule out, read, recheck, convert.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::utils::{collect_columns, conjunction_opt, split_conjunction};
use datafusion::physical_expr_common::physical_expr::snapshot_generation;
use datafusion::physical_optimizer::pruning::PruningPredicate;
use futures::stream::{BoxStream, StreamExt};
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::bloom_filter::Sbbf;
use tidemill_segment::index::{Condition, RowBlocks};
use tidemill_types::{SegmentMeta, Signal};

use super::ScanRequest;
use super::ahead::{Ahead, page_ranges};
use super::blocks::{RowSet, rows_by_pages};
use super::conditions::index_condition;
use super::known_lines::Output;
use super::known_rows::ConditionId;
use super::open::{KEPT_COLUMN_BYTES, OpenSegment, SegmentLoader, SegmentReader};
use super::pages::{PageRequest, row_group_pages};
use super::prune::{RowGroupStatistics, TimeStatistics, kept, pruning_predicate, statistics_column};
use super::repeats::Repeats;
use super::segment_plan::{Checked, Failure, SegmentPlan, rememberable};
use super::severity::SeverityClasses;
use super::work::{CountedUnit, Next, RowGroupUnit, Unit, WorkHeap};
use crate::stats::{Counter, StatsHandle};
use crate::{Error, Result};

/// Segments opened at a time by one partition when their order does not matter.
const OPEN_TOGETHER: usize = 8;
/// Columns of a row group of fewer bytes are read whole: to locate their pages would cost more than it saves.
const WHOLE_COLUMNS_BYTES: u64 = 128 << 10;

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
    /// The condition on long texts, where its outcome is remembered.
    remembered: Option<ConditionId>,
    /// What is above in bounds that change, by their generation.
    bounds: Mutex<Option<(u64, Option<Arc<PruningPredicate>>)>>,
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
        let remembered = rememberable(&request).map(|condition| loader.known_rows.number(&condition));
        Arc::new(Self {
            request,
            loader,
            stats,
            work,
            repeats,
            severities,
            remembered,
            bounds: Mutex::default(),
            remaining,
            batch_rows,
        })
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

    /// Whether the scan may end before all has been read.
    fn is_ordered(&self) -> bool {
        !self.request.dynamic.is_empty() || self.request.limit.is_some()
    }

    async fn next_row_group(&self) -> Result<Option<BoxStream<'static, Result<RecordBatch>>>> {
        let together = if self.is_ordered() { 1 } else { OPEN_TOGETHER };
        while let Some(next) = self.work.next(together).await {
            match next {
                Next::Open(segments, opening) => {
                    let segments = self.not_beaten(segments, |meta| meta.time);
                    let opened = futures::future::join_all(segments.iter().map(|meta| self.row_groups(meta))).await;
                    for units in opened {
                        self.work.push(units?);
                    }
                    drop(opening);
                }
                Next::Read(unit) => {
                    let mut units = self.not_beaten(vec![unit], |unit| unit.plan.open.row_group_times[unit.group]);
                    match units.pop() {
                        Some(unit) => return self.read(unit).await.map(Some),
                        None => self.stats.add(Counter::RowGroupsPruned, 1),
                    }
                }
                Next::Count(CountedUnit { plan, rows }) => {
                    return self.rows_alone(Output::plain(Arc::clone(&plan.conversion)), rows).map(Some);
                }
            }
        }
        Ok(None)
    }

    /// The newest bounds of a sort or join above, made anew where they have changed.
    fn bounds(&self) -> Option<Arc<PruningPredicate>> {
        let bounds = conjunction_opt(self.request.dynamic.iter().cloned())?;
        let generation = snapshot_generation(&bounds);
        let mut made = self.bounds.lock();
        match &*made {
            Some((of, pruning)) if *of == generation => pruning.clone(),
            _ => {
                let pruning = pruning_predicate(&bounds, &self.request.table.schema);
                *made = Some((generation, pruning.clone()));
                pruning
            }
        }
    }

    /// Leaves out what the newest bounds of a sort or join above rule out by time.
    fn not_beaten<T>(&self, items: Vec<T>, time: impl Fn(&T) -> tidemill_types::TimeRange) -> Vec<T> {
        let Some(pruning) = self.bounds() else { return items };
        let keep = pruning.prune(&TimeStatistics::new(items.iter().map(time)));
        kept(items, keep)
    }

    /// The row groups of a segment that may hold matching rows; all those together of which nothing but their number is asked and that is
    /// known.
    async fn row_groups(&self, meta: &SegmentMeta) -> Result<Vec<Unit>> {
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
            // What a day index told, bloom filters know no better.
            if !self.request.is_told(meta) {
                groups = self.check_blooms(&open, groups).await?;
            }
        }
        let of_severity: Vec<(usize, RowSet)> = groups
            .into_iter()
            .map(|group| (group, self.severity_rows(&open, group)))
            .filter(|(_, rows)| !rows.is_empty())
            .collect();
        if of_severity.is_empty() {
            self.stats.add(Counter::RowGroupsPruned, considered as u64);
            return Ok(Vec::new());
        }
        let plan = Arc::new(SegmentPlan::new(Arc::clone(&open), &self.request, self.remembered.is_some())?);
        let known = &self.loader.known_rows;
        if let Some(rows) = self.known_count(&plan, &of_severity) {
            self.stats.add(Counter::RowGroupsPruned, (considered - of_severity.len()) as u64);
            self.stats.add(Counter::CacheHits, of_severity.len() as u64);
            self.stats.add(Counter::RowGroupsRead, of_severity.len() as u64);
            return Ok(Vec::from_iter((rows > 0).then_some(Unit::Counted(CountedUnit { plan, rows }))));
        }
        let is_known = |group| self.remembered.is_some_and(|condition| known.has(meta.id, group, condition));
        let indexed = match of_severity.iter().all(|(group, _)| is_known(*group)) {
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
                if let Some(condition) = self.remembered.filter(|_| rows.is_empty() && plan.has_long_alone()) {
                    known.put_nothing(meta.id, group, condition);
                }
                RowGroupUnit { plan: Arc::clone(&plan), group, rows }
            })
            .filter(|unit| !unit.rows.is_empty())
            .collect();
        self.stats.add(Counter::RowGroupsPruned, (considered - units.len()) as u64);
        if !self.is_ordered() && !self.request.is_told(meta) {
            // What is asked for of every row group comes at once, before the first is read.
            let short = plan.short_columns(units.iter().map(|unit| unit.group));
            self.loader.keep(&open.meta, short, &self.stats).await?;
        }
        Ok(units.into_iter().map(Unit::RowGroup).collect())
    }

    /// How many rows of some row groups match, where nothing else is asked of them and it is known of each.
    fn known_count(&self, plan: &SegmentPlan, groups: &[(usize, RowSet)]) -> Option<usize> {
        let condition = self.remembered.filter(|_| self.repeats.is_none() && !self.is_ordered())?;
        if !plan.conversion.reads_nothing() || plan.has_conditions(Checked::Cheap) {
            return None;
        }
        let (known, segment) = (&self.loader.known_rows, plan.open.meta.id);
        let counts = groups.iter().map(|(group, rows)| {
            let count = known.count(segment, *group, condition);
            count.filter(|_| rows.is_all())
        });
        counts.sum()
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
        let RowGroupUnit { plan, group, mut rows } = unit;
        let open = Arc::clone(&plan.open);
        let object_key = open.meta.object_key.clone();
        if let Some(repeats) = &self.repeats {
            let replaced = repeats.replaced_rows(&open, group, &self.request, &self.loader, &self.stats).await?;
            rows = rows.intersect(&RowSet::without(open.row_group_rows(group), &replaced));
        }
        let rows_of_group = open.row_group_rows(group);
        let known = &self.loader.known_rows;
        if rows.is_all()
            && plan.conversion.reads_nothing()
            && !plan.has_conditions(Checked::Cheap)
            && let Some(count) = self.remembered.and_then(|condition| known.count(open.meta.id, group, condition))
        {
            self.stats.add(Counter::CacheHits, 1);
            self.stats.add(Counter::RowGroupsRead, u64::from(count > 0));
            return self.rows_alone(Output::plain(Arc::clone(&plan.conversion)), count);
        }
        let known = self.remembered.and_then(|condition| known.get(open.meta.id, group, condition, rows_of_group));
        let checked = if known.is_some() { Checked::Cheap } else { Checked::All };
        if let Some(known) = &known {
            self.stats.add(Counter::CacheHits, 1);
            rows = rows.intersect(known);
        }
        // Whether exactly the rows are read that meet the condition on texts.
        let is_known_alone = known.is_some_and(|known| known.len() == rows.len()) && !plan.has_conditions(checked);
        let (mut output, leaves) = self.output(&plan, group, (is_known_alone, rows.len()), checked);
        if !plan.has_conditions(checked) && output.conversion().reads_nothing() {
            self.stats.add(Counter::RowGroupsRead, u64::from(!rows.is_empty()));
            return self.rows_alone(output, rows.len());
        }
        let failure = Failure::default();
        let bytes = plan.bytes(group, leaves);
        // Short columns of a whole row group fit in one batch, and each batch costs something of its own.
        let batch_rows = if bytes <= KEPT_COLUMN_BYTES { open.row_group_rows(group).max(1) } else { self.batch_rows };
        let skips_rows = plan.has_conditions(checked) || !rows.is_all();
        let (metadata, group_in_metadata) = if skips_rows && bytes > WHOLE_COLUMNS_BYTES {
            let (pages, left) = self.locate_pages(&open, group, leaves).await?;
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
        let ahead = if self.request.is_told(&open.meta) {
            let ranges = page_ranges(&metadata, group_in_metadata, leaves, &rows);
            self.loader.fetch_together(&open.meta, ranges, &self.stats).await?
        } else {
            Ahead::default()
        };
        let notes = self.remembered.filter(|_| checked == Checked::All && plan.has_long_alone());
        let notes = notes.map(|condition| self.loader.known_rows.note(open.meta.id, group, condition, rows.clone()));
        let reader = SegmentReader {
            loader: Arc::clone(&self.loader),
            open,
            stats: self.stats.clone(),
            failure: Arc::clone(&failure),
            ahead,
        };
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
            .with_row_groups(vec![group_in_metadata])
            .with_projection(output.conversion().mask.clone())
            .with_row_filter(plan.row_filter(&failure, checked, notes))
            .with_batch_size(batch_rows);
        if !rows.is_all() {
            builder = builder.with_row_selection(rows.selection());
        }
        let stream = builder.build().map_err(|error| Error::corrupt(&object_key, error))?;
        let rows = stream.map(move |batch| match batch {
            Ok(batch) => output.convert(&batch),
            Err(error) => Err(failure.lock().take().unwrap_or_else(|| Error::corrupt(&object_key, error))),
        });
        Ok(rows.boxed())
    }

    /// What becomes of the rows of a row group, and the leaves that are read for it. Where these rows are exactly those that meet the
    /// condition on texts, and how many they are, their lines come from memory or go there.
    fn output<'p>(
        &self,
        plan: &'p SegmentPlan,
        group: usize,
        (is_known_alone, rows): (bool, usize),
        checked: Checked,
    ) -> (Output, &'p [usize]) {
        let of_lines = plan.spared_lines.as_ref().zip(self.remembered).filter(|_| is_known_alone);
        let Some((spared, condition)) = of_lines else {
            return (Output::plain(Arc::clone(&plan.conversion)), plan.leaves(checked));
        };
        let (known, key) = (&self.loader.known_lines, (plan.open.meta.id, group, condition));
        if let Some(lines) = known.get(&key) {
            self.stats.add(Counter::CacheHits, 1);
            return (Output::given(Arc::clone(&spared.conversion), spared.place, lines), &spared.leaves);
        }
        let collector = known.collect(key, rows, plan.open.row_group_rows(group));
        (Output::collected(Arc::clone(&plan.conversion), spared.place, collector), plan.leaves(checked))
    }

    /// So many rows of columns of which nothing is read.
    fn rows_alone(&self, mut output: Output, rows: usize) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let empty = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options);
        let empty = empty.map_err(|error| Error::corrupt(output.conversion().object_key(), error))?;
        let rows = output.convert(&empty)?;
        Ok(futures::stream::iter((rows.num_rows() > 0).then_some(Ok(rows))).boxed())
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
}
