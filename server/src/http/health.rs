//! `/healthz` (the process lives), `/readyz` (it can serve: its metastore answers and it is not stopping), `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use tidemill_lake::worker::LAG_BOUNDS;
use tidemill_store::metastore::Backlog;
use tidemill_types::TimestampNs;

use super::ApiState;
use crate::error::Result;
use crate::metrics::Exposition;
use crate::telemetry::resident_bytes;

/// The metastore has this long to answer a readiness probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether this process takes requests.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// All listeners serve (or, with `false`, the process is stopping).
    pub fn set(&self, is_ready: bool) {
        self.0.store(is_ready, Ordering::SeqCst);
    }

    /// Whether requests are taken.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The routes. They need no key: they tell no organization's data.
pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/", get(greet))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

/// For whoever opens the address in a browser.
async fn greet() -> &'static str {
    concat!(
        "tidemill ",
        env!("CARGO_PKG_VERSION"),
        "\n\nPOST /api/v1/sql            a statement; rows by Accept: JSON lines, CSV, Arrow\n\
         GET  /api/v1/attributes     attribute keys\n\
         GET  /api/v1/status         backlog, segments, lag; with an operator's key, as are inbox, queue, segments\n\
         GET  /healthz, /readyz      probes\n\
         GET  /metrics               Prometheus\n"
    )
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(state): State<ApiState>) -> Response {
    if !state.readiness.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting or stopping\n").into_response();
    }
    match tokio::time::timeout(PROBE_TIMEOUT, state.admin.metastore.now()).await {
        Ok(Ok(_)) => "ready\n".into_response(),
        Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("metastore: {error}\n")).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "metastore: no answer\n").into_response(),
    }
}

/// What one gauge shows of a queue.
type Gauge<'a> = &'a dyn Fn(&Backlog) -> f64;

async fn metrics(State(state): State<ApiState>) -> Result<Response> {
    let mut exposition = Exposition::default();
    let now = state.admin.metastore.now().await?;
    let backlog = state.admin.metastore.backlog().await?;
    let ages = |oldest: Option<TimestampNs>| oldest.map_or(0.0, |oldest| (now.0 - oldest.0).max(0) as f64 / 1e9);
    let help_and_value: [(&str, &str, Gauge<'_>); 6] = [
        ("tidemill_queue_runnable_items", "Work that can be claimed now.", &|it| it.runnable as f64),
        ("tidemill_queue_delayed_items", "Work that waits for its time.", &|it| it.delayed as f64),
        ("tidemill_queue_leased_items", "Work under a live lease.", &|it| it.leased as f64),
        ("tidemill_queue_dead_items", "Dead letters.", &|it| it.dead as f64),
        ("tidemill_queue_runnable_bytes", "Size of the work that can be claimed now.", &|it| it.runnable_bytes as f64),
        ("tidemill_queue_oldest_age_seconds", "Age of the oldest work that can be claimed.", &|it| ages(it.oldest)),
    ];
    for (name, help, value) in help_and_value {
        for it in &backlog {
            let labels = [("signal", it.queue.signal.as_str()), ("action", it.queue.action.as_str())];
            exposition.gauge(name, help, &labels, value(it));
        }
    }
    for number in state.numbers.read() {
        exposition.counter(&number.prometheus_name(), number.help, &[], number.value as f64);
    }
    if let Some(lag) = state.numbers.lag() {
        let buckets: Vec<(f64, u64)> = LAG_BOUNDS.into_iter().zip(lag.at_most).collect();
        let help = "From the arrival of an input until it is queryable.";
        exposition.histogram("tidemill_ingest_arrival_to_queryable_seconds", help, &buckets, lag.count, lag.sum);
    }
    if let Some(bytes) = resident_bytes() {
        exposition.gauge(
            "tidemill_process_resident_memory_bytes",
            "Resident memory of this process.",
            &[],
            bytes as f64,
        );
    }
    exposition.gauge(
        "tidemill_process_build_info",
        "Always 1; the version is its label.",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1.0,
    );
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], exposition.finish()).into_response())
}
