//! What a query says about single spans: conditions that every span of interest meets, so that others need not be read.
//!
//! Each is necessary, none is sufficient: whoever evaluates the query checks again.

use tidemill_lang::go_regex::compile_anchored_regex;
use tidemill_lang::traceql::ast::{
    Attribute, Field, FieldKind, Intrinsic, Metrics, MetricsFunction, Operator, Pipeline, Scope, SpansetOperator,
    Spansets, Stage, Static, StructuralResult,
};
use tidemill_segment::schema::{SERVICE_NAME_COLUMN, SERVICE_NAME_KEY};

use crate::AttributeScope;
use crate::attributes::AttributeKey;
use crate::scan::{Comparison, RowCondition, RowValue};

/// What some span of every trace meets that the pipeline finds.
pub(super) fn of_traces(pipeline: &Pipeline) -> RowCondition {
    let spansets = pipeline.stages.iter().filter_map(|stage| match stage {
        Stage::Spansets(spansets) => Some(spansets_of_traces(spansets)),
        _ => None,
    });
    best(spansets)
}

fn spansets_of_traces(spansets: &Spansets) -> RowCondition {
    match spansets {
        Spansets::Filter(None) => RowCondition::Always,
        Spansets::Filter(Some(field)) => of_field(field),
        Spansets::Pipeline(pipeline) => of_traces(pipeline),
        Spansets::Operation { operator, left, right } => {
            let (left, right) = (spansets_of_traces(left), spansets_of_traces(right));
            match operator {
                SpansetOperator::Or => any([left, right]),
                // Whoever stands in no relation needs nobody on the other side.
                SpansetOperator::Structural { result: StructuralResult::RightWithout, .. } => right,
                SpansetOperator::And | SpansetOperator::Structural { .. } => best([left, right].into_iter()),
            }
        }
    }
}

/// What every span meets that the pipeline gives.
pub(super) fn of_spans(pipeline: &Pipeline) -> RowCondition {
    let spansets = pipeline.stages.iter().filter_map(|stage| match stage {
        Stage::Spansets(spansets) => Some(spansets_of_spans(spansets)),
        _ => None,
    });
    // Every stage gives spans of the one before.
    all(spansets)
}

fn spansets_of_spans(spansets: &Spansets) -> RowCondition {
    match spansets {
        Spansets::Filter(None) => RowCondition::Always,
        Spansets::Filter(Some(field)) => of_field(field),
        Spansets::Pipeline(pipeline) => of_spans(pipeline),
        Spansets::Operation { operator, left, right } => match operator {
            SpansetOperator::Structural {
                result: StructuralResult::Right | StructuralResult::RightWithout, ..
            } => spansets_of_spans(right),
            _ => any([spansets_of_spans(left), spansets_of_spans(right)]),
        },
    }
}

/// What every span meets that a metrics query counts.
pub(super) fn of_metrics(metrics: &Metrics) -> RowCondition {
    match metrics {
        Metrics::Number(_) => RowCondition::Any(Vec::new()),
        Metrics::Operation { left, right, .. } => any([of_metrics(left), of_metrics(right)]),
        Metrics::Pipeline { spans, .. } => of_spans(spans),
    }
}

/// Whether what a metrics query counts can be told of each span alone.
pub(super) fn metrics_are_local(metrics: &Metrics) -> bool {
    match metrics {
        Metrics::Number(_) => true,
        Metrics::Operation { left, right, .. } => metrics_are_local(left) && metrics_are_local(right),
        Metrics::Pipeline { function: MetricsFunction::Compare { .. }, .. } => false,
        Metrics::Pipeline { spans, function, by, .. } => {
            is_local(spans) && by.iter().chain(function.of()).all(attribute_is_local)
        }
    }
}

/// Whether it can be told of each span alone if the pipeline gives it.
pub(super) fn is_local(pipeline: &Pipeline) -> bool {
    pipeline.stages.iter().all(|stage| match stage {
        Stage::Spansets(spansets) => spansets_are_local(spansets),
        Stage::Select(_) => true,
        Stage::Scalar(_) | Stage::By(_) | Stage::Coalesce => false,
    })
}

fn spansets_are_local(spansets: &Spansets) -> bool {
    match spansets {
        Spansets::Filter(None) => true,
        Spansets::Filter(Some(field)) => field_is_local(field),
        Spansets::Pipeline(pipeline) => is_local(pipeline),
        Spansets::Operation { operator: SpansetOperator::Or, left, right } => {
            spansets_are_local(left) && spansets_are_local(right)
        }
        Spansets::Operation { .. } => false,
    }
}

fn field_is_local(field: &Field) -> bool {
    match &field.kind {
        FieldKind::Static(_) => true,
        FieldKind::Attribute(attribute) => attribute_is_local(attribute),
        FieldKind::Not(inner) | FieldKind::Negative(inner) => field_is_local(inner),
        FieldKind::Binary { left, right, .. } => field_is_local(left) && field_is_local(right),
    }
}

