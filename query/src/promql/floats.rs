//! Numbers of row groups, decoded, and those that were wanted whole, or in parts again and again, kept in memory.
//!
//! Owns: a row group's times, numbers, start times and arrivals as columns ([`FloatColumns`]), stretches of them that are one series'
//! points ([`FloatRun`]), and their merge. Never: which rows are whose, histograms.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, PrimitiveArray, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{Float64Type, TimestampNanosecondType, UInt32Type};
use moka::future::Cache;
use tidemill_eval::promql::{STALE_NAN, is_stale};
use tidemill_types::SegmentId;

use super::points::{NS_PER_MS, column};
use crate::{Error, Result};

/// The columns of a row group that make its numbers.
pub(super) const COLUMNS: [&str; 5] = ["time", "arrival_time", "flags", "value", "start_time"];

/// The numbers of some rows, column by column.
#[derive(Debug, Default)]
pub(crate) struct FloatColumns {
    /// Milliseconds since 1970.
    times: ScalarBuffer<i64>,
    /// The numbers, stale markers among them.
    values: ScalarBuffer<f64>,
    /// When each one's counter began, in milliseconds, 0 where it is not told; empty where none is.
    starts: ScalarBuffer<i64>,
    /// How many points each stands for; empty where each is one.
    weights: ScalarBuffer<u32>,
    /// When rows arrived, in nanoseconds, each time once; by row where `arrival_of` is empty.
    arrivals: Vec<i64>,
    /// The place among `arrivals` of each row.
    arrival_of: Vec<u32>,
    /// The rows that say nothing, ascending.
    silent: Vec<u32>,
    /// Whether any row is a stale marker.
    has_stale: bool,
    /// The rows whose time is not after that of the row before, ascending: mostly the first ones of series.
    breaks: Vec<u32>,
}

/// Points of one series that follow each other in a row group.
#[derive(Debug, Clone)]
pub(super) struct FloatRun {
    columns: Arc<FloatColumns>,
    rows: Range<usize>,
    /// Whether start times of the series say when its counter began.
    has_starts: bool,
    /// Whether each time is after the one before.
    is_rising: bool,
}

/// Points of one series from all segments, by rising time, each time once.
#[derive(Debug, Default)]
pub(super) struct MergedFloats {
    pub(super) times: ScalarBuffer<i64>,
    pub(super) values: ScalarBuffer<f64>,
    /// Empty where none is told.
    pub(super) starts: ScalarBuffer<i64>,
    /// Empty where each is one.
    pub(super) weights: ScalarBuffer<u32>,
    /// Whether no value is a stale marker.
    pub(super) is_unbroken: bool,
    runs: Vec<FloatRun>,
}

/// Decoded numbers of row groups, kept in memory.
#[derive(Debug)]
pub(crate) struct KeptFloats {
    whole: Cache<(SegmentId, usize), Arc<FloatColumns>>,
    /// How much of row groups was read in parts, in [`PARTS_OF_WHOLE`]ths.
    in_parts: moka::sync::Cache<(SegmentId, usize), Arc<AtomicUsize>>,
}

/// Reading a part of a row group costs at least so small a share of reading it whole.
const PARTS_OF_WHOLE: usize = 8;
/// Of how many row groups it is known how much was read.
const KNOWN_PARTS: u64 = 64 << 10;

impl KeptFloats {
    pub(crate) fn new(bytes: u64) -> Self {
        let weigh = |_: &(SegmentId, usize), columns: &Arc<FloatColumns>| columns.bytes();
        let whole = Cache::builder().max_capacity(bytes).weigher(weigh).build();
        Self { whole, in_parts: moka::sync::Cache::new(KNOWN_PARTS) }
    }

    /// Whether a row group of which so many rows are wanted is read whole, to be kept: that is so once reading it in parts has cost as much,
    /// so that it never costs more than double.
    pub(super) fn is_bought(&self, segment: SegmentId, group: usize, (wanted, rows): (usize, usize)) -> bool {
        let share = (wanted.saturating_mul(PARTS_OF_WHOLE) / rows.max(1)).max(1);
        let read = self.in_parts.get_with((segment, group), Arc::default);
        let is_bought = read.fetch_add(share, Ordering::Relaxed) >= PARTS_OF_WHOLE;
        if is_bought {
            self.in_parts.invalidate(&(segment, group));
        }
        is_bought
    }

