//! Row groups that are counted by their footers: where a query asks only how many lines there are, and all rows of a row group count.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt as _;
use parquet::file::metadata::RowGroupMetaData;
use tidemill_eval::logql::{MetricRun, StreamLabels, StreamSelector};
use tidemill_lang::logql::ast::Matcher;
use tidemill_plan::prune::SegmentQuery;
use tidemill_types::{OrganizationId, SegmentId, SegmentMeta, ServiceSet, Signal, Tier, TimeRange};

use super::Result;
use super::labels::SERVICE_NAME;
use crate::QueryEngine;
use crate::scan::OpenSegment;
use crate::stats::{Counter, StatsHandle};

/// Row groups of segments.
pub(crate) type CountedGroups = BTreeMap<SegmentId, BTreeSet<usize>>;

/// What footers have counted.
#[derive(Debug, Default)]
pub(super) struct CountedLines {
    /// Where the lines are.
    pub(super) groups: CountedGroups,
    /// Whether those are all there are, so that nothing is left to be read.
    pub(super) is_everything: bool,
}

impl QueryEngine {
    /// Counts row groups into `run` by their footers alone, as many as it can.
    pub(super) async fn count_groups(
        &self,
        organization: OrganizationId,
        run: &mut MetricRun,
        time: TimeRange,
        stats: &StatsHandle,
    ) -> Result<CountedLines> {
        let mut counted = CountedLines::default();
        let parts = self.parts();
        let Some(matchers) = run.counts_lines_of().map(<[Matcher]>::to_vec) else { return Ok(counted) };
        if !parts.options.uses_indexes || matchers.iter().any(|matcher| matcher.name != SERVICE_NAME) {
            return Ok(counted);
        }
        let selector = StreamSelector::new(&matchers)?;
        parts.catalog.refresh().await?;
        let query = SegmentQuery { signal: Signal::Logs, tier: Tier::RAW, time, services: None };
        let planned = parts.catalog.plan(organization, &query);
        let mut segments = planned.segments;
        let before = segments.len();
        segments.retain(|meta| all_meet(meta, &selector));
        // What may be past its retention is told of where rows are read.
        let kept_from = parts.catalog.first_kept_day(organization, Signal::Logs).map(|day| day.range().start);
        let mut is_everything = segments.len() == before && kept_from.is_none_or(|from| from <= time.start);
        let mut row_groups = 0;
        let mut opened = parts.loader.open_all(segments, stats);
        while let Some(open) = opened.try_next().await? {
            let mut groups = BTreeSet::new();
            for group in 0..open.row_group_times.len() {
                let times = open.row_group_times[group];
                if has_services(&open, group)
                    && run.count_lines((times.start.0, times.end.0 - 1), open.row_group_rows(group) as u64)?
                {
                    groups.insert(group);
                }
            }
            is_everything &= groups.len() == open.row_group_times.len();
            row_groups += groups.len() as u64;
            if !groups.is_empty() {
                counted.groups.insert(open.meta.id, groups);
            }
        }
        counted.is_everything = is_everything;
        if is_everything {
            // Otherwise the scan of the rest tells.
            stats.add(Counter::SegmentsConsidered, planned.considered as u64);
            stats.add(Counter::SegmentsPruned, (planned.considered - before) as u64);
            stats.add(Counter::BytesConsidered, planned.considered_bytes);
            stats.add(Counter::RowGroupsConsidered, row_groups);
            stats.add(Counter::RowGroupsPruned, row_groups);
        }
        Ok(counted)
    }
}

/// Whether the selector is met by every service of a segment.
fn all_meet(meta: &SegmentMeta, selector: &StreamSelector) -> bool {
    let meets = |name: &String| selector.meets(&StreamLabels::of([(SERVICE_NAME.to_owned(), name.clone())]));
    match &meta.services {
        ServiceSet::Names(names) => names.iter().all(|name| !name.is_empty() && meets(name)),
        ServiceSet::Bloom(_) => false,
    }
}

/// Whether every row of a row group has a service.
fn has_services(open: &OpenSegment, group: usize) -> bool {
    let nulls = |group: &RowGroupMetaData| group.column(open.leaf(SERVICE_NAME)?).statistics()?.null_count_opt();
    nulls(open.reader.metadata().row_group(group)) == Some(0)
}
