//! Parameters from the query string and from a form in the body, with Prometheus's spelling of times and durations.

use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header;
use tidemill_eval::Matcher;
use tidemill_eval::promql::selector_of;
use tidemill_lake::clock::{Clock as _, SystemClock};

use super::answer::Refusal;
use crate::http::arguments::form_pairs;

/// The most selectors of one question.
const MOST_SELECTORS: usize = 256;
/// The times that are written when none is meant: as far as Prometheus's own.
const EARLIEST_MS: i64 = -9_000_000_000_000;
const LATEST_MS: i64 = 9_000_000_000_000;

/// The parameters of a question, in their order; one name may occur several times.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Parameters {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let mut all = form_pairs(request.uri().query().unwrap_or_default());
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let is_form = kind.starts_with("application/x-www-form-urlencoded");
        if request.method() == http::Method::POST && is_form {
            let body = Bytes::from_request(request, state)
                .await
                .map_err(|error| Refusal::bad_data(format!("the body: {}", error.body_text())).into_response())?;
            let text = std::str::from_utf8(&body)
                .map_err(|_| Refusal::bad_data("the body is no text in UTF-8").into_response())?;
            let mut of_body = form_pairs(text);
            // As in Prometheus what the body says comes first.
            of_body.append(&mut all);
            all = of_body;
        }
        Ok(Self(all))
    }
}

impl Parameters {
    /// The first value of a name; an empty one counts as none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn query(&self) -> Result<&str, Refusal> {
        self.get("query")
            .ok_or_else(|| Refusal::parameter("query", "unknown position: parse error: no expression found in input"))
    }

    /// A time, in milliseconds since 1970.
    pub(super) fn time(&self, name: &str) -> Result<Option<i64>, Refusal> {
        self.get(name).map(|text| parse_time(text).map_err(|problem| Refusal::parameter(name, problem))).transpose()
    }

    /// A length of time in milliseconds.
    pub(super) fn duration(&self, name: &str) -> Result<Option<i64>, Refusal> {
        self.get(name).map(|text| parse_duration(text).map_err(|problem| Refusal::parameter(name, problem))).transpose()
    }

    /// How many results are wanted at most; 0 for all.
    pub(super) fn limit(&self) -> Result<usize, Refusal> {
        let Some(text) = self.get("limit") else { return Ok(0) };
        text.parse().map_err(|_| Refusal::parameter("limit", "limit must be non-negative"))
    }

    /// The selectors `match[]`.
    pub(super) fn selectors(&self) -> Result<Vec<Vec<Matcher>>, Refusal> {
        let texts = self.0.iter().filter(|(name, _)| name == "match[]").map(|(_, text)| text);
        if texts.clone().count() > MOST_SELECTORS {
            return Err(Refusal::parameter("match[]", format!("more than {MOST_SELECTORS} selectors")));
        }
        texts
            .map(|text| {
                let matchers = selector_of(text).map_err(|error| Refusal::parameter("match[]", error))?;
                if matchers.iter().all(|matcher| matcher.meets("")) {
                    return Err(Refusal::parameter("match[]", "match[] must contain at least one non-empty matcher"));
                }
                Ok(matchers)
            })
            .collect()
    }

    /// `start` and `end`, each as far as time goes where it is not given.
    pub(super) fn times(&self) -> Result<(i64, i64), Refusal> {
        let start = self.time("start")?.unwrap_or(EARLIEST_MS);
        let end = self.time("end")?.unwrap_or(LATEST_MS);
        if end < start {
            return Err(Refusal::parameter("end", "end timestamp must not be before start time"));
        }
        Ok((start, end))
    }
}

/// The time now, in milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    SystemClock.now().0.div_euclid(1_000_000)
}

fn parse_time(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<f64>()
        && seconds.is_finite()
    {
        return Ok((seconds * 1e3).round() as i64);
    }
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(time.as_millisecond()),
        Err(_) => Err(format!("cannot parse {text:?} to a valid timestamp")),
    }
}

fn parse_duration(text: &str) -> Result<i64, String> {
    let wrong = || format!("cannot parse {text:?} to a valid duration");
    if let Ok(seconds) = text.parse::<f64>() {
        let milliseconds = seconds * 1e3;
        return if milliseconds.abs() < 9e15 { Ok(milliseconds as i64) } else { Err(wrong()) };
    }
    tidemill_lang::promql::parse_duration(text).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_prometheus_reads_them() {
        let parameters =
            Parameters(form_pairs("match%5B%5D=up&match[]=a%7Bx%3D%22+y%22%7D&start=1.5&step=1m30s&limit=3&time="));
        assert_eq!(parameters.selectors().map(|all| all.len()).ok(), Some(2));
        assert_eq!(parameters.time("start").ok(), Some(Some(1_500)));
        assert_eq!(parameters.time("time").ok(), Some(None));
        assert_eq!(parameters.duration("step").ok(), Some(Some(90_000)));
        assert_eq!(parameters.limit().ok(), Some(3));
        assert_eq!(parse_time("2024-05-01T00:00:00Z"), Ok(1_714_521_600_000));
        assert!(parse_time("yesterday").is_err() && parse_duration("x").is_err());
        assert!(Parameters(form_pairs("match[]={a=\"\"}")).selectors().is_err());
    }
}
