//! From points of segments to series under their labels: what a segment has for each ([`Entries`]), and one series of what all segments
//! have ([`Assembly`]), each time once, the last arrival standing.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use arrow::buffer::ScalarBuffer;
use tidemill_eval::promql::{
    Buckets, CUSTOM_SCHEMA, CustomBounds, Histogram, HistogramSample, ResetHint, STALE_NAN, Samples, Series,
};
use tidemill_eval::{Labels, METRIC_NAME, format_number};
use tidemill_text::prometheus::{FLOAT_COUNTS_FLAG, RESET_HINT_SHIFT};

use super::budget::Budget;
use super::conditions::Conditions;
use super::floats::{FloatColumns, FloatRun, MergedFloats, latest_of};
use super::points::{Distribution, Points, Shape};
use super::series::{Metric, Role, SeriesKey, StoredSeries};
use crate::{Error, Result};

/// The finest resolution of a native histogram.
const FINEST_SCHEMA: i32 = 8;
/// The coarsest one; Prometheus's receiver refuses what is coarser.
const COARSEST_SCHEMA: i32 = -4;
/// Half the width of the zero bucket where the sender tells none, as Prometheus has it.
const DEFAULT_ZERO_THRESHOLD: f64 = 1e-128;

/// What one segment has for a selector, by series; divided by the series' hashes, so that threads can each put a part of the series
/// together.
#[derive(Debug)]
pub(super) struct Entries {
    parts: Vec<Vec<Entry>>,
    /// The series that are asked for by a name as it was sent, and what Prometheus names them.
    sent_names: Vec<(SeriesKey, Arc<str>)>,
}

/// Samples of one series in one segment.
#[derive(Debug)]
pub(super) struct Entry {
    key: SeriesKey,
    is_delta: bool,
    samples: EntrySamples,
}

#[derive(Debug)]
enum EntrySamples {
    Floats(FloatRun),
    Histograms(Column<Histogram>),
}

/// What segments have of one series.
#[derive(Debug, Default)]
struct Parts {
    floats: Vec<FloatRun>,
    histograms: Vec<Column<Histogram>>,
    is_delta: bool,
}

/// Samples of one series in one segment.
#[derive(Debug)]
struct Column<T> {
    times: Vec<i64>,
    arrivals: Vec<i64>,
    starts: Vec<i64>,
    values: Vec<T>,
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self { times: Vec::new(), arrivals: Vec::new(), starts: Vec::new(), values: Vec::new() }
    }
}

impl<T> Column<T> {
    fn push(&mut self, points: &Points, at: usize, value: T) {
        self.times.push(points.times[at]);
        self.arrivals.push(points.arrivals[at]);
        self.starts.push(points.starts.get(at).copied().unwrap_or(0));
        self.values.push(value);
    }
}

impl Entries {
    /// None yet, divided into so many parts.
    pub(super) fn new(parts: usize) -> Self {
        Self { parts: (0..parts.max(1)).map(|_| Vec::new()).collect(), sent_names: Vec::new() }
    }

    /// The labels of the series.
    pub(super) fn labels(&self) -> impl Iterator<Item = &Labels> {
        self.parts.iter().flatten().map(|entry| entry.key.labels())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }

    /// How many samples they have.
    pub(super) fn samples(&self) -> usize {
        let samples = |entry: &Entry| match &entry.samples {
            EntrySamples::Floats(run) => run.len(),
            EntrySamples::Histograms(column) => column.times.len(),
        };
        self.parts.iter().flatten().map(samples).sum()
    }

    /// Whether there are native histograms among the samples.
    pub(super) fn has_histograms(&self) -> bool {
        let is_some = |entry: &Entry| matches!(&entry.samples, EntrySamples::Histograms(own) if !own.times.is_empty());
        self.parts.iter().flatten().any(is_some)
    }

    /// Part by part.
    pub(super) fn into_parts(self) -> Vec<Vec<Entry>> {
        self.parts
    }

