//! An SQS queue, served by moto where `TIDEMILL_TEST_S3` gives its address: messages are deleted after they are admitted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::StaticCredentialProvider;
use object_store::aws::AwsCredential;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidemill_lake::clock::SystemClock;
use tidemill_lake::notify::{Admitter, AdmitterOptions};
use tidemill_lake::receive::Gate;
use tidemill_lake::sqs::{SqsClient, SqsOptions, run};
use tidemill_store::buckets::Buckets;
use tidemill_store::object::{ObjectInfo, ObjectRead, PutBody, PutMode};
use tidemill_store::sqlite::SqliteMetastore;
use tidemill_store::{Error, Metastore, ObjectStore, Result};
use tidemill_types::{Action, ErrorKind, OrganizationId, Routing, Signal, TimestampNs, WorkQueue};
use tokio_util::sync::CancellationToken;

const ORG: &str = "dddddddd-aaaa-4ff9-ae8f-365873c552f0";

/// A bucket that does not answer the first question, and knows every object afterwards.
#[derive(Debug, Default)]
struct Shaky {
    asked: AtomicUsize,
}

#[async_trait]
impl ObjectStore for Shaky {
    async fn put(&self, key: &str, _: PutBody, _: PutMode) -> Result<ObjectInfo> {
        Err(Error::new("put", key, ErrorKind::Internal, "not expected"))
    }

    async fn get(&self, key: &str, _: Option<&str>) -> Result<ObjectRead> {
        Err(Error::new("get", key, ErrorKind::Internal, "not expected"))
    }

    async fn get_ranges(&self, key: &str, _: &[std::ops::Range<u64>]) -> Result<Vec<Bytes>> {
        Err(Error::new("get", key, ErrorKind::Internal, "not expected"))
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        if self.asked.fetch_add(1, Ordering::SeqCst) < 2 {
            return Err(Error::new("head", key, ErrorKind::Unavailable, "the store is away"));
        }
        let (key, etag) = (key.to_owned(), Some("\"e\"".to_owned()));
        Ok(ObjectInfo { key, size: 5, etag, version: None, modified: TimestampNs(0) })
    }

    async fn delete(&self, key: &str) -> Result<()> {
        Err(Error::new("delete", key, ErrorKind::Internal, "not expected"))
    }

    fn list(&self, _: &str) -> BoxStream<'static, Result<ObjectInfo>> {
        Box::pin(futures::stream::empty())
    }
}

struct Queue {
    endpoint: String,
    url: String,
}

impl Queue {
    async fn call(endpoint: &str, action: &str, body: Value) -> Value {
        let credential = "Credential=test/20260101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=00";
        let answer = reqwest::Client::new()
            .post(endpoint)
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", format!("AmazonSQS.{action}"))
            .header("authorization", format!("AWS4-HMAC-SHA256 {credential}"))
            .body(body.to_string())
            .send()
            .await
            .expect("an answer");
        assert!(answer.status().is_success(), "{action}: {}", answer.status());
        serde_json::from_slice(&answer.bytes().await.expect("a body")).unwrap_or(Value::Null)
    }

    async fn create(endpoint: &str) -> Self {
        let name = format!("notifications-{}", uuid::Uuid::new_v4().simple());
        let created = Self::call(endpoint, "CreateQueue", json!({"QueueName": name})).await;
        Self { endpoint: endpoint.to_owned(), url: created["QueueUrl"].as_str().expect("a URL").to_owned() }
    }

    async fn send(&self, body: &str) {
        Self::call(&self.endpoint, "SendMessage", json!({"QueueUrl": self.url, "MessageBody": body})).await;
    }

    /// Messages waiting or in somebody's hands.
    async fn left(&self) -> u64 {
        let names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"];
        let body = json!({"QueueUrl": self.url, "AttributeNames": names});
        let answer = Self::call(&self.endpoint, "GetQueueAttributes", body).await;
        let count = |name: &str| answer["Attributes"][name].as_str().and_then(|text| text.parse::<u64>().ok());
        names.iter().map(|name| count(name).expect("a count")).sum()
    }

