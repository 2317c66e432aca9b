//! Whether the parts of a tree fit together.

use super::ast::{Aggregate, Binary, Call, Cardinality, Expr, ExprKind, MatchOp, Selector, ValueType};
use crate::error::{Error, Result};
use crate::go_regex::whole_pattern;
use crate::span::Span;

/// Checks `expr` and all in it.
pub(super) fn check(expr: &Expr, source: &str) -> Result<()> {
    for child in expr.children() {
        check(child, source)?;
    }
    let check = Check { source, span: expr.span };
    match &expr.kind {
        ExprKind::Unary { expr: inner, .. } => match inner.value_type() {
            ValueType::Scalar | ValueType::Vector => Ok(()),
            other => Err(check.refuse(format!(
                "unary expression only allowed on expressions of type scalar or instant vector, got \"{other}\""
            ))),
        },
        ExprKind::Binary(binary) => check.binary(binary),
        ExprKind::Aggregate(aggregate) => check.aggregate(aggregate),
        ExprKind::Call(call) => check.call(call),
        ExprKind::Vector(selector) => check.selector(selector),
        ExprKind::Matrix(matrix) => check.selector(&matrix.selector),
        ExprKind::Subquery(subquery) => match subquery.expr.value_type() {
            ValueType::Vector => Ok(()),
            other => Err(check.refuse(format!("subquery is only allowed on instant vector, got {other} instead"))),
        },
        ExprKind::Number(_) | ExprKind::Text(_) | ExprKind::Paren(_) => Ok(()),
    }
}

struct Check<'a> {
    source: &'a str,
    span: Span,
}

impl Check<'_> {
    fn refuse(&self, message: impl Into<String>) -> Error {
        self.refuse_at(self.span, message)
    }

    fn refuse_at(&self, span: Span, message: impl Into<String>) -> Error {
        Error::of_type(message, span, self.source)
    }

    fn expect(&self, expr: &Expr, wanted: ValueType, context: &str) -> Result<()> {
        let given = expr.value_type();
        if given == wanted {
            return Ok(());
        }
        Err(self.refuse_at(expr.span, format!("expected type {wanted} in {context}, got {given}")))
    }

    fn aggregate(&self, aggregate: &Aggregate) -> Result<()> {
        self.expect(&aggregate.expr, ValueType::Vector, "aggregation expression")?;
        match (aggregate.op.param_type(), &aggregate.param) {
            (Some(wanted), Some(param)) => self.expect(param, wanted, "aggregation parameter"),
            _ => Ok(()),
        }
    }

    fn binary(&self, binary: &Binary) -> Result<()> {
        let Binary { op, op_span, matching, left, right, .. } = binary;
        let (left_type, right_type) = (left.value_type(), right.value_type());
        let refuse_op = |message: &str| Err(self.refuse_at(*op_span, message));
        if binary.returns_bool && !op.is_comparison() {
            return refuse_op("bool modifier can only be used on comparison operators");
        }
        let are_scalars = left_type == ValueType::Scalar && right_type == ValueType::Scalar;
        if op.is_comparison() && !binary.returns_bool && are_scalars {
            return refuse_op("comparisons between scalars must use BOOL modifier");
        }
        let twice = matching.labels.iter().find(|label| matching.is_on && matching.include.contains(label));
        if let Some(label) = twice {
            return refuse_op(&format!("label {label:?} must not occur in ON and GROUP clause at once"));
        }
        for side in [left, right] {
            if !matches!(side.value_type(), ValueType::Scalar | ValueType::Vector) {
                let message = "binary expression must contain only scalar and instant vector types";
                return Err(self.refuse_at(side.span, message));
            }
        }
        let has_fill = matching.fill_left.is_some() || matching.fill_right.is_some();
        if left_type == ValueType::Vector && right_type == ValueType::Vector {
            if op.is_set() && matching.cardinality != Cardinality::ManyToMany {
                return Err(self.refuse(format!("no grouping allowed for \"{}\" operation", op.as_str())));
            }
            if op.is_set() && has_fill {
                return Err(self.refuse("filling in missing series not allowed for set operators"));
            }
            return Ok(());
        }
        if !matching.labels.is_empty() {
            return Err(self.refuse("vector matching only allowed between instant vectors"));
        }
        if has_fill {
            return Err(self.refuse("filling in missing series only allowed between instant vectors"));
        }
        if op.is_set() {
            let message = format!("set operator \"{}\" not allowed in binary scalar expression", op.as_str());
            return Err(self.refuse(message));
        }
        Ok(())
    }

    fn call(&self, call: &Call) -> Result<()> {
        let Call { function, args } = call;
        let (fewest, most) = function.bounds();
        let given = args.len();
        let bound = match most {
            Some(most) if most == fewest && given != most => format!("expected {most}"),
            _ if given < fewest => format!("expected at least {fewest}"),
            Some(most) if given > most => format!("expected at most {most}"),
            _ => String::new(),
        };
        if !bound.is_empty() {
            return Err(self.refuse(format!("{bound} argument(s) in call to \"{}\", got {given}", function.name)));
        }
        for (at, arg) in args.iter().enumerate() {
            if let Some(wanted) = function.arg_type(at) {
                self.expect(arg, wanted, &format!("call to function \"{}\"", function.name))?;
            }
        }
        if function.name == "info"
            && let Some(arg) = args.get(1)
        {
            match &arg.kind {
                ExprKind::Vector(selector) if selector.name.is_none() => {}
                ExprKind::Vector(_) => {
                    return Err(self.refuse_at(arg.span, "expected label selectors only, got vector selector instead"));
                }
                _ => return Err(self.refuse_at(arg.span, "expected label selectors only")),
            }
        }
        Ok(())
    }

    fn selector(&self, selector: &Selector) -> Result<()> {
        let named = selector.matchers.iter().find(|matcher| matcher.name == "__name__");
        if let (Some(name), Some(matcher)) = (&selector.name, named) {
            let message = format!("metric name must not be set twice: {name:?} or {:?}", matcher.value);
            return Err(self.refuse(message));
        }
        Ok(())
    }
}

