//! A segment that has been written but not uploaded.

use std::path::PathBuf;

use bytes::Bytes;
use tidemill_types::keys::SegmentKey;
use tidemill_types::{ByteRange, Day, Hour, Level, SegmentId, SegmentMeta, ServiceSet, Signal, Tier, TimeRange};
use uuid::Uuid;

/// A finished segment object and what the catalog will say of it.
#[derive(Debug)]
pub struct DraftSegment {
    /// Which signal.
    pub signal: Signal,
    /// Raw rows or a rollup window.
    pub tier: Tier,
    /// Compaction level.
    pub level: Level,
    /// The one UTC day of all event times.
    pub day: Day,
    /// From the earliest event time to one past the latest.
    pub time: TimeRange,
    /// The latest day on which any row arrived.
    pub ingest_day: Day,
    /// Rows.
    pub rows: u64,
    /// Size of the object.
    pub bytes: u64,
    /// Where the Parquet footer lies, without its eight trailing bytes.
    pub footer: ByteRange,
    /// BLAKE3 of the footer's bytes.
    pub footer_hash: [u8; 32],
    /// Where the index section lies; `len` 0 when there is none.
    pub index: ByteRange,
    /// Which services occur.
    pub services: ServiceSet,
    /// For a rollup, the hour's `ingest_seq` that it covers; 0 for raw rows.
    pub covers_ingest_seq: i64,
    /// The hours that have rows, ascending.
    pub hours: Vec<Hour>,
    /// The object's bytes.
    pub body: DraftBody,
}

/// Where a draft's bytes are until they are uploaded.
#[derive(Debug)]
pub enum DraftBody {
    /// In memory.
    Memory(Bytes),
    /// In a spool file that is removed when this is dropped.
    File(SpoolFile),
}

/// A file of the spool folder; removed on drop.
#[derive(Debug)]
pub struct SpoolFile {
    path: PathBuf,
}

impl SpoolFile {
    /// Takes over the file at `path`.
    pub(crate) fn own(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where the file is.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        // A file that is already gone, or a folder that is, is what was wanted.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl DraftSegment {
    /// The catalog row of this segment once it is stored under `key`.
    pub fn meta(&self, key: &SegmentKey, bucket: &str, instance_num: i32, etag: Option<String>) -> SegmentMeta {
        let object_key = key.object_key();
        SegmentMeta {
            id: segment_id(&object_key),
            organization: key.organization,
            signal: self.signal,
            tier: self.tier,
            level: self.level,
            day: self.day,
            time: self.time,
            ingest_day: self.ingest_day,
            rows: self.rows,
            bytes: self.bytes,
            bucket: bucket.to_owned(),
            instance_num,
            object_key,
            etag,
            footer: self.footer,
            footer_hash: self.footer_hash,
            index: self.index,
            services: self.services.clone(),
            covers_ingest_seq: self.covers_ingest_seq,
        }
    }
}

/// The id of the segment stored under `object_key`: the first 16 bytes of the key's BLAKE3.
pub fn segment_id(object_key: &str) -> SegmentId {
    let hash = blake3::hash(object_key.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hash.as_bytes()[..16]);
    SegmentId(Uuid::from_bytes(id))
}
