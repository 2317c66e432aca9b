//! The API from a caller's side, over a real metastore and folder.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tidemill_lake::receive::Gate;
use tidemill_store::metastore::Refusal;
use tower::ServiceExt as _;

use super::*;
use crate::admin::MAX_ROWS;
use crate::auth::{KeyRing, Openness};
use crate::config::{Config, Layers};
use crate::data_folder::DataFolder;
use crate::intake::Intake;
use crate::stack::Stack;

struct Api {
    _folder: tempfile::TempDir,
    admin: Admin,
    routes: Router,
    operator: String,
    shop: String,
    other: String,
}

impl Api {
    async fn new() -> Self {
        let temporary = tempfile::tempdir().expect("a folder");
        let path = temporary.path().display().to_string();
        let flags = vec![("data_dir".to_owned(), "--data-dir".to_owned(), path)];
        let config = Config::merge(&Layers { flags, ..Layers::default() }).expect("is valid");
        let folder = DataFolder::new(temporary.path().to_owned());
        folder.create().expect("is created");
        folder.clear_spool().expect("is created");
        let stack = Stack::open(config, folder.spool()).await.expect("opens");
        let admin = Admin { metastore: stack.metastore.clone() };
        for name in ["shop", "other"] {
            admin.create_organization(name, None).await.expect("is created");
        }
        let key = async |organization| admin.create_key(organization, "").await.expect("is made").key;
        let (operator, shop, other) = (key(None).await, key(Some("shop")).await, key(Some("other")).await);
        let readiness = Readiness::default();
        readiness.set(true);
        let intake = Intake {
            metastore: stack.metastore.clone(),
            buckets: stack.buckets.clone(),
            placement: stack.placement(),
            gate: Gate::default(),
        };
        let routes = router(ApiState {
            authenticator: Arc::new(KeyRing::new(
                stack.metastore.clone(),
                Openness::KeyNeeded,
                Duration::from_secs(60),
            )),
            admin: admin.clone(),
            readiness,
            numbers: Numbers::default(),
            queries: Some(Queries::new(&stack)),
            fleet: None,
            load: LoadState { intake, spool: stack.spool },
            receiver: None,
        });
        Self { _folder: temporary, admin, routes, operator, shop, other }
    }

    async fn ask(&self, method: Method, path: &str, key: Option<&str>, body: Value) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let answer = self.routes.clone().oneshot(request.body(body).expect("a request")).await.expect("is answered");
        let status = answer.status();
        let bytes = answer.into_body().collect().await.expect("has a body").to_bytes();
        (
            status,
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned())),
        )
    }

    async fn get(&self, path: &str, key: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, path, Some(key), Value::Null).await
    }
}

#[tokio::test]
async fn health_needs_no_key_and_everything_else_does() {
    let api = Api::new().await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(api.ask(Method::GET, path, None, Value::Null).await.0, StatusCode::OK, "{path}");
    }
    for path in [
        "/api/v1/status",
        "/api/v1/inbox",
        "/api/v1/queue",
        "/api/v1/segments",
        "/api/v1/organizations",
        "/api/v1/keys",
    ] {
        let (status, body) = api.ask(Method::GET, path, None, Value::Null).await;
        assert_eq!((status, &body["error"]["kind"]), (StatusCode::UNAUTHORIZED, &json!("unauthenticated")), "{path}");
    }
    let (status, body) = api.ask(Method::GET, "/api/v2/nothing", None, Value::Null).await;
    assert_eq!((status, &body["error"]["kind"]), (StatusCode::NOT_FOUND, &json!("not_found")));
}

#[tokio::test]
async fn an_input_is_found_behind_any_number_of_others() {
    let api = Api::new().await;
    let load = "/api/v1/load?name=logs.json&signal=logs&format=json_lines";
    let (_, loaded) = api.ask(Method::POST, load, Some(&api.shop), json!({ "body": "hello" })).await;
    let at = api.admin.metastore.now().await.expect("is told");
    let refusal = |number: usize| Refusal {
        organization: None,
        signal: None,
        bucket: "push".to_owned(),
        object_key: number.to_string(),
        records_refused: 0,
        records_kept: 0,
        reason: "is broken".to_owned(),
        at,
    };
    let refusals: Vec<Refusal> = (0..=MAX_ROWS).map(refusal).collect();
    api.admin.metastore.record_refusals(&refusals).await.expect("are recorded");
    let (work, key) = (&loaded["work"], loaded["object_key"].as_str().unwrap_or_default());
    for query in [format!("work={work}"), format!("object_key={key}"), "state=waiting".to_owned()] {
        let (_, found) = api.get(&format!("/api/v1/inbox?{query}"), &api.operator).await;
        assert_eq!(found.as_array().map(Vec::len), Some(1), "{query}: {found}");
        assert_eq!(&found[0]["work"], work, "{query}");
    }
    let (_, found) = api.get(&format!("/api/v1/queue?work={work}"), &api.operator).await;
    assert_eq!(&found[0]["id"], work, "{found}");
}

