//! Remote write, versions 1 and 2: `POST /api/v1/write`. Answered once the samples are durable, like any push.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tidemill_lake::receive::{Compression, PushRequest, Receiver};
use tidemill_segment::push::PushEncoding;
use tidemill_segment::remote_write::{Version, WrittenSeries, decode, encode_otlp};
use tidemill_types::{ErrorKind, OrganizationId, Signal, TimestampNs};

use super::super::ApiState;
use super::super::caller::Member;
use super::answer::Refusal;

/// The message of version 2, as `proto` of the content type names it.
const V2_MESSAGE: &str = "io.prometheus.write.v2.Request";
const V1_MESSAGE: &str = "prometheus.WriteRequest";
/// What was written, told to senders of version 2.
const SAMPLES_WRITTEN: HeaderName = HeaderName::from_static("x-prometheus-remote-write-samples-written");
const HISTOGRAMS_WRITTEN: HeaderName = HeaderName::from_static("x-prometheus-remote-write-histograms-written");
const EXEMPLARS_WRITTEN: HeaderName = HeaderName::from_static("x-prometheus-remote-write-exemplars-written");
/// No body decompresses to more than this many times its size.
const MAX_RATIO: usize = 200;

/// A request that is not taken; senders repeat those of 5xx and 429 only.
#[derive(Debug)]
struct Refused(StatusCode, String);

/// How much a request writes.
#[derive(Debug, Default, Clone, Copy)]
struct Written {
    samples: usize,
    histograms: usize,
    exemplars: usize,
}

/// What became of a request.
#[derive(Debug)]
struct Taken {
    written: Written,
    /// What of it is not stored, and why.
    refusal: Option<String>,
}

pub(super) async fn write(
    State(state): State<ApiState>,
    Member(organization): Member,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Some(receiver) = &state.receiver else { return Refusal::not_here("receive").into_response() };
    let version = match version_of(&headers) {
        Ok(version) => version,
        Err(refused) => return refused.into_response(),
    };
    let outcome = take(receiver, organization, version, &headers, body).await;
    let (written, mut response) = match outcome {
        Ok(Taken { written, refusal: None }) => (written, StatusCode::NO_CONTENT.into_response()),
        Ok(Taken { written, refusal: Some(why) }) => (written, Refused(StatusCode::BAD_REQUEST, why).into_response()),
        Err(refused) => (Written::default(), refused.into_response()),
    };
    if version == Version::V2 {
        let counts = [
            (SAMPLES_WRITTEN, written.samples),
            (HISTOGRAMS_WRITTEN, written.histograms),
            (EXEMPLARS_WRITTEN, written.exemplars),
        ];
        counts
            .into_iter()
            .for_each(|(name, count)| drop(response.headers_mut().insert(name, HeaderValue::from(count))));
    }
    response
}

async fn take(
    receiver: &Receiver,
    organization: OrganizationId,
    version: Version,
    headers: &HeaderMap,
    body: Body,
) -> Result<Taken, Refused> {
    receiver.check_open(organization).map_err(refused)?;
    let most = receiver.max_request_bytes();
    let mut reservation = receiver.reservation();
    let mut compressed = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|error| Refused(StatusCode::BAD_REQUEST, format!("the body ended early: {error}")))?;
        if compressed.len() + chunk.len() > most {
            return Err(too_large(most));
        }
        reservation.grow(chunk.len()).map_err(refused)?;
        compressed.extend_from_slice(&chunk);
    }
    let expanded = expanded_bytes(&compressed, most)?;
    // The request itself, and what it becomes.
    reservation.grow(expanded.saturating_mul(3)).map_err(refused)?;
    let arrival = receiver.now();
    let converting = tokio::task::spawn_blocking(move || convert(version, &compressed, arrival));
    let (otlp, taken) = converting
        .await
        .map_err(|error| Refused(StatusCode::INTERNAL_SERVER_ERROR, format!("reading the request: {error}")))??;
    if otlp.is_empty() {
        return Ok(taken);
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let request = PushRequest {
        organization,
        signal: Signal::Metrics,
        collector: "default".to_owned(),
        encoding: PushEncoding::Protobuf,
        compression: Compression::Identity,
        body: Bytes::from(otlp),
        idempotency_key: text("idempotency-key").filter(|key| (1..=256).contains(&key.len())),
        arrival,
        reservation: Some(reservation),
    };
    let outcome = receiver.push(request).await.map_err(refused)?;
    if outcome.rejected > 0 {
        let first = outcome.issues.first();
        let reason = first.map(|issue| format!("{}: {}", issue.path, issue.reason)).unwrap_or_default();
        let message = format!("{} of the samples are refused, the others are stored: {reason}", outcome.rejected);
        return Err(Refused(StatusCode::BAD_REQUEST, message));
    }
    Ok(taken)
}

