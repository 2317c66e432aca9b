//! Sums and means of several windows side by side. The sum of one is a chain in which each addition waits for the last; those of others
//! run in between. Each window's additions are the same in the same order, so its value is too, to the bit.

use super::super::histogram::compensated;
use super::super::row::Row;
use super::super::source::Samples;
use super::over_time::mean;

/// How many windows are summed side by side.
const LANES: usize = 8;

/// Windows of one series that wait to be summed.
pub(in super::super) struct Lockstep<'a> {
    is_mean: bool,
    waiting: Vec<(usize, &'a [f64])>,
}

impl<'a> Lockstep<'a> {
    /// For `avg_over_time` and `sum_over_time` of a series without histograms.
    pub(in super::super) fn of(function: &str, samples: &Samples) -> Option<Self> {
        let is_mean = function == "avg_over_time";
        let is_fit = (is_mean || function == "sum_over_time") && samples.histograms.is_empty();
        is_fit.then(|| Self { is_mean, waiting: Vec::with_capacity(LANES) })
    }

    /// Adds the floats of a window, at least one, which are the value at `step` of `row`, now or with later ones.
    pub(in super::super) fn add(&mut self, step: usize, floats: &'a [f64], row: &mut Row) {
        self.waiting.push((step, floats));
        if self.waiting.len() == LANES {
            self.flush(row);
        }
    }

    /// The values of what still waits.
    pub(in super::super) fn finish(mut self, row: &mut Row) {
        self.flush(row);
    }

    fn flush(&mut self, row: &mut Row) {
        let mut windows: [&[f64]; LANES] = [&[]; LANES];
        for (window, (_, floats)) in windows.iter_mut().zip(&self.waiting) {
            *window = floats;
        }
        let sums = if self.is_mean { totals(windows) } else { sums(windows) };
        for ((step, floats), (total, lost)) in self.waiting.drain(..).zip(sums) {
            let value = match self.is_mean {
                false if total.is_infinite() => total,
                false => total + lost,
                // What overflows is taken up by a mean that goes along.
                true if !total.is_finite() => mean(floats).unwrap_or(f64::NAN),
                true => total / floats.len() as f64 + lost / floats.len() as f64,
            };
            row.set_float(step, value);
        }
    }
}

/// The compensated sums of windows, from zero.
fn sums(windows: [&[f64]; LANES]) -> [(f64, f64); LANES] {
    add_all([0.0; LANES], windows)
}

/// The compensated sums of windows, from their first number.
fn totals(mut windows: [&[f64]; LANES]) -> [(f64, f64); LANES] {
    let mut firsts = [0.0; LANES];
    for (first, window) in firsts.iter_mut().zip(&mut windows) {
        if let Some((number, rest)) = window.split_first() {
            (*first, *window) = (*number, rest);
        }
    }
    add_all(firsts, windows)
}

fn add_all(firsts: [f64; LANES], windows: [&[f64]; LANES]) -> [(f64, f64); LANES] {
    let (mut totals, mut lost) = (firsts, [0.0; LANES]);
    let shortest = windows.iter().map(|window| window.len()).min().unwrap_or(0);
    let [a, b, c, d, e, f, g, h] = windows.map(|window| window[..shortest].iter());
    for (((((((a, b), c), d), e), f), g), h) in a.zip(b).zip(c).zip(d).zip(e).zip(f).zip(g).zip(h) {
        let numbers: [f64; LANES] = [*a, *b, *c, *d, *e, *f, *g, *h];
        for ((total, lost), number) in totals.iter_mut().zip(&mut lost).zip(numbers) {
            (*total, *lost) = added(*total, number, *lost);
        }
    }
    let mut all = [(0.0, 0.0); LANES];
    for lane in 0..LANES {
        all[lane] = if totals[lane].is_finite() {
            let rest = windows[lane][shortest..].iter();
            rest.fold((totals[lane], lost[lane]), |(total, lost), value| compensated(total, *value, lost))
        } else {
            windows[lane].iter().fold((firsts[lane], 0.0), |(total, lost), value| compensated(total, *value, lost))
        };
    }
    all
}

/// [`compensated`] for sums that stay finite, without a comparison (Knuth, "The Art of Computer Programming" 2, 4.2.2): what an addition
/// loses is found exactly either way.
#[inline]
fn added(sum: f64, addend: f64, lost: f64) -> (f64, f64) {
    let total = sum + addend;
    let share = total - sum;
    let error = (sum - (total - share)) + (addend - share);
    (total, lost + error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::labels::Labels;

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => -1e3f64..1e3,
            2 => prop::num::f64::NORMAL,
            1 => prop::sample::select(vec![0.0, -0.0, f64::MAX, f64::MIN, f64::INFINITY, f64::NEG_INFINITY, f64::NAN]),
        ]
    }

    proptest! {
        #[test]
        fn windows_side_by_side_have_the_values_of_each_alone(
            windows in prop::collection::vec(prop::collection::vec(number(), 1..20), 1..20),
        ) {
            for name in ["sum_over_time", "avg_over_time"] {
                let mut row = Row::new(Labels::default(), windows.len());
                let mut together = Lockstep::of(name, &Samples::default()).expect("sums are taken together");
                windows.iter().enumerate().for_each(|(step, floats)| together.add(step, floats, &mut row));
                together.finish(&mut row);
                for (step, floats) in windows.iter().enumerate() {
                    let (total, lost) = floats.iter().fold((0.0, 0.0), |(sum, lost), value| compensated(sum, *value, lost));
                    let alone = match name {
                        "avg_over_time" => mean(floats).expect("of one number at least"),
                        _ if total.is_infinite() => total,
                        _ => total + lost,
                    };
                    let both = (row.float(step).expect("each has a value"), alone);
                    prop_assert!(both.0.to_bits() == both.1.to_bits() || (both.0.is_nan() && both.1.is_nan()), "{:?}", both);
                }
            }
        }
    }
}
