//! Values of spans, and how they compare.

use std::cmp::Ordering;
use std::sync::Arc;

use regex::Regex;
use serde_json::{Value as Json, json};
use tidemill_lang::traceql::ast::{Operator, SpanKind, Static, Status};

/// A value of an attribute, an intrinsic or an expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// None.
    Nil,
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(Arc<str>),
    /// A boolean.
    Bool(bool),
    /// Nanoseconds.
    Duration(i64),
    /// A status.
    Status(Status),
    /// A kind of span.
    Kind(SpanKind),
    /// Several values.
    Array(Vec<Value>),
    /// Bytes or a map, which no query can compare.
    Other,
}

impl Value {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn of_static(value: &Static) -> Self {
        match value {
            Static::Nil => Self::Nil,
            Static::Int(value) => Self::Int(*value),
            Static::Float(value) => Self::Float(*value),
            Static::Text(text) => Self::text(text),
            Static::Bool(value) => Self::Bool(*value),
            Static::Duration(value) => Self::Duration(*value),
            Static::Status(value) => Self::Status(*value),
            Static::Kind(value) => Self::Kind(*value),
        }
    }

    /// The value as segments write it in JSON: whole numbers bare, other numbers with a point or an exponent.
    pub(super) fn of_json(json: &Json) -> Self {
        match json {
            Json::Null => Self::Nil,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(whole) => Self::Int(whole),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::text(text),
            Json::Array(list) => Self::Array(list.iter().map(Self::of_json).collect()),
            Json::Object(map) => match map.get("doubleValue").and_then(Json::as_str) {
                Some("Infinity") => Self::Float(f64::INFINITY),
                Some("-Infinity") => Self::Float(f64::NEG_INFINITY),
                Some(_) => Self::Float(f64::NAN),
                None => Self::Other,
            },
        }
    }

    /// As a number; durations in nanoseconds.
    pub(super) fn as_number(&self) -> Option<f64> {
        match self {
            Self::Int(value) | Self::Duration(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// As OTLP's JSON has it; what a query compares by name is a text, and so is a duration.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Nil | Self::Other => json!({ "stringValue": "nil" }),
            Self::Int(value) => json!({ "intValue": value.to_string() }),
            Self::Float(value) if value.is_finite() => json!({ "doubleValue": value }),
            Self::Float(value) => json!({ "doubleValue": value.to_string() }),
            Self::Text(text) => json!({ "stringValue": &**text }),
            Self::Bool(value) => json!({ "boolValue": value }),
            Self::Duration(value) => json!({ "stringValue": duration_text(*value) }),
            Self::Status(status) => json!({ "stringValue": status.name() }),
            Self::Kind(kind) => json!({ "stringValue": kind.name() }),
            Self::Array(list) => {
                json!({ "arrayValue": { "values": list.iter().map(Self::to_json).collect::<Vec<_>>() } })
            }
        }
    }
}

/// A duration as Go prints it: `1m20.691068967s`, `1.949ms`.
pub(super) fn duration_text(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let decimal = |unit: u64, name: &str| {
        let digits = unit.ilog10() as usize;
        let fraction = format!("{:0digits$}", total % unit);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{sign}{}{point}{fraction}{name}", total / unit)
    };
    match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{total}ns"),
        1_000..1_000_000 => decimal(1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(1_000_000, "ms"),
        _ => {
            let (minutes, below) = (total / 60_000_000_000, total % 60_000_000_000);
            let fraction = format!("{:09}", below % 1_000_000_000);
            let fraction = fraction.trim_end_matches('0');
            let point = if fraction.is_empty() { "" } else { "." };
            let seconds = format!("{}{point}{fraction}s", below / 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

/// Whether the comparison holds. What has no value meets none, and of an array one element must meet it; all of them must where it is
/// negated.
pub(super) fn compare(operator: Operator, left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Nil | Value::Other, _) | (_, Value::Nil | Value::Other) => false,
        (Value::Array(list), right) => over(operator, list, |element| compare(operator, element, right)),
        (left, Value::Array(list)) => over(operator, list, |element| compare(operator, left, element)),
        _ => {
            let order = order(left, right);
            match operator {
                Operator::Equal => order == Some(Ordering::Equal),
                Operator::NotEqual => order != Some(Ordering::Equal),
                Operator::Greater => order == Some(Ordering::Greater),
                Operator::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
                Operator::Less => order == Some(Ordering::Less),
                Operator::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                _ => false,
            }
        }
    }
}

fn over(operator: Operator, list: &[Value], holds: impl Fn(&Value) -> bool) -> bool {
    let is_negated = matches!(operator, Operator::NotEqual | Operator::MatchesNot);
    if is_negated { !list.is_empty() && list.iter().all(holds) } else { list.iter().any(holds) }
}

/// Whether the pattern fits, or does not where the operator is negated.
pub(super) fn matches_pattern(operator: Operator, value: &Value, pattern: &Regex) -> bool {
    match value {
        Value::Text(text) => pattern.is_match(text) == (operator == Operator::Matches),
        Value::Array(list) => over(operator, list, |element| matches_pattern(operator, element, pattern)),
        _ => false,
    }
}

/// How two single values stand to each other; numbers of any type compare, others only with their own.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Int(left) | Value::Duration(left), Value::Int(right) | Value::Duration(right)) => Some(left.cmp(right)),
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Status(left), Value::Status(right)) => (left == right).then_some(Ordering::Equal),
        (Value::Kind(left), Value::Kind(right)) => (left == right).then_some(Ordering::Equal),
        _ => left.as_number()?.partial_cmp(&right.as_number()?),
    }
}