    /// The numbers of a row group, if they are in memory.
    pub(super) async fn get(&self, segment: SegmentId, group: usize) -> Option<Arc<FloatColumns>> {
        self.whole.get(&(segment, group)).await
    }

    /// The numbers of a row group, read by `read` where they are not in memory; read once, however many ask.
    ///
    /// # Errors
    /// Those of `read`.
    pub(super) async fn get_with(
        &self,
        segment: SegmentId,
        group: usize,
        read: impl Future<Output = Result<FloatColumns>>,
    ) -> Result<Arc<FloatColumns>> {
        let read = async { read.await.map(Arc::new) };
        self.whole.try_get_with((segment, group), read).await.map_err(|error: Arc<Error>| Error::clone(&error))
    }
}

impl FloatColumns {
    /// Numbers that are there already; `starts` may be empty.
    pub(super) fn of(times: Vec<i64>, values: Vec<f64>, starts: Vec<i64>, arrivals: Vec<i64>) -> Self {
        let starts = ScalarBuffer::from(starts);
        let breaks = breaks_of(&times);
        let has_stale = values.iter().any(|value| is_stale(*value));
        Self { breaks, has_stale, times: times.into(), values: values.into(), starts, arrivals, ..Self::default() }
    }

    /// Numbers that stand for several points each, from a rollup, which no point replaces.
    pub(super) fn weighted(times: Vec<i64>, values: Vec<f64>, starts: Vec<i64>, weights: Vec<u32>) -> Self {
        let arrivals = vec![0; times.len()];
        Self { weights: weights.into(), ..Self::of(times, values, starts, arrivals) }
    }

    fn bytes(&self) -> u32 {
        let bytes = self.times.len() * 16
            + self.starts.len() * 8
            + self.weights.len() * 4
            + self.arrivals.len() * 8
            + (self.arrival_of.len() + self.silent.len() + self.breaks.len()) * 4;
        u32::try_from(bytes + 256).unwrap_or(u32::MAX)
    }

    fn arrival(&self, row: usize) -> i64 {
        self.arrival_of.get(row).map_or_else(|| self.arrivals[row], |place| self.arrivals[*place as usize])
    }

    fn is_rising(&self, rows: &Range<usize>) -> bool {
        let next = self.breaks.partition_point(|row| (*row as usize) <= rows.start);
        self.breaks.get(next).is_none_or(|row| (*row as usize) >= rows.end)
    }

    /// The stretches of `rows` that say something between two times, both inclusive.
    fn stretches(&self, rows: Range<usize>, (start_ms, end_ms): (i64, i64), mut add: impl FnMut(Range<usize>)) {
        let times = &self.times[rows.clone()];
        let first_silent = self.silent.partition_point(|row| (*row as usize) < rows.start);
        let is_silent = |row: usize| self.silent[first_silent..].binary_search(&(row as u32)).is_ok();
        let has_silent = self.silent.get(first_silent).is_some_and(|row| (*row as usize) < rows.end);
        if !has_silent && self.is_rising(&rows) {
            let is_inside = |time: Option<&i64>| time.is_none_or(|time| (start_ms..=end_ms).contains(time));
            if is_inside(times.first()) && is_inside(times.last()) {
                return add(rows);
            }
            let first = times.partition_point(|time| *time < start_ms);
            let end = times.partition_point(|time| *time <= end_ms).max(first);
            return add(rows.start + first..rows.start + end);
        }
        let mut run = rows.start..rows.start;
        for row in rows {
            let is_in = (start_ms..=end_ms).contains(&self.times[row]) && !is_silent(row);
            if is_in && run.end == row {
                run.end += 1;
            } else if is_in {
                add(std::mem::replace(&mut run, row..row + 1));
            }
        }
        add(run);
    }

    /// The points of `rows` between two times, both inclusive, in stretches.
    pub(super) fn runs(
        self: &Arc<Self>,
        rows: Range<usize>,
        time: (i64, i64),
        has_starts: bool,
        mut add: impl FnMut(FloatRun),
    ) {
        self.stretches(rows, time, |rows| {
            if !rows.is_empty() {
                let is_rising = self.is_rising(&rows);
                add(FloatRun { columns: Arc::clone(self), rows, has_starts, is_rising });
            }
        });
    }

