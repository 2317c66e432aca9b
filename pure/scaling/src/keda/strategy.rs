//! How many jobs a `ScaledJob` creates: combining triggers, and the four strategies.
//!
//! Formulas: KEDA's `scale_jobs.go` and `scale_handler.go`. Values stay fractions until triggers are combined; then both are rounded up.

use serde::{Deserialize, Serialize};

use super::Profile;

/// The limit where none is written.
const DEFAULT_MAX: i32 = 100;

/// The bounds of a `ScaledJob` as its strategies use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobBounds {
    /// Jobs that always run.
    pub min: i32,
    /// Jobs beyond those.
    pub max: i32,
}

impl JobBounds {
    /// From what is written: the minimum is at most the maximum, and is taken off it; an unwritten maximum of 100 is beyond the minimum.
    pub fn new(min: Option<i32>, max: Option<i32>) -> Self {
        let min = min.unwrap_or(0).max(0);
        match max {
            None => Self { min: min.min(DEFAULT_MAX), max: DEFAULT_MAX },
            Some(max) if min > max => Self { min: max, max },
            Some(max) => Self { min, max: max - min },
        }
    }
}

/// What one trigger says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaler {
    /// How much waits.
    pub queue_length: f64,
    /// How much of it one job takes.
    pub target: f64,
    /// Whether it is above its activation.
    pub is_active: bool,
}

/// How several triggers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Calculation {
    /// The longest queue.
    #[default]
    Max,
    /// The shortest queue of the active triggers.
    Min,
    /// The average over the active triggers.
    Avg,
    /// The sum over the active triggers.
    Sum,
}

/// What the triggers say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Combined {
    /// Whether jobs may be created at all.
    pub is_active: bool,
    /// How much waits, rounded up.
    pub queue_length: i64,
    /// How many jobs it is worth, rounded up, at most the bound.
    pub max_value: i64,
}

/// Combines triggers. With a minimum of jobs the result is always active.
pub fn combine(scalers: &[Scaler], how: Calculation, bounds: JobBounds, profile: Profile) -> Combined {
    let bound = f64::from(bounds.max);
    let worth = |scaler: &Scaler| {
        if scaler.target == 0.0 { 0.0 } else { (scaler.queue_length / scaler.target).min(bound) }
    };
    let active: Vec<(f64, f64)> =
        scalers.iter().filter(|scaler| scaler.is_active).map(|scaler| (scaler.queue_length, worth(scaler))).collect();
    let total = |pick: fn(&(f64, f64)) -> f64| active.iter().map(pick).sum::<f64>();
    let chosen = match how {
        Calculation::Max => active.iter().copied().filter(|(queue, _)| *queue > 0.0).fold(None, longer),
        Calculation::Min if profile == Profile::Native => active.iter().copied().fold(None, shorter),
        // KEDA takes an accumulated 0 for "nothing yet", so an empty queue that is not last is passed over.
        Calculation::Min => active.iter().copied().fold(None, |known, next| match known {
            Some((queue, _)) if queue != 0.0 && next.0 >= queue => known,
            _ => Some(next),
        }),
        Calculation::Avg if active.is_empty() => None,
        Calculation::Avg => {
            let count = active.len() as f64;
            Some((total(|pair| pair.0) / count, total(|pair| pair.1) / count))
        }
        Calculation::Sum if active.is_empty() => None,
        Calculation::Sum => Some((total(|pair| pair.0), total(|pair| pair.1))),
    };
    let (queue, value) = chosen.unwrap_or((0.0, 0.0));
    Combined {
        is_active: chosen.is_some() || bounds.min > 0,
        queue_length: queue.ceil() as i64,
        max_value: value.min(bound).ceil() as i64,
    }
}

fn longer(known: Option<(f64, f64)>, next: (f64, f64)) -> Option<(f64, f64)> {
    match known {
        Some(best) if next.0 <= best.0 => Some(best),
        _ => Some(next),
    }
}

fn shorter(known: Option<(f64, f64)>, next: (f64, f64)) -> Option<(f64, f64)> {
    match known {
        Some(best) if next.0 >= best.0 => Some(best),
        _ => Some(next),
    }
}

/// A `scalingStrategy`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Strategy {
    /// Which one.
    #[serde(default)]
    pub kind: StrategyKind,
    /// What `custom` takes off; may be negative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_deduction: Option<i32>,
    /// The share of the running jobs that `custom` takes off, as it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_percentage: Option<String>,
}

/// Which strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrategyKind {
    /// What waits less what runs: for queries that count items until they are done.
    #[default]
    Default,
    /// What waits less a share of what runs.
    Custom,
    /// What waits less what is pending: for queries that count unclaimed items.
    Accurate,
    /// As many as fit.
    Eager,
    /// Unclaimed and in flight of one snapshot; see [`crate::exact`].
    Exact,
}

/// What a strategy makes of the triggers' value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StrategyOutcome {
    /// How many jobs to create at most; may be negative.
    pub effective: i64,
    /// How many there is work for.
    pub scale_to: i64,
}

impl Strategy {
    /// `maxScale` and the counts of jobs to `effectiveMaxScale` (KEDA's `GetEffectiveMaxScale`).
    pub fn effective_max_scale(
        &self,
        max_scale: i64,
        running: i64,
        pending: i64,
        max: i64,
        scale_to: i64,
        profile: Profile,
    ) -> StrategyOutcome {
        let share = self.custom_percentage.as_deref().and_then(|text| text.trim().parse::<f64>().ok());
        match (self.kind, share) {
            (StrategyKind::Custom, Some(share)) => {
                let deduction = i64::from(self.custom_deduction.unwrap_or(0)) + (running as f64 * share) as i64;
                StrategyOutcome { effective: (max_scale - deduction).min(max), scale_to }
            }
            (StrategyKind::Accurate, _) => {
                let is_over = max_scale + running - pending > max;
                StrategyOutcome { effective: if is_over { max - running } else { max_scale - pending }, scale_to }
            }
            (StrategyKind::Eager, _) => {
                // `running` holds the pending jobs already; KEDA takes them off again.
                let again = if profile == Profile::Strict { pending } else { 0 };
                StrategyOutcome { effective: (max - running - again).min(max_scale), scale_to: max }
            }
            // An unreadable share silently becomes the default, as in KEDA; reading the manifest says so.
            _ => StrategyOutcome { effective: max_scale - running, scale_to },
        }
    }
}

/// The whole of KEDA's decision: the minimum first, then the strategy.
pub fn decide(
    strategy: &Strategy,
    bounds: JobBounds,
    combined: Combined,
    running: i64,
    pending: i64,
    profile: Profile,
) -> StrategyOutcome {
    let (min, max) = (i64::from(bounds.min), i64::from(bounds.max));
    if running < min {
        let missing = min - running;
        return StrategyOutcome { effective: missing, scale_to: missing };
    }
    let outcome =
        strategy.effective_max_scale(combined.max_value, running - min, pending, max, combined.queue_length, profile);
    StrategyOutcome { effective: outcome.effective.max(0), ..outcome }
}
