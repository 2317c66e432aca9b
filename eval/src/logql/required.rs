//! Which labels a query needs of its parsers.
//!
//! A sum over labels that are known needs no others: then parsers look only for those, and a parser from which nothing is needed does
//! not run, as in Loki. That matters for answers too, since a line that was not parsed cannot fail to parse.

use tidemill_lang::logql::ast::{
    Grouping, LabelFilter, LabelFormatValue, LabelPick, RangeAggregation, RangeFunction, Stage, StageKind,
    VectorAggregation, VectorFunction,
};

use super::parsers::Required;

/// The grouping that an aggregation may apply to single lines already: a sum of counts or sums.
pub(super) fn injected_grouping(aggregation: &VectorAggregation, range: &RangeAggregation) -> Option<Grouping> {
    use RangeFunction::{BytesOverTime, BytesRate, CountOverTime, Rate, SumOverTime};
    let adds_up = matches!(range.function, CountOverTime | Rate | BytesOverTime | BytesRate | SumOverTime);
    if aggregation.function != VectorFunction::Sum || !adds_up {
        return None;
    }
    Some(aggregation.grouping.clone().unwrap_or(Grouping { is_without: false, labels: Vec::new() }))
}

/// For each stage, the labels that are needed behind it.
pub(super) fn required_behind(stages: &[Stage], grouping: Option<&Grouping>) -> Vec<Required> {
    required(stages, grouping).0
}

/// The labels that a line must have before its pipeline, so that a range aggregation is right; `None` where any may matter.
pub(super) fn required_before(stages: &[Stage], grouping: Option<&Grouping>) -> Option<Vec<String>> {
    let mut names = required(stages, grouping).1?;
    // What a parser finds stands under another name where the line has that label already.
    let originals = names.iter().filter_map(|name| name.strip_suffix("_extracted").map(str::to_owned));
    names.extend(originals.collect::<Vec<_>>());
    names.sort_unstable();
    names.dedup();
    Some(names)
}

fn required(stages: &[Stage], grouping: Option<&Grouping>) -> (Vec<Required>, Option<Vec<String>>) {
    let mut names: Option<Vec<String>> = match grouping {
        Some(grouping) if !grouping.is_without => Some(grouping.labels.clone()),
        _ => None,
    };
    let mut behind = Vec::with_capacity(stages.len());
    for stage in stages.iter().rev() {
        behind.push(names.clone().map_or(Required::All, Required::Some));
        match stage_needs(&stage.kind) {
            Some(more) => {
                if let Some(names) = &mut names {
                    names.extend(more);
                    names.sort_unstable();
                    names.dedup();
                }
            }
            None => names = None,
        }
    }
    behind.reverse();
    (behind, names)
}

/// The labels that a stage reads; `None` where it may read any.
fn stage_needs(kind: &StageKind) -> Option<Vec<String>> {
    let mut names = Vec::new();
    match kind {
        StageKind::LabelFilter(filter) => filter_needs(filter, &mut names),
        StageKind::LineFormat(template) => return template.labels(),
        StageKind::LabelFormat(formats) => {
            for format in formats {
                match &format.value {
                    LabelFormatValue::Rename(from) => names.push(from.clone()),
                    LabelFormatValue::Template(template) => names.extend(template.labels()?),
                }
            }
        }
        StageKind::Drop(picks) | StageKind::Keep(picks) => {
            for pick in picks {
                if let LabelPick::Matching(matcher) = pick {
                    names.push(matcher.name.clone());
                }
            }
        }
        StageKind::Unwrap(unwrap) => names.push(unwrap.label.clone()),
        _ => {}
    }
    Some(names)
}

fn filter_needs(filter: &LabelFilter, names: &mut Vec<String>) {
    match filter {
        LabelFilter::And(left, right) | LabelFilter::Or(left, right) => {
            filter_needs(left, names);
            filter_needs(right, names);
        }
        LabelFilter::Text(matcher) => names.push(matcher.name.clone()),
        LabelFilter::Quantity { label, .. } | LabelFilter::Address { label, .. } => names.push(label.clone()),
    }
}
