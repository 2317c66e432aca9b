//! A bucket of S3, Google Cloud Storage or Azure as an object store.
//!
//! Owns: what an answer of a cloud means (a short body is an error, a lost acknowledgement is found out), ETags without quotes,
//! multipart puts of large files. Never: keeps credentials; they come from the environment, or from a role that is really assumed.
//! Start with [`CloudStore`].

mod open;
mod role;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    GetOptions, ObjectMeta, ObjectStore as Bucket, ObjectStoreExt, PutOptions, PutPayload, WriteMultipart,
};
use tidemill_types::{ErrorKind, TimestampNs};
use tokio::io::AsyncReadExt;

pub use open::{AccessKey, CloudOptions};
pub use role::{RoleOptions, assume_role};

use crate::object::{ObjectInfo, ObjectRead, PutBody, PutMode};
use crate::{Error, ObjectStore, Result};

/// A larger file goes in parts of this size, and a much larger object comes so.
const PART_BYTES: u64 = 16 * 1024 * 1024;
/// Parts of a read under way at once.
const PARTS_READ_AHEAD: usize = 2;
/// Parts of a put under way at once.
const PARTS_AT_ONCE: usize = 4;
/// Ranges of one object asked for at the same time.
const RANGES_TOGETHER: usize = 16;

/// One bucket.
#[derive(Debug, Clone)]
pub struct CloudStore {
    bucket: Arc<dyn Bucket>,
}

impl CloudStore {
    /// Opens a bucket; nothing is asked of it yet.
    ///
    /// # Errors
    /// `Invalid`, naming the bucket and what is wrong.
    pub fn open(options: &CloudOptions) -> Result<Self> {
        Ok(Self { bucket: open::open_bucket(options)? })
    }

    async fn put_bytes(&self, key: &str, path: &Path, chunks: Vec<Bytes>, mode: PutMode) -> Result<ObjectInfo> {
        let size: usize = chunks.iter().map(Bytes::len).sum();
        let payload: PutPayload = chunks.into_iter().collect();
        let put_mode = match mode {
            PutMode::Overwrite => object_store::PutMode::Overwrite,
            PutMode::IfAbsent => object_store::PutMode::Create,
        };
        let put = self.bucket.put_opts(path, payload.clone(), PutOptions::from(put_mode)).await;
        match put {
            Ok(_) => {}
            // Ours, if an earlier try of the same request went through and its answer was lost.
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })
                if self.holds(path, &payload).await => {}
            Err(source) => return Err(failed("put", key)(source)),
        }
        let info = self.head(key).await?;
        if mode == PutMode::IfAbsent && info.size != size as u64 {
            let problem = format!("{} bytes are stored, {size} were written", info.size);
            return Err(Error::new("put", key, ErrorKind::Corrupt, problem));
        }
        Ok(info)
    }

    /// Whether the object has exactly these bytes.
    async fn holds(&self, path: &Path, payload: &PutPayload) -> bool {
        let Ok(found) = self.bucket.get(path).await else { return false };
        if found.meta.size != payload.content_length() as u64 {
            return false;
        }
        let Ok(bytes) = found.bytes().await else { return false };
        let mut rest = bytes.as_ref();
        payload.iter().all(|chunk| rest.split_off(..chunk.len()).is_some_and(|start| start == chunk.as_ref()))
    }

    async fn put_parts(&self, key: &str, path: &Path, mut file: tokio::fs::File, size: u64) -> Result<ObjectInfo> {
        let upload = self.bucket.put_multipart(path).await.map_err(failed("put", key))?;
        let mut parts = WriteMultipart::new_with_chunk_size(upload, PART_BYTES as usize);
        let mut written = 0;
        loop {
            let mut part = Vec::with_capacity(PART_BYTES as usize);
            let read = (&mut file).take(PART_BYTES).read_to_end(&mut part).await;
            let waited = match read {
                Ok(0) => break,
                Ok(len) => {
                    written += len as u64;
                    parts.put(part.into());
                    parts.wait_for_capacity(PARTS_AT_ONCE).await.map_err(failed("put", key))
                }
                Err(source) => Err(Error::from_io("put", key, source)),
            };
            if let Err(error) = waited {
                // Best effort: an upload that is not aborted is removed by the bucket's own rule.
                let _ = parts.abort().await;
                return Err(error);
            }
        }
        parts.finish().await.map_err(failed("put", key))?;
        let info = self.head(key).await?;
        if info.size != size || written != size {
            let problem = format!("{} bytes are stored, the file had {size}", info.size);
            return Err(Error::new("put", key, ErrorKind::Corrupt, problem));
        }
        Ok(info)
    }
}

