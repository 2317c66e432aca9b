//! What a selector asks of one label.

use std::fmt;

use tidemill_lang::WholePattern;
use tidemill_lang::go_regex::whole_pattern;

use crate::error::{Error, Result};
use crate::labels::{Labels, quote};

/// A condition on the value of one label; a label that is absent counts as the empty value.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// The label's name.
    pub name: String,
    /// The text or regular expression it is compared with, as written.
    pub value: String,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Equal,
    NotEqual,
    Matches(WholePattern),
    MatchesNot(WholePattern),
}

impl Matcher {
    /// `name="value"`
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), test: Test::Equal }
    }

    /// `name!="value"`
    pub fn not_equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), test: Test::NotEqual }
    }

    /// `name=~"pattern"`, or `name!~"pattern"` where `is_negated`. The pattern must fit the whole value; its dot fits any character.
    ///
    /// # Errors
    /// The pattern is no regular expression, or one too large.
    pub fn pattern(name: impl Into<String>, pattern: impl Into<String>, is_negated: bool) -> Result<Self> {
        let value = pattern.into();
        let pattern = whole_pattern(&value)
            .map_err(|error| Error::Data(format!("invalid regular expression {value:?}: {error}")))?;
        let test = if is_negated { Test::MatchesNot(pattern) } else { Test::Matches(pattern) };
        Ok(Self { name: name.into(), value, test })
    }

    /// Whether a label of this value meets the condition.
    pub fn meets(&self, value: &str) -> bool {
        match &self.test {
            Test::Equal => value == self.value,
            Test::NotEqual => value != self.value,
            Test::Matches(pattern) => pattern.is_match(value),
            Test::MatchesNot(pattern) => !pattern.is_match(value),
        }
    }

    /// Whether the condition is `name="value"`, which an index answers directly.
    pub fn is_equality(&self) -> bool {
        matches!(self.test, Test::Equal)
    }

    /// Whether `labels` meet every one of `matchers`.
    pub fn all_meet(matchers: &[Self], labels: &Labels) -> bool {
        matchers.iter().all(|matcher| matcher.meets(labels.get(&matcher.name)))
    }
}

/// As in a selector.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match &self.test {
            Test::Equal => "=",
            Test::NotEqual => "!=",
            Test::Matches(_) => "=~",
            Test::MatchesNot(_) => "!~",
        };
        write!(f, "{}{sign}{}", self.name, quote(&self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_the_whole_value_and_absent_labels_are_empty() {
        let pattern = |text, negated| Matcher::pattern("a", text, negated).expect("a pattern");
        assert!(pattern("b|cd", false).meets("cd"));
        assert!(!pattern("b|c", false).meets("cd"));
        assert!(pattern("b|c", true).meets("cd"));
        assert!(pattern("x.y", false).meets("x\ny"));
        assert!(Matcher::all_meet(
            &[Matcher::equal("gone", ""), Matcher::not_equal("a", "")],
            &Labels::of([("a", "1")])
        ));
        assert!(Matcher::pattern("a", "(", false).is_err());
    }
}
