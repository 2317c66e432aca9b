//! Aggregations: rows are gathered into groups, groups of partitions are merged, and what they hold is finished into rows.
//!
//! What a group holds does not depend on the order or division of the series (sums are exact, see [`super::exact_sum`]; histograms'
//! counts are exact as long as they are integers), so that any number of partitions gives the same answer.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_lang::Span;
use tidemill_lang::promql::{Aggregate, AggregateOp, Expr, ExprKind};

use super::annotation::Annotations;
use super::evaluator::Evaluator;
use super::exact_sum::ExactSum;
use super::grid::Grid;
use super::histogram::{Histogram, ResetHint};
use super::label_functions::text;
use super::partial::{Data, Partial, Task, TaskKind, is_series_local};
use super::quantile;
use super::row::{Cell, Row};
use super::select_k::Choice;
use crate::error::{Error, Result};
use crate::labels::{Labels, METRIC_NAME};
use crate::number::format_number;

/// Groups, in the order in which they were first seen.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Groups {
    all: Vec<Group>,
    #[serde(skip)]
    at: HashMap<Labels, usize>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Group {
    labels: Labels,
    drops_name: bool,
    state: State,
}

/// What a group holds, per step.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum State {
    Sums(Vec<Sum>),
    Counts(Vec<u64>),
    Extremes(Vec<Option<Bits>>),
    Values(Vec<Vec<Bits>>),
    Rows(Vec<Row>),
}