    /// How many points `rows` have between two times, both inclusive.
    pub(super) fn points(&self, rows: Range<usize>, time: (i64, i64)) -> usize {
        let mut points = 0;
        self.stretches(rows, time, |rows| points += rows.len());
        points
    }

    /// Whether every row says something.
    pub(super) fn says_everything(&self) -> bool {
        self.silent.is_empty()
    }
}

impl FloatRun {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn times(&self) -> &[i64] {
        &self.columns.times[self.rows.clone()]
    }

    fn values(&self) -> &[f64] {
        &self.columns.values[self.rows.clone()]
    }

    fn starts(&self) -> &[i64] {
        if self.has_starts && !self.columns.starts.is_empty() { &self.columns.starts[self.rows.clone()] } else { &[] }
    }

    fn weights(&self) -> &[u32] {
        if self.columns.weights.is_empty() { &[] } else { &self.columns.weights[self.rows.clone()] }
    }

    fn arrival(&self, at: usize) -> i64 {
        self.columns.arrival(self.rows.start + at)
    }
}

impl From<FloatColumns> for FloatRun {
    fn from(columns: FloatColumns) -> Self {
        let rows = 0..columns.times.len();
        let is_rising = columns.is_rising(&rows);
        Self { columns: Arc::new(columns), rows, has_starts: true, is_rising }
    }
}

impl MergedFloats {
    /// The points of all runs by rising time, of equal times the one that arrived last. Where the times are those in `known`, as they
    /// are for series of one scrape, they are shared.
    pub(super) fn new(mut runs: Vec<FloatRun>, known: &ScalarBuffer<i64>) -> Self {
        runs.retain(|run| !run.rows.is_empty());
        runs.sort_by_key(|run| run.times()[0]);
        let are_apart = runs.windows(2).all(|pair| pair[0].times().last() < pair[1].times().first());
        let mut all = match are_apart && runs.iter().all(|run| run.is_rising) {
            true => Self::joined(&runs, known),
            false => Self::latest(&runs),
        };
        if all.starts.iter().all(|start| *start == 0) {
            all.starts = ScalarBuffer::default();
        }
        all.is_unbroken = runs.iter().all(|run| !run.columns.has_stale);
        all.runs = runs;
        all
    }

    /// Runs that follow each other.
    fn joined(runs: &[FloatRun], known: &ScalarBuffer<i64>) -> Self {
        if let [run] = runs {
            let (first, count) = (run.rows.start, run.rows.len());
            let columns = &run.columns;
            return Self {
                times: columns.times.slice(first, count),
                values: columns.values.slice(first, count),
                starts: if run.starts().is_empty() {
                    ScalarBuffer::default()
                } else {
                    columns.starts.slice(first, count)
                },
                weights: if run.weights().is_empty() {
                    ScalarBuffer::default()
                } else {
                    columns.weights.slice(first, count)
                },
                ..Self::default()
            };
        }
        let count = runs.iter().map(|run| run.rows.len()).sum();
        let mut values = Vec::with_capacity(count);
        let (mut starts, mut weights) = (Vec::new(), Vec::new());
        let mut are_known = known.len() == count;
        for run in runs {
            let at = values.len();
            are_known = are_known && known[at..at + run.rows.len()] == *run.times();
            extend(&mut starts, run.starts(), at, 0);
            extend(&mut weights, run.weights(), at, 1);
            values.extend_from_slice(run.values());
        }
        extend(&mut starts, &[], count, 0);
        extend(&mut weights, &[], count, 1);
        let joined = || {
            let mut times = Vec::with_capacity(count);
            runs.iter().for_each(|run| times.extend_from_slice(run.times()));
            times.into()
        };
        Self {
            times: if are_known { known.clone() } else { joined() },
            values: values.into(),
            starts: starts.into(),
            weights: weights.into(),
            ..Self::default()
        }
    }

    /// Runs that overlap or do not rise.
    fn latest(runs: &[FloatRun]) -> Self {
        let order = latest_of(runs.iter().enumerate().flat_map(|(place, run)| {
            run.times().iter().enumerate().map(move |(at, time)| (*time, run.arrival(at), place, at))
        }));
        let of = |(place, at): &(usize, usize)| (&runs[*place], *at);
        let start = |(run, at): (&FloatRun, usize)| run.starts().get(at).copied().unwrap_or(0);
        let weight = |(run, at): (&FloatRun, usize)| run.weights().get(at).copied().unwrap_or(1);
        let has_weights = runs.iter().any(|run| !run.weights().is_empty());
        Self {
            times: order.iter().map(of).map(|(run, at)| run.times()[at]).collect(),
            values: order.iter().map(of).map(|(run, at)| run.values()[at]).collect(),
            starts: order.iter().map(of).map(start).collect(),
            weights: order.iter().filter(|_| has_weights).map(of).map(weight).collect(),
            ..Self::default()
        }
    }

