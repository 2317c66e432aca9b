//! From a storage profile to an open bucket of S3, Google Cloud Storage or Azure.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use tidemill_types::{CloudProvider, ErrorKind, StorageProfile};

use super::role::{RoleOptions, assume_role};
use crate::{Error, Result};

/// A request moves at most one part or one object of a few tens of megabytes.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A pair of credentials that never change. Azure: the account and its key.
#[derive(Clone)]
pub struct AccessKey {
    /// The public half.
    pub id: String,
    /// The secret half.
    pub secret: String,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Where a bucket is and how it is reached. Credentials come from the environment as each cloud defines it, unless they are given.
#[derive(Debug, Clone)]
pub struct CloudOptions {
    /// Whose API.
    pub provider: CloudProvider,
    /// The bucket or container.
    pub bucket: String,
    /// The account it belongs to, in place of the environment's (Azure).
    pub account: Option<String>,
    /// Its region (AWS).
    pub region: Option<String>,
    /// Another address than the cloud's own.
    pub endpoint: Option<String>,
    /// `<endpoint>/<bucket>/<key>` instead of `<bucket>.<endpoint>/<key>` (AWS).
    pub use_path_style: bool,
    /// Accept any certificate.
    pub insecure_tls: bool,
    /// The ARN of a role to assume (AWS).
    pub role: Option<String>,
    /// Credentials in place of the environment's (AWS, Azure).
    pub access_key: Option<AccessKey>,
    /// The token service's address; by default `AWS_ENDPOINT_URL_STS`, the bucket's own endpoint where it has one, the region's.
    pub sts_endpoint: Option<String>,
    /// A request that takes longer has failed, and is tried again.
    pub timeout: Duration,
}

impl CloudOptions {
    /// The bucket of a storage profile.
    pub fn of_profile(profile: &StorageProfile) -> Self {
        Self {
            region: profile.region.clone(),
            endpoint: profile.endpoint.clone(),
            use_path_style: profile.use_path_style,
            insecure_tls: profile.insecure_tls,
            role: profile.role.clone(),
            ..Self::new(profile.cloud_provider, &profile.bucket)
        }
    }

    /// A bucket at the cloud's own address.
    pub fn new(provider: CloudProvider, bucket: &str) -> Self {
        Self {
            provider,
            bucket: bucket.to_owned(),
            account: None,
            region: None,
            endpoint: None,
            use_path_style: false,
            insecure_tls: false,
            role: None,
            access_key: None,
            sts_endpoint: None,
            timeout: TIMEOUT,
        }
    }
}

/// Opens the bucket without a request.
pub(super) fn open_bucket(options: &CloudOptions) -> Result<Arc<dyn ObjectStore>> {
    let opened = match options.provider {
        CloudProvider::Aws => return open_s3(options),
        CloudProvider::Folder => return Err(invalid(options, "a folder is opened by the folder store")),
        CloudProvider::Gcp | CloudProvider::Azure if options.role.is_some() => {
            return Err(invalid(options, "role: only AWS roles can be assumed"));
        }
        CloudProvider::Gcp if options.access_key.is_some() => {
            return Err(invalid(
                options,
                "Google Cloud Storage takes a service account, by GOOGLE_APPLICATION_CREDENTIALS",
            ));
        }
        CloudProvider::Gcp => open_gcs(options),
        CloudProvider::Azure => open_azure(options),
    };
    opened.map_err(|source| invalid(options, source))
}

fn invalid(options: &CloudOptions, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new("open bucket", &options.bucket, ErrorKind::Invalid, source)
}

fn open_s3(options: &CloudOptions) -> Result<Arc<dyn ObjectStore>> {
    let region = options.region.clone().or_else(|| variable("AWS_REGION")).or_else(|| variable("AWS_DEFAULT_REGION"));
    let region = region.unwrap_or_else(|| "us-east-1".to_owned());
    let credentials = match &options.access_key {
        // Nothing of the environment, whose session token would not belong to them.
        Some(key) => AmazonS3Builder::new().with_access_key_id(&key.id).with_secret_access_key(&key.secret),
        None => AmazonS3Builder::from_env(),
    };
    let mut builder = credentials
        .with_bucket_name(&options.bucket)
        .with_region(&region)
        .with_client_options(client_options(options))
        .with_retry(retry())
        .with_conditional_put(S3ConditionalPut::ETagMatch);
    // A certificate names `<bucket>.s3…` only for a bucket without dots.
    let is_virtual = !options.use_path_style && !options.bucket.contains('.');
    builder = builder.with_virtual_hosted_style_request(is_virtual);
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(if is_virtual {
            with_bucket_host(endpoint, &options.bucket)
        } else {
            endpoint.clone()
        });
    }
    if let Some(role) = &options.role {
        let base = builder.clone().build().map_err(|source| invalid(options, source))?.credentials().clone();
        let endpoint = options.sts_endpoint.clone().or_else(|| variable("AWS_ENDPOINT_URL_STS"));
        let endpoint = endpoint.or_else(|| options.endpoint.clone());
        let (role, insecure_tls) = (role.clone(), options.insecure_tls);
        builder = builder.with_credentials(assume_role(RoleOptions { role, region, endpoint, base, insecure_tls })?);
    }
    Ok(Arc::new(builder.build().map_err(|source| invalid(options, source))?))
}

/// `https://host` with the bucket in front of the host.
fn with_bucket_host(endpoint: &str, bucket: &str) -> String {
    match endpoint.split_once("://") {
        Some((scheme, host)) => format!("{scheme}://{bucket}.{host}"),
        None => format!("https://{bucket}.{endpoint}"),
    }
}

fn open_gcs(options: &CloudOptions) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(&options.bucket)
        .with_client_options(client_options(options))
        .with_retry(retry());
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    Ok(Arc::new(builder.build()?))
}

fn open_azure(options: &CloudOptions) -> object_store::Result<Arc<dyn ObjectStore>> {
    let credentials = match &options.access_key {
        Some(key) => MicrosoftAzureBuilder::new().with_account(&key.id).with_access_key(&key.secret),
        None => match options.account.clone().or_else(|| variable("AZURE_STORAGE_ACCOUNT")) {
            Some(account) => MicrosoftAzureBuilder::from_env().with_account(account),
            None => MicrosoftAzureBuilder::from_env(),
        },
    };
    let mut builder = credentials
        .with_container_name(&options.bucket)
        .with_client_options(client_options(options))
        .with_retry(retry());
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    Ok(Arc::new(builder.build()?))
}

fn client_options(options: &CloudOptions) -> ClientOptions {
    let is_http = options.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    ClientOptions::new()
        .with_allow_http(is_http)
        .with_allow_invalid_certificates(options.insecure_tls)
        .with_connect_timeout(Duration::from_secs(5))
        .with_timeout(options.timeout)
}

/// A few quick tries: who waits longer is the worker, which can hand its work back.
fn retry() -> RetryConfig {
    RetryConfig { max_retries: 4, retry_timeout: Duration::from_secs(60), ..RetryConfig::default() }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_goes_in_front_of_the_host() {
        assert_eq!(with_bucket_host("http://s3.local:9000", "lake"), "http://lake.s3.local:9000");
        assert_eq!(with_bucket_host("s3.local", "lake"), "https://lake.s3.local");
    }

    #[test]
    fn a_role_outside_aws_is_refused() {
        let options = CloudOptions { role: Some("r".to_owned()), ..CloudOptions::new(CloudProvider::Gcp, "lake") };
        assert_eq!(open_bucket(&options).expect_err("is refused").kind(), ErrorKind::Invalid);
    }
}
