//! The three calls of SQS's JSON protocol that are needed.
//!
//! Protocol: "Making query API requests using AWS JSON protocol" of the Amazon SQS Developer Guide. Credentials are found as for S3:
//! environment, web identity, container or instance.

use std::time::Duration;

use bytes::Bytes;
use object_store::aws::{AmazonS3Builder, AwsAuthorizer, AwsCredentialProvider};
use object_store::client::HttpRequest;
use reqwest::Url;
use serde::Deserialize;
use serde_json::{Value, json};
use tidemill_store::cloud::{RoleOptions, assume_role};

use super::SqsOptions;

/// The most that an answer may hold: ten messages of 1 MiB, escaped.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;
/// How much longer than its long poll a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum SqsError {
    /// The options make no sense.
    #[error("SQS queue {queue_url}: {reason}")]
    Options {
        /// Which queue.
        queue_url: String,
        /// What is wrong.
        reason: String,
    },
    /// No credentials could be had.
    #[error("SQS {action}: no credentials: {source}")]
    Credentials {
        /// Which call.
        action: &'static str,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// SQS did not answer.
    #[error("SQS {action}: {source}")]
    Unavailable {
        /// Which call.
        action: &'static str,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// SQS answered with an error, or with something else than its protocol says.
    #[error("SQS {action}: {reason}")]
    Refused {
        /// Which call.
        action: &'static str,
        /// What it said.
        reason: String,
    },
}

/// A message received.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Message {
    pub(super) message_id: String,
    pub(super) receipt_handle: String,
    #[serde(default)]
    pub(super) body: String,
}

/// Calls one queue.
#[derive(Debug)]
pub struct SqsClient {
    options: SqsOptions,
    http: reqwest::Client,
    endpoint: Url,
    region: String,
    credentials: AwsCredentialProvider,
}

impl SqsClient {
    /// A client whose credentials are found as for S3; nothing is called yet.
    ///
    /// # Errors
    /// A queue URL or endpoint that is none, or a region that neither the options nor the URL tell.
    pub fn new(options: SqsOptions) -> Result<Self, SqsError> {
        let fail = |reason: String| SqsError::Options { queue_url: options.queue_url.clone(), reason };
        let region =
            region_of(&options).ok_or_else(|| fail("its region is neither given nor in its URL".to_owned()))?;
        let store = AmazonS3Builder::from_env().with_bucket_name("none").with_region(&region).build();
        let store = store.map_err(|error| fail(error.to_string()))?;
        let credentials = store.credentials().clone();
        Self::with_credentials(options, credentials)
    }

    /// A client with these credentials, which assume the role of the options if there is one.
    ///
    /// # Errors
    /// A queue URL or endpoint that is none, or a region that neither the options nor the URL tell.
    pub fn with_credentials(options: SqsOptions, credentials: AwsCredentialProvider) -> Result<Self, SqsError> {
        let fail = |reason: String| SqsError::Options { queue_url: options.queue_url.clone(), reason };
        let region =
            region_of(&options).ok_or_else(|| fail("its region is neither given nor in its URL".to_owned()))?;
        let endpoint = root_of(options.endpoint.as_deref().unwrap_or(&options.queue_url)).map_err(fail)?;
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
        let http = http.map_err(|error| fail(error.to_string()))?;
        let credentials = match &options.role {
            None => credentials,
            Some(role) => {
                let own_endpoint = options.endpoint.as_deref().map(root_of).transpose().map_err(fail)?;
                let role = RoleOptions {
                    role: role.clone(),
                    region: region.clone(),
                    endpoint: own_endpoint.map(String::from),
                    base: credentials,
                    insecure_tls: false,
                };
                assume_role(role).map_err(|error| fail(error.to_string()))?
            }
        };
        Ok(Self { http, endpoint, region, credentials, options })
    }

    /// What this client was made of.
    pub fn options(&self) -> &SqsOptions {
        &self.options
    }

    /// The queue's name, for messages to people.
    pub(super) fn queue_name(&self) -> &str {
        self.options.queue_url.rsplit('/').next().unwrap_or_default()
    }