pub(super) fn attribute_is_local(attribute: &Attribute) -> bool {
    use Intrinsic as I;
    !matches!(
        attribute,
        Attribute::Intrinsic(
            I::ChildCount
                | I::NestedSetLeft
                | I::NestedSetRight
                | I::NestedSetParent
                | I::TraceDuration
                | I::RootName
                | I::RootServiceName
        )
    )
}

fn all(parts: impl IntoIterator<Item = RowCondition>) -> RowCondition {
    let mut parts: Vec<RowCondition> = parts.into_iter().filter(|part| *part != RowCondition::Always).collect();
    match parts.len() {
        0 => RowCondition::Always,
        1 => parts.remove(0),
        _ => RowCondition::All(parts),
    }
}

fn any(parts: impl IntoIterator<Item = RowCondition>) -> RowCondition {
    let parts: Vec<RowCondition> = parts.into_iter().filter(|part| *part != RowCondition::Any(Vec::new())).collect();
    if parts.contains(&RowCondition::Always) { RowCondition::Always } else { RowCondition::Any(parts) }
}

/// Of conditions of which each is necessary, on whichever span, the one that is likely to rule out most.
fn best(parts: impl Iterator<Item = RowCondition>) -> RowCondition {
    parts.max_by_key(RowCondition::selectivity).unwrap_or(RowCondition::Always)
}

/// What a span meets for which the expression holds.
pub(super) fn of_field(field: &Field) -> RowCondition {
    match &field.kind {
        FieldKind::Binary { operator: Operator::And, left, right } => all([of_field(left), of_field(right)]),
        FieldKind::Binary { operator: Operator::Or, left, right } => any([of_field(left), of_field(right)]),
        FieldKind::Binary { operator, left, right } if operator.is_comparison() => match (&left.kind, &right.kind) {
            (FieldKind::Attribute(attribute), FieldKind::Static(value)) => of_comparison(attribute, *operator, value),
            (FieldKind::Static(value), FieldKind::Attribute(attribute)) if !operator.is_pattern() => {
                of_comparison(attribute, mirrored(*operator), value)
            }
            _ => RowCondition::Always,
        },
        FieldKind::Attribute(attribute) => of_comparison(attribute, Operator::Equal, &Static::Bool(true)),
        FieldKind::Static(Static::Bool(false)) => RowCondition::Any(Vec::new()),
        _ => RowCondition::Always,
    }
}

fn mirrored(operator: Operator) -> Operator {
    match operator {
        Operator::Greater => Operator::Less,
        Operator::GreaterOrEqual => Operator::LessOrEqual,
        Operator::Less => Operator::Greater,
        Operator::LessOrEqual => Operator::GreaterOrEqual,
        other => other,
    }
}

fn of_comparison(attribute: &Attribute, operator: Operator, value: &Static) -> RowCondition {
    match attribute {
        Attribute::Named(Scope::Any, key) => any([
            of_named(AttributeScope::Record, key, operator, value),
            of_named(AttributeScope::Resource, key, operator, value),
        ]),
        Attribute::Named(Scope::Span, key) => of_named(AttributeScope::Record, key, operator, value),
        Attribute::Named(Scope::Resource, key) => of_named(AttributeScope::Resource, key, operator, value),
        Attribute::Named(Scope::Instrumentation, key) => of_named(AttributeScope::Scope, key, operator, value),
        Attribute::Named(Scope::Event | Scope::Link, _) => RowCondition::Always,
        Attribute::Intrinsic(intrinsic) => of_intrinsic(*intrinsic, operator, value),
    }
}

fn of_named(scope: AttributeScope, key: &str, operator: Operator, value: &Static) -> RowCondition {
    let named = AttributeKey { scope, key: key.to_owned() };
    if *value == Static::Nil {
        return if operator == Operator::Equal { RowCondition::Always } else { RowCondition::Present(named) };
    }
    let Some((comparison, value)) = comparison_of(operator, value) else { return RowCondition::Present(named) };
    let is_service = scope == AttributeScope::Resource && key == SERVICE_NAME_KEY;
    if is_service && matches!(value, RowValue::Text(_)) {
        return RowCondition::Column { name: SERVICE_NAME_COLUMN.to_owned(), comparison, value, or_null: false };
    }
    RowCondition::Attribute(named, comparison, value)
}

/// `None` where no more can be said than that a value is there.
fn comparison_of(operator: Operator, value: &Static) -> Option<(Comparison, RowValue)> {
    let comparison = match operator {
        Operator::Equal => Comparison::Equal,
        Operator::Greater => Comparison::Greater,
        Operator::GreaterOrEqual => Comparison::GreaterOrEqual,
        Operator::Less => Comparison::Less,
        Operator::LessOrEqual => Comparison::LessOrEqual,
        Operator::Matches => Comparison::Matches,
        _ => return None,
    };
    let value = match value {
        Static::Text(pattern) if comparison == Comparison::Matches => {
            RowValue::Text(compile_anchored_regex(pattern).ok()?.as_str().to_owned())
        }
        Static::Text(text) => RowValue::Text(text.clone()),
        Static::Int(value) | Static::Duration(value) => RowValue::Int(*value),
        Static::Float(value) => RowValue::Double(*value),
        Static::Bool(value) => RowValue::Bool(*value),
        Static::Nil | Static::Status(_) | Static::Kind(_) => return None,
    };
    Some((comparison, value))
}

