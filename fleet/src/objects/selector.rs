//! Label selectors: the text of `-l`, and `matchLabels` with `matchExpressions`.

use std::collections::BTreeMap;

use serde_json::Value;
use tidemill_scaling::manifest::adapter::LabelMatch;

/// A selector that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("label selector `{text}`: {problem}")]
pub struct SelectorError {
    /// What was written.
    pub text: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Conditions on labels, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// Every label must have its value.
    pub fn equal(labels: &BTreeMap<String, String>) -> Self {
        let condition =
            |(key, value): (&String, &String)| Condition { key: key.clone(), test: Test::In(vec![value.clone()]) };
        Self { conditions: labels.iter().map(condition).collect() }
    }

    /// `app=a,tier!=b,env in (x,y),!old,new`
    ///
    /// # Errors
    /// What cannot be read.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let problem = |problem: &str| SelectorError { text: text.to_owned(), problem: problem.to_owned() };
        let mut conditions = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            conditions.push(parse_condition(part).ok_or_else(|| {
                problem(&format!("`{part}` is none of key, !key, key=value, key!=value, key in (a,b), key notin (a,b)"))
            })?);
        }
        Ok(Self { conditions })
    }

    /// `matchLabels` and `matchExpressions` of a `selector`.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn of_spec(selector: &Value) -> Result<Self, SelectorError> {
        let problem = |problem: String| SelectorError { text: selector.to_string(), problem };
        let mut all = Self::equal(&super::texts(selector.get("matchLabels")));
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let key = expression
                .get("key")
                .and_then(Value::as_str)
                .ok_or_else(|| problem("an expression has no key".to_owned()))?;
            let values: Vec<String> = expression
                .get("values")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|value| Some(value.as_str()?.to_owned()))
                .collect();
            let test = match expression.get("operator").and_then(Value::as_str) {
                Some("In") => Test::In(values),
                Some("NotIn") => Test::NotIn(values),
                Some("Exists") => Test::Exists,
                Some("DoesNotExist") => Test::DoesNotExist,
                other => return Err(problem(format!("operator {other:?} is none of In, NotIn, Exists, DoesNotExist"))),
            };
            all.conditions.push(Condition { key: key.to_owned(), test });
        }
        Ok(all)
    }

    /// The same conditions on the labels of series.
    pub(crate) fn label_matches(&self) -> Vec<LabelMatch> {
        let one = |condition: &Condition| {
            let key = condition.key.as_str();
            let values = |values: &[String], is_not| LabelMatch::one_of(key, values.iter().map(String::as_str), is_not);
            match &condition.test {
                Test::In(all) => values(all, false),
                Test::NotIn(all) => values(all, true),
                Test::Exists => LabelMatch::one_of(key, [""], true),
                Test::DoesNotExist => LabelMatch::one_of(key, [""], false),
            }
        };
        self.conditions.iter().map(one).collect()
    }

    /// Whether it has no condition.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether labels meet every condition.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.conditions.iter().all(|condition| {
            let value = labels.get(&condition.key);
            match &condition.test {
                Test::In(values) => value.is_some_and(|value| values.contains(value)),
                Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Test::Exists => value.is_some(),
                Test::DoesNotExist => value.is_none(),
            }
        })
    }
}

fn parse_condition(part: &str) -> Option<Condition> {
    let key_of = |key: &str| {
        let key = key.trim();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        (!key.is_empty() && key.chars().all(is_plain)).then(|| key.to_owned())
    };
    let condition = |key: &str, test| Some(Condition { key: key_of(key)?, test });
    let list = |text: &str| {
        let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.split(',').map(|value| value.trim().to_owned()).collect::<Vec<_>>())
    };
    if let Some((key, value)) = part.split_once("!=") {
        return condition(key, Test::NotIn(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return condition(key, Test::In(vec![value.trim().to_owned()]));
    }
    if let Some((key, values)) = part
        .split_once(" notin ")
        .or_else(|| part.split_once(" notin(").map(|_| part.split_at(part.find('(').unwrap_or(0))))
    {
        return condition(key.trim_end_matches(" notin"), Test::NotIn(list(values)?));
    }
    if let Some((key, values)) =
        part.split_once(" in ").or_else(|| part.split_once(" in(").map(|_| part.split_at(part.find('(').unwrap_or(0))))
    {
        return condition(key.trim_end_matches(" in"), Test::In(list(values)?));
    }
    match part.strip_prefix('!') {
        Some(key) => condition(key, Test::DoesNotExist),
        None => condition(part, Test::Exists),
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_condition_is_read() {
        let labels: BTreeMap<String, String> =
            [("app", "a"), ("tier", "web")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        for (text, holds) in [
            ("app=a", true),
            ("app==a,tier=web", true),
            ("app!=a", false),
            ("other!=a", true),
            ("app in (a, b),tier", true),
            ("app in(b)", false),
            ("app notin (b)", true),
            ("app notin(a)", false),
            ("!app", false),
            ("!old", true),
            ("", true),
        ] {
            assert_eq!(LabelSelector::parse(text).map(|selector| selector.matches(&labels)), Ok(holds), "{text}");
        }
        assert!(LabelSelector::parse("a b").is_err());
        assert!(LabelSelector::parse("a in b").is_err());
    }

    #[test]
    fn expressions_of_a_spec_hold_with_its_labels() {
        let spec = serde_json::json!({"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]}]});
        let selector = LabelSelector::of_spec(&spec).expect("a selector");
        let labels =
            |tier: &str| BTreeMap::from([("app".to_owned(), "a".to_owned()), ("tier".to_owned(), tier.to_owned())]);
        assert!(selector.matches(&labels("web")) && !selector.matches(&labels("db")));
        assert!(
            LabelSelector::of_spec(&serde_json::json!({"matchExpressions": [{"key": "a", "operator": "Near"}]}))
                .is_err()
        );
    }
}
