//! Evaluation of a checked tree over a grid of times.

use tidemill_lang::promql::{Call, Expr, ExprKind, Matrix, Subquery, ValueType};
use tidemill_lang::{Error as Refusal, Reason};

use super::aggregate;
use super::annotation::Annotations;
use super::binary;
use super::engine::Options;
use super::functions::{self, absent_labels, map_histograms, map_rows};
use super::grid::Grid;
use super::partial::{Data, Partial, Task, TaskKind, is_series_local, missing};
use super::prepare::{QueryTimes, Shift, is_invariant};
use super::row::{Cell, Row};
use super::selection::{
    matchers, reach, series_of_rows, smoothed_row, timestamp_row, totals_only, vector_row, without_stale,
};
use super::source::{Select, Series, WindowFunction, Windows};
use crate::error::{Error, Result};
use crate::labels::Labels;

/// The state of one evaluation.
pub(super) struct Evaluator<'a> {
    pub(super) options: &'a Options,
    pub(super) times: QueryTimes,
    pub(super) data: Data<'a>,
    pub(super) notes: Annotations,
    /// Whether only counts and sums of histograms are looked at.
    wants_totals: bool,
    samples: usize,
    bytes: usize,
}

/// The series of a range, and where it looks.
pub(super) struct Selected {
    /// Each series without stale markers, and whether its name goes at the end.
    pub series: Vec<(Series, bool)>,
    /// The length of the range in milliseconds.
    pub range: i64,
    /// Where the range ends, seen from a step.
    pub shift: Shift,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(options: &'a Options, times: QueryTimes, data: Data<'a>) -> Self {
        Self { options, times, data, notes: Annotations::default(), wants_totals: false, samples: 0, bytes: 0 }
    }

    /// The rows of an expression at the times of `grid`.
    pub(super) fn eval(&mut self, expr: &Expr, grid: Grid) -> Result<Vec<Row>> {
        if grid.is_empty() {
            return Ok(Vec::new());
        }
        // One row has so many values, if it has any.
        self.check_samples(grid.len())?;
        let is_plain = matches!(expr.kind, ExprKind::Number(_) | ExprKind::Paren(_));
        if grid.len() > 1 && !is_plain && is_invariant(expr) {
            let rows = self.eval(expr, Grid { end: grid.start, ..grid })?;
            let repeated: usize = rows.iter().map(|row| row.bytes().saturating_mul(grid.len())).sum();
            self.count(rows.len().saturating_mul(grid.len()), repeated)?;
            return Ok(rows.iter().map(|row| row.repeated(grid.len())).collect());
        }
        if let Some(range) = range_of_absence(expr) {
            // Whether samples are absent is known when every partition told which it has.
            let rows = if is_series_local(range) { self.local_rows(expr, grid)? } else { self.eval_here(expr, grid)? };
            return Ok(absent(&rows, range, grid));
        }
        if expr.value_type() == ValueType::Vector && !is_plain && is_series_local(expr) {
            return self.local_rows(expr, grid);
        }
        self.eval_here(expr, grid)
    }

    /// The rows of an expression that looks at each series by itself, from every partition.
    fn local_rows(&mut self, expr: &Expr, grid: Grid) -> Result<Vec<Row>> {
        let task = Task { span: expr.span, grid, kind: TaskKind::Rows };
        match &self.data {
            Data::Sources(sources) if sources.len() == 1 => self.eval_here(expr, grid),
            Data::Sources(sources) => {
                let sources = sources.clone();
                let mut rows = Vec::new();
                for source in sources {
                    rows.extend(self.on(Data::Sources(vec![source]), |evaluator| evaluator.eval_here(expr, grid))?);
                }
                rows.sort_by(|a, b| a.labels.cmp(&b.labels));
                Ok(rows)
            }
            Data::Record(tasks) => {
                tasks.borrow_mut().push(task);
                Ok(Vec::new())
            }
            Data::Given(given) => {
                let partials = given.take(&task)?;
                let mut rows: Vec<Row> = Vec::new();
                for partial in partials {
                    let Partial::Rows(part) = partial else { return Err(missing(&task)) };
                    rows.extend(part);
                }
                rows.sort_by(|a, b| a.labels.cmp(&b.labels));
                Ok(rows)
            }
        }
    }

    /// Runs `inner` with other data, collecting its annotations here.
    pub(super) fn on<T>(&mut self, data: Data<'a>, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let outer = std::mem::replace(&mut self.data, data);
        let result = inner(self);
        self.data = outer;
        result
    }

