//! A condition on rows in logical terms: what an evaluator knows to hold for every row that can matter to it.
//!
//! It may keep rows too many, never too few: where the type of an attribute's column does not tell its values' types, presence is all
//! that is asked for. Arrays stand in text columns as their JSON, and each of their elements counts.

use arrow::datatypes::DataType;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Expr, Operator, binary_expr, cast, lit};
use tidemill_segment::read::AttributeType;

use crate::attributes::AttributeKey;

/// Integers beyond it are not exact as doubles.
const EXACT_DOUBLE: u64 = 1 << 53;

/// A condition that rows of interest meet.
#[derive(Debug, Clone, PartialEq)]
pub enum RowCondition {
    /// Every row may matter.
    Always,
    /// All of these hold.
    All(Vec<RowCondition>),
    /// One of these holds.
    Any(Vec<RowCondition>),
    /// The attribute is there.
    Present(AttributeKey),
    /// The attribute's value, or an element of it, compares so.
    Attribute(AttributeKey, Comparison, RowValue),
    /// A fixed column, by its name in SQL, compares so; rows without a value meet it where `or_null`.
    Column {
        /// The column.
        name: String,
        /// How it compares.
        comparison: Comparison,
        /// With what.
        value: RowValue,
        /// Whether rows without a value meet the condition.
        or_null: bool,
    },
}

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the comparison of its name")]
pub enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    /// The value is a text in which the regular expression is found.
    Matches,
}

/// A value that rows are compared with.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each is a value of its type")]
pub enum RowValue {
    Text(String),
    Int(i64),
    Double(f64),
    Bool(bool),
}

impl RowCondition {
    /// How much a condition is likely to rule out: of two necessary ones the larger is asked for.
    pub fn selectivity(&self) -> u32 {
        match self {
            Self::Always => 0,
            Self::Present(_) => 1,
            Self::Attribute(_, comparison, _) | Self::Column { comparison, .. } => match comparison {
                Comparison::NotEqual => 1,
                Comparison::Equal => 8,
                Comparison::Matches => 4,
                _ => 3,
            },
            Self::All(parts) => parts.iter().map(Self::selectivity).fold(0, u32::saturating_add),
            Self::Any(parts) => parts.iter().map(Self::selectivity).min().unwrap_or(0),
        }
    }

    pub(super) fn attributes(&self, into: &mut Vec<AttributeKey>) {
        match self {
            Self::Always | Self::Column { .. } => {}
            Self::Present(key) | Self::Attribute(key, ..) => into.push(key.clone()),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.attributes(into)),
        }
    }

    /// As an expression over the table's columns; `type_of` tells the type of an attribute's column.
    pub(super) fn expression(&self, type_of: &impl Fn(&AttributeKey) -> AttributeType) -> Expr {
        match self {
            Self::Always => lit(true),
            Self::All(parts) => {
                parts.iter().map(|part| part.expression(type_of)).reduce(Expr::and).unwrap_or_else(|| lit(true))
            }
            Self::Any(parts) => {
                // What no row meets is asked by nobody who wants rows; a scan is not made for it.
                parts.iter().map(|part| part.expression(type_of)).reduce(Expr::or).unwrap_or_else(|| lit(true))
            }
            Self::Present(key) => column(&key.column_name()).is_not_null(),
            Self::Attribute(key, comparison, value) => {
                attribute_expression(&key.column_name(), type_of(key), *comparison, value)
            }
            Self::Column { name, comparison, value, or_null } => {
                let compared = binary_expr(column(name), comparison.operator(), literal(value));
                if *or_null { compared.or(column(name).is_null()) } else { compared }
            }
        }
    }
}

fn attribute_expression(name: &str, kind: AttributeType, comparison: Comparison, value: &RowValue) -> Expr {
    use AttributeType as T;
    use RowValue as V;
    let is_there = || column(name).is_not_null();
    if comparison == Comparison::NotEqual {
        return is_there();
    }
    let compared = |left: Expr, right: Expr| binary_expr(left, comparison.operator(), right);
    match (kind, value) {
        (T::String, V::Text(_)) => {
            compared(column(name), literal(value)).or(column(name).like(literal(&V::Text("[%".to_owned()))))
        }
        // Integers, doubles and arrays of them may stand here as text.
        (T::String, _) => is_there(),
        (T::Int, V::Int(_)) | (T::Bool, V::Bool(_)) => compared(column(name), literal(value)),
        (T::Int, V::Double(_)) => compared(cast(column(name), DataType::Float64), literal(value)),
        // The engine tells 0 from -0, and an integer among doubles is rounded here.
        (T::Double, V::Double(number)) if *number != 0.0 && number.abs() < EXACT_DOUBLE as f64 => {
            compared(column(name), literal(value))
        }
        (T::Double, V::Int(number)) if *number != 0 && number.unsigned_abs() < EXACT_DOUBLE => {
            compared(column(name), lit(*number as f64))
        }
        (T::Double, V::Double(_) | V::Int(_)) => is_there(),
        // Nothing compares so; who evaluates finds out.
        _ => is_there(),
    }
}

impl Comparison {
    fn operator(self) -> Operator {
        match self {
            Self::Equal => Operator::Eq,
            Self::NotEqual => Operator::NotEq,
            Self::Greater => Operator::Gt,
            Self::GreaterOrEqual => Operator::GtEq,
            Self::Less => Operator::Lt,
            Self::LessOrEqual => Operator::LtEq,
            Self::Matches => Operator::RegexMatch,
        }
    }
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

fn literal(value: &RowValue) -> Expr {
    match value {
        RowValue::Text(text) => lit(ScalarValue::Utf8View(Some(text.clone()))),
        RowValue::Int(number) => lit(*number),
        RowValue::Double(number) => lit(*number),
        RowValue::Bool(value) => lit(*value),
    }
}
