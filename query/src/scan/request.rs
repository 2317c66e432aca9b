//! What an evaluator asks for: rows of one signal in a time range, by matchers.

use datafusion::logical_expr::{Expr, cast, lit};
use tidemill_segment::read::AttributeType;
use tidemill_types::{Signal, TimeRange};

use super::row_condition::RowCondition;
use crate::attributes::AttributeKey;

/// Rows of one signal. Batches have the columns in the order asked for, then the attributes.
#[derive(Debug, Clone, PartialEq)]
pub struct RowRequest {
    /// Which signal.
    pub signal: Signal,
    /// Only rows of this time.
    pub time: TimeRange,
    /// Only rows that match all of them.
    pub matchers: Vec<Matcher>,
    /// Fixed columns, by their names in SQL.
    pub columns: Vec<String>,
    /// Attributes, each typed as SQL types it.
    pub attributes: Vec<AttributeKey>,
    /// At most so many rows.
    pub limit: Option<usize>,
}

/// A condition on one column.
#[derive(Debug, Clone, PartialEq)]
pub enum Matcher {
    /// Its text is one of these.
    In(MatcherTarget, Vec<String>),
    /// It has a value, whose text is none of these.
    NotIn(MatcherTarget, Vec<String>),
    /// Its text contains this.
    Contains(MatcherTarget, String),
    /// Its text matches this regular expression somewhere.
    Regex(MatcherTarget, String),
    /// It meets the condition, or an evaluator finds that it does not.
    Condition(RowCondition),
}

/// What a matcher looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MatcherTarget {
    /// A fixed column, by its name in SQL.
    Column(String),
    /// An attribute; one that is not text is compared by its text.
    Attribute(AttributeKey),
}

impl MatcherTarget {
    /// Its text; `type_of` tells the type of an attribute's column.
    fn text(&self, type_of: &impl Fn(&AttributeKey) -> AttributeType) -> Expr {
        let column = |name: &str| Expr::Column(datafusion::common::Column::from_name(name));
        match self {
            Self::Column(name) => column(name),
            Self::Attribute(key) if type_of(key) == AttributeType::String => column(&key.column_name()),
            Self::Attribute(key) => cast(column(&key.column_name()), arrow::datatypes::DataType::Utf8View),
        }
    }
}

impl RowRequest {
    /// The attributes that it names anywhere.
    pub(crate) fn named_attributes(&self) -> Vec<AttributeKey> {
        let mut keys = self.attributes.clone();
        self.matchers.iter().for_each(|matcher| matcher.attributes(&mut keys));
        keys.sort();
        keys.dedup();
        keys
    }

    /// What rows must match; `type_of` tells the type of an attribute's column.
    pub(crate) fn predicate(&self, type_of: impl Fn(&AttributeKey) -> AttributeType) -> Expr {
        let at = |nanoseconds: i64| {
            lit(datafusion::common::ScalarValue::TimestampNanosecond(Some(nanoseconds), Some("UTC".into())))
        };
        let time = Expr::Column(datafusion::common::Column::from_name("time"));
        let within = time.clone().gt_eq(at(self.time.start.0)).and(time.lt(at(self.time.end.0)));
        self.matchers.iter().fold(within, |all, matcher| all.and(matcher.expression(&type_of)))
    }
}

impl Matcher {
    fn attributes(&self, into: &mut Vec<AttributeKey>) {
        match self {
            Self::In(target, _) | Self::NotIn(target, _) | Self::Contains(target, _) | Self::Regex(target, _) => {
                if let MatcherTarget::Attribute(key) = target {
                    into.push(key.clone());
                }
            }
            Self::Condition(condition) => condition.attributes(into),
        }
    }

    fn expression(&self, type_of: &impl Fn(&AttributeKey) -> AttributeType) -> Expr {
        let list = |values: &[String]| values.iter().map(|value| view(value)).collect();
        match self {
            Self::In(target, values) => target.text(type_of).in_list(list(values), false),
            Self::NotIn(target, values) => target.text(type_of).in_list(list(values), true),
            Self::Contains(target, part) => target.text(type_of).like(view(&like_pattern(part))),
            Self::Regex(target, pattern) => datafusion::logical_expr::binary_expr(
                target.text(type_of),
                datafusion::logical_expr::Operator::RegexMatch,
                view(pattern),
            ),
            Self::Condition(condition) => condition.expression(type_of),
        }
    }
}

fn view(text: &str) -> Expr {
    lit(datafusion::common::ScalarValue::Utf8View(Some(text.to_owned())))
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
