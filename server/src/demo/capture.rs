//! The bundled capture: sixteen minutes of a small shop under the OpenTelemetry SDK (`examples/shop`), moved to end now.

use std::io::Read as _;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{Exemplar, Metric, metric::Data};
use prost::Message;
use tidemill_types::{ErrorKind, Signal, TimestampNs};
use tracing::Instrument as _;

use crate::error::{Error, Result};
use crate::telemetry::OwnDoor;

const LOGS: &[u8] = include_bytes!("../../demo/logs.binpb.zst");
const METRICS: &[u8] = include_bytes!("../../demo/metrics.binpb.zst");
const TRACES: &[u8] = include_bytes!("../../demo/traces.binpb.zst");
/// Far above what the capture holds; a guard against a wrong file.
const MAX_CAPTURE_BYTES: u64 = 256 << 20;
/// Requests are about this large.
const REQUEST_BYTES: usize = 1 << 20;

/// One request of the capture.
#[derive(Debug)]
pub struct CaptureRequest {
    signal: Signal,
    /// OTLP protobuf.
    pub body: Bytes,
}

impl CaptureRequest {
    /// Pushes it.
    ///
    /// # Errors
    /// What the receiver says.
    pub async fn push(self, door: &OwnDoor) -> Result<()> {
        let request = http::Request::post(format!("/v1/{}", self.signal))
            .header(http::header::CONTENT_TYPE, "application/x-protobuf")
            .header("x-tidemill-collector", "demo")
            .body(self.body)
            .map_err(|error| Error::caused(ErrorKind::Internal, "a request of the capture", error))?;
        let span = tracing::info_span!("load capture", signal = %self.signal);
        let answer = door
            .deliver(request)
            .instrument(span)
            .await
            .map_err(|error| Error::caused(ErrorKind::Unavailable, "loading the capture", error))?;
        if answer.status().is_success() {
            return Ok(());
        }
        let reason = String::from_utf8_lossy(answer.body()).into_owned();
        Err(Error::new(ErrorKind::Unavailable, format!("loading the capture: {} {reason}", answer.status())))
    }
}

/// The whole capture, its latest time moved to `now`.
///
/// # Errors
/// `Corrupt` when the bundled files are not what they should be.
pub fn requests(now: TimestampNs) -> Result<Vec<CaptureRequest>> {
    let mut logs: ExportLogsServiceRequest = read(LOGS)?;
    let mut metrics: ExportMetricsServiceRequest = read(METRICS)?;
    let mut traces: ExportTraceServiceRequest = read(TRACES)?;
    let mut latest = 0;
    each_time(&mut logs, &mut metrics, &mut traces, &mut |time| latest = latest.max(*time));
    let now = u64::try_from(now.0).unwrap_or(0);
    each_time(&mut logs, &mut metrics, &mut traces, &mut |time| {
        // Zero means that no time was told.
        if *time != 0 {
            *time = now.saturating_sub(latest - *time);
        }
    });
    let mut requests = Vec::new();
    pack(Signal::Logs, logs.resource_logs, &mut requests, |resource_logs| {
        ExportLogsServiceRequest { resource_logs }.encode_to_vec()
    });
    pack(Signal::Metrics, metrics.resource_metrics, &mut requests, |resource_metrics| {
        ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
    });
    pack(Signal::Traces, traces.resource_spans, &mut requests, |resource_spans| {
        ExportTraceServiceRequest { resource_spans }.encode_to_vec()
    });
    Ok(requests)
}

fn read<M: Message + Default>(compressed: &[u8]) -> Result<M> {
    let fail = |error: std::io::Error| Error::caused(ErrorKind::Corrupt, "the bundled capture", error);
    let decoder = zstd::stream::read::Decoder::new(compressed).map_err(fail)?;
    let mut bytes = Vec::new();
    decoder.take(MAX_CAPTURE_BYTES).read_to_end(&mut bytes).map_err(fail)?;
    M::decode(bytes.as_slice()).map_err(|error| Error::caused(ErrorKind::Corrupt, "the bundled capture", error))
}

