//! What a horizontal autoscaler remembers: recommendations and scale events.

use serde::{Deserialize, Serialize};

use super::policy::Rules;
use crate::decision::TimeMs;

/// Recommendations and events. Upstream keeps them in memory; here they are part of the state, so that a restart changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Raw recommendations; `None` before the first step, which then begins with the current size.
    pub recommendations: Option<Vec<Recommendation>>,
    /// Steps up.
    pub up_events: Vec<ScaleEvent>,
    /// Steps down.
    pub down_events: Vec<ScaleEvent>,
}

/// A size that was recommended, before any limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recommendation {
    /// When.
    pub at: TimeMs,
    /// The size.
    pub replicas: i32,
}

/// A change of size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleEvent {
    /// When.
    pub at: TimeMs,
    /// By how many replicas, at least 1.
    pub change: i32,
}

/// The longest period of a direction's policies, 0 without any.
pub fn longest_period_ms(rules: &Rules) -> i64 {
    rules.policies.iter().map(|policy| policy.period_ms).max().unwrap_or(0)
}

/// The sum of the changes in the last `period_ms`; an event exactly that old is outside.
pub fn changes_within(events: &[ScaleEvent], period_ms: i64, now: TimeMs) -> i32 {
    let start = now.plus_ms(-period_ms);
    events.iter().filter(|event| event.at > start).fold(0, |sum, event| sum.saturating_add(event.change))
}

impl History {
    /// Notes that the size went from `from` to `to` at `at`. An event older than the longest period of its direction is overwritten.
    pub fn store_event(&mut self, from: i32, to: i32, at: TimeMs, up: &Rules, down: &Rules) {
        let (events, rules) = if to > from { (&mut self.up_events, up) } else { (&mut self.down_events, down) };
        let cutoff = at.plus_ms(-longest_period_ms(rules));
        let event = ScaleEvent { at, change: to.saturating_sub(from).saturating_abs() };
        match events.iter().rposition(|event| event.at < cutoff) {
            Some(index) => events[index] = event,
            None => events.push(event),
        }
    }

    /// Appends a recommendation, or overwrites the last one that is older than `cutoff`.
    pub(super) fn remember(&mut self, replicas: i32, now: TimeMs, cutoff: TimeMs) {
        let entry = Recommendation { at: now, replicas };
        let known = self.recommendations.get_or_insert_default();
        match known.iter().rposition(|known| known.at < cutoff) {
            Some(index) => known[index] = entry,
            None => known.push(entry),
        }
    }
}
