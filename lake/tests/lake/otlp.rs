//! The OTLP doors, called as a client calls them.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{Lake, logs};
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;
use tidemill_lake::auth::{AuthError, Authenticator, Caller, api_key};
use tidemill_lake::receive::{Receiver, ReceiverOptions};
use tidemill_lake::{otlp_grpc, otlp_http};
use tidemill_store::metastore::KeyRole;
use tidemill_types::OrganizationId;
use tower::ServiceExt;

#[derive(Debug)]
struct OneKey(OrganizationId);

#[async_trait]
impl Authenticator for OneKey {
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, AuthError> {
        match api_key(headers).as_deref() {
            Some("key") => Ok(Caller { organization: Some(self.0), role: KeyRole::Organization }),
            Some(_) => Err(AuthError::Unknown),
            None => Err(AuthError::Missing),
        }
    }
}

fn receiver(lake: &Lake) -> Receiver {
    lake.receiver(ReceiverOptions { gather: Duration::ZERO, max_request_bytes: 1 << 20, ..ReceiverOptions::default() })
}

fn http_router(lake: &Lake) -> Router {
    otlp_http::router(receiver(lake), Arc::new(OneKey(lake.organization)))
}

fn post(path: &str, content_type: &str) -> http::request::Builder {
    Request::post(path).header("content-type", content_type).header("authorization", "Bearer key")
}