    /// Waits for messages, at most ten.
    pub(super) async fn receive(&self) -> Result<Vec<Message>, SqsError> {
        let action = "ReceiveMessage";
        let wait = self.options.wait.min(Duration::from_secs(20));
        let body = json!({
            "QueueUrl": self.options.queue_url,
            "MaxNumberOfMessages": 10,
            "WaitTimeSeconds": wait.as_secs(),
            "VisibilityTimeout": self.options.visibility.as_secs(),
        });
        let mut answer = self.call(action, &body, wait + CALL_TIMEOUT).await?;
        match answer.get_mut("Messages").map(Value::take) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(messages) => serde_json::from_value(messages)
                .map_err(|error| SqsError::Refused { action, reason: format!("unexpected answer: {error}") }),
        }
    }

    /// Deletes messages; those that could not be deleted come back.
    pub(super) async fn delete(&self, messages: &[Message]) -> Result<(), SqsError> {
        let action = "DeleteMessageBatch";
        let entry = |(index, message): (usize, &Message)| json!({"Id": index.to_string(), "ReceiptHandle": message.receipt_handle});
        let entries: Vec<Value> = messages.iter().enumerate().map(entry).collect();
        let answer =
            self.call(action, &json!({"QueueUrl": self.options.queue_url, "Entries": entries}), CALL_TIMEOUT).await?;
        match answer.get("Failed").and_then(Value::as_array) {
            Some(failed) if !failed.is_empty() => Err(SqsError::Refused {
                action,
                reason: format!("{} of {} were not deleted", failed.len(), messages.len()),
            }),
            _ => Ok(()),
        }
    }

    async fn call(&self, action: &'static str, body: &Value, timeout: Duration) -> Result<Value, SqsError> {
        let credential =
            self.credentials.get_credential().await.map_err(|source| SqsError::Credentials { action, source })?;
        let body = Bytes::from(body.to_string());
        let request = http::Request::post(self.endpoint.as_str())
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", format!("AmazonSQS.{action}"))
            .body(body.clone().into());
        let mut request: HttpRequest =
            request.map_err(|error| SqsError::Refused { action, reason: format!("no request: {error}") })?;
        AwsAuthorizer::new(&credential, "sqs", &self.region).authorize(&mut request, None);
        let headers = request.headers().clone();
        let sent = self.http.post(self.endpoint.clone()).headers(headers).body(body).timeout(timeout).send().await;
        let unavailable = |source| SqsError::Unavailable { action, source };
        let mut answer = sent.map_err(unavailable)?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unavailable)? {
            if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(SqsError::Refused {
                    action,
                    reason: format!("answers more than {MAX_ANSWER_BYTES} bytes"),
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            return Err(SqsError::Refused { action, reason: format!("{status}: {}", error_message(&bytes)) });
        }
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| SqsError::Refused { action, reason: format!("the answer is no JSON: {error}") })
    }
}

/// `{"__type": "…#QueueDoesNotExist", "message": "…"}`, or the start of what came instead.
fn error_message(bytes: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(bytes).ok();
    let field = |name: &str| parsed.as_ref()?.get(name)?.as_str().map(str::to_owned);
    match (field("__type"), field("message").or_else(|| field("Message"))) {
        (Some(kind), message) => {
            let kind = kind.rsplit('#').next().unwrap_or_default().to_owned();
            format!("{kind}: {}", message.unwrap_or_default())
        }
        _ => String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned(),
    }
}

/// The address without its path.
fn root_of(address: &str) -> Result<Url, String> {
    let mut url = Url::parse(address).map_err(|error| format!("{address:?}: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("{address:?} is no http or https address"));
    }
    url.set_path("/");
    url.set_query(None);
    Ok(url)
}

/// Given, or `sqs.<region>.amazonaws.com`.
fn region_of(options: &SqsOptions) -> Option<String> {
    if let Some(region) = &options.region {
        return Some(region.clone());
    }
    let url = Url::parse(&options.queue_url).ok()?;
    let region = url.host_str()?.strip_prefix("sqs.")?.split('.').next()?;
    Some(region.to_owned()).filter(|region| !region.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_read_from_the_address() {
        let options = SqsOptions::new("https://sqs.eu-west-3.amazonaws.com/123456789012/queue");
        assert_eq!(region_of(&options).as_deref(), Some("eu-west-3"));
        let options = SqsOptions { region: Some("us-east-2".to_owned()), ..options };
        assert_eq!(region_of(&options).as_deref(), Some("us-east-2"));
        let options = SqsOptions::new("http://127.0.0.1:5000/123456789012/queue");
        assert_eq!(region_of(&options), None);
        let error = SqsClient::new(options).expect_err("no region");
        assert!(error.to_string().contains("region"), "{error}");
    }

    #[test]
    fn an_error_answer_is_told_in_its_own_words() {
        let body = br#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"The queue is gone."}"#;
        assert_eq!(error_message(body), "QueueDoesNotExist: The queue is gone.");
        assert_eq!(error_message(b"<html>"), "<html>");
    }
}
