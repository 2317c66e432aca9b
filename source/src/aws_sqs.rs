//! `aws-sqs-queue`: how many messages a queue has.
//!
//! `GetQueueAttributes` of SQS's JSON protocol ("Making query API requests using AWS JSON protocol" of the Amazon SQS Developer Guide). Without keys,
//! credentials are this process's own: environment, web identity, container or instance.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use object_store::StaticCredentialProvider;
use object_store::aws::{AmazonS3Builder, AwsAuthorizer, AwsCredential, AwsCredentialProvider};
use object_store::client::HttpRequest;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::parameters::Parameters;
use crate::prometheus::{body, cause};
use crate::{Client, Observed, SourceError};

#[derive(Debug)]
pub(crate) struct AwsSqs {
    http: reqwest::Client,
    endpoint: reqwest::Url,
    region: String,
    credentials: AwsCredentialProvider,
    queue: String,
    url: OnceCell<String>,
    attributes: Vec<&'static str>,
}

impl AwsSqs {
    pub(crate) fn new(parameters: &Parameters) -> Result<Self, SourceError> {
        let invalid = |what: &str, error: &dyn std::fmt::Display| SourceError::invalid(format!("{what}: {error}"));
        let queue = parameters.need("queueURL")?.to_owned();
        let region = parameters.need("awsRegion")?.to_owned();
        // As KEDA's, an own endpoint is where every request goes.
        let endpoint = match parameters.get("awsEndpoint") {
            Some(endpoint) => endpoint.to_owned(),
            None if queue.contains("://") => queue.clone(),
            None => format!("https://sqs.{region}.amazonaws.com"),
        };
        let mut endpoint: reqwest::Url = endpoint.parse().map_err(|error| invalid("awsEndpoint", &error))?;
        endpoint.set_path("/");
        let credentials: AwsCredentialProvider = match parameters.get("awsAccessKeyID") {
            Some(key_id) => Arc::new(StaticCredentialProvider::new(AwsCredential {
                key_id: key_id.to_owned(),
                secret_key: parameters.need("awsSecretAccessKey")?.to_owned(),
                token: parameters.get("awsSessionToken").map(ToOwned::to_owned),
            })),
            None => {
                let store = AmazonS3Builder::from_env().with_bucket_name("none").with_region(&region).build();
                store.map_err(|error| invalid("credentials", &error))?.credentials().clone()
            }
        };
        let mut attributes = vec!["ApproximateNumberOfMessages"];
        if parameters.flag("scaleOnInFlight", true)? {
            attributes.push("ApproximateNumberOfMessagesNotVisible");
        }
        if parameters.flag("scaleOnDelayed", false)? {
            attributes.push("ApproximateNumberOfMessagesDelayed");
        }
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
        let http = http.map_err(|error| invalid("client", &error))?;
        Ok(Self { http, endpoint, region, credentials, queue, url: OnceCell::new(), attributes })
    }

    async fn call(&self, action: &str, content: &Value) -> Result<Value, SourceError> {
        let failed = |what: String| SourceError::unavailable(format!("SQS {action}: {what}"));
        let credential = self.credentials.get_credential().await;
        let credential = credential.map_err(|error| failed(format!("no credentials: {error}")))?;
        let content = bytes::Bytes::from(content.to_string());
        let request = http::Request::post(self.endpoint.as_str())
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", format!("AmazonSQS.{action}"))
            .body(content.clone().into());
        let mut request: HttpRequest = request.map_err(|error| failed(error.to_string()))?;
        AwsAuthorizer::new(&credential, "sqs", &self.region).authorize(&mut request, None);
        let headers = request.headers().clone();
        let answer = self.http.post(self.endpoint.clone()).headers(headers).body(content).send().await;
        let answer = answer.map_err(|error| failed(cause(&error)))?;
        let status = answer.status();
        let bytes = body(answer).await?;
        let parsed: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            return Ok(parsed);
        }
        let word = |name: &str| parsed.get(name).and_then(Value::as_str);
        let kind = word("__type").and_then(|kind| kind.rsplit('#').next()).unwrap_or_default();
        Err(failed(format!("{status}: {kind} {}", word("message").or_else(|| word("Message")).unwrap_or_default())))
    }

    /// The queue's address; a name is looked up once.
    async fn url(&self) -> Result<&str, SourceError> {
        let url = self.url.get_or_try_init(async || {
            if self.queue.contains("://") {
                return Ok(self.queue.clone());
            }
            let answer = self.call("GetQueueUrl", &json!({"QueueName": self.queue})).await?;
            let url = answer.get("QueueUrl").and_then(Value::as_str).map(ToOwned::to_owned);
            url.ok_or_else(|| SourceError::no_value("SQS GetQueueUrl: the answer has no QueueUrl"))
        });
        url.await.map(String::as_str)
    }
}

#[async_trait]
impl Client for AwsSqs {
    async fn observe(&self, now: Timestamp) -> Result<Observed, SourceError> {
        let content = json!({"QueueUrl": self.url().await?, "AttributeNames": self.attributes});
        let answer = self.call("GetQueueAttributes", &content).await?;
        let mut total = 0.0;
        for name in &self.attributes {
            let value = answer.pointer(&format!("/Attributes/{name}")).and_then(Value::as_str);
            let value: Option<f64> = value.and_then(|text| text.parse().ok());
            total += value.ok_or_else(|| SourceError::no_value(format!("SQS: the answer has no number {name}")))?;
        }
        Ok(Observed::new(total, now))
    }
}
