//! What the grammar alone cannot refuse.

use super::ast::*;
use crate::error::{Error, Result};
use crate::go_regex::whole_pattern;

/// Checks a query that was read.
///
/// # Errors
/// The first part that does not fit.
pub(super) fn check(query: &Query, source: &str) -> Result<()> {
    match query {
        Query::Log(query) => {
            if let Some(stage) = query.stages.iter().find(|stage| matches!(stage.kind, StageKind::Unwrap(_))) {
                return Err(Error::of_type("unwrap is allowed only inside a range aggregation", stage.span, source));
            }
            check_log(query, source)
        }
        Query::Metric(metric) => check_metric(metric, source),
    }
}

fn check_log(query: &LogQuery, source: &str) -> Result<()> {
    let selects = |matcher: &Matcher| match matcher.operator {
        MatchOperator::Equal => !matcher.value.is_empty(),
        MatchOperator::NotEqual => matcher.value.is_empty(),
        MatchOperator::Matches => !fits_empty(&matcher.value),
        MatchOperator::MatchesNot => fits_empty(&matcher.value),
    };
    if !query.matchers.iter().any(selects) {
        let message = "a selector needs at least one matcher that an absent label does not meet, such as app=~\".+\"";
        return Err(Error::of_type(message, query.span, source));
    }
    let mut after_unwrap = query.stages.iter().skip_while(|stage| !matches!(stage.kind, StageKind::Unwrap(_))).skip(1);
    match after_unwrap.find(|stage| !matches!(stage.kind, StageKind::LabelFilter(_))) {
        Some(stage) => Err(Error::of_type("only label filters may follow unwrap", stage.span, source)),
        None => Ok(()),
    }
}

fn fits_empty(pattern: &str) -> bool {
    whole_pattern(pattern).is_ok_and(|pattern| pattern.is_match(""))
}

fn check_metric(metric: &Metric, source: &str) -> Result<()> {
    match &metric.kind {
        MetricKind::Literal(_) | MetricKind::Vector(_) => Ok(()),
        MetricKind::Range(range) => check_log(&range.query, source),
        MetricKind::Aggregation(aggregation) => {
            check_vector(&aggregation.of, aggregation.function.name(), source)?;
            check_metric(&aggregation.of, source)
        }
        MetricKind::LabelReplace(replace) => {
            check_vector(&replace.of, "label_replace", source)?;
            check_metric(&replace.of, source)
        }
        MetricKind::Binary(binary) => {
            if binary.operator.is_set() {
                for side in [&binary.left, &binary.right] {
                    if is_scalar(side) {
                        let message = format!("`{}` needs series on both sides, not a number", binary.operator.sign());
                        return Err(Error::of_type(message, side.span, source));
                    }
                }
                if binary.matching.cardinality != Cardinality::OneToOne {
                    let message = format!("`{}` takes no group_left or group_right", binary.operator.sign());
                    return Err(Error::of_type(message, metric.span, source));
                }
            }
            check_metric(&binary.left, source)?;
            check_metric(&binary.right, source)
        }
    }
}

fn check_vector(metric: &Metric, function: &str, source: &str) -> Result<()> {
    if is_scalar(metric) {
        return Err(Error::of_type(format!("{function} takes series, not a number"), metric.span, source));
    }
    Ok(())
}

/// Whether a metric is a number and no series.
pub(super) fn is_scalar(metric: &Metric) -> bool {
    match &metric.kind {
        MetricKind::Literal(_) => true,
        MetricKind::Binary(binary) => is_scalar(&binary.left) && is_scalar(&binary.right),
        _ => false,
    }
}

impl Metric {
    /// Whether it is a number and no series.
    pub fn is_scalar(&self) -> bool {
        is_scalar(self)
    }
}
