//! Points of chosen series, read from the columns of one segment and nothing else of it.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, PrimitiveArray, RecordBatch, StructArray};
use arrow::datatypes::{ArrowPrimitiveType, Float64Type, Int32Type, TimestampNanosecondType, UInt32Type, UInt64Type};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::RowSelection;
use tidemill_eval::promql::STALE_NAN;
use tidemill_types::TimeRange;

use super::budget::Budget;
use super::floats::{COLUMNS, FloatColumns, FloatDecoder, FloatRun, KeptFloats};
use super::series::{Kind, Metric, SegmentSeries};
use crate::scan::{OpenSegment, SegmentLoader, stored_rows};
use crate::stats::{Counter, StatsHandle};
use crate::{Error, Result};

/// Row groups of which more than one row in so many is wanted are read whole.
const WHOLE_FROM: usize = 3;
pub(super) const NS_PER_MS: i64 = 1_000_000;

/// The points of one series in one segment, in the order of its rows.
#[derive(Debug, Default)]
pub(super) struct Points {
    /// Of gauges and sums: the numbers. All else is of histograms and summaries.
    pub(super) floats: Vec<FloatRun>,
    /// Milliseconds since 1970.
    pub(super) times: Vec<i64>,
    /// When each arrived, in nanoseconds.
    pub(super) arrivals: Vec<i64>,
    /// When each one's counter began, in milliseconds, 0 where it is not told; empty where it means nothing.
    pub(super) starts: Vec<i64>,
    pub(super) distributions: Vec<Distribution>,
}

/// One point of a histogram or summary.
#[derive(Debug, Clone)]
pub(super) struct Distribution {
    pub(super) flags: u32,
    pub(super) count: u64,
    pub(super) sum: Option<f64>,
    pub(super) shape: Shape,
}

/// What a point says of how values are distributed.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    Classic {
        counts: Vec<u64>,
        bounds: Vec<f64>,
    },
    Exponential {
        scale: i32,
        zero_count: u64,
        zero_threshold: f64,
        positive: (i32, Vec<u64>),
        negative: (i32, Vec<u64>),
    },
    Summary(Vec<(f64, f64)>),
}

impl Points {
    pub(super) fn is_empty(&self) -> bool {
        self.floats.is_empty() && self.times.is_empty()
    }

    /// When they are, in milliseconds since 1970.
    pub(super) fn times(&self) -> impl Iterator<Item = i64> {
        self.floats.iter().flat_map(FloatRun::times).chain(&self.times).copied()
    }
}

impl Distribution {
    /// About how much memory it takes, with its times.
    fn bytes(&self) -> usize {
        let items = match &self.shape {
            Shape::Classic { counts, bounds } => counts.len() + bounds.len(),
            Shape::Exponential { positive, negative, .. } => positive.1.len() + negative.1.len(),
            Shape::Summary(quantiles) => 2 * quantiles.len(),
        };
        size_of::<Self>() + 24 + 8 * items
    }

    /// Whether it says that no value was recorded.
    pub(super) fn is_stale(&self) -> bool {
        self.flags & 1 == 1
    }

    /// What a series made of it tells: `value`, or that the series ends.
    pub(super) fn told(&self, value: f64) -> f64 {
        if self.is_stale() { STALE_NAN } else { value }
    }
}

/// What is read of a segment.
pub(super) struct PointRequest<'a> {
    pub(super) loader: &'a Arc<SegmentLoader>,
    pub(super) kept: &'a KeptFloats,
    pub(super) open: &'a Arc<OpenSegment>,
    pub(super) series: &'a SegmentSeries,
    /// Which series, ascending, all of one kind.
    pub(super) wanted: &'a [u32],
    /// Only points of this time.
    pub(super) time: TimeRange,
    pub(super) stats: &'a StatsHandle,
    pub(super) budget: &'a Budget,
}

