//! From histograms to a target and its bounds: percentile, margin, confidence, floor; in this order.

use super::amount::{amount_from_float, scale_amount};
use super::container::ContainerState;
use super::policy::Resources;

/// Confidence grows to 1 in this time.
const INTERVAL_MS: i64 = 86_400_000;
/// What is added to a percentile.
const MARGIN: f64 = 0.15;
/// The least that a pod is given, shared by its containers.
const POD_MINIMUM: Resources = Resources { cpu_milli: Some(25), memory_bytes: Some(250 << 20) };

/// What a container should request, before any policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// What to request.
    pub target: Resources,
    /// Below this an update is due.
    pub lower: Resources,
    /// Above this an update is due.
    pub upper: Resources,
    /// How far the history reaches, in days; 1 after a full day of samples every minute.
    pub confidence: f64,
}

/// Days of history, or the samples' share of one per minute, whichever is less.
pub fn confidence(lifespan_ms: i64, samples: i64, interval_ms: i64) -> f64 {
    let by_time = lifespan_ms as f64 / interval_ms as f64;
    let by_count = samples as f64 / (interval_ms as f64 / 60_000.0);
    by_time.min(by_count)
}

/// `base × (1 + multiplier / confidence)^exponent`.
pub fn with_confidence(base: i64, multiplier: f64, exponent: f64, confidence: f64) -> i64 {
    scale_amount(base, (1.0 + multiplier / confidence).powf(exponent))
}

/// `base` and a share of it.
pub fn with_margin(base: i64, margin: f64) -> i64 {
    base.saturating_add(scale_amount(base, margin))
}

/// A container's share of a pod's minimum.
pub fn pod_minimum_share(minimum: i64, containers: usize) -> i64 {
    scale_amount(minimum, 1.0 / containers.max(1) as f64)
}

/// The estimate for one of `containers` containers of a pod.
pub fn estimate(state: &ContainerState, containers: usize) -> Estimate {
    let confidence = confidence(state.lifespan_ms(), state.samples, INTERVAL_MS);
    let base = |fraction: f64| {
        let cpu = amount_from_float(state.cpu.percentile(fraction) * 1000.0);
        (with_margin(cpu, MARGIN), with_margin(amount_from_float(state.memory.percentile(fraction)), MARGIN))
    };
    let floor = |(cpu, memory): (i64, i64)| Resources {
        cpu_milli: Some(cpu.max(pod_minimum_share(POD_MINIMUM.cpu_milli.unwrap_or(0), containers))),
        memory_bytes: Some(memory.max(pod_minimum_share(POD_MINIMUM.memory_bytes.unwrap_or(0), containers))),
    };
    let both = |(cpu, memory): (i64, i64), multiplier, exponent| {
        (
            with_confidence(cpu, multiplier, exponent, confidence),
            with_confidence(memory, multiplier, exponent, confidence),
        )
    };
    Estimate {
        target: floor(base(0.9)),
        lower: floor(both(base(0.5), 0.001, -2.0)),
        upper: floor(both(base(0.95), 1.0, 1.0)),
        confidence,
    }
}