/// How large the body is when it is decompressed.
fn expanded_bytes(compressed: &[u8], most: usize) -> Result<usize, Refused> {
    let expanded = snap::raw::decompress_len(compressed).map_err(|error| bad_snappy(&error))?;
    if expanded > most {
        return Err(too_large(most));
    }
    if expanded > compressed.len().saturating_mul(MAX_RATIO).max(1 << 20) {
        let message =
            format!("{} bytes would become {expanded}, more than {MAX_RATIO} times as many", compressed.len());
        return Err(Refused(StatusCode::BAD_REQUEST, message));
    }
    Ok(expanded)
}

fn convert(version: Version, compressed: &[u8], arrival: TimestampNs) -> Result<(Vec<u8>, Taken), Refused> {
    let body = snap::raw::Decoder::new().decompress_vec(compressed).map_err(|error| bad_snappy(&error))?;
    let malformed =
        |problem: tidemill_segment::remote_write::Malformed| Refused(StatusCode::BAD_REQUEST, problem.reason);
    let decoded = decode(version, &body, arrival.0 / 1_000_000).map_err(malformed)?;
    let series = decoded.series;
    let count = |of: fn(&WrittenSeries) -> usize| series.iter().map(of).sum::<usize>();
    let written = Written {
        samples: count(|series| series.samples.len()),
        histograms: count(|series| series.histograms.len()),
        exemplars: count(|series| series.exemplars.len()),
    };
    let refusal = (decoded.refused > 0).then(|| {
        let reasons: Vec<&str> = decoded.reasons.iter().map(|problem| problem.reason.as_str()).collect();
        format!("{} series or samples are refused, the others are stored: {}", decoded.refused, reasons.join("; "))
    });
    Ok((encode_otlp(&series).map_err(malformed)?, Taken { written, refusal }))
}

/// The version that the content type names; without a name it is the first.
fn version_of(headers: &HeaderMap) -> Result<Version, Refused> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let unsupported = |message: String| Err(Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    let encoding = text(header::CONTENT_ENCODING);
    if !["", "snappy"].iter().any(|known| encoding.eq_ignore_ascii_case(known)) {
        return unsupported(format!("Content-Encoding {encoding:?} is not supported; snappy"));
    }
    let kind = text(header::CONTENT_TYPE);
    let mut parts = kind.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    if !["", "application/x-protobuf"].contains(&essence) {
        return unsupported(format!("Content-Type {kind:?} is not supported; application/x-protobuf"));
    }
    match parts.find_map(|part| part.strip_prefix("proto=")) {
        None | Some(V1_MESSAGE) => Ok(Version::V1),
        Some(V2_MESSAGE) => Ok(Version::V2),
        Some(other) => unsupported(format!("proto={other} is not supported; {V1_MESSAGE} or {V2_MESSAGE}")),
    }
}

fn bad_snappy(error: &snap::Error) -> Refused {
    Refused(StatusCode::BAD_REQUEST, format!("the body is not compressed by snappy (block format): {error}"))
}

fn too_large(most: usize) -> Refused {
    Refused(StatusCode::PAYLOAD_TOO_LARGE, format!("the request has more than {most} bytes (receive.max_request)"))
}

fn refused(error: tidemill_lake::Error) -> Refused {
    let status = match error.kind() {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Busy => StatusCode::TOO_MANY_REQUESTS,
        // What a store calls missing or changed is no mistake of the sender; it repeats the request.
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refused(status, error.to_string())
}

impl axum::response::IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(status, message) = self;
        let mut response = (status, message).into_response();
        if matches!(status.as_u16(), 429 | 503) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