    pub(super) fn eval_here(&mut self, expr: &Expr, grid: Grid) -> Result<Vec<Row>> {
        match &expr.kind {
            ExprKind::Number(number) => Ok(vec![Row::constant(number.value, grid.len())]),
            ExprKind::Paren(inner) => self.eval(inner, grid),
            ExprKind::Unary { is_negative, expr: inner } => {
                let rows = self.eval(inner, grid)?;
                Ok(if *is_negative { rows.into_iter().map(negated).collect() } else { rows })
            }
            ExprKind::Binary(operation) => self.binary(expr, operation, grid),
            ExprKind::Aggregate(aggregate) => aggregate::evaluate(self, expr.span, aggregate, grid),
            ExprKind::Call(call) => self.call(expr, call, grid),
            ExprKind::Vector(selector) => {
                let shift = self.times.shift(&selector.when)?;
                let lookback = self.options.lookback_ms;
                let is_smoothed = selector.extension == Some(tidemill_lang::promql::Extension::Smoothed);
                let ahead = if is_smoothed { lookback } else { 0 };
                let series = self.select(matchers(selector)?, shift.span(grid), (lookback, ahead))?;
                if is_smoothed && series.iter().any(|series| !series.samples.histograms.is_empty()) {
                    let message = "smoothed and anchored modifiers do not work with native histograms";
                    return Err(Error::Data(message.to_owned()));
                }
                for series in series.iter().filter(|series| series.samples.is_delta) {
                    self.notes.delta_values(series.labels.get(crate::labels::METRIC_NAME), expr.span);
                }
                let row = if is_smoothed { smoothed_row } else { vector_row };
                let mut rows = Vec::new();
                for row in series.iter().map(|series| row(series, grid, shift, lookback)).filter(Row::has_any) {
                    self.count_rows(std::slice::from_ref(&row))?;
                    rows.push(row);
                }
                Ok(rows)
            }
            ExprKind::Text(_) | ExprKind::Matrix(_) | ExprKind::Subquery(_) => {
                Err(Error::Data(format!("a {} has no values of its own", expr.value_type())))
            }
        }
    }

    /// The one row of a scalar expression.
    pub(super) fn scalar(&mut self, expr: &Expr, grid: Grid) -> Result<Row> {
        self.eval(expr, grid)?.pop().ok_or_else(|| Error::Data("a scalar without a value".to_owned()))
    }

    fn binary(&mut self, expr: &Expr, operation: &tidemill_lang::promql::Binary, grid: Grid) -> Result<Vec<Row>> {
        let types = (operation.left.value_type(), operation.right.value_type());
        match types {
            (ValueType::Scalar, ValueType::Scalar) => {
                let (left, right) = (self.scalar(&operation.left, grid)?, self.scalar(&operation.right, grid)?);
                Ok(vec![binary::scalars(operation, &left, &right)])
            }
            (ValueType::Vector, ValueType::Scalar) => {
                let rows = self.eval(&operation.left, grid)?;
                let scalar = self.scalar(&operation.right, grid)?;
                Ok(binary::with_scalar((operation, expr.span), rows, &scalar, false, &mut self.notes))
            }
            (ValueType::Scalar, _) => {
                let scalar = self.scalar(&operation.left, grid)?;
                let rows = self.eval(&operation.right, grid)?;
                Ok(binary::with_scalar((operation, expr.span), rows, &scalar, true, &mut self.notes))
            }
            _ => {
                let left = self.eval(&operation.left, grid)?;
                let right = self.eval(&operation.right, grid)?;
                if operation.op.is_set() {
                    return binary::set_operation(operation, left, right, grid.len());
                }
                binary::vectors((operation, expr.span), &left, &right, grid.len(), &mut self.notes)
            }
        }
    }