impl PointRequest<'_> {
    /// The points of each wanted series.
    ///
    /// # Errors
    /// The segment cannot be read, or a limit was met.
    pub(super) async fn read(&self) -> Result<Vec<Points>> {
        let mut points: Vec<Points> = self.wanted.iter().map(|_| Points::default()).collect();
        let is_float = !self.wanted.is_empty() && self.metric(0).kind == Kind::Float;
        let columns = self.columns();
        for (group, rows) in self.groups() {
            if is_float {
                let floats = self.group_floats(group, rows).await?;
                for (rows, owner) in &floats.owned {
                    let has_starts = self.metric(*owner).has_starts;
                    let own = &mut points[*owner as usize].floats;
                    floats.columns.runs(rows.clone(), self.time_ms(), has_starts, |run| own.push(run));
                }
            } else {
                self.read_distributions(group, &rows, &columns, &mut points).await?;
            }
        }
        Ok(points)
    }

    /// The row groups that have rows of the wanted series in the time, and which.
    pub(super) fn groups(&self) -> Vec<(usize, GroupRows)> {
        let mut owners: Vec<(Range<u32>, u32)> = Vec::new();
        for (place, series) in self.wanted.iter().enumerate() {
            let rows = &self.series.series[*series as usize].rows;
            owners.extend(rows.iter().map(|rows| (rows.clone(), place as u32)));
        }
        owners.sort_unstable_by_key(|(rows, _)| rows.start);
        let groups = self.open.row_group_times.len();
        self.stats.add(Counter::RowGroupsConsidered, groups as u64);
        let mut wanted = Vec::new();
        for group in 0..groups {
            let times = self.open.row_group_times[group];
            let misses = times.end <= self.time.start || times.start >= self.time.end;
            let first = self.open.rows_before(group) as u32;
            let end = first.saturating_add(self.open.row_group_rows(group) as u32);
            let from = owners.partition_point(|(rows, _)| rows.end <= first);
            let until = owners.partition_point(|(rows, _)| rows.start < end);
            if misses || from >= until {
                self.stats.add(Counter::RowGroupsPruned, 1);
                continue;
            }
            wanted.push((group, GroupRows::new(first..end, &owners[from..until])));
        }
        wanted
    }

    fn metric(&self, owner: u32) -> &Metric {
        &self.series.metrics[self.series.series[self.wanted[owner as usize] as usize].metric as usize]
    }

    fn columns(&self) -> Vec<&'static str> {
        let metrics =
            self.wanted.iter().map(|series| &self.series.metrics[self.series.series[*series as usize].metric as usize]);
        let mut columns = vec!["time", "arrival_time", "flags"];
        for metric in metrics {
            if metric.has_starts {
                columns.push("start_time");
            }
            match metric.kind {
                Kind::Float => {}
                Kind::Histogram => columns.extend(["count", "sum", "bucket_counts", "explicit_bounds"]),
                Kind::Exponential => columns.extend([
                    "count",
                    "sum",
                    "scale",
                    "zero_count",
                    "zero_threshold",
                    "positive_offset",
                    "positive_counts",
                    "negative_offset",
                    "negative_counts",
                ]),
                Kind::Summary => columns.extend(["count", "sum", "quantiles"]),
            }
            columns.sort_unstable();
            columns.dedup();
        }
        columns
    }

    /// The numbers of all row groups with rows of the wanted series, which are all numbers; how many points they have is counted.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) async fn floats(&self) -> Result<Vec<GroupFloats>> {
        let mut all = Vec::new();
        for (group, rows) in self.groups() {
            all.push(self.group_floats(group, rows).await?);
        }
        Ok(all)
    }

    /// The numbers of a row group: from memory, or of the whole group where much of it is wanted.
    async fn group_floats(&self, group: usize, rows: GroupRows) -> Result<GroupFloats> {
        let id = self.open.meta.id;
        let (columns, is_whole) = match self.kept.get(id, group).await {
            Some(columns) => {
                self.stats.add(Counter::CacheHits, 1);
                (columns, true)
            }
            None if rows.is_whole || self.kept.is_bought(id, group, (rows.read(), rows.all)) => {
                (self.kept.get_with(id, group, self.decode(group, &rows.whole())).await?, true)
            }
            None => (Arc::new(self.decode(group, &rows).await?), false),
        };
        let mut owned = rows.owned;
        if !is_whole {
            let mut read = 0;
            for (own, _) in &mut owned {
                *own = read..read + own.len();
                read = own.end;
            }
        }
        let times = self.open.row_group_times[group];
        let is_inside = self.time.start <= times.start && times.end <= self.time.end;
        let points = match is_inside && columns.says_everything() {
            true => owned.iter().map(|(own, _)| own.len()).sum(),
            false => owned.iter().map(|(own, _)| columns.points(own.clone(), self.time_ms())).sum(),
        };
        self.stats.add(Counter::RowsMatched, points as u64);
        self.budget.take_numbers(points)?;
        Ok(GroupFloats { columns, owned, points })
    }

    /// The first and the last millisecond of its time.
    pub(super) fn time_ms(&self) -> (i64, i64) {
        (self.time.start.0.div_euclid(NS_PER_MS), (self.time.end.0 - 1).div_euclid(NS_PER_MS))
    }

    /// The numbers of a row group, or of the wanted rows alone.
    async fn decode(&self, group: usize, rows: &GroupRows) -> Result<FloatColumns> {
        let mut batches = self.batches(group, rows, &COLUMNS)?;
        let mut decoder = FloatDecoder::with_capacity(rows.read());
        while let Some(batch) = batches.next().await {
            decoder.add(&batch?).ok_or_else(|| self.mistyped())?;
            // Decoding is work, and others want to go on as well.
            tokio::task::yield_now().await;
        }
        if decoder.rows() != rows.read() {
            let problem =
                format!("row group {group} gave {} rows where {} were asked for", decoder.rows(), rows.read());
            return Err(Error::corrupt(&self.open.meta.object_key, problem));
        }
        Ok(decoder.finish())
    }

    async fn read_distributions(
        &self,
        group: usize,
        rows: &GroupRows,
        columns: &[&str],
        points: &mut [Points],
    ) -> Result<()> {
        let owner_of_row = rows.owners();
        let mut batches = self.batches(group, rows, columns)?;
        let mut from = 0;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let owners = owner_of_row.get(from..from + batch.num_rows()).unwrap_or_default();
            let (taken, bytes) = self.take(&batch, owners, points).ok_or_else(|| self.mistyped())?;
            self.budget.take(taken, bytes)?;
            self.stats.add(Counter::RowsMatched, taken as u64);
            from += batch.num_rows();
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    pub(super) fn mistyped(&self) -> Error {
        Error::corrupt(&self.open.meta.object_key, "a column of points is not of its type")
    }

    /// Rows of a row group, decoded piece by piece.
    pub(super) fn batches(
        &self,
        group: usize,
        rows: &GroupRows,
        columns: &[&str],
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        self.stats.add(Counter::RowGroupsRead, 1);
        self.stats.add(Counter::RowsScanned, rows.read() as u64);
        let schema = self.open.reader.schema();
        let roots = columns.iter().flat_map(|name| schema.index_of(name));
        let mask = ProjectionMask::roots(self.open.reader.parquet_schema(), roots);
        stored_rows(self.loader, self.open, self.stats, |stored| {
            let stored = stored.with_row_groups(vec![group]).with_projection(mask).with_batch_size(16 << 10);
            if rows.is_whole {
                return stored;
            }
            let ranges = rows.owned.iter().map(|(own, _)| own.clone());
            stored.with_row_selection(RowSelection::from_consecutive_ranges(ranges, rows.all))
        })
    }

    /// Adds the rows of a batch to their series; how many, and their bytes. `None` where a column is not what it should be.
    fn take(&self, batch: &RecordBatch, owners: &[u32], points: &mut [Points]) -> Option<(usize, usize)> {
        let columns = Columns::of(batch)?;
        let (start_ns, end_ns) = (self.time.start.0, self.time.end.0);
        let (mut taken, mut bytes) = (0, 0);
        let mut row = 0;
        while row < owners.len() {
            let owner = owners[row];
            let mut until = row + 1;
            while until < owners.len() && owners[until] == owner {
                until += 1;
            }
            let run = row..until;
            row = until;
            if owner == GroupRows::NOBODY {
                continue;
            }
            let metric = self.metric(owner);
            let into = &mut points[owner as usize];
            for row in run {
                let time = columns.times.value(row);
                if time < start_ns || time >= end_ns {
                    continue;
                }
                columns.append(into, row, metric.kind);
                bytes += into.distributions.last().map_or(0, Distribution::bytes);
                into.times.push(time.div_euclid(NS_PER_MS));
                into.arrivals.push(columns.arrivals.value(row));
                if metric.has_starts {
                    into.starts.push(columns.start(row));
                }
                taken += 1;
            }
        }
        Some((taken, bytes))
    }
}