fn of_intrinsic(intrinsic: Intrinsic, operator: Operator, value: &Static) -> RowCondition {
    use Intrinsic as I;
    let column = |name: &str, comparison: Comparison, value: RowValue, or_null: bool| RowCondition::Column {
        name: name.to_owned(),
        comparison,
        value,
        or_null,
    };
    let text = |name: &str| match (comparison_of(operator, value), operator, value) {
        (Some((comparison, RowValue::Text(text))), ..) => {
            // Nothing is an empty text.
            let or_null = text.is_empty() || !matches!(comparison, Comparison::Equal);
            column(name, comparison, RowValue::Text(text), or_null)
        }
        (_, Operator::NotEqual, Static::Text(text)) => {
            column(name, Comparison::NotEqual, RowValue::Text(text.clone()), true)
        }
        _ => RowCondition::Always,
    };
    match (intrinsic, value) {
        (I::Name, _) => text("name"),
        (I::StatusMessage, _) => text("status_message"),
        (I::InstrumentationName, _) => text("scope_name"),
        (I::InstrumentationVersion, _) => text("scope_version"),
        (I::SpanId, _) if operator == Operator::Equal => text("span_id"),
        (I::ParentId, _) if operator == Operator::Equal => text("parent_span_id"),
        (I::TraceId, Static::Text(id)) if operator == Operator::Equal => {
            let id = format!("{:0>32}", id.trim_start_matches('0'));
            column("trace_id", Comparison::Equal, RowValue::Text(id), false)
        }
        (I::Status, Static::Status(status)) => of_name("status_code", operator, status.name()),
        (I::Kind, Static::Kind(kind)) => of_name("kind", operator, kind.name()),
        (I::Duration, _) => match comparison_of(operator, value) {
            Some((comparison, value @ (RowValue::Int(_) | RowValue::Double(_)))) => {
                column("duration_ns", comparison, value, true)
            }
            _ => RowCondition::Always,
        },
        _ => RowCondition::Always,
    }
}

fn of_name(column: &str, operator: Operator, name: &str) -> RowCondition {
    let comparison = match operator {
        Operator::Equal => Comparison::Equal,
        Operator::NotEqual => Comparison::NotEqual,
        _ => return RowCondition::Always,
    };
    RowCondition::Column { name: column.to_owned(), comparison, value: RowValue::Text(name.to_owned()), or_null: false }
}

#[cfg(test)]
mod tests {
    use tidemill_lang::traceql::ast::QueryKind;
    use tidemill_lang::traceql::parse;

    use super::*;

    fn pipeline(query: &str) -> Pipeline {
        match parse(query).expect("a query").kind {
            QueryKind::Search(pipeline) => pipeline,
            QueryKind::Metrics(_) => panic!("{query} is no search"),
        }
    }

    #[test]
    fn the_sharper_of_two_necessary_conditions_is_asked_for() {
        let name = of_traces(&pipeline("{ name = `a` }"));
        assert!(matches!(&name, RowCondition::Column { name, .. } if name == "name"));
        for query in ["{ } >> { name = `a` }", "{ name = `a` } && { duration > 1s }", "{ name = `a` } &> { }"] {
            assert_eq!(of_traces(&pipeline(query)), name, "{query}");
        }
        for query in
            ["{ name = `a` } !>> { }", "{ name = `a` } || { }", "{ name = nil || true }", "{ event:name = `a` }"]
        {
            let Ok(query) = parse(query) else { continue };
            let QueryKind::Search(pipeline) = query.kind else { panic!("no search") };
            assert_eq!(of_traces(&pipeline), RowCondition::Always);
        }
        assert_eq!(of_traces(&pipeline("{ span.a = nil }")), RowCondition::Always);
        assert!(matches!(of_traces(&pipeline("{ span.a != 1 }")), RowCondition::Present(_)));
    }

    #[test]
    fn numbers_beside_metrics_ask_for_no_spans() {
        let QueryKind::Metrics(metrics) = parse("({ name = `a` } | rate()) * 100").expect("a query").kind else {
            panic!("no metrics")
        };
        assert_eq!(of_metrics(&metrics), RowCondition::Any(vec![of_traces(&pipeline("{ name = `a` }"))]));
    }

    #[test]
    fn what_needs_the_trace_is_not_local() {
        for (query, expected) in [
            ("{ span.a = 1 } || { name = `b` }", true),
            ("{ span.a = 1 } && { name = `b` }", false),
            ("{ rootName = `b` }", false),
            ("{ } | count() > 1", false),
            ("{ } > { }", false),
        ] {
            assert_eq!(is_local(&pipeline(query)), expected, "{query}");
        }
    }
}
