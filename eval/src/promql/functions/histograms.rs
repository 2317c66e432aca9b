//! Functions of classic and native histograms.

use std::collections::{HashMap, HashSet};

use tidemill_lang::Span;

use super::super::annotation::{Annotations, named};
use super::super::grid::Grid;
use super::super::histogram::{Histogram, compensated};
use super::super::quantile::{self, About, UpTo};
use super::super::row::{Cell, Row};
use crate::error::Result;
use crate::labels::{Labels, METRIC_NAME, quote};
use crate::number::format_short;

/// The label that holds a bucket's bound.
const BOUND: &str = "le";

/// A number of each native histogram, if the function is one that gives such; floats are left out.
pub(in super::super) fn map_histograms(function: &str, rows: &[Row]) -> Option<Vec<Row>> {
    let number: fn(&Histogram) -> f64 = match function {
        "histogram_count" => |histogram| histogram.count,
        "histogram_sum" => |histogram| histogram.sum,
        "histogram_avg" => |histogram| histogram.sum / histogram.count,
        "histogram_stdvar" => variance,
        "histogram_stddev" => |histogram| variance(histogram).sqrt(),
        _ => return None,
    };
    let map = |row: &Row| {
        let mut mapped = Row::new(row.labels.clone(), row.steps());
        mapped.drops_name = true;
        for step in 0..row.steps() {
            if let Some(histogram) = row.histogram(step) {
                mapped.set_float(step, number(histogram));
            }
        }
        mapped
    };
    Some(rows.iter().map(map).filter(Row::has_any).collect())
}

/// The variance, each observation taken to lie in the middle of its bucket: the geometric one, the arithmetic one of custom bounds,
/// zero in the zero bucket.
fn variance(histogram: &Histogram) -> f64 {
    let mean = histogram.sum / histogram.count;
    let (mut sum, mut lost) = (0.0, 0.0);
    for bucket in histogram.all_buckets().into_iter().filter(|bucket| bucket.count != 0.0) {
        let middle = if histogram.is_custom() {
            f64::midpoint(bucket.upper, bucket.lower)
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            (bucket.upper * bucket.lower).sqrt().copysign(bucket.upper)
        };
        let distance = middle - mean;
        (sum, lost) = compensated(sum, bucket.count * distance * distance, lost);
    }
    (sum + lost) / histogram.count
}

/// What is asked of each histogram.
pub(in super::super) enum Question<'a> {
    /// `histogram_quantile`: the quantile at each step.
    Quantile(&'a Row),
    /// `histogram_quantiles`: several quantiles, each told by a label.
    Quantiles(&'a str, &'a [Row]),
    /// `histogram_fraction`: the bounds at each step.
    Fraction(&'a Row, &'a Row),
}

/// Where the arguments stand.
pub(in super::super) struct Places {
    pub first: Span,
    pub vector: Span,
    pub quantiles: Vec<Span>,
}

