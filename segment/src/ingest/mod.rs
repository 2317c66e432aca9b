//! Raw inputs to level 0 segments: one bundle of inputs in, one draft per day and ingest day out.
//!
//! Nothing here fails because an input is bad: bad records are refused one by one and an unreadable input ends early, both told in the
//! [`InputReport`]. Start with [`BundleEncoder`].

mod attributes;
mod columns;
mod days;
mod encoder;
mod identity;
mod keys;
mod log_columns;
mod partition;
mod point_columns;
mod promotion;
mod properties;
mod span_columns;
mod tables;
mod time;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use tidemill_types::{Signal, TimestampNs};

pub use crate::input::recognize_input;
pub use encoder::{BundleEncoder, Rereadable};

/// How many issues a report keeps.
pub const REPORTED_ISSUES: usize = 20;

/// What all inputs of a bundle share.
#[derive(Debug, Clone)]
pub struct IngestOptions {
    /// The signal of every input.
    pub signal: Signal,
    /// Attribute keys that get a column before any others.
    pub promote: Vec<String>,
    /// Folder for what does not fit in memory.
    pub spool: PathBuf,
    /// Rows held in memory before row groups are written out.
    pub memory_bytes: usize,
}

/// How an input is encoded, once decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InputFormat {
    /// One or more concatenated OTLP export requests.
    OtlpProtobuf,
    /// OTLP/JSON: one request, or one a line.
    OtlpJson,
    /// One JSON object a line, of any shape.
    JsonLines,
    /// Comma-separated values with a header line.
    Csv,
    /// An Apache Parquet file.
    Parquet,
}

impl InputFormat {
    /// The stored name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OtlpProtobuf => "otlp_protobuf",
            Self::OtlpJson => "otlp_json",
            Self::JsonLines => "json_lines",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }

    /// The format stored as `name`.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::OtlpProtobuf, Self::OtlpJson, Self::JsonLines, Self::Csv, Self::Parquet]
            .into_iter()
            .find(|format| format.as_str() == name)
    }
}

impl fmt::Display for InputFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for InputFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or_else(|| {
            format!("{text:?} is not an input format; one of otlp_protobuf, otlp_json, json_lines, csv, parquet")
        })
    }
}

/// One input of a bundle.
#[derive(Debug, Clone)]
pub struct InputDescription {
    /// The object's key, for messages and to recognize the format by name.
    pub label: String,
    /// The format, or `None` to recognize it by name and content.
    pub format: Option<InputFormat>,
    /// When it arrived.
    pub arrival: TimestampNs,
}

/// What became of one input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InputReport {
    /// Records that are in the drafts.
    pub accepted: u64,
    /// Records that were refused.
    pub rejected: u64,
    /// Why, for the first [`REPORTED_ISSUES`].
    pub issues: Vec<Issue>,
    /// Accepted records whose time was replaced because it was outside the valid range.
    pub times_replaced: u64,
    /// Why and where the input could not be read any further; the records before are kept.
    pub failure: Option<String>,
}

/// One refused record, or one refused part of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// Where, such as `resourceLogs[3].scopeLogs[0].logRecords[17].timeUnixNano`.
    pub path: String,
    /// What is wrong and what is expected.
    pub reason: String,
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}
