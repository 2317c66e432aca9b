//! What a segment says about itself: two key-value entries of the Parquet footer.
//!
//! `tidemill.segment` is the format version; `tidemill.footer` is [`SegmentFooter`] as JSON. With the object key they carry everything
//! that the catalog row holds, so that a catalog can be rebuilt from a bucket.

use std::collections::{BTreeSet, HashMap};

use parquet::file::metadata::{KeyValue, ParquetMetaData};
use serde::{Deserialize, Serialize};
use tidemill_types::{ByteRange, Day, Hour, Level, SegmentId, ServiceSet, Signal, Tier, TimeRange};

use crate::error::{Error, Result};
use crate::schema::{AttributeScope, AttributeType, PromotedColumn};
use crate::severity::SeverityRows;

/// The key whose value is the format version.
pub const VERSION_KEY: &str = "tidemill.segment";
/// The key whose value is [`SegmentFooter`] as JSON.
pub const FOOTER_KEY: &str = "tidemill.footer";
/// The version that this code writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Everything a segment says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentFooter {
    /// Which signal.
    pub signal: Signal,
    /// Raw rows or a rollup window.
    pub tier: Tier,
    /// Compaction level.
    pub level: Level,
    /// The one UTC day of all event times, as days since 1970-01-01.
    pub day: Day,
    /// From the earliest event time to one past the latest, nanoseconds.
    pub time: TimeRange,
    /// The latest day on which any row arrived.
    pub ingest_day: Day,
    /// Rows.
    pub rows: u64,
    /// Which services occur.
    pub services: ServiceSet,
    /// For a rollup, the hour's `ingest_seq` that it covers; 0 for raw rows.
    pub covers_ingest_seq: i64,
    /// The hours whose rollups its rows change, ascending. A metric sample exactly on an hour's boundary belongs to the windows before
    /// it, which are (start, end], and so counts for both hours.
    pub hours: Vec<Hour>,
    /// The attributes that occur, promoted ones first in the order of their columns.
    pub attributes: Vec<AttributeEntry>,
    /// Whether there were more attributes than are listed; a key that is not listed may then occur in an overflow column.
    pub attributes_truncated: bool,
    /// Metrics: rows whose series and time an earlier row of this segment has; `None` when they were not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_rows: Option<u64>,
    /// Compacted logs: of each row group, how many of its first rows are errors and how many of those that follow are warnings. Empty where
    /// rows are in another order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub severity_rows: Vec<SeverityRows>,
    /// The whole index section; `len` 0 when there is none.
    pub index: ByteRange,
    /// Named parts of the index section, as absolute byte ranges of the object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sections: Vec<IndexPart>,
    /// The segments that this one, with the other outputs of its merge, replaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<SegmentId>,
    /// How many segments its merge or bundle made; 1 for an only one.
    #[serde(default = "one")]
    pub outputs: u32,
    /// Its place among them.
    #[serde(default)]
    pub ordinal: u32,
    /// The inputs of its bundle, or of the bundles whose segments it merges: of each the first 16 bytes of the BLAKE3 of its label, as
    /// hexadecimal text. Empty when a merge covers more than [`LISTED_INPUTS`], and in rollups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
}

fn one() -> u32 {
    1
}

/// One attribute of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeEntry {
    /// Whose attribute.
    pub scope: AttributeScope,
    /// The key as it was sent.
    pub key: String,
    /// Its column, `None` when all its values are in the overflow column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The type of its column.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<AttributeType>,
    /// The types that occur, without repetition.
    pub types: Vec<ValueType>,
    /// Rows that have it, counting a repeated key once for each value.
    pub rows: u64,
    /// Whether any value of it is in the overflow column: always so without a column, else values of other types and repeated keys.
    pub overflows: bool,
}

/// The type of an attribute's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    /// `stringValue`.
    String,
    /// `intValue`.
    Int,
    /// `doubleValue`.
    Double,
    /// `boolValue`.
    Bool,
    /// Bytes, arrays, maps and empty values.
    Other,
}

/// A named part of the index section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexPart {
    /// What it is.
    pub name: String,
    /// Where it lies in the object.
    pub range: ByteRange,
}

/// A merge lists at most this many inputs.
pub const LISTED_INPUTS: usize = 4_096;

/// The inputs that a merge of segments with these footers covers, sorted; none when they are too many to list or a footer lists none.
pub(crate) fn covered_inputs<'f>(footers: impl Iterator<Item = &'f SegmentFooter> + Clone) -> Vec<String> {
    if footers.clone().any(|footer| footer.inputs.is_empty()) {
        return Vec::new();
    }
    let names: BTreeSet<&String> = footers.flat_map(|footer| &footer.inputs).collect();
    if names.len() > LISTED_INPUTS { Vec::new() } else { names.into_iter().cloned().collect() }
}

/// How an input is named in [`SegmentFooter::inputs`].
pub fn input_name(label: &str) -> String {
    blake3::hash(label.as_bytes()).to_hex()[..32].to_owned()
}

/// A segment lists at most this many attributes.
pub const LISTED_ATTRIBUTES: usize = 2_000;

impl SegmentFooter {
    /// The attributes that have columns, in the order of their columns.
    pub fn promoted(&self) -> Vec<PromotedColumn> {
        self.attributes
            .iter()
            .filter_map(|entry| {
                Some(PromotedColumn {
                    column: entry.column.clone()?,
                    scope: entry.scope,
                    key: entry.key.clone(),
                    kind: entry.kind?,
                })
            })
            .collect()
    }

    /// The two entries to write into the Parquet footer.
    pub fn encode(&self) -> Vec<KeyValue> {
        let json = serde_json::to_string(self).expect("plain structs and lists always become JSON");
        vec![
            KeyValue::new(VERSION_KEY.to_owned(), FORMAT_VERSION.to_string()),
            KeyValue::new(FOOTER_KEY.to_owned(), json),
        ]
    }

    /// Reads the entries of a segment's Parquet metadata.
    ///
    /// # Errors
    /// When the file is not a segment, or one of a newer format.
    pub fn from_metadata(metadata: &ParquetMetaData) -> Result<Self> {
        let corrupt = |problem: String| Error::Corrupt { subject: "footer".to_owned(), problem };
        let entries: HashMap<&str, &str> = metadata
            .file_metadata()
            .key_value_metadata()
            .into_iter()
            .flatten()
            .filter_map(|entry| Some((entry.key.as_str(), entry.value.as_deref()?)))
            .collect();
        let version = entries.get(VERSION_KEY).ok_or_else(|| corrupt(format!("{VERSION_KEY} is missing")))?;
        let version: u32 = version.parse().map_err(|_| corrupt(format!("{VERSION_KEY} is {version:?}")))?;
        if version > FORMAT_VERSION {
            return Err(corrupt(format!("format version {version}; this build reads up to {FORMAT_VERSION}")));
        }
        let json = entries.get(FOOTER_KEY).ok_or_else(|| corrupt(format!("{FOOTER_KEY} is missing")))?;
        serde_json::from_str(json).map_err(|error| corrupt(format!("{FOOTER_KEY}: {error}")))
    }
}
