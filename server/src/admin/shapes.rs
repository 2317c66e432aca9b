//! What is asked of the administration, and what it answers: one shape for the API and the command line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_lake::worker::{LAG_WINDOW, RecentLag};
use tidemill_store::metastore::{ApiKey, Backlog};
use tidemill_types::{Action, Level, Signal, Tier, WorkId};

/// The answer of `tidemill status`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// The binary's version.
    pub version: String,
    /// The metastore and its version.
    pub metastore: String,
    /// Each queue with its backlog.
    pub queues: Vec<QueueStatus>,
    /// Live segments by signal, tier and level.
    pub segments: Vec<SegmentsStatus>,
    /// How long the oldest input has been waiting to become queryable, in milliseconds; 0 when none waits.
    pub ingest_lag_ms: i64,
    /// How long inputs took from arrival to queryable; only where a server with a worker answers.
    #[serde(default)]
    pub arrival_to_queryable: Option<LagStatus>,
}

/// The lag of the inputs that the answering server made queryable in the last minutes.
#[derive(Debug, Serialize, Deserialize)]
pub struct LagStatus {
    /// How far back "the last minutes" reach, in seconds.
    pub window_s: u64,
    /// How many inputs.
    pub inputs: usize,
    /// Half of them took at most this long.
    pub p50_ms: f64,
    /// 99 of 100 took at most this long.
    pub p99_ms: f64,
}

impl From<RecentLag> for LagStatus {
    fn from(lag: RecentLag) -> Self {
        Self { window_s: LAG_WINDOW.as_secs(), inputs: lag.inputs, p50_ms: lag.p50_ms, p99_ms: lag.p99_ms }
    }
}

/// One queue in [`Status`].
#[derive(Debug, Serialize, Deserialize)]
pub struct QueueStatus {
    /// The backlog.
    #[serde(flatten)]
    pub backlog: Backlog,
    /// The age of the oldest runnable item in milliseconds; 0 when there is none.
    pub oldest_age_ms: i64,
}

/// Live segments of one kind in [`Status`].
#[derive(Debug, Serialize, Deserialize)]
pub struct SegmentsStatus {
    /// The signal.
    pub signal: Signal,
    /// Raw rows, or a rollup's window in seconds.
    pub tier: Tier,
    /// The compaction level.
    pub level: Level,
    /// How many segments.
    pub segments: u64,
    /// Their rows.
    pub rows: u64,
    /// Their size.
    pub bytes: u64,
}

/// Which entries of the queue are listed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueRequest {
    /// Only this signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
    /// Only this action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// Only dead letters.
    #[serde(default)]
    pub dead: bool,
    /// Only this item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work: Option<WorkId>,
    /// At most this many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Which entries of the inbox are listed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InboxRequest {
    /// Only those in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Only the one with this work id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work: Option<WorkId>,
    /// Only those of this object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_key: Option<String>,
    /// At most this many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Which segments are listed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentsRequest {
    /// Only this signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
    /// Only this tier: 0 for raw rows, else the window in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<u32>,
    /// At most this many, the newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// The first rows of a list.
#[derive(Debug)]
pub struct Listed<T> {
    /// As many as were asked for, or all.
    pub rows: Vec<T>,
    /// Whether there are more than these.
    pub has_more: bool,
}

impl<T> Listed<T> {
    /// The first `limit` of `rows`, which are one more where there are more.
    pub fn cut(mut rows: Vec<T>, limit: usize) -> Self {
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        Self { rows, has_more }
    }
}

/// What may be changed of an organization; what is absent stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrganizationChange {
    /// Days kept by signal; 0 keeps for ever.
    #[serde(default)]
    pub retention_days: BTreeMap<Signal, u32>,
    /// Accepted bytes a second; 0 for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingest_bytes_per_second: Option<u64>,
}

/// A key that was just made: the only time its secret is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct CreatedKey {
    /// What its holder sends.
    pub key: String,
    /// What is listed of it.
    #[serde(flatten)]
    pub stored: ApiKey,
}