    /// When the point of `time` arrived, the last one if several did.
    pub(super) fn arrival_at(&self, time: i64) -> Option<i64> {
        let of_run = |run: &FloatRun| {
            let same = run.times().iter().enumerate().filter(|(_, at)| **at == time);
            same.map(|(at, _)| run.arrival(at)).max()
        };
        self.runs.iter().filter_map(of_run).max()
    }

    /// Without the points at which `goes`.
    pub(super) fn without(&mut self, goes: impl Fn(i64) -> bool) {
        let kept: Vec<usize> = (0..self.times.len()).filter(|at| !goes(self.times[*at])).collect();
        if kept.len() == self.times.len() {
            return;
        }
        self.weights = kept.iter().filter_map(|at| self.weights.get(*at).copied()).collect();
        self.starts = kept.iter().filter_map(|at| self.starts.get(*at).copied()).collect();
        self.values = kept.iter().map(|at| self.values[*at]).collect();
        self.times = kept.iter().map(|at| self.times[*at]).collect();
    }
}

/// Adds what a run tells at `at`; rows before that told nothing, and those after it, have `nothing`. Stays empty while nothing is told.
fn extend<T: Copy>(told: &mut Vec<T>, own: &[T], at: usize, nothing: T) {
    if !own.is_empty() || !told.is_empty() {
        told.resize(at, nothing);
        told.extend_from_slice(own);
    }
}

/// Of rows (time, arrival, place, position) by rising time the last arrival of each time, as place and position.
pub(super) fn latest_of(rows: impl Iterator<Item = (i64, i64, usize, usize)>) -> Vec<(usize, usize)> {
    let mut order: Vec<_> = rows.collect();
    order.sort_unstable();
    let is_last = |at: &usize| order.get(at + 1).is_none_or(|next| next.0 != order[*at].0);
    (0..order.len()).filter(is_last).map(|at| (order[at].2, order[at].3)).collect()
}

/// Collects the numbers of batches.
#[derive(Debug, Default)]
pub(super) struct FloatDecoder {
    times: Vec<i64>,
    values: Vec<f64>,
    starts: Vec<i64>,
    arrivals: Vec<i64>,
    arrival_of: Vec<u32>,
    arrival_places: HashMap<i64, u32>,
    silent: Vec<u32>,
}

impl FloatDecoder {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self {
            times: Vec::with_capacity(rows),
            values: Vec::with_capacity(rows),
            arrival_of: Vec::with_capacity(rows),
            ..Self::default()
        }
    }

    /// Adds the rows of a batch; `None` where a column is not what it should be.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Option<()> {
        let times: &PrimitiveArray<TimestampNanosecondType> = column(batch, "time")?;
        let arrivals: &PrimitiveArray<TimestampNanosecondType> = column(batch, "arrival_time")?;
        let flags: &PrimitiveArray<UInt32Type> = column(batch, "flags")?;
        let values: &PrimitiveArray<Float64Type> = column(batch, "value")?;
        let known = self.times.len();
        self.times.extend(times.values().iter().map(|time| time.div_euclid(NS_PER_MS)));
        self.values.extend_from_slice(values.values());
        let is_plain = flags.null_count() == flags.len() || flags.values().iter().all(|flags| flags & 1 == 0);
        if !is_plain || values.null_count() > 0 {
            for row in 0..batch.num_rows() {
                if flags.is_valid(row) && flags.value(row) & 1 == 1 {
                    self.values[known + row] = STALE_NAN;
                } else if values.is_null(row) {
                    self.silent.push((known + row) as u32);
                }
            }
        }
        if let Some(starts) = column::<TimestampNanosecondType>(batch, "start_time")
            && starts.null_count() < starts.len()
        {
            self.starts.resize(known, 0);
            self.starts.extend(starts.iter().map(|start| start.map_or(0, |start| start.div_euclid(NS_PER_MS))));
        }
        let mut last: Option<(i64, u32)> = None;
        for arrival in arrivals.values() {
            let place = match last {
                Some((known, place)) if known == *arrival => place,
                _ => *self.arrival_places.entry(*arrival).or_insert_with(|| {
                    self.arrivals.push(*arrival);
                    (self.arrivals.len() - 1) as u32
                }),
            };
            last = Some((*arrival, place));
            self.arrival_of.push(place);
        }
        Some(())
    }

    pub(super) fn rows(&self) -> usize {
        self.times.len()
    }

    pub(super) fn finish(mut self) -> FloatColumns {
        if self.starts.iter().all(|start| *start == 0) {
            self.starts = Vec::new();
        } else {
            self.starts.resize(self.times.len(), 0);
        }
        self.arrivals.shrink_to_fit();
        FloatColumns {
            breaks: breaks_of(&self.times),
            has_stale: self.values.iter().any(|value| is_stale(*value)),
            times: self.times.into(),
            values: self.values.into(),
            starts: self.starts.into(),
            weights: ScalarBuffer::default(),
            arrivals: self.arrivals,
            arrival_of: self.arrival_of,
            silent: self.silent,
        }
    }
}

