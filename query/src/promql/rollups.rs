//! Rollups in place of points, where the answer is the same to the bit.
//!
//! A function that needs a window's extremes, or its first and last sample and how many there are, finds them in the rows of a rollup whose
//! windows end where those of the query begin and end: the coarsest that fits, hour by hour. An hour without a rollup that covers all that
//! arrived for it is read from its points, and so is a series that a row does not tell exactly: a counter that began anew inside of it, a
//! point within the first millisecond of a window (PromQL knows no finer time), histograms, or two stored series under the same labels.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, PrimitiveArray, RecordBatch};
use arrow::datatypes::{ArrowPrimitiveType, Float64Type, TimestampNanosecondType, UInt64Type};
use futures::StreamExt as _;
use tidemill_eval::Labels;
use tidemill_eval::promql::{WindowFunction, Windows};
use tidemill_types::{Hour, SegmentMeta, Tier};

use super::conditions::Conditions;
use super::floats::FloatColumns;
use super::points::{GroupRows, NS_PER_MS, column};
use super::select::{Reader, SEGMENTS_TOGETHER, time_range};
use super::series::{Metric, Role};
use crate::Result;
use crate::stats::Counter;

const MS_PER_HOUR: i64 = 3_600_000;
const COLUMNS: [&str; 11] = [
    "time",
    "samples",
    "resets",
    "first_time",
    "last_time",
    "first_start_time",
    "last_start_time",
    "first",
    "last",
    "value_min",
    "value_max",
];

/// What rollups have for a selector.
#[derive(Debug, Default)]
pub(super) struct RolledUp {
    /// The hours that they serve: windows that end in `(hour, hour + 1 h]`.
    hours: BTreeMap<Hour, RolledHour>,
}

/// One hour.
#[derive(Debug, Default)]
struct RolledHour {
    /// The series that it tells: whether they are deltas, and the samples that stand for their points.
    series: HashMap<Labels, (bool, FloatColumns)>,
    /// Those that are read from their points.
    left: HashSet<Labels>,
    /// Those of which a point lies in the first millisecond of the hour.
    of_hour_before: HashSet<Labels>,
}

/// A stretch of time in milliseconds, both ends inclusive.
type Span = (i64, i64);

impl RolledUp {
    /// How many hours they serve.
    pub(super) fn hours(&self) -> usize {
        self.hours.len()
    }

    /// The pieces of a time that no rollup serves.
    pub(super) fn gaps(&self, (start_ms, end_ms): Span) -> Vec<Span> {
        let mut gaps = Vec::new();
        let mut from = start_ms;
        for (first, last) in self.hours.keys().map(|hour| span(*hour)) {
            if from < first {
                gaps.push((from, (first - 1).min(end_ms)));
            }
            from = from.max(last + 1);
        }
        if from <= end_ms {
            gaps.push((from, end_ms));
        }
        gaps
    }

    /// The served hours of which some series are read from their points, and these.
    pub(super) fn left(&self, (start_ms, end_ms): Span) -> Vec<(Span, Arc<HashSet<Labels>>)> {
        let inside = self.hours.iter().filter(|(_, rolled)| !rolled.left.is_empty());
        let spans = inside.map(|(hour, rolled)| {
            let (first, last) = span(*hour);
            ((first.max(start_ms), last.min(end_ms)), Arc::new(rolled.left.clone()))
        });
        spans.filter(|((first, last), _)| first <= last).collect()
    }

    /// The last milliseconds of served hours after which an hour is read from points: a point there may belong to the served hour by its
    /// millisecond, and to the next one by its nanoseconds.
    pub(super) fn last_moments(&self) -> Vec<i64> {
        let is_last = |hour: &&Hour| !self.hours.contains_key(&Hour(hour.0 + 1));
        self.hours.keys().filter(is_last).map(|hour| span(*hour).1).collect()
    }

    /// Leaves series to points in the hour that ends at a time.
    pub(super) fn leave(&mut self, end_ms: i64, series: impl IntoIterator<Item = Labels>) {
        let hour = Hour(i32::try_from((end_ms - 1).div_euclid(MS_PER_HOUR)).unwrap_or(i32::MIN));
        let Some(rolled) = self.hours.get_mut(&hour) else { return };
        for labels in series {
            rolled.series.remove(&labels);
            rolled.left.insert(labels);
        }
    }

