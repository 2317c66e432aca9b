//! Samples of metrics that were sent more than once: of equal series and time the last arrival counts (I-2).
//!
//! Compaction keeps every sample, so repetitions are found while reading, among segments whose times overlap. A first pass keeps
//! eight bytes a sample, a hash of series and time; only samples whose hash occurs twice are looked at again. Conditions on what
//! makes a series (and on time) are applied first; conditions on values must wait until the last arrival is known.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryArray, RecordBatch};
use arrow::datatypes::{Schema, TimestampNanosecondType};
use datafusion::common::cast::as_boolean_array;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::{collect_columns, conjunction_opt, reassign_expr_columns, split_conjunction};
use datafusion::physical_optimizer::pruning::PruningPredicate;
use futures::StreamExt;
use parquet::arrow::ProjectionMask;
use tidemill_segment::read::AttributeScope;
use tidemill_types::{SegmentId, SegmentMeta, TimeRange};
use tokio::sync::OnceCell;

use super::ScanRequest;
use super::convert::Conversion;
use super::open::{OpenSegment, SegmentLoader};
use super::prune::{RowGroupStatistics, kept, pruning_predicate};
use super::stored_rows::stored_rows;
use crate::stats::StatsHandle;
use crate::tables::LogicalColumn;
use crate::{Error, Result};

/// Fixed columns that are equal for all samples of a series and time.
const SERIES_COLUMNS: [&str; 8] =
    ["time", "series", "service_name", "scope_name", "scope_version", "name", "unit", "kind"];

/// Which samples another one replaces, found group by group as they are needed.
pub(super) struct Repeats {
    groups: Vec<Group>,
    group_of: HashMap<SegmentId, usize>,
    /// What a sample must match before its repetitions are looked for.
    predicate: Option<Arc<dyn PhysicalExpr>>,
    pruning: Option<Arc<PruningPredicate>>,
    reservation: parking_lot::Mutex<MemoryReservation>,
}

/// Segments whose times overlap, directly or through others.
struct Group {
    segments: Vec<SegmentMeta>,
    replaced: OnceCell<Replaced>,
}

/// Rows of row groups, sorted, that a later arrival replaces.
type Replaced = HashMap<(SegmentId, usize), Vec<usize>>;

/// Where a sample is, and when it arrived: the greatest counts.
type Claim = (i64, usize, usize, usize);

impl Repeats {
    pub(super) fn new(request: &ScanRequest, pool: &Arc<dyn MemoryPool>) -> Self {
        let mut segments: Vec<SegmentMeta> = request.segments.to_vec();
        segments.sort_by_key(|meta| (meta.time.start, meta.id));
        let mut groups: Vec<Group> = Vec::new();
        let mut group_of = HashMap::new();
        let mut reach: Option<TimeRange> = None;
        for meta in segments {
            let joins = reach.is_some_and(|reach| meta.time.start < reach.end);
            let end = reach.filter(|_| joins).map_or(meta.time.end, |reach| reach.end.max(meta.time.end));
            reach = Some(TimeRange { start: meta.time.start, end });
            if !joins {
                groups.push(Group { segments: Vec::new(), replaced: OnceCell::new() });
            }
            group_of.insert(meta.id, groups.len() - 1);
            groups.last_mut().expect("one was pushed").segments.push(meta);
        }
        let parts = request.predicate.iter().flat_map(|predicate| split_conjunction(predicate));
        let predicate = conjunction_opt(parts.filter(|part| is_of_series(part, request)).cloned());
        let pruning = predicate.as_ref().and_then(|predicate| pruning_predicate(predicate, &request.table.schema));
        let reservation = parking_lot::Mutex::new(MemoryConsumer::new("repeated samples").register(pool));
        Self { groups, group_of, predicate, pruning, reservation }
    }