/// Numbers of a row group.
#[derive(Debug)]
pub(super) struct GroupFloats {
    pub(super) columns: Arc<FloatColumns>,
    /// Rows of the columns, and the place of their series among the wanted ones.
    pub(super) owned: Vec<(Range<usize>, u32)>,
    /// How many points lie in the time asked for.
    pub(super) points: usize,
}

/// Which rows of a row group are wanted, and whose they are.
pub(super) struct GroupRows {
    /// How many rows it has.
    all: usize,
    /// Rows from the first of the group, and the place of their series among the wanted ones.
    owned: Vec<(Range<usize>, u32)>,
    /// Whether so many are wanted that all are read.
    is_whole: bool,
}

impl GroupRows {
    /// The place of a row that is nobody's.
    pub(super) const NOBODY: u32 = u32::MAX;

    /// Of a group with `rows` of the segment.
    fn new(rows: Range<u32>, owners: &[(Range<u32>, u32)]) -> Self {
        let inside = owners.iter().map(|(own, owner)| (own.start.max(rows.start)..own.end.min(rows.end), *owner));
        let owned: Vec<(Range<usize>, u32)> = inside
            .map(|(own, owner)| ((own.start - rows.start) as usize..(own.end - rows.start) as usize, owner))
            .collect();
        let wanted: usize = owned.iter().map(|(own, _)| own.len()).sum();
        let all = rows.len();
        let is_whole = wanted.saturating_mul(WHOLE_FROM) >= all || owned.len().saturating_mul(16) >= all;
        Self { all, owned, is_whole }
    }