fn breaks_of(times: &[i64]) -> Vec<u32> {
    (1..).zip(times.windows(2)).filter(|(_, pair)| pair[1] <= pair[0]).map(|(row, _)| row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(points: &[(i64, i64, f64)]) -> FloatRun {
        let column = |of: fn(&(i64, i64, f64)) -> i64| points.iter().map(of).collect::<Vec<i64>>();
        let values = points.iter().map(|point| point.2).collect();
        FloatColumns::of(column(|point| point.0), values, Vec::new(), column(|point| point.1)).into()
    }

    fn points(merged: &MergedFloats) -> Vec<(i64, f64)> {
        merged.times.iter().copied().zip(merged.values.iter().copied()).collect()
    }

    #[test]
    fn of_points_at_one_time_the_last_arrival_stands() {
        let nothing = ScalarBuffer::default();
        let apart = MergedFloats::new(vec![run(&[(30, 1, 3.0)]), run(&[(10, 2, 1.0), (20, 2, 2.0)])], &nothing);
        assert_eq!(points(&apart), [(10, 1.0), (20, 2.0), (30, 3.0)]);
        let over =
            MergedFloats::new(vec![run(&[(10, 5, 1.0), (20, 5, 2.0)]), run(&[(20, 4, 7.0), (10, 6, 8.0)])], &nothing);
        assert_eq!(points(&over), [(10, 8.0), (20, 2.0)]);
        assert_eq!((over.arrival_at(10), over.arrival_at(20), over.arrival_at(15)), (Some(6), Some(5), None));
    }

    #[test]
    fn equal_times_are_shared_and_others_are_not() {
        let of = |first: i64, value: f64| vec![run(&[(first, 1, value), (2, 1, value)]), run(&[(3, 1, value)])];
        let known = MergedFloats::new(of(1, 7.0), &ScalarBuffer::default()).times;
        let same = MergedFloats::new(of(1, 8.0), &known);
        assert_eq!(points(&same), [(1, 8.0), (2, 8.0), (3, 8.0)]);
        assert!(same.times.ptr_eq(&known));
        assert_eq!(points(&MergedFloats::new(of(0, 9.0), &known)), [(0, 9.0), (2, 9.0), (3, 9.0)]);
    }

    #[test]
    fn what_is_read_in_parts_is_kept_once_that_has_cost_as_much() {
        let kept = KeptFloats::new(1 << 20);
        let segment = "00000000-0000-0000-0000-000000000007".parse::<SegmentId>().expect("an id");
        let bought = |group, wanted| (0..20).position(|_| kept.is_bought(segment, group, (wanted, 1_000)));
        assert_eq!((bought(0, 1), bought(1, 300), bought(2, 900)), (Some(8), Some(4), Some(2)));
    }

    #[test]
    fn stretches_leave_out_what_is_silent_or_of_another_time() {
        let mut columns = FloatColumns::of((0..8).collect(), vec![1.0; 8], Vec::new(), vec![0; 8]);
        columns.silent = vec![3];
        let columns = Arc::new(columns);
        let mut found = Vec::new();
        columns.runs(1..8, (2, 6), false, |run| found.push(run.rows));
        assert_eq!((columns.points(1..8, (2, 6)), found), (4, vec![2..3, 4..7]));
    }
}
