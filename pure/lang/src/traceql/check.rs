//! Types of expressions, as far as a query tells them.

use super::ast::*;
use crate::error::{Error, Result};
use crate::go_regex::whole_pattern;

/// What an expression gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Any,
    Nil,
    Int,
    Float,
    Text,
    Bool,
    Duration,
    Status,
    Kind,
}

impl Type {
    fn is_number(self) -> bool {
        matches!(self, Self::Any | Self::Int | Self::Float | Self::Duration)
    }

    fn fits(self, other: Self) -> bool {
        self == Self::Any || other == Self::Any || self == other || self.is_number() && other.is_number()
    }
}

/// Checks a query that was read.
///
/// # Errors
/// The first part that does not fit.
pub(super) fn check(query: &Query, source: &str) -> Result<()> {
    // Hints may be followed or not; answers are exact and newest first whatever they say.
    match &query.kind {
        QueryKind::Search(pipeline) => check_pipeline(pipeline, source),
        QueryKind::Metrics(metrics) => check_metrics(metrics, source),
    }
}

fn check_metrics(metrics: &Metrics, source: &str) -> Result<()> {
    match metrics {
        Metrics::Number(_) => Ok(()),
        Metrics::Operation { left, right, .. } => {
            for side in [left, right] {
                if matches!(&**side, Metrics::Pipeline { function: MetricsFunction::Compare { .. }, .. }) {
                    let message = "compare cannot be used in arithmetic";
                    return Err(Error::of_type(message, crate::span::Span::new(0, source.len()), source));
                }
                check_metrics(side, source)?;
            }
            Ok(())
        }
        Metrics::Pipeline { spans, function, seconds, .. } => {
            check_pipeline(spans, source)?;
            if let MetricsFunction::Compare { selection, .. } = function {
                if !seconds.is_empty() {
                    let message = "compare cannot be followed by other functions";
                    return Err(Error::of_type(message, crate::span::Span::new(0, source.len()), source));
                }
                if let Some(field) = &**selection {
                    check_condition(field, source)?;
                }
            }
            Ok(())
        }
    }
}

fn check_pipeline(pipeline: &Pipeline, source: &str) -> Result<()> {
    pipeline.stages.iter().try_for_each(|stage| match stage {
        Stage::Spansets(spansets) => check_spansets(spansets, source),
        Stage::Scalar(filter) => {
            if !has_aggregate(&filter.left) && !has_aggregate(&filter.right) {
                return Err(Error::of_type("a comparison without an aggregate", filter.span, source));
            }
            check_scalar(&filter.left, source)?;
            check_scalar(&filter.right, source)
        }
        Stage::By(field) => {
            if !reads_span(field) {
                return Err(Error::of_type("by() needs an attribute of the span", field.span, source));
            }
            type_of(field, source).map(drop)
        }
        Stage::Coalesce | Stage::Select(_) => Ok(()),
    })
}

fn check_spansets(spansets: &Spansets, source: &str) -> Result<()> {
    match spansets {
        Spansets::Filter(None) => Ok(()),
        Spansets::Filter(Some(field)) => check_condition(field, source),
        Spansets::Operation { operator, left, right } => {
            let pipeline = [left, right].into_iter().any(|side| matches!(**side, Spansets::Pipeline(_)));
            if pipeline && matches!(operator, SpansetOperator::Structural { .. }) {
                let message = format!("the sides of `{}` cannot be pipelines", operator.sign());
                return Err(Error::of_type(message, crate::span::Span::new(0, source.len()), source));
            }
            check_spansets(left, source)?;
            check_spansets(right, source)
        }
        Spansets::Pipeline(pipeline) => check_pipeline(pipeline, source),
    }
}

fn check_condition(field: &Field, source: &str) -> Result<()> {
    match type_of(field, source)? {
        Type::Bool => Ok(()),
        Type::Any if matches!(field.kind, FieldKind::Attribute(_)) => Ok(()),
        _ => Err(Error::of_type("a span filter must be a condition", field.span, source)),
    }
}

fn has_aggregate(scalar: &Scalar) -> bool {
    match scalar {
        Scalar::Static(_) => false,
        Scalar::Aggregate { .. } => true,
        Scalar::Operation { left, right, .. } => has_aggregate(left) || has_aggregate(right),
    }
}

fn check_scalar(scalar: &Scalar, source: &str) -> Result<()> {
    match scalar {
        Scalar::Static(_) | Scalar::Aggregate { of: None, .. } => Ok(()),
        Scalar::Aggregate { function, of: Some(field) } => {
            if !type_of(field, source)?.is_number() {
                let message = format!("{}() needs a number", function.name());
                return Err(Error::of_type(message, field.span, source));
            }
            if !reads_span(field) {
                let message = format!("{}() needs an attribute of the span", function.name());
                return Err(Error::of_type(message, field.span, source));
            }
            Ok(())
        }
        Scalar::Operation { left, right, .. } => {
            check_scalar(left, source)?;
            check_scalar(right, source)
        }
    }
}

