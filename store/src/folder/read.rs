//! Reading objects of a folder: whole, in ranges, and listed in key order.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tidemill_types::ErrorKind;
use tokio::sync::mpsc;

use super::{UNFINISHED, describe, is_gone};
use crate::object::{ObjectInfo, ObjectRead};
use crate::{Error, Result};

const CHUNK_BYTES: u64 = 256 * 1024;
const CHUNKS_AHEAD: usize = 4;
const LISTED_AHEAD: usize = 256;

/// Opens one object; its bytes are read on a blocking thread, a few chunks ahead of the consumer.
pub(super) fn open(path: &Path, key: &str, if_match: Option<&str>) -> Result<ObjectRead> {
    let fail = |source| Error::from_io("get", key, source);
    let mut file = File::open(path).map_err(fail)?;
    let info = describe(key, &file.metadata().map_err(fail)?)?;
    if if_match.is_some() && if_match != info.etag.as_deref() {
        let problem = format!("its ETag is {:?}, not {if_match:?}", info.etag);
        return Err(Error::new("get", key, ErrorKind::Conflict, problem));
    }
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let (key, mut remaining) = (key.to_owned(), info.size);
    tokio::task::spawn_blocking(move || {
        while remaining > 0 {
            let mut chunk = vec![0; remaining.min(CHUNK_BYTES) as usize];
            let read = file.read_exact(&mut chunk).map(|()| Bytes::from(chunk));
            // The file shrank, or the disk failed: either way the rest did not come.
            let read = read.map_err(|source| Error::new("get", &key, ErrorKind::Unavailable, source));
            let is_last = read.is_err();
            remaining = remaining.saturating_sub(read.as_ref().map_or(0, |bytes| bytes.len() as u64));
            if sender.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    });
    Ok(ObjectRead { info, body: receive(receiver) })
}

/// Reads ranges of one object.
pub(super) fn ranges(path: &Path, key: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
    let fail = |source| Error::from_io("get", key, source);
    let file = File::open(path).map_err(fail)?;
    let size = describe(key, &file.metadata().map_err(fail)?)?.size;
    // What is asked for is all that is wanted: reading ahead of it would be work for nothing. Advice that is not taken harms nothing.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random);
    ranges
        .iter()
        .map(|range| {
            if range.start > range.end || range.end > size {
                let problem = format!("range {}..{} of {size} bytes", range.start, range.end);
                return Err(Error::new("get", key, ErrorKind::Invalid, problem));
            }
            let mut bytes = vec![0; (range.end - range.start) as usize];
            file.read_exact_at(&mut bytes, range.start)
                .map_err(|source| Error::new("get", key, ErrorKind::Unavailable, source))?;
            Ok(Bytes::from(bytes))
        })
        .collect()
}

/// Lists objects in key order.
pub(super) fn list(root: PathBuf, prefix: String) -> BoxStream<'static, Result<ObjectInfo>> {
    let (sender, receiver) = mpsc::channel(LISTED_AHEAD);
    tokio::task::spawn_blocking(move || {
        // The deepest folder that the prefix names fully.
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        if !folder.is_empty() && super::check_key(&folder).is_err() {
            return;
        }
        if let Err(Stop::Failed(error)) = list_folder(&root, &folder, &prefix, &sender) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    receive(receiver)
}

enum Stop {
    Failed(Error),
    NobodyListens,
}

fn list_folder(
    root: &Path,
    folder: &str,
    prefix: &str,
    sender: &mpsc::Sender<Result<ObjectInfo>>,
) -> std::result::Result<(), Stop> {
    let fail = |source| Stop::Failed(Error::from_io("list", folder, source));
    let entries = match std::fs::read_dir(root.join(folder)) {
        Err(source) if is_gone(&source) || source.kind() == std::io::ErrorKind::NotADirectory => return Ok(()),
        other => other.map_err(fail)?,
    };
    let mut keys = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        // A name that is no UTF-8 is no key.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name == UNFINISHED {
            continue;
        }
        let key = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        let is_folder = entry.file_type().map_err(fail)?.is_dir();
        // With its slash a folder sorts where its objects' keys do.
        let key = if is_folder { format!("{key}/") } else { key };
        if key.starts_with(prefix) || (is_folder && prefix.starts_with(&key)) {
            keys.push(key);
        }
    }
    keys.sort_unstable();
    for key in keys {
        if let Some(below) = key.strip_suffix('/') {
            list_folder(root, below, prefix, sender)?;
            continue;
        }
        let info = match std::fs::metadata(root.join(&key)) {
            Err(source) if is_gone(&source) => continue,
            Err(source) => return Err(fail(source)),
            Ok(metadata) if !metadata.is_file() => continue,
            Ok(metadata) => describe(&key, &metadata).map_err(Stop::Failed)?,
        };
        sender.blocking_send(Ok(info)).map_err(|_| Stop::NobodyListens)?;
    }
    Ok(())
}

fn receive<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> BoxStream<'static, T> {
    stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) }).boxed()
}
