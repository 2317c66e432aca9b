//! What replaces the value of a trigger that keeps failing.

use serde::{Deserialize, Serialize};

/// When and to what a failing trigger falls back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// More failed polls than this in a row.
    pub failure_threshold: i32,
    /// The size to fall back to.
    pub replicas: i32,
    /// How the size is chosen.
    #[serde(default)]
    pub behavior: FallbackBehavior,
}

/// How the size to fall back to is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FallbackBehavior {
    /// `replicas`.
    #[default]
    Static,
    /// The present size.
    CurrentReplicas,
    /// The larger of both.
    CurrentReplicasIfHigher,
    /// The smaller of both.
    CurrentReplicasIfLower,
    /// The formula sees `nil` for the trigger; where the result is `nil`, `replicas`.
    ScalingModifiers,
}

impl Fallback {
    /// The size to fall back to.
    pub(super) fn replicas(&self, current: i32) -> i32 {
        match self.behavior {
            FallbackBehavior::Static | FallbackBehavior::ScalingModifiers => self.replicas,
            FallbackBehavior::CurrentReplicas => current,
            FallbackBehavior::CurrentReplicasIfHigher => current.max(self.replicas),
            FallbackBehavior::CurrentReplicasIfLower => current.min(self.replicas),
        }
    }
}

/// How a trigger has fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Failed polls in a row.
    pub failures: i32,
}

impl Health {
    /// Notes the outcome of one poll.
    pub(super) fn note(&mut self, is_failing: bool) {
        self.failures = if is_failing { self.failures.saturating_add(1) } else { 0 };
    }
}
