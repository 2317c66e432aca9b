//! The windows of a series, one after the other: where one begins and ends is looked for from where the last one did.

use super::functions::window::{Window, is_restarted};
use super::source::Samples;

/// How many times are looked at one by one before the rest is searched.
const NEAR: usize = 16;

/// A place among rising times.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor(usize);

/// Where the last window of a series was.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Walk {
    first: Cursor,
    pub(super) floats: Cursor,
}

impl Cursor {
    /// How many of `times` are at or before `time`. Quick where that is not far from the last answer.
    #[inline]
    pub(super) fn until(&mut self, times: &[i64], time: i64) -> usize {
        if self.0.checked_sub(1).is_some_and(|before| times[before] > time) {
            self.0 = times[..self.0].partition_point(|at| *at <= time);
            return self.0;
        }
        let near = times.len().min(self.0 + NEAR);
        while self.0 < near && times[self.0] <= time {
            self.0 += 1;
        }
        if self.0 == near {
            self.0 += times[near..].partition_point(|at| *at <= time);
        }
        self.0
    }
}

impl Walk {
    /// The samples of a series in the range `(start - before, end + after]`; `resets` are those of [`resets`].
    pub(super) fn window<'a>(
        &mut self,
        samples: &'a Samples,
        resets: &'a [usize],
        (start, end): (i64, i64),
        (before, after): (i64, i64),
    ) -> Window<'a> {
        let (from, to) = (start.saturating_sub(before), end.saturating_add(after));
        let first = self.first.until(&samples.times, from);
        let last = self.floats.until(&samples.times, to).max(first);
        let first_histogram = samples.histograms.partition_point(|sample| sample.time <= from);
        let last_histogram = samples.histograms.partition_point(|sample| sample.time <= to).max(first_histogram);
        // Of two samples between which a counter began anew, both must be inside.
        let first_reset = resets.partition_point(|at| *at <= first);
        let last_reset = resets.partition_point(|at| *at < last).max(first_reset);
        Window {
            first,
            times: &samples.times[first..last],
            values: &samples.values[first..last],
            starts: if samples.starts.is_empty() { &[] } else { &samples.starts[first..last] },
            weights: if samples.weights.is_empty() { &[] } else { &samples.weights[first..last] },
            resets: &resets[first_reset..last_reset],
            histograms: &samples.histograms[first_histogram..last_histogram],
            is_delta: samples.is_delta,
            start,
            end,
        }
    }
}

/// The positions of the floats before which a counter began anew: it fell, or its start time says so.
pub(super) fn resets(samples: &Samples) -> Vec<usize> {
    let (times, values, starts) = (&*samples.times, &*samples.values, &*samples.starts);
    let falls = || values.windows(2).zip(1..).filter(|(pair, _)| pair[1] < pair[0]).map(|(_, at)| at);
    if starts.is_empty() {
        // Most counters never fall, which is found quickly.
        let has_fall = values
            .iter()
            .zip(values.get(1..).unwrap_or_default())
            .fold(false, |any, (before, now)| any | (now < before));
        return if has_fall { falls().collect() } else { Vec::new() };
    }
    let is_reset = |at: &usize| {
        values[*at] < values[at - 1] || is_restarted((starts[at - 1], times[at - 1]), (starts[*at], times[*at]))
    };
    (1..values.len()).filter(is_reset).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_place_does_not_depend_on_the_last(
            mut times in prop::collection::vec(-50i64..200, 0..80),
            asked in prop::collection::vec(-60i64..210, 1..40),
        ) {
            times.sort_unstable();
            let mut cursor = Cursor::default();
            for time in asked {
                prop_assert_eq!(cursor.until(&times, time), times.partition_point(|at| *at <= time));
            }
        }
    }
}
