//! Object stores: bytes under keys.

use std::ops::Range;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tidemill_types::TimestampNs;

use crate::Result;

/// The bytes of a put.
#[derive(Debug, Clone)]
pub enum PutBody {
    /// In memory, written one after the other.
    Chunks(Vec<Bytes>),
    /// A local file, read as it is sent (multipart where the store needs it).
    File(PathBuf),
}

/// What a put does when the key exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutMode {
    /// Replace it.
    Overwrite,
    /// Fail with `Conflict`.
    IfAbsent,
}

/// What a store says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Path inside the bucket.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// The store's mark of its content.
    pub etag: Option<String>,
    /// Its version or generation, where the store keeps versions and tells.
    pub version: Option<String>,
    /// When it was last written.
    pub modified: TimestampNs,
}

/// An object being read.
pub struct ObjectRead {
    /// Its description.
    pub info: ObjectInfo,
    /// Its bytes; ends with an error (kind `Unavailable`) when fewer than `info.size` bytes came.
    pub body: BoxStream<'static, Result<Bytes>>,
}

/// One bucket, or one folder.
#[async_trait]
pub trait ObjectStore: Send + Sync + std::fmt::Debug + 'static {
    /// Writes an object. When this returns, it survives a power cut (a folder syncs file and parents).
    ///
    /// # Errors
    /// `Conflict` for `IfAbsent` on an existing key; `Busy` on a full disk; `Unavailable`.
    async fn put(&self, key: &str, body: PutBody, mode: PutMode) -> Result<ObjectInfo>;

    /// Opens an object; with `if_match`, only while its ETag is that one (`Conflict` otherwise).
    ///
    /// # Errors
    /// `NotFound`, `Conflict`, `Unavailable`.
    async fn get(&self, key: &str, if_match: Option<&str>) -> Result<ObjectRead>;

    /// Reads byte ranges, in the order given, in parallel where the store allows. A short answer is an error, never short bytes.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`; `Invalid` for a range past the end.
    async fn get_ranges(&self, key: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>>;

    /// Describes an object.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    async fn head(&self, key: &str) -> Result<ObjectInfo>;

    /// Deletes an object; one that is already gone is a success.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn delete(&self, key: &str) -> Result<()>;

    /// Lists objects under `prefix` in key order.
    fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectInfo>>;
}
