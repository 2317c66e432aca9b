//! Expressions over one span, ready to run.

use arrow::array::Array;
use regex::Regex;
use tidemill_lang::go_regex::compile_anchored_regex;
use tidemill_lang::traceql::ast::{Attribute, Field, FieldKind, Intrinsic, Operator, Scope, SpanKind, Static, Status};

use super::attributes::{AttributeScope, hex_text};
use super::structure::Trace;
use super::value::{Value, calculate, compare, matches_pattern};
use crate::error::{Error, Result};

/// A span of a trace, seen with one of its events and one of its links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct View {
    pub span: usize,
    /// The event; the last where none was chosen.
    pub event: Option<usize>,
    /// The link; the last where none was chosen.
    pub link: Option<usize>,
}

impl View {
    pub fn of(span: usize) -> Self {
        Self { span, event: None, link: None }
    }
}

/// An expression.
#[derive(Debug)]
pub(super) enum Expression {
    Static(Value),
    Attribute(Attribute),
    Not(Box<Expression>),
    Negative(Box<Expression>),
    Matches(Operator, Box<Expression>, Regex),
    IsNil(Attribute, bool),
    Binary(Operator, Box<Expression>, Box<Expression>),
}

impl Expression {
    pub fn new(field: &Field) -> Result<Self> {
        Ok(match &field.kind {
            FieldKind::Static(value) => Self::Static(Value::of_static(value)),
            FieldKind::Attribute(attribute) => Self::Attribute(attribute.clone()),
            FieldKind::Not(inner) => Self::Not(Box::new(Self::new(inner)?)),
            FieldKind::Negative(inner) => Self::Negative(Box::new(Self::new(inner)?)),
            FieldKind::Binary { operator, left, right } => match (&left.kind, &right.kind) {
                (_, FieldKind::Static(Static::Text(pattern))) if operator.is_pattern() => {
                    let regex = compile_anchored_regex(pattern).map_err(Error::Data)?;
                    Self::Matches(*operator, Box::new(Self::new(left)?), regex)
                }
                (FieldKind::Attribute(attribute), FieldKind::Static(Static::Nil))
                | (FieldKind::Static(Static::Nil), FieldKind::Attribute(attribute)) => {
                    Self::IsNil(attribute.clone(), *operator == Operator::Equal)
                }
                _ => Self::Binary(*operator, Box::new(Self::new(left)?), Box::new(Self::new(right)?)),
            },
        })
    }

    /// The view of the span for which the condition holds: its events and links are tried, the last first.
    pub fn find(&self, trace: &Trace<'_>, view: View) -> Option<View> {
        let (reads_events, reads_links) = self.reads();
        let tries = |reads: bool, chosen: Option<usize>, count: usize| -> Vec<Option<usize>> {
            if reads && chosen.is_none() && count > 0 { (0..count).rev().map(Some).collect() } else { vec![chosen] }
        };
        let row = trace.rows[view.span];
        for event in tries(reads_events, view.event, trace.attributes.events(row).len()) {
            for link in tries(reads_links, view.link, trace.attributes.links(row).len()) {
                let view = View { event, link, ..view };
                if self.value(trace, view) == Value::Bool(true) {
                    return Some(view);
                }
            }
        }
        None
    }

    /// Whether it reads events and links.
    fn reads(&self) -> (bool, bool) {
        let of = |attribute: &Attribute| {
            let event = matches!(
                attribute,
                Attribute::Named(Scope::Event, _)
                    | Attribute::Intrinsic(Intrinsic::EventName | Intrinsic::EventTimeSinceStart)
            );
            let link = matches!(
                attribute,
                Attribute::Named(Scope::Link, _) | Attribute::Intrinsic(Intrinsic::LinkSpanId | Intrinsic::LinkTraceId)
            );
            (event, link)
        };
        match self {
            Self::Static(_) => (false, false),
            Self::Attribute(attribute) | Self::IsNil(attribute, _) => of(attribute),
            Self::Not(inner) | Self::Negative(inner) | Self::Matches(_, inner, _) => inner.reads(),
            Self::Binary(_, left, right) => {
                let (left, right) = (left.reads(), right.reads());
                (left.0 || right.0, left.1 || right.1)
            }
        }
    }

    pub fn value(&self, trace: &Trace<'_>, view: View) -> Value {
        match self {
            Self::Static(value) => value.clone(),
            Self::Attribute(attribute) => attribute_value(attribute, trace, view),
            Self::Not(inner) => match inner.value(trace, view) {
                Value::Bool(value) => Value::Bool(!value),
                _ => Value::Nil,
            },
            Self::Negative(inner) => match inner.value(trace, view) {
                Value::Int(value) => Value::Int(value.wrapping_neg()),
                Value::Float(value) => Value::Float(-value),
                Value::Duration(value) => Value::Duration(value.wrapping_neg()),
                _ => Value::Nil,
            },
            Self::Matches(operator, inner, regex) => {
                Value::Bool(matches_pattern(*operator, &inner.value(trace, view), regex))
            }
            Self::IsNil(attribute, is_nil) => {
                Value::Bool((attribute_value(attribute, trace, view) == Value::Nil) == *is_nil)
            }
            Self::Binary(Operator::And, left, right) => {
                let holds = |side: &Self| side.value(trace, view) == Value::Bool(true);
                Value::Bool(holds(left) && holds(right))
            }
            Self::Binary(Operator::Or, left, right) => {
                let holds = |side: &Self| side.value(trace, view) == Value::Bool(true);
                Value::Bool(holds(left) || holds(right))
            }
            Self::Binary(operator, left, right) => {
                let (left, right) = (left.value(trace, view), right.value(trace, view));
                if operator.is_comparison() {
                    let id_padded = pad_ids(self, left, right);
                    return Value::Bool(compare(*operator, &id_padded.0, &id_padded.1));
                }
                calculate(*operator, &left, &right)
            }
        }
    }
}

