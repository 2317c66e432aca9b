//! What a query may use, and what all queries of a process may.

use std::path::PathBuf;
use std::time::Duration;

use tidemill_types::TimeRange;

use crate::promql::Promotion;
use crate::{Error, Result};

/// Segments replaced by compaction keep their objects for at least 30 minutes; every query ends well before.
pub(crate) const LONGEST_QUERY: Duration = Duration::from_secs(25 * 60);

/// What one query may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryLimits {
    /// From its start to its last batch; at most 25 minutes.
    pub time: Duration,
    /// Memory of its sorts, joins and aggregations; beyond it they spill to disk or the query fails.
    pub memory_bytes: usize,
    /// Spilled bytes on disk.
    pub spill_bytes: u64,
    /// Every table holds only the rows of this time, whatever the statement says.
    pub within: Option<TimeRange>,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self { time: Duration::from_secs(60), memory_bytes: 512 << 20, spill_bytes: 8 << 30, within: None }
    }
}

impl QueryLimits {
    pub(crate) fn check(&self) -> Result<()> {
        if self.time > LONGEST_QUERY || self.time.is_zero() {
            let problem =
                format!("time limit {} s; from 1 ms to {} s", self.time.as_secs_f64(), LONGEST_QUERY.as_secs());
            return Err(Error::statement(problem));
        }
        Ok(())
    }
}

/// What all queries of a process share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryOptions {
    /// Threads that decode and compute; also the partitions of a plan.
    pub threads: usize,
    /// Queries that run at a time; further ones are refused as busy.
    pub concurrent_queries: usize,
    /// Where sorts and joins spill.
    pub spill_folder: PathBuf,
    /// Memory for footers and indexes of segments.
    pub footer_cache_bytes: u64,
    /// Memory for which log records met conditions on their text.
    pub matches_cache_bytes: u64,
    /// Memory for the log lines that met conditions, where these are few.
    pub lines_cache_bytes: u64,
    /// Memory for the stream tables of compacted logs.
    pub streams_cache_bytes: u64,
    /// Memory for the series of segments, as PromQL names them.
    pub series_cache_bytes: u64,
    /// Memory for decoded points of metrics.
    pub points_cache_bytes: u64,
    /// The resource attributes that PromQL has as labels of every series.
    pub promotion: Promotion,
    /// Whether segments, row groups and rows may be ruled out unread. Without, every query reads everything: to compare answers.
    pub uses_indexes: bool,
    /// Ranges of an object at most this far apart are fetched in one request.
    pub coalesce_gap_bytes: u64,
}

impl QueryOptions {
    /// Defaults, with spills under `spill_folder`.
    pub fn new(spill_folder: impl Into<PathBuf>) -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            concurrent_queries: 16,
            spill_folder: spill_folder.into(),
            footer_cache_bytes: 128 << 20,
            series_cache_bytes: 128 << 20,
            points_cache_bytes: 256 << 20,
            matches_cache_bytes: 64 << 20,
            lines_cache_bytes: 128 << 20,
            streams_cache_bytes: 32 << 20,
            promotion: Promotion::default(),
            uses_indexes: true,
            coalesce_gap_bytes: 32 << 10,
        }
    }
}