async fn send(router: &Router, request: Request<Body>) -> (StatusCode, HeaderMap, Vec<u8>) {
    let response: Response<Body> = router.clone().oneshot(request).await.expect("never fails");
    let (parts, body) = response.into_parts();
    (parts.status, parts.headers, body.collect().await.expect("is read").to_bytes().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_plain_gzip_and_zstd_are_accepted() {
    let lake = Lake::new().await;
    let router = http_router(&lake);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&logs(10..20)).expect("memory");
    let bodies = [
        ("identity", logs(0..10)),
        ("gzip", gzip.finish().expect("memory")),
        ("zstd", zstd::encode_all(&logs(20..30)[..], 1).expect("memory")),
    ];
    for (encoding, body) in bodies {
        let request = post("/v1/logs", "application/x-protobuf").header("content-encoding", encoding);
        let (status, headers, answer) = send(&router, request.body(body.into()).expect("valid")).await;
        assert_eq!(status, StatusCode::OK, "{encoding}");
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(ExportLogsServiceResponse::decode(&answer[..]).expect("valid").partial_success, None);
    }
    lake.drain().await;
    assert_eq!(lake.rows().await, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_accepted_and_answered_in_json() {
    let lake = Lake::new().await;
    let router = http_router(&lake);
    let body = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1767225600000000000","body":{"stringValue":"tide"}}]}]}]}"#;
    let request = post("/v1/logs", "application/json; charset=utf-8").body(Body::from(body)).expect("valid");
    let (status, headers, answer) = send(&router, request).await;
    assert_eq!((status, answer.as_slice()), (StatusCode::OK, &b"{}"[..]));
    assert_eq!(headers["content-type"], "application/json");
    lake.drain().await;
    assert_eq!(lake.rows().await, 1);
}

/// The answer names each refused record by its place in what was sent, and the inbox shows it, whatever the encoding.
#[tokio::test(flavor = "multi_thread")]
async fn a_partial_success_names_records_and_the_inbox_shows_them() {
    let lake = Lake::new().await;
    let router = http_router(&lake);
    let good = r#"{"body":{"stringValue":"tide"}}"#;
    let body = format!(
        r#"{{"resourceLogs":[{{}},{{"scopeLogs":[{{"logRecords":[{good},{{"timeUnixNano":"soon"}},{good},{{"traceId":"ab"}}]}}]}}]}}"#
    );
    let (status, _, answer) =
        send(&router, post("/v1/logs", "application/json").body(body.into()).expect("valid")).await;
    assert_eq!(status, StatusCode::OK);
    let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
    let expected = "2 of 4 records refused; resourceLogs[1].scopeLogs[0].logRecords[1].timeUnixNano: \"soon\" is no integer; \
                    resourceLogs[1].scopeLogs[0].logRecords[3].traceId: 1 bytes, expected 16";
    assert_eq!(answer["partialSuccess"], serde_json::json!({"rejectedLogRecords": "2", "errorMessage": expected}));

    let mut request =
        opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest::decode(&logs(0..3)[..])
            .expect("ours");
    request.resource_logs[0].scope_logs[0].log_records[1].span_id = vec![1; 7];
    let (status, _, answer) =
        send(&router, post("/v1/logs", "application/x-protobuf").body(request.encode_to_vec().into()).expect("valid"))
            .await;
    assert_eq!(status, StatusCode::OK);
    let partial = ExportLogsServiceResponse::decode(&answer[..]).expect("valid").partial_success.expect("is partial");
    assert_eq!(partial.rejected_log_records, 1);
    let place = "resourceLogs[0].scopeLogs[0].logRecords[1].spanId: 7 bytes, expected 8";
    assert!(partial.error_message.contains(place), "{}", partial.error_message);

    lake.drain().await;
    assert_eq!(lake.rows().await, 4);
    let inbox = lake.metastore.inbox(None, 10).await.expect("is read");
    let reasons: Vec<&str> = inbox.iter().filter_map(|entry| entry.reason.as_deref()).collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(
        reasons.iter().any(|reason| reason.contains(expected) && reason.contains("2 records refused, 2 kept")),
        "{reasons:?}"
    );
    assert!(
        reasons.iter().any(|reason| reason.contains(place) && reason.contains("1 records refused, 2 kept")),
        "{reasons:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_and_bodies_are_checked() {
    let lake = Lake::new().await;
    let router = http_router(&lake);
    let cases: [(&str, &str, &str, &[u8], u16); 6] = [
        ("", "application/x-protobuf", "identity", b"", 401),
        ("wrong", "application/x-protobuf", "identity", b"", 401),
        ("key", "text/plain", "identity", b"", 415),
        ("key", "application/x-protobuf", "br", b"", 415),
        ("key", "application/x-protobuf", "gzip", b"no gzip", 400),
        ("key", "application/x-protobuf", "identity", &[0; (1 << 20) + 1], 413),
    ];
    for (key, content_type, encoding, body, expected) in cases {
        let mut request =
            Request::post("/v1/logs").header("content-type", content_type).header("content-encoding", encoding);
        if !key.is_empty() {
            request = request.header("x-api-key", key);
        }
        let (status, _, answer) = send(&router, request.body(Body::from(body.to_vec())).expect("valid")).await;
        assert_eq!(status.as_u16(), expected, "{key} {content_type} {encoding}: {}", String::from_utf8_lossy(&answer));
        assert!(!answer.is_empty(), "the answer says what is wrong");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_gate_answers_429_with_retry_after() {
    let lake = Lake::new().await;
    let router = http_router(&lake);
    lake.gate.close("the disk is full");
    let request = post("/v1/logs", "application/json").body(Body::from("{}")).expect("valid");
    let (status, headers, answer) = send(&router, request).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(headers["retry-after"].to_str().expect("text").parse::<u32>().expect("seconds") >= 1);
    assert!(String::from_utf8_lossy(&answer).contains("the disk is full"));
}

fn grpc(body: Vec<u8>, compressed: u8) -> Request<Body> {
    let mut framed = vec![compressed];
    framed.extend((body.len() as u32).to_be_bytes());
    framed.extend(body);
    Request::post("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-encoding", "zstd")
        .header("x-api-key", "key")
        .body(Body::from(framed))
        .expect("valid")
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_answers_in_trailers() {
    let lake = Lake::new().await;
    let router = otlp_grpc::router(receiver(&lake), Arc::new(OneKey(lake.organization)));
    for (message, flag) in [(logs(0..10), 0), (zstd::encode_all(&logs(10..20)[..], 1).expect("memory"), 1)] {
        let response = router.clone().oneshot(grpc(message, flag)).await.expect("never fails");
        assert_eq!(response.status(), StatusCode::OK);
        let collected = response.into_body().collect().await.expect("is read");
        assert_eq!(collected.trailers().expect("has trailers")["grpc-status"], "0");
        assert_eq!(&collected.to_bytes()[..], [0, 0, 0, 0, 0]);
    }
    lake.drain().await;
    assert_eq!(lake.rows().await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_tells_back_pressure_with_retry_info() {
    let lake = Lake::new().await;
    let router = otlp_grpc::router(receiver(&lake), Arc::new(OneKey(lake.organization)));
    lake.gate.close("the disk is full");
    let response = router.oneshot(grpc(logs(0..1), 0)).await.expect("never fails");
    assert_eq!(response.headers()["grpc-status"], "8");
    assert!(response.headers()["grpc-message"].to_str().expect("text").contains("the disk is full"));
    assert!(response.headers().contains_key("grpc-status-details-bin"));
}
