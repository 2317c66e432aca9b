//! Series of metrics, and what is done with them.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use tidemill_lang::traceql::ast::{Operator, SecondStage};

use super::value::Value;

/// The label that names a series without others.
pub(super) const NAME: &str = "__name__";

/// The value of a label.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum LabelValue {
    /// A text; `nil` stands for no value.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A boolean.
    Bool(bool),
}

impl LabelValue {
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Int(value) => Self::Int(*value),
            Value::Float(value) => Self::Float(*value),
            Value::Bool(value) => Self::Bool(*value),
            Value::Text(text) => Self::Text(text.to_string()),
            Value::Duration(value) => Self::Text(super::value::duration_text(*value)),
            Value::Status(status) => Self::Text(status.name().to_owned()),
            Value::Kind(kind) => Self::Text(kind.name().to_owned()),
            Value::Nil | Value::Array(_) | Value::Other => Self::Text("nil".to_owned()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Text(_) => 0,
            Self::Int(_) => 1,
            Self::Float(_) => 2,
            Self::Bool(_) => 3,
        }
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Text(text) => json!({ "stringValue": text }),
            Self::Int(value) => json!({ "intValue": value.to_string() }),
            Self::Float(value) => json!({ "doubleValue": value }),
            Self::Bool(value) => json!({ "boolValue": value }),
        }
    }
}

impl Ord for LabelValue {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(left), Self::Text(right)) => left.cmp(right),
            (Self::Int(left), Self::Int(right)) => left.cmp(right),
            (Self::Float(left), Self::Float(right)) => left.total_cmp(right),
            (Self::Bool(left), Self::Bool(right)) => left.cmp(right),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for LabelValue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for LabelValue {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for LabelValue {}

/// Labels of a series.
pub(super) type Labels = Vec<(String, LabelValue)>;

/// A span that stands for others in a series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exemplar {
    /// Its trace, in hexadecimal digits.
    pub trace_id: String,
    /// Its start, in nanoseconds since 1970.
    pub time_ns: i64,
    /// What it adds to the series.
    pub value: f64,
}

/// Labels with a value for each instant, or none.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsSeries {
    /// The labels, sorted.
    pub labels: Vec<(String, LabelValue)>,
    /// The values, one for each instant of the answer.
    pub values: Vec<Option<f64>>,
    /// Spans that stand for others.
    pub exemplars: Vec<Exemplar>,
}

impl MetricsSeries {
    /// As Tempo's API has it: samples of a range, or the one value of an instant.
    pub(super) fn to_json(&self, times_ns: &[i64], is_instant: bool) -> Json {
        let labels: Vec<Json> =
            self.labels.iter().map(|(key, value)| json!({ "key": key, "value": value.to_json() })).collect();
        if is_instant {
            let mut series = json!({ "labels": labels });
            if let Some(value) = self.values.first().copied().flatten().filter(|value| *value != 0.0) {
                series["value"] = json!(value);
            }
            return series;
        }
        let samples = self.values.iter().zip(times_ns).filter_map(|(value, time_ns)| {
            let mut sample = json!({ "timestampMs": (time_ns / 1_000_000).to_string() });
            let value = (*value)?;
            if value != 0.0 {
                sample["value"] = json!(value);
            }
            Some(sample)
        });
        let mut series = json!({ "labels": labels, "samples": samples.collect::<Vec<_>>() });
        if !self.exemplars.is_empty() {
            let exemplars = self.exemplars.iter().map(|exemplar| {
                json!({
                    "labels": [{ "key": "trace:id", "value": { "stringValue": exemplar.trace_id } }],
                    "value": exemplar.value,
                    "timestampMs": (exemplar.time_ns / 1_000_000).to_string(),
                })
            });
            series["exemplars"] = exemplars.collect();
        }
        series
    }
}

