//! Calls of functions of a range: one window per series and step.

use tidemill_lang::Span;
use tidemill_lang::promql::{Call, Expr, ExprKind, Extension};

use super::evaluator::{Evaluator, Selected};
use super::functions::window::Env;
use super::functions::{Lockstep, RangeFunction, Rates, range_function};
use super::grid::Grid;
use super::row::Row;
use super::selection::reach;
use super::source::WindowFunction;
use super::walk::{Walk, resets};
use crate::error::{Error, Result};
use crate::labels::METRIC_NAME;

/// Names by which a counter is recognized.
const COUNTER_ENDINGS: [&str; 4] = ["_total", "_sum", "_count", "_bucket"];

impl Evaluator<'_> {
    /// The rows of a call with a range among its arguments.
    pub(super) fn range_call(&mut self, call: &Call, grid: Grid) -> Result<Vec<Row>> {
        let name = call.function.name;
        let function = range_function(name).ok_or_else(|| Error::Data(format!("{name} is no function of a range")))?;
        let mut scalars = Vec::new();
        let mut range = None;
        for arg in &call.args {
            match &arg.bare().kind {
                ExprKind::Matrix(_) | ExprKind::Subquery(_) => range = Some(arg.bare()),
                _ => scalars.push(self.scalar(arg, grid)?),
            }
        }
        let range = range.ok_or_else(|| Error::Data(format!("{name} needs a range")))?;
        let extension = match &range.kind {
            ExprKind::Matrix(matrix) => matrix.selector.extension,
            _ => None,
        };
        check_extension(name, extension)?;
        let selected = self.range(range, grid, WindowFunction::of(name))?;
        self.windows((call, function), range, selected, &scalars, grid)
    }

    fn windows(
        &mut self,
        (call, function): (&Call, RangeFunction),
        range: &Expr,
        selected: Selected,
        scalars: &[Row],
        grid: Grid,
    ) -> Result<Vec<Row>> {
        let name = call.function.name;
        let keeps_name = matches!(name, "last_over_time" | "first_over_time");
        let extension = match &range.kind {
            ExprKind::Matrix(matrix) => matrix.selector.extension,
            _ => None,
        };
        let reach = reach(extension, self.options.lookback_ms);
        let spans: Vec<Span> = call.args.iter().map(|arg| arg.span).collect();
        let first_span = spans.first().copied().unwrap_or_default();
        let args_span = spans.into_iter().reduce(Span::to).unwrap_or_default();
        let mut rows = Vec::with_capacity(selected.series.len());
        let is_rate = matches!(name, "rate" | "increase");
        let ends = grid.times().map(|time| selected.shift.seen(time));
        let mut rates = Rates::of(name, selected.range, ends).filter(|_| extension.is_none());
        for (series, drops_name) in &selected.series {
            let mut row = Row::new(series.labels.clone(), grid.len());
            row.drops_name = !keeps_name || *drops_name;
            let resets = if is_rate { resets(&series.samples) } else { Vec::new() };
            let metric = series.labels.get(METRIC_NAME);
            let mut walk = Walk::default();
            let mut together = Lockstep::of(name, &series.samples);
            let is_filled = rates.as_mut().is_some_and(|rates| rates.fill(&series.samples, &resets, &mut row));
            for (step, time) in grid.times().enumerate().filter(|_| !is_filled) {
                self.options.interrupt.check()?;
                let end = selected.shift.seen(time);
                let window = walk.window(&series.samples, &resets, (end - selected.range, end), reach);
                if window.len() == 0 {
                    continue;
                }
                if let Some(together) = &mut together {
                    together.add(step, window.values, &mut row);
                    continue;
                }
                if extension.is_some() && !window.histograms.is_empty() {
                    let message = "smoothed and anchored modifiers do not work with native histograms";
                    return Err(Error::Data(message.to_owned()));
                }
                let mut args = [f64::NAN; 2];
                for (arg, scalar) in args.iter_mut().zip(scalars) {
                    *arg = scalar.float(step).unwrap_or(f64::NAN);
                }
                let notes = &mut self.notes;
                let mut env = Env { args: &args, time, metric, first_span, args_span, extension, notes };
                if let Some(cell) = function(&window, &mut env)? {
                    row.set(step, cell);
                }
            }
            if let Some(together) = together {
                together.finish(&mut row);
            }
            if row.has_any() {
                self.count_rows(std::slice::from_ref(&row))?;
                if is_rate {
                    self.note_non_counter(&row, first_span);
                }
                rows.push(row);
            }
        }
        Ok(rows)
    }

    fn note_non_counter(&mut self, row: &Row, span: Span) {
        let metric = row.labels.get(METRIC_NAME);
        let has_floats = (0..row.steps()).any(|step| row.float(step).is_some());
        if has_floats && !metric.is_empty() && !COUNTER_ENDINGS.iter().any(|ending| metric.ends_with(ending)) {
            let text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket:";
            self.notes.info(format!("{text} {}", crate::labels::quote(metric)), span);
        }
    }
}

fn check_extension(name: &str, extension: Option<Extension>) -> Result<()> {
    let (word, allowed): (_, &[&str]) = match extension {
        Some(Extension::Anchored) => ("anchored", &["changes", "delta", "increase", "rate", "resets"]),
        Some(Extension::Smoothed) => ("smoothed", &["delta", "increase", "rate"]),
        None => return Ok(()),
    };
    if allowed.contains(&name) {
        return Ok(());
    }
    Err(Error::Data(format!("{word} modifier can only be used with: {} - not with {name}", allowed.join(", "))))
}