    fn call(&mut self, expr: &Expr, call: &Call, grid: Grid) -> Result<Vec<Row>> {
        let name = call.function.name;
        let arg = |at: usize| call.args.get(at).ok_or_else(|| Error::Data(format!("{name} lacks an argument")));
        if functions::range_function(name).is_some() {
            return self.range_call(call, grid);
        }
        let constant = |value: f64| Ok(vec![Row::constant(value, grid.len())]);
        let of_times =
            |part: fn(i64) -> f64| Ok(vec![Row::of_floats(Labels::default(), grid.times().map(part).collect())]);
        match name {
            "pi" => constant(std::f64::consts::PI),
            "start" => constant(self.times.start as f64 / 1000.0),
            "end" => constant(self.times.end as f64 / 1000.0),
            "step" => constant(self.times.step as f64 / 1000.0),
            "range" => constant((self.times.end - self.times.start) as f64 / 1000.0),
            "time" => of_times(|time| time as f64 / 1000.0),
            "vector" => self.eval(arg(0)?, grid),
            "scalar" => {
                let rows = self.eval(arg(0)?, grid)?;
                let value = |step| {
                    let mut floats = rows.iter().filter_map(|row| row.float(step));
                    floats.next().filter(|_| floats.next().is_none()).unwrap_or(f64::NAN)
                };
                Ok(vec![Row::of_floats(Labels::default(), (0..grid.len()).map(value).collect())])
            }
            "absent" => {
                let rows = self.eval(arg(0)?, grid)?;
                Ok(absent(&rows, arg(0)?, grid))
            }
            "timestamp" => self.timestamp(arg(0)?, grid),
            "sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc" => self.sort(expr, call, grid),
            "label_replace" | "label_join" => self.change_labels(call, grid),
            "info" => self.info(call, grid),
            "histogram_quantile" | "histogram_quantiles" | "histogram_fraction" => self.histogram_call(call, grid),
            _ if call.args.is_empty() => {
                let now = Row::of_floats(Labels::default(), grid.times().map(|time| (time / 1000) as f64).collect());
                let rows = map_rows(name, vec![now], &[]).unwrap_or_default();
                Ok(rows.into_iter().map(|row| row.dropping_name(false)).collect())
            }
            _ => {
                let outer = self.wants_totals;
                if matches!(name, "histogram_count" | "histogram_sum" | "histogram_avg") {
                    self.wants_totals = true;
                }
                let rows = self.eval(arg(0)?, grid);
                self.wants_totals = outer;
                let rows = rows?;
                let scalars = call.args[1..].iter().map(|arg| self.scalar(arg, grid)).collect::<Result<Vec<Row>>>()?;
                match map_histograms(name, &rows) {
                    Some(mapped) => Ok(mapped),
                    None => map_rows(name, rows, &scalars).ok_or_else(|| unsupported(expr, name)),
                }
            }
        }
    }

    fn timestamp(&mut self, arg: &Expr, grid: Grid) -> Result<Vec<Row>> {
        if let ExprKind::Vector(selector) = &arg.bare().kind
            && selector.extension.is_none()
        {
            let shift = self.times.shift(&selector.when)?;
            let lookback = self.options.lookback_ms;
            let series = self.select(matchers(selector)?, shift.span(grid), (lookback, 0))?;
            let rows = series.iter().map(|series| timestamp_row(series, grid, shift, lookback));
            return Ok(rows.filter(Row::has_any).collect());
        }
        let rows = self.eval(arg, grid)?;
        let times: Vec<f64> = grid.times().map(|time| time as f64 / 1000.0).collect();
        let stamped = rows.into_iter().map(|row| {
            let mut stamped = Row::new(row.labels.clone(), row.steps());
            stamped.drops_name = true;
            for step in (0..row.steps()).filter(|step| row.has(*step)) {
                stamped.set_float(step, times[step]);
            }
            stamped
        });
        Ok(stamped.collect())
    }

    /// The series of a range selector or subquery; `function` is what alone sees them, if it does not need every sample.
    pub(super) fn range(&mut self, expr: &Expr, grid: Grid, function: Option<WindowFunction>) -> Result<Selected> {
        match &expr.kind {
            ExprKind::Matrix(matrix) => self.matrix(matrix, grid, function),
            ExprKind::Subquery(subquery) => {
                let shift = self.times.shift(&subquery.when)?;
                let range = self.times.positive(&subquery.range)?;
                let (rows, inner) = self.subquery(subquery, grid)?;
                // What they become: times of their own, values and their places.
                let values: usize = rows.iter().map(Row::values).sum();
                self.count(0, values.saturating_add(inner.len()).saturating_mul(24))?;
                Ok(Selected { series: series_of_rows(rows, inner), range, shift })
            }
            _ => Err(Error::Data("expected a range".to_owned())),
        }
    }

    fn matrix(&mut self, matrix: &Matrix, grid: Grid, function: Option<WindowFunction>) -> Result<Selected> {
        let selector = &matrix.selector;
        let shift = self.times.shift(&selector.when)?;
        let range = self.times.positive(&matrix.range)?;
        let (before, after) = reach(selector.extension, self.options.lookback_ms);
        let is_plain = selector.extension.is_none() && !shift.is_fixed();
        let windows = function.filter(|_| is_plain).map(|function| Windows {
            function,
            first_end_ms: shift.seen(grid.start),
            step_ms: if grid.len() == 1 { range } else { grid.step },
            range_ms: range,
        });
        let series = self.select_for(windows, matchers(selector)?, shift.span(grid), (range + before, after))?;
        let clean = |series: Series| (Series { samples: without_stale(series.samples), ..series }, false);
        Ok(Selected { series: series.into_iter().map(clean).collect(), range, shift })
    }

