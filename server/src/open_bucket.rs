//! Opens the bucket that a storage profile or the configuration names.

use std::path::Path;
use std::sync::Arc;

use tidemill_store::ObjectStore;
use tidemill_store::folder::FolderStore;
use tidemill_types::{CloudProvider, StorageProfile};

use crate::error::{Error, Result};

/// Opens a profile's bucket.
///
/// # Errors
/// `Invalid` for what the profile says wrong; those of the store.
pub fn open_profile_bucket(profile: &StorageProfile) -> Result<Arc<dyn ObjectStore>> {
    match profile.cloud_provider {
        CloudProvider::Folder => Ok(Arc::new(FolderStore::open(Path::new(&profile.bucket))?)),
        CloudProvider::Aws | CloudProvider::Gcp | CloudProvider::Azure => Err(Error::invalid(format!(
            "bucket {}: {} is not in this build yet",
            profile.bucket, profile.cloud_provider
        ))),
    }
}
