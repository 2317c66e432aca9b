//! What a LogQL query tells the scan: conditions that every record meets which the query takes.
//!
//! Anything that cannot be told exactly is left out, so that the scan gives a superset; the evaluator checks every record again.

use std::collections::BTreeSet;

use tidemill_lang::logql::ast::{
    LabelFilter, LineFilter, LineMatch, LineOperator, LogQuery, MatchOperator, Matcher, StageKind,
};
use tidemill_lang::logql::pattern::PatternPart;
use tidemill_segment::read::AttributeScope;

use super::labels::{DETECTED_LEVEL, INDEX_LABELS, SERVICE_NAME, UNKNOWN_SERVICE, label_name, numbers_of_levels};
use super::scan::Condition;
use crate::attributes::AttributeKey;

/// More alternatives of a pattern are not looked up one by one.
const MOST_VALUES: usize = 64;

/// What the records of `query` meet.
pub(super) fn of_query(query: &LogQuery) -> Condition {
    let mut all = of_matchers(&query.matchers);
    let mut are_labels_stored = true;
    for stage in &query.stages {
        match &stage.kind {
            StageKind::LineFilter(filter) => all.extend(of_line_filter(filter)),
            StageKind::LabelFilter(filter) if are_labels_stored => all.extend(of_label_filter(filter)),
            StageKind::LabelFormat(_) | StageKind::Drop(_) | StageKind::Keep(_) => are_labels_stored = false,
            // From here on lines are others than those that are stored.
            StageKind::LineFormat(_) | StageKind::Unpack => break,
            _ => {}
        }
    }
    Condition::All(all)
}

/// What the records of a selector meet.
pub(super) fn of_matchers(matchers: &[Matcher]) -> Vec<Condition> {
    matchers.iter().filter_map(of_matcher).collect()
}

/// The services of which alone records can meet one of the selectors; `None` for any.
pub(super) fn services_of<'m>(selectors: impl IntoIterator<Item = &'m [Matcher]>) -> Option<BTreeSet<String>> {
    let mut services = BTreeSet::new();
    for matchers in selectors {
        let own = of_matchers(matchers).into_iter().find_map(|condition| match condition {
            Condition::ColumnIn("service_name", values) => Some(values),
            _ => None,
        });
        services.extend(own?);
    }
    Some(services)
}

fn of_matcher(matcher: &Matcher) -> Option<Condition> {
    let values = match matcher.operator {
        MatchOperator::Equal => vec![matcher.value.clone()],
        MatchOperator::Matches => alternatives(&matcher.value)?,
        MatchOperator::NotEqual | MatchOperator::MatchesNot => return None,
    };
    // An empty text is met by records without the label.
    if values.is_empty() || values.iter().any(String::is_empty) {
        return None;
    }
    if matcher.name == SERVICE_NAME {
        let is_known = values.iter().all(|value| value != UNKNOWN_SERVICE);
        return is_known.then_some(Condition::ColumnIn("service_name", values));
    }
    let promoted = INDEX_LABELS.iter().filter(|key| label_name(key) == matcher.name).map(|key| (*key).to_owned());
    let keys = promoted.chain([matcher.name.clone()]);
    let attribute = |key| AttributeKey { scope: AttributeScope::Resource, key };
    let any: Vec<Condition> = keys.map(|key| Condition::AttributeIn(attribute(key), values.clone())).collect();
    Some(Condition::Any(any))
}

/// Levels are told by severity numbers; the values of other labels may come out of lines.
fn of_label_filter(filter: &LabelFilter) -> Option<Condition> {
    match filter {
        LabelFilter::And(one, other) => {
            let all: Vec<Condition> = [one, other].into_iter().filter_map(|part| of_label_filter(part)).collect();
            (!all.is_empty()).then_some(Condition::All(all))
        }
        LabelFilter::Or(one, other) => Some(Condition::Any(vec![of_label_filter(one)?, of_label_filter(other)?])),
        LabelFilter::Text(matcher) if matcher.name == DETECTED_LEVEL => {
            let levels = match matcher.operator {
                MatchOperator::Equal => vec![matcher.value.clone()],
                MatchOperator::Matches => alternatives(&matcher.value)?,
                MatchOperator::NotEqual | MatchOperator::MatchesNot => return None,
            };
            let is_known = !levels.iter().any(String::is_empty);
            is_known.then(|| Condition::LevelIn(numbers_of_levels(&levels)))
        }
        _ => None,
    }
}

