//! Which object store holds which bucket.
//!
//! Owns: the map from a bucket's name, as a storage profile writes it, to its open store; it may change while running.
//! Never: opens a store itself. Start with [`Buckets`].

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tidemill_types::ErrorKind;

use crate::{Error, ObjectStore, Result};

/// The open object stores by bucket name; clones share one map.
#[derive(Debug, Clone, Default)]
pub struct Buckets {
    stores: Arc<RwLock<BTreeMap<String, Arc<dyn ObjectStore>>>>,
}

impl Buckets {
    /// A map without buckets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a bucket or replaces its store; who holds the former one keeps it.
    pub fn set(&self, bucket: impl Into<String>, store: Arc<dyn ObjectStore>) {
        self.stores.write().insert(bucket.into(), store);
    }

    /// Removes a bucket.
    pub fn remove(&self, bucket: &str) {
        self.stores.write().remove(bucket);
    }

    /// The store of a bucket.
    ///
    /// # Errors
    /// `NotFound`, naming the buckets that are known.
    pub fn get(&self, bucket: &str) -> Result<Arc<dyn ObjectStore>> {
        let stores = self.stores.read();
        stores.get(bucket).cloned().ok_or_else(|| {
            let known: Vec<&str> = stores.keys().map(String::as_str).collect();
            let problem = format!("no storage profile has this bucket; known are {known:?}");
            Error::new("open bucket", bucket, ErrorKind::NotFound, problem)
        })
    }

    /// All bucket names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.stores.read().keys().cloned().collect()
    }
}
