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
    fn attribute(&self) -> Option<&AttributeKey> {
        match self {
            Self::Attribute(key) => Some(key),
            Self::Column(_) => None,
        }
    }
}

impl RowRequest {
    /// The attributes that it names anywhere.
    pub(crate) fn named_attributes(&self) -> Vec<AttributeKey> {
        let mut keys = self.attributes.clone();
        for matcher in &self.matchers {
            match matcher {
                Matcher::Condition(condition) => condition.attributes(&mut keys),
                other => keys.extend(other.target().and_then(MatcherTarget::attribute).cloned()),
            }
        }
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
        let mut all = time.clone().gt_eq(at(self.time.start.0)).and(time.lt(at(self.time.end.0)));
        for matcher in &self.matchers {
            let target = match (matcher, matcher.target()) {
                (Matcher::Condition(condition), _) => {
                    all = all.and(condition.expression(&type_of));
                    continue;
                }
                (_, Some(target)) => target,
                (_, None) => continue,
            };
            let text = match target {
                MatcherTarget::Column(name) => Expr::Column(datafusion::common::Column::from_name(name)),
                MatcherTarget::Attribute(key) => {
                    let column = Expr::Column(datafusion::common::Column::from_name(key.column_name()));
                    match type_of(key) {
                        AttributeType::String => column,
                        _ => cast(column, arrow::datatypes::DataType::Utf8View),
                    }
                }
            };
            all = all.and(matcher.test(text));
        }
        all
    }
}

impl Matcher {
    /// What it looks at, where that is one thing.
    fn target(&self) -> Option<&MatcherTarget> {
        match self {
            Self::In(target, _) | Self::NotIn(target, _) | Self::Contains(target, _) | Self::Regex(target, _) => {
                Some(target)
            }
            Self::Condition(_) => None,
        }
    }

    fn test(&self, text: Expr) -> Expr {
        let list = |values: &[String]| values.iter().map(|value| view(value)).collect();
        match self {
            Self::In(_, values) => text.in_list(list(values), false),
            Self::NotIn(_, values) => text.in_list(list(values), true),
            Self::Contains(_, part) => text.like(view(&like_pattern(part))),
            Self::Regex(_, pattern) => datafusion::logical_expr::binary_expr(
                text,
                datafusion::logical_expr::Operator::RegexMatch,
                view(pattern),
            ),
            Self::Condition(_) => text.is_not_null(),
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