    /// Adds the points of a series of `metric` under the names of `parts`; samples that are made here count as well.
    ///
    /// # Errors
    /// The query holds more than it may.
    pub(super) fn add(
        &mut self,
        (metric, stored): (&Metric, &StoredSeries),
        parts: &[(Role, Arc<str>)],
        points: &Points,
        (conditions, budget): (&Conditions, &Budget),
    ) -> Result<()> {
        if points.is_empty() {
            return Ok(());
        }
        for (role, name) in parts {
            let named = stored.named(metric, name);
            if let Some(own) = metric.name_behind(name) {
                self.sent_names.push((named.clone(), Arc::clone(own)));
            }
            match role {
                Role::Value => {
                    for run in &points.floats {
                        self.push(named.clone(), metric.is_delta, EntrySamples::Floats(run.clone()));
                    }
                }
                Role::Native => {
                    let mut column = Column::default();
                    let natives = points.distributions.iter().enumerate().filter(|(_, point)| has_native(point));
                    natives.for_each(|(at, point)| column.push(points, at, native(point, metric)));
                    self.push(named, metric.is_delta, EntrySamples::Histograms(column));
                }
                Role::Count => {
                    let value = |point: &Distribution| Some(point.count as f64);
                    self.add_floats(named, metric, floats_of(points, value), budget)?;
                }
                Role::Sum => {
                    let value = |point: &Distribution| point.sum;
                    self.add_floats(named, metric, floats_of(points, value), budget)?;
                }
                Role::Bucket => self.add_made(&named, metric, ("le", buckets(points)), (conditions, budget))?,
                Role::Quantile => {
                    self.add_made(&named, metric, ("quantile", quantiles(points)), (conditions, budget))?;
                }
            }
        }
        Ok(())
    }

    /// Adds numbers that are there under all these labels.
    ///
    /// # Errors
    /// The query holds more than it may.
    pub(super) fn add_info(&mut self, labels: &Labels, times: Vec<i64>, budget: &Budget) -> Result<()> {
        if times.is_empty() {
            return Ok(());
        }
        budget.take_numbers(times.len())?;
        let values = vec![1.0; times.len()];
        let arrivals = vec![0; times.len()];
        self.add_columns(labels.clone(), false, FloatColumns::of(times, values, Vec::new(), arrivals));
        Ok(())
    }

    /// Adds all samples of some columns to a series.
    pub(super) fn add_columns(&mut self, labels: Labels, is_delta: bool, columns: FloatColumns) {
        self.push(SeriesKey::of(labels), is_delta, EntrySamples::Floats(columns.into()));
    }

    fn push(&mut self, key: SeriesKey, is_delta: bool, samples: EntrySamples) {
        let part = key.part(self.parts.len());
        self.parts[part].push(Entry { key, is_delta, samples });
    }

    fn add_floats(&mut self, key: SeriesKey, metric: &Metric, column: Column<f64>, budget: &Budget) -> Result<()> {
        budget.take_numbers(column.times.len())?;
        let Column { times, arrivals, starts, values } = column;
        if !times.is_empty() {
            let run = FloatColumns::of(times, values, starts, arrivals).into();
            self.push(key, metric.is_delta, EntrySamples::Floats(run));
        }
        Ok(())
    }

    fn add_made(
        &mut self,
        named: &SeriesKey,
        metric: &Metric,
        (label, columns): (&str, Vec<(String, Column<f64>)>),
        (conditions, budget): (&Conditions, &Budget),
    ) -> Result<()> {
        for (value, column) in columns {
            if conditions.of(label).all(|matcher| matcher.meets(&value)) {
                let mut labels = named.labels().builder();
                labels.set(label, &value);
                self.add_floats(SeriesKey::of(labels.build()), metric, column, budget)?;
            }
        }
        Ok(())
    }
}