/// The texts that a pattern of plain alternatives stands for, as `a|b\.c`.
fn alternatives(pattern: &str) -> Option<Vec<String>> {
    let mut values = vec![String::new()];
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        let last = values.last_mut()?;
        match letter {
            '|' => values.push(String::new()),
            '\\' => match letters.next() {
                Some(escaped) if escaped.is_ascii_punctuation() => last.push(escaped),
                _ => return None,
            },
            '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
            plain => last.push(plain),
        }
    }
    (values.len() <= MOST_VALUES).then_some(values)
}

fn of_line_filter(filter: &LineFilter) -> Option<Condition> {
    let any: Option<Vec<Condition>> = filter
        .alternatives
        .iter()
        .map(|alternative| match (filter.operator, alternative) {
            (LineOperator::Contains, LineMatch::Text(text)) => contains(text),
            (LineOperator::Matches, LineMatch::Text(pattern)) => {
                let any: Option<Vec<Condition>> = alternatives(pattern)?.iter().map(|text| contains(text)).collect();
                any.map(Condition::Any)
            }
            (LineOperator::Pattern, LineMatch::Pattern(pattern)) => {
                let literals = pattern.parts.iter().filter_map(|part| match part {
                    PatternPart::Literal(text) => contains(text),
                    PatternPart::Capture(_) => None,
                });
                let all: Vec<Condition> = literals.collect();
                (!all.is_empty()).then_some(Condition::All(all))
            }
            _ => None,
        })
        .collect();
    any.map(Condition::Any)
}

fn contains(text: &str) -> Option<Condition> {
    (!text.is_empty()).then(|| Condition::BodyContains(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use tidemill_lang::logql::ast::Query;
    use tidemill_lang::logql::parse;

    use super::*;

    fn condition(text: &str) -> Condition {
        match parse(text).expect("a query") {
            Query::Log(query) => of_query(&query),
            Query::Metric(_) => panic!("{text} asks for numbers"),
        }
    }

    fn contained(text: &str) -> Condition {
        Condition::Any(vec![Condition::BodyContains(text.to_owned())])
    }

    #[test]
    fn only_what_every_line_meets_is_told() {
        let service = |name: &str| Condition::ColumnIn("service_name", vec![name.to_owned()]);
        assert_eq!(
            condition(r#"{service_name="api"} |= "a" != "b" | json | x="y" |= "c" | line_format "z" |= "d""#),
            Condition::All(vec![service("api"), contained("a"), contained("c")])
        );
        assert_eq!(condition(r#"{service_name="unknown_service", a!="b"}"#), Condition::All(vec![]));
        assert_eq!(condition(r#"{service_name=~".+"} |~ "a.c""#), Condition::All(vec![]));
        assert_eq!(condition(r#"{service_name="api"} |= "a" or """#), Condition::All(vec![service("api")]));
    }

    #[test]
    fn levels_are_told_by_their_numbers() {
        let level = |ranges: &[std::ops::RangeInclusive<i32>]| Condition::LevelIn(ranges.to_vec());
        let all = |parts: Vec<Condition>| Condition::All(parts);
        assert_eq!(
            condition(r#"{a=~".+"} | json | detected_level=~"error|fatal" and x="y""#),
            all(vec![all(vec![level(&[17..=20, 21..=24])])])
        );
        assert_eq!(condition(r#"{a=~".+"} | detected_level="critical""#), all(vec![level(&[])]));
        for any in [
            r#"{a=~".+"} | detected_level!="error""#,
            r#"{a=~".+"} | detected_level=~"e.*""#,
            r#"{a=~".+"} | detected_level="error" or x="y""#,
            r#"{a=~".+"} | label_format detected_level=x | detected_level="error""#,
            r#"{a=~".+"} | detected_level="""#,
        ] {
            assert_eq!(condition(any), all(vec![]), "{any}");
        }
    }

    #[test]
    fn alternatives_are_values() {
        assert_eq!(alternatives(r"a|b\.c"), Some(vec!["a".to_owned(), "b.c".to_owned()]));
        assert_eq!(alternatives("a.c"), None);
        assert_eq!(alternatives(r"\d"), None);
        let Condition::All(parts) = condition(r#"{k8s_pod_name=~"p-1|p-2"}"#) else { panic!("all") };
        let [Condition::Any(keys)] = parts.as_slice() else { panic!("one matcher") };
        assert_eq!(keys.len(), 2, "{keys:?}");
    }
}
