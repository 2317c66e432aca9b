//! One replica or job of the world, and what it requests and uses.

use serde::{Deserialize, Serialize};
use tidemill_scaling::vpa::Resources;

const MIB: i64 = 1 << 20;

/// What a replica requests, and how many there are where nothing scales them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Replicas at the start.
    pub replicas: i32,
    /// The container that works.
    pub container: String,
    /// What it requests.
    pub requests: Resources,
    /// Its limits; without one it may use what it wants.
    pub limits: Resources,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            replicas: 2,
            container: "worker".to_owned(),
            requests: Resources { cpu_milli: Some(1000), memory_bytes: Some(512 * MIB) },
            limits: Resources::default(),
        }
    }
}

/// What a replica uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Millicores while it works; a limit below makes an item take longer.
    pub cpu_milli: i64,
    /// Bytes at rest.
    pub memory_bytes: i64,
    /// Bytes that an item takes more, on average, exponential; above the limit the replica is killed over it.
    pub item_bytes: i64,
}

impl Default for Usage {
    fn default() -> Self {
        Self { cpu_milli: 1000, memory_bytes: 256 * MIB, item_bytes: 0 }
    }
}

/// A replica or a job.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    pub created_ms: i64,
    /// When its container was last started.
    pub started_ms: i64,
    pub ready_ms: Option<i64>,
    /// The arrival of the item that it works on.
    pub item: Option<i64>,
    pub busy_since: i64,
    pub busy_ms: i64,
    pub measured: Option<Measured>,
    /// It ends when its item is done.
    pub is_leaving: bool,
    pub requests: Resources,
    pub limits: Resources,
    /// Bytes now, and the most since the last measurement.
    pub memory_bytes: i64,
    pub memory_peak: i64,
    /// Its item takes more memory than it may have.
    pub is_doomed: bool,
    /// How long its container had run when it was last killed for memory.
    pub oom_after_ms: Option<i64>,
}

/// What was measured of a replica last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    /// The end of the stretch.
    pub at_ms: i64,
}

impl Replica {
    pub fn new(now: i64, requests: Resources, limits: Resources, memory_bytes: i64) -> Self {
        Self {
            created_ms: now,
            started_ms: now,
            ready_ms: None,
            item: None,
            busy_since: 0,
            busy_ms: 0,
            measured: None,
            is_leaving: false,
            requests,
            limits,
            memory_bytes,
            memory_peak: memory_bytes,
            is_doomed: false,
            oom_after_ms: None,
        }
    }

    /// Millicores that it uses while it works.
    pub fn working_milli(&self, usage: &Usage) -> i64 {
        self.limits.cpu_milli.map_or(usage.cpu_milli, |limit| usage.cpu_milli.min(limit.max(1)))
    }

    /// How much longer an item takes because of its CPU limit.
    pub fn slowdown(&self, usage: &Usage) -> f64 {
        usage.cpu_milli as f64 / self.working_milli(usage).max(1) as f64
    }

    pub fn measure(&mut self, now: i64, stretch_ms: i64, usage: &Usage) {
        let running = if self.item.is_some() { now - self.busy_since.max(now - stretch_ms) } else { 0 };
        // What was done before this stretch began counts for the stretch it ended in.
        let busy = self.busy_ms.min(stretch_ms - running) + running;
        self.busy_ms = 0;
        let cpu_milli = (busy as f64 / stretch_ms as f64 * self.working_milli(usage) as f64) as i64;
        self.measured = Some(Measured { cpu_milli, memory_bytes: self.memory_peak, at_ms: now });
        self.memory_peak = self.memory_bytes;
    }
}
