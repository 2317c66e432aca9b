//! The entrance: a query, a time, a source; a value and what there is to say of it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidemill_lang::promql::{Expr, ExprKind, ValueType, parse};

use super::aggregate;
use super::annotation::Annotations;
use super::binary::united;
use super::evaluator::Evaluator;
use super::functions::extend;
use super::grid::Grid;
use super::partial::{Data, Given, Partial, SerializedGroups, Task, TaskKind};
use super::prepare::QueryTimes;
use super::row::{Cell, Row, without_metadata};
use super::selection::reach;
use super::source::Source;
use super::value::{Sample, SeriesValue, Value};
use super::walk::Walk;
use crate::error::{Error, Result};

/// What an engine is set to.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a sample stays current, in milliseconds.
    pub lookback_ms: i64,
    /// The step of subqueries that name none, in milliseconds.
    pub subquery_step_ms: i64,
    /// How many samples a query may load and make.
    pub max_samples: usize,
    /// About how many bytes the values that it makes may take.
    pub max_bytes: usize,
    /// How many steps a range query may take from its first time.
    pub max_steps: usize,
    /// By which an evaluation is ended before it is done.
    pub interrupt: Interrupt,
}

/// Ends evaluations that nobody waits for any more. Clones share their state.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Ends what is evaluated with it, soon.
    pub fn end(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Error::Limit("the query was stopped".to_owned()));
        }
        Ok(())
    }
}

/// Evaluates queries.
#[derive(Debug, Clone, Default)]
pub struct Engine {
    options: Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lookback_ms: 300_000,
            subquery_step_ms: 60_000,
            max_samples: 50_000_000,
            max_bytes: usize::MAX,
            max_steps: 11_000,
            interrupt: Interrupt::default(),
        }
    }
}

impl Engine {
    /// An engine set to `options`.
    pub fn new(options: Options) -> Self {
        Self { options }
    }

    /// What it is set to.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The value of `query` at the time `at`, in milliseconds since 1970, over the series of `sources`. A series lies in one of the
    /// sources only.
    ///
    /// # Errors
    /// The query is wrong, has no answer for the data, passes a bound, or a source failed.
    pub fn instant(&self, query: &str, at: i64, sources: &[&dyn Source]) -> Result<(Value, Annotations)> {
        let times = QueryTimes { start: at, end: at, step: 0 };
        self.run(query, times, Data::Sources(sources.to_vec()))
    }

    /// The values of `query` from `start` to `end`, `step` apart, in milliseconds.
    ///
    /// # Errors
    /// As [`Self::instant`]; the times make no range, or the query gives no vector and no scalar.
    pub fn range(
        &self,
        query: &str,
        (start, end, step): (i64, i64, i64),
        sources: &[&dyn Source],
    ) -> Result<(Value, Annotations)> {
        self.run(query, QueryTimes { start, end, step }, Data::Sources(sources.to_vec()))
    }

    /// The parts of a query that partitions answer by themselves; `step` is 0 for an instant query at `start`.
    ///
    /// # Errors
    /// The query is wrong, or cannot be divided.
    pub fn tasks(&self, query: &str, (start, end, step): (i64, i64, i64)) -> Result<Vec<Task>> {
        let noted = RefCell::new(Vec::new());
        self.run(query, QueryTimes { start, end, step }, Data::Record(&noted))?;
        Ok(noted.into_inner())
    }

    /// What a partition answers to one of the tasks of a query.
    ///
    /// # Errors
    /// As [`Self::instant`].
    pub fn run_task(
        &self,
        query: &str,
        (start, end, step): (i64, i64, i64),
        task: Task,
        source: &dyn Source,
    ) -> Result<(Partial, Annotations)> {
        let tree = parse(query)?;
        let expr = find(&tree, task).ok_or_else(|| Error::Data("the query has no such task".to_owned()))?;
        let times = QueryTimes { start, end, step };
        let mut evaluator = Evaluator::new(&self.options, times, Data::Sources(vec![source]));
        let partial = match (&expr.kind, task.kind) {
            (ExprKind::Aggregate(aggregate), TaskKind::Aggregate) => {
                let groups = aggregate::partial(&mut evaluator, expr.span, aggregate, task.grid)?;
                Partial::Groups(SerializedGroups(groups))
            }
            _ => Partial::Rows(evaluator.eval_here(expr, task.grid)?),
        };
        Ok((partial, evaluator.notes))
    }

    /// The value of a query, from what all partitions answered to its tasks.
    ///
    /// # Errors
    /// As [`Self::instant`]; an answer is missing: there must be one for each time that [`Self::tasks`] names a task.
    pub fn finish(
        &self,
        query: &str,
        (start, end, step): (i64, i64, i64),
        answers: impl IntoIterator<Item = (Task, Vec<Partial>)>,
    ) -> Result<(Value, Annotations)> {
        let given = Given::new(answers);
        self.run(query, QueryTimes { start, end, step }, Data::Given(&given))
    }