/// The answer for each histogram among `rows`: native ones, and classic ones made of series that differ by `le` only.
pub(in super::super) fn quantile_rows(
    question: &Question<'_>,
    rows: &[Row],
    grid: Grid,
    places: &Places,
    notes: &mut Annotations,
) -> Result<Vec<Row>> {
    let asked: Vec<(Option<(&str, String)>, &Row)> = match question {
        Question::Quantile(q) => vec![(None, *q)],
        Question::Quantiles(label, qs) => {
            qs.iter().map(|q| (Some((*label, open_metrics(q.float(0).unwrap_or(f64::NAN)))), q)).collect()
        }
        Question::Fraction(lower, _) => vec![(None, *lower)],
    };
    let classics = classic_groups(rows);
    let mut answers = super::super::binary::RowSet::new(grid.len());
    for (step, time) in grid.times().enumerate() {
        note_bad_bounds(rows, step, places.vector, notes);
        let mixed = mixed_at(rows, &classics, step, places.vector, notes);
        for (at, (label, q)) in asked.iter().enumerate() {
            let asked = q.float(step).unwrap_or(f64::NAN);
            let is_quantile = !matches!(question, Question::Fraction(..));
            if is_quantile && (asked.is_nan() || !(0.0..=1.0).contains(&asked)) {
                notes.bad_quantile(asked, places.quantiles.get(at).copied().unwrap_or(places.first));
            }
            let labels_of = |labels: &Labels| match label {
                Some((name, value)) => {
                    let mut builder = labels.builder();
                    builder.set(name, value);
                    builder.build()
                }
                None => labels.clone(),
            };
            for row in rows.iter().filter(|row| !mixed.contains(&row.labels)) {
                let Some(histogram) = row.histogram(step) else { continue };
                let about = About { metric: row.labels.get(METRIC_NAME), span: places.first, notes };
                let value = match question {
                    Question::Fraction(_, upper) => {
                        let upper = upper.float(step).unwrap_or(f64::NAN);
                        quantile::fraction_of_histogram(asked, upper, histogram, about)
                    }
                    _ => quantile::of_histogram(asked, histogram, about),
                };
                answers.put(&labels_of(&row.labels), true, step, Cell::Float(value))?;
            }
            for (labels, members) in classics.iter().filter(|(labels, _)| !mixed.contains(labels)) {
                let mut buckets: Vec<UpTo> = members
                    .iter()
                    .filter_map(|(bound, row)| row.float(step).map(|count| UpTo { bound: *bound, count }))
                    .collect();
                if buckets.is_empty() {
                    continue;
                }
                let value = match question {
                    Question::Fraction(_, upper) => {
                        let upper = upper.float(step).unwrap_or(f64::NAN);
                        quantile::fraction_of_buckets(asked, upper, &mut buckets)
                    }
                    _ => {
                        let (value, raised) = quantile::of_buckets(asked, &mut buckets);
                        if let Some(raised) = raised {
                            notes.raised_buckets(labels.get(METRIC_NAME), places.vector, time, raised);
                        }
                        value
                    }
                };
                answers.put(&labels_of(labels), true, step, Cell::Float(value))?;
            }
        }
    }
    Ok(answers.into_rows())
}

type Classic<'a> = (Labels, Vec<(f64, &'a Row)>);

/// The series of classic buckets, by their labels without the bound.
fn classic_groups(rows: &[Row]) -> Vec<Classic<'_>> {
    let mut at: HashMap<Labels, usize> = HashMap::new();
    let mut groups: Vec<Classic<'_>> = Vec::new();
    for row in rows {
        let Ok(bound) = row.labels.get(BOUND).parse::<f64>() else { continue };
        let labels = row.labels.filtered(|name| name != BOUND);
        let index = *at.entry(labels.clone()).or_insert(groups.len());
        if index == groups.len() {
            groups.push((labels, Vec::new()));
        }
        groups[index].1.push((bound, row));
    }
    groups
}

fn note_bad_bounds(rows: &[Row], step: usize, span: Span, notes: &mut Annotations) {
    for row in rows.iter().filter(|row| row.float(step).is_some()) {
        let bound = row.labels.get(BOUND);
        if bound.parse::<f64>().is_err() {
            let text = format!("bucket label \"le\" is missing or has a malformed value of {}", quote(bound));
            notes.warn(named(&text, row.labels.get(METRIC_NAME)), span);
        }
    }
}

/// The labels for which there are both classic buckets and a native histogram at a step, which is told.
fn mixed_at(
    rows: &[Row],
    classics: &[Classic<'_>],
    step: usize,
    span: Span,
    notes: &mut Annotations,
) -> HashSet<Labels> {
    let mut mixed = HashSet::new();
    if !rows.iter().any(|row| row.histogram(step).is_some()) {
        return mixed;
    }
    let classic: HashSet<&Labels> = classics
        .iter()
        .filter(|(_, members)| members.iter().any(|(_, row)| row.float(step).is_some()))
        .map(|(labels, _)| labels)
        .collect();
    for row in rows.iter().filter(|row| row.histogram(step).is_some() && classic.contains(&row.labels)) {
        let text = "vector contains a mix of classic and native histograms";
        notes.warn(named(text, row.labels.get(METRIC_NAME)), span);
        mixed.insert(row.labels.clone());
    }
    mixed
}

/// A number as OpenMetrics writes it in labels.
fn open_metrics(value: f64) -> String {
    let text = format_short(value);
    if value.is_finite() && !text.contains(['.', 'e']) { format!("{text}.0") } else { text }
}