fn pack<T: Message>(
    signal: Signal,
    parts: Vec<T>,
    requests: &mut Vec<CaptureRequest>,
    encode: impl Fn(Vec<T>) -> Vec<u8>,
) {
    let mut held = Vec::new();
    let mut bytes = 0;
    for part in parts {
        bytes += part.encoded_len();
        held.push(part);
        if bytes >= REQUEST_BYTES {
            requests.push(CaptureRequest { signal, body: encode(std::mem::take(&mut held)).into() });
            bytes = 0;
        }
    }
    if !held.is_empty() {
        requests.push(CaptureRequest { signal, body: encode(held).into() });
    }
}

fn each_time(
    logs: &mut ExportLogsServiceRequest,
    metrics: &mut ExportMetricsServiceRequest,
    traces: &mut ExportTraceServiceRequest,
    visit: &mut dyn FnMut(&mut u64),
) {
    for record in logs.resource_logs.iter_mut().flat_map(|it| &mut it.scope_logs).flat_map(|it| &mut it.log_records) {
        visit(&mut record.time_unix_nano);
        visit(&mut record.observed_time_unix_nano);
    }
    for span in traces.resource_spans.iter_mut().flat_map(|it| &mut it.scope_spans).flat_map(|it| &mut it.spans) {
        visit(&mut span.start_time_unix_nano);
        visit(&mut span.end_time_unix_nano);
        span.events.iter_mut().for_each(|event| visit(&mut event.time_unix_nano));
    }
    for metric in
        metrics.resource_metrics.iter_mut().flat_map(|it| &mut it.scope_metrics).flat_map(|it| &mut it.metrics)
    {
        each_metric_time(metric, visit);
    }
}

fn each_metric_time(metric: &mut Metric, visit: &mut dyn FnMut(&mut u64)) {
    macro_rules! points {
        ($points:expr) => {
            for point in $points {
                visit(&mut point.start_time_unix_nano);
                visit(&mut point.time_unix_nano);
                point.exemplars.iter_mut().for_each(|exemplar: &mut Exemplar| visit(&mut exemplar.time_unix_nano));
            }
        };
    }
    match &mut metric.data {
        Some(Data::Gauge(it)) => points!(&mut it.data_points),
        Some(Data::Sum(it)) => points!(&mut it.data_points),
        Some(Data::Histogram(it)) => points!(&mut it.data_points),
        Some(Data::ExponentialHistogram(it)) => points!(&mut it.data_points),
        Some(Data::Summary(it)) => {
            for point in &mut it.data_points {
                visit(&mut point.start_time_unix_nano);
                visit(&mut point.time_unix_nano);
            }
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capture_ends_now_and_keeps_its_distances() {
        let now = TimestampNs(1_800_000_000_000_000_000);
        let mut original: ExportTraceServiceRequest = read(TRACES).expect("is bundled");
        let mut moved = ExportTraceServiceRequest::default();
        let mut latest = 0;
        let mut records = 0;
        for request in requests(now).expect("is bundled") {
            let visit = &mut |time: &mut u64| latest = latest.max(*time);
            let (mut logs, mut metrics, mut traces) = Default::default();
            match request.signal {
                Signal::Logs => logs = ExportLogsServiceRequest::decode(request.body).expect("is OTLP"),
                Signal::Metrics => metrics = ExportMetricsServiceRequest::decode(request.body).expect("is OTLP"),
                Signal::Traces => traces = ExportTraceServiceRequest::decode(request.body).expect("is OTLP"),
            }
            each_time(&mut logs, &mut metrics, &mut traces, visit);
            records += logs.resource_logs.len() + metrics.resource_metrics.len();
            moved.resource_spans.append(&mut traces.resource_spans);
        }
        assert_eq!(latest, 1_800_000_000_000_000_000);
        assert!(records > 0);
        let durations = |request: &mut ExportTraceServiceRequest| -> Vec<u64> {
            let scopes = request.resource_spans.iter().flat_map(|it| &it.scope_spans);
            scopes.flat_map(|it| &it.spans).map(|span| span.end_time_unix_nano - span.start_time_unix_nano).collect()
        };
        assert_eq!(durations(&mut moved), durations(&mut original));
    }
}
