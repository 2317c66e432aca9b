//! Samples of a range aggregation: gathered by series, then read window by window.
//!
//! Windows are `(t - range, t]`, moved back by the offset. Where step and range have a common divisor, lines are added up in buckets of
//! it, so that overlapping windows share their work; a quantile and a counter's rate keep every sample.

use serde::{Deserialize, Serialize};
use tidemill_lang::logql::ast::RangeFunction;

use super::labels::LabelSet;

/// The instants of an answer, and the window before each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    /// The first instant, moved back by the offset.
    first_ns: i64,
    step_ns: i64,
    count: usize,
    range_ns: i64,
    bucket_ns: i64,
}

impl Windows {
    /// `count` windows of `range_ns`, each `step_ns` behind the one before; the first ends at `first_ns`.
    pub fn new(first_ns: i64, step_ns: i64, count: usize, range_ns: i64) -> Self {
        let bucket_ns = if count > 1 { common_divisor(step_ns, range_ns) } else { range_ns };
        Self { first_ns, step_ns, count, range_ns, bucket_ns: bucket_ns.max(1) }
    }

    /// The first nanosecond that lies in a window.
    pub fn start_ns(&self) -> i64 {
        self.first_ns.saturating_sub(self.range_ns).saturating_add(1)
    }

    /// The nanosecond behind the last that lies in a window.
    pub fn end_ns(&self) -> i64 {
        let steps = i64::try_from(self.count.saturating_sub(1)).unwrap_or(i64::MAX);
        self.first_ns.saturating_add(self.step_ns.saturating_mul(steps)).saturating_add(1)
    }

    /// Whether some window holds the time.
    pub fn hold(&self, time_ns: i64) -> bool {
        if time_ns < self.start_ns() || time_ns >= self.end_ns() || self.range_ns <= 0 {
            return false;
        }
        // The first instant not before the time; its window must reach back to it.
        let behind = (time_ns - self.first_ns).max(0);
        let instant = self.first_ns + div_up(behind, self.step_ns.max(1)) * self.step_ns;
        time_ns > instant - self.range_ns
    }

    /// Whether every window that holds a time between two holds all of them, and one does.
    pub fn hold_together(&self, first_ns: i64, last_ns: i64) -> bool {
        self.hold(first_ns) && self.hold(last_ns) && self.bucket(first_ns) == self.bucket(last_ns)
    }

    /// Whether some window holds a time between two and not another; or no window holds any.
    pub fn tell_apart(&self, first_ns: i64, last_ns: i64) -> bool {
        !self.hold_together(first_ns, last_ns)
    }

    /// How many windows there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The bucket of a time: bucket b ends, inclusively, b buckets behind the first window's start.
    fn bucket(&self, time_ns: i64) -> i64 {
        div_up(time_ns - (self.first_ns - self.range_ns), self.bucket_ns)
    }

    /// The buckets of window `index`, both ends included.
    fn buckets(&self, index: usize) -> (i64, i64) {
        let before = index as i64 * (self.step_ns / self.bucket_ns);
        (before + 1, before + self.range_ns / self.bucket_ns)
    }

    /// The end of window `index`.
    fn instant(&self, index: usize) -> i64 {
        self.first_ns + index as i64 * self.step_ns
    }
}

fn div_up(value: i64, by: i64) -> i64 {
    value.div_euclid(by) + i64::from(value.rem_euclid(by) > 0)
}

fn common_divisor(left: i64, right: i64) -> i64 {
    let (mut left, mut right) = (left.max(0), right.max(0));
    while right > 0 {
        (left, right) = (right, left % right);
    }
    left
}

/// What is known of the samples of one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Summary {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    mean: f64,
    /// The sum of squared distances from the mean.
    spread: f64,
    first: (i64, f64),
    last: (i64, f64),
}

impl Summary {
    fn of(time_ns: i64, value: f64) -> Self {
        let sample = (time_ns, value);
        Self { count: 1, sum: value, min: value, max: value, mean: value, spread: 0.0, first: sample, last: sample }
    }

    /// Of so many samples with a sum, from a first time to a last, as if they were alike.
    fn of_alike((first_ns, last_ns): (i64, i64), count: u64, sum: f64) -> Self {
        let each = sum / count as f64;
        Self {
            sum,
            count,
            min: each,
            max: each,
            mean: each,
            spread: 0.0,
            first: (first_ns, each),
            last: (last_ns, each),
        }
    }

