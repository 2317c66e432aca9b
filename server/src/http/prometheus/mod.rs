//! Prometheus's HTTP API, under `/api/v1/…` and under `/prometheus/api/v1/…`.
//!
//! Owns: its parameters, how its answers and errors look, remote write. Never: evaluation (`tidemill_query`). Start with [`router`].

mod answer;
mod labels;
mod parameters;
mod query;
mod status;
mod write;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use super::ApiState;

/// The largest body of a question.
const MAX_BODY_BYTES: usize = 4 << 20;

/// The routes.
pub fn router() -> Router<ApiState> {
    let mut routes = Router::new();
    for base in ["/api/v1", "/prometheus/api/v1"] {
        let at = |path: &str| format!("{base}{path}");
        routes = routes
            .route(&at("/query"), get(query::instant).post(query::instant))
            .route(&at("/query_range"), get(query::range).post(query::range))
            .route(&at("/query_exemplars"), get(query::exemplars).post(query::exemplars))
            .route(&at("/format_query"), get(query::format).post(query::format))
            .route(&at("/parse_query"), get(query::parse).post(query::parse))
            .route(&at("/series"), get(labels::series).post(labels::series))
            .route(&at("/labels"), get(labels::names).post(labels::names))
            .route(&at("/label/{name}/values"), get(labels::values))
            .route(&at("/metadata"), get(labels::metadata))
            .route(&at("/rules"), get(status::rules))
            .route(&at("/alerts"), get(status::alerts))
            .route(&at("/status/buildinfo"), get(status::build_info))
            .route(&at("/status/runtimeinfo"), get(status::runtime_info))
            .route(&at("/status/flags"), get(status::flags))
            .route(&at("/status/config"), get(status::config))
            .route(&at("/status/tsdb"), get(status::tsdb));
    }
    let mut written = Router::new();
    for base in ["/api/v1", "/prometheus/api/v1"] {
        written = written.route(&format!("{base}/write"), post(write::write));
    }
    // A pushed body is counted as it is read.
    routes.layer(DefaultBodyLimit::max(MAX_BODY_BYTES)).merge(written.layer(DefaultBodyLimit::disable()))
}