/// Refuses series of several metrics under one name and the same labels, which no sample of theirs would tell apart.
///
/// # Errors
/// Metrics that differ in unit or kind were sent under one name.
pub(super) fn check_names<'a>(all: impl Iterator<Item = &'a Entries>) -> Result<()> {
    let mut known: HashMap<&SeriesKey, &Arc<str>, RandomState> = HashMap::default();
    for (key, name) in all.flat_map(|entries| &entries.sent_names) {
        let first = *known.entry(key).or_insert(name);
        if first != name {
            let problem = format!(
                "{:?} is the name under which several metrics were sent, as {first} and {name}: ask for one of these",
                key.labels().get(METRIC_NAME)
            );
            return Err(Error::statement(problem));
        }
    }
    Ok(())
}

/// Series that are put together, from what segments have of them. Of samples that arrived at the same time the last ones added stand;
/// reset hints are those that a Prometheus would tell.
#[derive(Debug, Default)]
pub(super) struct Assembly(HashMap<SeriesKey, Parts, RandomState>);

impl Assembly {
    /// Adds what a segment has of a series.
    pub(super) fn add(&mut self, entry: Entry) {
        let parts = self.0.entry(entry.key).or_default();
        parts.is_delta |= entry.is_delta;
        match entry.samples {
            EntrySamples::Floats(run) => parts.floats.push(run),
            EntrySamples::Histograms(column) => parts.histograms.push(column),
        }
    }

    /// Adds numbers of a series.
    pub(super) fn add_floats(&mut self, key: &SeriesKey, is_delta: bool, run: FloatRun) {
        let parts = self.0.entry(key.clone()).or_default();
        parts.is_delta |= is_delta;
        parts.floats.push(run);
    }

    /// The series that have samples, by their labels.
    pub(super) fn finish(self) -> Vec<Series> {
        let mut times = ScalarBuffer::default();
        let made = self.0.into_iter().map(|(key, parts)| {
            let samples = parts.finish(&times);
            times = samples.times.clone();
            Series { labels: key.into_labels(), samples }
        });
        let mut made: Vec<Series> = made.filter(|series| !series.samples.is_empty()).collect();
        made.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        made
    }
}

fn floats_of(points: &Points, value: impl Fn(&Distribution) -> Option<f64>) -> Column<f64> {
    let mut column = Column::default();
    for (at, point) in points.distributions.iter().enumerate() {
        let value = if point.is_stale() { Some(STALE_NAN) } else { value(point) };
        if let Some(value) = value {
            column.push(points, at, value);
        }
    }
    column
}

/// The cumulative counts of buckets by their upper bounds, `+Inf` among them. A point without a value ends those whose bounds it has.
fn buckets(points: &Points) -> Vec<(String, Column<f64>)> {
    let mut columns: Vec<(f64, Column<f64>)> = vec![(f64::INFINITY, Column::default())];
    for (at, point) in points.distributions.iter().enumerate() {
        if let Shape::Classic { counts, bounds } = &point.shape {
            let mut cumulative = 0_u64;
            for (bound, count) in bounds.iter().zip(counts.iter().chain(std::iter::repeat(&0))) {
                cumulative = cumulative.saturating_add(*count);
                column_of(&mut columns, *bound).push(points, at, point.told(cumulative as f64));
            }
        } else if !point.is_stale() {
            continue;
        }
        column_of(&mut columns, f64::INFINITY).push(points, at, point.told(point.count as f64));
    }
    named(columns)
}

fn quantiles(points: &Points) -> Vec<(String, Column<f64>)> {
    let mut columns: Vec<(f64, Column<f64>)> = Vec::new();
    for (at, point) in points.distributions.iter().enumerate() {
        let Shape::Summary(quantiles) = &point.shape else { continue };
        for (quantile, value) in quantiles {
            column_of(&mut columns, *quantile).push(points, at, point.told(*value));
        }
    }
    named(columns)
}

