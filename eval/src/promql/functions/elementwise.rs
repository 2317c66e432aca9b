//! Functions that change each value by itself.

use tidemill_lang::promql::{Call, Expr, ExprKind, MatchOp};

use super::super::row::{Cell, Row};
use super::dates;
use crate::labels::Labels;

/// The rows of a function of a vector and scalars, if it is one that changes each value by itself. `scalars` are the rows of the
/// arguments after the first.
pub(in super::super) fn map_rows(function: &str, rows: Vec<Row>, scalars: &[Row]) -> Option<Vec<Row>> {
    if let Some(change) = simple(function) {
        return Some(each(rows, |row| row.map_floats(change)));
    }
    if let Some(part) = dates::part(function) {
        return Some(each(rows, |row| dates::map_row(row, part)));
    }
    let scalar = |at: usize, step: usize| scalars.get(at).and_then(|row| row.float(step)).unwrap_or(f64::NAN);
    Some(match function {
        "clamp" => each(rows, |row| clamp(&row, |step| (scalar(0, step), scalar(1, step)))),
        "clamp_min" => each(rows, |row| clamp(&row, |step| (scalar(0, step), f64::INFINITY))),
        "clamp_max" => each(rows, |row| clamp(&row, |step| (f64::NEG_INFINITY, scalar(0, step)))),
        "round" => each(rows, |row| {
            by_step(&row, |step, value| {
                let nearest = if scalars.is_empty() { 1.0 } else { scalar(0, step) };
                // Multiplying by the inverse loses less than dividing.
                let inverse = 1.0 / nearest;
                Some((value * inverse + 0.5).floor() / inverse)
            })
        }),
        _ => return None,
    })
}

/// The labels of the series that `absent` and `absent_over_time` tell of: what the selector says by equality, once per label.
pub(in super::super) fn absent_labels(expr: &Expr) -> Labels {
    let selector = match &expr.bare().kind {
        ExprKind::Vector(selector) => selector,
        ExprKind::Matrix(matrix) => &matrix.selector,
        _ => return Labels::default(),
    };
    let matchers = &selector.matchers;
    let is_told_once = |name: &str| matchers.iter().filter(|matcher| matcher.name == name).count() == 1;
    Labels::of(
        matchers
            .iter()
            .filter(|matcher| matcher.op == MatchOp::Equal && matcher.name != "__name__" && is_told_once(&matcher.name))
            .map(|matcher| (&matcher.name, &matcher.value)),
    )
}

/// Whether a call changes each value by itself.
pub(in super::super) fn is_elementwise(call: &Call) -> bool {
    let name = call.function.name;
    simple(name).is_some()
        || (dates::part(name).is_some() && !call.args.is_empty())
        || matches!(name, "clamp" | "clamp_min" | "clamp_max" | "round")
}

fn each(rows: Vec<Row>, change: impl Fn(Row) -> Row) -> Vec<Row> {
    let changed = rows.into_iter().map(|row| change(row).dropping_name(true));
    changed.filter(Row::has_any).collect()
}

fn by_step(row: &Row, change: impl Fn(usize, f64) -> Option<f64>) -> Row {
    let mut changed = Row::new(row.labels.clone(), row.steps());
    for step in 0..row.steps() {
        if let Some(value) = row.float(step).and_then(|value| change(step, value)) {
            changed.set(step, Cell::Float(value));
        }
    }
    changed
}

fn clamp(row: &Row, bounds: impl Fn(usize) -> (f64, f64)) -> Row {
    by_step(row, |step, value| {
        let (least, most) = bounds(step);
        (most >= least || most.is_nan() || least.is_nan()).then(|| greater(least, lesser(most, value)))
    })
}

/// The lesser of two; minus infinity wins against NaN, which wins against all else.
fn lesser(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        f64::NEG_INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.min(b)
    }
}

/// The greater of two; infinity wins against NaN, which wins against all else.
fn greater(a: f64, b: f64) -> f64 {
    -lesser(-a, -b)
}

fn simple(function: &str) -> Option<fn(f64) -> f64> {
    Some(match function {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "sqrt" => f64::sqrt,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "rad" => |value| value * std::f64::consts::PI / 180.0,
        "deg" => |value| value * 180.0 / std::f64::consts::PI,
        "sgn" => |value| if value == 0.0 || value.is_nan() { value } else { value.signum() },
        _ => return None,
    })
}
