//! What both metastores can be told.

use std::time::Duration;

use tidemill_scaling::retry::RetryPolicy;

use crate::metastore::RememberedInput;

/// How long things are remembered and kept, and when work is given up.
#[derive(Debug, Clone, PartialEq)]
pub struct MetastoreOptions {
    /// After failures and crashes.
    pub retry: RetryPolicy,
    /// A replaced segment keeps its object this long: queries that planned with it have a hard deadline below.
    pub replaced_grace: Duration,
    /// A raw object of pushed requests is kept this long after its publication.
    pub raw_grace: Duration,
    /// A pushed request's identity is known this long.
    pub push_memory: Duration,
    /// An object's identity is known this long.
    pub object_memory: Duration,
    /// Refusals are shown this long.
    pub refusal_memory: Duration,
    /// The catalog's change log reaches back this long; who stayed away longer starts from nothing.
    pub change_log_memory: Duration,
}

impl MetastoreOptions {
    /// When an input that was taken in before is forgotten, in nanoseconds.
    pub(crate) fn forget_at(&self, input: &RememberedInput) -> i64 {
        let memory = if input.owned { self.push_memory } else { self.object_memory };
        input.arrived_at.0.saturating_add(i64::try_from(memory.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl Default for MetastoreOptions {
    fn default() -> Self {
        const DAY: u64 = 24 * 3_600;
        Self {
            retry: RetryPolicy::default(),
            replaced_grace: Duration::from_secs(30 * 60),
            raw_grace: Duration::from_secs(10 * 60),
            push_memory: Duration::from_secs(DAY),
            object_memory: Duration::from_secs(400 * DAY),
            refusal_memory: Duration::from_secs(14 * DAY),
            change_log_memory: Duration::from_secs(DAY),
        }
    }
}
