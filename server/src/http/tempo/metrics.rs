//! `/api/metrics/query_range` and `/api/metrics/query`: numbers over time.

use axum::extract::State;
use axum::response::Response;
use serde_json::Value;
use tidemill_eval::traceql::MetricsParams;
use tidemill_lake::clock::{Clock as _, SystemClock};
use tidemill_types::OrganizationId;

use super::params::Params;
use super::{TempoError, TempoResult, Told, json_answer, metrics_json, parse_query, queries, with_stats};
use crate::error::Result;
use crate::http::ApiState;
use crate::http::arguments::Query;
use crate::http::caller::Member;
use crate::query::Queries;

/// The range unless told otherwise: the last hour.
const DEFAULT_RANGE_NS: i64 = 3_600_000_000_000;
/// The most exemplars of an answer, as in Tempo.
pub const MAX_EXEMPLARS: usize = 100;
/// About how many instants a range has where no step is told.
const DEFAULT_INSTANTS: i64 = 360;

/// A metrics query.
#[derive(Debug)]
pub struct MetricsRequest {
    /// The query.
    pub query: String,
    /// The range, and its step where it is not one instant.
    pub params: MetricsParams,
    /// The most exemplars of the answer; no more than [`MAX_EXEMPLARS`] in any case.
    pub exemplars: usize,
}

/// The series as Tempo's API has them.
///
/// # Errors
/// `Invalid` for a query, range or step that may not be; those of the engine.
pub async fn answer_metrics(
    queries: &Queries,
    organization: OrganizationId,
    request: &MetricsRequest,
) -> Result<Told<Value>> {
    let query = parse_query(&request.query)?;
    let mut found = queries.trace_metrics(organization, query, request.params).await?;
    found.answer.limit_exemplars(request.exemplars.min(MAX_EXEMPLARS));
    Ok(Told { answer: found.answer.to_json(), stats: found.stats })
}

pub(super) async fn range(
    state: State<ApiState>,
    member: Member,
    Query(pairs): Query<Vec<(String, String)>>,
) -> TempoResult<Response> {
    let params = Params::new(pairs);
    let (start_ns, end_ns) = times(&params)?;
    let step_ns = match params.duration_ns("step")? {
        Some(step_ns) if step_ns <= 0 => return Err(TempoError::invalid("invalid step: it must be above 0")),
        Some(step_ns) => step_ns,
        None => default_step_ns(end_ns - start_ns),
    };
    answer(state, member, &params, MetricsParams { start_ns, end_ns, step_ns: Some(step_ns) }).await
}

pub(super) async fn instant(
    state: State<ApiState>,
    member: Member,
    Query(pairs): Query<Vec<(String, String)>>,
) -> TempoResult<Response> {
    let params = Params::new(pairs);
    let (start_ns, end_ns) = times(&params)?;
    answer(state, member, &params, MetricsParams { start_ns, end_ns, step_ns: None }).await
}

async fn answer(
    State(state): State<ApiState>,
    Member(organization): Member,
    params: &Params,
    range: MetricsParams,
) -> TempoResult<Response> {
    let query = params.text("q").or(params.text("query")).unwrap_or_default().to_owned();
    let exemplars = params.count("exemplars")?.filter(|most| *most > 0).unwrap_or(MAX_EXEMPLARS);
    let request = MetricsRequest { query, params: range, exemplars };
    let told = answer_metrics(queries(&state)?, organization, &request).await?;
    let mut body = told.answer;
    body["metrics"] = metrics_json(&told.stats);
    Ok(with_stats(json_answer(&body), &told.stats))
}

/// The range; what is not told is the last hour.
fn times(params: &Params) -> TempoResult<(i64, i64)> {
    let (start, end) = params.range_ns()?;
    let end = end.unwrap_or_else(|| SystemClock.now().0);
    let since = params.duration_ns("since")?.unwrap_or(DEFAULT_RANGE_NS);
    let start = start.unwrap_or_else(|| end.saturating_sub(since));
    if end <= start || end.checked_sub(start).is_none() {
        return Err(TempoError::invalid("end must be greater than start"));
    }
    Ok((start, end))
}

/// A step of whole seconds that gives some hundreds of instants.
pub fn default_step_ns(range_ns: i64) -> i64 {
    const SECOND_NS: i64 = 1_000_000_000;
    (range_ns / DEFAULT_INSTANTS / SECOND_NS).max(1) * SECOND_NS
}
