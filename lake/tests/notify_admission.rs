//! Notifications over a real metastore and a folder: who may announce what, once, and what is seen of the rest.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill_lake::auth::{AuthError, Authenticator, Caller, api_key};
use tidemill_lake::clock::SystemClock;
use tidemill_lake::notify::webhook::{WebhookDeps, router};
use tidemill_lake::notify::{
    Admitter, AdmitterOptions, Authority, Confirmer, Denied, KeySource, ObjectEvent, PushTokenOptions,
    PushTokenVerifier,
};
use tidemill_lake::receive::Gate;
use tidemill_store::buckets::Buckets;
use tidemill_store::folder::FolderStore;
use tidemill_store::metastore::{InboxEntry, KeyRole};
use tidemill_store::object::{ObjectInfo, ObjectRead, PutBody, PutMode};
use tidemill_store::sqlite::SqliteMetastore;
use tidemill_store::{Metastore, ObjectStore};
use tidemill_types::{OrganizationId, PrefixMapping, Routing, Signal};
use tower::ServiceExt;

const ORG: &str = "dddddddd-aaaa-4ff9-ae8f-365873c552f0";
const OTHER: &str = "00000000-0000-4000-8000-000000000001";
const UNKNOWN: &str = "00000000-0000-4000-8000-00000000000f";

fn id(text: &str) -> OrganizationId {
    text.parse().expect("a UUID")
}

struct World {
    folder: TempDir,
    metastore: Arc<SqliteMetastore>,
    buckets: Buckets,
    admitter: Admitter,
    gate: Gate,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let metastore = SqliteMetastore::open(&folder.path().join("metastore.db")).await.expect("a metastore");
        let metastore = Arc::new(metastore);
        for (organization, name) in [(ORG, "one"), (OTHER, "two")] {
            metastore.create_organization(id(organization), name).await.expect("created");
        }
        let buckets = Buckets::new();
        buckets.set("lake", Arc::new(FolderStore::open(&folder.path().join("lake")).expect("a folder")));
        let routing = Routing {
            mappings: vec![PrefixMapping {
                bucket: "lake".to_owned(),
                organization: id(ORG),
                path_prefix: "logs-raw/".to_owned(),
                signal: Some(Signal::Logs),
            }],
            default_bucket: Some("lake".to_owned()),
            ..Routing::default()
        };
        let gate = Gate::default();
        let admitter = Admitter::new(AdmitterOptions {
            metastore: metastore.clone(),
            buckets: buckets.clone(),
            routing: Arc::new(ArcSwap::from_pointee(routing)),
            clock: Arc::new(SystemClock),
            gate: gate.clone(),
        });
        Self { folder, metastore, buckets, admitter, gate }
    }

    fn write(&self, key: &str, text: &str) {
        let path = self.folder.path().join("lake").join(key);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, text).expect("written");
    }

    async fn inbox(&self, state: &str) -> Vec<InboxEntry> {
        let mut entries = self.metastore.inbox(None, 1000).await.expect("the inbox");
        entries.retain(|entry| entry.state == state);
        entries.sort_by(|one, other| one.object_key.cmp(&other.object_key));
        entries
    }

    async fn post(&self, request: Request<Body>) -> (StatusCode, Value) {
        let jwks = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/notify/test_keys/push_token.jwks.json");
        self.post_with(request, Some(jwks.as_path())).await
    }

    async fn post_with(&self, request: Request<Body>, jwks: Option<&Path>) -> (StatusCode, Value) {
        self.post_to(request, jwks, None).await
    }

    async fn post_to(&self, request: Request<Body>, jwks: Option<&Path>, sns: Option<&str>) -> (StatusCode, Value) {
        let verifier = jwks.map(|path| {
            let keys = KeySource::File(path.to_owned());
            let options = PushTokenOptions { keys, audience: AUDIENCE.to_owned(), email: EMAIL.to_owned() };
            Arc::new(PushTokenVerifier::new(options).expect("a verifier"))
        });
        let deps = WebhookDeps {
            admitter: self.admitter.clone(),
            authenticator: Arc::new(Keys),
            confirmer: Confirmer::new(sns).expect("a confirmer"),
            push_tokens: verifier,
        };
        let answer = router(deps).oneshot(request).await.expect("an answer");
        let status = answer.status();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}

