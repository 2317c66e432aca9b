//! Opens the bucket that a storage profile or the configuration names.

use std::path::Path;
use std::sync::Arc;

use tidemill_store::ObjectStore;
use tidemill_store::cloud::{AccessKey, CloudOptions, CloudStore};
use tidemill_store::folder::FolderStore;
use tidemill_types::{CloudProvider, StorageProfile};

use crate::config::Config;
use crate::error::{Error, Result};

/// Opens a profile's bucket.
///
/// # Errors
/// `Invalid` for what the profile says wrong; those of the store.
pub fn open_profile_bucket(profile: &StorageProfile) -> Result<Arc<dyn ObjectStore>> {
    match profile.cloud_provider {
        CloudProvider::Folder => Ok(Arc::new(FolderStore::open(Path::new(&profile.bucket))?)),
        CloudProvider::Aws | CloudProvider::Gcp | CloudProvider::Azure => {
            Ok(Arc::new(CloudStore::open(&CloudOptions::of_profile(profile))?))
        }
    }
}

/// What `storage.url` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUrl {
    provider: CloudProvider,
    /// The storage account (Azure).
    account: Option<String>,
    bucket: String,
}

/// Reads `s3://bucket`, `gs://bucket`, `az://container` or `az://account/container`.
///
/// # Errors
/// What is wrong and what is allowed.
pub fn parse_bucket_url(url: &str) -> std::result::Result<BucketUrl, String> {
    let refuse = || format!("{url:?} is none of s3://bucket, gs://bucket, az://container, az://account/container");
    let (scheme, rest) = url.split_once("://").ok_or_else(refuse)?;
    let rest = rest.trim_end_matches('/');
    let (provider, account, bucket) = match (scheme, rest.split_once('/')) {
        ("s3", None) => (CloudProvider::Aws, None, rest),
        ("gs", None) => (CloudProvider::Gcp, None, rest),
        ("az", None) => (CloudProvider::Azure, None, rest),
        ("az", Some((account, container))) => (CloudProvider::Azure, Some(account.to_owned()), container),
        _ => return Err(refuse()),
    };
    if bucket.is_empty() || bucket.contains('/') || account.as_ref().is_some_and(String::is_empty) {
        return Err(refuse());
    }
    Ok(BucketUrl { provider, account, bucket: bucket.to_owned() })
}

/// Opens the bucket of `storage.url`; returns its name with it.
///
/// # Errors
/// `Invalid` for a URL that names no bucket; those of the store.
pub fn open_url_bucket(config: &Config, url: &str) -> Result<(String, Arc<dyn ObjectStore>)> {
    let BucketUrl { provider, account, bucket } =
        parse_bucket_url(url).map_err(|problem| Error::invalid(format!("storage.url: {problem}")))?;
    let text = |key: &str| config.optional(key).map(str::to_owned);
    let access_key = match (text("storage.access_key_id"), text("storage.secret_access_key")) {
        (Some(id), Some(secret)) => Some(AccessKey { id, secret }),
        _ => None,
    };
    let options = CloudOptions {
        account,
        access_key,
        region: text("storage.region"),
        endpoint: text("storage.endpoint"),
        use_path_style: config.flag("storage.path_style"),
        insecure_tls: config.flag("storage.insecure_tls"),
        role: text("storage.role"),
        timeout: config.duration("storage.timeout"),
        ..CloudOptions::new(provider, &bucket)
    };
    Ok((bucket, Arc::new(CloudStore::open(&options)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_provider_and_a_bucket() {
        let read = |url| parse_bucket_url(url).map(|it| (it.provider, it.account, it.bucket));
        assert_eq!(read("s3://lake/"), Ok((CloudProvider::Aws, None, "lake".to_owned())));
        let account = Some("account".to_owned());
        assert_eq!(read("az://account/lake"), Ok((CloudProvider::Azure, account, "lake".to_owned())));
        for url in ["lake", "s3://", "s3://a/b", "ftp://a", "az://a/b/c", "az:///b"] {
            assert!(read(url).expect_err("is refused").contains("s3://bucket"), "{url}");
        }
    }
}
