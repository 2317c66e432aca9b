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
use reqwest::Url;
use serde::Deserialize;
use tidemill_types::ErrorKind;
use tokio::sync::Mutex;

use crate::{Error, Result};

/// Credentials with less time left are renewed.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Which role to assume, where, and with whose credentials.
#[derive(Debug, Clone)]
pub struct RoleOptions {
    /// The role's ARN.
    pub role: String,
    /// The region whose token service is asked.
    pub region: String,
    /// The token service's address; the region's own by default.
    pub endpoint: Option<String>,
    /// Whose credentials sign the request.
    pub base: AwsCredentialProvider,
    /// Whether any certificate is accepted.
    pub insecure_tls: bool,
}

/// A provider of the role's credentials; nothing is asked before they are needed.
///
/// # Errors
/// `Invalid` for an address that is no URL.
pub fn assume_role(options: RoleOptions) -> Result<AwsCredentialProvider> {
    let invalid = |source: Box<dyn std::error::Error + Send + Sync>| {
        Error::new("assume role", &options.role, ErrorKind::Invalid, source)
    };
    let endpoint = options.endpoint.clone().unwrap_or_else(|| token_service(&options.region));
    let endpoint =
        Url::parse(&endpoint).map_err(|source| invalid(format!("{endpoint:?} is no URL: {source}").into()))?;
    let http = reqwest::Client::builder()
        .danger_accept_invalid_certs(options.insecure_tls)
        .timeout(CALL_TIMEOUT)
        .build()
        .map_err(|source| invalid(source.into()))?;
    let RoleOptions { role, region, base, .. } = options;
    Ok(Arc::new(AssumedRole { role, region, endpoint, base, http, held: Mutex::default() }))
}

#[derive(Debug)]
struct AssumedRole {
    role: String,
    region: String,
    endpoint: Url,
    base: AwsCredentialProvider,
    http: reqwest::Client,
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    credential: Arc<AwsCredential>,
    expires: jiff::Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AssumeRoleResponse {
    assume_role_result: AssumeRoleResult,
}

#[derive(Deserialize)]
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

fn token_service(region: &str) -> String {
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
            return Ok(Arc::clone(&held.credential));
        }
        let assumed = self.assume().await?;
        let credential = Arc::clone(&assumed.credential);
        *held = Some(assumed);
        Ok(credential)
    }
}

impl AssumedRole {
    async fn assume(&self) -> object_store::Result<Held> {
        let base = self.base.get_credential().await?;
        let mut form = self.endpoint.clone();
        form.query_pairs_mut()
            .clear()
            .append_pair("Action", "AssumeRole")
            .append_pair("Version", "2011-06-15")
            .append_pair("RoleSessionName", "tidemill")
            .append_pair("RoleArn", &self.role);
        let body = Bytes::from(form.query().unwrap_or_default().to_owned());
        let request = http::Request::post(self.endpoint.as_str())
            .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
            .body(body.clone().into());
        let mut request: HttpRequest = request.map_err(|error| self.failed(error))?;
        AwsAuthorizer::new(&base, "sts", &self.region).authorize(&mut request, None);
        let headers = request.headers().clone();
        let sent = self.http.post(self.endpoint.clone()).headers(headers).body(body).send().await;
        let answer = sent.map_err(|error| self.failed(error))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| self.failed(error))?;
        if !status.is_success() {
            let start: String = text.chars().take(300).collect();
            return Err(self.failed(format!("{status}: {start}")));
        }
        self.read(&text)
    }

    fn read(&self, text: &str) -> object_store::Result<Held> {
        let parsed: AssumeRoleResponse = quick_xml::de::from_str(text).map_err(|error| self.failed(error))?;
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
    use object_store::StaticCredentialProvider;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A token service that answers one connection after the other with credentials that expire then.
    async fn token_service_that_says(
        expiration: &'static str,
    ) -> (AwsCredentialProvider, tokio::task::JoinHandle<usize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}/", listener.local_addr().expect("an address"));
        let calls = tokio::spawn(async move {
            let mut calls = 0;
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.windows(12).any(|window| window == b"%3Arole%2Fla") {
                    let mut buffer = [0; 4096];
                    match stream.read(&mut buffer).await.expect("reads") {
                        0 => return calls,
                        len => request.extend_from_slice(&buffer[..len]),
                    }
                }
                let text = String::from_utf8_lossy(&request).to_lowercase();
                assert!(text.contains("credential=base/") && text.contains("/sts/aws4_request"), "{text}");
                calls += 1;
                let body = format!(
                    "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
                     <Credentials><AccessKeyId>role</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
                     <SessionToken>t{calls}</SessionToken><Expiration>{expiration}</Expiration></Credentials>\
                     </AssumeRoleResult></AssumeRoleResponse>"
                );
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await.expect("writes");
            }
            calls
        });
        let base = AwsCredential { key_id: "base".to_owned(), secret_key: "s".to_owned(), token: None };
        let provider = assume_role(RoleOptions {
            role: "arn:aws:iam::1:role/lake".to_owned(),
            region: "us-east-1".to_owned(),
            endpoint: Some(endpoint),
            base: Arc::new(StaticCredentialProvider::new(base)),
            insecure_tls: false,
        });
        (provider.expect("is valid"), calls)
    }

    #[tokio::test]
    async fn a_role_is_assumed_once_while_its_credentials_last() {
        let (role, _calls) = token_service_that_says("2999-01-01T00:00:00Z").await;
        for _ in 0..3 {
            let credential = role.get_credential().await.expect("assumed");
            assert_eq!((credential.key_id.as_str(), credential.token.as_deref()), ("role", Some("t1")));
        }
    }

    #[tokio::test]
    async fn credentials_about_to_expire_are_renewed() {
        let (role, _calls) = token_service_that_says("2020-01-01T00:00:00Z").await;
        for token in ["t1", "t2"] {
            assert_eq!(role.get_credential().await.expect("assumed").token.as_deref(), Some(token));
        }
    }

    #[test]
    fn the_token_service_is_that_of_the_region() {
        assert_eq!(token_service("us-east-1"), "https://sts.us-east-1.amazonaws.com/");
        assert_eq!(token_service("cn-north-1"), "https://sts.cn-north-1.amazonaws.com.cn/");
    }
}
