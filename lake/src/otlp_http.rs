//! OTLP over HTTP: `POST /v1/{logs,metrics,traces}`, protobuf and JSON, plain or compressed.
//!
//! Follows opentelemetry.io "OTLP Specification 1.x", OTLP/HTTP: the answer has the request's encoding, a partial success is
//! status 200, an error is a `google.rpc.Status`, and 429 and 503 carry `Retry-After`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::post;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tidemill_segment::push::PushEncoding;
use tidemill_types::{OrganizationId, Signal};

use crate::auth::Authenticator;
use crate::intake::{BodyTime, Compression, drain, read_body};
use crate::receive::{PushOutcome, PushRequest, Receiver};
use crate::{Error, Result, otlp_answer};

/// Names the collector that sends; `default` otherwise.
pub const COLLECTOR_HEADER: &str = "x-tidemill-collector";
/// The sender's own identity of a request.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";

#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub receiver: Receiver,
    pub authenticator: Arc<dyn Authenticator>,
}

/// An error on its way to the sender.
#[derive(Debug)]
pub(crate) struct Refused {
    pub status: StatusCode,
    pub message: String,
    pub retry_after: Option<Duration>,
}

/// The three routes.
pub fn router(receiver: Receiver, authenticator: Arc<dyn Authenticator>) -> Router {
    let door = Door { receiver, authenticator };
    Signal::ALL.into_iter().fold(Router::new(), |router, signal| route(router, &format!("/v1/{signal}"), signal, &door))
}

/// The routes under which Loki and Prometheus take OTLP, for senders that are set up for these.
pub fn router_of_others(receiver: Receiver, authenticator: Arc<dyn Authenticator>) -> Router {
    let door = Door { receiver, authenticator };
    let mut router = Router::new();
    for (path, signal) in [
        ("/otlp/v1/logs", Signal::Logs),
        ("/api/v1/otlp/v1/metrics", Signal::Metrics),
        ("/prometheus/api/v1/otlp/v1/metrics", Signal::Metrics),
    ] {
        router = route(router, path, signal, &door);
    }
    // The body is counted as it is read, not by a general limit.
    router.layer(axum::extract::DefaultBodyLimit::disable())
}

fn route(router: Router, path: &str, signal: Signal, door: &Door) -> Router {
    let door = door.clone();
    router.route(path, post(move |request: Request| async move { export(&door, signal, request).await }))
}

async fn export(door: &Door, signal: Signal, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let encoding = match content_encoding_of(&parts.headers) {
        Ok(encoding) => encoding,
        Err(refused) => return refuse(PushEncoding::Json, &refused),
    };
    match export_inner(door, signal, encoding, &parts.headers, body).await {
        Ok(outcome) => accept(signal, encoding, &outcome),
        Err(refused) => refuse(encoding, &refused),
    }
}

async fn export_inner(
    door: &Door,
    signal: Signal,
    encoding: PushEncoding,
    headers: &HeaderMap,
    body: Body,
) -> std::result::Result<PushOutcome, Refused> {
    let compression = Compression::from_header(headers, "content-encoding").map_err(|other| Refused {
        status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
        message: format!("Content-Encoding {other:?} is not supported; one of gzip, deflate, zstd, identity"),
        retry_after: None,
    })?;
    let organization = match door.admit(headers).await {
        Ok(organization) => organization,
        Err(refused) => {
            if refused.retry_after.is_some() {
                drain(body, door.receiver.max_request_bytes()).await;
            }
            return Err(refused);
        }
    };
    let mut reservation = door.receiver.reservation();
    let body = read_body(body, door.receiver.max_request_bytes(), BodyTime::default(), &mut reservation).await?;
    let arrival = door.receiver.now();
    let (collector, idempotency_key) = sender(headers)?;
    let request = PushRequest {
        organization,
        signal,
        collector,
        encoding,
        compression,
        body,
        idempotency_key,
        arrival,
        reservation: Some(reservation),
    };
    Ok(door.receiver.push(request).await?)
}