#[tokio::test]
async fn what_is_not_there_is_told_as_everything_else() {
    let api = Api::new().await;
    let (status, body) = api.ask(Method::GET, "/api/v1/sql", Some(&api.shop), Value::Null).await;
    assert_eq!((status, &body["error"]["kind"]), (StatusCode::METHOD_NOT_ALLOWED, &json!("invalid")), "{body}");
    assert_eq!(api.ask(Method::GET, "/", None, Value::Null).await.0, StatusCode::OK);
    let long = json!({ "query": "x".repeat(MAX_BODY_BYTES) });
    let backwards = json!({ "query": "SELECT 1", "limits": { "start_ns": 2, "end_ns": 1 } });
    for (path, body, key, word) in [
        ("/api/v1/sql", long, &api.shop, "more than"),
        ("/api/v1/sql", backwards, &api.shop, "not before"),
        ("/api/v1/load?name=logs&signal=logs", Value::Null, &api.shop, "the file is empty"),
    ] {
        let (status, body) = api.ask(Method::POST, path, Some(key), body).await;
        assert_eq!((status, &body["error"]["kind"]), (StatusCode::BAD_REQUEST, &json!("invalid")), "{body}");
        assert!(body["error"]["message"].as_str().is_some_and(|text| text.contains(word)), "{word}: {body}");
    }
    let kept = json!({ "retention_days": { "logs": 40_000 } });
    let (status, body) = api.ask(Method::PATCH, "/api/v1/organizations/shop", Some(&api.operator), kept).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
}

