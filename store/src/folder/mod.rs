//! A folder as an object store, durable at every acknowledgement.
//!
//! Owns: objects as files below one root; a put writes a temporary file, syncs it, moves it to its name and syncs the folders
//! that gained a name. Never: follows a key out of its root, leaves half an object under its name. A file's ETag is its inode,
//! modification time and size. Start with [`FolderStore`].

mod disk;
mod read;

use std::collections::HashSet;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tidemill_types::{ErrorKind, TimestampNs};

pub use disk::{Disk, SystemDisk};

use crate::object::{ObjectInfo, ObjectRead, PutBody, PutMode};
use crate::{Error, ObjectStore, Result};

/// Where unfinished puts live: below the root, so that moving an object to its name never crosses a file system.
const UNFINISHED: &str = ".tidemill-unfinished";

/// One folder as a bucket; clones share what they know of it.
#[derive(Debug, Clone)]
pub struct FolderStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    disk: Box<dyn Disk>,
    /// Folders whose name is known to be durable.
    durable_folders: Mutex<HashSet<PathBuf>>,
}

impl FolderStore {
    /// Opens a folder, creating it if needed.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_on(root, Box::new(SystemDisk))
    }

    /// Opens a folder whose writes go through `disk`; reads go to the operating system.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn open_on(root: &Path, disk: Box<dyn Disk>) -> Result<Self> {
        let fail = |source| Error::from_io("open folder", root.display().to_string(), source);
        std::fs::create_dir_all(root).map_err(fail)?;
        let root = root.canonicalize().map_err(fail)?;
        let store = Self { inner: Arc::new(Inner { root, disk, durable_folders: Mutex::default() }) };
        store.inner.remove_unfinished().map_err(fail)?;
        Ok(store)
    }

    /// The folder's absolute path.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce(&Inner, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        let own_key = key.to_owned();
        let joined = tokio::task::spawn_blocking(move || work(&inner, &own_key)).await;
        joined.unwrap_or_else(|source| Err(Error::new(operation, key, ErrorKind::Internal, source)))
    }
}

#[async_trait]
impl ObjectStore for FolderStore {
    async fn put(&self, key: &str, body: PutBody, mode: PutMode) -> Result<ObjectInfo> {
        self.blocking("put", key, move |inner, key| inner.put(key, &body, mode)).await
    }

    async fn get(&self, key: &str, if_match: Option<&str>) -> Result<ObjectRead> {
        let if_match = if_match.map(str::to_owned);
        self.blocking("get", key, move |inner, key| read::open(&inner.path("get", key)?, key, if_match.as_deref()))
            .await
    }

