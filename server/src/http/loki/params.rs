//! Parameters of requests: of the query string, and of a form in the body.

use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse as _, Response};
use http::{Method, header};
use tidemill_eval::logql::Direction;
use tidemill_lake::clock::{Clock as _, SystemClock};
use tidemill_lang::logql::ast::Matcher;
use tidemill_lang::logql::parse_matchers;
use tidemill_types::{TimeRange, TimestampNs};

use super::answer::Refusal;
use crate::http::arguments::{RawBody, form_pairs};

const NANOS: f64 = 1e9;
/// Lines of an answer where nothing is said.
const DEFAULT_LINES: usize = 100;
/// A range of time where nothing is said.
const DEFAULT_SINCE_NS: i64 = 3_600_000_000_000;
/// A range of time for labels where nothing is said.
const DEFAULT_LABELS_SINCE_NS: i64 = 6 * 3_600_000_000_000;

/// The parameters of a request, in their order.
#[derive(Debug, Default)]
pub(super) struct Params {
    pairs: Vec<(String, String)>,
    /// Whether every line tells which of its labels are structured metadata and which were parsed.
    pub(super) categorizes_labels: bool,
    /// When the request came.
    pub(super) now_ns: i64,
}

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let flags = request.headers().get_all("x-loki-response-encoding-flags").iter();
        let mut flags = flags.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        let categorizes_labels = flags.any(|flag| flag.trim() == "categorize-labels");
        let mut pairs = form_pairs(request.uri().query().unwrap_or_default());
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_form = kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        if request.method() == Method::POST && is_form {
            let RawBody(body) =
                RawBody::from_request(request, state).await.map_err(|error| Refusal::of(&error).into_response())?;
            let text = std::str::from_utf8(&body)
                .map_err(|_| Refusal::invalid("the form is no text in UTF-8").into_response())?;
            pairs.extend(form_pairs(text));
        }
        Ok(Self { pairs, categorizes_labels, now_ns: SystemClock.now().0 })
    }
}

impl Params {
    /// Parameters of no request.
    pub(super) fn of(pairs: Vec<(String, String)>) -> Self {
        Self { pairs, categorizes_labels: true, now_ns: SystemClock.now().0 }
    }

    /// The value of a parameter that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(own, value)| own == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The text of the query; empty where there is none, which no language takes.
    pub(super) fn query(&self) -> &str {
        self.get("query").unwrap_or_default()
    }

    /// A time; `None` where it is not given.
    pub(super) fn time(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let wrong = || Refusal::invalid(format!("could not parse '{name}' parameter: {text:?} is no time"));
        parse_time(text).map(Some).ok_or_else(wrong)
    }

    /// Nanoseconds from a number of seconds or a duration.
    pub(super) fn duration(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let wrong = || Refusal::invalid(format!("could not parse '{name}' parameter: {text:?} is no duration"));
        parse_duration(text).map(Some).ok_or_else(wrong)
    }

    /// From `start` to `end`, of `since` before the end where there is no start.
    pub(super) fn range(&self) -> Result<(i64, i64), Refusal> {
        self.range_since(DEFAULT_SINCE_NS)
    }

    /// As [`Self::range`], for labels, whose end counts.
    pub(super) fn labels_range(&self) -> Result<TimeRange, Refusal> {
        let (start, end) = self.range_since(DEFAULT_LABELS_SINCE_NS)?;
        Ok(TimeRange { start: TimestampNs(start), end: TimestampNs(end.saturating_add(1)) })
    }

    fn range_since(&self, default_ns: i64) -> Result<(i64, i64), Refusal> {
        let end = self.time("end")?.unwrap_or(self.now_ns);
        let since = self.duration("since")?.unwrap_or(default_ns);
        let start = self.time("start")?.unwrap_or_else(|| end.min(self.now_ns).saturating_sub(since));
        if end < start {
            return Err(Refusal::invalid("end timestamp must not be before or equal to start time"));
        }
        Ok((start, end))
    }

    /// How many lines are asked for, if it is said; queries of numbers take any.
    pub(super) fn limit(&self) -> Result<Option<usize>, Refusal> {
        let Some(text) = self.get("limit") else { return Ok(None) };
        let limit: i64 = text.parse().map_err(|_| Refusal::invalid(format!("limit {text:?} is no number")))?;
        match usize::try_from(limit) {
            Err(_) | Ok(0) => Err(Refusal::invalid("limit must be a positive value")),
            Ok(limit) => Ok(Some(limit)),
        }
    }

    /// How many lines are asked for; no more than `most`.
    pub(super) fn lines(&self, most: usize) -> Result<usize, Refusal> {
        match self.limit()? {
            None => Ok(DEFAULT_LINES.min(most)),
            Some(limit) if limit > most => Err(Refusal::invalid(format!(
                "max entries limit per query exceeded, limit > max_entries_limit_per_query ({limit} > {most}); ask for fewer, or raise \
                 logql.max_lines"
            ))),
            Some(limit) => Ok(limit),
        }
    }

