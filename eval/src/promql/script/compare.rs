//! Whether a query gave what was expected.

use super::super::annotation::{Annotations, Severity};
use super::super::value::{Sample, SeriesValue, Value};
use super::almost;
use super::command::{Evaluation, Expected, Pattern};
use super::series::Item;
use crate::labels::Labels;
use crate::number::format_number;

/// Compares a value.
pub(super) fn value(evaluation: &Evaluation, value: &Value) -> Result<(), String> {
    match (value, &evaluation.expected) {
        (Value::Scalar(_, actual), Expected::Scalar(expected)) => {
            if almost::numbers(*expected, *actual) {
                return Ok(());
            }
            Err(format!("expected scalar {} but got {}", format_number(*expected), format_number(*actual)))
        }
        (Value::Text(_, actual), Expected::Text(expected)) if actual == expected => Ok(()),
        (Value::Vector(actual), Expected::Series(expected)) => vector(evaluation, actual, expected),
        (Value::Matrix(actual), Expected::Series(expected)) => matrix(evaluation, actual, expected),
        (actual, _) => Err(format!("a value of another type: {}", shown(actual))),
    }
}

fn vector(
    evaluation: &Evaluation,
    actual: &[(Labels, i64, Sample)],
    expected: &[(Labels, Vec<Item>)],
) -> Result<(), String> {
    for (at, (labels, _, sample)) in actual.iter().enumerate() {
        let found = expected.iter().position(|(known, _)| known == labels);
        let Some(position) = found else {
            return Err(format!("unexpected metric {labels} in result, has value {}", shown_sample(sample)));
        };
        if evaluation.is_ordered && position != at {
            return Err(format!("expected metric {labels} at position {} but was at {}", position + 1, at + 1));
        }
        let item = expected[position].1.first().unwrap_or(&Item::Omitted);
        if !is_item(item, sample) {
            return Err(format!("expected {} for {labels} but got {}", shown_item(item), shown_sample(sample)));
        }
    }
    match expected.iter().find(|(labels, _)| !actual.iter().any(|(known, ..)| known == labels)) {
        Some((labels, _)) => Err(format!("expected metric {labels} not found")),
        None => Ok(()),
    }
}

fn matrix(evaluation: &Evaluation, actual: &[SeriesValue], expected: &[(Labels, Vec<Item>)]) -> Result<(), String> {
    if evaluation.is_ordered {
        return Err("expected ordered result, but query returned a matrix".to_owned());
    }
    let (start, end, step) = evaluation.vector_times.unwrap_or(evaluation.times);
    for series in actual {
        let labels = &series.labels;
        let Some((_, items)) = expected.iter().find(|(known, _)| known == labels) else {
            return Err(format!("unexpected metric {labels} in result, has {}", shown_series(series)));
        };
        let times = (0..).map(|at| start + step * at);
        let timed: Vec<(i64, &Item)> = times.zip(items).filter(|(_, item)| **item != Item::Omitted).collect();
        if start + step * (items.len() as i64 - 1) > end {
            return Err(format!("{} points are expected for {labels}, more than the times hold", items.len()));
        }
        let floats = series.floats.iter().map(|(time, value)| (*time, Sample::Float(*value)));
        let histograms = series.histograms.iter().map(|(time, value)| (*time, Sample::Histogram(value.clone())));
        let mut samples: Vec<(i64, Sample)> = floats.chain(histograms).collect();
        samples.sort_by_key(|(time, _)| *time);
        if timed.len() != samples.len() {
            let got = shown_series(series);
            return Err(format!("expected {} points for {labels}, but got {got}", timed.len()));
        }
        for ((expected_time, item), (time, sample)) in timed.into_iter().zip(&samples) {
            if expected_time != *time || !is_item(item, sample) {
                return Err(format!(
                    "expected {} at {expected_time} for {labels}, but got {} at {time} (result has {})",
                    shown_item(item),
                    shown_sample(sample),
                    shown_series(series)
                ));
            }
        }
    }
    match expected.iter().find(|(labels, _)| !actual.iter().any(|series| series.labels == *labels)) {
        Some((labels, _)) => Err(format!("expected metric {labels} not found")),
        None => Ok(()),
    }
}

fn is_item(item: &Item, sample: &Sample) -> bool {
    match (item, sample) {
        (Item::Float(expected), Sample::Float(actual)) => almost::numbers(*expected, *actual),
        (Item::Histogram(expected, has_hint), Sample::Histogram(actual)) => {
            almost::histograms(expected, actual, *has_hint)
        }
        _ => false,
    }
}

/// Compares annotations.
pub(super) fn annotations(evaluation: &Evaluation, query: &str, notes: &Annotations) -> Result<(), String> {
    let warnings = notes.texts(Severity::Warning, query);
    let infos = notes.texts(Severity::Info, query);
    compare_texts("warn", &evaluation.warns, &warnings)?;
    compare_texts("info", &evaluation.informs, &infos)?;
    if evaluation.warns_not && !warnings.is_empty() {
        return Err(format!("unexpected warning annotations: {warnings:?}"));
    }
    if evaluation.informs_not && !infos.is_empty() {
        return Err(format!("unexpected info annotations: {infos:?}"));
    }
    Ok(())
}

fn compare_texts(what: &str, expected: &[Pattern], actual: &[String]) -> Result<(), String> {
    if expected.is_empty() {
        return Ok(());
    }
    if let Some(missing) = expected.iter().find(|pattern| !actual.iter().any(|text| pattern.fits(text))) {
        return Err(format!("expected {what} annotation {:?}, found {actual:?}", missing.text()));
    }
    match actual.iter().find(|text| !expected.iter().any(|pattern| pattern.fits(text))) {
        Some(text) => Err(format!("unexpected {what} annotation {text:?}")),
        None => Ok(()),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Scalar(_, value) => format!("scalar {}", format_number(*value)),
        Value::Text(_, text) => format!("string {text:?}"),
        Value::Vector(samples) => {
            let samples = samples.iter().map(|(labels, _, sample)| format!("{labels} {}", shown_sample(sample)));
            format!("vector [{}]", samples.collect::<Vec<_>>().join("; "))
        }
        Value::Matrix(series) => {
            let series = series.iter().map(|series| format!("{} {}", series.labels, shown_series(series)));
            format!("matrix [{}]", series.collect::<Vec<_>>().join("; "))
        }
    }
}

fn shown_sample(sample: &Sample) -> String {
    match sample {
        Sample::Float(value) => format_number(*value),
        Sample::Histogram(histogram) => format!("{histogram} schema {} hint {:?}", histogram.schema, histogram.hint),
    }
}

fn shown_item(item: &Item) -> String {
    match item {
        Item::Omitted => "nothing".to_owned(),
        Item::Float(value) => format_number(*value),
        Item::Histogram(histogram, _) => shown_sample(&Sample::Histogram(histogram.clone())),
    }
}

fn shown_series(series: &SeriesValue) -> String {
    let floats = series.floats.iter().map(|(time, value)| format!("{}@{time}", format_number(*value)));
    let histograms = series.histograms.iter().map(|(time, value)| format!("{value}@{time}"));
    floats.chain(histograms).collect::<Vec<_>>().join(" ")
}
