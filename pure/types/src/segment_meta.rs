//! What the catalog knows of a segment: enough to plan a query without opening it.

use serde::{Deserialize, Serialize};

use crate::{Day, Level, OrganizationId, SegmentId, Signal, Tier, TimeRange};

/// A byte range inside an object, half-open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

/// The service names that occur in a segment: exactly while there are at most 32, a bloom filter beyond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredServices", into = "StoredServices")]
pub enum ServiceSet {
    /// All names, sorted, without repetition; at most 32 and at most 512 bytes together.
    Names(Vec<String>),
    /// The same, and every row has one of them.
    OfEveryRow(Vec<String>),
    /// 256 bytes; a name is in it when all its seven bits are set (`tidemill_text::service_bloom`).
    Bloom(Vec<u8>),
}

/// A [`ServiceSet`] as it is stored: an empty name behind others, which no sorted list ends with, says that every row has a name. Builds
/// that do not know of it read a name more.
#[derive(Serialize, Deserialize)]
enum StoredServices {
    Names(Vec<String>),
    Bloom(Vec<u8>),
}

impl From<StoredServices> for ServiceSet {
    fn from(stored: StoredServices) -> Self {
        match stored {
            StoredServices::Names(names) => Self::of_stored_names(names),
            StoredServices::Bloom(bits) => Self::Bloom(bits),
        }
    }
}

impl From<ServiceSet> for StoredServices {
    fn from(services: ServiceSet) -> Self {
        match services.stored_names() {
            Ok(names) => Self::Names(names.map(str::to_owned).collect()),
            Err(bits) => Self::Bloom(bits.to_vec()),
        }
    }
}

impl ServiceSet {
    /// From names as they are stored: an empty one behind others says that every row has a name.
    pub fn of_stored_names(mut names: Vec<String>) -> Self {
        if names.len() > 1 && names.last().is_some_and(String::is_empty) {
            names.pop();
            return Self::OfEveryRow(names);
        }
        Self::Names(names)
    }

    /// The names as they are stored.
    ///
    /// # Errors
    /// There are too many: the filter that stands for them.
    pub fn stored_names(&self) -> Result<impl Iterator<Item = &str>, &[u8]> {
        let (names, end) = match self {
            Self::Names(names) => (names, None),
            Self::OfEveryRow(names) => (names, (!names.is_empty()).then_some("")),
            Self::Bloom(bits) => return Err(bits),
        };
        Ok(names.iter().map(String::as_str).chain(end))
    }

    /// All names, while there are few.
    pub fn names(&self) -> Option<&[String]> {
        match self {
            Self::Names(names) | Self::OfEveryRow(names) => Some(names),
            Self::Bloom(_) => None,
        }
    }
}

/// One catalog row. At most 1 KiB encoded; every field is also in the segment's footer or object key, so that a catalog can be
/// rebuilt from a bucket alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentMeta {
    /// Identity, derived from `object_key`.
    pub id: SegmentId,
    /// Whose data.
    pub organization: OrganizationId,
    /// Which signal.
    pub signal: Signal,
    /// Raw rows or a rollup window.
    pub tier: Tier,
    /// Compaction level.
    pub level: Level,
    /// The one UTC day of all its event times.
    pub day: Day,
    /// From the earliest event time to one past the latest. For a rollup, of its windows: (start, end] moved to half-open.
    pub time: TimeRange,
    /// The latest day on which any of its rows arrived. Retention counts from the later of `day` and this.
    pub ingest_day: Day,
    /// Rows.
    pub rows: u64,
    /// Size of the whole object.
    pub bytes: u64,
    /// The bucket that holds it, as the storage profile names it.
    pub bucket: String,
    /// The collector's storage profile instance that wrote it.
    pub instance_num: i32,
    /// Path inside the bucket.
    pub object_key: String,
    /// What the store answered when it was written.
    pub etag: Option<String>,
    /// Where the Parquet footer (Thrift metadata, without its 8 trailing bytes) lies.
    pub footer: ByteRange,
    /// BLAKE3 of the footer's bytes.
    pub footer_hash: [u8; 32],
    /// Where the index section lies; `len` 0 when there is none (L0).
    pub index: ByteRange,
    /// Which services occur in it.
    pub services: ServiceSet,
    /// For a rollup: the hour's `ingest_seq` that it covers. It serves only while the hour still has this value. 0 for raw rows.
    pub covers_ingest_seq: i64,
}