    /// Newest first where nothing is said.
    pub(super) fn direction(&self) -> Result<Direction, Refusal> {
        match self.get("direction").map(str::to_ascii_lowercase).as_deref() {
            None | Some("backward") => Ok(Direction::Backward),
            Some("forward") => Ok(Direction::Forward),
            Some(other) => Err(Refusal::invalid(format!("invalid direction {other:?}; forward or backward"))),
        }
    }

    /// The step of a range of numbers; about 250 of them where nothing is said.
    pub(super) fn step(&self, start: i64, end: i64) -> Result<i64, Refusal> {
        let default = ((end - start) / 1_000_000_000 / 250).max(1) * 1_000_000_000;
        match self.duration("step")?.unwrap_or(default) {
            step if step > 0 => Ok(step),
            _ => Err(Refusal::invalid(
                "zero or negative query resolution step widths are not accepted. Try a positive integer",
            )),
        }
    }

    /// The selector in `query`, which must be there.
    pub(super) fn selector(&self) -> Result<Vec<Matcher>, Refusal> {
        Ok(parse_matchers(self.query())?)
    }

    /// The selector in `query`, where there is one.
    pub(super) fn optional_selector(&self) -> Result<Vec<Vec<Matcher>>, Refusal> {
        self.get("query").map(|text| Ok(parse_matchers(text)?)).into_iter().collect()
    }
}

/// Nanoseconds; seconds with a fraction or of up to ten digits; RFC 3339.
fn parse_time(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse::<i64>() {
        return if text.len() > 10 { Some(number) } else { number.checked_mul(1_000_000_000) };
    }
    if let Ok(seconds) = text.parse::<f64>() {
        // No finer than milliseconds, which a number of seconds tells exactly.
        let millis = (seconds * 1e3).round();
        return (millis.abs() < i64::MAX as f64 / 1e6).then(|| millis as i64 * 1_000_000);
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

/// Seconds, or a duration as `1h30m`.
fn parse_duration(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        let nanos = seconds * NANOS;
        return (nanos.abs() < i64::MAX as f64).then_some(nanos as i64);
    }
    let mut total: i64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, behind) = rest.split_at(digits);
        let unit = behind.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(behind.len());
        let nanos = match &behind[..unit] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => NANOS,
            "m" => 60.0 * NANOS,
            "h" => 3_600.0 * NANOS,
            "d" => 86_400.0 * NANOS,
            "w" => 7.0 * 86_400.0 * NANOS,
            "y" => 365.0 * 86_400.0 * NANOS,
            _ => return None,
        };
        let part = number.parse::<f64>().ok()? * nanos;
        total = total.checked_add((part < i64::MAX as f64).then_some(part as i64)?)?;
        rest = &behind[unit..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Params { pairs, categorizes_labels: false, now_ns: 10_000_000_000_000_000 }
    }

    #[test]
    fn times_are_read_as_loki_reads_them() {
        assert_eq!(parse_time("1748736000"), Some(1_748_736_000_000_000_000));
        assert_eq!(parse_time("1748736000000000000"), Some(1_748_736_000_000_000_000));
        assert_eq!(parse_time("1.5"), Some(1_500_000_000));
        assert_eq!(parse_time("2025-06-01T00:00:00Z"), Some(1_748_736_000_000_000_000));
        assert_eq!([parse_time("abc"), parse_time("1e300"), parse_time("")], [None; 3]);
        assert_eq!(parse_duration("1h30m"), Some(5_400_000_000_000));
        assert_eq!(parse_duration("0.5"), Some(500_000_000));
        assert_eq!(parse_duration("1.5s"), Some(1_500_000_000));
        assert_eq!([parse_duration("5x"), parse_duration("h"), parse_duration("99999999y")], [None; 3]);
    }

    #[test]
    fn bounds_of_parameters_are_told() {
        let told = |refused: Result<usize, Refusal>| refused.expect_err("refused").message().to_owned();
        assert!(told(params(&[("limit", "5001")]).lines(5_000)).contains("5001 > 5000"));
        assert!(told(params(&[("limit", "0")]).lines(5_000)).contains("positive"));
        assert!(told(params(&[("limit", "x")]).lines(5_000)).contains("no number"));
        assert_eq!(params(&[]).lines(5_000).ok(), Some(100));
        assert!(params(&[("start", "2"), ("end", "1")]).range().is_err());
        assert!(params(&[("step", "0")]).step(0, 1).is_err() && params(&[("step", "-5m")]).step(0, 1).is_err());
        assert!(params(&[("direction", "up")]).direction().is_err());
        let (start, end) = params(&[("since", "10s")]).range().expect("a range");
        assert_eq!(end - start, 10_000_000_000);
    }
}
