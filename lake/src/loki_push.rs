//! `POST /loki/api/v1/push`: what Loki's clients send, through the same durable way in as OTLP.
//!
//! JSON, plain or gzip, or protobuf with snappy, as Grafana Loki's documentation has it under "Loki HTTP API". The answer is 204 once
//! everything is durable. Where entries were refused the others are stored all the same, and the answer is 400 with the reasons.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::routing::post;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tidemill_segment::ingest::Issue;
use tidemill_segment::loki::{LokiEncoding, LokiPush, convert_loki_push};
use tidemill_segment::push::PushEncoding;
use tidemill_types::{NANOS_PER_DAY, Signal, TimestampNs};

use crate::auth::Authenticator;
use crate::intake::{BodyTime, Compression, decompress, drain, read_body};
use crate::otlp_http::{Door, Refused, sender};
use crate::receive::{PushRequest, Receiver, Reservation};
use crate::{Error, Result};

/// Reasons that one answer names.
const ISSUES_NAMED: usize = 5;

/// The route.
pub fn router(receiver: Receiver, authenticator: Arc<dyn Authenticator>) -> Router {
    let door = Door { receiver, authenticator };
    let push = move |request: Request| {
        let door = door.clone();
        async move {
            match take(&door, request).await {
                Ok(()) => status(StatusCode::NO_CONTENT),
                Err(refused) => refuse(&refused),
            }
        }
    };
    // The body is counted as it is read, not by a general limit.
    Router::new().route("/loki/api/v1/push", post(push)).layer(axum::extract::DefaultBodyLimit::disable())
}

/// What a body is before it is JSON or protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Stream(Compression),
    Snappy,
}

async fn take(door: &Door, request: Request) -> std::result::Result<(), Refused> {
    let (parts, body) = request.into_parts();
    let (encoding, packing) = format(&parts.headers)?;
    let organization = match door.admit(&parts.headers).await {
        Ok(organization) => organization,
        Err(refused) => {
            if refused.retry_after.is_some() {
                drain(body, door.receiver.max_request_bytes()).await;
            }
            return Err(refused);
        }
    };
    let (collector, idempotency_key) = sender(&parts.headers)?;
    let mut reservation = door.receiver.reservation();
    let most = door.receiver.max_request_bytes();
    let body = read_body(body, most, BodyTime::default(), &mut reservation).await?;
    let arrival = door.receiver.now();
    let latest = arrival.plus_ns(NANOS_PER_DAY);
    let converting = tokio::task::spawn_blocking(move || convert(body, (encoding, packing), latest, most, reservation));
    let (push, reservation) =
        converting.await.map_err(|error| Error::Internal(format!("reading a push: {error}")))??;
    if push.streams == 0 {
        return Err(Refused {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            message: "at least one stream is required".to_owned(),
            retry_after: None,
        });
    }
    let (mut issues, mut rejected) = (push.issues, push.rejected);
    if push.entries > 0 {
        let request = PushRequest {
            organization,
            signal: Signal::Logs,
            collector,
            encoding: PushEncoding::Protobuf,
            compression: Compression::Identity,
            body: push.otlp.into(),
            idempotency_key,
            arrival,
            reservation: Some(reservation),
        };
        let outcome = door.receiver.push(request).await?;
        issues.extend(outcome.issues);
        rejected += outcome.rejected;
    }
    if issues.is_empty() && rejected == 0 {
        return Ok(());
    }
    Err(Refused {
        status: StatusCode::BAD_REQUEST,
        message: message(&issues, rejected, push.entries),
        retry_after: None,
    })
}

/// By content type: JSON where it says so, else protobuf, as Loki reads it.
fn format(headers: &HeaderMap) -> std::result::Result<(LokiEncoding, Packing), Refused> {
    let bad = |message: String| Refused { status: StatusCode::BAD_REQUEST, message, retry_after: None };
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_json = kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json");
    let encoding = headers.get("content-encoding").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_json {
        return match encoding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" | "snappy" => Ok((LokiEncoding::Protobuf, Packing::Snappy)),
            other => Err(bad(format!("Content-Encoding {other:?} is not supported for protobuf, which has snappy"))),
        };
    }
    let compression = Compression::from_header(headers, "content-encoding").map_err(|other| {
        bad(format!("Content-Encoding {other:?} is not supported; one of gzip, deflate, zstd, identity"))
    })?;
    Ok((LokiEncoding::Json, Packing::Stream(compression)))
}

