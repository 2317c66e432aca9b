//! Exact job accounting: one job for each unclaimed item, never one too many, never starved.
//!
//! A source that reports *unclaimed* and *in flight* in one snapshot makes job creation exact. A job that is alive and holds no claim will
//! take an unclaimed item, so only what those jobs leave over needs new ones. `alive` is read before the source: a job that claims, or ends,
//! in between then looks idle for one poll (creation waits), never busy twice. The tests walk every interleaving of create, claim, complete,
//! exit and crash, and show that the other order creates too many.

use serde::{Deserialize, Serialize};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Items that nobody has claimed.
    pub unclaimed: i64,
    /// Items that are claimed and not finished; of one snapshot with `unclaimed`.
    pub in_flight: i64,
    /// Jobs that were created and have not ended, read before the source.
    pub alive: i64,
}

/// How many jobs to create: `clamp(unclaimed − max(0, alive − in_flight), 0, max − alive)`.
pub fn jobs_to_create(counts: Counts, max_jobs: i64) -> i64 {
    let idle = counts.alive.saturating_sub(counts.in_flight).max(0);
    let room = max_jobs.saturating_sub(counts.alive).max(0);
    counts.unclaimed.saturating_sub(idle).clamp(0, room)
}

/// Claims that no living job can hold: at least this many items wait for their claim to be given up.
pub fn orphan_claims(counts: Counts) -> i64 {
    counts.in_flight.saturating_sub(counts.alive).max(0)
}

#[cfg(test)]
mod tests;
