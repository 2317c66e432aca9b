//! Log records as LogQL asks for them: a condition over fixed columns and attributes, wider than the query's own.

use std::fmt;
use std::ops::RangeInclusive;

use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Expr, cast, lit};
use tidemill_segment::read::AttributeType;
use tidemill_types::TimeRange;

use super::{CountedGroups, SparedColumns};
use crate::attributes::AttributeKey;

/// The records of one scan.
#[derive(Debug, Clone)]
pub(crate) struct LineScan {
    /// Only records of this time.
    pub(crate) time: TimeRange,
    /// What records must meet; the evaluator checks every one again.
    pub(crate) condition: Condition,
    /// Fixed columns, by their names in SQL.
    pub(crate) columns: Vec<&'static str>,
    /// What need not be read.
    pub(crate) spared: SparedColumns,
    /// Row groups that are left out, as they were counted already. Their segments must be among those that are read.
    pub(crate) counted: CountedGroups,
}

/// What a record must meet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    /// All of these; none is met by every record.
    All(Vec<Condition>),
    /// One of these.
    Any(Vec<Condition>),
    /// The text of a fixed column is one of these.
    ColumnIn(&'static str, Vec<String>),
    /// The text of an attribute is one of these.
    AttributeIn(AttributeKey, Vec<String>),
    /// The severity number is inside of one of these, or tells no level.
    LevelIn(Vec<RangeInclusive<i32>>),
    /// The line contains this.
    BodyContains(String),
    /// The record's time lies inside.
    Within(TimeRange),
}

impl LineScan {
    /// The attributes that its condition names.
    pub(crate) fn named_attributes(&self) -> Vec<AttributeKey> {
        let mut keys = Vec::new();
        self.condition.name_attributes(&mut keys);
        keys.sort();
        keys.dedup();
        keys
    }

    /// The condition as an expression; `type_of` tells the type of an attribute's column.
    pub(crate) fn predicate(&self, type_of: impl Fn(&AttributeKey) -> AttributeType) -> Expr {
        let time = within(self.time);
        match self.condition.expression(&type_of) {
            Some(condition) => time.and(condition),
            None => time,
        }
    }
}

impl Condition {
    fn name_attributes(&self, keys: &mut Vec<AttributeKey>) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.name_attributes(keys)),
            Self::AttributeIn(key, _) => keys.push(key.clone()),
            Self::ColumnIn(..) | Self::LevelIn(_) | Self::BodyContains(_) | Self::Within(_) => {}
        }
    }

    /// `None` where every record may meet it.
    fn expression(&self, type_of: &impl Fn(&AttributeKey) -> AttributeType) -> Option<Expr> {
        match self {
            Self::All(parts) => parts.iter().filter_map(|part| part.expression(type_of)).reduce(Expr::and),
            Self::Any(parts) => {
                let parts: Option<Vec<Expr>> = parts.iter().map(|part| part.expression(type_of)).collect();
                parts?.into_iter().reduce(Expr::or)
            }
            Self::ColumnIn(name, values) => Some(column(name).in_list(texts(values), false)),
            Self::AttributeIn(key, values) => {
                let own = column(&key.column_name());
                match type_of(key) {
                    AttributeType::String => Some(own.in_list(texts(values), false)),
                    // The same number is written in several ways.
                    AttributeType::Double => None,
                    AttributeType::Int | AttributeType::Bool => {
                        Some(cast(own, arrow::datatypes::DataType::Utf8View).in_list(texts(values), false))
                    }
                }
            }
            Self::LevelIn(ranges) => {
                let number = || column("severity_number");
                let inside = ranges.iter().map(|range| number().between(lit(*range.start()), lit(*range.end())));
                let outside = number().is_null().or(number().lt(lit(1))).or(number().gt(lit(24)));
                Some(inside.fold(outside, Expr::or))
            }
            Self::BodyContains(part) => Some(column("body").like(text(&like_pattern(part)))),
            Self::Within(range) => Some(within(*range)),
        }
    }
}

/// As text; empty where every record meets it.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |parts: &[Self], word: &str| {
            let parts: Vec<String> = parts.iter().map(ToString::to_string).filter(|part| !part.is_empty()).collect();
            if parts.len() > 1 { format!("({})", parts.join(word)) } else { parts.concat() }
        };
        match self {
            Self::All(parts) => f.write_str(&joined(parts, " and ")),
            Self::Any(parts) => f.write_str(&joined(parts, " or ")),
            Self::ColumnIn(name, values) => write!(f, "{name} in {values:?}"),
            Self::AttributeIn(key, values) => write!(f, "{} in {values:?}", key.column_name()),
            Self::LevelIn(ranges) => write!(f, "severity_number in {ranges:?} or of no level"),
            Self::BodyContains(part) => write!(f, "body contains {part:?}"),
            Self::Within(range) => write!(f, "time from {} to {}", range.start.0, range.end.0),
        }
    }
}

fn within(range: TimeRange) -> Expr {
    let at = |nanoseconds: i64| lit(ScalarValue::TimestampNanosecond(Some(nanoseconds), Some("UTC".into())));
    column("time").gt_eq(at(range.start.0)).and(column("time").lt(at(range.end.0)))
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

fn texts(values: &[String]) -> Vec<Expr> {
    values.iter().map(|value| text(value)).collect()
}

fn text(value: &str) -> Expr {
    lit(ScalarValue::Utf8View(Some(value.to_owned())))
}

/// `%part%` with the part's own wildcards escaped.
fn like_pattern(part: &str) -> String {
    let mut pattern = String::with_capacity(part.len() + 2);
    pattern.push('%');
    for letter in part.chars() {
        if matches!(letter, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern.push('%');
    pattern
}