/// A float, serialized as its bits.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Bits(#[serde(with = "crate::bits")] f64);

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Sum {
    floats: ExactSum,
    float_count: u64,
    histograms: Option<Box<HistogramSum>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct HistogramSum {
    sum: Histogram,
    lost: Histogram,
    count: u64,
    has_reset: bool,
    has_not_reset: bool,
    is_incompatible: bool,
}

/// The rows of an aggregation at the times of `grid`.
pub(super) fn evaluate(
    evaluator: &mut Evaluator<'_>,
    span: Span,
    aggregate: &Aggregate,
    grid: Grid,
) -> Result<Vec<Row>> {
    let param = match &aggregate.param {
        Some(param) if aggregate.op != AggregateOp::CountValues => Some(evaluator.scalar(param, grid)?),
        _ => None,
    };
    if matches!(evaluator.data, Data::Record(_)) && !is_divisible(aggregate) {
        // Which tasks there are does not depend on what they give.
        return evaluator.eval(&aggregate.expr, grid).map(|_| Vec::new());
    }
    let gathering = Gathering { aggregate, span, grid, choice: choice(aggregate, param.as_ref(), evaluator)? };
    if gathering.choice.as_ref().is_some_and(Choice::is_nothing) {
        return Ok(Vec::new());
    }
    let mut groups = Groups::default();
    if !is_divisible(aggregate) {
        let rows = evaluator.eval(&aggregate.expr, grid)?;
        groups.gather(&gathering, rows, &mut evaluator.notes)?;
        return groups.finish(&gathering, param.as_ref(), &mut evaluator.notes);
    }
    let task = Task { span, grid, kind: TaskKind::Aggregate };
    match &evaluator.data {
        Data::Sources(sources) => {
            let sources = sources.clone();
            for source in sources {
                let rows = evaluator.on(Data::Sources(vec![source]), |one| one.eval(&aggregate.expr, grid))?;
                let mut part = Groups::default();
                part.gather(&gathering, rows, &mut evaluator.notes)?;
                groups.merge(part, &gathering, &mut evaluator.notes);
            }
        }
        Data::Record(tasks) => {
            tasks.borrow_mut().push(task);
            return Ok(Vec::new());
        }
        Data::Given(given) => {
            for partial in given.take(&task)? {
                let Partial::Groups(part) = partial else {
                    return Err(Error::Data("a partition answered another task".to_owned()));
                };
                groups.merge(part.0, &gathering, &mut evaluator.notes);
            }
            groups.all.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
    }
    groups.finish(&gathering, param.as_ref(), &mut evaluator.notes)
}

/// The groups of one partition.
pub(super) fn partial(evaluator: &mut Evaluator<'_>, span: Span, aggregate: &Aggregate, grid: Grid) -> Result<Groups> {
    let param = match &aggregate.param {
        Some(param) if aggregate.op != AggregateOp::CountValues => Some(evaluator.scalar(param, grid)?),
        _ => None,
    };
    let gathering = Gathering { aggregate, span, grid, choice: choice(aggregate, param.as_ref(), evaluator)? };
    let mut groups = Groups::default();
    let rows = evaluator.eval(&aggregate.expr, grid)?;
    groups.gather(&gathering, rows, &mut evaluator.notes)?;
    Ok(groups)
}

/// Whether partitions can gather groups by themselves.
fn is_divisible(aggregate: &Aggregate) -> bool {
    let has_plain_param = aggregate.param.as_ref().is_none_or(|param| !has_selector(param));
    has_plain_param && is_series_local(&aggregate.expr)
}

fn has_selector(expr: &Expr) -> bool {
    matches!(expr.kind, ExprKind::Vector(_) | ExprKind::Matrix(_)) || expr.children().into_iter().any(has_selector)
}

/// How an aggregation gathers.
struct Gathering<'a> {
    aggregate: &'a Aggregate,
    span: Span,
    grid: Grid,
    choice: Option<Choice>,
}

/// Which series an aggregation chooses, of those that choose; checks the parameter of `quantile` too.
fn choice(aggregate: &Aggregate, param: Option<&Row>, evaluator: &mut Evaluator<'_>) -> Result<Option<Choice>> {
    let (Some(param), Some(expr)) = (param, &aggregate.param) else { return Ok(None) };
    let values: Vec<f64> = (0..param.steps()).map(|step| param.float(step).unwrap_or(f64::NAN)).collect();
    if aggregate.op == AggregateOp::Quantile {
        note_quantiles(&values, expr.span, &mut evaluator.notes);
        return Ok(None);
    }
    Choice::new(aggregate.op, values, expr.span, &mut evaluator.notes).map(Some)
}

fn note_quantiles(values: &[f64], span: Span, notes: &mut Annotations) {
    if values.iter().any(|value| value.is_nan()) {
        notes.bad_quantile(f64::NAN, span);
    }
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    for value in [most, least] {
        if value.is_finite() && !(0.0..=1.0).contains(&value)
            || value.is_infinite() && !values.is_empty() && values.contains(&value)
        {
            notes.bad_quantile(value, span);
        }
    }
}

impl Groups {
    fn group(&mut self, labels: Labels, new: impl FnOnce() -> State) -> &mut Group {
        let index = match self.at.get(&labels) {
            Some(index) => *index,
            None => {
                self.at.insert(labels.clone(), self.all.len());
                self.all.push(Group { labels, drops_name: false, state: new() });
                self.all.len() - 1
            }
        };
        &mut self.all[index]
    }

    fn gather(&mut self, gathering: &Gathering<'_>, rows: Vec<Row>, notes: &mut Annotations) -> Result<()> {
        let Gathering { aggregate, grid, .. } = gathering;
        if aggregate.op == AggregateOp::CountValues {
            return self.gather_values(gathering, &rows);
        }
        for row in rows {
            let labels = group_labels(&row.labels, aggregate, &[]);
            let drops_name = row.drops_name;
            let group = self.group(labels, || State::new(aggregate.op, grid.len()));
            group.drops_name |= drops_name;
            group.state.add(gathering, row, notes);
        }
        for group in &mut self.all {
            group.state.prune(gathering);
        }
        Ok(())
    }

    /// `count_values`: each value is a group of its own.
    fn gather_values(&mut self, gathering: &Gathering<'_>, rows: &[Row]) -> Result<()> {
        let aggregate = gathering.aggregate;
        let param = aggregate.param.as_ref().ok_or_else(|| Error::Data("count_values lacks a label".to_owned()))?;
        let label = text(param).ok().filter(|label| !label.is_empty());
        let label = label.ok_or_else(|| Error::Data(format!("invalid label name {}", param.bare())))?;
        for row in rows {
            for step in (0..row.steps()).filter(|step| row.has(*step)) {
                let value = match row.cell(step) {
                    Cell::Float(value) => format_number(value),
                    Cell::Histogram(histogram) => histogram.to_string(),
                    Cell::Absent => continue,
                };
                let mut builder = row.labels.builder();
                builder.set(label, &value);
                let labels = group_labels(&builder.build(), aggregate, &[label]);
                let group = self.group(labels, || State::Counts(vec![0; gathering.grid.len()]));
                if let State::Counts(counts) = &mut group.state {
                    counts[step] += 1;
                }
            }
        }
        Ok(())
    }

    fn merge(&mut self, other: Self, gathering: &Gathering<'_>, notes: &mut Annotations) {
        for Group { labels, drops_name, state } in other.all {
            if let Some(index) = self.at.get(&labels) {
                let group = &mut self.all[*index];
                group.drops_name |= drops_name;
                group.state.merge(state, gathering, notes);
            } else {
                self.group(labels, || state).drops_name = drops_name;
            }
        }
    }

    fn finish(self, gathering: &Gathering<'_>, param: Option<&Row>, notes: &mut Annotations) -> Result<Vec<Row>> {
        let mut rows = Vec::with_capacity(self.all.len());
        for group in self.all {
            if let State::Rows(candidates) = group.state {
                if let Some(choice) = &gathering.choice {
                    rows.extend(choice.chosen(candidates));
                }
                continue;
            }
            let mut row = Row::new(group.labels, gathering.grid.len());
            row.drops_name = group.drops_name;
            group.state.finish(gathering, param, &mut row, notes);
            if row.has_any() {
                rows.push(row);
            }
        }
        Ok(rows)
    }
}

/// The labels of the group of a series; `also` are labels that `by` keeps besides.
fn group_labels(labels: &Labels, aggregate: &Aggregate, also: &[&str]) -> Labels {
    let is_listed = |name: &str| aggregate.grouping.iter().any(|label| label == name) || also.contains(&name);
    if aggregate.is_without {
        let is_left_out = |name: &str| aggregate.grouping.iter().any(|label| label == name) || name == METRIC_NAME;
        return labels.filtered(|name| !is_left_out(name));
    }
    labels.filtered(is_listed)
}

impl State {
    fn new(op: AggregateOp, steps: usize) -> Self {
        match op {
            AggregateOp::Sum | AggregateOp::Avg => Self::Sums((0..steps).map(|_| Sum::default()).collect()),
            AggregateOp::Count | AggregateOp::Group | AggregateOp::CountValues => Self::Counts(vec![0; steps]),
            AggregateOp::Min | AggregateOp::Max => Self::Extremes(vec![None; steps]),
            AggregateOp::Quantile | AggregateOp::Stddev | AggregateOp::Stdvar => Self::Values(vec![Vec::new(); steps]),
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio => {
                Self::Rows(Vec::new())
            }
        }
    }

    fn add(&mut self, gathering: &Gathering<'_>, row: Row, notes: &mut Annotations) {
        let op = gathering.aggregate.op;
        let expr_span = gathering.aggregate.expr.span;
        let ignores_histograms = !matches!(self, Self::Sums(_) | Self::Counts(_) | Self::Rows(_))
            || matches!(op, AggregateOp::Topk | AggregateOp::Bottomk);
        if ignores_histograms && row.has_histograms() {
            let span = if matches!(self, Self::Rows(_)) { gathering.span } else { expr_span };
            notes.info(format!("ignored histogram in {} aggregation", op.as_str()), span);
        }
        match self {
            Self::Sums(sums) => {
                for (step, sum) in sums.iter_mut().enumerate() {
                    if let Some(value) = row.float(step) {
                        sum.floats.add(value);
                        sum.float_count += 1;
                    } else if let Some(histogram) = row.histogram(step) {
                        sum.add_histogram(histogram, row.labels.get(METRIC_NAME), expr_span, notes);
                    }
                }
            }
            Self::Counts(counts) => {
                counts.iter_mut().enumerate().for_each(|(step, count)| *count += u64::from(row.has(step)));
            }
            Self::Extremes(extremes) => {
                for (step, extreme) in extremes.iter_mut().enumerate() {
                    if let Some(value) = row.float(step) {
                        *extreme = Some(Bits(further(op, *extreme, value)));
                    }
                }
            }
            Self::Values(values) => {
                for (step, values) in values.iter_mut().enumerate() {
                    values.extend(row.float(step).map(Bits));
                }
            }
            Self::Rows(rows) => rows.push(row),
        }
    }

    /// Drops from a partition's candidates what cannot be chosen.
    fn prune(&mut self, gathering: &Gathering<'_>) {
        if let (Self::Rows(rows), Some(choice)) = (&mut *self, &gathering.choice) {
            let candidates = std::mem::take(rows);
            *rows = choice.pruned(candidates);
        }
    }

    fn merge(&mut self, other: Self, gathering: &Gathering<'_>, notes: &mut Annotations) {
        let span = gathering.aggregate.expr.span;
        match (self, other) {
            (Self::Sums(own), Self::Sums(theirs)) => {
                own.iter_mut().zip(theirs).for_each(|(own, theirs)| own.merge(theirs, span, notes));
            }
            (Self::Counts(own), Self::Counts(theirs)) => {
                own.iter_mut().zip(theirs).for_each(|(own, theirs)| *own += theirs);
            }
            (Self::Extremes(own), Self::Extremes(theirs)) => {
                for (own, theirs) in own.iter_mut().zip(theirs) {
                    if let Some(Bits(value)) = theirs {
                        *own = Some(Bits(further(gathering.aggregate.op, *own, value)));
                    }
                }
            }
            (Self::Values(own), Self::Values(theirs)) => {
                own.iter_mut().zip(theirs).for_each(|(own, theirs)| own.extend(theirs));
            }
            (Self::Rows(own), Self::Rows(theirs)) => {
                own.extend(theirs);
                own.sort_by(|a, b| a.labels.cmp(&b.labels));
            }
            _ => {}
        }
    }

    fn finish(self, gathering: &Gathering<'_>, param: Option<&Row>, row: &mut Row, notes: &mut Annotations) {
        let op = gathering.aggregate.op;
        match self {
            Self::Sums(sums) => {
                for (step, sum) in sums.into_iter().enumerate() {
                    if let Some(cell) = sum.finish(op, gathering.aggregate.expr.span, notes) {
                        row.set(step, cell);
                    }
                }
            }
            Self::Counts(counts) => {
                for (step, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
                    row.set_float(step, if op == AggregateOp::Group { 1.0 } else { count as f64 });
                }
            }
            Self::Extremes(extremes) => {
                for (step, extreme) in extremes.into_iter().enumerate() {
                    if let Some(Bits(value)) = extreme {
                        row.set_float(step, value);
                    }
                }
            }
            Self::Values(values) => {
                for (step, values) in values.into_iter().enumerate().filter(|(_, values)| !values.is_empty()) {
                    let mut values: Vec<f64> = values.into_iter().map(|Bits(value)| value).collect();
                    let value = match op {
                        AggregateOp::Quantile => {
                            let q = param.and_then(|param| param.float(step)).unwrap_or(f64::NAN);
                            quantile::of_values(q, &mut values)
                        }
                        AggregateOp::Stddev => variance(values).sqrt(),
                        _ => variance(values),
                    };
                    row.set_float(step, value);
                }
            }
            Self::Rows(_) => {}
        }
    }
}

/// The value of two that lies further in the direction of `min` or `max`; a number wins against NaN.
fn further(op: AggregateOp, known: Option<Bits>, value: f64) -> f64 {
    let Some(Bits(known)) = known else { return value };
    let wins = if op == AggregateOp::Min { value < known } else { value > known };
    if wins || known.is_nan() { value } else { known }
}

/// The population variance by Welford's method, in the order of the values so that it does not depend on theirs.
fn variance(mut values: Vec<f64>) -> f64 {
    if values.iter().any(|value| !value.is_finite()) {
        return f64::NAN;
    }
    values.sort_by(f64::total_cmp);
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for value in values {
        count += 1.0;
        let distance = value - mean;
        mean += distance / count;
        squares += distance * (value - mean);
    }
    squares / count
}

impl Sum {
    fn add_histogram(&mut self, histogram: &Arc<Histogram>, metric: &str, span: Span, notes: &mut Annotations) {
        let Some(sum) = &mut self.histograms else {
            self.histograms = Some(Box::new(HistogramSum {
                sum: histogram.as_ref().clone(),
                lost: Histogram::default(),
                count: 1,
                has_reset: histogram.hint == ResetHint::Reset,
                has_not_reset: histogram.hint == ResetHint::NotReset,
                is_incompatible: false,
            }));
            return;
        };
        sum.add(histogram, metric, span, notes);
    }

    fn merge(&mut self, other: Self, span: Span, notes: &mut Annotations) {
        self.floats.merge(&other.floats);
        self.float_count += other.float_count;
        match (&mut self.histograms, other.histograms) {
            (Some(own), Some(theirs)) => own.merge(&theirs, span, notes),
            (own, theirs) => *own = own.take().or(theirs),
        }
    }

    fn finish(self, op: AggregateOp, span: Span, notes: &mut Annotations) -> Option<Cell> {
        let is_average = op == AggregateOp::Avg;
        let Some(histograms) = self.histograms else {
            let divisor = if is_average { self.float_count as f64 } else { 1.0 };
            return (self.float_count > 0).then(|| Cell::Float(self.floats.quotient(divisor)));
        };
        if self.float_count > 0 {
            notes.warn("encountered a mix of histograms and floats for aggregation", span);
            return None;
        }
        if histograms.is_incompatible {
            return None;
        }
        if histograms.has_reset && histograms.has_not_reset {
            notes.hint_collision("aggregation", span);
        }
        let HistogramSum { mut sum, lost, count, .. } = *histograms;
        if count > 1 {
            sum.add(&lost).ok()?;
        }
        if is_average {
            sum.divide(count as f64);
        }
        Some(Cell::Histogram(Arc::new(sum.compacted())))
    }
}

impl HistogramSum {
    fn add(&mut self, histogram: &Histogram, metric: &str, span: Span, notes: &mut Annotations) {
        if self.is_incompatible {
            return;
        }
        self.count += 1;
        self.has_reset |= histogram.hint == ResetHint::Reset;
        self.has_not_reset |= histogram.hint == ResetHint::NotReset;
        match self.sum.add_compensated(histogram, &mut self.lost) {
            Ok(combined) if combined.has_reconciled_bounds => notes.reconciled_bounds("aggregation", span),
            Ok(_) => {}
            Err(_) => {
                self.is_incompatible = true;
                notes.mixed_schemas(metric, span);
            }
        }
    }

    fn merge(&mut self, other: &Self, span: Span, notes: &mut Annotations) {
        let count = self.count + other.count;
        let (has_reset, has_not_reset) = (other.has_reset, other.has_not_reset);
        self.is_incompatible |= other.is_incompatible;
        self.add(&other.sum, "", span, notes);
        if other.count > 1 {
            self.add(&other.lost, "", span, notes);
        }
        self.count = count;
        self.has_reset |= has_reset;
        self.has_not_reset |= has_not_reset;
    }
}

/// Groups as a partial carries them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SerializedGroups(pub(super) Groups);
