//! Aggregations that choose series: `topk`, `bottomk`, `limitk`, `limit_ratio`.

use std::cmp::Ordering;

use tidemill_lang::Span;
use tidemill_lang::promql::AggregateOp;
use twox_hash::XxHash64;

use super::annotation::Annotations;
use super::row::{Cell, Row};
use crate::error::{Error, Result};
use crate::labels::Labels;
use crate::number::format_short;

/// Which series are chosen at each step.
pub(super) struct Choice {
    op: AggregateOp,
    params: Vec<f64>,
}

impl Choice {
    /// The choice by `op` with its parameter at each step.
    ///
    /// # Errors
    /// The parameter is NaN, or too large a number of series.
    pub(super) fn new(op: AggregateOp, params: Vec<f64>, span: Span, notes: &mut Annotations) -> Result<Self> {
        let is_ratio = op == AggregateOp::LimitRatio;
        let most = params.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let least = params.iter().copied().fold(f64::INFINITY, f64::min);
        let choice = Self { op, params };
        if choice.is_nothing() {
            return Ok(choice);
        }
        if choice.params.iter().any(|param| param.is_nan()) {
            let what = if is_ratio { "Ratio" } else { "Parameter" };
            return Err(Error::Data(format!("{what} value is NaN")));
        }
        if is_ratio {
            for (value, cap) in [(most, 1.0), (least, -1.0)] {
                if value.abs() > 1.0 && value.signum() == cap {
                    let text = "ratio value should be between -1 and 1";
                    notes.warn(format!("{text}, got {}, capping to {cap}", format_short(value)), span);
                }
            }
        } else if least <= i64::MIN as f64 {
            return Err(Error::Data(format!("Scalar value {} underflows int64", format_short(least))));
        } else if most >= 9_223_372_036_854_774_784.0 {
            return Err(Error::Data(format!("Scalar value {} overflows int64", format_short(most))));
        }
        Ok(choice)
    }

    /// Whether no series is chosen at any step.
    pub(super) fn is_nothing(&self) -> bool {
        let is_ratio = self.op == AggregateOp::LimitRatio;
        self.params.iter().all(|param| if is_ratio { *param == 0.0 } else { *param < 1.0 })
    }

    /// What a partition has to tell of its series: the values that may be chosen.
    pub(super) fn pruned(&self, rows: Vec<Row>) -> Vec<Row> {
        let keep = self.kept(&rows);
        masked(rows, &keep)
    }

    /// The chosen values, at a single step in their order.
    pub(super) fn chosen(&self, rows: Vec<Row>) -> Vec<Row> {
        let keep = self.kept(&rows);
        let mut chosen = masked(rows, &keep);
        if self.params.len() == 1 && matches!(self.op, AggregateOp::Topk | AggregateOp::Bottomk) {
            let value = |row: &Row| row.float(0).unwrap_or(f64::NAN);
            chosen.sort_by(|a, b| self.order(value(a), value(b)));
        }
        chosen
    }

    /// For each row, whether its value is chosen at each step.
    fn kept(&self, rows: &[Row]) -> Vec<Vec<bool>> {
        let steps = self.params.len();
        let mut kept = vec![vec![false; steps]; rows.len()];
        let ratios: Vec<f64> = match self.op {
            AggregateOp::LimitRatio => rows.iter().map(|row| sampling_offset(&row.labels)).collect(),
            _ => Vec::new(),
        };
        let mut present: Vec<(f64, usize)> = Vec::new();
        for (step, param) in self.params.iter().enumerate() {
            if self.op == AggregateOp::LimitRatio {
                for (at, offset) in ratios.iter().enumerate() {
                    kept[at][step] = is_sampled(*param, *offset);
                }
                continue;
            }
            let count = usize::try_from(*param as i64).unwrap_or(0);
            if self.op == AggregateOp::Limitk {
                let present = (0..rows.len()).filter(|at| rows[*at].has(step));
                present.take(count).for_each(|at| kept[at][step] = true);
                continue;
            }
            present.clear();
            present.extend(rows.iter().enumerate().filter_map(|(at, row)| Some((row.float(step)?, at))));
            if (1..present.len()).contains(&count) {
                // Of equal values the first ones.
                let order = |a: &(f64, usize), b: &(f64, usize)| self.order(a.0, b.0).then(a.1.cmp(&b.1));
                present.select_nth_unstable_by(count - 1, order);
            }
            present.iter().take(count).for_each(|(_, at)| kept[*at][step] = true);
        }
        kept
    }

    /// The order in which values are chosen: NaN last.
    fn order(&self, a: f64, b: f64) -> Ordering {
        match (a.is_nan(), b.is_nan()) {
            (false, false) if self.op == AggregateOp::Topk => b.partial_cmp(&a).unwrap_or(Ordering::Equal),
            (false, false) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
            (a, b) => a.cmp(&b),
        }
    }
}

fn masked(rows: Vec<Row>, keep: &[Vec<bool>]) -> Vec<Row> {
    let mask = |(mut row, keep): (Row, &Vec<bool>)| {
        for step in (0..row.steps()).filter(|step| !keep[*step]) {
            row.set(step, Cell::Absent);
        }
        row
    };
    rows.into_iter().zip(keep).map(mask).filter(Row::has_any).collect()
}

/// Whether a series with this offset is among those of a ratio; a negative ratio is the complement of its positive one.
fn is_sampled(ratio: f64, offset: f64) -> bool {
    let ratio = ratio.clamp(-1.0, 1.0);
    if ratio > 0.0 { offset < ratio } else { ratio < 0.0 && offset >= 1.0 + ratio }
}

/// Where between 0 and 1 the hash of a series' labels lies: xxHash64 of names and values, each with its length before it.
fn sampling_offset(labels: &Labels) -> f64 {
    let mut bytes = Vec::with_capacity(128);
    for text in labels.iter().flat_map(|label| [&label.name, &label.value]) {
        match u8::try_from(text.len()) {
            Ok(length) if length < 255 => bytes.push(length),
            _ => {
                bytes.push(255);
                bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes()[..3]);
            }
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    XxHash64::oneshot(0, &bytes) as f64 / u64::MAX as f64
}