/// The operator's number; nothing where a side has none, or there is no such number.
pub(super) fn calculate(operator: Operator, left: &Value, right: &Value) -> Value {
    let is_duration = |value: &Value| matches!(value, Value::Duration(_));
    let (Some(left_number), Some(right_number)) = (left.as_number(), right.as_number()) else { return Value::Nil };
    if let (Value::Int(left), Value::Int(right)) = (left, right) {
        let whole = match operator {
            Operator::Add => left.checked_add(*right),
            Operator::Subtract => left.checked_sub(*right),
            Operator::Multiply => left.checked_mul(*right),
            Operator::Divide => left.checked_rem(*right).filter(|rest| *rest == 0).map(|_| left / right),
            Operator::Modulo => left.checked_rem(*right),
            Operator::Power => u32::try_from(*right).ok().and_then(|right| left.checked_pow(right)),
            _ => None,
        };
        if let Some(whole) = whole {
            return Value::Int(whole);
        }
    }
    let number = match operator {
        Operator::Add => left_number + right_number,
        Operator::Subtract => left_number - right_number,
        Operator::Multiply => left_number * right_number,
        Operator::Divide => left_number / right_number,
        Operator::Modulo => left_number % right_number,
        Operator::Power => left_number.powf(right_number),
        _ => return Value::Nil,
    };
    match (is_duration(left), is_duration(right)) {
        _ if number.is_nan() => Value::Nil,
        (false, false) | (true, true) if operator == Operator::Divide => Value::Float(number),
        (false, false) => Value::Float(number),
        _ => Value::Duration(number.round() as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_prints_them() {
        let cases = [
            (0, "0s"),
            (999, "999ns"),
            (1_500, "1.5µs"),
            (1_949_000, "1.949ms"),
            (3_906_009_757, "3.906009757s"),
            (80_691_068_967, "1m20.691068967s"),
            (3_600_000_000_000, "1h0m0s"),
            (-1_000_000, "-1ms"),
        ];
        for (nanoseconds, text) in cases {
            assert_eq!(duration_text(nanoseconds), text);
        }
    }

    #[test]
    fn arrays_compare_by_their_elements() {
        let list = Value::Array(vec![Value::Int(1), Value::Float(2.5)]);
        assert!(compare(Operator::Equal, &list, &Value::Int(1)) && compare(Operator::Greater, &list, &Value::Int(2)));
        assert!(
            !compare(Operator::NotEqual, &list, &Value::Int(1)) && compare(Operator::NotEqual, &list, &Value::Int(3))
        );
        assert!(!compare(Operator::NotEqual, &Value::Nil, &Value::Int(1)));
        assert_eq!(calculate(Operator::Divide, &Value::Int(7), &Value::Int(2)), Value::Float(3.5));
        assert_eq!(calculate(Operator::Multiply, &Value::Int(2), &Value::Duration(5)), Value::Duration(10));
    }
}