    /// Series with a point in the first millisecond of an hour have it in the hour before, for PromQL.
    fn settle_edges(&mut self) {
        let edges: Vec<(i64, HashSet<Labels>)> = self
            .hours
            .iter_mut()
            .map(|(hour, rolled)| (span(*hour).0 - 1, std::mem::take(&mut rolled.of_hour_before)))
            .collect();
        edges.into_iter().for_each(|(end_ms, series)| self.leave(end_ms, series));
    }

    /// What the hours tell, in their order.
    pub(super) fn into_series(self) -> impl Iterator<Item = (Labels, bool, FloatColumns)> {
        let told = self.hours.into_values().flat_map(|rolled| rolled.series);
        told.map(|(labels, (is_delta, columns))| (labels, is_delta, columns))
    }
}

/// The times, in milliseconds, of the points in windows that end in an hour.
fn span(hour: Hour) -> (i64, i64) {
    let start = i64::from(hour.0) * MS_PER_HOUR;
    (start + 1, start + MS_PER_HOUR)
}

/// The coarsest rollup whose windows end where those of the query begin and end.
pub(super) fn tier_of(windows: &Windows) -> Option<Tier> {
    let fits = |tier: &Tier| {
        let width = tier.window_ns() / NS_PER_MS;
        [windows.first_end_ms, windows.step_ms, windows.range_ms].iter().all(|length| length % width == 0)
    };
    Tier::ROLLUPS.into_iter().rev().find(fits)
}

impl Reader {
    /// What rollups tell of the windows of a query; nothing where none fits.
    ///
    /// # Errors
    /// A segment cannot be read, or a limit was met.
    pub(super) async fn rolled_up(
        &self,
        windows: &Windows,
        time: (i64, i64),
        conditions: &Arc<Conditions>,
    ) -> Result<RolledUp> {
        let fits = self.parts.options.uses_indexes && !conditions.may_be_info();
        let Some(tier) = tier_of(windows).filter(|_| fits) else { return Ok(RolledUp::default()) };
        let mut of_hour: BTreeMap<Hour, Vec<SegmentMeta>> = BTreeMap::new();
        for meta in self.segments(tier, time_range(time.0, time.1)) {
            of_hour.entry(meta.time.start.hour()).or_default().push(meta);
        }
        // Two rollups of an hour cannot both be whole.
        let alone =
            of_hour.into_iter().filter_map(|(hour, mut metas)| Some((hour, metas.pop()?)).filter(|_| metas.is_empty()));
        let reads = alone.map(|(hour, meta)| async move {
            let rolled = self.rolled_hour(&meta, tier, windows.function, time, conditions).await?;
            Ok::<_, crate::Error>((hour, rolled))
        });
        let mut reading = futures::stream::iter(reads).buffer_unordered(SEGMENTS_TOGETHER);
        let mut rolled = RolledUp::default();
        while let Some(read) = reading.next().await {
            let (hour, read) = read?;
            rolled.hours.insert(hour, read);
        }
        rolled.settle_edges();
        Ok(rolled)
    }