const AUDIENCE: &str = "https://lake.example/notifications";
const EMAIL: &str = "pusher@project.iam.gserviceaccount.com";

/// `operator` is an operator's key, an organization's id is its own.
#[derive(Debug)]
struct Keys;

#[async_trait]
impl Authenticator for Keys {
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, AuthError> {
        let key = api_key(headers).ok_or(AuthError::Missing)?;
        if key == "operator" {
            return Ok(Caller { organization: None, role: KeyRole::Operator });
        }
        let organization = key.parse().map_err(|_| AuthError::Unknown)?;
        Ok(Caller { organization: Some(organization), role: KeyRole::Organization })
    }
}

fn event(key: &str, version: Option<&str>, etag: Option<&str>, size_bytes: Option<u64>) -> ObjectEvent {
    let (version, etag) = (version.map(str::to_owned), etag.map(str::to_owned));
    ObjectEvent { bucket: "lake".to_owned(), key: key.to_owned(), size_bytes, version, etag, event_time: None }
}

fn raw(organization: &str, name: &str) -> String {
    format!("otel-raw/{organization}/east/2026/{name}")
}

fn s3_body(keys: &[&str]) -> Value {
    let record = |key: &&str| json!({"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "lake"}, "object": {"key": key, "size": 5, "eTag": "e"}}});
    json!({"Records": keys.iter().map(record).collect::<Vec<_>>()})
}

fn request(address: &str, key: Option<&str>, body: &Value) -> Request<Body> {
    let mut request = Request::post(address);
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    request.body(Body::from(body.to_string())).expect("a request")
}

#[tokio::test]
async fn a_replayed_event_is_nothing_and_a_re_upload_is_new_data() {
    let world = World::new().await;
    let key = raw(ORG, "logs_1.json");
    let admit = |events: Vec<ObjectEvent>| {
        let admitter = world.admitter.clone();
        async move {
            let admitted = admitter.admit(&events, Authority::Operator).await.expect("admitted");
            (admitted.admitted, admitted.known, admitted.refused.len())
        }
    };
    assert_eq!(admit(vec![event(&key, None, Some("\"one\""), Some(5))]).await, (1, 0, 0));
    assert_eq!(admit(vec![event(&key, None, Some("\"one\""), Some(5))]).await, (0, 1, 0));
    // The same ETag as an answer of the store writes it.
    assert_eq!(admit(vec![event(&key, None, Some("one"), Some(5))]).await, (0, 1, 0));
    assert_eq!(admit(vec![event(&key, None, Some("two"), Some(5))]).await, (1, 0, 0));
    assert_eq!(admit(vec![event(&key, Some("v1"), Some("two"), Some(5))]).await, (1, 0, 0));
    assert_eq!(admit(vec![event(&key, Some("v2"), Some("two"), Some(5))]).await, (1, 0, 0));
    let twice = event(&key, Some("v3"), Some("two"), Some(5));
    assert_eq!(admit(vec![twice.clone(), twice]).await, (1, 1, 0));
    assert_eq!(world.inbox("waiting").await.len(), 5);
}

#[tokio::test]
async fn what_an_event_leaves_out_is_asked_of_the_store() {
    let world = World::new().await;
    world.write("logs-raw/a.json", "12345");
    let first = [event("logs-raw/a.json", None, None, None)];
    assert_eq!(world.admitter.admit(&first, Authority::Operator).await.expect("admitted").admitted, 1);
    assert_eq!(world.admitter.admit(&first, Authority::Operator).await.expect("admitted").known, 1);
    let entry = &world.inbox("waiting").await[0];
    assert_eq!((entry.size_bytes, entry.organization, entry.signal), (5, Some(id(ORG)), Some(Signal::Logs)));
    world.write("logs-raw/a.json", "123456");
    assert_eq!(world.admitter.admit(&first, Authority::Operator).await.expect("admitted").admitted, 1);
}

/// As Cloud Storage sends: a generation and no ETag. Both events may come when only the second content is left.
#[tokio::test]
async fn two_events_of_one_content_are_one_input() {
    let world = World::new().await;
    world.write("logs-raw/a.json", "12345");
    let events = ["1", "2"].map(|version| event("logs-raw/a.json", Some(version), None, Some(5)));
    for (event, expected) in events.iter().zip([(1, 0), (0, 1)]) {
        let admitted = world.admitter.admit(std::slice::from_ref(event), Authority::Operator).await.expect("admitted");
        assert_eq!((admitted.admitted, admitted.known), expected, "{event:?}");
    }
    // A store that tells its versions: the announced one is gone, the other one is known by its own event.
    let store = Arc::new(Versioned { inner: FolderStore::open(&world.folder.path().join("lake")).expect("a folder") });
    world.buckets.set("lake", store);
    for (version, expected) in [("6", (0, 1)), ("7", (1, 0))] {
        let event = event("logs-raw/a.json", Some(version), None, Some(5));
        let admitted = world.admitter.admit(&[event], Authority::Operator).await.expect("admitted");
        assert_eq!((admitted.admitted, admitted.refused.len()), expected, "{admitted:?}");
    }
    let refused = world.inbox("refused").await;
    assert!(refused[0].reason.as_deref().is_some_and(|reason| reason.contains("6 was replaced by 7")), "{refused:?}");
}

/// A folder whose objects all have version 7.
#[derive(Debug)]
struct Versioned {
    inner: FolderStore,
}

#[async_trait]
impl ObjectStore for Versioned {
    async fn put(&self, key: &str, body: PutBody, mode: PutMode) -> tidemill_store::Result<ObjectInfo> {
        self.inner.put(key, body, mode).await
    }

    async fn get(&self, key: &str, if_match: Option<&str>) -> tidemill_store::Result<ObjectRead> {
        self.inner.get(key, if_match).await
    }

    async fn get_ranges(&self, key: &str, ranges: &[std::ops::Range<u64>]) -> tidemill_store::Result<Vec<Bytes>> {
        self.inner.get_ranges(key, ranges).await
    }

    async fn head(&self, key: &str) -> tidemill_store::Result<ObjectInfo> {
        Ok(ObjectInfo { version: Some("7".to_owned()), ..self.inner.head(key).await? })
    }

    async fn delete(&self, key: &str) -> tidemill_store::Result<()> {
        self.inner.delete(key).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, tidemill_store::Result<ObjectInfo>> {
        self.inner.list(prefix)
    }
}

#[tokio::test]
async fn what_cannot_be_admitted_is_in_the_inbox_with_its_reason() {
    let world = World::new().await;
    world.write("logs-raw/empty.json", "");
    let mut elsewhere = event("logs-raw/x.json", None, Some("e"), Some(5));
    elsewhere.bucket = "another".to_owned();
    let events = [
        event("logs-raw/empty.json", None, None, None),
        event("logs-raw/gone.json", None, None, None),
        event("logs-raw/huge.json", None, Some("e"), Some(4 * 1024 * 1024 * 1024 + 1)),
        event("unmapped/x.json", None, Some("e"), Some(5)),
        event("otel-raw/no-uuid/c/logs_1", None, Some("e"), Some(5)),
        event(&raw(UNKNOWN, "logs_1"), None, Some("e"), Some(5)),
        event("db/x.parquet", None, Some("e"), Some(5)),
        event(&raw(ORG, "logs_good"), None, Some("e"), Some(5)),
        elsewhere,
    ];
    let admitted = world.admitter.admit(&events, Authority::Operator).await.expect("admitted");
    assert_eq!((admitted.admitted, admitted.ignored, admitted.refused.len()), (1, 1, 7));
    let refused = world.inbox("refused").await;
    assert_eq!(refused.len(), 7);
    for (key, words) in [
        ("logs-raw/empty.json", "empty"),
        ("logs-raw/gone.json", "cannot be read"),
        ("logs-raw/huge.json", "4 GiB"),
        ("unmapped/x.json", "no prefix mapping"),
        ("otel-raw/no-uuid/c/logs_1", "UUID"),
        (&raw(UNKNOWN, "logs_1"), "does not exist"),
        ("logs-raw/x.json", "no prefix mapping of bucket \"another\""),
    ] {
        let entry = refused.iter().find(|entry| entry.object_key == key).unwrap_or_else(|| panic!("{key} is shown"));
        let reason = entry.reason.as_deref().unwrap_or_default();
        assert!(reason.contains(words), "{key}: {reason}");
    }
}

#[tokio::test]
async fn names_that_nobody_could_ever_ask_for_are_refused() {
    let world = World::new().await;
    let long = raw(ORG, &format!("logs_{}", "x".repeat(2048)));
    let events = [
        event(&raw(ORG, "logs_\0"), None, Some("e"), Some(5)),
        event(&long, None, Some("e"), Some(5)),
        event(&raw(ORG, "logs_1"), None, Some("a\r\nhost: b"), Some(5)),
        event(&raw(ORG, "logs_2"), Some("\0"), Some("e"), Some(5)),
        event(&raw(ORG, "logs_ü %25"), Some("v"), Some("\"e-2\""), Some(5)),
    ];
    let admitted = world.admitter.admit(&events, Authority::Operator).await.expect("admitted");
    let reasons: Vec<&str> = admitted.refused.iter().map(|refusal| refusal.reason.as_str()).collect();
    assert_eq!(admitted.admitted, 1, "{reasons:?}");
    for (reason, words) in
        reasons.iter().zip(["key has a zero byte", "key has 21", "ETag \"a\\r\\nhost: b\" is none", "version"])
    {
        assert!(reason.contains(words), "{reason}");
    }
}

#[tokio::test]
async fn a_key_announces_objects_of_its_own_organization_only() {
    let world = World::new().await;
    let mine = event(&raw(ORG, "logs_1"), None, Some("e"), Some(5));
    let theirs = event(&raw(OTHER, "logs_1"), None, Some("e"), Some(5));
    let answer = world.admitter.admit(&[mine, theirs], Authority::Organization(id(ORG))).await;
    assert!(matches!(answer, Err(Denied::Forbidden { of, .. }) if of == id(ORG)), "{answer:?}");
    assert!(world.inbox("waiting").await.is_empty(), "nothing of it was admitted");

    let body = s3_body(&[&raw(OTHER, "logs_1")]);
    let (status, _) = world.post(request("/", Some(ORG), &body)).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let refused = world.inbox("refused").await;
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].organization, Some(id(ORG)), "it is told to the caller, not to the other");
    let (status, answer) = world.post(request("/", Some(OTHER), &body)).await;
    assert_eq!((status, &answer["admitted"]), (StatusCode::OK, &json!(1)));
}

#[tokio::test]
async fn a_key_may_stand_in_headers_or_in_the_address() {
    let world = World::new().await;
    let body = s3_body(&[&raw(ORG, "logs_1")]);
    for address in ["/", "/api/v1/notifications"] {
        assert_eq!(world.post(request(address, None, &body)).await.0, StatusCode::UNAUTHORIZED);
        assert_eq!(world.post(request(address, Some("wrong"), &body)).await.0, StatusCode::UNAUTHORIZED);
        assert_eq!(world.post(request(&format!("{address}?key=wrong"), None, &body)).await.0, StatusCode::UNAUTHORIZED);
    }
    assert!(world.inbox("refused").await.is_empty(), "a stranger writes nothing");
    let (status, answer) = world.post(request("/?key=operator", None, &body)).await;
    assert_eq!((status, &answer["admitted"]), (StatusCode::OK, &json!(1)));
    let (status, answer) = world.post(request(&format!("/api/v1/notifications?a=b&key={ORG}"), None, &body)).await;
    assert_eq!((status, &answer["known"]), (StatusCode::OK, &json!(1)));
}

#[tokio::test]
async fn a_malformed_notification_is_answered_and_recorded_with_its_place() {
    let world = World::new().await;
    let body = json!({"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "lake"}, "object": {"key": 7}}}]});
    let (status, answer) = world.post(request("/", Some("operator"), &body)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(answer["path"], "Records[0].s3.object.key");
    let refused = world.inbox("refused").await;
    assert!(refused[0].reason.as_deref().is_some_and(|reason| reason.starts_with("Records[0].s3.object.key: ")));

    let large = Request::post("/?key=operator").body(Body::from(vec![b' '; 1024 * 1024 + 1])).expect("a request");
    assert_eq!(world.post(large).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn the_good_events_of_a_notification_are_taken_beside_bad_ones() {
    let world = World::new().await;
    let mut body = s3_body(&[&raw(ORG, "logs_1"), &raw(ORG, "logs_2"), &raw(ORG, "logs_3")]);
    body["Records"][1]["s3"]["object"]["key"] = json!(7);
    let (status, answer) = world.post(request("/", Some(ORG), &body)).await;
    assert_eq!((status, &answer["admitted"], &answer["refused"]), (StatusCode::OK, &json!(2), &json!(1)));
    assert_eq!(answer["refusals"][0]["path"], "Records[1].s3.object.key");
    assert_eq!(world.inbox("waiting").await.len(), 2);
    assert_eq!(world.inbox("refused").await.len(), 1);
}

#[tokio::test]
async fn handshakes_are_answered_and_foreign_pages_are_not_opened() {
    let world = World::new().await;
    let validation = json!([{"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "data": {"validationCode": "the-code"}}]);
    let (status, answer) = world.post(request("/?key=operator", None, &validation)).await;
    assert_eq!((status, &answer["validationResponse"]), (StatusCode::OK, &json!("the-code")));

    let options = Request::options("/?key=operator").header("webhook-request-origin", "eventgrid.azure.net");
    let (status, _) = world.post(options.body(Body::empty()).expect("a request")).await;
    assert_eq!(status, StatusCode::OK);

    let page = "http://169.254.169.254/?Action=ConfirmSubscription";
    let confirmation =
        json!({"Type": "SubscriptionConfirmation", "TopicArn": "arn:aws:sns:us-east-1:1:t", "SubscribeURL": page});
    let (status, answer) = world.post(request("/?key=operator", None, &confirmation)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer["error"].as_str().is_some_and(|error| error.contains("169.254.169.254")), "{answer}");
}

#[tokio::test]
async fn a_pubsub_token_speaks_for_pubsub_messages_only() {
    let world = World::new().await;
    let key = raw(ORG, "logs_1");
    let object = json!({"eventType": "OBJECT_FINALIZE", "payloadFormat": "NONE", "bucketId": "lake", "objectId": key});
    world.write(&key, "12345");
    let message = json!({"message": {"attributes": object}, "subscription": "projects/p/subscriptions/s"});
    let token = push_token();
    let (status, answer) = world.post(request("/", Some(&token), &message)).await;
    assert_eq!((status, &answer["admitted"]), (StatusCode::OK, &json!(1)), "{answer}");
    let (status, _) = world.post(request("/", Some(&token), &s3_body(&[&key]))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, _) = world.post(request("/?key=operator", None, &message)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "a configured token is needed");
    let (status, answer) = world.post(request("/?key=operator", Some(&token), &message)).await;
    assert_eq!((status, &answer["known"]), (StatusCode::OK, &json!(1)), "{answer}");
    let forged = format!("{}x", &token[..token.len() - 4]);
    assert_eq!(world.post(request("/", Some(&forged), &message)).await.0, StatusCode::UNAUTHORIZED);
    // Where no token is configured, a key is enough.
    assert_eq!(world.post_with(request("/?key=operator", None, &message), None).await.0, StatusCode::OK);
    assert_eq!(world.post_with(request("/", Some(&token), &message), None).await.0, StatusCode::UNAUTHORIZED);
}

fn push_token() -> String {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
    let header = Header { kid: Some("test".to_owned()), ..Header::new(Algorithm::RS256) };
    let claims = json!({"iss": "https://accounts.google.com", "aud": AUDIENCE, "email": EMAIL, "email_verified": true,
                        "exp": get_current_timestamp() + 3600});
    let key = EncodingKey::from_rsa_pem(include_bytes!("../src/notify/test_keys/push_token.pem")).expect("a key");
    encode(&header, &claims, &key).expect("a token")
}

#[tokio::test]
async fn while_the_gate_is_closed_the_sender_keeps_the_notification() {
    let world = World::new().await;
    let body = s3_body(&[&raw(ORG, "logs_1")]);
    world.gate.close("the disk is full".to_owned());
    let (status, answer) = world.post(request("/", Some(ORG), &body)).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(answer["error"].as_str().is_some_and(|error| error.contains("the disk is full")), "{answer}");
    assert!(world.metastore.inbox(None, 10).await.expect("the inbox").is_empty());
    world.gate.open();
    assert_eq!(world.post(request("/", Some(ORG), &body)).await.0, StatusCode::OK);
}

/// A server on a free port that counts its calls, and what it was asked.
#[tokio::test]
async fn above_its_ingest_rate_an_organization_keeps_the_notification() {
    let world = World::new().await;
    let mut organization = world.metastore.organizations().await.expect("is read").remove(0);
    organization.ingest_bytes_per_second = Some(10);
    world.metastore.update_organization(&organization).await.expect("is changed");
    let of = |organization: OrganizationId, name: &str| {
        vec![event(&raw(&organization.to_string(), name), None, Some(name), Some(1_000_000))]
    };
    let other = if organization.id == id(ORG) { id(OTHER) } else { id(ORG) };
    let admit = async |organization, name| world.admitter.admit(&of(organization, name), Authority::Operator).await;
    assert_eq!(admit(organization.id, "logs_a").await.expect("overdraws its rate").admitted, 1);
    let denied = admit(organization.id, "logs_b").await.expect_err("has nothing left");
    assert!(matches!(&denied, Denied::Closed(reason) if reason.contains("10 bytes a second")), "{denied}");
    assert_eq!(admit(other, "logs_a").await.expect("has no limit").admitted, 1);
    assert_eq!(world.inbox("waiting").await.len(), 2);
}

async fn counting_server(answer: &'static str) -> (String, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let calls = Arc::new(std::sync::Mutex::new(Vec::new()));
    let counted = calls.clone();
    let router = axum::Router::new().fallback(move |uri: http::Uri| {
        counted.lock().expect("not poisoned").push(uri.to_string());
        async move { answer }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, calls)
}

#[tokio::test]
async fn a_subscription_is_confirmed_at_the_configured_endpoint() {
    let world = World::new().await;
    let (endpoint, calls) = counting_server("confirmed").await;
    let page = format!("{endpoint}/?Action=ConfirmSubscription&TopicArn=t&Token=abc");
    let confirmation = json!({"Type": "SubscriptionConfirmation", "TopicArn": "t", "SubscribeURL": page});
    let ask = |key: Option<&str>| request("/", key, &confirmation);
    assert_eq!(world.post_to(ask(None), None, Some(&endpoint)).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(world.post_to(ask(Some("operator")), None, None).await.0, StatusCode::BAD_REQUEST);
    assert!(calls.lock().expect("not poisoned").is_empty(), "nothing was opened so far");
    let (status, answer) = world.post_to(ask(Some("operator")), None, Some(&endpoint)).await;
    assert_eq!((status, &answer["confirmed"]), (StatusCode::OK, &json!("t")));
    assert_eq!(*calls.lock().expect("not poisoned"), ["/?Action=ConfirmSubscription&TopicArn=t&Token=abc"]);
}

#[tokio::test]
async fn published_keys_are_loaded_once_for_many_tokens() {
    let (endpoint, calls) = counting_server(include_str!("../src/notify/test_keys/push_token.jwks.json")).await;
    let keys = KeySource::Url(format!("{endpoint}/certs"));
    let options = PushTokenOptions { keys, audience: AUDIENCE.to_owned(), email: EMAIL.to_owned() };
    let verifier = PushTokenVerifier::new(options).expect("a verifier");
    for _ in 0..3 {
        verifier.verify(&push_token()).await.expect("verified");
    }
    assert_eq!(calls.lock().expect("not poisoned").len(), 1);
}
