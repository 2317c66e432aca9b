//! Parameters of requests: times, durations, numbers, refused by name.

use std::collections::HashMap;

use super::{TempoError, TempoResult};

/// The parameters of a request by name; of a name that is there twice, the last.
#[derive(Debug, Default)]
pub(super) struct Params(HashMap<String, String>);

const SECOND_NS: i64 = 1_000_000_000;

impl Params {
    pub(super) fn new(pairs: Vec<(String, String)>) -> Self {
        Self(pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A point in time, in nanoseconds: seconds, with a fraction or not, nanoseconds, or RFC 3339.
    pub(super) fn time_ns(&self, name: &str) -> TempoResult<Option<i64>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = || {
            TempoError::invalid(format!(
                "invalid {name}: {text:?} is no time: write seconds or nanoseconds since 1970, or RFC 3339"
            ))
        };
        if let Ok(number) = text.parse::<i64>() {
            // As many digits as no second of these centuries has.
            let is_ns = text.trim_start_matches('-').len() > 12;
            let scale = if is_ns { 1 } else { SECOND_NS };
            return number.checked_mul(scale).map(Some).ok_or_else(wrong);
        }
        if let Ok(seconds) = text.parse::<f64>() {
            let ns = seconds * 1e9;
            return if ns.is_finite() && ns.abs() < 9e18 { Ok(Some(ns as i64)) } else { Err(wrong()) };
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
        i64::try_from(time.as_nanosecond()).map(Some).map_err(|_| wrong())
    }

    /// The range of time, in nanoseconds; 0 is no bound.
    pub(super) fn range_ns(&self) -> TempoResult<(Option<i64>, Option<i64>)> {
        let bound = |name| self.time_ns(name).map(|time| time.filter(|time| *time != 0));
        let (start, end) = (bound("start")?, bound("end")?);
        if let (Some(from), Some(until)) = (start, end)
            && from > until
        {
            let told = |name| self.text(name).unwrap_or_default();
            return Err(TempoError::invalid(format!(
                "http parameter start must be before end. received start={} end={}",
                told("start"),
                told("end")
            )));
        }
        Ok((start, end))
    }

    /// A length of time, in nanoseconds.
    pub(super) fn duration_ns(&self, name: &str) -> TempoResult<Option<i64>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = || format!("invalid {name}: {text:?} is no duration: write as 100ms, 30s, 1h30m");
        parse_go_duration(text).map(Some).ok_or_else(|| TempoError::invalid(wrong()))
    }

    /// A count.
    pub(super) fn count(&self, name: &str) -> TempoResult<Option<usize>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = || format!("invalid {name}: {text:?} is no whole number of 0 or more");
        text.parse().map(Some).map_err(|_| TempoError::invalid(wrong()))
    }
}

/// `1h30m`, `1.5s`, `100ms`; a bare number are seconds.
fn parse_go_duration(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        let ns = seconds * 1e9;
        return (ns.is_finite() && ns.abs() < 9e18).then_some(ns as i64);
    }
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3_600e9,
            "d" => 86_400e9,
            _ => return None,
        };
        total += number * scale;
        rest = &rest[unit..];
    }
    (total.is_finite() && total < 9e18 && !text.is_empty()).then_some((sign * total) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn times_are_seconds_or_nanoseconds() {
        let of = |text| params(&[("start", text)]).time_ns("start").ok().flatten();
        assert_eq!(of("1795176000"), Some(1_795_176_000_000_000_000));
        assert_eq!(of("1795176000000000000"), Some(1_795_176_000_000_000_000));
        assert_eq!(of("1.5"), Some(1_500_000_000));
        assert_eq!(of("2026-11-20T12:00:00Z"), Some(1_795_176_000_000_000_000));
        for wrong in ["x", "9999999999999999999999", "999999999999", "inf", "1h"] {
            assert!(params(&[("start", wrong)]).time_ns("start").is_err(), "{wrong}");
        }
        assert!(params(&[("start", "2"), ("end", "1")]).range_ns().is_err());
    }

    #[test]
    fn durations_are_as_go_writes_them() {
        for (text, ns) in [
            ("5m", 300_000_000_000),
            ("1h0m0.5s", 3_600_500_000_000),
            ("15", 15_000_000_000),
            ("-5m", -300_000_000_000),
        ] {
            assert_eq!(parse_go_duration(text), Some(ns), "{text}");
        }
        for wrong in ["soon", "5x", "m", "1e400s", "99999999999999h"] {
            assert_eq!(parse_go_duration(wrong), None, "{wrong}");
        }
    }
}