    async fn rolled_hour(
        &self,
        meta: &SegmentMeta,
        tier: Tier,
        function: WindowFunction,
        time: (i64, i64),
        conditions: &Conditions,
    ) -> Result<RolledHour> {
        let (open, series) = self.open(meta).await?;
        let mut left: HashSet<Labels> = HashSet::new();
        let mut named: HashMap<Labels, u32> = HashMap::new();
        for found in series.find(conditions) {
            let stored = &series.series[found.series as usize];
            let metric = &series.metrics[stored.metric as usize];
            for (role, name) in found.parts.iter() {
                let labels = stored.named(metric, name).into_labels();
                let is_told = *role == Role::Value && tells(metric, function);
                if !is_told || left.contains(&labels) || named.insert(labels.clone(), found.series).is_some() {
                    named.remove(&labels);
                    left.insert(labels);
                }
            }
        }
        let mut wanted: Vec<u32> = named.values().copied().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let request = self.points_request((&open, &series), &wanted, time_range(time.0, time.1));
        let width = tier.window_ns() / NS_PER_MS;
        let mut folds: Vec<Fold> = wanted.iter().map(|_| Fold::default()).collect();
        for (group, rows) in request.groups() {
            let mut batches = request.batches(group, &rows, &COLUMNS)?;
            let owners = rows.owners();
            let mut from = 0;
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                let columns = Columns::of(&batch).ok_or_else(|| request.mistyped())?;
                let owners = owners.get(from..from + batch.num_rows()).ok_or_else(|| request.mistyped())?;
                for (row, owner) in owners.iter().enumerate().filter(|(_, owner)| **owner != GroupRows::NOBODY) {
                    folds[*owner as usize].add(&columns, row, function, (width, time));
                }
                from += batch.num_rows();
                tokio::task::yield_now().await;
            }
        }
        let place_of = |series: u32| wanted.binary_search(&series).ok();
        let mut rolled = RolledHour::default();
        for (labels, series_place) in named {
            let Some(fold) = place_of(series_place).map(|place| std::mem::take(&mut folds[place])) else { continue };
            let metric = &series.metrics[series.series[series_place as usize].metric as usize];
            if fold.is_at_edge {
                rolled.of_hour_before.insert(labels.clone());
            }
            if fold.is_inexact {
                left.insert(labels);
            } else if !fold.times.is_empty() {
                self.budget.take_numbers(fold.times.len())?;
                self.stats.add(Counter::RowsMatched, fold.times.len() as u64);
                rolled.series.insert(labels, (metric.is_delta, fold.columns(metric.has_starts)));
            }
        }
        rolled.left = left;
        Ok(rolled)
    }
}

/// Whether a rollup of this metric has what the function needs.
fn tells(metric: &Metric, function: WindowFunction) -> bool {
    match function {
        WindowFunction::Growth => metric.type_name == "counter" && !metric.is_delta,
        WindowFunction::Minimum | WindowFunction::Maximum | WindowFunction::Edges => true,
    }
}

/// The rows of one series, as samples that stand for those of their windows.
#[derive(Debug, Default)]
struct Fold {
    times: Vec<i64>,
    values: Vec<f64>,
    starts: Vec<i64>,
    weights: Vec<u32>,
    last_window: Option<i64>,
    /// Whether a row does not tell the function exactly.
    is_inexact: bool,
    /// Whether a point lies in the first millisecond of the hour.
    is_at_edge: bool,
}

impl Fold {
    fn add(
        &mut self,
        columns: &Columns<'_>,
        row: usize,
        function: WindowFunction,
        (width, (start_ms, end_ms)): (i64, (i64, i64)),
    ) {
        let end = columns.end.value(row).div_euclid(NS_PER_MS);
        if end - width < start_ms - 1 || end - width > end_ms {
            return;
        }
        let is_repeated = self.last_window.replace(end) == Some(end);
        let samples = columns.samples.value(row);
        if samples == 0 {
            self.is_inexact |= is_repeated;
            return;
        }
        let told = columns.told(row, function).filter(|_| !is_repeated);
        if told.as_ref().is_some_and(|told| told.first.0 <= end - width) {
            // By the millisecond the point belongs to the window before.
            self.is_inexact = true;
            self.is_at_edge |= (end - width).rem_euclid(MS_PER_HOUR) == 0;
            return;
        }
        if end > end_ms {
            return;
        }
        let (Some(told), Ok(weight)) = (told, u32::try_from(samples)) else {
            self.is_inexact = true;
            return;
        };
        if weight == 1 || told.is_one {
            self.push(told.last, told.starts.1, weight);
        } else if told.first.0 < told.last.0 {
            self.push(told.first, told.starts.0, 1);
            self.push(told.last, told.starts.1, weight - 1);
        } else {
            self.is_inexact = true;
        }
    }

    fn push(&mut self, (time, value): (i64, f64), start: i64, weight: u32) {
        self.times.push(time);
        self.values.push(value);
        self.starts.push(start);
        self.weights.push(weight);
    }

    fn columns(self, has_starts: bool) -> FloatColumns {
        let starts = if has_starts { self.starts } else { Vec::new() };
        FloatColumns::weighted(self.times, self.values, starts, self.weights)
    }
}

