//! Filters of lines and labels, ready to run.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use memchr::memmem::Finder;
use regex::Regex;
use tidemill_lang::WholePattern;
use tidemill_lang::go_regex::{compile_regex, whole_pattern};
use tidemill_lang::logql::AddressRange;
use tidemill_lang::logql::ast::{
    Comparison, LabelFilter, LineFilter, LineMatch, LineOperator, MatchOperator, Matcher, Quantity,
};
use tidemill_lang::logql::pattern::{Pattern, PatternPart};

use super::bytes_text::{parse_bytes, parse_duration_ns};
use super::labels::RowLabels;
use crate::error::{Error, Result};

/// A condition on a text.
#[derive(Debug, Clone)]
pub(super) enum TextTest {
    Equal(String),
    NotEqual(String),
    Matches(WholePattern),
    MatchesNot(WholePattern),
}

impl TextTest {
    pub fn new(matcher: &Matcher) -> Result<Self> {
        let pattern = || whole_pattern(&matcher.value).map_err(Error::Data);
        Ok(match matcher.operator {
            MatchOperator::Equal => Self::Equal(matcher.value.clone()),
            MatchOperator::NotEqual => Self::NotEqual(matcher.value.clone()),
            MatchOperator::Matches => Self::Matches(pattern()?),
            MatchOperator::MatchesNot => Self::MatchesNot(pattern()?),
        })
    }

    pub fn meets(&self, value: &str) -> bool {
        match self {
            Self::Equal(own) => own == value,
            Self::NotEqual(own) => own != value,
            Self::Matches(regex) => regex.is_match(value),
            Self::MatchesNot(regex) => !regex.is_match(value),
        }
    }
}

/// A line filter.
#[derive(Debug)]
pub(super) struct LineTest {
    is_negated: bool,
    alternatives: Vec<LineCondition>,
}

#[derive(Debug)]
enum LineCondition {
    Contains(Box<Finder<'static>>),
    Matches(Regex),
    Pattern(Pattern),
    Address(AddressRange),
}

impl LineTest {
    pub fn new(filter: &LineFilter) -> Result<Self> {
        let is_regex = matches!(filter.operator, LineOperator::Matches | LineOperator::MatchesNot);
        let alternatives = filter.alternatives.iter().map(|alternative| {
            Ok(match alternative {
                LineMatch::Text(text) if is_regex => LineCondition::Matches(compile_regex(text).map_err(Error::Data)?),
                LineMatch::Text(text) => LineCondition::Contains(Box::new(Finder::new(text.as_bytes()).into_owned())),
                LineMatch::Pattern(pattern) => LineCondition::Pattern(pattern.clone()),
                LineMatch::Address(range) => LineCondition::Address(range.clone()),
            })
        });
        Ok(Self { is_negated: filter.operator.is_negated(), alternatives: alternatives.collect::<Result<_>>()? })
    }

    pub fn keeps(&self, line: &str) -> bool {
        let fits = self.alternatives.iter().any(|condition| match condition {
            LineCondition::Contains(finder) => finder.find(line.as_bytes()).is_some(),
            LineCondition::Matches(regex) => regex.is_match(line),
            LineCondition::Pattern(pattern) => fits_pattern(pattern, line),
            LineCondition::Address(range) => holds_address(range, line),
        });
        fits != self.is_negated
    }
}

/// Whether the whole line fits the pattern; a capture stands for any text, an empty one too.
fn fits_pattern(pattern: &Pattern, line: &str) -> bool {
    let mut rest = line;
    let mut after_capture = false;
    for (index, part) in pattern.parts.iter().enumerate() {
        let PatternPart::Literal(literal) = part else {
            after_capture = true;
            continue;
        };
        let is_last = index + 1 == pattern.parts.len();
        let at = match (after_capture, is_last) {
            (false, _) => rest.starts_with(literal.as_str()).then_some(0),
            (true, true) => return rest.ends_with(literal.as_str()),
            (true, false) => rest.find(literal.as_str()),
        };
        let Some(at) = at else { return false };
        rest = &rest[at + literal.len()..];
        after_capture = false;
    }
    after_capture || rest.is_empty()
}

/// Whether the text holds an address of the range.
pub(super) fn holds_address(range: &AddressRange, text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_part = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.';
    let mut at = 0;
    while at < bytes.len() {
        if !is_part(bytes[at]) {
            at += 1;
            continue;
        }
        let end = bytes[at..].iter().position(|byte| !is_part(*byte)).map_or(bytes.len(), |length| at + length);
        if run_holds(range, &text[at..end]) {
            return true;
        }
        at = end;
    }
    false
}

/// Whether a run of hexadecimal digits, colons and dots is or begins with an address of the range.
fn run_holds(range: &AddressRange, run: &str) -> bool {
    if !range.is_ipv4() {
        let whole = run.trim_end_matches(['.', ':']);
        return [run, whole]
            .iter()
            .any(|text| text.parse::<Ipv6Addr>().is_ok_and(|own| range.contains(IpAddr::V6(own))));
    }
    run.split(|c: char| !c.is_ascii_digit() && c != '.').any(|part| {
        let part = part.trim_matches('.');
        part.parse::<Ipv4Addr>().is_ok_and(|own| range.contains(IpAddr::V4(own)))
    })
}

/// A label filter.
#[derive(Debug)]
pub(super) enum LabelTest {
    And(Box<LabelTest>, Box<LabelTest>),
    Or(Box<LabelTest>, Box<LabelTest>),
    Text(String, TextTest),
    Quantity(String, Comparison, Quantity),
    Address(String, bool, AddressRange),
}

const LABEL_FILTER_ERROR: &str = "LabelFilterErr";

impl LabelTest {
    pub fn new(filter: &LabelFilter) -> Result<Self> {
        Ok(match filter {
            LabelFilter::And(left, right) => Self::And(Box::new(Self::new(left)?), Box::new(Self::new(right)?)),
            LabelFilter::Or(left, right) => Self::Or(Box::new(Self::new(left)?), Box::new(Self::new(right)?)),
            LabelFilter::Text(matcher) => Self::Text(matcher.name.clone(), TextTest::new(matcher)?),
            LabelFilter::Quantity { label, operator, quantity } => Self::Quantity(label.clone(), *operator, *quantity),
            LabelFilter::Address { label, is_negated, range } => {
                Self::Address(label.clone(), *is_negated, range.clone())
            }
        })
    }