    /// The rows of a subquery, and the grid that they lie on: multiples of the step, after the start of the first range.
    pub(super) fn subquery(&mut self, subquery: &Subquery, grid: Grid) -> Result<(Vec<Row>, Grid)> {
        let shift = self.times.shift(&subquery.when)?;
        let range = self.times.positive(&subquery.range)?;
        let step = match &subquery.step {
            Some(step) => self.times.positive(step)?.max(1),
            None => self.options.subquery_step_ms,
        };
        let (first, last) = shift.span(grid);
        let end = if shift.is_fixed() { shift.seen(grid.start) } else { last };
        let open = first - range;
        let start = (open.div_euclid(step) + 1) * step;
        let inner = Grid { start, end, step };
        let outer = std::mem::replace(&mut self.wants_totals, false);
        let rows = self.eval(&subquery.expr, inner);
        self.wants_totals = outer;
        Ok((rows?, inner))
    }

    /// The series that meet the conditions, with their samples from `before` the first time seen to `after` the last.
    pub(super) fn select(
        &mut self,
        matchers: Vec<crate::matcher::Matcher>,
        span: (i64, i64),
        around: (i64, i64),
    ) -> Result<Vec<Series>> {
        self.select_for(None, matchers, span, around)
    }

    fn select_for(
        &mut self,
        windows: Option<Windows>,
        matchers: Vec<crate::matcher::Matcher>,
        (first, last): (i64, i64),
        (before, after): (i64, i64),
    ) -> Result<Vec<Series>> {
        let start_ms = first.saturating_sub(before).saturating_add(1);
        let select = Select { matchers, start_ms, end_ms: last.saturating_add(after), windows };
        let sources = match &self.data {
            Data::Sources(sources) => sources.clone(),
            Data::Record(_) => Vec::new(),
            Data::Given(_) => return Err(Error::Data("this query cannot be divided into partitions".to_owned())),
        };
        let is_divided = sources.len() > 1;
        let mut series = Vec::new();
        for source in sources {
            series.extend(source.select(&select)?);
        }
        if is_divided {
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        self.count(series.iter().map(|series| series.samples.len()).sum(), 0)?;
        if self.wants_totals {
            let cut = |series: Series| Series { samples: totals_only(series.samples), ..series };
            series = series.into_iter().map(cut).collect();
        }
        Ok(series)
    }

    /// Refuses more samples than the query may hold.
    fn check_samples(&self, samples: usize) -> Result<()> {
        if samples <= self.options.max_samples {
            return Ok(());
        }
        let message = format!(
            "query processing would load too many samples into memory in query execution (more than {}); narrow its time range, take a \
             longer step or name more labels",
            self.options.max_samples
        );
        Err(Error::Limit(message))
    }

    /// Counts the values of rows.
    ///
    /// # Errors
    /// They are more than the query may hold.
    pub(super) fn count_rows(&mut self, rows: &[Row]) -> Result<()> {
        self.count(rows.iter().map(Row::values).sum(), rows.iter().map(Row::bytes).sum())
    }

    /// Counts samples that the evaluation holds, and bytes that they take.
    ///
    /// # Errors
    /// They are more than the query may hold.
    pub(super) fn count(&mut self, samples: usize, bytes: usize) -> Result<()> {
        self.options.interrupt.check()?;
        self.samples = self.samples.saturating_add(samples);
        self.bytes = self.bytes.saturating_add(bytes);
        self.check_samples(self.samples)?;
        if self.bytes > self.options.max_bytes {
            let message = "the values of the query take more memory than it may have; narrow its time range, take a longer step or \
                           name more labels";
            return Err(Error::Limit(message.to_owned()));
        }
        Ok(())
    }
}

/// The range of a call of `absent_over_time`.
fn range_of_absence(expr: &Expr) -> Option<&Expr> {
    match &expr.kind {
        ExprKind::Call(call) if call.function.name == "absent_over_time" => call.args.first().map(Expr::bare),
        _ => None,
    }
}

/// One where no series has a sample.
fn absent(rows: &[Row], selector: &Expr, grid: Grid) -> Vec<Row> {
    let mut row = Row::new(absent_labels(selector), grid.len());
    for step in (0..grid.len()).filter(|step| !rows.iter().any(|row| row.has(*step))) {
        row.set_float(step, 1.0);
    }
    Some(row).into_iter().filter(Row::has_any).collect()
}

fn negated(row: Row) -> Row {
    let mut negated = Row::new(row.labels.clone(), row.steps());
    negated.drops_name = true;
    for step in 0..row.steps() {
        match row.cell(step) {
            Cell::Float(value) => negated.set_float(step, -value),
            Cell::Histogram(histogram) => {
                let mut histogram = histogram.as_ref().clone();
                histogram.multiply(-1.0);
                negated.set(step, Cell::Histogram(std::sync::Arc::new(histogram)));
            }
            Cell::Absent => {}
        }
    }
    negated
}

fn unsupported(expr: &Expr, name: &str) -> Error {
    let message = format!("function {name} is not supported");
    Error::Query(Refusal::new(Reason::Unsupported, message, expr.span, ""))
}