/// Applies the functions that follow a metrics function.
pub(super) fn apply(seconds: &[SecondStage], mut series: Vec<MetricsSeries>) -> Vec<MetricsSeries> {
    for stage in seconds {
        match stage {
            SecondStage::Topk(count) => keep_extremes(*count, &mut series, |left, right| right.total_cmp(&left)),
            SecondStage::Bottomk(count) => keep_extremes(*count, &mut series, |left, right| left.total_cmp(&right)),
            SecondStage::Compare(operator, number) => {
                for value in series.iter_mut().flat_map(|own| &mut own.values) {
                    *value = value.filter(|value| holds(*operator, *value, *number));
                }
            }
        }
        series.retain(|own| own.values.iter().any(Option::is_some));
    }
    series
}

fn holds(operator: Operator, left: f64, right: f64) -> bool {
    match operator {
        Operator::Equal => left == right,
        Operator::NotEqual => left != right,
        Operator::Greater => left > right,
        Operator::GreaterOrEqual => left >= right,
        Operator::Less => left < right,
        Operator::LessOrEqual => left <= right,
        _ => false,
    }
}

/// Keeps the first `count` values of each instant by `order`; of equal ones those whose labels come first.
fn keep_extremes(count: usize, series: &mut [MetricsSeries], order: impl Fn(f64, f64) -> Ordering) {
    series.sort_by(|left, right| left.labels.cmp(&right.labels));
    let instants = series.first().map_or(0, |own| own.values.len());
    for instant in 0..instants {
        let mut present: Vec<(usize, f64)> =
            series.iter().enumerate().filter_map(|(at, own)| own.values[instant].map(|value| (at, value))).collect();
        present.sort_by(|left, right| order(left.1, right.1).then(left.0.cmp(&right.0)));
        for (at, _) in present.into_iter().skip(count) {
            series[at].values[instant] = None;
        }
    }
}

/// Arithmetic between two metrics: series with equal labels, or one without labels with all of the other side.
pub(super) fn combine(operator: Operator, left: Vec<MetricsSeries>, right: Vec<MetricsSeries>) -> Vec<MetricsSeries> {
    let name_of = |series: &[MetricsSeries]| -> Option<String> {
        match series {
            [MetricsSeries { labels, .. }] => match labels.as_slice() {
                [(key, LabelValue::Text(name))] if key == NAME => Some(name.clone()),
                _ => None,
            },
            _ => None,
        }
    };
    let pair = |left: &MetricsSeries, right: &MetricsSeries, labels: Labels| MetricsSeries {
        labels,
        values: left
            .values
            .iter()
            .zip(&right.values)
            .map(|(left, right)| number(operator, (*left)?, (*right)?))
            .collect(),
        exemplars: Vec::new(),
    };
    let combined: Vec<MetricsSeries> = match (name_of(&left), name_of(&right)) {
        (Some(left_name), Some(right_name)) => {
            let name = format!("({left_name} {} {right_name})", operator.sign());
            vec![pair(&left[0], &right[0], vec![(NAME.to_owned(), LabelValue::Text(name))])]
        }
        (None, Some(_)) => left.iter().map(|own| pair(own, &right[0], own.labels.clone())).collect(),
        (Some(_), None) => right.iter().map(|own| pair(&left[0], own, own.labels.clone())).collect(),
        (None, None) => {
            let by_labels: BTreeMap<&Labels, &MetricsSeries> = right.iter().map(|own| (&own.labels, own)).collect();
            left.iter()
                .filter_map(|own| by_labels.get(&own.labels).map(|other| pair(own, other, own.labels.clone())))
                .collect()
        }
    };
    present(combined)
}

/// Arithmetic between a metric and a number.
pub(super) fn combine_number(
    mut series: Vec<MetricsSeries>,
    calculate: impl Fn(f64) -> Option<f64>,
) -> Vec<MetricsSeries> {
    for value in series.iter_mut().flat_map(|own| &mut own.values) {
        *value = value.and_then(&calculate);
    }
    present(series)
}

fn present(mut series: Vec<MetricsSeries>) -> Vec<MetricsSeries> {
    series.retain(|own| own.values.iter().any(Option::is_some));
    series
}

/// The operator's number, where it is finite.
pub(super) fn number(operator: Operator, left: f64, right: f64) -> Option<f64> {
    let number = match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        _ => return None,
    };
    number.is_finite().then_some(number)
}