    fn client(&self) -> SqsClient {
        let credential = AwsCredential { key_id: "test".to_owned(), secret_key: "test".to_owned(), token: None };
        let options = SqsOptions {
            region: Some("us-east-1".to_owned()),
            endpoint: Some(self.endpoint.clone()),
            wait: Duration::from_secs(1),
            visibility: Duration::from_secs(1),
            pollers: 2,
            ..SqsOptions::new(&self.url)
        };
        SqsClient::with_credentials(options, Arc::new(StaticCredentialProvider::new(credential))).expect("a client")
    }
}

async fn world(store: Arc<dyn ObjectStore>) -> (TempDir, Arc<SqliteMetastore>, Admitter) {
    let folder = tempfile::tempdir().expect("a folder");
    let metastore = Arc::new(SqliteMetastore::open(&folder.path().join("metastore.db")).await.expect("a metastore"));
    metastore.create_organization(ORG.parse::<OrganizationId>().expect("a UUID"), "one").await.expect("created");
    let buckets = Buckets::new();
    buckets.set("lake", store);
    let routing = Routing { default_bucket: Some("lake".to_owned()), ..Routing::default() };
    let admitter = Admitter::new(AdmitterOptions {
        metastore: metastore.clone(),
        buckets,
        routing: Arc::new(ArcSwap::from_pointee(routing)),
        clock: Arc::new(SystemClock),
        gate: Gate::default(),
    });
    (folder, metastore, admitter)
}

fn s3_message(name: &str, with_etag: bool) -> String {
    let mut object = json!({"key": format!("otel-raw/{ORG}/east/{name}")});
    if with_etag {
        object["eTag"] = json!("e");
        object["size"] = json!(5);
    }
    json!({"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "lake"}, "object": object}}]})
        .to_string()
}

#[tokio::test]
async fn messages_are_deleted_once_they_are_admitted_or_recorded() {
    let Ok(endpoint) = std::env::var("TIDEMILL_TEST_S3") else {
        eprintln!("TIDEMILL_TEST_S3 gives no address; ./test starts moto and sets it");
        return;
    };
    let endpoint = endpoint.trim_end_matches('/').to_owned();
    let queue = Queue::create(&endpoint).await;
    let shaky = Arc::new(Shaky::default());
    let (_folder, metastore, admitter) = world(shaky.clone()).await;
    for number in 0..25 {
        queue.send(&s3_message(&format!("logs_{number}"), true)).await;
    }
    let wrapped = json!({"Type": "Notification", "TopicArn": "arn:aws:sns:us-east-1:1:t", "Message": s3_message("traces_1", true)});
    queue.send(&wrapped.to_string()).await;
    queue.send("a poison message").await;
    queue.send(&s3_message("logs_24", true)).await;
    // Its bucket is away at first, so the message has to come back.
    queue.send(&s3_message("metrics_late", false)).await;

    let stop = CancellationToken::new();
    let task = tokio::spawn(run(queue.client(), admitter, stop.clone()));
    let queues = Signal::ALL.map(|signal| WorkQueue { signal, action: Action::Ingest });
    let drained = async {
        loop {
            let entries = metastore.inbox(None, 100).await.expect("the inbox");
            if entries.len() >= 28 && queue.left().await == 0 {
                return entries;
            }
            metastore.wait_for_work(&queues, Duration::from_millis(100)).await;
        }
    };
    let entries = tokio::time::timeout(Duration::from_secs(60), drained).await.expect("the queue is drained");
    assert_eq!(entries.iter().filter(|entry| entry.state == "waiting").count(), 27);
    let refused: Vec<_> = entries.iter().filter(|entry| entry.state == "refused").collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].reason.as_deref().is_some_and(|reason| reason.contains("is no JSON")), "{refused:?}");
    assert!(shaky.asked.load(Ordering::SeqCst) >= 3, "the store was asked again");
    stop.cancel();
    task.await.expect("stopped");
}