    /// All rows of the group, whosoever they are.
    fn whole(&self) -> Self {
        Self { all: self.all, owned: Vec::new(), is_whole: true }
    }

    /// How many rows are read.
    fn read(&self) -> usize {
        if self.is_whole { self.all } else { self.owned.iter().map(|(own, _)| own.len()).sum() }
    }

    /// The series of each row that is read.
    pub(super) fn owners(&self) -> Vec<u32> {
        let mut owners = Vec::with_capacity(self.read());
        for (own, owner) in &self.owned {
            if self.is_whole {
                owners.resize(own.start, Self::NOBODY);
            }
            owners.extend(std::iter::repeat_n(*owner, own.len()));
        }
        owners.resize(self.read(), Self::NOBODY);
        owners
    }
}

/// The columns of a batch, those that were asked for.
struct Columns<'a> {
    batch: &'a RecordBatch,
    times: &'a PrimitiveArray<TimestampNanosecondType>,
    arrivals: &'a PrimitiveArray<TimestampNanosecondType>,
    starts: Option<&'a PrimitiveArray<TimestampNanosecondType>>,
    flags: &'a PrimitiveArray<UInt32Type>,
}

pub(super) fn column<'a, T: ArrowPrimitiveType>(batch: &'a RecordBatch, name: &str) -> Option<&'a PrimitiveArray<T>> {
    batch.column_by_name(name)?.as_primitive_opt::<T>()
}

fn value<T: ArrowPrimitiveType>(batch: &RecordBatch, name: &str, row: usize) -> Option<T::Native> {
    column::<T>(batch, name).filter(|column| column.is_valid(row)).map(|column| column.value(row))
}

fn list<T: ArrowPrimitiveType>(batch: &RecordBatch, name: &str, row: usize) -> Vec<T::Native> {
    let lists = batch.column_by_name(name).and_then(|column| column.as_list_opt::<i32>());
    let Some(lists) = lists.filter(|lists| lists.is_valid(row)) else { return Vec::new() };
    let items = lists.value(row);
    items.as_primitive_opt::<T>().map(|items| items.values().to_vec()).unwrap_or_default()
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        Some(Self {
            batch,
            times: column(batch, "time")?,
            arrivals: column(batch, "arrival_time")?,
            starts: column(batch, "start_time"),
            flags: column(batch, "flags")?,
        })
    }

    fn start(&self, row: usize) -> i64 {
        let start = self.starts.filter(|starts| starts.is_valid(row)).map(|starts| starts.value(row));
        start.map_or(0, |start| start.div_euclid(NS_PER_MS))
    }

    /// Adds what a row says.
    fn append(&self, into: &mut Points, row: usize, kind: Kind) {
        let flags = if self.flags.is_valid(row) { self.flags.value(row) } else { 0 };
        let batch = self.batch;
        let shape = match kind {
            Kind::Exponential => Shape::Exponential {
                scale: value::<Int32Type>(batch, "scale", row).unwrap_or(0),
                zero_count: value::<UInt64Type>(batch, "zero_count", row).unwrap_or(0),
                zero_threshold: value::<Float64Type>(batch, "zero_threshold", row).unwrap_or(0.0),
                positive: (
                    value::<Int32Type>(batch, "positive_offset", row).unwrap_or(0),
                    list::<UInt64Type>(batch, "positive_counts", row),
                ),
                negative: (
                    value::<Int32Type>(batch, "negative_offset", row).unwrap_or(0),
                    list::<UInt64Type>(batch, "negative_counts", row),
                ),
            },
            Kind::Summary => Shape::Summary(quantiles(batch, row)),
            Kind::Histogram | Kind::Float => Shape::Classic {
                counts: list::<UInt64Type>(batch, "bucket_counts", row),
                bounds: list::<Float64Type>(batch, "explicit_bounds", row),
            },
        };
        into.distributions.push(Distribution {
            flags,
            count: value::<UInt64Type>(batch, "count", row).unwrap_or(0),
            sum: value::<Float64Type>(batch, "sum", row),
            shape,
        });
    }
}

fn quantiles(batch: &RecordBatch, row: usize) -> Vec<(f64, f64)> {
    let lists = batch.column_by_name("quantiles").and_then(|column| column.as_list_opt::<i32>());
    let Some(lists) = lists.filter(|lists| lists.is_valid(row)) else { return Vec::new() };
    let items = lists.value(row);
    let pairs = items.as_any().downcast_ref::<StructArray>().and_then(|items| {
        let quantiles = items.column_by_name("quantile")?.as_primitive_opt::<Float64Type>()?;
        let values = items.column_by_name("value")?.as_primitive_opt::<Float64Type>()?;
        Some(quantiles.values().iter().copied().zip(values.values().iter().copied()).collect())
    });
    pairs.unwrap_or_default()
}