/// Refuses selectors without any condition that excludes series, except as the second argument of `info`.
pub(super) fn check_not_all(expr: &Expr, source: &str) -> Result<()> {
    let selector = match &expr.kind {
        ExprKind::Vector(selector) => Some(selector),
        ExprKind::Matrix(matrix) => Some(&matrix.selector),
        _ => None,
    };
    if selector.is_some_and(|selector| selector.name.is_none() && !selector.matchers.iter().any(excludes_empty)) {
        let message = "vector selector must contain at least one non-empty matcher";
        return Err(Error::of_type(message, expr.span, source));
    }
    let is_info = matches!(&expr.kind, ExprKind::Call(call) if call.function.name == "info");
    let skipped = if is_info { 1 } else { usize::MAX };
    for (at, child) in expr.children().into_iter().enumerate() {
        if at != skipped {
            check_not_all(child, source)?;
        }
    }
    Ok(())
}

/// Whether the condition fails for an absent label, as far as that can be told without running an expression: a pattern that is
/// empty, or that may repeat nothing, lets it pass.
fn excludes_empty(matcher: &super::ast::LabelMatcher) -> bool {
    match matcher.op {
        MatchOp::Equal => !matcher.value.is_empty(),
        MatchOp::NotEqual => matcher.value.is_empty(),
        MatchOp::Matches => !pattern_may_be_empty(&matcher.value),
        MatchOp::MatchesNot => pattern_may_be_empty(&matcher.value),
    }
}

/// Whether a regular expression fits the empty text.
fn pattern_may_be_empty(pattern: &str) -> bool {
    whole_pattern(pattern).is_ok_and(|pattern| pattern.is_match(""))
}