#[async_trait]
impl ObjectStore for CloudStore {
    async fn put(&self, key: &str, body: PutBody, mode: PutMode) -> Result<ObjectInfo> {
        let path = path_of("put", key)?;
        let file = match body {
            PutBody::Chunks(chunks) => return self.put_bytes(key, &path, chunks, mode).await,
            PutBody::File(file) => file,
        };
        let fail = |source| Error::from_io("put", key, source);
        let mut file = tokio::fs::File::open(&file).await.map_err(fail)?;
        let size = file.metadata().await.map_err(fail)?.len();
        if size <= PART_BYTES {
            let mut bytes = Vec::with_capacity(size as usize);
            file.read_to_end(&mut bytes).await.map_err(fail)?;
            return self.put_bytes(key, &path, vec![bytes.into()], mode).await;
        }
        // Parts know no "if absent"; keys of such objects name their lease, so that nobody else writes them meanwhile.
        if mode == PutMode::IfAbsent {
            match self.head(key).await {
                Ok(_) => return Err(Error::new("put", key, ErrorKind::Conflict, "exists")),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.put_parts(key, &path, file, size).await
    }

    async fn get(&self, key: &str, if_match: Option<&str>) -> Result<ObjectRead> {
        let options = GetOptions { if_match: if_match.map(quoted), ..GetOptions::default() };
        let path = path_of("get", key)?;
        let found = self.bucket.get_opts(&path, options).await.map_err(failed("get", key))?;
        let info = describe(key, &found.meta);
        let body = match found.meta.e_tag.clone() {
            Some(etag) if info.size > PART_BYTES * 2 => in_parts(Arc::clone(&self.bucket), path, etag, info.size),
            _ => found.into_stream(),
        };
        Ok(ObjectRead { body: whole(key, body, info.size), info })
    }

    async fn get_ranges(&self, key: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let invalid = |problem: String| Error::new("get", key, ErrorKind::Invalid, problem);
        if let Some(range) = ranges.iter().find(|range| range.start > range.end) {
            return Err(invalid(format!("range {}..{} ends before it starts", range.start, range.end)));
        }
        let path = path_of("get", key)?;
        // An empty range is no request.
        let asked: Vec<Range<u64>> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
        // One request a range: who asks has joined those that are near, and counts the bytes.
        let requests: Vec<_> = asked.iter().map(|range| self.bucket.get_range(&path, range.clone())).collect();
        let answered: Vec<Bytes> = match stream::iter(requests).buffered(RANGES_TOGETHER).try_collect().await {
            Ok(answered) => answered,
            Err(source) => {
                // A range past the end is told in as many ways as there are stores; the size decides.
                let error = failed("get", key)(source);
                let size = if error.kind() == ErrorKind::NotFound { u64::MAX } else { self.head(key).await?.size };
                let past = asked.iter().find(|range| range.end > size);
                return Err(past
                    .map_or(error, |range| invalid(format!("range {}..{} of {size} bytes", range.start, range.end))));
            }
        };
        for (range, bytes) in asked.iter().zip(&answered) {
            if bytes.len() as u64 != range.end - range.start {
                let size = self.head(key).await?.size;
                let kind = if range.end > size { ErrorKind::Invalid } else { ErrorKind::Unavailable };
                let problem =
                    format!("range {}..{} of {size} bytes gave {} bytes", range.start, range.end, bytes.len());
                return Err(Error::new("get", key, kind, problem));
            }
        }
        let mut answered = answered.into_iter();
        Ok(ranges
            .iter()
            .map(|range| if range.is_empty() { Bytes::new() } else { answered.next().unwrap_or_default() })
            .collect())
    }

    async fn head(&self, key: &str) -> Result<ObjectInfo> {
        let meta = self.bucket.head(&path_of("head", key)?).await.map_err(failed("head", key))?;
        Ok(describe(key, &meta))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        match self.bucket.delete(&path_of("delete", key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(failed("delete", key)(source)),
        }
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectInfo>> {
        // The client lists whole path components; the rest of the prefix is compared here.
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let folder = match Path::parse(folder) {
            Ok(folder) => folder,
            Err(_) => return stream::empty().boxed(),
        };
        let (prefix, bucket) = (prefix.to_owned(), Arc::clone(&self.bucket));
        let listed = bucket.list((!folder.as_ref().is_empty()).then_some(&folder));
        listed
            .filter_map(move |meta| {
                let listed = match meta {
                    Ok(meta) if !meta.location.as_ref().starts_with(&prefix) => None,
                    Ok(meta) => Some(Ok(describe(meta.location.as_ref(), &meta))),
                    Err(source) => Some(Err(failed("list", &prefix)(source))),
                };
                std::future::ready(listed)
            })
            .boxed()
    }
}

/// Reads a large object part by part: one request has a fixed time, whatever the size, and so has each part.
fn in_parts(
    bucket: Arc<dyn Bucket>,
    path: Path,
    etag: String,
    size: u64,
) -> BoxStream<'static, object_store::Result<Bytes>> {
    let starts = (0..size).step_by(PART_BYTES as usize);
    let parts = starts.map(move |start| {
        let (bucket, path) = (Arc::clone(&bucket), path.clone());
        let range = start..size.min(start + PART_BYTES);
        let options = GetOptions { if_match: Some(etag.clone()), range: Some(range.into()), ..GetOptions::default() };
        async move { bucket.get_opts(&path, options).await?.bytes().await }
    });
    stream::iter(parts).buffered(PARTS_READ_AHEAD).boxed()
}

/// Ends with an error when the bytes are fewer or more than were announced.
fn whole(
    key: &str,
    body: BoxStream<'static, object_store::Result<Bytes>>,
    size: u64,
) -> BoxStream<'static, Result<Bytes>> {
    let short = move |key: &str, missing: u64| {
        Error::new("get", key, ErrorKind::Unavailable, format!("the last {missing} of {size} bytes did not come"))
    };
    let state = (body, size, key.to_owned(), false);
    stream::unfold(state, move |(mut body, remaining, key, is_over)| async move {
        if is_over {
            return None;
        }
        let (item, remaining, is_over) = match body.next().await {
            Some(Ok(bytes)) if bytes.len() as u64 <= remaining => {
                let remaining = remaining - bytes.len() as u64;
                (Ok(bytes), remaining, false)
            }
            Some(Ok(_)) => {
                (Err(Error::new("get", &key, ErrorKind::Unavailable, "more bytes came than announced")), 0, true)
            }
            // Whatever broke a body that had begun, another try may get it.
            Some(Err(source)) => (Err(Error::new("get", &key, ErrorKind::Unavailable, source)), remaining, true),
            None if remaining > 0 => (Err(short(&key, remaining)), remaining, true),
            None => return None,
        };
        Some((item, (body, remaining, key, is_over)))
    })
    .boxed()
}

fn path_of(operation: &'static str, key: &str) -> Result<Path> {
    let invalid = |problem: String| Error::new(operation, key, ErrorKind::Invalid, problem);
    let path = Path::parse(key).map_err(|source| invalid(source.to_string()))?;
    if path.as_ref() != key || key.is_empty() {
        return Err(invalid("a key is relative and has no empty path component".to_owned()));
    }
    Ok(path)
}

fn describe(key: &str, meta: &ObjectMeta) -> ObjectInfo {
    let modified = meta.last_modified.timestamp_nanos_opt().unwrap_or(i64::MAX);
    let etag = meta.e_tag.as_deref().map(|etag| unquoted(etag).to_owned());
    ObjectInfo {
        key: key.to_owned(),
        size: meta.size,
        etag,
        version: meta.version.clone(),
        modified: TimestampNs(modified),
    }
}

/// Events carry ETags without their quotes, headers with them; inside there are none.
fn unquoted(etag: &str) -> &str {
    etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"')).unwrap_or(etag)
}

fn quoted(etag: &str) -> String {
    if etag.starts_with('"') || etag.starts_with("W/") { etag.to_owned() } else { format!("\"{etag}\"") }
}

fn failed(operation: &'static str, key: &str) -> impl Fn(object_store::Error) -> Error {
    let key = key.to_owned();
    move |source| {
        use object_store::Error as Cloud;
        let kind = match &source {
            Cloud::NotFound { .. } => ErrorKind::NotFound,
            Cloud::AlreadyExists { .. } | Cloud::Precondition { .. } | Cloud::NotModified { .. } => ErrorKind::Conflict,
            Cloud::InvalidPath { .. } | Cloud::NotSupported { .. } | Cloud::NotImplemented { .. } => ErrorKind::Invalid,
            // Rights and credentials are put right by people while we run.
            _ => ErrorKind::Unavailable,
        };
        Error::new(operation, &key, kind, source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_lose_and_regain_their_quotes() {
        assert_eq!(unquoted("\"abc\""), "abc");
        assert_eq!(quoted("abc"), "\"abc\"");
        assert_eq!(quoted("W/\"abc\""), "W/\"abc\"");
    }

    #[tokio::test]
    async fn a_torn_body_is_an_error() {
        let torn = stream::iter([Ok(Bytes::from_static(b"abc"))]).boxed();
        let read: Vec<_> = whole("k", torn, 5).collect().await;
        assert!(read[0].is_ok());
        assert_eq!(read[1].as_ref().expect_err("is short").kind(), ErrorKind::Unavailable);
        let complete = stream::iter([Ok(Bytes::from_static(b"abc"))]).boxed();
        assert!(whole("k", complete, 3).all(|item| std::future::ready(item.is_ok())).await);
    }

    #[test]
    fn keys_are_taken_as_they_are() {
        assert_eq!(path_of("get", "otel-raw/a b/ü%20.gz").expect("is a key").as_ref(), "otel-raw/a b/ü%20.gz");
        for key in ["", "/a", "a//b", "a/../b", "a/"] {
            assert!(path_of("get", key).is_err(), "{key:?}");
        }
    }
}
