//! Loki's HTTP API, as Grafana's data source, Explore and `logcli` ask it.
//!
//! Follows Grafana Loki's documentation, "Loki HTTP API": JSON answers, errors as plain text with Loki's status codes. Owns: reading
//! parameters ([`params`]), shapes of answers ([`answer`]). Never: what LogQL means (`tidemill_query::logql`), and the push, which is
//! `tidemill_lake::loki_push`.

mod answer;
mod detected;
mod params;
mod query;
mod streams;
mod tail;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde_json::Value;
use tidemill_types::{ErrorKind, OrganizationId};
use tokio::sync::Semaphore;

use super::ApiState;
use crate::error::Error;
use crate::query::Queries;
use answer::Refusal;

/// Live tails of one process.
const MOST_TAILS: usize = 64;

/// The routes.
pub fn router() -> Router<ApiState> {
    let tails = Arc::new(Semaphore::new(MOST_TAILS));
    Router::new()
        .route("/loki/api/v1/query", get(query::instant).post(query::instant))
        .route("/loki/api/v1/query_range", get(query::range).post(query::range))
        .route("/loki/api/v1/format_query", get(query::format).post(query::format))
        .route("/loki/api/v1/labels", get(streams::labels).post(streams::labels))
        .route("/loki/api/v1/label", get(streams::labels).post(streams::labels))
        .route("/loki/api/v1/label/{name}/values", get(streams::values).post(streams::values))
        .route("/loki/api/v1/series", get(streams::series).post(streams::series))
        .route("/loki/api/v1/index/stats", get(streams::stats).post(streams::stats))
        .route("/loki/api/v1/index/volume", get(streams::volume).post(streams::volume))
        .route("/loki/api/v1/index/volume_range", get(streams::volume_range).post(streams::volume_range))
        .route("/loki/api/v1/detected_labels", get(detected::labels).post(detected::labels))
        .route("/loki/api/v1/detected_fields", get(detected::fields).post(detected::fields))
        .route("/loki/api/v1/detected_field/{name}/values", get(detected::values).post(detected::values))
        .route(
            "/loki/api/v1/tail",
            get(move |state: State<ApiState>, member, params, upgrade| {
                tail::tail(state, member, params, upgrade, tails)
            }),
        )
        .route("/loki/api/v1/status/buildinfo", get(answer::build_info))
        .route("/ready", get(ready))
}

async fn ready(State(state): State<ApiState>) -> Result<&'static str, Refusal> {
    if state.readiness.is_ready() {
        return Ok("ready\n");
    }
    Err(Refusal::of(&Error::new(ErrorKind::Unavailable, "starting or stopping")))
}

/// What `query_range` answers, without a server.
///
/// # Errors
/// The query is refused, or reading failed.
pub async fn query_range(
    queries: &Queries,
    organization: OrganizationId,
    params: Vec<(String, String)>,
) -> crate::error::Result<Value> {
    let params = params::Params::of(params);
    query::answer_range(queries, organization, &params).await.map_err(Refusal::into_error)
}

fn queries(state: &ApiState) -> Result<&Queries, Refusal> {
    let missing = || Error::new(ErrorKind::NotFound, "this process does not play the query role; ask one that does");
    state.queries.as_ref().ok_or_else(|| Refusal::of(&missing()))
}
