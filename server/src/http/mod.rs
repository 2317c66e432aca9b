//! The HTTP API: the APIs of Prometheus, Loki and Tempo, SQL, fleets, administration, health, metrics.
//!
//! Owns: routes, who may call them, how answers and errors look. Never: what is answered (`Admin`, the query engine). Start with
//! [`router`].

mod administration;
mod arguments;
mod caller;
mod external_scaler;
mod fleet;
mod health;
mod load;
mod loki;
mod problem;
mod prometheus;
mod sql;
pub mod tempo;
mod trace;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::Response;
use http::StatusCode;
use problem::answer;

pub use administration::{KeysRequest, NewDocument, NewKeyRequest, NewOrganization, RedriveRequest, Redriven};
pub use fleet::APPLIED_HEADER;
pub use health::Readiness;
pub use load::LoadState;
pub use loki::query_range as loki_query_range;
pub use problem::{Problem, ProblemBody};
pub use sql::{AttributesRequest, QUERY_ID_HEADER, SqlRequest, WARNING_HEADER};
pub use trace::trace_requests;

use tidemill_lake::receive::Receiver;

use crate::admin::Admin;
use crate::auth::KeyRing;
use crate::error::Error;
use crate::query::Queries;
use crate::telemetry::Numbers;

/// The largest body of an administrative request.
const MAX_BODY_BYTES: usize = 1 << 20;

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct ApiState {
    /// Administration over the metastore.
    pub admin: Admin,
    /// Who calls.
    pub authenticator: Arc<KeyRing>,
    /// Whether this process is ready to serve.
    pub readiness: Readiness,
    /// The counts of this process's roles.
    pub numbers: Numbers,
    /// SQL, where this process queries.
    pub queries: Option<Queries>,
    /// Objects and replicas, where this process runs a fleet.
    pub fleet: Option<tidemill_fleet::Fleet>,
    /// What loading files stands on.
    pub load: LoadState,
    /// Takes what is pushed, where this process receives.
    pub receiver: Option<Receiver>,
}

/// Every route of the API that this process serves itself.
pub fn router(state: ApiState) -> Router {
    Router::new()
        .merge(administration::router())
        .merge(health::router())
        .merge(sql::router())
        .merge(tempo::router())
        .merge(loki::router())
        .merge(fleet::router())
        .merge(external_scaler::router())
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .merge(load::router())
        .merge(prometheus::router())
        .with_state(state)
}

async fn not_found(uri: http::Uri) -> Error {
    Error::new(tidemill_types::ErrorKind::NotFound, format!("there is nothing at {}", uri.path()))
}

async fn not_allowed(method: http::Method, uri: http::Uri) -> Response {
    let message = format!("{method} means nothing at {}", uri.path());
    answer(StatusCode::METHOD_NOT_ALLOWED, "invalid", message, None)
}

#[cfg(test)]
mod tests;
