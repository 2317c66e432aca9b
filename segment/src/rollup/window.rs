//! What a window knows of one series, and how two neighbouring windows become one.
//!
//! Everything is kept so that merging is associative: a window counts what happened between its own samples, and keeps its first and last
//! sample, so that what happened between two windows is counted when they are merged (or by a reader). So a rollup of rollups equals a
//! rollup of the samples.

use super::distribution::Distribution;
use super::sketch::Sketch;

/// How the values of a series relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// Each value stands for itself: gauges, and sums that may fall.
    Level,
    /// Each value counts since the one before.
    Delta,
    /// Each value counts since the start time; a smaller one means that the counter was reset.
    Cumulative,
}

/// A value and when it was.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample<T> {
    pub(crate) time: i64,
    /// When counting began.
    pub(crate) start: Option<i64>,
    pub(crate) value: T,
}

impl<T> Sample<T> {
    /// Whether counting began anew after `before` was taken.
    fn began_after(&self, before: &Self) -> bool {
        self.start.is_some_and(|start| start > before.time || (start == before.time && before.start != self.start))
    }
}

/// The numbers of a window.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Numbers {
    pub(crate) first: Sample<f64>,
    pub(crate) last: Sample<f64>,
    pub(crate) sum: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Counters only: how much was counted from the first sample to the last; for deltas also what the first sample counts.
    pub(crate) increase: Option<f64>,
    pub(crate) sketch: Sketch,
}

/// The distributions of a window.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Distributions {
    pub(crate) first: Sample<Distribution>,
    pub(crate) last: Sample<Distribution>,
    /// As for numbers: from the first to the last, for deltas with the first.
    pub(crate) increase: Distribution,
    /// Of points that count since the one before; cumulative points tell extremes since the start, which are not the window's.
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
}

/// What a window holds besides markers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// Only stale markers.
    Nothing,
    Numbers(Box<Numbers>),
    Distributions(Box<Distributions>),
}

/// All that a rollup row says, without the labels.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Window {
    pub(crate) samples: u64,
    pub(crate) stale: u64,
    /// The last stale marker.
    pub(crate) stale_time: Option<i64>,
    pub(crate) resets: u64,
    pub(crate) arrival: i64,
    pub(crate) content: Content,
}

impl Window {
    pub(crate) fn of_stale_marker(time: i64, arrival: i64) -> Self {
        Self { samples: 0, stale: 1, stale_time: Some(time), resets: 0, arrival, content: Content::Nothing }
    }

    pub(crate) fn of_number(course: Course, sample: Sample<f64>, arrival: i64) -> Self {
        let value = sample.value;
        let mut sketch = Sketch::default();
        sketch.add(value, 1);
        let increase = match course {
            Course::Level => None,
            Course::Delta => Some(value),
            Course::Cumulative => Some(0.0),
        };
        let numbers =
            Numbers { first: sample.clone(), last: sample, sum: value, min: value, max: value, increase, sketch };
        Self {
            samples: 1,
            stale: 0,
            stale_time: None,
            resets: 0,
            arrival,
            content: Content::Numbers(Box::new(numbers)),
        }
    }

    pub(crate) fn of_distribution(
        course: Course,
        sample: Sample<Distribution>,
        extremes: (Option<f64>, Option<f64>),
        arrival: i64,
    ) -> Self {
        let is_delta = course == Course::Delta;
        let increase = if is_delta { sample.value.clone() } else { Distribution::empty(&sample.value) };
        let (min, max) = if is_delta { extremes } else { (None, None) };
        let content = Distributions { first: sample.clone(), last: sample, increase, min, max };
        Self {
            samples: 1,
            stale: 0,
            stale_time: None,
            resets: 0,
            arrival,
            content: Content::Distributions(Box::new(content)),
        }
    }

    /// Whether the two can be one row: distributions only with the same bounds.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        match (&self.content, &other.content) {
            (Content::Nothing, _) | (_, Content::Nothing) | (Content::Numbers(_), Content::Numbers(_)) => true,
            (Content::Distributions(mine), Content::Distributions(other)) => mine.increase.fits(&other.increase),
            _ => false,
        }
    }

    /// Adds a window that lies after this one and fits.
    pub(crate) fn append(&mut self, course: Course, next: Self) {
        self.samples += next.samples;
        self.stale += next.stale;
        self.stale_time = self.stale_time.max(next.stale_time);
        self.resets += next.resets;
        self.arrival = self.arrival.max(next.arrival);
        match (&mut self.content, next.content) {
            (_, Content::Nothing) => {}
            (mine @ Content::Nothing, other) => *mine = other,
            (Content::Numbers(mine), Content::Numbers(next)) => self.resets += u64::from(mine.append(course, *next)),
            (Content::Distributions(mine), Content::Distributions(next)) => {
                self.resets += u64::from(mine.append(course, *next));
            }
            _ => debug_assert!(false, "only windows that fit are appended"),
        }
    }
}

impl Numbers {
    /// Answers whether the counter was reset between the two.
    fn append(&mut self, course: Course, next: Self) -> bool {
        let is_reset =
            course == Course::Cumulative && (next.first.began_after(&self.last) || next.first.value < self.last.value);
        if let (Some(mine), Some(more)) = (&mut self.increase, next.increase) {
            *mine += more;
            if course == Course::Cumulative {
                *mine += if is_reset { next.first.value } else { next.first.value - self.last.value };
            }
        }
        self.last = next.last;
        self.sum += next.sum;
        // f64::min and f64::max ignore NaN when the other is a number.
        self.min = self.min.min(next.min);
        self.max = self.max.max(next.max);
        self.sketch.merge(&next.sketch);
        is_reset
    }
}

