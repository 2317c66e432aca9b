//! How long inputs took from their arrival until they were queryable: a histogram since the start, and the inputs of the last
//! minutes one by one, so that their quantiles are exact.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tidemill_types::TimestampNs;

/// Upper bounds of the histogram, in seconds; what is above all of them is counted in [`LagHistogram::count`] only.
pub const LAG_BOUNDS: [f64; 15] = [0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];
/// How far back "the last minutes" reach.
pub const LAG_WINDOW: Duration = Duration::from_secs(300);
/// More inputs than this are not remembered one by one; the oldest go first.
const MAX_RECENT: usize = 8192;

/// Every input since the start.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LagHistogram {
    /// Inputs at or below each of [`LAG_BOUNDS`], those below smaller bounds included.
    pub at_most: [u64; LAG_BOUNDS.len()],
    /// All inputs.
    pub count: u64,
    /// Their lags added up, in seconds.
    pub sum: f64,
}

/// The inputs of the last minutes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecentLag {
    /// How many.
    pub inputs: usize,
    /// Half of them took at most this long, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took at most this long, in milliseconds.
    pub p99_ms: f64,
}

/// Measures, bounded in memory.
#[derive(Debug, Default)]
pub struct Lag(Mutex<Measured>);

#[derive(Debug, Default)]
struct Measured {
    histogram: LagHistogram,
    /// When an input became queryable, and its lag in seconds; oldest first.
    recent: VecDeque<(TimestampNs, f64)>,
}

impl Lag {
    /// Inputs that arrived at `arrivals` are queryable `now`.
    pub fn observe(&self, arrivals: impl Iterator<Item = TimestampNs>, now: TimestampNs) {
        let measured = &mut *self.0.lock();
        for arrival in arrivals {
            let seconds = now.0.saturating_sub(arrival.0).max(0) as f64 / 1e9;
            let histogram = &mut measured.histogram;
            histogram.count += 1;
            histogram.sum += seconds;
            for (bound, count) in LAG_BOUNDS.iter().zip(&mut histogram.at_most) {
                *count += u64::from(seconds <= *bound);
            }
            measured.recent.push_back((now, seconds));
        }
        measured.forget(now);
    }

    /// Since the start.
    pub fn histogram(&self) -> LagHistogram {
        self.0.lock().histogram.clone()
    }

    /// Over [`LAG_WINDOW`]; `None` when nothing became queryable in it.
    pub fn recent(&self, now: TimestampNs) -> Option<RecentLag> {
        let mut measured = self.0.lock();
        measured.forget(now);
        let mut lags: Vec<f64> = measured.recent.iter().map(|(_, seconds)| *seconds).collect();
        drop(measured);
        lags.sort_by(f64::total_cmp);
        // The nearest rank: of one input every quantile is its own.
        let quantile = |share: usize| lags.get((lags.len() * share).div_ceil(100).max(1) - 1).map(|it| it * 1e3);
        Some(RecentLag { inputs: lags.len(), p50_ms: quantile(50)?, p99_ms: quantile(99)? })
    }
}

impl Measured {
    fn forget(&mut self, now: TimestampNs) {
        let oldest = now.0.saturating_sub(i64::try_from(LAG_WINDOW.as_nanos()).unwrap_or(i64::MAX));
        let is_full = |recent: &VecDeque<_>| recent.len() > MAX_RECENT;
        while is_full(&self.recent) || self.recent.front().is_some_and(|(at, _)| at.0 < oldest) {
            self.recent.pop_front();
        }
        if self.recent.is_empty() {
            self.recent.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> TimestampNs {
        TimestampNs(1_800_000_000_000_000_000 + (seconds * 1e9) as i64)
    }

    #[test]
    fn quantiles_are_of_the_last_minutes_and_the_histogram_of_all() {
        let lag = Lag::default();
        assert_eq!(lag.recent(at(0.0)), None);
        lag.observe((1..=100).map(|number| at(-f64::from(number) / 1000.0)), at(0.0));
        let recent = lag.recent(at(1.0)).expect("100 inputs");
        assert_eq!((recent.inputs, recent.p50_ms.round(), recent.p99_ms.round()), (100, 50.0, 99.0));
        lag.observe([at(390.0)].into_iter(), at(400.0));
        let recent = lag.recent(at(400.0)).expect("the last input");
        assert_eq!((recent.inputs, recent.p50_ms.round(), recent.p99_ms.round()), (1, 10_000.0, 10_000.0));
        let histogram = lag.histogram();
        assert_eq!((histogram.count, histogram.at_most[0], histogram.at_most[3]), (101, 10, 100));
        assert_eq!((histogram.at_most[10], histogram.at_most[11]), (100, 101));
        assert!((histogram.sum - 15.05).abs() < 1e-6, "{}", histogram.sum);
    }

    #[test]
    fn memory_is_bounded_and_a_clock_that_goes_back_does_no_harm() {
        let lag = Lag::default();
        lag.observe((0..20_000).map(|_| at(1.0)), at(0.0));
        assert_eq!(lag.recent(at(0.0)).expect("inputs"), RecentLag { inputs: MAX_RECENT, p50_ms: 0.0, p99_ms: 0.0 });
    }
}