    /// The rows of a row group that do not count.
    pub(super) async fn replaced_rows(
        &self,
        open: &OpenSegment,
        group: usize,
        request: &ScanRequest,
        loader: &Arc<SegmentLoader>,
        stats: &StatsHandle,
    ) -> Result<Vec<usize>> {
        let Some(place) = self.group_of.get(&open.meta.id) else { return Ok(Vec::new()) };
        let segments = &self.groups[*place];
        let pass = Pass { repeats: self, request, loader, stats };
        let replaced = segments.replaced.get_or_try_init(|| pass.find(&segments.segments)).await?;
        Ok(replaced.get(&(open.meta.id, group)).cloned().unwrap_or_default())
    }
}

/// Whether a condition is the same for all samples of a series and time.
fn is_of_series(part: &Arc<dyn PhysicalExpr>, request: &ScanRequest) -> bool {
    collect_columns(part).iter().all(|column| match request.table.columns.get(column.index()) {
        Some(LogicalColumn::Plain(name) | LogicalColumn::Hex(name)) => SERIES_COLUMNS.contains(&name.as_str()),
        Some(LogicalColumn::Attribute(..)) => true,
        Some(LogicalColumn::Object(scope)) => AttributeScope::ALL.contains(scope),
        None => false,
    })
}

struct Pass<'a> {
    repeats: &'a Repeats,
    request: &'a ScanRequest,
    loader: &'a Arc<SegmentLoader>,
    stats: &'a StatsHandle,
}

/// A row group whose samples are compared.
struct Samples {
    open: Arc<OpenSegment>,
    segment: usize,
    group: usize,
}

impl Pass<'_> {
    async fn find(&self, segments: &[SegmentMeta]) -> Result<Replaced> {
        let mut all = Vec::new();
        for (place, meta) in segments.iter().enumerate() {
            let open = self.loader.open(meta, self.stats).await?;
            if segments.len() == 1 && open.footer.duplicate_rows == Some(0) {
                return Ok(Replaced::new());
            }
            let mut groups: Vec<usize> = (0..open.row_group_times.len()).collect();
            if let Some(pruning) = &self.repeats.pruning {
                let statistics = RowGroupStatistics {
                    open: &open,
                    table: &self.request.table,
                    groups: groups.clone(),
                    blooms: HashMap::new(),
                };
                groups = kept(groups, pruning.prune(&statistics));
            }
            all.extend(groups.into_iter().map(|group| Samples { open: Arc::clone(&open), segment: place, group }));
        }
        let suspects = self.repeated_hashes(&all).await?;
        if suspects.is_empty() {
            return Ok(Replaced::new());
        }
        self.replaced_by_later(&all, &suspects).await
    }

    /// Hashes of series and time that occur more than once.
    async fn repeated_hashes(&self, all: &[Samples]) -> Result<HashSet<u64>> {
        let mut hashes: Vec<u64> = Vec::new();
        for samples in all {
            let rows = samples.open.row_group_rows(samples.group);
            self.repeats.reservation.lock().try_grow(rows * size_of::<u64>())?;
            self.read(samples, &["series", "time"], |_, _, series, time| hashes.push(hash_of(series, time))).await?;
        }
        hashes.sort_unstable();
        let repeated = hashes.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        self.repeats.reservation.lock().free();
        Ok(repeated)
    }

    async fn replaced_by_later(&self, all: &[Samples], suspects: &HashSet<u64>) -> Result<Replaced> {
        let mut latest: BTreeMap<([u8; 16], i64), Claim> = BTreeMap::new();
        let mut replaced: HashMap<(usize, usize), Vec<usize>> = HashMap::new();
        for samples in all {
            self.read(samples, &["series", "time", "arrival_time"], |row, arrival, series, time| {
                if !suspects.contains(&hash_of(series, time)) {
                    return;
                }
                let claim = (arrival.unwrap_or(i64::MIN), samples.segment, samples.group, row);
                let lost = match latest.entry((*series, time)) {
                    std::collections::btree_map::Entry::Vacant(entry) => {
                        entry.insert(claim);
                        return;
                    }
                    std::collections::btree_map::Entry::Occupied(mut entry) => {
                        let before = *entry.get();
                        entry.insert(before.max(claim));
                        before.min(claim)
                    }
                };
                replaced.entry((lost.1, lost.2)).or_default().push(lost.3);
            })
            .await?;
        }
        let named = all.iter().filter_map(|samples| {
            let mut rows = replaced.remove(&(samples.segment, samples.group))?;
            rows.sort_unstable();
            Some(((samples.open.meta.id, samples.group), rows))
        });
        Ok(named.collect())
    }

    /// Calls `visit(row, arrival, series, time)` for each sample that matches what makes a series.
    async fn read(
        &self,
        samples: &Samples,
        columns: &[&str],
        mut visit: impl FnMut(usize, Option<i64>, &[u8; 16], i64),
    ) -> Result<()> {
        let open = &samples.open;
        let matcher = self
            .repeats
            .predicate
            .as_ref()
            .map(|predicate| SeriesMatcher::new(open, self.request, predicate))
            .transpose()?;
        let schema = open.reader.schema();
        let mut mask =
            ProjectionMask::roots(open.reader.parquet_schema(), columns.iter().flat_map(|name| schema.index_of(name)));
        if let Some(matcher) = &matcher {
            mask.union(&matcher.conversion.mask);
        }
        let mut batches = stored_rows(self.loader, open, self.stats, |stored| {
            stored.with_row_groups(vec![samples.group]).with_projection(mask)
        })?;
        let mut first_row = 0;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let matches = matcher.as_ref().map(|matcher| matcher.matches(&batch)).transpose()?;
            visit_samples(&batch, matches.as_ref(), first_row, &mut visit)
                .ok_or_else(|| Error::corrupt(&open.meta.object_key, "series or time is not of its type"))?;
            first_row += batch.num_rows();
        }
        Ok(())
    }
}