/// What a row says of its window: times in milliseconds, and values.
struct Told {
    first: (i64, f64),
    last: (i64, f64),
    /// When the counter of each began, 0 where it is not told.
    starts: (i64, i64),
    /// Whether the last one stands for all.
    is_one: bool,
}

/// The columns of a rollup.
struct Columns<'a> {
    end: &'a PrimitiveArray<TimestampNanosecondType>,
    samples: &'a PrimitiveArray<UInt64Type>,
    resets: &'a PrimitiveArray<UInt64Type>,
    times: [&'a PrimitiveArray<TimestampNanosecondType>; 2],
    starts: [&'a PrimitiveArray<TimestampNanosecondType>; 2],
    /// First, last, smallest and largest.
    values: [&'a PrimitiveArray<Float64Type>; 4],
}

fn at<T: ArrowPrimitiveType>(column: &PrimitiveArray<T>, row: usize) -> Option<T::Native> {
    column.is_valid(row).then(|| column.value(row))
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        Some(Self {
            end: column(batch, "time")?,
            samples: column(batch, "samples")?,
            resets: column(batch, "resets")?,
            times: [column(batch, "first_time")?, column(batch, "last_time")?],
            starts: [column(batch, "first_start_time")?, column(batch, "last_start_time")?],
            values: [
                column(batch, "first")?,
                column(batch, "last")?,
                column(batch, "value_min")?,
                column(batch, "value_max")?,
            ],
        })
    }

    /// `None` where the row does not tell it.
    fn told(&self, row: usize, function: WindowFunction) -> Option<Told> {
        let ms = |time: i64| time.div_euclid(NS_PER_MS);
        let [first_time, last_time] = self.times.map(|times| at(times, row).map(ms));
        let [first, last, minimum, maximum] = self.values.map(|values| at(values, row));
        let [first_start, last_start] = self.starts.map(|starts| at(starts, row).map_or(0, ms));
        let (last, is_one) = match function {
            WindowFunction::Minimum => (minimum, true),
            WindowFunction::Maximum => (maximum, true),
            WindowFunction::Edges => (last, false),
            WindowFunction::Growth if at(self.resets, row) != Some(0) => return None,
            WindowFunction::Growth => (last, false),
        };
        Some(Told {
            first: (first_time?, first?),
            last: (last_time?, last?),
            starts: (first_start, last_start),
            is_one,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(first_end_ms: i64, step_ms: i64, range_ms: i64) -> Windows {
        Windows { function: WindowFunction::Maximum, first_end_ms, step_ms, range_ms }
    }

    #[test]
    fn the_coarsest_that_fits_is_taken() {
        let tier = |first, step, range| tier_of(&windows(first, step, range)).map(|tier| tier.0);
        assert_eq!(tier(7_200_000, 3_600_000, 3_600_000), Some(3600));
        assert_eq!(tier(7_200_000, 600_000, 3_600_000), Some(300));
        assert_eq!(tier(7_260_000, 3_600_000, 3_600_000), Some(60));
        assert_eq!(tier(7_200_000, 15_000, 3_600_000), None);
        assert_eq!(tier(7_200_001, 60_000, 60_000), None);
    }

    #[test]
    fn what_hours_leave_is_read_from_points() {
        let hour = MS_PER_HOUR;
        let mut rolled = RolledUp::default();
        assert_eq!(rolled.gaps((5, 10)), [(5, 10)]);
        rolled.hours.insert(Hour(1), RolledHour::default());
        rolled.hours.insert(Hour(2), RolledHour::default());
        assert_eq!(rolled.gaps((1, 4 * hour)), [(1, hour), (3 * hour + 1, 4 * hour)]);
        assert_eq!(rolled.gaps((2 * hour + 1, 3 * hour)), []);
        assert_eq!(rolled.last_moments(), [3 * hour]);
        rolled.leave(2 * hour, [Labels::of([("a", "b")])]);
        let left: Vec<Span> = rolled.left((1, 4 * hour)).into_iter().map(|(span, _)| span).collect();
        assert_eq!(left, [(hour + 1, 2 * hour)]);
        assert_eq!(rolled.left((2 * hour + 1, 3 * hour)), []);
    }
}
