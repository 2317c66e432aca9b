//! What is known of the usage of one container across its replicas.

use serde::{Deserialize, Serialize};

use super::decay::DecayingHistogram;
use super::histogram::Options;
use super::memory::{HistogramCall, MemoryWindow, OomBump};
use crate::decision::TimeMs;

/// The constant weight of a CPU sample.
const CPU_WEIGHT: f64 = 0.1;
/// The half life of both histograms, and the window of memory peaks.
const DAY_MS: i64 = 86_400_000;
/// Without samples for this long a container's history is forgotten.
const EXPIRY_MS: i64 = 8 * DAY_MS;

/// Why a sample was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// It is negative, or not after the last one.
    Rejected,
    /// It is from more than a window before the last one.
    TooOld,
}

/// The history of one container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerState {
    /// CPU in cores.
    pub cpu: DecayingHistogram,
    /// Memory peaks in bytes.
    pub memory: DecayingHistogram,
    /// CPU samples that were taken.
    pub samples: i64,
    /// The time of the first of them.
    pub first_sample_at: Option<TimeMs>,
    /// The time of the last of them.
    pub last_sample_at: Option<TimeMs>,
    /// When the history began.
    pub created_at: TimeMs,
    /// Per replica: the last CPU sample and the open memory window.
    pub replicas: std::collections::BTreeMap<String, ReplicaUsage>,
}

/// What is known of one replica's container.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaUsage {
    last_cpu_at: Option<TimeMs>,
    window: MemoryWindow,
}

impl ContainerState {
    /// An empty history.
    pub fn new(created_at: TimeMs) -> Self {
        Self {
            cpu: DecayingHistogram::new(Options::CPU, DAY_MS),
            memory: DecayingHistogram::new(Options::MEMORY, DAY_MS),
            samples: 0,
            first_sample_at: None,
            last_sample_at: None,
            created_at,
            replicas: std::collections::BTreeMap::new(),
        }
    }

    /// Takes a CPU sample in millicores.
    ///
    /// # Errors
    /// A negative value, or one that is not after the replica's last.
    pub fn add_cpu(&mut self, replica: &str, at: TimeMs, milli: i64) -> Result<(), Rejection> {
        let usage = self.replicas.entry(replica.to_owned()).or_default();
        if milli < 0 || usage.last_cpu_at.is_some_and(|last| at <= last) {
            return Err(Rejection::Rejected);
        }
        usage.last_cpu_at = Some(at);
        self.cpu.add(milli as f64 / 1000.0, CPU_WEIGHT, at);
        self.samples += 1;
        self.first_sample_at = Some(self.first_sample_at.map_or(at, |first| first.min(at)));
        self.last_sample_at = self.last_sample_at.max(Some(at));
        Ok(())
    }

    /// Takes a memory sample in bytes.
    ///
    /// # Errors
    /// As [`MemoryWindow::sample`].
    pub fn add_memory(&mut self, replica: &str, at: TimeMs, bytes: i64) -> Result<(), Rejection> {
        let calls = self.replicas.entry(replica.to_owned()).or_default().window.sample(at, bytes, DAY_MS)?;
        self.apply(&calls);
        Ok(())
    }

    /// Takes an out-of-memory kill.
    ///
    /// # Errors
    /// As [`MemoryWindow::out_of_memory`].
    pub fn add_oom(&mut self, replica: &str, at: TimeMs, requested_bytes: i64) -> Result<(), Rejection> {
        let window = &mut self.replicas.entry(replica.to_owned()).or_default().window;
        let calls = window.out_of_memory(at, requested_bytes, DAY_MS, OomBump::default())?;
        self.apply(&calls);
        Ok(())
    }

    fn apply(&mut self, calls: &[HistogramCall]) {
        for call in calls {
            match *call {
                HistogramCall::Add(bytes, at) => self.memory.add(bytes as f64, 1.0, at),
                HistogramCall::Subtract(bytes, at) => self.memory.subtract(bytes as f64, 1.0, at),
            }
        }
    }

    /// Whether nothing was heard for eight days.
    pub fn is_expired(&self, now: TimeMs) -> bool {
        now >= self.last_sample_at.unwrap_or(self.created_at).plus_ms(EXPIRY_MS)
    }

    /// How long the samples reach.
    pub fn lifespan_ms(&self) -> i64 {
        match (self.first_sample_at, self.last_sample_at) {
            (Some(first), Some(last)) => last.since_ms(first),
            _ => 0,
        }
    }
}