fn column_of(columns: &mut Vec<(f64, Column<f64>)>, key: f64) -> &mut Column<f64> {
    let place = columns.iter().position(|(known, _)| known.to_bits() == key.to_bits());
    let place = place.unwrap_or_else(|| {
        columns.push((key, Column::default()));
        columns.len() - 1
    });
    &mut columns[place].1
}

fn named(columns: Vec<(f64, Column<f64>)>) -> Vec<(String, Column<f64>)> {
    columns.into_iter().map(|(key, column)| (format_number(key), column)).collect()
}

/// Whether there is a native histogram of a point's resolution.
fn has_native(point: &Distribution) -> bool {
    !matches!(point.shape, Shape::Exponential { scale, .. } if scale < COARSEST_SCHEMA)
}

/// A histogram of OpenTelemetry, or of remote write, as a native one. OpenTelemetry's bucket `i` is Prometheus's `i + 1`.
fn native(point: &Distribution, metric: &Metric) -> Histogram {
    let has_float_counts = point.flags & FLOAT_COUNTS_FLAG != 0;
    let number = |count: u64| if has_float_counts { f64::from_bits(count) } else { count as f64 };
    let hint = match (point.flags >> RESET_HINT_SHIFT) & 3 {
        1 => ResetHint::Reset,
        2 => ResetHint::NotReset,
        3 => ResetHint::Gauge,
        _ if metric.is_delta => ResetHint::Gauge,
        _ => ResetHint::Unknown,
    };
    let sum = if point.is_stale() { STALE_NAN } else { point.sum.unwrap_or(0.0) };
    let empty = Histogram { hint, count: number(point.count), sum, ..Histogram::default() };
    let numbers = |counts: &[u64]| counts.iter().copied().map(number).collect::<Vec<f64>>();
    match &point.shape {
        Shape::Exponential { scale, zero_count, zero_threshold, positive, negative } => {
            let buckets = exponential(*scale, positive, negative, number);
            let is_untold = *zero_threshold == 0.0 && !metric.is_exact;
            Histogram {
                zero_threshold: if is_untold { DEFAULT_ZERO_THRESHOLD } else { *zero_threshold },
                zero_count: number(*zero_count),
                hint: empty.hint,
                count: empty.count,
                sum: empty.sum,
                ..buckets
            }
        }
        Shape::Classic { counts, bounds } => Histogram {
            schema: CUSTOM_SCHEMA,
            positive: (0..).zip(numbers(counts)).filter(|(_, count)| *count != 0.0).collect(),
            custom: CustomBounds::new(bounds.clone()),
            ..empty
        },
        Shape::Summary(_) => empty,
    }
}

/// The buckets of an exponential histogram; a finer resolution than Prometheus knows is brought to its finest.
fn exponential(
    scale: i32,
    positive: &(i32, Vec<u64>),
    negative: &(i32, Vec<u64>),
    number: impl Fn(u64) -> f64,
) -> Histogram {
    let schema = scale.min(FINEST_SCHEMA);
    let by = u32::try_from(scale.saturating_sub(schema)).unwrap_or(0);
    let side = |(offset, counts): &(i32, Vec<u64>)| {
        let mut buckets: Vec<(i32, f64)> = Vec::new();
        for (at, count) in (i64::from(*offset)..).zip(counts.iter().map(|count| number(*count))) {
            let index = i32::try_from((at >> by.min(63)) + 1).unwrap_or(i32::MAX);
            match buckets.last_mut() {
                Some((last, total)) if *last == index => *total += count,
                _ => buckets.push((index, count)),
            }
        }
        buckets.into_iter().filter(|(_, count)| *count != 0.0).collect::<Buckets>()
    };
    Histogram { schema, positive: side(positive), negative: side(negative), ..Histogram::default() }
}

