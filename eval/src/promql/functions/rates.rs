//! Rates of all windows of a series at once. What the times of the samples say of the windows is found once and serves every series
//! with samples at the same times, as those of one scrape have. Each value is that of [`rate`](super::rate::rate), to the bit.

use arrow::buffer::ScalarBuffer;

use super::super::row::Row;
use super::super::source::Samples;
use super::super::walk::Cursor;
use super::rate::{DELTA, Edges, INCREASE, Meaning, RATE};

/// How many frames are remembered.
const FRAMES: usize = 8;

/// The rates of the series of one range.
pub(in super::super) struct Rates {
    meaning: Meaning,
    /// The ends of the windows, rising, in milliseconds.
    ends: Vec<i64>,
    /// The length of each, in milliseconds.
    range: i64,
    frames: Vec<Frame>,
    /// The frame that goes next.
    oldest: usize,
    changes: Vec<f64>,
    firsts: Vec<f64>,
}

/// Where the windows of samples at certain times begin and end.
struct Frame {
    times: ScalarBuffer<i64>,
    /// The positions of the first and the last sample of each window; the same where it has less than two.
    places: Vec<(u32, u32)>,
    edges: Vec<Edges>,
}

impl Rates {
    /// For a function of this name over windows of length `range` that end at `ends`; `None` where it is no rate.
    pub(in super::super) fn of(function: &str, range: i64, ends: impl Iterator<Item = i64>) -> Option<Self> {
        let meaning = match function {
            "rate" => RATE,
            "increase" => INCREASE,
            "delta" => DELTA,
            _ => return None,
        };
        let (ends, frames) = (ends.collect(), Vec::new());
        Some(Self { meaning, ends, range, frames, oldest: 0, changes: Vec::new(), firsts: Vec::new() })
    }

    /// Sets the rates of a series; false where its windows must be looked at one by one. `resets` are those of its floats, for counters.
    pub(in super::super) fn fill(&mut self, samples: &Samples, resets: &[usize], row: &mut Row) -> bool {
        let is_plain = samples.histograms.is_empty() && samples.weights.is_empty();
        if !is_plain || (samples.is_delta && self.meaning.is_counter) || u32::try_from(samples.times.len()).is_err() {
            return false;
        }
        let frame = self.frame(&samples.times);
        let frame = &self.frames[frame];
        let values = &*samples.values;
        self.changes.clear();
        self.firsts.clear();
        for (first, last) in &frame.places {
            let (first, last) = (*first as usize, *last as usize);
            let (from, to) = (values.get(first).copied().unwrap_or(0.0), values.get(last).copied().unwrap_or(0.0));
            let mut change = to - from;
            if !resets.is_empty() {
                let inside = resets.partition_point(|at| *at <= first)..resets.partition_point(|at| *at <= last);
                change = resets.get(inside).unwrap_or_default().iter().fold(change, |sum, at| sum + values[at - 1]);
            }
            self.changes.push(change);
            self.firsts.push(from);
        }
        let seconds = self.range as f64 / 1000.0;
        for (change, (first, edges)) in self.changes.iter_mut().zip(self.firsts.iter().zip(&frame.edges)) {
            *change *= edges.factor(self.meaning, (*first, *change), seconds);
        }
        for (step, ((first, last), rate)) in frame.places.iter().zip(&self.changes).enumerate() {
            if first < last {
                row.set_float(step, *rate);
            }
        }
        true
    }

    /// The place of the frame of these times.
    fn frame(&mut self, times: &ScalarBuffer<i64>) -> usize {
        let is_same = |frame: &Frame| {
            let (known, new) = (&*frame.times, &**times);
            let are_one = frame.times.ptr_eq(times);
            known.len() == new.len()
                && (are_one || (known.first() == new.first() && known.last() == new.last() && known == new))
        };
        if let Some(place) = self.frames.iter().position(is_same) {
            return place;
        }
        let frame = Frame::new(times, &self.ends, self.range);
        if self.frames.len() < FRAMES {
            self.frames.push(frame);
            return self.frames.len() - 1;
        }
        let place = self.oldest;
        self.oldest = (place + 1) % FRAMES;
        self.frames[place] = frame;
        place
    }
}

impl Frame {
    fn new(times: &ScalarBuffer<i64>, ends: &[i64], range: i64) -> Self {
        let (mut starts, mut until) = (Cursor::default(), Cursor::default());
        let mut places = Vec::with_capacity(ends.len());
        let mut edges = Vec::with_capacity(ends.len());
        for end in ends {
            let (first, after) = (starts.until(times, end - range), until.until(times, *end));
            if first + 1 < after {
                places.push((first as u32, (after - 1) as u32));
                edges.push(Edges::new((end - range, *end), (after - first, times[first], times[after - 1])));
            } else {
                places.push((0, 0));
                edges.push(Edges::default());
            }
        }
        Self { times: times.clone(), places, edges }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidemill_lang::Span;

    use super::super::super::annotation::Annotations;
    use super::super::super::row::Cell;
    use super::super::super::walk::{Walk, resets};
    use super::super::rate::rate;
    use super::super::window::Env;
    use super::*;
    use crate::labels::Labels;

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => 0f64..1e3,
            2 => -10f64..10.0,
            1 => prop::sample::select(vec![0.0, -0.0, f64::MAX, f64::INFINITY, f64::NEG_INFINITY, f64::NAN]),
        ]
    }

    fn series() -> impl Strategy<Value = (Vec<i64>, Vec<f64>)> {
        let gaps = prop_oneof![3 => Just(15i64), 1 => 1i64..60];
        prop::collection::vec((gaps, number()), 0..60).prop_map(|samples| {
            let times = samples.iter().scan(0, |at, (gap, _)| {
                *at += gap;
                Some(*at)
            });
            (times.collect(), samples.iter().map(|(_, value)| *value).collect())
        })
    }

    proptest! {
        #[test]
        fn all_at_once_is_one_by_one(all in prop::collection::vec(series(), 1..12), range in 1i64..300, step in 1i64..90) {
            let ends = || (0..20).map(|at| at * step);
            for (name, meaning) in [("rate", RATE), ("increase", INCREASE), ("delta", DELTA)] {
                let mut rates = Rates::of(name, range, ends()).expect("a rate");
                // The same times again are those of a frame that is known.
                for (times, values) in all.iter().chain(&all) {
                    let samples =
                        Samples { times: times.clone().into(), values: values.clone().into(), ..Samples::default() };
                    let resets = if meaning.is_counter { resets(&samples) } else { Vec::new() };
                    let mut row = Row::new(Labels::default(), 20);
                    prop_assert!(rates.fill(&samples, &resets, &mut row));
                    let (mut walk, mut notes) = (Walk::default(), Annotations::default());
                    for (at, end) in ends().enumerate() {
                        let window = walk.window(&samples, &resets, (end - range, end), (0, 0));
                        let (first_span, args_span) = (Span::default(), Span::default());
                        let notes = &mut notes;
                        let mut env =
                            Env { args: &[], time: end, metric: "m", first_span, args_span, extension: None, notes };
                        let alone = match rate(&window, &mut env, meaning) {
                            Some(Cell::Float(value)) => Some(value),
                            _ => None,
                        };
                        let same = |value: f64| if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
                        prop_assert_eq!(row.float(at).map(same), alone.map(same), "{} at {}", name, end);
                    }
                }
            }
        }
    }
}
