//! `compare`: how often each value of each attribute occurs among selected spans, and among the others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_lang::traceql::ast::{Attribute, Intrinsic};

use super::condition::{View, attribute_value};
use super::series::{LabelValue, MetricsSeries};
use super::structure::Trace;

const META: &str = "__meta_type";
/// The label of a series without numbers that says what is missing of the others.
const META_ERROR: &str = "__meta_error";
const TOO_MANY_VALUES: &str = "__too_many_values__";

/// The intrinsics that are compared beside all attributes.
const INTRINSICS: [Intrinsic; 9] = [
    Intrinsic::Name,
    Intrinsic::Kind,
    Intrinsic::Status,
    Intrinsic::StatusMessage,
    Intrinsic::RootName,
    Intrinsic::RootServiceName,
    Intrinsic::ChildCount,
    Intrinsic::InstrumentationName,
    Intrinsic::InstrumentationVersion,
];

/// A value of an attribute on one side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Comparison {
    is_selected: bool,
    attribute: String,
    value: LabelValue,
}

impl Comparison {
    /// The values of a span.
    pub fn of_span(trace: &Trace<'_>, view: View, is_selected: bool) -> Vec<Self> {
        let mut values: Vec<Self> = trace
            .attributes
            .all(trace.rows[view.span])
            .map(|(scope, key, value)| Self {
                is_selected,
                attribute: Attribute::Named(scope.query_scope(), key.to_owned()).text(),
                value: LabelValue::of(value),
            })
            .collect();
        values.extend(INTRINSICS.into_iter().map(|intrinsic| Self {
            is_selected,
            attribute: intrinsic.name().to_owned(),
            value: LabelValue::of(&attribute_value(&Attribute::Intrinsic(intrinsic), trace, view)),
        }));
        values
    }
}

/// Values with how often each occurs in each window.
type Values = Vec<(LabelValue, Vec<u64>)>;

/// The `top` values of each attribute on each side, the total of all its values, and a word where there are more of them.
pub(super) fn compare_series(compared: Vec<(Comparison, Vec<u64>)>, top: usize) -> Vec<MetricsSeries> {
    let mut by_attribute: BTreeMap<(bool, String), Values> = BTreeMap::new();
    for (comparison, counts) in compared {
        let key = (comparison.is_selected, comparison.attribute);
        by_attribute.entry(key).or_default().push((comparison.value, counts));
    }
    let series = |(label, meta): (&str, &str), attribute: &str, value: LabelValue, counts: &[u64]| MetricsSeries {
        labels: vec![(label.to_owned(), LabelValue::Text(meta.to_owned())), (attribute.to_owned(), value)],
        values: counts.iter().map(|count| Some(*count as f64)).collect(),
        exemplars: Vec::new(),
    };
    let mut all = Vec::new();
    let mut cut = BTreeMap::new();
    for ((is_selected, attribute), mut values) in by_attribute {
        let (meta, total_meta) =
            if is_selected { ("selection", "selection_total") } else { ("baseline", "baseline_total") };
        let mut totals = vec![0; values.first().map_or(0, |(_, counts)| counts.len())];
        for (_, counts) in &values {
            totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        }
        let weight = |counts: &[u64]| counts.iter().sum::<u64>();
        values.sort_by(|left, right| weight(&right.1).cmp(&weight(&left.1)).then(left.0.cmp(&right.0)));
        if values.len() > top {
            cut.insert(attribute.clone(), vec![0; totals.len()]);
        }
        for (value, counts) in values.into_iter().take(top) {
            all.push(series((META, meta), &attribute, value, &counts));
        }
        all.push(series((META, total_meta), &attribute, nil(), &totals));
    }
    all.extend(cut.iter().map(|(attribute, none)| series((META_ERROR, TOO_MANY_VALUES), attribute, nil(), none)));
    all
}

fn nil() -> LabelValue {
    LabelValue::Text("nil".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_is_said() {
        let one = |value: &str| {
            let value = LabelValue::Text(value.to_owned());
            (Comparison { is_selected: true, attribute: "span.a".to_owned(), value }, vec![1])
        };
        let labels = |top: usize| -> Vec<String> {
            let series = compare_series(vec![one("x"), one("y")], top);
            series.iter().map(|series| format!("{:?}", series.labels)).collect()
        };
        assert_eq!((labels(2).len(), labels(1).len()), (3, 3));
        assert!(!labels(2).iter().any(|labels| labels.contains(TOO_MANY_VALUES)));
        assert!(labels(1).iter().any(|labels| labels.contains(TOO_MANY_VALUES) && labels.contains("span.a")));
    }
}
