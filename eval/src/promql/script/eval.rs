//! Running one evaluation of a script, in all the ways in which it must give the same.

use tidemill_lang::promql::{At, Expr, ExprKind, parse};

use super::super::engine::Engine;
use super::super::prepare::is_time_dependent;
use super::super::source::Source;
use super::super::value::{Sample, Value};
use super::command::Evaluation;
use super::compare;
use crate::error::Error;

/// Evaluates and compares.
pub(super) fn run(evaluation: &Evaluation, engine: &Engine, sources: &[&dyn Source]) -> Result<(), String> {
    let (start, _, step) = evaluation.times;
    if step > 0 {
        let result = engine.range(&evaluation.query, evaluation.times, sources);
        return match outcome(evaluation, result)? {
            Some((value, notes)) => {
                compare::annotations(evaluation, &evaluation.query, &notes)?;
                compare::value(evaluation, &value)
            }
            None => Ok(()),
        };
    }
    // An expected range vector says when the query is evaluated: at its end.
    let at = evaluation.vector_times.map_or(start, |(_, end, _)| end);
    instant(evaluation, engine, sources, (&evaluation.query, at))?;
    let Some(fixed) = fixed_in_time(&evaluation.query, at)? else { return Ok(()) };
    let others = if at == 0 { vec![-1000, 0, 1000] } else { vec![-10 * at, 0, at / 5, at, 10 * at] };
    for time in others {
        instant(evaluation, engine, sources, (&fixed, time))
            .map_err(|message| format!("{fixed} at {time}: {message}"))?;
    }
    Ok(())
}

type Outcome = Option<(Value, super::super::annotation::Annotations)>;

/// The value, or nothing where the failure was expected.
fn outcome(
    evaluation: &Evaluation,
    result: Result<(Value, super::super::annotation::Annotations), Error>,
) -> Result<Outcome, String> {
    match (result, &evaluation.fails) {
        (Ok(_), Some(_)) => Err("expected an error but got none".to_owned()),
        (Ok(value), None) => Ok(Some(value)),
        (Err(error), None) => Err(format!("error evaluating query: {error}")),
        (Err(error), Some(patterns)) => {
            let message = error.to_string();
            match patterns.iter().find(|pattern| !pattern.fits(&message)) {
                Some(pattern) => Err(format!("expected error {:?}, but got: {message}", pattern.text())),
                None => Ok(None),
            }
        }
    }
}

fn instant(
    evaluation: &Evaluation,
    engine: &Engine,
    sources: &[&dyn Source],
    (query, at): (&str, i64),
) -> Result<(), String> {
    let Some((value, notes)) = outcome(evaluation, engine.instant(query, at, sources))? else { return Ok(()) };
    compare::annotations(evaluation, query, &notes)?;
    compare::value(evaluation, &value)?;
    let depends_on_range = ["start()", "end()", "range()", "step()"].iter().any(|call| query.contains(call));
    if depends_on_range || evaluation.is_ordered || matches!(value, Value::Matrix(_) | Value::Text(..)) {
        return Ok(());
    }
    let times = (at - 60_000, at + 60_000, 60_000);
    let (range, _) = engine.range(query, times, sources).map_err(|error| format!("in range mode: {error}"))?;
    let middle = middle(&range, at);
    let middle = match (&value, middle.first()) {
        (Value::Scalar(..), Some((_, _, Sample::Float(value)))) => Value::Scalar(at, *value),
        _ => Value::Vector(middle),
    };
    compare::value(evaluation, &middle).map_err(|message| format!("in range mode: {message}"))
}

/// The samples of a range at one time.
fn middle(range: &Value, at: i64) -> Vec<(crate::labels::Labels, i64, Sample)> {
    let Value::Matrix(series) = range else { return Vec::new() };
    let sample = |series: &super::super::value::SeriesValue| {
        let float = series.floats.iter().find(|(time, _)| *time == at).map(|(_, value)| Sample::Float(*value));
        let histogram = || series.histograms.iter().find(|(time, _)| *time == at);
        float.or_else(|| histogram().map(|(_, value)| Sample::Histogram(value.clone())))
    };
    series.iter().filter_map(|series| Some((series.labels.clone(), at, sample(series)?))).collect()
}

/// The query with every selector looking at `at`; nothing where a function depends on the time of evaluation itself.
fn fixed_in_time(query: &str, at: i64) -> Result<Option<String>, String> {
    let mut tree = parse(query).map_err(|error| error.to_string())?;
    Ok(fix(&mut tree, at).then(|| tree.to_string()))
}

fn fix(expr: &mut Expr, at: i64) -> bool {
    let when = match &mut expr.kind {
        ExprKind::Vector(selector) => Some(&mut selector.when),
        ExprKind::Matrix(matrix) => Some(&mut matrix.selector.when),
        ExprKind::Subquery(subquery) => Some(&mut subquery.when),
        ExprKind::Call(call) if is_time_dependent(call) => return false,
        _ => None,
    };
    if let Some(when) = when {
        if !matches!(when.at, Some(At::Time(_))) {
            when.at = Some(At::Time(at));
        }
        // What lies inside of a subquery follows the subquery.
        return true;
    }
    expr.children_mut().into_iter().all(|child| fix(child, at))
}
