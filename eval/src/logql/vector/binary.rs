//! Operators between metrics.

use std::collections::HashMap;

use tidemill_lang::logql::ast::{Binary, BinaryOperator, Cardinality, Matching};

use super::{Evaluated, Series, united};
use crate::error::{Error, Result};
use crate::logql::labels::LabelSet;

/// Applies the operator.
pub(super) fn combine(binary: &Binary, left: Evaluated, right: Evaluated, instants: usize) -> Result<Evaluated> {
    Ok(match (left, right) {
        (Evaluated::Scalar(left), Evaluated::Scalar(right)) => {
            Evaluated::Scalar(calculate(binary.operator, left, right))
        }
        (Evaluated::Series(series), Evaluated::Scalar(scalar)) => {
            Evaluated::Series(with_scalar(binary, series, |value| (value, scalar)))
        }
        (Evaluated::Scalar(scalar), Evaluated::Series(series)) => {
            Evaluated::Series(with_scalar(binary, series, |value| (scalar, value)))
        }
        (Evaluated::Series(left), Evaluated::Series(right)) if binary.operator.is_set() => {
            Evaluated::Series(combine_sets(binary, left, right, instants)?)
        }
        (Evaluated::Series(left), Evaluated::Series(right)) => {
            Evaluated::Series(combine_series(binary, &left, &right, instants)?)
        }
    })
}

/// The operator's number; a comparison gives 1 or 0. A division by 0 has no number, as in Loki.
fn calculate(operator: BinaryOperator, left: f64, right: f64) -> f64 {
    match operator {
        BinaryOperator::Add => left + right,
        BinaryOperator::Subtract => left - right,
        BinaryOperator::Multiply => left * right,
        BinaryOperator::Divide if right == 0.0 => f64::NAN,
        BinaryOperator::Divide => left / right,
        BinaryOperator::Modulo => left % right,
        BinaryOperator::Power => left.powf(right),
        BinaryOperator::Compare(comparison) => f64::from(u8::from(comparison.holds(left, right))),
        BinaryOperator::Or | BinaryOperator::And | BinaryOperator::Unless => f64::NAN,
    }
}

/// The operator's value between two, of which a comparison without `bool` keeps `kept` where it holds.
fn value(binary: &Binary, left: f64, right: f64, kept: f64) -> Option<f64> {
    let result = calculate(binary.operator, left, right);
    match binary.operator {
        BinaryOperator::Compare(_) if !binary.is_bool => (result != 0.0).then_some(kept),
        _ => Some(result),
    }
}

fn with_scalar(binary: &Binary, series: Vec<Series>, sides: impl Fn(f64) -> (f64, f64)) -> Vec<Series> {
    let apply = |own: Option<f64>| {
        let own = own?;
        let (left, right) = sides(own);
        value(binary, left, right, own)
    };
    series
        .into_iter()
        .map(|own| Series { labels: own.labels, values: own.values.into_iter().map(&apply).collect() })
        .collect()
}

/// The labels by which a series finds others.
fn signature(labels: &LabelSet, matching: &Matching) -> LabelSet {
    match &matching.labels {
        None => labels.clone(),
        Some(own) => labels.filtered(|name| own.labels.iter().any(|label| label == name) == own.is_on),
    }
}

fn by_signature(series: &[Series], matching: &Matching) -> HashMap<LabelSet, Vec<usize>> {
    let mut map: HashMap<LabelSet, Vec<usize>> = HashMap::new();
    for (index, own) in series.iter().enumerate() {
        map.entry(signature(&own.labels, matching)).or_default().push(index);
    }
    map
}

fn combine_sets(binary: &Binary, left: Vec<Series>, right: Vec<Series>, instants: usize) -> Result<Vec<Series>> {
    let presence = |series: &[Series], map: &HashMap<LabelSet, Vec<usize>>, key: &LabelSet, instant: usize| {
        map.get(key).is_some_and(|members| members.iter().any(|member| series[*member].values[instant].is_some()))
    };
    let matching = &binary.matching;
    let (others, own, is_or) = match binary.operator {
        BinaryOperator::Or => (&left, &right, true),
        _ => (&right, &left, false),
    };
    let map = by_signature(others, matching);
    let wanted = binary.operator == BinaryOperator::And;
    let mut kept: Vec<Series> = own
        .iter()
        .map(|series| {
            let key = signature(&series.labels, matching);
            let values = (0..instants)
                .map(|instant| series.values[instant].filter(|_| presence(others, &map, &key, instant) == wanted));
            Series { labels: series.labels.clone(), values: values.collect() }
        })
        .collect();
    if is_or {
        let mut all = left;
        all.append(&mut kept);
        return united(all, "`or`");
    }
    Ok(kept)
}

fn combine_series(binary: &Binary, left: &[Series], right: &[Series], instants: usize) -> Result<Vec<Series>> {
    let matching = &binary.matching;
    let is_swapped = matching.cardinality == Cardinality::OneToMany;
    let (many, one) = if is_swapped { (right, left) } else { (left, right) };
    let map = by_signature(one, matching);
    let side = if is_swapped { "left" } else { "right" };
    for members in map.values().filter(|members| members.len() > 1) {
        let doubled = (0..instants)
            .any(|instant| members.iter().filter(|member| one[**member].values[instant].is_some()).count() > 1);
        if doubled {
            let message =
                format!("found duplicate series on the {side} hand-side: matching labels must be unique there");
            return Err(Error::Data(message));
        }
    }
    let mut combined = Vec::new();
    for own in many {
        let Some(members) = map.get(&signature(&own.labels, matching)) else { continue };
        for member in members {
            let other = &one[*member];
            let values = own.values.iter().zip(&other.values).map(|(own, other)| {
                let (own, other) = ((*own)?, (*other)?);
                let (left, right) = if is_swapped { (other, own) } else { (own, other) };
                value(binary, left, right, left)
            });
            let values: Vec<_> = values.collect();
            if values.iter().any(Option::is_some) {
                combined.push(Series { labels: result_labels(matching, &own.labels, &other.labels), values });
            }
        }
    }
    let what = "a match of many series with one (group_left or group_right would say so)";
    united(combined, if matching.cardinality == Cardinality::OneToOne { what } else { "the operator" })
}

fn result_labels(matching: &Matching, many: &LabelSet, one: &LabelSet) -> LabelSet {
    if matching.cardinality == Cardinality::OneToOne {
        return signature(many, matching);
    }
    let mut labels = many.clone();
    for name in &matching.include {
        match one.get(name).filter(|value| !value.is_empty()) {
            Some(value) => labels.set(name.clone(), value.to_owned()),
            None => labels.remove(name),
        }
    }
    labels
}
