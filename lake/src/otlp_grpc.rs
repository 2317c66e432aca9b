//! OTLP over gRPC: the three `Export` services, unary.
//!
//! A unary gRPC call is one length-prefixed message over HTTP/2, so the framing is read here rather than by a generic codec:
//! that way a body is taken from the memory budget as it arrives and decompresses within the same bounds as over HTTP.
//! Follows grpc.io "gRPC over HTTP2" and "Compression"; status details after `google.rpc.RetryInfo`.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::post;
use base64::Engine as _;
use bytes::{Buf, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tidemill_segment::push::PushEncoding;
use tidemill_types::Signal;

use crate::auth::Authenticator;
use crate::intake::{BodyTime, Compression, drain, read_body};
use crate::otlp_answer;
use crate::otlp_http::{Door, Refused, sender};
use crate::receive::{PushRequest, Receiver};

/// The flag and the length before a message.
const PREFIX_BYTES: usize = 5;
/// What `grpc-message` must escape besides controls and everything beyond ASCII.
const MESSAGE_ESCAPES: &AsciiSet = &CONTROLS.add(b'%');

/// The three services.
pub fn router(receiver: Receiver, authenticator: Arc<dyn Authenticator>) -> Router {
    let door = Door { receiver, authenticator };
    let mut router = Router::new();
    for signal in Signal::ALL {
        let (service, door) = (service(signal), door.clone());
        let path = format!("/opentelemetry.proto.collector.{service}/Export");
        router = router.route(&path, post(move |request: Request| async move { export(&door, signal, request).await }));
    }
    router
}

fn service(signal: Signal) -> &'static str {
    match signal {
        Signal::Logs => "logs.v1.LogsService",
        Signal::Metrics => "metrics.v1.MetricsService",
        Signal::Traces => "trace.v1.TraceService",
    }
}

async fn export(door: &Door, signal: Signal, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    match export_inner(door, signal, &parts.headers, body).await {
        Ok(message) => succeed(&message),
        Err(refused) => fail(&refused),
    }
}

async fn export_inner(door: &Door, signal: Signal, headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Refused> {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !matches!(content_type, b"application/grpc" | b"application/grpc+proto") {
        let got = String::from_utf8_lossy(content_type);
        return Err(invalid(format!("content-type {got:?} is not supported; application/grpc")));
    }
    let compression = Compression::from_header(headers, "grpc-encoding").map_err(|other| Refused {
        // UNIMPLEMENTED, as gRPC's compression document asks.
        status: StatusCode::NOT_IMPLEMENTED,
        message: format!("grpc-encoding {other:?} is not supported; one of gzip, zstd, identity"),
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
    let max_bytes = door.receiver.max_request_bytes() + PREFIX_BYTES;
    let body = read_body(body, max_bytes, BodyTime::default(), &mut reservation).await?;
    let arrival = door.receiver.now();
    let (is_compressed, message) = message_of(body)?;
    let compression = if is_compressed { compression } else { Compression::Identity };
    let (collector, idempotency_key) = sender(headers)?;
    let request = PushRequest {
        organization,
        signal,
        collector,
        encoding: PushEncoding::Protobuf,
        compression,
        body: message,
        idempotency_key,
        arrival,
        reservation: Some(reservation),
    };
    let outcome = door.receiver.push(request).await?;
    Ok(otlp_answer::encode_protobuf(&outcome))
}

/// The one message of a unary call, and whether it is compressed.
fn message_of(mut body: Bytes) -> Result<(bool, Bytes), Refused> {
    if body.len() < PREFIX_BYTES {
        return Err(invalid(format!(
            "expected one message with its {PREFIX_BYTES}-byte prefix, got {} bytes",
            body.len()
        )));
    }
    let flag = body.get_u8();
    let length = body.get_u32() as usize;
    if flag > 1 {
        return Err(invalid(format!("the message's compression flag is {flag}; 0 or 1")));
    }
    if body.len() != length {
        return Err(invalid(format!("the message's prefix says {length} bytes and {} follow", body.len())));
    }
    Ok((flag == 1, body))
}

fn invalid(message: String) -> Refused {
    Refused { status: StatusCode::BAD_REQUEST, message, retry_after: None }
}

fn succeed(message: &[u8]) -> Response<Body> {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.extend_from_slice(&[0]);
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(framed.freeze()).with_trailers(async move { Some(Ok(trailers)) });
    grpc_response(Body::new(body))
}

/// An error is a response of headers only ("Trailers-Only").
fn fail(refused: &Refused) -> Response<Body> {
    let mut response = grpc_response(Body::empty());
    let code = if refused.status == StatusCode::NOT_IMPLEMENTED { 12 } else { refused.grpc_code() };
    let message = utf8_percent_encode(&refused.message, MESSAGE_ESCAPES).to_string();
    let details = otlp_answer::encode_status(code, &refused.message, refused.retry_after);
    let details = base64::engine::general_purpose::STANDARD_NO_PAD.encode(details);
    let headers = response.headers_mut();
    headers.insert("grpc-status", HeaderValue::from(code));
    for (name, value) in [("grpc-message", message), ("grpc-status-details-bin", details)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    response
}

fn grpc_response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity,gzip,zstd"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_whole_message_is_read() {
        let (is_compressed, message) = message_of(Bytes::from_static(b"\x01\0\0\0\x02hi")).expect("whole");
        assert!(is_compressed);
        assert_eq!(&message[..], b"hi");
    }

    #[test]
    fn torn_and_surplus_messages_are_refused() {
        for (body, word) in [
            (&b"\0\0\0"[..], "prefix"),
            (b"\0\0\0\0\x03hi", "says 3"),
            (b"\0\0\0\0\x01hi", "says 1"),
            (b"\x02\0\0\0\0", "flag"),
        ] {
            let refused = message_of(Bytes::copy_from_slice(body)).expect_err("is refused");
            assert!(refused.message.contains(word), "{}", refused.message);
            assert_eq!(refused.grpc_code(), 3);
        }
    }
}