/// An exponential histogram of OpenTelemetry by its scale, the count and the half width of its zero bucket, and the offset and counts of
/// its positive and its negative side. Its count is that of the buckets.
pub(crate) fn exponential_histogram(
    scale: i32,
    (zero_count, zero_threshold): (u64, f64),
    positive: &(i32, Vec<u64>),
    negative: &(i32, Vec<u64>),
) -> Histogram {
    let buckets = exponential(scale, positive, negative, |count| count as f64);
    let count = positive.1.iter().chain(&negative.1).map(|count| *count as f64).sum::<f64>() + zero_count as f64;
    Histogram { zero_count: zero_count as f64, zero_threshold, count, ..buckets }
}

impl Parts {
    /// Their samples, of which times share memory with `known` ones where they are the same.
    fn finish(self, known: &ScalarBuffer<i64>) -> Samples {
        let mut floats = MergedFloats::new(self.floats, known);
        let mut native = merged(self.histograms);
        drop_replaced(&mut floats, &mut native);
        let mut before: Option<Histogram> = None;
        let mut histograms = Vec::with_capacity(native.values.len());
        for (at, value) in native.values.into_iter().enumerate() {
            // A number between two histograms begins anew.
            let since = at.checked_sub(1).map(|before| native.times[before]);
            let next_float =
                since.and_then(|since| floats.times.get(floats.times.partition_point(|time| *time <= since)));
            if next_float.is_some_and(|float| *float < native.times[at]) {
                before = None;
            }
            let mut stored = value.clone();
            stored.hint = value.stored_hint(before.as_ref());
            before = Some(value);
            let start = native.starts.get(at).copied().unwrap_or(0);
            histograms.push(HistogramSample { time: native.times[at], start, histogram: Arc::new(stored) });
        }
        let MergedFloats { times, values, starts, weights, is_unbroken, .. } = floats;
        Samples { times, values, starts, weights, histograms, is_delta: self.is_delta, is_unbroken }
    }
}

/// The samples of all columns by rising time, of equal times the one that arrived last.
fn merged<T: Clone>(mut columns: Vec<Column<T>>) -> Column<T> {
    columns.retain(|column| !column.times.is_empty());
    columns.sort_by_key(|column| column.times[0]);
    let rows = columns.iter().enumerate().flat_map(|(place, column)| {
        let rows = column.times.iter().zip(&column.arrivals).enumerate();
        rows.map(move |(row, (time, arrival))| (*time, *arrival, place, row))
    });
    let order = latest_of(rows);
    let mut all = Column::default();
    for (place, row) in order {
        let column = &columns[place];
        all.times.push(column.times[row]);
        all.arrivals.push(column.arrivals[row]);
        all.starts.push(column.starts.get(row).copied().unwrap_or(0));
        all.values.push(column.values[row].clone());
    }
    all
}

/// Of a number and a histogram at the same time the one that arrived last stands.
fn drop_replaced(floats: &mut MergedFloats, histograms: &mut Column<Histogram>) {
    if floats.times.is_empty() || histograms.times.is_empty() {
        return;
    }
    let rows = histograms.times.iter().zip(&histograms.arrivals);
    let both: HashMap<i64, bool> = rows
        .filter(|(time, _)| floats.times.binary_search(time).is_ok())
        .filter_map(|(time, own)| Some((*time, *own >= floats.arrival_at(*time)?)))
        .collect();
    let histogram_goes: Vec<bool> = histograms.times.iter().map(|time| both.get(time) == Some(&false)).collect();
    floats.without(|time| both.get(&time) == Some(&true));
    histograms.keep(&histogram_goes);
}

impl<T> Column<T> {
    fn keep(&mut self, goes: &[bool]) {
        fn kept<V>(values: &mut Vec<V>, goes: &[bool]) {
            let mut goes = goes.iter();
            values.retain(|_| goes.next() != Some(&true));
        }
        kept(&mut self.times, goes);
        kept(&mut self.arrivals, goes);
        kept(&mut self.starts, goes);
        kept(&mut self.values, goes);
    }
}
