//! Event-driven scaling: `ScaledObject` (replicas from zero) and `ScaledJob` (one job per piece of work).
//!
//! Owns: activation, idle and cooldown, fallback, formulas, pauses, job strategies, history and rollout. Never: asking a source. Behaviour is
//! KEDA's at commit 8b4f083c in [`Profile::Strict`]; [`Profile::Native`] repairs what `docs/scaling.md` lists. No separate horizontal
//! autoscaler is needed: [`object::step`] runs the same one that KEDA would generate. Start with [`object`] and [`job`].

pub mod job;
pub mod object;

mod fallback;
mod strategy;
mod trigger;

use serde::{Deserialize, Serialize};

pub use fallback::{Fallback, FallbackBehavior, Health};
pub use strategy::{
    Calculation, Combined, JobBounds, Scaler, Strategy, StrategyKind, StrategyOutcome, combine, decide,
};
pub use trigger::{Failing, Target, Trigger, TriggerReading, TriggerValue};

/// KEDA as it is, or with its defects repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// As KEDA decides.
    Strict,
    /// With the differences that `docs/scaling.md` lists.
    #[default]
    Native,
}
