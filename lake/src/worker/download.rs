//! Fetching an input whole before it is read, so that a torn download is a retry and never a half-read input.

use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use tidemill_segment::ingest::Rereadable;
use tidemill_store::ObjectStore;
use tidemill_store::object::ObjectRead;
use tidemill_types::ErrorKind;
use tokio::io::AsyncWriteExt;

use crate::{Error, Result};

/// Inputs up to this size stay in memory.
const IN_MEMORY_BYTES: u64 = 8 << 20;
/// Attempts within one claim, so that a short hiccup does not cost a backoff.
const ATTEMPTS: u32 = 3;

/// A whole object.
#[derive(Debug)]
pub(crate) enum Downloaded {
    /// In memory.
    Memory(Vec<u8>),
    /// In a file of the spool folder that is removed when this is dropped.
    File(SpoolDownload),
}

impl Downloaded {
    /// Opens the bytes for reading.
    pub(crate) fn open(&self) -> Result<Box<dyn Rereadable + '_>> {
        match self {
            Self::Memory(bytes) => Ok(Box::new(Cursor::new(bytes.as_slice()))),
            Self::File(file) => {
                let opened = std::fs::File::open(file.path()).map_err(Error::file("open", file.path()))?;
                Ok(Box::new(std::io::BufReader::with_capacity(1 << 20, opened)))
            }
        }
    }

    /// Its last `bytes`, or all of it when it has fewer.
    pub(crate) fn tail(&self, bytes: u64) -> Result<Vec<u8>> {
        match self {
            Self::Memory(whole) => {
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(whole.len());
                Ok(whole[whole.len() - bytes..].to_vec())
            }
            Self::File(file) => {
                let read = || {
                    let mut opened = std::fs::File::open(file.path())?;
                    let size = opened.metadata()?.len();
                    opened.seek(SeekFrom::Start(size.saturating_sub(bytes)))?;
                    let mut tail = Vec::new();
                    opened.take(bytes).read_to_end(&mut tail)?;
                    Ok(tail)
                };
                read().map_err(Error::file("read", file.path()))
            }
        }
    }
}

/// Which object, at which version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Its path.
    pub key: &'a str,
    /// Its version; another one is a `Conflict`.
    pub etag: Option<&'a str>,
    /// Its size, where known; another one is a `Conflict`.
    pub size_bytes: Option<u64>,
}

/// Downloads an object into a file of the spool folder.
///
/// # Errors
/// As [`download`].
pub(crate) async fn download_to_file(
    store: &dyn ObjectStore,
    wanted: Wanted<'_>,
    spool: &Path,
) -> Result<SpoolDownload> {
    match repeat(store, wanted, spool, 0).await? {
        Downloaded::File(file) => Ok(file),
        Downloaded::Memory(_) => Err(Error::Internal("a download for a file stayed in memory".to_owned())),
    }
}

/// Downloads an object, into memory when it is small.
///
/// # Errors
/// `NotFound`; `Conflict` when the object is not the wanted version; `Unavailable` after the last attempt.
pub(crate) async fn download(store: &dyn ObjectStore, wanted: Wanted<'_>, spool: &Path) -> Result<Downloaded> {
    repeat(store, wanted, spool, IN_MEMORY_BYTES).await
}

async fn repeat(store: &dyn ObjectStore, wanted: Wanted<'_>, spool: &Path, in_memory_bytes: u64) -> Result<Downloaded> {
    let mut attempt = 1;
    loop {
        match download_once(store, wanted, spool, in_memory_bytes).await {
            Err(error) if error.kind().is_retryable() && attempt < ATTEMPTS => {
                tracing::debug!(key = wanted.key, attempt, %error, "a download is repeated");
                tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
                attempt += 1;
            }
            other => return other,
        }
    }
}

async fn download_once(
    store: &dyn ObjectStore,
    wanted: Wanted<'_>,
    spool: &Path,
    in_memory_bytes: u64,
) -> Result<Downloaded> {
    let read = store.get(wanted.key, wanted.etag).await?;
    let size = read.info.size;
    if wanted.size_bytes.is_some_and(|expected| expected != size) {
        let reason = format!("expected {} bytes, the object has {size}", wanted.size_bytes.unwrap_or_default());
        return Err(tidemill_store::Error::new("get", wanted.key, ErrorKind::Conflict, reason).into());
    }
    if size <= in_memory_bytes { into_memory(read, wanted.key).await } else { into_file(read, wanted.key, spool).await }
}

async fn into_memory(mut read: ObjectRead, key: &str) -> Result<Downloaded> {
    let mut bytes = Vec::with_capacity(read.info.size as usize);
    while let Some(chunk) = read.body.next().await {
        bytes.extend_from_slice(&chunk?);
        // More than was announced must not grow without bound.
        if bytes.len() as u64 > read.info.size {
            break;
        }
    }
    check_whole(key, read.info.size, bytes.len() as u64)?;
    Ok(Downloaded::Memory(bytes))
}

async fn into_file(mut read: ObjectRead, key: &str, spool: &Path) -> Result<Downloaded> {
    let file = SpoolDownload::new(spool);
    let mut out = tokio::fs::File::create(file.path()).await.map_err(Error::file("create", file.path()))?;
    let mut written = 0u64;
    while let Some(chunk) = read.body.next().await {
        let chunk = chunk?;
        written += chunk.len() as u64;
        if written > read.info.size {
            break;
        }
        out.write_all(&chunk).await.map_err(Error::file("write", file.path()))?;
    }
    check_whole(key, read.info.size, written)?;
    out.flush().await.map_err(Error::file("write", file.path()))?;
    Ok(Downloaded::File(file))
}

fn check_whole(key: &str, expected: u64, got: u64) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    let reason = format!("the download was torn: {got} of {expected} bytes came");
    Err(tidemill_store::Error::new("get", key, ErrorKind::Unavailable, reason).into())
}

/// A file of our own in the spool folder, removed on drop.
#[derive(Debug)]
pub(crate) struct SpoolDownload(PathBuf);

impl SpoolDownload {
    /// A new, unique path; nothing is created.
    pub(crate) fn new(spool: &Path) -> Self {
        Self(spool.join(format!("download-{}", uuid::Uuid::now_v7().simple())))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SpoolDownload {
    fn drop(&mut self) {
        // It may never have been created.
        drop(std::fs::remove_file(&self.0));
    }
}