    /// Adds what is known of others; the spread by Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm" (1979).
    fn merge(&mut self, other: &Self) {
        let (own, others) = (self.count as f64, other.count as f64);
        let distance = other.mean - self.mean;
        self.spread += other.spread + distance * distance * own * others / (own + others);
        self.mean += distance * others / (own + others);
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        if other.first.0 < self.first.0 {
            self.first = other.first;
        }
        if other.last.0 >= self.last.0 {
            self.last = other.last;
        }
    }
}

/// The samples of one series.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Samples {
    /// Summaries by bucket, sorted.
    Buckets(Vec<(i64, Summary)>),
    /// Every sample with its time.
    All(Vec<(i64, f64)>),
}

impl Samples {
    pub fn new(function: RangeFunction) -> Self {
        match function {
            RangeFunction::QuantileOverTime | RangeFunction::RateCounter => Self::All(Vec::new()),
            _ => Self::Buckets(Vec::new()),
        }
    }

    pub fn add(&mut self, windows: &Windows, time_ns: i64, value: f64) {
        match self {
            Self::All(samples) => samples.push((time_ns, value)),
            Self::Buckets(buckets) => add_summary(buckets, windows.bucket(time_ns), &Summary::of(time_ns, value)),
        }
    }

    /// Adds so many samples with a sum in one bucket, from a first time to a last, for functions that need no more of them.
    pub fn add_alike(&mut self, windows: &Windows, times: (i64, i64), count: u64, sum: f64) {
        if let Self::Buckets(buckets) = self {
            add_summary(buckets, windows.bucket(times.0), &Summary::of_alike(times, count, sum));
        }
    }

    /// Adds the samples of the same series from elsewhere.
    pub fn merge(&mut self, other: Self) {
        match (self, other) {
            (Self::All(samples), Self::All(more)) => samples.extend(more),
            (Self::Buckets(buckets), Self::Buckets(more)) => {
                for (bucket, summary) in more {
                    add_summary(buckets, bucket, &summary);
                }
            }
            // Both sides were made for one function.
            _ => {}
        }
    }

    /// The function's value for each window; none where the window has no sample.
    pub fn values(mut self, windows: &Windows, function: RangeFunction, parameter: f64) -> Vec<Option<f64>> {
        if let Self::All(samples) = &mut self {
            samples.sort_by_key(|(time_ns, _)| *time_ns);
        }
        let mut values = vec![None; windows.count];
        for (index, value) in values.iter_mut().enumerate() {
            *value = match &self {
                Self::Buckets(buckets) => {
                    let (first, last) = windows.buckets(index);
                    let start = buckets.partition_point(|(bucket, _)| *bucket < first);
                    let mut inside = buckets[start..].iter().take_while(|(bucket, _)| *bucket <= last);
                    inside.next().map(|(_, summary)| {
                        let mut total = *summary;
                        inside.for_each(|(_, summary)| total.merge(summary));
                        summarized(function, &total, windows.range_ns as f64 / 1e9)
                    })
                }
                Self::All(samples) => {
                    let end_ns = windows.instant(index);
                    let start_ns = end_ns - windows.range_ns;
                    let start = samples.partition_point(|(time_ns, _)| *time_ns <= start_ns);
                    let end = samples.partition_point(|(time_ns, _)| *time_ns <= end_ns);
                    match function {
                        RangeFunction::RateCounter => counter_rate(&samples[start..end], start_ns, end_ns),
                        _ => quantile(parameter, samples[start..end].iter().map(|(_, value)| *value).collect()),
                    }
                }
            };
        }
        values
    }
}

fn add_summary(buckets: &mut Vec<(i64, Summary)>, bucket: i64, summary: &Summary) {
    let at = match buckets.last() {
        Some((last, _)) if *last == bucket => buckets.len() - 1,
        Some((last, _)) if *last < bucket => buckets.len(),
        _ => buckets.partition_point(|(own, _)| *own < bucket),
    };
    match buckets.get_mut(at) {
        Some((own, existing)) if *own == bucket => existing.merge(summary),
        _ => buckets.insert(at, (bucket, *summary)),
    }
}

