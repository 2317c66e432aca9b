//! Numbers of one segment for a selector, as they lie in its row groups: which are whose is told when series are put together.

use std::sync::Arc;

use tidemill_eval::Labels;

use super::floats::FloatRun;
use super::points::GroupFloats;
use super::series::{Found, Role, SegmentSeries, SeriesKey};

/// What a segment has for a selector of which it has numbers alone, each series under one name.
#[derive(Debug)]
pub(super) struct StoredFloats {
    series: Arc<SegmentSeries>,
    /// The series that meet the selector, the owners of the numbers.
    found: Vec<Found>,
    groups: Vec<GroupFloats>,
    /// The first and the last millisecond that is asked for.
    time_ms: (i64, i64),
}

impl StoredFloats {
    /// Whether what was found is of this kind.
    pub(super) fn are_all(series: &SegmentSeries, found: &[Found]) -> bool {
        found.iter().all(|found| {
            let metric = &series.metrics[series.series[found.series as usize].metric as usize];
            matches!(&*found.parts, [(Role::Value, name)] if metric.is_plainly(name))
        })
    }

    /// The numbers of series that [are all](Self::are_all) of this kind.
    pub(super) fn new(
        series: Arc<SegmentSeries>,
        found: Vec<Found>,
        groups: Vec<GroupFloats>,
        time_ms: (i64, i64),
    ) -> Self {
        Self { series, found, groups, time_ms }
    }

    /// About how many stretches of points they are.
    pub(super) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.owned.len()).sum()
    }

    /// How many points there are.
    pub(super) fn samples(&self) -> usize {
        self.groups.iter().map(|group| group.points).sum()
    }

    /// Gives the stretches of those series that belong to a part, of so many parts, each with whether it is one of deltas.
    pub(super) fn for_part(&self, (part, parts): (usize, usize), mut add: impl FnMut(&SeriesKey, bool, FloatRun)) {
        for group in &self.groups {
            for (rows, owner) in &group.owned {
                let found = &self.found[*owner as usize];
                let Some((_, name)) = found.parts.first() else { continue };
                let stored = &self.series.series[found.series as usize];
                let key = stored.first_named(name);
                if key.part(parts) == part {
                    let metric = &self.series.metrics[stored.metric as usize];
                    let mut add = |run| add(key, metric.is_delta, run);
                    group.columns.runs(rows.clone(), self.time_ms, metric.has_starts, &mut add);
                }
            }
        }
    }

    /// The labels of the series that have points.
    pub(super) fn labels(&self) -> Vec<Labels> {
        let mut labels = Vec::new();
        self.for_part((0, 1), |key, _, _| labels.push(key.labels().clone()));
        labels
    }
}