    fn run(&self, query: &str, times: QueryTimes, data: Data<'_>) -> Result<(Value, Annotations)> {
        let tree = parse(query)?;
        let mut evaluator = Evaluator::new(&self.options, times, data);
        let is_range = times.step > 0;
        let grid = if is_range { self.range_grid(&tree, times)? } else { Grid::instant(times.start) };
        let value = match tree.value_type() {
            ValueType::Text => match &tree.bare().kind {
                ExprKind::Text(text) => Value::Text(times.start, String::from_utf8_lossy(&text.0).into_owned()),
                _ => return Err(Error::Data("a string has no values".to_owned())),
            },
            ValueType::Matrix => instant_matrix(&mut evaluator, tree.bare(), grid)?,
            ValueType::Scalar if !is_range => {
                let row = evaluator.scalar(&tree, grid)?;
                Value::Scalar(times.start, row.float(0).unwrap_or(f64::NAN))
            }
            ValueType::Scalar | ValueType::Vector => {
                let rows = named(evaluator.eval(&tree, grid)?)?;
                if is_range { matrix(&rows, grid) } else { vector(&rows, times.start) }
            }
        };
        Ok((value, evaluator.notes))
    }

    fn range_grid(&self, tree: &Expr, times: QueryTimes) -> Result<Grid> {
        if !matches!(tree.value_type(), ValueType::Scalar | ValueType::Vector) {
            let given = tree.value_type();
            let message =
                format!("invalid expression type \"{given}\" for range query, must be Scalar or instant Vector");
            return Err(Error::Data(message));
        }
        if times.end < times.start {
            return Err(Error::Data("end timestamp must not be before start time".to_owned()));
        }
        let grid = Grid { start: times.start, end: times.end, step: times.step };
        if grid.len() > self.options.max_steps.saturating_add(1) {
            let message = format!(
                "exceeded maximum resolution of {} points per timeseries. Try decreasing the query resolution (?step=XX)",
                self.options.max_steps
            );
            return Err(Error::Limit(message));
        }
        Ok(grid)
    }
}

/// The expression of a task.
fn find(expr: &Expr, task: Task) -> Option<&Expr> {
    let is_it = expr.span == task.span
        && !matches!(expr.kind, ExprKind::Paren(_))
        && (task.kind == TaskKind::Rows) != matches!(expr.kind, ExprKind::Aggregate(_));
    if is_it {
        return Some(expr);
    }
    expr.children().into_iter().find_map(|child| find(child, task))
}

/// Removes the names that go, and unites series that are the same then.
fn named(rows: Vec<Row>) -> Result<Vec<Row>> {
    let rename = |mut row: Row| {
        if row.drops_name {
            row.labels = without_metadata(&row.labels);
        }
        row
    };
    united(rows.into_iter().map(rename).collect())
}

fn vector(rows: &[Row], time: i64) -> Value {
    let samples = rows.iter().filter_map(|row| {
        let sample = match row.cell(0) {
            Cell::Float(value) => Sample::Float(value),
            Cell::Histogram(histogram) => Sample::Histogram(histogram),
            Cell::Absent => return None,
        };
        Some((row.labels.clone(), time, sample))
    });
    Value::Vector(samples.collect())
}

fn matrix(rows: &[Row], grid: Grid) -> Value {
    let mut series: Vec<SeriesValue> = rows.iter().map(|row| series_value(row, grid)).collect();
    series.retain(|series| !series.floats.is_empty() || !series.histograms.is_empty());
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    Value::Matrix(series)
}

fn series_value(row: &Row, grid: Grid) -> SeriesValue {
    let times = || grid.times().enumerate();
    SeriesValue {
        labels: row.labels.clone(),
        floats: times().filter_map(|(step, time)| row.float(step).map(|value| (time, value))).collect(),
        histograms: times().filter_map(|(step, time)| row.histogram(step).map(|h| (time, Arc::clone(h)))).collect(),
    }
}

/// The samples themselves of a range selector or subquery.
fn instant_matrix(evaluator: &mut Evaluator<'_>, expr: &Expr, grid: Grid) -> Result<Value> {
    if let ExprKind::Subquery(subquery) = &expr.kind {
        let (rows, inner) = evaluator.subquery(subquery, grid)?;
        return Ok(matrix(&named(rows)?, inner));
    }
    let ExprKind::Matrix(range) = &expr.kind else {
        return Err(Error::Data("expected a range".to_owned()));
    };
    let selected = evaluator.range(expr, grid, None)?;
    let end = selected.shift.seen(grid.start);
    let extension = range.selector.extension;
    let reach = reach(extension, evaluator.options.lookback_ms);
    let mut series = Vec::new();
    for (one, _) in &selected.series {
        let window = Walk::default().window(&one.samples, &[], (end - selected.range, end), reach);
        if extension.is_some() && !window.histograms.is_empty() {
            return Err(Error::Data("anchored modifier is not supported with histograms".to_owned()));
        }
        let floats = match extension {
            Some(extension) => extend(&window, extension),
            None => window.times.iter().copied().zip(window.values.iter().copied()).collect(),
        };
        let histograms: Vec<_> =
            window.histograms.iter().map(|sample| (sample.time, Arc::clone(&sample.histogram))).collect();
        if !floats.is_empty() || !histograms.is_empty() {
            series.push(SeriesValue { labels: one.labels.clone(), floats, histograms });
        }
    }
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(Value::Matrix(series))
}
