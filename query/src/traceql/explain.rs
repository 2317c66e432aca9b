//! What would be read for a query, in words.

use tidemill_lang::traceql::ast::{Query, QueryKind};
use tidemill_lang::traceql::print::print;

use super::columns::SpanColumns;
use super::conditions;
use super::mentioned::Mentioned;
use crate::scan::{Comparison, RowCondition, RowValue};

/// The steps by which a query is answered, a line each.
pub fn explain(query: &Query) -> String {
    let columns = SpanColumns::of(&Mentioned::of(query)).fixed.join(", ");
    let mut lines = vec![format!("query: {}", print(query))];
    match &query.kind {
        QueryKind::Search(pipeline) => {
            lines.push("candidates: newest slices of time first, the ids of traces that have a span where".to_owned());
            lines.push(format!("  {}", text(&conditions::of_traces(pipeline))));
            lines.push(format!("whole traces, newest first, until newer ones fill the limit: {columns}"));
        }
        QueryKind::Metrics(metrics) if conditions::metrics_are_local(metrics) => {
            lines.push(format!("single spans where {}", text(&conditions::of_metrics(metrics))));
            lines.push(format!("  {columns}; a column of its own for an attribute of one type"));
        }
        QueryKind::Metrics(metrics) => {
            lines.push("candidates: the ids of traces that have a span where".to_owned());
            lines.push(format!("  {}", text(&conditions::of_metrics(metrics))));
            lines.push(format!("whole traces, some at a time: {columns}"));
        }
    }
    lines.push("every condition is checked again by the evaluation".to_owned());
    lines.join("\n") + "\n"
}

fn text(condition: &RowCondition) -> String {
    let joined = |parts: &[RowCondition], word: &str, none: &str| match parts {
        [] => none.to_owned(),
        parts => format!("({})", parts.iter().map(text).collect::<Vec<_>>().join(word)),
    };
    match condition {
        RowCondition::Always => "anything".to_owned(),
        RowCondition::All(parts) => joined(parts, " and ", "anything"),
        RowCondition::Any(parts) => joined(parts, " or ", "nothing"),
        RowCondition::Present(key) => format!("{} is there", key.column_name()),
        RowCondition::Attribute(key, comparison, value) => {
            format!("{} {} {}", key.column_name(), sign(*comparison), value_text(value))
        }
        RowCondition::Column { name, comparison, value, or_null } => {
            let or_null = if *or_null { ", or has none" } else { "" };
            format!("{name} {} {}{or_null}", sign(*comparison), value_text(value))
        }
    }
}

fn sign(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal => "=",
        Comparison::NotEqual => "!=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Matches => "~",
    }
}

fn value_text(value: &RowValue) -> String {
    match value {
        RowValue::Text(text) => format!("'{text}'"),
        RowValue::Int(number) => number.to_string(),
        RowValue::Double(number) => format!("{number:?}"),
        RowValue::Bool(value) => value.to_string(),
    }
}
