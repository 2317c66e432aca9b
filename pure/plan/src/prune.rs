//! Which live segments a query has to read: predicate ranges in, segments out.
//!
//! Owns the rules by which a catalog row alone proves that a segment holds no matching row. Never opens a segment; what the
//! catalog cannot prove is kept. Start with [`SegmentQuery`]; [`CatalogSnapshot::plan_segments`] answers it.
//!
//! [`CatalogSnapshot::plan_segments`]: crate::snapshot::CatalogSnapshot::plan_segments

use std::collections::BTreeSet;

use tidemill_types::{SegmentMeta, ServiceSet, Signal, Tier, TimeRange};

/// What a query asks of the catalog, besides its organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentQuery {
    /// Which signal.
    pub signal: Signal,
    /// Raw rows or one rollup window.
    pub tier: Tier,
    /// Rows outside of it cannot match.
    pub time: TimeRange,
    /// Only rows of these services can match; `None` for any, also for rows without a service.
    pub services: Option<BTreeSet<String>>,
}

impl SegmentQuery {
    /// Everything of a signal's raw rows.
    pub fn everything(signal: Signal) -> Self {
        Self { signal, tier: Tier::RAW, time: TimeRange::ALL, services: None }
    }

    /// Whether a segment with these services may hold a matching row.
    pub fn may_match_services(&self, services: &ServiceSet) -> bool {
        let Some(wanted) = &self.services else { return true };
        match services {
            ServiceSet::Names(names) | ServiceSet::OfEveryRow(names) => names.iter().any(|name| wanted.contains(name)),
            ServiceSet::Bloom(bits) => wanted.iter().any(|name| tidemill_text::bloom_may_contain(bits, name)),
        }
    }
}

/// The answer: what to read, and how much was ruled out by the catalog alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SegmentPlan {
    /// The segments that may hold matching rows, the newest end first; equal ends in the order of their ids.
    pub segments: Vec<SegmentMeta>,
    /// Live segments of the organization, signal and tier.
    pub considered: usize,
    /// Bytes of the segments considered.
    pub considered_bytes: u64,
    /// Of those, ruled out by time.
    pub pruned_by_time: usize,
    /// Of those, ruled out by their services.
    pub pruned_by_service: usize,
    /// Of those, rollups that no longer cover all that arrived for their hour.
    pub pruned_as_stale: usize,
}
