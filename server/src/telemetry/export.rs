//! The OpenTelemetry pipelines: spans, log records and metrics of this process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_http::HttpClient;
use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tidemill_types::ErrorKind;
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

use super::door::NetworkDoor;
use super::numbers::Numbers;
use super::{host, numbers};
use crate::config::Config;
use crate::error::{Error, Result};

/// How often metrics are sent.
const METRICS_INTERVAL: Duration = Duration::from_secs(10);
/// The exporters need some address; an own door looks only at its path.
const OWN_BASE: &str = "http://tidemill.invalid";

/// What one resource sends.
#[derive(Debug)]
pub struct Export {
    spans: Option<SdkTracerProvider>,
    logs: Option<SdkLoggerProvider>,
    metrics: SdkMeterProvider,
}

/// How exporters reach their destination.
struct Way {
    client: Arc<dyn HttpClient>,
    base: String,
    headers: HashMap<String, String>,
}

impl Export {
    /// To the URL of the configuration.
    ///
    /// # Errors
    /// `Invalid` for a URL or headers that are none.
    pub fn elsewhere(config: &Config, runtime: &Handle, numbers: &Numbers) -> Result<Self> {
        let base = config.settings.text("telemetry.otlp_export").trim_end_matches('/').to_owned();
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .build()
            .map_err(|error| Error::caused(ErrorKind::Internal, "the HTTP client", error))?;
        let client = Arc::new(NetworkDoor::new(client, runtime.clone()));
        let headers = parse_headers(config.settings.text("telemetry.otlp_headers"))
            .map_err(|problem| Error::invalid(format!("telemetry.otlp_headers: {problem}")))?;
        let way = Way { client, base, headers };
        Self::of_this_process(config.ratio("telemetry.sample"), &way, numbers)
    }

    /// Into this process itself.
    ///
    /// # Errors
    /// `Internal` when a pipeline cannot be built; so below.
    pub fn own(config: &Config, client: Arc<dyn HttpClient>, numbers: &Numbers) -> Result<Self> {
        let way = Way { client, base: OWN_BASE.to_owned(), headers: HashMap::new() };
        Self::of_this_process(config.ratio("telemetry.sample"), &way, numbers)
    }

    /// The machine's metrics, into this process itself.
    pub fn of_host(client: Arc<dyn HttpClient>) -> Result<Self> {
        let way = Way { client, base: OWN_BASE.to_owned(), headers: HashMap::new() };
        let metrics = way.metrics(host::resource())?;
        host::observe(&metrics)?;
        Ok(Self { spans: None, logs: None, metrics })
    }

    fn of_this_process(sample: f64, way: &Way, numbers: &Numbers) -> Result<Self> {
        let resource = Resource::builder_empty()
            .with_service_name("tidemill")
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()),
                KeyValue::new("process.pid", i64::from(std::process::id())),
                KeyValue::new("host.name", host::name()),
            ])
            .build();
        let spans = SpanExporter::builder()
            .with_http()
            .with_shared_http_client(way.client.clone())
            .with_endpoint(format!("{}/v1/traces", way.base))
            .with_headers(way.headers.clone())
            .build()
            .map_err(broken)?;
        let spans = SdkTracerProvider::builder()
            .with_batch_exporter(spans)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample))))
            .with_resource(resource.clone())
            .build();
        let logs = LogExporter::builder()
            .with_http()
            .with_shared_http_client(way.client.clone())
            .with_endpoint(format!("{}/v1/logs", way.base))
            .with_headers(way.headers.clone())
            .build()
            .map_err(broken)?;
        let logs = SdkLoggerProvider::builder().with_batch_exporter(logs).with_resource(resource.clone()).build();
        let metrics = way.metrics(resource)?;
        numbers::observe(&metrics, numbers);
        Ok(Self { spans: Some(spans), logs: Some(logs), metrics })
    }

    /// The layer that turns spans into exported ones.
    pub fn trace_layer<S>(&self) -> Option<OpenTelemetryLayer<S, SdkTracer>>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        self.spans.as_ref().map(|spans| tracing_opentelemetry::layer().with_tracer(spans.tracer("tidemill")))
    }

    /// The layer that turns events into exported log records.
    pub fn log_layer(&self) -> Option<OpenTelemetryTracingBridge<SdkLoggerProvider, SdkLogger>> {
        self.logs.as_ref().map(OpenTelemetryTracingBridge::new)
    }

    /// Sends what is left and ends. Blocks the thread.
    pub fn shut_down(self) {
        let ended = [
            self.spans.map(|spans| spans.shutdown()),
            self.logs.map(|logs| logs.shutdown()),
            Some(self.metrics.shutdown()),
        ];
        for error in ended.into_iter().flatten().filter_map(std::result::Result::err) {
            tracing::debug!(%error, "the last of this process's own telemetry was not sent");
        }
    }
}

impl Way {
    fn metrics(&self, resource: Resource) -> Result<SdkMeterProvider> {
        let exporter = MetricExporter::builder()
            .with_http()
            .with_shared_http_client(self.client.clone())
            .with_endpoint(format!("{}/v1/metrics", self.base))
            .with_headers(self.headers.clone())
            .build()
            .map_err(broken)?;
        let reader = PeriodicReader::builder(exporter).with_interval(METRICS_INTERVAL).build();
        Ok(SdkMeterProvider::builder().with_reader(reader).with_resource(resource).build())
    }
}

fn broken(error: opentelemetry_otlp::ExporterBuildError) -> Error {
    Error::caused(ErrorKind::Invalid, "telemetry.otlp_export", error)
}

/// Reads `name=value,name=value`.
///
/// # Errors
/// What is allowed; no message holds a value, which may be a secret.
pub fn parse_headers(text: &str) -> std::result::Result<HashMap<String, String>, String> {
    let mut headers = HashMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or("expected name=value, separated by commas")?;
        let (name, value) = (name.trim(), value.trim());
        if HeaderName::from_bytes(name.as_bytes()).is_err() || HeaderValue::from_str(value).is_err() {
            return Err("expected name=value, separated by commas; one of them no header can carry".to_owned());
        }
        headers.insert(name.to_owned(), value.to_owned());
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_pairs() {
        let read = parse_headers("authorization=Bearer a=b, x-y=1").expect("is valid");
        assert_eq!((read["authorization"].as_str(), read["x-y"].as_str()), ("Bearer a=b", "1"));
        for text in ["authorization", "a b=c", "=c"] {
            assert!(parse_headers(text).is_err(), "{text}");
        }
        assert!(parse_headers("").expect("is valid").is_empty());
    }
}
