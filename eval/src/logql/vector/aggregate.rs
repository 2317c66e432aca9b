//! Aggregations over the series of each instant.

use std::cmp::Ordering;
use std::collections::HashMap;

use tidemill_lang::logql::ast::{Grouping, VectorAggregation, VectorFunction};

use super::Series;
use crate::logql::labels::LabelSet;

/// Applies the aggregation.
pub(super) fn aggregate(aggregation: &VectorAggregation, series: Vec<Series>, instants: usize) -> Vec<Series> {
    match aggregation.function {
        VectorFunction::Sort => sorted(series, |left, right| left.total_cmp(&right)),
        VectorFunction::SortDesc => sorted(series, |left, right| right.total_cmp(&left)),
        VectorFunction::Topk | VectorFunction::Bottomk | VectorFunction::ApproxTopk => {
            extremes(aggregation, series, instants)
        }
        _ => reduced(aggregation, &series, instants),
    }
}

fn group(labels: &LabelSet, grouping: Option<&Grouping>) -> LabelSet {
    match grouping {
        None => LabelSet::default(),
        Some(grouping) => labels.filtered(|name| grouping.labels.iter().any(|own| own == name) != grouping.is_without),
    }
}

/// The members of each group, groups in order of their first member.
fn groups(series: &[Series], grouping: Option<&Grouping>) -> Vec<(LabelSet, Vec<usize>)> {
    let mut by_labels: HashMap<LabelSet, usize> = HashMap::new();
    let mut groups: Vec<(LabelSet, Vec<usize>)> = Vec::new();
    for (index, own) in series.iter().enumerate() {
        let labels = group(&own.labels, grouping);
        let at = *by_labels.entry(labels).or_insert_with_key(|labels| {
            groups.push((labels.clone(), Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(index);
    }
    groups
}

fn reduced(aggregation: &VectorAggregation, series: &[Series], instants: usize) -> Vec<Series> {
    let mut reduced = Vec::new();
    for (labels, members) in groups(series, aggregation.grouping.as_ref()) {
        let mut values = Vec::with_capacity(instants);
        let mut present = Vec::with_capacity(members.len());
        for instant in 0..instants {
            present.clear();
            present.extend(members.iter().filter_map(|member| series[*member].values[instant]));
            values.push((!present.is_empty()).then(|| reduce(aggregation.function, &present)));
        }
        reduced.push(Series { labels, values });
    }
    reduced
}

fn reduce(function: VectorFunction, values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let sum = || values.iter().sum::<f64>();
    let variance = || {
        let mean = sum() / count;
        values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count
    };
    match function {
        VectorFunction::Sum => sum(),
        VectorFunction::Avg => sum() / count,
        VectorFunction::Min => values.iter().copied().fold(f64::NAN, f64::min),
        VectorFunction::Max => values.iter().copied().fold(f64::NAN, f64::max),
        VectorFunction::Stddev => variance().sqrt(),
        VectorFunction::Stdvar => variance(),
        _ => count,
    }
}

/// The largest or smallest series of each group at each instant. `approx_topk` is exact here.
fn extremes(aggregation: &VectorAggregation, series: Vec<Series>, instants: usize) -> Vec<Series> {
    let count = aggregation.count.unwrap_or(0);
    let is_smallest = aggregation.function == VectorFunction::Bottomk;
    let groups = groups(&series, aggregation.grouping.as_ref());
    let mut kept: Vec<Series> =
        series.iter().map(|own| Series { labels: own.labels.clone(), values: vec![None; instants] }).collect();
    for instant in 0..instants {
        for (_, members) in &groups {
            let present = members.iter().filter_map(|at| series[*at].values[instant].map(|value| (*at, value)));
            let mut present: Vec<(usize, f64)> = present.collect();
            present.sort_by(|left, right| match (left.1.is_nan(), right.1.is_nan()) {
                (false, false) if is_smallest => left.1.total_cmp(&right.1),
                (false, false) => right.1.total_cmp(&left.1),
                (left, right) => left.cmp(&right),
            });
            for (at, value) in present.into_iter().take(count) {
                kept[at].values[instant] = Some(value);
            }
        }
    }
    kept
}

/// By the first value; a series without one goes last.
fn sorted(mut series: Vec<Series>, order: impl Fn(f64, f64) -> Ordering) -> Vec<Series> {
    let first = |series: &Series| series.values.first().copied().flatten();
    series.sort_by(|left, right| match (first(left), first(right)) {
        (Some(left), Some(right)) => order(left, right),
        (left, right) => right.is_some().cmp(&left.is_some()),
    });
    series
}

#[cfg(test)]
mod tests {
    use tidemill_lang::logql::ast::{MetricKind, Query};

    use super::*;

    /// What the aggregation gives of the values 1, 4 and 10, and of nothing in a second instant but for the last.
    fn values(text: &str) -> Vec<(String, Vec<Option<f64>>)> {
        let Ok(Query::Metric(metric)) = tidemill_lang::logql::parse(text) else { panic!("{text}") };
        let MetricKind::Aggregation(aggregation) = metric.kind else { panic!("{text}") };
        let series = [("1", Some(1.0), None), ("4", Some(4.0), None), ("10", Some(10.0), Some(7.0))];
        let series = series.map(|(name, first, second)| Series {
            labels: LabelSet::of([("n", name), ("g", if name == "10" { "b" } else { "a" })]),
            values: vec![first, second],
        });
        let result = aggregate(&aggregation, series.into(), 2);
        let name = |own: &Series| own.labels.get("n").or(own.labels.get("g")).unwrap_or_default().to_owned();
        result.iter().map(|own| (name(own), own.values.clone())).collect()
    }

    #[test]
    fn aggregations_by_example() {
        let of = |function: &str| values(&format!("{function}(rate({{a=\"b\"}}[1m]))")).remove(0).1;
        assert_eq!(of("sum"), [Some(15.0), Some(7.0)]);
        assert_eq!(of("avg"), [Some(5.0), Some(7.0)]);
        assert_eq!((of("min")[0], of("max")[0], of("count")[0]), (Some(1.0), Some(10.0), Some(3.0)));
        assert_eq!((of("stdvar")[0], of("stddev")[1]), (Some(14.0), Some(0.0)));
        let by = values("max by (g) (rate({a=\"b\"}[1m]))");
        assert_eq!(by, [("a".to_owned(), vec![Some(4.0), None]), ("b".to_owned(), vec![Some(10.0), Some(7.0)])]);
        let top = values("topk(2, rate({a=\"b\"}[1m]))");
        assert_eq!(top.iter().map(|(_, values)| values[0]).collect::<Vec<_>>(), [None, Some(4.0), Some(10.0)]);
        let sorted = values("sort_desc(rate({a=\"b\"}[1m]))");
        assert_eq!(sorted.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["10", "4", "1"]);
    }
}