    /// Whether the line stays. A value that cannot be read marks the line, which then stays; of a marked line only texts are asked.
    pub fn keeps(&self, labels: &mut RowLabels<'_>) -> bool {
        match self {
            Self::And(left, right) => left.keeps(labels) && right.keeps(labels),
            Self::Or(left, right) => left.keeps(labels) || right.keeps(labels),
            Self::Text(label, test) => test.meets(labels.get_or_dropped(label).unwrap_or_default()),
            _ if labels.error().is_some() => true,
            Self::Quantity(label, operator, quantity) => {
                let Some(text) = labels.get_or_dropped(label).filter(|text| !text.is_empty()) else { return false };
                let (value, wanted) = match quantity {
                    Quantity::Number(wanted) => (text.parse().ok(), *wanted),
                    Quantity::Duration(wanted) => (parse_duration_ns(text), *wanted as f64),
                    Quantity::Bytes(wanted) => (parse_bytes(text), wanted.trunc()),
                };
                match value {
                    Some(value) => operator.holds(value, wanted),
                    None => {
                        let details = format!("{text:?} cannot be compared as a {}", quantity_name(quantity));
                        labels.set_error(LABEL_FILTER_ERROR, details);
                        true
                    }
                }
            }
            Self::Address(label, is_negated, range) => match labels.get_or_dropped(label) {
                Some(text) => holds_address(range, text) != *is_negated,
                None => false,
            },
        }
    }
}

fn quantity_name(quantity: &Quantity) -> &'static str {
    match quantity {
        Quantity::Number(_) => "number",
        Quantity::Duration(_) => "duration",
        Quantity::Bytes(_) => "size",
    }
}

#[cfg(test)]
mod tests {
    use tidemill_lang::logql::pattern::parse_line_pattern;

    use super::*;

    #[test]
    fn patterns_fit_whole_lines() {
        let fits = |pattern: &str, line: &str| fits_pattern(&parse_line_pattern(pattern).expect("a pattern"), line);
        assert!(fits("<_> job <_> done", "INFO job 5 done") && !fits("<_> job <_> done", "INFO job 5 done."));
        assert!(!fits("INFO job", "INFO job 5") && fits("INFO job<_>", "INFO job 5") && fits("", ""));
        assert!(fits("a<_>b", "a b c b") && !fits("a<_>b", "ab c"));
    }

    #[test]
    fn addresses_are_found_inside_lines() {
        let holds = |range: &str, text: &str| holds_address(&AddressRange::parse(range).expect("a range"), text);
        assert!(holds("10.0.0.0/8", "accept 10.0.0.17:1378 -> x") && holds("2001:db8::/32", "[2001:db8::1] ok"));
        assert!(holds("2001:db8::/32", "real 2001:db8:a:b::19;") && !holds("10.0.0.0/8", "no address here 0.2"));
        assert!(!holds("0.0.0.0/0", "peer 999.1.1.1 invalid"));
    }
}