/// Unpacks and converts; everything that is held is reserved.
fn convert(
    body: Bytes,
    (encoding, packing): (LokiEncoding, Packing),
    latest: TimestampNs,
    most: usize,
    mut reservation: Reservation,
) -> Result<(LokiPush, Reservation)> {
    let invalid = |reason: String| Error::Invalid { operation: "push", reason };
    let body = match packing {
        Packing::Stream(compression) => decompress(body, compression, most, &mut reservation)?.map_err(invalid)?,
        Packing::Snappy => {
            let length = snap::raw::decompress_len(&body).map_err(|error| invalid(error.to_string()))?;
            if length > most {
                return Err(Error::TooLarge { what: "the decompressed request", limit_bytes: most as u64 });
            }
            // No byte of snappy stands for more than 64.
            if length > body.len().saturating_mul(64) {
                return Err(invalid("snappy: corrupt input".to_owned()));
            }
            reservation.grow(length)?;
            let bytes = snap::raw::Decoder::new().decompress_vec(&body);
            Bytes::from(bytes.map_err(|error| invalid(format!("snappy: corrupt input: {error}")))?)
        }
    };
    let push = convert_loki_push(encoding, &body, latest)
        .map_err(|issue| invalid(if issue.path.is_empty() { issue.reason } else { issue.to_string() }))?;
    reservation.grow(push.otlp.len())?;
    Ok((push, reservation))
}

fn message(issues: &[Issue], rejected: u64, kept: u64) -> String {
    let mut text = format!("{rejected} entries refused, {kept} stored");
    for issue in issues.iter().take(ISSUES_NAMED) {
        text.push_str(&format!("; {issue}"));
    }
    text
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn refuse(refused: &Refused) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{}\n", refused.message)));
    *response.status_mut() = refused.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Some(after) = refused.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::MemoryBudget;

    fn convert_one(body: Vec<u8>, packing: Packing, encoding: LokiEncoding) -> Result<LokiPush> {
        let reservation = MemoryBudget::new(64 << 20).reservation();
        convert(body.into(), (encoding, packing), TimestampNs(i64::MAX), 1 << 20, reservation).map(|(push, _)| push)
    }

    #[test]
    fn snappy_is_bounded_before_it_is_unpacked() {
        let empty = snap::raw::Encoder::new().compress_vec(b"").expect("memory");
        assert_eq!(convert_one(empty, Packing::Snappy, LokiEncoding::Protobuf).expect("nothing").streams, 0);
        // It says that it has 1 GiB, or more than its bytes can stand for.
        for body in
            [b"\x80\x80\x80\x80\x04x".to_vec(), b"\x80\x80\x20x".to_vec(), b"{\"streams\": []}".to_vec(), vec![]]
        {
            let error = convert_one(body, Packing::Snappy, LokiEncoding::Protobuf).map(|push| push.streams);
            let error = error.expect_err("no push");
            assert!(matches!(error, Error::Invalid { .. } | Error::TooLarge { .. }), "{error}");
        }
    }

    #[test]
    fn the_format_is_told_by_the_headers() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
            format(&pairs.collect::<HeaderMap>()).ok()
        };
        let json = |compression| Some((LokiEncoding::Json, Packing::Stream(compression)));
        assert_eq!(headers(&[("content-type", "application/json; charset=utf-8")]), json(Compression::Identity));
        assert_eq!(
            headers(&[("content-type", "application/json"), ("content-encoding", "gzip")]),
            json(Compression::Gzip)
        );
        assert_eq!(headers(&[]), Some((LokiEncoding::Protobuf, Packing::Snappy)));
        assert_eq!(headers(&[("content-type", "application/json"), ("content-encoding", "bogus")]), None);
    }
}