fn visit_samples(
    batch: &RecordBatch,
    matches: Option<&BooleanArray>,
    first_row: usize,
    visit: &mut impl FnMut(usize, Option<i64>, &[u8; 16], i64),
) -> Option<()> {
    let series: &FixedSizeBinaryArray = batch.column_by_name("series")?.as_fixed_size_binary_opt()?;
    let time = batch.column_by_name("time")?.as_primitive_opt::<TimestampNanosecondType>()?;
    let arrival: Option<&ArrayRef> = batch.column_by_name("arrival_time");
    let arrival = arrival.and_then(|arrival| arrival.as_primitive_opt::<TimestampNanosecondType>());
    for row in 0..batch.num_rows() {
        if matches.is_some_and(|matches| matches.is_null(row) || !matches.value(row)) {
            continue;
        }
        let arrived = arrival.filter(|arrival| arrival.is_valid(row)).map(|arrival| arrival.value(row));
        visit(first_row + row, arrived, series.value(row).try_into().ok()?, time.value(row));
    }
    Some(())
}

/// A series is a hash already; time is spread over all bits.
fn hash_of(series: &[u8; 16], time: i64) -> u64 {
    let whole = u128::from_le_bytes(*series);
    (whole as u64) ^ ((whole >> 64) as u64).rotate_left(32) ^ (time as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The conditions that are the same for all samples of a series and time.
struct SeriesMatcher {
    conversion: Conversion,
    predicate: Arc<dyn PhysicalExpr>,
}

impl SeriesMatcher {
    fn new(open: &Arc<OpenSegment>, request: &ScanRequest, predicate: &Arc<dyn PhysicalExpr>) -> Result<Self> {
        let mut places: Vec<usize> = collect_columns(predicate).into_iter().map(|column| column.index()).collect();
        places.sort_unstable();
        let columns: Vec<LogicalColumn> = places.iter().map(|place| request.table.columns[*place].clone()).collect();
        let fields: Vec<_> = places.iter().map(|place| request.table.schema.field(*place).clone()).collect();
        let schema = Arc::new(Schema::new(fields));
        let predicate = reassign_expr_columns(Arc::clone(predicate), &schema)?;
        Ok(Self { conversion: Conversion::new(open, &columns, schema), predicate })
    }

    fn matches(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let batch = self.conversion.convert(batch)?;
        let answer = self.predicate.evaluate(&batch)?.into_array(batch.num_rows())?;
        Ok(as_boolean_array(&answer)?.clone())
    }
}