fn summarized(function: RangeFunction, total: &Summary, range_seconds: f64) -> f64 {
    use RangeFunction as F;
    match function {
        F::CountOverTime => total.count as f64,
        F::Rate | F::BytesRate => total.sum / range_seconds,
        F::BytesOverTime | F::SumOverTime => total.sum,
        F::AvgOverTime => total.mean,
        F::MinOverTime => total.min,
        F::MaxOverTime => total.max,
        F::FirstOverTime => total.first.1,
        F::LastOverTime => total.last.1,
        F::StdvarOverTime => total.spread / total.count as f64,
        F::StddevOverTime => (total.spread / total.count as f64).sqrt(),
        F::AbsentOverTime | F::QuantileOverTime | F::RateCounter => 1.0,
    }
}

/// The quantile of the values by linear interpolation; infinite where `rank` is outside 0 to 1.
fn quantile(rank: f64, mut values: Vec<f64>) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    if rank.is_nan() {
        return Some(f64::NAN);
    }
    if !(0.0..=1.0).contains(&rank) {
        return Some(if rank < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    values.sort_by(f64::total_cmp);
    let position = rank * (values.len() - 1) as f64;
    let (below, above) = (position.floor(), (position.floor() + 1.0).min((values.len() - 1) as f64));
    let weight = position - below;
    Some(values[below as usize] * (1.0 - weight) + values[above as usize] * weight)
}

/// The rate of a counter, extrapolated to the window's ends as Prometheus does; a value below the one before is a reset.
fn counter_rate(samples: &[(i64, f64)], start_ns: i64, end_ns: i64) -> Option<f64> {
    let ((first_ns, first), (last_ns, last)) = (*samples.first()?, *samples.last()?);
    if samples.len() < 2 {
        return None;
    }
    let seconds = |from: i64, to: i64| (to - from) as f64 / 1e9;
    let resets: f64 = samples.windows(2).filter(|pair| pair[1].1 < pair[0].1).map(|pair| pair[0].1).sum();
    let increase = last - first + resets;
    let sampled = seconds(first_ns, last_ns);
    let average = sampled / (samples.len() - 1) as f64;
    let mut to_start = seconds(start_ns, first_ns);
    let to_end = seconds(last_ns, end_ns);
    if increase > 0.0 && first >= 0.0 {
        to_start = to_start.min(sampled * (first / increase));
    }
    let extend = |gap: f64| if gap < average * 1.1 { gap } else { average / 2.0 };
    let covered = sampled + extend(to_start) + extend(to_end);
    Some(increase * (covered / sampled) / seconds(start_ns, end_ns))
}

/// A series with its samples.
pub(super) type Collected = (LabelSet, Samples);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_open_on_the_left() {
        let windows = Windows::new(100, 10, 3, 20);
        assert_eq!((windows.start_ns(), windows.end_ns()), (81, 121));
        assert!(!windows.hold(80) && windows.hold(81) && windows.hold(120) && !windows.hold(121));
        let gaps = Windows::new(100, 10, 3, 3);
        assert!(gaps.hold(100) && gaps.hold(98) && !gaps.hold(97) && !gaps.hold(101) && gaps.hold(108));
        let mut samples = Samples::new(RangeFunction::CountOverTime);
        for time in [81, 90, 100, 101, 110, 120] {
            samples.add(&windows, time, 1.0);
        }
        let counts = samples.values(&windows, RangeFunction::CountOverTime, 0.0);
        assert_eq!(counts, [Some(3.0), Some(3.0), Some(3.0)]);
    }

    #[test]
    fn merged_halves_equal_the_whole() {
        let windows = Windows::new(1000, 100, 5, 250);
        let values = [(751, 3.0), (800, 9.0), (951, 4.5), (1000, -2.0), (1200, 8.0), (1399, 1.0)];
        for function in [RangeFunction::StdvarOverTime, RangeFunction::LastOverTime, RangeFunction::QuantileOverTime] {
            let mut whole = Samples::new(function);
            let (mut odd, mut even) = (Samples::new(function), Samples::new(function));
            for (index, (time, value)) in values.into_iter().enumerate() {
                whole.add(&windows, time, value);
                if index % 2 == 0 { even.add(&windows, time, value) } else { odd.add(&windows, time, value) }
            }
            even.merge(odd);
            let whole = whole.values(&windows, function, 0.5);
            for (left, right) in whole.iter().zip(even.values(&windows, function, 0.5)) {
                let pair = left.zip(right);
                assert!(pair.map_or(left.is_none() && right.is_none(), |(left, right)| (left - right).abs() < 1e-9));
            }
        }
    }
}