#[tokio::test]
async fn an_organization_administers_nothing_and_sees_its_own() {
    let api = Api::new().await;
    for path in ["/api/v1/status", "/api/v1/organizations", "/api/v1/keys", "/api/v1/documents/storage-profiles"] {
        assert_eq!(api.get(path, &api.shop).await.0, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(api.get(path, &api.operator).await.0, StatusCode::OK, "{path}");
    }
    let load = "/api/v1/load?name=logs.json&signal=logs&format=json_lines";
    let (status, loaded) = api.ask(Method::POST, load, Some(&api.shop), json!({ "body": "hello" })).await;
    assert_eq!(status, StatusCode::OK, "{loaded}");
    let (_, again) = api.ask(Method::POST, load, Some(&api.shop), json!({ "body": "hello" })).await;
    assert_eq!(again["work"], Value::Null, "the same content is loaded once");
    let count = async |key: &str| api.get("/api/v1/inbox", key).await.1.as_array().map(Vec::len);
    assert_eq!(
        [count(&api.shop).await, count(&api.other).await, count(&api.operator).await],
        [Some(1), Some(0), Some(1)]
    );
    let queue = async |key: &str| api.get("/api/v1/queue", key).await.1.as_array().map(Vec::len);
    assert_eq!([queue(&api.shop).await, queue(&api.other).await], [Some(1), Some(0)]);

    let second = "/api/v1/load?name=more.json&signal=logs&format=json_lines";
    assert_eq!(api.ask(Method::POST, second, Some(&api.shop), json!({ "body": "more" })).await.0, StatusCode::OK);
    for (limit, rows, has_more) in [(1, 1, true), (2, 2, false)] {
        let request = Request::get(format!("/api/v1/queue?limit={limit}"))
            .header("authorization", format!("Bearer {}", api.shop))
            .body(Body::empty())
            .expect("is a request");
        let response = api.routes.clone().oneshot(request).await.expect("is answered");
        assert_eq!(response.headers().contains_key(administration::MORE_HEADER), has_more, "limit {limit}");
        let body = response.into_body().collect().await.expect("is read").to_bytes();
        let listed: Vec<Value> = serde_json::from_slice(&body).expect("is a list");
        assert_eq!(listed.len(), rows);
    }
}

#[tokio::test]
async fn wrong_requests_say_what_is_allowed() {
    let api = Api::new().await;
    for (path, word) in [
        ("/api/v1/inbox?stat=dead", "stat"),
        ("/api/v1/inbox?state=gone", "refused"),
        ("/api/v1/queue?limit=0", "at least 1"),
        ("/api/v1/segments/x", "UUID"),
    ] {
        let (status, body) = api.get(path, &api.operator).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {body}");
        assert!(body["error"]["message"].as_str().is_some_and(|text| text.contains(word)), "{path}: {body}");
    }
    let body = json!({ "name": "new", "colour": "red" });
    let (status, body) = api.ask(Method::POST, "/api/v1/organizations", Some(&api.operator), body).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body["error"]["message"].as_str().is_some_and(|text| text.contains("colour")), "{body}");
    let body = json!({ "name": "shop" });
    assert_eq!(api.ask(Method::POST, "/api/v1/organizations", Some(&api.operator), body).await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn statements_are_answered_in_the_format_asked_for() {
    let api = Api::new().await;
    let (status, row) =
        api.ask(Method::POST, "/api/v1/sql", Some(&api.shop), json!({ "query": "SELECT 1 AS one" })).await;
    assert_eq!((status, row), (StatusCode::OK, json!({ "one": 1 })));
    let (status, body) =
        api.ask(Method::POST, "/api/v1/sql", Some(&api.shop), json!({ "query": "DROP TABLE logs" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    let (status, body) =
        api.ask(Method::POST, "/api/v1/sql", Some(&api.operator), json!({ "query": "SELECT 1" })).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "an operator says for whom: {body}");
    let limits = json!({ "query": "SELECT 1", "limits": { "time_ms": 86_400_000 } });
    let (status, body) = api.ask(Method::POST, "/api/v1/sql", Some(&api.shop), limits).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
}

#[tokio::test]
async fn questions_of_prometheus_are_answered_in_its_shape() {
    let api = Api::new().await;
    for base in ["/api/v1", "/prometheus/api/v1"] {
        let (status, body) = api.get(&format!("{base}/query?query=1%2B1&time=7&stats=all"), &api.shop).await;
        assert_eq!((status, &body["data"]["result"]), (StatusCode::OK, &json!([7, "2"])), "{body}");
        assert!(body["data"]["stats"]["samples"]["totalQueryableSamples"].is_u64(), "{body}");
        let (_, body) = api.get(&format!("{base}/query_range?query=time()&start=0&end=4&step=2"), &api.shop).await;
        assert_eq!(body["data"]["result"][0]["values"], json!([[0, "0"], [2, "2"], [4, "4"]]), "{body}");
        for path in ["/rules", "/alerts", "/status/buildinfo", "/status/flags", "/labels", "/metadata"] {
            let (status, body) = api.get(&format!("{base}{path}"), &api.shop).await;
            assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("success")), "{path}: {body}");
        }
    }
    for (path, status, kind, word) in [
        ("query?query=up%20%2B", 400, "bad_data", "parse error"),
        ("query", 400, "bad_data", "query"),
        ("query?query=up&time=soon", 400, "bad_data", "valid timestamp"),
        ("query_range?query=up&start=0&end=9&step=0", 400, "bad_data", "zero or negative"),
        ("query_range?query=up&start=9&end=0&step=1", 400, "bad_data", "before start"),
        ("query_range?query=up&start=0&end=99999&step=1", 400, "bad_data", "11,000"),
        ("query_range?query=up%5B5m%5D&start=0&end=9&step=1", 400, "bad_data", "range query"),
        ("query?query=topk(NaN,vector(1))", 422, "execution", "NaN"),
        ("series", 400, "bad_data", "match[]"),
        ("series?match[]=%7B%7D", 400, "bad_data", "match[]"),
        ("labels?limit=x", 400, "bad_data", "limit"),
    ] {
        let (answered, body) = api.get(&format!("/api/v1/{path}"), &api.shop).await;
        assert_eq!((answered.as_u16(), &body["errorType"]), (status, &json!(kind)), "{path}: {body}");
        assert!(body["error"].as_str().is_some_and(|text| text.contains(word)), "{path}: {body}");
    }
    // This process does not receive.
    assert_eq!(api.ask(Method::POST, "/api/v1/write", Some(&api.shop), Value::Null).await.0, StatusCode::NOT_FOUND);
    assert_eq!(api.ask(Method::GET, "/api/v1/query?query=1", None, Value::Null).await.0, StatusCode::UNAUTHORIZED);
}
