//! Series with their values: `name{label="value"} 1 2+3x4 _ stale {{schema:1 count:2}}x3`.

use std::sync::Arc;

use tidemill_lang::promql::parse_series;

use super::super::histogram::{Buckets, CustomBounds, Histogram, ResetHint};
use super::super::source::STALE_NAN;
use crate::labels::Labels;

/// One value of a sequence.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Item {
    /// No sample.
    Omitted,
    /// A number.
    Float(f64),
    /// A histogram, and whether its hint was written.
    Histogram(Arc<Histogram>, bool),
}

/// How many values one item may stand for.
const MAX_REPEATS: usize = 1_000_000;

/// The labels and the values of a line.
pub(super) fn parse_line(line: &str) -> Result<(Labels, Vec<Item>), String> {
    let end = end_of_labels(line);
    let labels = parse_labels(&line[..end])?;
    Ok((labels, parse_items(&line[end..])?))
}

/// The labels of a series.
pub(super) fn parse_labels(text: &str) -> Result<Labels, String> {
    parse_series(text.trim()).map(Labels::of).map_err(|error| error.to_string())
}

/// Where the labels of a line end: at the first blank outside of braces and quotes.
pub(super) fn end_of_labels(line: &str) -> usize {
    let (mut quote, mut is_escaped, mut depth) = (None, false, 0);
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) => {
                if is_escaped {
                    is_escaped = false;
                } else if c == '\\' && open != '`' {
                    is_escaped = true;
                } else if c == open {
                    quote = None;
                }
            }
            None => match c {
                '"' | '\'' | '`' => quote = Some(c),
                '{' => depth += 1,
                '}' => depth -= 1,
                c if c.is_whitespace() && depth == 0 => return at,
                _ => {}
            },
        }
    }
    line.len()
}

fn parse_items(text: &str) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = if rest.starts_with("{{") { end_of_histograms(rest)? } else { next_blank(rest) };
        let (item, after) = rest.split_at(end);
        let values = if item.starts_with("{{") { histograms(item) } else { floats(item) };
        items.extend(values.map_err(|message| format!("{item:?}: {message}"))?);
        rest = after.trim_start();
    }
    Ok(items)
}

fn next_blank(text: &str) -> usize {
    text.find(char::is_whitespace).unwrap_or(text.len())
}

/// Where an item of histograms ends: `{{…}}`, `{{…}}x3`, `{{…}}+{{…}}x3`.
fn end_of_histograms(text: &str) -> Result<usize, String> {
    let mut at = 0;
    loop {
        let close = text[at..].find("}}").ok_or("a histogram is not closed by `}}`")? + at + 2;
        let rest = &text[close..];
        if rest.starts_with("+{{") || rest.starts_with("-{{") {
            at = close + 1;
        } else {
            return Ok(close + next_blank(rest));
        }
    }
}

fn repeats(text: &str) -> Result<usize, String> {
    let count: usize = text.parse().map_err(|_| format!("invalid repetition {text:?}"))?;
    if count > MAX_REPEATS { Err(format!("more than {MAX_REPEATS} repetitions")) } else { Ok(count) }
}

fn floats(item: &str) -> Result<Vec<Item>, String> {
    if let Some(rest) = item.strip_prefix('_') {
        let count = if rest.is_empty() { 1 } else { repeats(rest.strip_prefix('x').ok_or("expected `x`")?)? };
        return Ok(vec![Item::Omitted; count]);
    }
    let (mut value, rest) = number(item)?;
    if rest.is_empty() {
        return Ok(vec![Item::Float(value)]);
    }
    let (increment, rest) = if rest.starts_with(['+', '-']) { number(rest)? } else { (0.0, rest) };
    let count = repeats(rest.strip_prefix('x').ok_or("expected `x` and a number of repetitions")?)?;
    let mut items = Vec::with_capacity(count + 1);
    for _ in 0..=count {
        items.push(Item::Float(value));
        if !rest.is_empty() && increment != 0.0 {
            value += increment;
        }
    }
    Ok(items)
}

/// The number at the start of `text`, and what follows it.
fn number(text: &str) -> Result<(f64, &str), String> {
    let sign = usize::from(text.starts_with(['+', '-']));
    let body = &text[sign..];
    let lower = body.to_ascii_lowercase();
    let mut end = if lower.starts_with("inf") || lower.starts_with("nan") {
        3
    } else if lower.starts_with("stale") {
        return Ok((STALE_NAN, &body[5..]));
    } else {
        body.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(body.len())
    };
    let bytes = body.as_bytes();
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let signed = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let digits = body[signed..].find(|c: char| !c.is_ascii_digit()).unwrap_or(body.len() - signed);
        if digits > 0 {
            end = signed + digits;
        }
    }
    let value: f64 = text[..sign + end].parse().map_err(|_| format!("invalid number {text:?}"))?;
    Ok((value, &body[end..]))
}

