//! The functions, one file per family. Range functions look at one window of one series ([`window`]); the others map rows.

mod changes;
pub(super) mod dates;
pub(super) mod elementwise;
pub(super) mod histograms;
mod lockstep;
mod over_time;
mod rate;
mod rates;
mod regression;
pub(super) mod window;

pub(super) use elementwise::{absent_labels, map_rows};
pub(super) use histograms::map_histograms;
pub(super) use lockstep::Lockstep;
pub(super) use rate::extend;
pub(super) use rates::Rates;

use window::{Env, Window};

use super::row::Cell;
use crate::error::Result;

/// A function of one window of one series.
pub(super) type RangeFunction = fn(&Window<'_>, &mut Env<'_>) -> Result<Option<Cell>>;

/// The range function called `name`.
pub(super) fn range_function(name: &str) -> Option<RangeFunction> {
    Some(match name {
        "rate" => |window, env| Ok(rate::rate(window, env, rate::RATE)),
        "increase" => |window, env| Ok(rate::rate(window, env, rate::INCREASE)),
        "delta" => |window, env| Ok(rate::rate(window, env, rate::DELTA)),
        "irate" => |window, env| Ok(rate::instant(window, env, true)),
        "idelta" => |window, env| Ok(rate::instant(window, env, false)),
        "changes" => |window, env| Ok(changes::changes(window, env)),
        "resets" => |window, env| Ok(changes::resets(window, env)),
        "deriv" => |window, env| Ok(regression::deriv(window, env)),
        "predict_linear" => |window, env| Ok(regression::predict_linear(window, env)),
        "double_exponential_smoothing" => regression::smooth,
        "absent_over_time" | "present_over_time" => |_, _| Ok(Some(Cell::Float(1.0))),
        "count_over_time" => |window, _| Ok(Some(Cell::Float(window.samples() as f64))),
        "avg_over_time" => |window, env| Ok(over_time::average(window, env)),
        "sum_over_time" => |window, env| Ok(over_time::sum(window, env)),
        "first_over_time" => |window, _| Ok(over_time::first(window)),
        "last_over_time" => |window, _| Ok(over_time::last(window)),
        "min_over_time" => |window, env| Ok(over_time::minimum(window, env)),
        "max_over_time" => |window, env| Ok(over_time::maximum(window, env)),
        "ts_of_first_over_time" => |window, _| Ok(over_time::time_of_first(window)),
        "ts_of_last_over_time" => |window, _| Ok(over_time::time_of_last(window)),
        "ts_of_min_over_time" => |window, env| Ok(over_time::time_of_minimum(window, env)),
        "ts_of_max_over_time" => |window, env| Ok(over_time::time_of_maximum(window, env)),
        "quantile_over_time" => |window, env| Ok(over_time::quantile(window, env)),
        "mad_over_time" => |window, env| Ok(over_time::median_deviation(window, env)),
        "stddev_over_time" => |window, env| Ok(over_time::variance(window, env).map(|v| Cell::Float(v.sqrt()))),
        "stdvar_over_time" => |window, env| Ok(over_time::variance(window, env).map(Cell::Float)),
        _ => return None,
    })
}