    async fn get_ranges(&self, key: &str, ranges: &[std::ops::Range<u64>]) -> Result<Vec<Bytes>> {
        let ranges = ranges.to_vec();
        self.blocking("get", key, move |inner, key| read::ranges(&inner.path("get", key)?, key, &ranges)).await
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        self.blocking("head", key, |inner, key| inner.describe("head", key)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.blocking("delete", key, |inner, key| match inner.disk.remove(&inner.path("delete", key)?) {
            Err(source) if !is_gone(&source) => Err(Error::from_io("delete", key, source)),
            // Not synced: a deleted object that returns after a power cut is deleted once more.
            _ => Ok(()),
        })
        .await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectInfo>> {
        read::list(self.inner.root.clone(), prefix.to_owned())
    }
}

impl Inner {
    fn path(&self, operation: &'static str, key: &str) -> Result<PathBuf> {
        check_key(key).map_err(|problem| Error::new(operation, key, ErrorKind::Invalid, problem))?;
        Ok(self.root.join(key))
    }

    fn describe(&self, operation: &'static str, key: &str) -> Result<ObjectInfo> {
        let metadata = std::fs::metadata(self.path(operation, key)?);
        describe(key, &metadata.map_err(|source| Error::from_io(operation, key, source))?)
    }

    fn put(&self, key: &str, body: &PutBody, mode: PutMode) -> Result<ObjectInfo> {
        let path = self.path("put", key)?;
        let unfinished = self.root.join(UNFINISHED).join(uuid::Uuid::new_v4().simple().to_string());
        let stored = self.store(&path, &unfinished, body, mode);
        if stored.is_err() {
            // Best effort: what is left is removed when the folder is opened next.
            let _ = self.disk.remove(&unfinished);
        }
        let size = stored.map_err(|source| Error::from_io("put", key, source))?;
        let info = self.describe("put", key)?;
        debug_assert!(mode == PutMode::Overwrite || info.size == size, "{key} has {} of {size} bytes", info.size);
        Ok(info)
    }

    fn store(&self, path: &Path, unfinished: &Path, body: &PutBody, mode: PutMode) -> io::Result<u64> {
        let parent = path.parent().unwrap_or(&self.root);
        self.make_durable_folder(parent)?;
        let write = || match body {
            PutBody::Chunks(chunks) => self.disk.write_new(unfinished, &mut ChunksReader(chunks.clone().into())),
            PutBody::File(file) => self.disk.write_new(unfinished, &mut std::fs::File::open(file)?),
        };
        let size = match write() {
            Err(source) if is_gone(&source) => {
                self.create_folder(&self.root.join(UNFINISHED))?;
                write()?
            }
            other => other?,
        };
        self.disk.sync_file(unfinished)?;
        let rename = || match mode {
            PutMode::Overwrite => self.disk.replace(unfinished, path),
            PutMode::IfAbsent => self.disk.move_new(unfinished, path),
        };
        match rename() {
            // Somebody removed folders that were known to exist.
            Err(source) if is_gone(&source) => {
                self.durable_folders.lock().clear();
                self.make_durable_folder(parent)?;
                rename()?;
            }
            other => other?,
        }
        self.disk.sync_folder(parent)?;
        Ok(size)
    }

    /// Creates `folder` and what is above it up to the root, and makes every name of the chain durable. A folder that was there
    /// already counts only after its own parent was synced by us: its creator may not have come so far.
    fn make_durable_folder(&self, folder: &Path) -> io::Result<()> {
        if folder == self.root || self.durable_folders.lock().contains(folder) {
            return Ok(());
        }
        let parent = folder.parent().unwrap_or(&self.root);
        self.make_durable_folder(parent)?;
        self.create_folder(folder)?;
        self.disk.sync_folder(parent)?;
        self.durable_folders.lock().insert(folder.to_owned());
        Ok(())
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        match self.disk.create_folder(folder) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(source),
            _ => Ok(()),
        }
    }

    /// Removes what puts of processes that are gone left behind. Younger files may belong to another process.
    fn remove_unfinished(&self) -> io::Result<()> {
        let entries = match std::fs::read_dir(self.root.join(UNFINISHED)) {
            Err(source) if is_gone(&source) => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let age = entry.metadata().and_then(|metadata| metadata.modified()).map(|modified| modified.elapsed());
            if matches!(age, Ok(Ok(age)) if age.as_secs() > 24 * 3_600) {
                let _ = self.disk.remove(&entry.path());
            }
        }
        Ok(())
    }
}

/// The bytes of chunks, one after the other.
struct ChunksReader(std::collections::VecDeque<Bytes>);

impl Read for ChunksReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(chunk) = self.0.front_mut() {
            if chunk.is_empty() {
                self.0.pop_front();
                continue;
            }
            let len = chunk.len().min(buffer.len());
            chunk.copy_to_slice(&mut buffer[..len]);
            return Ok(len);
        }
        Ok(0)
    }
}

fn is_gone(source: &io::Error) -> bool {
    source.kind() == io::ErrorKind::NotFound
}

/// A key is relative, has no empty, `.` or `..` component, and stays out of our own corner.
fn check_key(key: &str) -> std::result::Result<(), String> {
    if key.is_empty() || key.len() > 1024 {
        return Err(format!("a key has 1 to 1024 bytes, this one {}", key.len()));
    }
    if key.contains('\0') {
        return Err("a key has no zero byte".to_owned());
    }
    for component in key.split('/') {
        match component {
            "" => return Err("a key has no empty path component".to_owned()),
            "." | ".." | UNFINISHED => return Err(format!("{component:?} is no path component of a key")),
            _ => {}
        }
    }
    Ok(())
}

fn describe(key: &str, metadata: &std::fs::Metadata) -> Result<ObjectInfo> {
    if !metadata.is_file() {
        return Err(Error::new("head", key, ErrorKind::NotFound, "is no file"));
    }
    let modified = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
    Ok(ObjectInfo {
        key: key.to_owned(),
        size: metadata.len(),
        etag: Some(format!("{:x}-{modified:x}-{:x}", metadata.ino(), metadata.len())),
        version: None,
        modified: TimestampNs(modified),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_inside() {
        for key in ["", "/etc/passwd", "a//b", "../x", "a/../../x", "a/./b", "a/", "a\0b", ".tidemill-unfinished/x"] {
            assert!(check_key(key).is_err(), "{key:?}");
        }
        assert_eq!(check_key("otel-raw/a..b/.c/logs_1"), Ok(()));
    }
}
