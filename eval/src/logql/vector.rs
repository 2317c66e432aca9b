//! Series of an answer, and what aggregations and operators make of them.

mod aggregate;
mod binary;

use std::collections::HashMap;

use serde_json::{Value, json};
use tidemill_lang::go_regex::compile_anchored_regex;
use tidemill_lang::logql::ast::{LabelReplace, Metric, MetricKind, VectorFunction};

use super::labels::LabelSet;
use crate::error::{Error, Result};
use crate::number::format_number;

/// Labels with a value for each instant, or none.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The labels.
    pub labels: LabelSet,
    /// The values, one for each instant of the answer.
    pub values: Vec<Option<f64>>,
}

/// What a part of a query gives.
#[derive(Debug, Clone)]
pub(super) enum Evaluated {
    Scalar(f64),
    Series(Vec<Series>),
}

/// The answer of a query for numbers.
#[derive(Debug, Clone)]
pub struct MetricAnswer {
    value: Evaluated,
    times_ns: Vec<i64>,
    is_instant: bool,
}

impl MetricAnswer {
    pub(super) fn new(value: Evaluated, times_ns: Vec<i64>, is_instant: bool, metric: &Metric) -> Self {
        let value = match value {
            Evaluated::Series(mut series) => {
                series.retain(|own| own.values.iter().any(Option::is_some));
                if !(is_instant && sorts(metric)) {
                    series.sort_by(|left, right| left.labels.cmp(&right.labels));
                }
                Evaluated::Series(series)
            }
            scalar => scalar,
        };
        Self { value, times_ns, is_instant }
    }

    /// The series; one without labels for a number. Those of a sorted instant keep their order, others stand by their labels.
    pub fn series(&self) -> Vec<Series> {
        match &self.value {
            Evaluated::Scalar(value) => {
                vec![Series { labels: LabelSet::default(), values: vec![Some(*value); self.times_ns.len()] }]
            }
            Evaluated::Series(series) => series.clone(),
        }
    }

    /// The instants, in nanoseconds.
    pub fn times_ns(&self) -> &[i64] {
        &self.times_ns
    }

    /// The object `data` of Loki's API, without statistics.
    pub fn to_json(&self) -> Value {
        let point = |index: usize, value: f64| json!([seconds(self.times_ns[index]), format_number(value)]);
        match &self.value {
            Evaluated::Scalar(value) if self.is_instant => {
                json!({ "resultType": "scalar", "result": point(0, *value) })
            }
            _ if self.is_instant => {
                let result = self.series().into_iter().filter_map(|series| {
                    series.values[0].map(|value| json!({ "metric": series.labels.to_json(), "value": point(0, value) }))
                });
                json!({ "resultType": "vector", "result": result.collect::<Vec<_>>() })
            }
            _ => {
                let result = self.series().into_iter().map(|series| {
                    let values = series.values.iter().enumerate();
                    let points: Vec<_> = values.filter_map(|(at, value)| value.map(|value| point(at, value))).collect();
                    json!({ "metric": series.labels.to_json(), "values": points })
                });
                json!({ "resultType": "matrix", "result": result.collect::<Vec<_>>() })
            }
        }
    }
}

/// Seconds with milliseconds where there are some.
fn seconds(time_ns: i64) -> Value {
    let milliseconds = time_ns.div_euclid(1_000_000);
    if milliseconds % 1000 == 0 { json!(milliseconds / 1000) } else { json!(milliseconds as f64 / 1000.0) }
}

fn sorts(metric: &Metric) -> bool {
    match &metric.kind {
        MetricKind::Aggregation(aggregation) => {
            matches!(aggregation.function, VectorFunction::Sort | VectorFunction::SortDesc)
        }
        _ => false,
    }
}

/// Evaluates the query over the series of its range aggregations, which come in the order in which they stand.
pub(super) fn evaluate(
    metric: &Metric,
    instants: usize,
    leaves: &mut impl Iterator<Item = Vec<Series>>,
) -> Result<Evaluated> {
    Ok(match &metric.kind {
        MetricKind::Literal(value) => Evaluated::Scalar(*value),
        MetricKind::Vector(value) => {
            Evaluated::Series(vec![Series { labels: LabelSet::default(), values: vec![Some(*value); instants] }])
        }
        MetricKind::Range(_) => Evaluated::Series(leaves.next().unwrap_or_default()),
        MetricKind::Aggregation(aggregation) => {
            let series = series_of(evaluate(&aggregation.of, instants, leaves)?, instants);
            Evaluated::Series(aggregate::aggregate(aggregation, series, instants))
        }
        MetricKind::Binary(own) => {
            let left = evaluate(&own.left, instants, leaves)?;
            let right = evaluate(&own.right, instants, leaves)?;
            binary::combine(own, left, right, instants)?
        }
        MetricKind::LabelReplace(replace) => {
            let series = series_of(evaluate(&replace.of, instants, leaves)?, instants);
            Evaluated::Series(label_replace(replace, series)?)
        }
    })
}

fn series_of(value: Evaluated, instants: usize) -> Vec<Series> {
    match value {
        Evaluated::Series(series) => series,
        Evaluated::Scalar(value) => {
            vec![Series { labels: LabelSet::default(), values: vec![Some(value); instants] }]
        }
    }
}

fn label_replace(replace: &LabelReplace, series: Vec<Series>) -> Result<Vec<Series>> {
    let regex = compile_anchored_regex(&replace.pattern).map_err(Error::Data)?;
    let mut replaced = Vec::with_capacity(series.len());
    for mut own in series {
        let source = own.labels.get(&replace.source).unwrap_or_default().to_owned();
        if let Some(found) = regex.captures(&source) {
            let mut value = String::new();
            found.expand(&replace.replacement, &mut value);
            if value.is_empty() {
                own.labels.remove(&replace.destination);
            } else {
                own.labels.set(replace.destination.clone(), value);
            }
        }
        replaced.push(own);
    }
    united(replaced, "label_replace")
}

/// Series with equal labels become one; two values at one instant are an error.
fn united(series: Vec<Series>, what: &str) -> Result<Vec<Series>> {
    let mut by_labels: HashMap<LabelSet, usize> = HashMap::with_capacity(series.len());
    let mut united: Vec<Series> = Vec::with_capacity(series.len());
    for own in series {
        match by_labels.get(&own.labels) {
            None => {
                by_labels.insert(own.labels.clone(), united.len());
                united.push(own);
            }
            Some(&at) => {
                for (value, more) in united[at].values.iter_mut().zip(own.values) {
                    match (&value, more) {
                        (Some(_), Some(_)) => {
                            return Err(Error::Data(format!("{what} gives two series the same labels")));
                        }
                        (None, Some(_)) => *value = more,
                        _ => {}
                    }
                }
            }
        }
    }
    Ok(united)
}
