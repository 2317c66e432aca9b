//! What ingest asks for afterwards: compaction of the days it wrote to, rollups of the hours it raised. And what compaction asks for:
//! the day index of traces.
//!
//! One live item per day or hour: triggers with equal keys are one item, whose time only moves forward to an earlier one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidemill_plan::rollup::rollup_due_at;
use tidemill_store::metastore::{Bundle, NewWork};
use tidemill_types::{Action, Day, Hour, OrganizationId, SegmentMeta, Signal, Tier, TimestampNs, WorkQueue};

/// L0 waits at most this long for company.
const L0_AGE: Duration = Duration::from_secs(60);
/// L0 does not wait longer than for this many files…
const L0_FILES: u64 = 32;
/// … or this many bytes.
const L0_BYTES: u64 = 64 << 20;

/// A day index of a closed day waits this long for company: late segments come in flocks.
const INDEX_AGE: Duration = Duration::from_secs(600);
/// A day index of an open day is built at most this often.
const OPEN_INDEX_AGE: Duration = Duration::from_secs(3600);
/// Day indexes spare reading and nothing more, so merges go first.
const INDEX_PRIORITY: i16 = 10;

/// The payload of a compaction work item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CompactPayload {
    /// Which day's segments.
    pub day: Day,
    /// What is made of them.
    #[serde(default, skip_serializing_if = "CompactTask::is_merge")]
    pub task: CompactTask,
}

/// What compaction makes of a day's segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CompactTask {
    /// Fewer and larger ones; what older versions asked for without a word.
    #[default]
    Merge,
    /// Traces only: an index of all that were merged.
    TraceIndex,
}

impl CompactTask {
    fn is_merge(&self) -> bool {
        *self == Self::Merge
    }
}

/// The payload of a rollup work item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RollupPayload {
    /// Which hour.
    pub hour: Hour,
}

/// Counts L0 since the last immediate trigger, per day; only how soon compaction starts depends on it.
#[derive(Debug, Default)]
pub struct Triggers {
    grown: Mutex<HashMap<(OrganizationId, i32, Signal, Day), Grown>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Grown {
    files: u64,
    bytes: u64,
}

/// Days counted at the same time; beyond, counting starts over, which only costs promptness.
const DAYS_COUNTED: usize = 4096;

impl Triggers {
    /// The follow-ups of an ingest publication.
    pub(crate) fn after_ingest(
        &self,
        bundle: &Bundle,
        segments: &[SegmentMeta],
        hours: &BTreeSet<Hour>,
        now: TimestampNs,
    ) -> Vec<NewWork> {
        let mut days: BTreeMap<Day, Grown> = BTreeMap::new();
        for segment in segments {
            let grown = days.entry(segment.day).or_default();
            grown.files += 1;
            grown.bytes += segment.bytes;
        }
        let mut work = Vec::with_capacity(days.len() + hours.len());
        for (day, grown) in days {
            let delay = if self.is_due(bundle, day, grown) { Duration::ZERO } else { L0_AGE };
            work.push(compaction(bundle, day, delay));
        }
        if bundle.queue.signal == Signal::Metrics {
            work.extend(hours.iter().map(|hour| rollup(bundle, *hour, rollup_delay(*hour, now))));
        }
        work
    }

    fn is_due(&self, bundle: &Bundle, day: Day, grown: Grown) -> bool {
        let mut all = self.grown.lock();
        if all.len() >= DAYS_COUNTED {
            all.clear();
        }
        let key = (bundle.organization, bundle.instance_num, bundle.queue.signal, day);
        let total = all.entry(key).or_default();
        total.files += grown.files;
        total.bytes += grown.bytes;
        let is_due = total.files >= L0_FILES || total.bytes >= L0_BYTES;
        if is_due {
            *total = Grown::default();
        }
        is_due
    }
}

/// A request to compact a day once `delay` has passed.
pub(crate) fn compaction(bundle: &Bundle, day: Day, delay: Duration) -> NewWork {
    NewWork {
        queue: WorkQueue { signal: bundle.queue.signal, action: Action::Compact },
        organization: bundle.organization,
        instance_num: bundle.instance_num,
        priority: 0,
        delay,
        dedupe_key: Some(format!("day/{day}/{}", bundle.instance_num)),
        range: Some(day.range()),
        tier: Tier::RAW,
        size_bytes: 0,
        payload: serde_json::to_value(CompactPayload { day, task: CompactTask::Merge })
            .expect("a plain struct is JSON"),
    }
}

/// A request for the day index of traces once `delay` has passed.
pub(crate) fn trace_index(bundle: &Bundle, day: Day, delay: Duration) -> NewWork {
    NewWork {
        priority: INDEX_PRIORITY,
        dedupe_key: Some(format!("traces/{day}/{}", bundle.instance_num)),
        payload: serde_json::to_value(CompactPayload { day, task: CompactTask::TraceIndex })
            .expect("a plain struct is JSON"),
        ..compaction(bundle, day, delay)
    }
}

/// How long the index of a day whose segments rest waits.
pub(crate) fn trace_index_delay(day: Day, now: TimestampNs) -> Duration {
    if day.range().end <= now { INDEX_AGE } else { OPEN_INDEX_AGE }
}

/// A request to roll an hour up once `delay` has passed. One for all storage profile instances of the organization.
pub(crate) fn rollup(bundle: &Bundle, hour: Hour, delay: Duration) -> NewWork {
    NewWork {
        queue: WorkQueue { signal: Signal::Metrics, action: Action::Rollup },
        organization: bundle.organization,
        instance_num: bundle.instance_num,
        priority: 0,
        delay,
        dedupe_key: Some(format!("hour/{}", hour.0)),
        range: Some(hour.range()),
        tier: Tier::ROLLUPS[0],
        size_bytes: 0,
        payload: serde_json::to_value(RollupPayload { hour }).expect("a plain struct is JSON"),
    }
}

/// How long a rollup of an hour with new rows waits: for the hour's end, and for company.
fn rollup_delay(hour: Hour, now: TimestampNs) -> Duration {
    let wait_ns = rollup_due_at(hour, now).0.saturating_sub(now.0).max(0);
    Duration::from_nanos(wait_ns.unsigned_abs()).max(L0_AGE)
}
