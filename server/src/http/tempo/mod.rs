//! Tempo's HTTP API, at `/api/…` and `/tempo/api/…`: traces by id, search, names and values of attributes, metrics.
//!
//! Owns: parameters and shapes as Grafana's Tempo data source sends and reads them, refusals as Tempo tells them. Never: what is
//! answered (the query engine). What is said beside an answer is in headers: warnings once each, what was read as JSON. Start with
//! [`router`].

mod engine;
mod metrics;
mod otlp_json;
mod params;
mod search;
mod tags;
mod traces;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tidemill_query::QueryStats;
use tidemill_types::ErrorKind;

use super::ApiState;
use super::sql::WARNING_HEADER;
use crate::error::Error;
use crate::query::Queries;

pub use metrics::{MAX_EXEMPLARS, MetricsRequest, answer_metrics, default_step_ns};
pub use search::{SearchRequest, answer_search};
pub use traces::{TraceRequest, answer_trace, trace_json};

/// The header that tells what a query read, as JSON.
pub const STATS_HEADER: &str = "x-tidemill-stats";
/// The longest query.
const MAX_QUERY_BYTES: usize = 64 << 10;

/// An answer with what it took.
#[derive(Debug)]
pub struct Told<T> {
    /// The answer.
    pub answer: T,
    /// What was read for it.
    pub stats: QueryStats,
}

/// The routes.
pub fn router() -> Router<ApiState> {
    let under = |prefix: &str| {
        let at = |path: &str| format!("{prefix}/api{path}");
        Router::new()
            .route(&at("/echo"), get(echo))
            .route(&at("/status/buildinfo"), get(build_info))
            .route(&at("/traces/{id}"), get(traces::trace_v1))
            .route(&at("/v2/traces/{id}"), get(traces::trace_v2))
            .route(&at("/search"), get(search::search))
            .route(&at("/search/tags"), get(tags::names_v1))
            .route(&at("/v2/search/tags"), get(tags::names_v2))
            .route(&at("/search/tag/{name}/values"), get(tags::values_v1))
            .route(&at("/v2/search/tag/{name}/values"), get(tags::values_v2))
            .route(&at("/search/tag//values"), get(no_page))
            .route(&at("/v2/search/tag//values"), get(no_page))
            .route(&at("/metrics/query"), get(metrics::instant))
            .route(&at("/metrics/query_range"), get(metrics::range))
    };
    under("").merge(under("/tempo"))
}

async fn echo() -> &'static str {
    "echo"
}

async fn build_info() -> Response {
    json_answer(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "revision": "",
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }))
}

async fn no_page() -> TempoError {
    TempoError::new(StatusCode::NOT_FOUND, "404 page not found")
}

/// A refusal as Tempo tells it: its text, plain.
#[derive(Debug)]
struct TempoError {
    status: StatusCode,
    text: String,
}

type TempoResult<T> = Result<T, TempoError>;

impl TempoError {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    fn invalid(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }
}

impl From<Error> for TempoError {
    fn from(error: Error) -> Self {
        let status = StatusCode::from_u16(error.kind().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        Self::new(status, format!("{}{hint}", error.full_message()))
    }
}

impl IntoResponse for TempoError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(error = self.text, "a request failed");
        }
        let mut response = (self.status, self.text).into_response();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

fn json_answer(body: &Value) -> Response {
    let content = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, content)], body.to_string()).into_response()
}

/// The answer with what it took in its headers.
fn with_stats(mut response: Response, stats: &QueryStats) -> Response {
    let headers = response.headers_mut();
    for warning in &stats.warnings {
        let warning = warning.replace(char::is_control, " ");
        if let Ok(warning) = HeaderValue::from_bytes(warning.as_bytes()) {
            headers.append(WARNING_HEADER, warning);
        }
    }
    let told = QueryStats { warnings: Vec::new(), ..stats.clone() };
    if let Some(told) = serde_json::to_string(&told).ok().and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert(STATS_HEADER, told);
    }
    response
}

/// What Tempo tells of a search's work.
fn metrics_json(stats: &QueryStats) -> Value {
    json!({
        "inspectedBytes": stats.bytes_read.to_string(),
        "inspectedSpans": stats.rows_scanned.to_string(),
        "totalBlocks": stats.segments_considered,
        "completedJobs": 1,
        "totalJobs": 1,
    })
}

fn queries(state: &ApiState) -> TempoResult<&Queries> {
    let missing =
        || Error::new(ErrorKind::NotFound, "this process does not play the query role").with_hint("ask one that does");
    Ok(state.queries.as_ref().ok_or_else(missing)?)
}

/// The query as a tree.
fn parse_query(text: &str) -> Result<tidemill_lang::traceql::ast::Query, Error> {
    if text.len() > MAX_QUERY_BYTES {
        return Err(Error::invalid(format!("a query has at most {MAX_QUERY_BYTES} bytes, this one {}", text.len())));
    }
    tidemill_lang::traceql::parse(text).map_err(|error| Error::invalid(format!("invalid TraceQL query: {error}")))
}