/// Trace ids are compared without the zeros that they may begin with.
fn pad_ids(expression: &Expression, left: Value, right: Value) -> (Value, Value) {
    let Expression::Binary(_, left_side, right_side) = expression else { return (left, right) };
    let is_id = |side: &Expression| {
        matches!(side, Expression::Attribute(Attribute::Intrinsic(Intrinsic::TraceId | Intrinsic::LinkTraceId)))
    };
    if !is_id(left_side) && !is_id(right_side) {
        return (left, right);
    }
    let bare = |value: Value| match value {
        Value::Text(text) => Value::text(text.trim_start_matches('0')),
        other => other,
    };
    (bare(left), bare(right))
}

/// The value of an attribute of the span.
pub(super) fn attribute_value(attribute: &Attribute, trace: &Trace<'_>, view: View) -> Value {
    let row = trace.rows[view.span];
    let batch = trace.batch;
    let named = |scope: AttributeScope, key: &str| trace.attributes.get(scope, key, row).clone();
    let event = || {
        let events = trace.attributes.events(row);
        view.event.and_then(|at| events.get(at)).or(events.last())
    };
    let link = || {
        let links = trace.attributes.links(row);
        view.link.and_then(|at| links.get(at)).or(links.last())
    };
    let of = |attributes: &[(String, Value)], key: &str| {
        attributes.iter().find(|(own, _)| own == key).map_or(Value::Nil, |(_, value)| value.clone())
    };
    let text_or_empty = |column: &Option<arrow::array::StringArray>| {
        let text = column.as_ref().filter(|column| column.is_valid(row)).map_or("", |column| column.value(row));
        Value::text(text)
    };
    match attribute {
        Attribute::Named(Scope::Any, key) => match named(AttributeScope::Span, key) {
            Value::Nil => named(AttributeScope::Resource, key),
            value => value,
        },
        Attribute::Named(Scope::Span, key) => named(AttributeScope::Span, key),
        Attribute::Named(Scope::Resource, key) => named(AttributeScope::Resource, key),
        Attribute::Named(Scope::Instrumentation, key) => named(AttributeScope::Instrumentation, key),
        Attribute::Named(Scope::Event, key) => event().map_or(Value::Nil, |event| of(&event.attributes, key)),
        Attribute::Named(Scope::Link, key) => link().map_or(Value::Nil, |link| of(&link.attributes, key)),
        Attribute::Intrinsic(intrinsic) => match intrinsic {
            Intrinsic::Duration => Value::Duration(batch.duration_ns(row)),
            Intrinsic::Name => Value::text(batch.name.value(row)),
            Intrinsic::Status => Value::Status(Status::by_name(batch.status.value(row)).unwrap_or(Status::Unset)),
            Intrinsic::StatusMessage => text_or_empty(&batch.status_message),
            Intrinsic::Kind => Value::Kind(SpanKind::by_name(batch.kind.value(row)).unwrap_or(SpanKind::Unspecified)),
            Intrinsic::ChildCount => Value::Int(trace.child_counts[view.span]),
            Intrinsic::SpanId if batch.span_id.is_valid(row) => Value::text(&hex_text(batch.span_id.value(row))),
            Intrinsic::SpanId => Value::text(""),
            Intrinsic::ParentId => Value::text(&batch.parent_id(row).map(hex_text).unwrap_or_default()),
            Intrinsic::NestedSetLeft => Value::Int(trace.nested_left(view.span)),
            Intrinsic::NestedSetRight => Value::Int(trace.nested_right(view.span)),
            Intrinsic::NestedSetParent => Value::Int(trace.nested_parent(view.span)),
            Intrinsic::TraceId => Value::text(&hex_text(batch.trace_id.value(row))),
            Intrinsic::TraceDuration => Value::Duration(trace.end_ns - trace.start_ns),
            Intrinsic::RootName => Value::text(trace.root_name().unwrap_or_default()),
            Intrinsic::RootServiceName => Value::text(trace.root_service()),
            Intrinsic::EventName => event().map_or(Value::Nil, |event| Value::text(&event.name)),
            Intrinsic::EventTimeSinceStart => event().map_or(Value::Nil, |event| Value::Duration(event.since_start_ns)),
            Intrinsic::LinkTraceId => link().map_or(Value::Nil, |link| Value::text(&link.trace_id)),
            Intrinsic::LinkSpanId => link().map_or(Value::Nil, |link| Value::text(&link.span_id)),
            Intrinsic::InstrumentationName => text_or_empty(&batch.scope_name),
            Intrinsic::InstrumentationVersion => text_or_empty(&batch.scope_version),
        },
    }
}