impl Distributions {
    fn append(&mut self, course: Course, next: Self) -> bool {
        let mut is_reset = false;
        if course == Course::Cumulative {
            let since = match next.first.began_after(&self.last) {
                true => None,
                false => next.first.value.since(&self.last.value),
            };
            is_reset = since.is_none();
            self.increase.add(since.as_ref().unwrap_or(&next.first.value));
        }
        self.increase.add(&next.increase);
        self.last = next.last;
        self.min = [self.min, next.min].into_iter().flatten().reduce(f64::min);
        self.max = [self.max, next.max].into_iter().flatten().reduce(f64::max);
        is_reset
    }
}

/// The end of the window that holds `time`: windows are `(end - length, end]`.
pub(crate) fn window_end(time: i64, length: i64) -> i64 {
    let over = time.rem_euclid(length);
    if over == 0 { time } else { time.saturating_add(length - over) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(course: Course, time: i64, start: Option<i64>, value: f64) -> Window {
        Window::of_number(course, Sample { time, start, value }, time)
    }

    fn numbers(window: &Window) -> &Numbers {
        match &window.content {
            Content::Numbers(numbers) => numbers,
            other => panic!("{other:?}"),
        }
    }

    fn fold(course: Course, windows: impl IntoIterator<Item = Window>) -> Window {
        let mut windows = windows.into_iter();
        let mut all = windows.next().expect("not empty");
        windows.for_each(|next| all.append(course, next));
        all
    }

    #[test]
    fn windows_end_where_they_are_labelled() {
        assert_eq!(window_end(20, 10), 20);
        assert_eq!(window_end(21, 10), 30);
        assert_eq!(window_end(-1, 10), 0);
    }

    #[test]
    fn resets_are_seen_by_value_and_by_start_time() {
        let course = Course::Cumulative;
        let all = fold(
            course,
            [(1, 0, 5.0), (2, 0, 8.0), (3, 0, 2.0), (4, 3, 9.0), (5, 3, 10.0)]
                .map(|(time, start, value)| number(course, time, Some(start), value)),
        );
        // 3 more, reset to 2, a new start at 3 counts 9 (value rose, start tells), 1 more.
        assert_eq!((numbers(&all).increase, all.resets), (Some(3.0 + 2.0 + 9.0 + 1.0), 2));
        assert_eq!((numbers(&all).first.value, numbers(&all).last.value), (5.0, 10.0));
    }

    #[test]
    fn deltas_add_up_and_levels_have_no_increase() {
        let deltas = fold(Course::Delta, [1.0, 2.0, 3.0].map(|value| number(Course::Delta, value as i64, None, value)));
        assert_eq!((numbers(&deltas).increase, deltas.resets), (Some(6.0), 0));
        let levels = fold(Course::Level, [3.0, 1.0].map(|value| number(Course::Level, value as i64, None, value)));
        assert_eq!((numbers(&levels).increase, numbers(&levels).min, numbers(&levels).sum), (None, 1.0, 4.0));
    }

    #[test]
    fn stale_markers_are_counted_apart() {
        let mut window = Window::of_stale_marker(4, 4);
        window.append(Course::Level, number(Course::Level, 5, None, 1.0));
        window.append(Course::Level, Window::of_stale_marker(6, 6));
        assert_eq!((window.samples, window.stale, window.stale_time), (1, 2, Some(6)));
        assert_eq!(numbers(&window).last.time, 5);
    }

    proptest! {
        #[test]
        fn a_rollup_of_rollups_is_a_rollup(
            samples in proptest::collection::vec((1_i64..50, 0.0_f64..100.0, any::<bool>()), 1..60),
            course in prop_oneof![Just(Course::Level), Just(Course::Delta), Just(Course::Cumulative)],
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..5),
        ) {
            let (mut time, mut start) = (0, 0);
            let windows: Vec<Window> = samples
                .into_iter()
                .map(|(gap, value, restarts)| {
                    if restarts {
                        start = time + 1;
                    }
                    time += gap;
                    number(course, time, Some(start), value)
                })
                .collect();
            let direct = fold(course, windows.clone());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.index(windows.len())).collect();
            cuts.extend([0, windows.len()]);
            cuts.sort_unstable();
            cuts.dedup();
            let parts: Vec<Window> = cuts.windows(2).map(|cut| fold(course, windows[cut[0]..cut[1]].to_vec())).collect();
            let stepwise = fold(course, parts);
            let near = |left: f64, right: f64| (left - right).abs() <= 1e-9 * left.abs().max(right.abs()).max(1.0);
            let (direct_numbers, step_numbers) = (numbers(&direct), numbers(&stepwise));
            prop_assert!(near(direct_numbers.sum, step_numbers.sum));
            prop_assert!(near(direct_numbers.increase.unwrap_or(0.0), step_numbers.increase.unwrap_or(0.0)));
            prop_assert_eq!((direct.samples, direct.resets), (stepwise.samples, stepwise.resets));
            prop_assert_eq!(&direct_numbers.sketch, &step_numbers.sketch);
            prop_assert_eq!((direct_numbers.min, direct_numbers.max), (step_numbers.min, step_numbers.max));
            prop_assert_eq!((&direct_numbers.first, &direct_numbers.last), (&step_numbers.first, &step_numbers.last));
        }
    }
}