impl Door {
    /// Lets a caller in, or says why not, before its body is read.
    pub(crate) async fn admit(&self, headers: &HeaderMap) -> std::result::Result<OrganizationId, Refused> {
        let caller = self.authenticator.authenticate(headers).await.map_err(|error| Refused {
            status: StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::UNAUTHORIZED),
            message: error.to_string(),
            retry_after: (error.http_status() == 503).then_some(Duration::from_secs(1)),
        })?;
        let organization = caller.organization.ok_or_else(|| Refused {
            status: StatusCode::FORBIDDEN,
            message: "an operator's key names no organization; push with an organization's key".to_owned(),
            retry_after: None,
        })?;
        self.receiver.check_open(organization)?;
        Ok(organization)
    }
}

/// The collector's name and the idempotency key of a request.
pub(crate) fn sender(headers: &HeaderMap) -> Result<(String, Option<String>)> {
    let collector = header_text(headers, COLLECTOR_HEADER)?.unwrap_or_else(|| "default".to_owned());
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if collector.is_empty() || collector.len() > 128 || !collector.chars().all(plain) {
        let reason =
            format!("{COLLECTOR_HEADER}: {collector:?} is no collector's name; up to 128 of A-Z a-z 0-9 - _ .");
        return Err(Error::Invalid { operation: "push", reason });
    }
    let key = header_text(headers, IDEMPOTENCY_HEADER)?;
    if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > 256) {
        let reason = format!("{IDEMPOTENCY_HEADER}: expected 1 to 256 bytes");
        return Err(Error::Invalid { operation: "push", reason });
    }
    Ok((collector, key))
}

fn header_text(headers: &HeaderMap, name: &'static str) -> Result<Option<String>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value
        .to_str()
        .map_err(|_| Error::Invalid { operation: "push", reason: format!("{name}: expected ASCII text") })?;
    Ok(Some(text.trim().to_owned()))
}

fn content_encoding_of(headers: &HeaderMap) -> std::result::Result<PushEncoding, Refused> {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = value.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/x-protobuf" | "application/protobuf" => Ok(PushEncoding::Protobuf),
        "application/json" => Ok(PushEncoding::Json),
        _ => Err(Refused {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            message: format!("Content-Type {value:?} is not supported; application/x-protobuf or application/json"),
            retry_after: None,
        }),
    }
}

fn accept(signal: Signal, encoding: PushEncoding, outcome: &PushOutcome) -> Response<Body> {
    let body: Bytes = match encoding {
        PushEncoding::Protobuf => otlp_answer::encode_protobuf(outcome).into(),
        PushEncoding::Json => otlp_answer::encode_json(signal, outcome).into(),
    };
    respond(StatusCode::OK, encoding, body)
}

fn refuse(encoding: PushEncoding, refused: &Refused) -> Response<Body> {
    let code = refused.grpc_code();
    let body: Bytes = match encoding {
        PushEncoding::Protobuf => otlp_answer::encode_status(code, &refused.message, refused.retry_after).into(),
        PushEncoding::Json => serde_json::json!({ "code": code, "message": refused.message }).to_string().into(),
    };
    let mut response = respond(refused.status, encoding, body);
    if let Some(after) = refused.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    response
}

fn respond(status: StatusCode, encoding: PushEncoding, body: Bytes) -> Response<Body> {
    let content_type = match encoding {
        PushEncoding::Protobuf => "application/x-protobuf",
        PushEncoding::Json => "application/json",
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

impl Refused {
    /// The gRPC status code that tells the same.
    pub(crate) fn grpc_code(&self) -> u32 {
        match self.status.as_u16() {
            400 | 413 | 415 => 3,
            401 => 16,
            403 => 7,
            404 => 5,
            429 => 8,
            499 => 1,
            503 => 14,
            _ => 13,
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            // What a store calls missing or changed is no mistake of the sender; it repeats the request.
            Error::Store(_) | Error::NotStored { .. } => StatusCode::SERVICE_UNAVAILABLE,
            other => StatusCode::from_u16(other.kind().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        };
        let passes = status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS;
        let retry_after = error.retry_after().or_else(|| passes.then_some(Duration::from_secs(1)));
        Self { status, message: error.to_string(), retry_after }
    }
}
