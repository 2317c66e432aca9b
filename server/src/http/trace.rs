//! A span for each request, where spans are exported; its parent is the caller's, by W3C trace context. A caller that is not
//! sampled has none: so a server that exports to itself does not trace its own exports.

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Instrument as _, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Asked by machines all the time.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// `routes` with a span for each request.
pub fn trace_requests(routes: Router) -> Router {
    routes.layer(from_fn(trace))
}

async fn trace(request: Request, next: Next) -> Response {
    let parent = TraceContextPropagator::new().extract(&HeaderExtractor(request.headers()));
    let caller = parent.span().span_context().clone();
    if caller.is_valid() && !caller.is_sampled() || PROBES.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str);
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{} {route}", request.method()),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = %request.method(),
        http.route = route,
        http.response.status_code = field::Empty,
    );
    if let Err(error) = span.set_parent(parent) {
        tracing::trace!(%error, "the caller's trace");
    }
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", i64::from(response.status().as_u16()));
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    response
}
