//! What came of one policy over one load.

use serde::{Deserialize, Serialize};
use tidemill_scaling::vpa::Resources;

use crate::Contender;

/// A change of direction within this time is a flap.
const FLAP_MS: i64 = 600_000;
/// Decisions that are kept with their reasons.
const MAX_DECISIONS: usize = 2_000;

/// One policy over one load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The workload that it was run for.
    pub workload: String,
    /// The policy's name.
    pub policy: String,
    /// Items that arrived.
    pub items: usize,
    /// Of those, still waiting or worked on at the end.
    pub unfinished: usize,
    /// Half of the items waited at most this long, in seconds.
    pub p50_wait_s: f64,
    /// 99 of 100 waited at most this long.
    pub p99_wait_s: f64,
    /// None waited longer.
    pub max_wait_s: f64,
    /// For how long some item had waited longer than the objective.
    pub over_objective_s: i64,
    /// Replicas that existed, added up over time.
    pub replica_hours: f64,
    /// CPU that the replicas requested, in core-hours.
    pub core_hours: f64,
    /// Memory that they requested, in GiB-hours.
    pub memory_gib_hours: f64,
    /// Replicas or jobs that were started.
    pub starts: u64,
    /// Replicas that the vertical autoscaler evicted.
    pub evictions: u64,
    /// Replicas that it resized while they ran.
    pub resizes: u64,
    /// Containers that were killed for memory.
    pub ooms: u64,
    /// Decisions that took a replica with a live lease while an idle one stayed; there should be none.
    pub leased_before_idle: u64,
    /// Decisions that reported claims that no living job can hold.
    pub orphan_reports: u64,
    /// Replicas or jobs that found nothing to do and ended: jobs that were one too many.
    pub wasted: u64,
    /// Changes of direction within ten minutes.
    pub flaps: u64,
    /// How many decisions changed something.
    pub decisions: u64,
    /// Minute by minute.
    pub minutes: Vec<Minute>,
    /// The first decisions that changed something, with their reasons.
    pub changes: Vec<Change>,
    /// What was left out of the run, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One minute: the highest values of its seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Minute {
    /// Items that waited.
    pub backlog: usize,
    /// Replicas that existed.
    pub replicas: usize,
    /// How long the oldest item had waited, in seconds.
    pub oldest_s: i64,
    /// Replica-hours since the start.
    pub cost_hours: f64,
    /// CPU that was requested at its end, in millicores.
    pub requested_milli: i64,
    /// Core-hours that were requested since the start.
    pub core_hours: f64,
}

/// A decision that changed something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Seconds since the start.
    pub at_s: i64,
    /// What was done.
    pub action: String,
    /// Why.
    pub reasons: Vec<String>,
}

/// Collects what happens.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub waits_ms: Vec<i64>,
    pub starts: u64,
    pub wasted: u64,
    pub evictions: u64,
    pub resizes: u64,
    pub ooms: u64,
    pub leased_before_idle: u64,
    pub orphan_reports: u64,
    pub over_objective_s: i64,
    requested: Resources,
    core_ms: f64,
    byte_seconds: f64,
    replica_seconds: u64,
    flaps: u64,
    decisions: u64,
    last_change: Option<(i64, bool)>,
    minutes: Vec<Minute>,
    changes: Vec<Change>,
}

impl Ledger {
    /// One second of the world.
    pub fn second(&mut self, at_ms: i64, backlog: usize, replicas: usize, oldest_ms: i64, objective_ms: i64) {
        self.replica_seconds += replicas as u64;
        let requested_milli = self.requested.cpu_milli.unwrap_or(0);
        self.core_ms += requested_milli as f64;
        self.byte_seconds += self.requested.memory_bytes.unwrap_or(0) as f64;
        let core_hours = self.core_ms / 3_600_000.0;
        self.over_objective_s += i64::from(oldest_ms > objective_ms);
        let minute = usize::try_from(at_ms / 60_000).unwrap_or(0);
        if self.minutes.len() <= minute {
            self.minutes.resize(minute + 1, Minute::default());
        }
        let cost_hours = self.replica_seconds as f64 / 3600.0;
        let known = &mut self.minutes[minute];
        known.backlog = known.backlog.max(backlog);
        known.replicas = known.replicas.max(replicas);
        known.oldest_s = known.oldest_s.max(oldest_ms / 1000);
        known.cost_hours = cost_hours;
        known.requested_milli = requested_milli;
        known.core_hours = core_hours;
    }

    /// A replica is there, and so is what it requests.
    pub fn request(&mut self, requests: Resources) {
        self.add(requests, 1);
    }

    /// A replica is gone.
    pub fn release(&mut self, requests: Resources) {
        self.add(requests, -1);
    }

    fn add(&mut self, requests: Resources, sign: i64) {
        let sum = |known: Option<i64>, more: Option<i64>| {
            Some(known.unwrap_or(0).saturating_add(more.unwrap_or(0).saturating_mul(sign)))
        };
        self.requested.cpu_milli = sum(self.requested.cpu_milli, requests.cpu_milli);
        self.requested.memory_bytes = sum(self.requested.memory_bytes, requests.memory_bytes);
    }

    /// A decision that changed replicas and not their number.
    pub fn note(&mut self, change: Change) {
        self.decisions += 1;
        if self.changes.len() < MAX_DECISIONS {
            self.changes.push(change);
        }
    }

    /// A decision that changed the size up or down; jobs only come.
    pub fn change(&mut self, at_ms: i64, is_up: bool, change: impl FnOnce() -> Change) {
        self.decisions += 1;
        if let Some((last, was_up)) = self.last_change
            && was_up != is_up
            && at_ms - last <= FLAP_MS
        {
            self.flaps += 1;
        }
        self.last_change = Some((at_ms, is_up));
        if self.changes.len() < MAX_DECISIONS {
            self.changes.push(change());
        }
    }

    pub fn close(mut self, contender: &Contender, items: usize, unfinished: usize) -> Outcome {
        self.waits_ms.sort_unstable();
        let at = |share: f64| {
            let index = (share * self.waits_ms.len() as f64).ceil() as usize;
            self.waits_ms.get(index.saturating_sub(1)).map_or(0.0, |wait| *wait as f64 / 1000.0)
        };
        Outcome {
            workload: contender.workload.clone(),
            policy: contender.name.clone(),
            items,
            unfinished,
            p50_wait_s: at(0.5),
            p99_wait_s: at(0.99),
            max_wait_s: at(1.0),
            over_objective_s: self.over_objective_s,
            replica_hours: self.replica_seconds as f64 / 3600.0,
            core_hours: self.core_ms / 3_600_000.0,
            memory_gib_hours: self.byte_seconds / 3600.0 / f64::from(1 << 30),
            starts: self.starts,
            evictions: self.evictions,
            resizes: self.resizes,
            ooms: self.ooms,
            leased_before_idle: self.leased_before_idle,
            orphan_reports: self.orphan_reports,
            wasted: self.wasted,
            flaps: self.flaps,
            decisions: self.decisions,
            minutes: self.minutes,
            changes: self.changes,
            notes: contender.notes.clone(),
        }
    }
}
