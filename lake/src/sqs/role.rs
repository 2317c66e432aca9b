//! Credentials of an assumed role, renewed before they expire.
//!
//! Protocol: `AssumeRole` of the AWS Security Token Service API, version 2011-06-15.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::CredentialProvider;
use object_store::aws::{AwsAuthorizer, AwsCredential, AwsCredentialProvider};
use object_store::client::HttpRequest;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use serde::Deserialize;
use tokio::sync::Mutex;

/// Credentials with less time left are renewed.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Gives the credentials of a role, assumed with those of `base`.
#[derive(Debug)]
pub(super) struct AssumedRole {
    pub(super) role: String,
    pub(super) region: String,
    /// The address of the token service.
    pub(super) endpoint: Url,
    pub(super) base: AwsCredentialProvider,
    pub(super) http: reqwest::Client,
    pub(super) held: Mutex<Option<Held>>,
}

#[derive(Debug)]
pub(super) struct Held {
    credential: Arc<AwsCredential>,
    expires: jiff::Timestamp,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AssumeRoleResponse {
    assume_role_result: AssumeRoleResult,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AssumeRoleResult {
    credentials: RoleCredentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleCredentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiration: String,
}

impl std::fmt::Debug for RoleCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoleCredentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// The token service of a region.
pub(super) fn token_service(region: &str) -> String {
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://sts.{region}.{suffix}/")
}

#[async_trait]
impl CredentialProvider for AssumedRole {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut held = self.held.lock().await;
        let renew_at = jiff::Timestamp::now() + RENEW_BEFORE;
        if let Some(held) = held.as_ref().filter(|held| held.expires > renew_at) {
            return Ok(held.credential.clone());
        }
        let assumed = self.assume().await?;
        let credential = assumed.credential.clone();
        *held = Some(assumed);
        Ok(credential)
    }
}

impl AssumedRole {
    async fn assume(&self) -> object_store::Result<Held> {
        let base = self.base.get_credential().await?;
        let role = utf8_percent_encode(&self.role, NON_ALPHANUMERIC);
        let body = format!("Action=AssumeRole&Version=2011-06-15&RoleSessionName=tidemill&RoleArn={role}");
        let body = Bytes::from(body);
        let request = http::Request::post(self.endpoint.as_str())
            .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
            .body(body.clone().into());
        let mut request: HttpRequest = request.map_err(|error| self.failed(error))?;
        AwsAuthorizer::new(&base, "sts", &self.region).authorize(&mut request, None);
        let headers = request.headers().clone();
        let sent = self.http.post(self.endpoint.clone()).headers(headers).body(body).timeout(CALL_TIMEOUT).send().await;
        let answer = sent.map_err(|error| self.failed(error))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| self.failed(error))?;
        if !status.is_success() {
            let start: String = text.chars().take(300).collect();
            return Err(self.failed(format!("{status}: {start}")));
        }
        let parsed: AssumeRoleResponse = quick_xml::de::from_str(&text).map_err(|error| self.failed(error))?;
        let found = parsed.assume_role_result.credentials;
        let expires = found.expiration.parse().map_err(|error: jiff::Error| self.failed(error))?;
        let credential = AwsCredential {
            key_id: found.access_key_id,
            secret_key: found.secret_access_key,
            token: Some(found.session_token),
        };
        Ok(Held { credential: Arc::new(credential), expires })
    }

    fn failed(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> object_store::Error {
        let source = format!("assuming {}: {}", self.role, source.into());
        object_store::Error::Generic { store: "STS", source: source.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use object_store::StaticCredentialProvider;

    use super::*;

    async fn token_service_that_says(expiration: &'static str) -> (AssumedRole, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let router = axum::Router::new().fallback(move |headers: http::HeaderMap, body: String| {
            counted.fetch_add(1, Ordering::SeqCst);
            let authorization = headers["authorization"].to_str().expect("text").to_owned();
            assert!(authorization.contains("Credential=base/") && authorization.contains("/sts/aws4_request"));
            assert!(body.contains("RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Flake"), "{body}");
            async move {
                format!(
                    "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
                     <Credentials><AccessKeyId>role</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
                     <SessionToken>t</SessionToken><Expiration>{expiration}</Expiration></Credentials>\
                     <AssumedRoleUser><Arn>a</Arn></AssumedRoleUser></AssumeRoleResult></AssumeRoleResponse>"
                )
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}/", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let base = AwsCredential { key_id: "base".to_owned(), secret_key: "s".to_owned(), token: None };
        let role = AssumedRole {
            role: "arn:aws:iam::1:role/lake".to_owned(),
            region: "us-east-1".to_owned(),
            endpoint: Url::parse(&address).expect("a URL"),
            base: Arc::new(StaticCredentialProvider::new(base)),
            http: reqwest::Client::new(),
            held: Mutex::default(),
        };
        (role, calls)
    }

    #[tokio::test]
    async fn a_role_is_assumed_once_while_its_credentials_last() {
        let (role, calls) = token_service_that_says("2999-01-01T00:00:00Z").await;
        for _ in 0..3 {
            let credential = role.get_credential().await.expect("assumed");
            assert_eq!((credential.key_id.as_str(), credential.token.as_deref()), ("role", Some("t")));
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn credentials_about_to_expire_are_renewed() {
        let (role, calls) = token_service_that_says("2020-01-01T00:00:00Z").await;
        role.get_credential().await.expect("assumed");
        role.get_credential().await.expect("assumed again");
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn the_token_service_is_that_of_the_region() {
        assert_eq!(token_service("us-east-1"), "https://sts.us-east-1.amazonaws.com/");
        assert_eq!(token_service("cn-north-1"), "https://sts.cn-north-1.amazonaws.com.cn/");
    }
}