fn reads_span(field: &Field) -> bool {
    match &field.kind {
        FieldKind::Static(_) => false,
        FieldKind::Attribute(_) => true,
        FieldKind::Not(inner) | FieldKind::Negative(inner) => reads_span(inner),
        FieldKind::Binary { left, right, .. } => reads_span(left) || reads_span(right),
    }
}

fn type_of(field: &Field, source: &str) -> Result<Type> {
    match &field.kind {
        FieldKind::Static(value) => Ok(match value {
            Static::Nil => Type::Nil,
            Static::Int(_) => Type::Int,
            Static::Float(_) => Type::Float,
            Static::Text(_) => Type::Text,
            Static::Bool(_) => Type::Bool,
            Static::Duration(_) => Type::Duration,
            Static::Status(_) => Type::Status,
            Static::Kind(_) => Type::Kind,
        }),
        FieldKind::Attribute(Attribute::Named(..)) => Ok(Type::Any),
        FieldKind::Attribute(Attribute::Intrinsic(intrinsic)) => Ok(intrinsic_type(*intrinsic)),
        FieldKind::Not(inner) => match type_of(inner, source)? {
            Type::Bool | Type::Any => Ok(Type::Bool),
            _ => Err(Error::of_type("`!` needs a condition", field.span, source)),
        },
        FieldKind::Negative(inner) => match type_of(inner, source)? {
            own if own.is_number() => Ok(own),
            _ => Err(Error::of_type("`-` needs a number", field.span, source)),
        },
        FieldKind::Binary { operator, left, right } => binary_type(field, *operator, left, right, source),
    }
}

fn binary_type(field: &Field, operator: Operator, left: &Field, right: &Field, source: &str) -> Result<Type> {
    let (left_type, right_type) = (type_of(left, source)?, type_of(right, source)?);
    let refuse = |message: String| Err(Error::of_type(message, field.span, source));
    if left_type == Type::Nil || right_type == Type::Nil {
        if !matches!(operator, Operator::Equal | Operator::NotEqual) {
            return refuse(format!("nil is compared by `=` or `!=`, not `{}`", operator.sign()));
        }
        let other = if left_type == Type::Nil { right } else { left };
        return match &other.kind {
            FieldKind::Attribute(Attribute::Named(..)) => Ok(Type::Bool),
            FieldKind::Attribute(Attribute::Intrinsic(intrinsic)) => {
                refuse(format!("{} is never nil", intrinsic.name()))
            }
            _ => refuse("only an attribute can be nil".to_owned()),
        };
    }
    if operator.is_pattern() {
        let FieldKind::Static(Static::Text(pattern)) = &right.kind else {
            return refuse(format!("`{}` needs a pattern in quotes on its right", operator.sign()));
        };
        if !left_type.fits(Type::Text) {
            return refuse(format!("`{}` needs a text on its left", operator.sign()));
        }
        return match whole_pattern(pattern) {
            Ok(_) => Ok(Type::Bool),
            Err(why) => {
                Err(Error::syntax(format!("invalid regular expression {pattern:?}: {why}"), right.span, source))
            }
        };
    }
    if !left_type.fits(right_type) {
        return refuse(format!("the sides of `{}` have different types", operator.sign()));
    }
    let both = |fits: fn(Type) -> bool| fits(left_type) && fits(right_type);
    match operator {
        Operator::And | Operator::Or => {
            if both(|own| matches!(own, Type::Bool | Type::Any)) {
                return Ok(Type::Bool);
            }
            refuse(format!("`{}` needs conditions", operator.sign()))
        }
        Operator::Equal | Operator::NotEqual => Ok(Type::Bool),
        Operator::Greater | Operator::GreaterOrEqual | Operator::Less | Operator::LessOrEqual => {
            if both(|own| own.is_number() || own == Type::Text) {
                return Ok(Type::Bool);
            }
            refuse(format!("`{}` needs numbers or texts", operator.sign()))
        }
        _ => {
            if !both(Type::is_number) {
                return refuse(format!("`{}` needs numbers", operator.sign()));
            }
            Ok(match (left_type, right_type) {
                (Type::Duration, _) | (_, Type::Duration) => Type::Duration,
                (Type::Any, _) | (_, Type::Any) => Type::Any,
                (Type::Int, Type::Int) => Type::Int,
                _ => Type::Float,
            })
        }
    }
}

fn intrinsic_type(intrinsic: Intrinsic) -> Type {
    match intrinsic {
        Intrinsic::Duration | Intrinsic::TraceDuration | Intrinsic::EventTimeSinceStart => Type::Duration,
        Intrinsic::Status => Type::Status,
        Intrinsic::Kind => Type::Kind,
        Intrinsic::ChildCount | Intrinsic::NestedSetLeft | Intrinsic::NestedSetRight | Intrinsic::NestedSetParent => {
            Type::Int
        }
        _ => Type::Text,
    }
}
