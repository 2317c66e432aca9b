//! What a `ScaledJob` sees: its jobs, read first, and then its triggers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::trigger::TriggerReading;
use crate::decision::TimeMs;
use crate::hpa::Phase;

/// One look at the jobs and triggers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    /// The jobs, or why they cannot be listed. Read before the triggers, so that a job in between looks idle and never missing.
    pub jobs: Result<Vec<Job>, String>,
    /// One reading per trigger, in the policy's order.
    pub triggers: Vec<TriggerReading>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// Whether it ended, and how.
    pub phase: JobPhase,
    /// When it ended: the transition of its Complete or Failed condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<TimeMs>,
    /// The generation of the specification that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Its pods.
    #[serde(default)]
    pub pods: Vec<JobPod>,
}

/// Whether a job ended, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobPhase {
    /// It has not ended.
    Active,
    /// Well.
    Complete,
    /// Badly.
    Failed,
}

/// A pod of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobPod {
    /// Its phase.
    pub phase: Phase,
    /// Its conditions and whether they are true.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub conditions: BTreeMap<String, bool>,
}

impl Job {
    /// A job that has not ended, with one pod of this phase.
    pub fn active(name: impl Into<String>, phase: Phase) -> Self {
        let pods = vec![JobPod { phase, conditions: BTreeMap::new() }];
        Self { name: name.into(), phase: JobPhase::Active, finished_at: None, generation: None, pods }
    }

    /// Whether it has not started: with `conditions`, no pod has all of them; without, no pod runs or ran well.
    pub(super) fn is_pending(&self, conditions: &[String]) -> bool {
        let has_started = |pod: &JobPod| {
            if conditions.is_empty() {
                matches!(pod.phase, Phase::Running | Phase::Succeeded)
            } else {
                conditions.iter().all(|condition| pod.conditions.get(condition) == Some(&true))
            }
        };
        !self.pods.iter().any(has_started)
    }
}
