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

/// Opens the bucket of `storage.url`; returns its name with it.
///
/// # Errors
/// `Invalid` for a URL that names no bucket; those of the store.
pub fn open_url_bucket(config: &Config, url: &str) -> Result<(String, Arc<dyn ObjectStore>)> {
    let (provider, bucket) = parse_url(url)?;
    let text = |key: &str| config.optional(key).map(str::to_owned);
    let access_key = match (text("storage.access_key_id"), text("storage.secret_access_key")) {
        (Some(id), Some(secret)) => Some(AccessKey { id, secret }),
        (None, None) => None,
        _ => {
            return Err(Error::invalid(
                "storage.access_key_id and storage.secret_access_key belong together: set both or none",
            ));
        }
    };
    let options = CloudOptions {
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

fn parse_url(url: &str) -> Result<(CloudProvider, String)> {
    let refuse = || {
        let message =
            format!("storage.url: {url:?} is none of s3://bucket, gs://bucket, az://container, az://account/container");
        Error::invalid(message)
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(refuse)?;
    let rest = rest.trim_end_matches('/');
    let (provider, bucket) = match scheme {
        "s3" => (CloudProvider::Aws, rest),
        "gs" => (CloudProvider::Gcp, rest),
        "az" => (CloudProvider::Azure, rest.rsplit('/').next().unwrap_or(rest)),
        _ => return Err(refuse()),
    };
    if bucket.is_empty() || bucket.contains('/') {
        return Err(refuse());
    }
    Ok((provider, bucket.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_provider_and_a_bucket() {
        let read = |url| parse_url(url).map_err(|error| error.to_string());
        assert_eq!(read("s3://lake/"), Ok((CloudProvider::Aws, "lake".to_owned())));
        assert_eq!(read("az://account/lake"), Ok((CloudProvider::Azure, "lake".to_owned())));
        for url in ["lake", "s3://", "s3://a/b", "ftp://a"] {
            assert!(read(url).expect_err("is refused").contains("s3://bucket"), "{url}");
        }
    }
}