fn histograms(item: &str) -> Result<Vec<Item>, String> {
    let (first, has_hint, rest) = histogram(item)?;
    let mut items = vec![Item::Histogram(Arc::new(first.clone()), has_hint)];
    if rest.is_empty() {
        return Ok(items);
    }
    if let Some(count) = rest.strip_prefix('x') {
        return Ok(vec![items.remove(0); repeats(count)? + 1]);
    }
    let is_sum = rest.starts_with('+');
    let (increment, increment_has_hint, rest) = histogram(&rest[1..])?;
    let count = repeats(rest.strip_prefix('x').ok_or("expected `x` and a number of repetitions")?)?;
    items = vec![Item::Histogram(Arc::new(first.clone()), increment_has_hint)];
    let mut value = first;
    for _ in 0..count {
        if value.schema > increment.schema {
            return Err(format!("cannot merge from schema {} to {}", increment.schema, value.schema));
        }
        let combined = if is_sum { value.add(&increment) } else { value.subtract(&increment) };
        combined.map_err(|_| "histograms of exponential and of custom buckets".to_owned())?;
        items.push(Item::Histogram(Arc::new(value.clone()), increment_has_hint));
    }
    Ok(items)
}

/// The histogram at the start of `text`, whether its hint is written, and what follows it.
fn histogram(text: &str) -> Result<(Histogram, bool, &str), String> {
    let inner = text.strip_prefix("{{").ok_or("expected `{{`")?;
    let (body, rest) = inner.split_once("}}").ok_or("a histogram is not closed by `}}`")?;
    let mut histogram = Histogram::default();
    let (mut positive, mut negative) = ((0, Vec::new()), (0, Vec::new()));
    let mut has_hint = false;
    let mut fields = body.trim_start();
    while !fields.is_empty() {
        let (key, after) = fields.split_once(':').ok_or_else(|| format!("missing `:` in {fields:?}"))?;
        let end = if after.starts_with('[') {
            after.find(']').ok_or("a list is not closed by `]`")? + 1
        } else {
            next_blank(after)
        };
        let (value, next) = after.split_at(end);
        let float =
            || number(value).and_then(|(value, rest)| if rest.is_empty() { Ok(value) } else { Err(rest.to_owned()) });
        let integer = || value.parse::<i32>().map_err(|_| format!("invalid number {value:?}"));
        match key {
            "schema" => histogram.schema = integer()?,
            "sum" => histogram.sum = float()?,
            "count" => histogram.count = float()?,
            "z_bucket" => histogram.zero_count = float()?,
            "z_bucket_w" => histogram.zero_threshold = float()?,
            "custom_values" => histogram.custom = CustomBounds::new(list(value)?),
            "buckets" => positive.1 = list(value)?,
            "offset" => positive.0 = integer()?,
            "n_buckets" => negative.1 = list(value)?,
            "n_offset" => negative.0 = integer()?,
            "counter_reset_hint" => {
                has_hint = true;
                histogram.hint = match value {
                    "unknown" => ResetHint::Unknown,
                    "reset" => ResetHint::Reset,
                    "not_reset" => ResetHint::NotReset,
                    "gauge" => ResetHint::Gauge,
                    _ => return Err(format!("unknown counter_reset_hint {value:?}")),
                };
            }
            _ => return Err(format!("bad histogram descriptor found: {key:?}")),
        }
        fields = next.trim_start();
    }
    histogram.positive = Buckets::run(positive.0, positive.1);
    histogram.negative = Buckets::run(negative.0, negative.1);
    Ok((histogram, has_hint, rest))
}

fn list(text: &str) -> Result<Vec<f64>, String> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).ok_or("expected a list in brackets")?;
    inner
        .split_whitespace()
        .map(|item| match number(item)? {
            (value, "") => Ok(value),
            (_, rest) => Err(format!("unexpected {rest:?}")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<Option<f64>> {
        let items = parse_items(text).unwrap_or_else(|message| panic!("{text}: {message}"));
        items.iter().map(|item| if let Item::Float(value) = item { Some(*value) } else { None }).collect()
    }

    #[test]
    fn sequences_are_expanded() {
        assert_eq!(values("1 -2 1e3 1.5e-1"), [Some(1.0), Some(-2.0), Some(1000.0), Some(0.15)]);
        assert_eq!(
            values("1+2x2 5-1x1 _ _x2"),
            [Some(1.0), Some(3.0), Some(5.0), Some(5.0), Some(4.0), None, None, None]
        );
        assert_eq!(values("7x1 Inf -inf"), [Some(7.0), Some(7.0), Some(f64::INFINITY), Some(f64::NEG_INFINITY)]);
        assert!(values("stale")[0].is_some_and(crate::promql::is_stale));
        assert!(parse_items("1y").is_err() && parse_items("1x").is_err() && parse_items("1x9999999999").is_err());
    }

    #[test]
    fn histograms_are_built_and_summed() {
        let items = parse_items(
            "{{schema:1 count:3 sum:-2 buckets:[1 2] offset:-1 counter_reset_hint:gauge}}x1 {{}}+{{count:1}}x2",
        );
        let items = items.expect("well written");
        assert_eq!(items.len(), 5);
        let Item::Histogram(first, true) = &items[0] else { panic!("{items:?}") };
        assert_eq!((first.schema, first.sum, first.hint), (1, -2.0, ResetHint::Gauge));
        assert_eq!(first.positive, Buckets::run(-1, vec![1.0, 2.0]));
        let Item::Histogram(last, false) = &items[4] else { panic!("{items:?}") };
        assert_eq!(last.count, 2.0);
        assert!(parse_items("{{count:1").is_err() && parse_items("{{size:1}}").is_err());
    }

    #[test]
    fn labels_may_hold_blanks() {
        let (labels, items) = parse_line("a{b=\"c d\", e='}'} 1").expect("well written");
        assert_eq!((labels.to_string(), items.len()), ("a{b=\"c d\", e=\"}\"}".to_owned(), 1));
    }
}
