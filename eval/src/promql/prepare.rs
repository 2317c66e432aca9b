//! Lengths and times that depend on the query: what `[range]`, `offset` and `@` come to.

use tidemill_lang::promql::{At, BinaryOp, Call, Expr, ExprKind, Length, LengthKind, When};

use super::functions::dates::Civil;
use super::grid::Grid;
use crate::error::{Error, Result};

/// The times of the whole query, which subqueries inside see too.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueryTimes {
    /// The first time of the query.
    pub start: i64,
    /// The end of the query.
    pub end: i64,
    /// The step of a range query, 0 for an instant one.
    pub step: i64,
}

/// When a selector or subquery looks, seen from a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shift {
    at: Option<i64>,
    offset: i64,
}

impl Shift {
    /// The time that the selector looks at, for the step `time`.
    pub(super) fn seen(self, time: i64) -> i64 {
        self.at.unwrap_or(time).saturating_sub(self.offset)
    }

    /// Whether it looks at the same time from every step.
    pub(super) fn is_fixed(self) -> bool {
        self.at.is_some()
    }

    /// The first and the last time looked at from a grid.
    pub(super) fn span(self, grid: Grid) -> (i64, i64) {
        let last = grid.start + grid.step * (grid.len() as i64 - 1).max(0);
        (self.seen(grid.start), self.seen(last))
    }
}

impl QueryTimes {
    pub(super) fn shift(self, when: &When) -> Result<Shift> {
        let at = when.at.map(|at| match at {
            At::Time(time) => time,
            At::Start => self.start,
            At::End => self.end,
        });
        let offset = when.offset.as_ref().map_or(Ok(0), |offset| self.milliseconds(offset, true))?;
        Ok(Shift { at, offset })
    }

    /// A range or step in milliseconds, above zero.
    pub(super) fn positive(self, length: &Length) -> Result<i64> {
        self.milliseconds(length, false)
    }

    fn milliseconds(self, length: &Length, may_be_negative: bool) -> Result<i64> {
        let seconds = self.seconds(length)?;
        let refused = |what: &str| Err(Error::Data(format!("{}:{}: {what}", length.span.start, length.span.end)));
        if seconds <= 0.0 && !may_be_negative {
            return refused("duration must be greater than 0");
        }
        if seconds.is_nan() || seconds.abs() > i64::MAX as f64 / 1e9 {
            return refused("duration is out of range");
        }
        Ok((seconds * 1000.0) as i64)
    }

    fn seconds(self, length: &Length) -> Result<f64> {
        let refused = |what: &str| Err(Error::Data(format!("{}:{}: {what}", length.span.start, length.span.end)));
        Ok(match &length.kind {
            LengthKind::Number(number) => number.value,
            LengthKind::Step => self.step as f64 / 1000.0,
            LengthKind::Range => (self.end - self.start) as f64 / 1000.0,
            LengthKind::Paren(inner) => self.seconds(inner)?,
            LengthKind::Unary { is_negative, length } => {
                let value = self.seconds(length)?;
                if *is_negative { -value } else { value }
            }
            LengthKind::Extreme { is_max, left, right } => {
                let (left, right) = (self.seconds(left)?, self.seconds(right)?);
                if *is_max { left.max(right) } else { left.min(right) }
            }
            LengthKind::Binary { op, left, right } => {
                let (left, right) = (self.seconds(left)?, self.seconds(right)?);
                match op {
                    BinaryOp::Add => left + right,
                    BinaryOp::Subtract => left - right,
                    BinaryOp::Multiply => left * right,
                    BinaryOp::Divide if right == 0.0 => return refused("division by zero"),
                    BinaryOp::Divide => left / right,
                    BinaryOp::Modulo if right == 0.0 => return refused("modulo by zero"),
                    BinaryOp::Modulo => left % right,
                    BinaryOp::Power => left.powf(right),
                    _ => return refused("unexpected operator"),
                }
            }
        })
    }
}

/// Functions whose result depends on the time of the step even where their arguments do not.
const TIME_DEPENDENT: [&str; 11] = [
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "hour",
    "minute",
    "month",
    "predict_linear",
    "time",
    "timestamp",
    "year",
];

/// Whether the expression is the same at every step.
pub(super) fn is_invariant(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::Text(_) => true,
        ExprKind::Vector(selector) => selector.when.at.is_some(),
        ExprKind::Matrix(matrix) => matrix.selector.when.at.is_some(),
        ExprKind::Subquery(subquery) => subquery.when.at.is_some(),
        ExprKind::Call(Call { function, args }) => {
            !TIME_DEPENDENT.contains(&function.name) && args.iter().all(is_invariant)
        }
        ExprKind::Aggregate(aggregate) => {
            is_invariant(&aggregate.expr) && aggregate.param.as_ref().is_none_or(is_invariant)
        }
        _ => expr.children().into_iter().all(is_invariant),
    }
}

/// Whether a function depends on the time of the step or of the query.
pub(super) fn is_time_dependent(call: &Call) -> bool {
    TIME_DEPENDENT.contains(&call.function.name) || matches!(call.function.name, "start" | "end")
}

/// A time in milliseconds as `2026-01-02T03:04:05.678Z`, without a fraction where it is zero.
pub(super) fn utc(milliseconds: i64) -> String {
    let civil = Civil::of_seconds(milliseconds.div_euclid(1000));
    let fraction = milliseconds.rem_euclid(1000);
    let fraction =
        if fraction == 0 { String::new() } else { format!(".{fraction:03}").trim_end_matches('0').to_owned() };
    let Civil { year, month, day, hour, minute, second, .. } = civil;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}
