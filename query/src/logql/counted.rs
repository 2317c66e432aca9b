//! Lines that are counted unread: by the catalog where a window has a whole segment and all of its lines count, by footers where that is so
//! of row groups, or by the stream tables of their segments.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::UInt32Array;
use futures::TryStreamExt as _;
use parquet::file::metadata::RowGroupMetaData;
use tidemill_eval::logql::{InstantWindows, MetricRun, StreamLabels, StreamLines, StreamSelector};
use tidemill_plan::prune::SegmentQuery;
use tidemill_segment::index::StreamRows;
use tidemill_types::{OrganizationId, SegmentId, SegmentMeta, ServiceSet, Signal, Tier, TimeRange};

use super::Result;
use super::batches::Lines;
use super::conditions::services_of;
use super::detail::Detail;
use super::labels::SERVICE_NAME;
use crate::QueryEngine;
use crate::scan::OpenSegment;
use crate::stats::{Counter, StatsHandle};

/// Rows of segments that are counted.
pub(crate) type CountedGroups = BTreeMap<SegmentId, CountedRows>;

/// Which rows of a segment are counted.
#[derive(Debug, Clone)]
pub(crate) enum CountedRows {
    All,
    /// Those of some row groups.
    Groups(BTreeSet<usize>),
}

impl CountedRows {
    /// Whether those of a row group are.
    pub(crate) fn has(&self, group: usize) -> bool {
        match self {
            Self::All => true,
            Self::Groups(groups) => groups.contains(&group),
        }
    }
}

/// What was counted unread.
#[derive(Debug, Default)]
pub(super) struct CountedLines {
    /// Where the lines are.
    pub(super) groups: CountedGroups,
    /// Whether those are all there are, so that nothing is left to be read.
    pub(super) is_everything: bool,
}

impl QueryEngine {
    /// Counts row groups into `run` by their footers or by stream tables, as many as it can.
    pub(super) async fn count_groups(
        &self,
        organization: OrganizationId,
        run: &mut MetricRun,
        (time, detail): (TimeRange, &Detail),
        stats: &StatsHandle,
    ) -> Result<CountedLines> {
        let mut counted = CountedLines::default();
        let parts = self.parts();
        let (selector, windows) = (services_counted(run)?, run.windows());
        let windows = windows.filter(|_| run.counts_by_stream());
        if !parts.options.uses_indexes || (selector.is_none() && windows.is_none()) {
            return Ok(counted);
        }
        let are_all = |meta: &SegmentMeta| selector.as_ref().is_some_and(|selector| all_meet(meta, selector));
        parts.catalog.refresh().await?;
        let selections = run.selections();
        let services = services_of(selections.iter().map(|selection| selection.matchers.as_slice()));
        let query = SegmentQuery { signal: Signal::Logs, tier: Tier::RAW, time, services };
        let planned = parts.catalog.plan(organization, &query);
        let before = planned.segments.len();
        let mut segments = planned.segments;
        segments.retain(|meta| windows.is_some() || are_all(meta));
        // What may be past its retention is told of where rows are read.
        let kept_from = parts.catalog.first_kept_day(organization, Signal::Logs).map(|day| day.range().start);
        let mut is_everything = segments.len() == before && kept_from.is_none_or(|from| from <= time.start);
        let (mut row_groups, mut by_groups) = (0, Vec::new());
        for meta in segments.extract_if(.., |meta| are_all(meta) && matches!(meta.services, ServiceSet::OfEveryRow(_)))
        {
            let times = (meta.time.start.0, meta.time.end.0 - 1);
            if run.count_lines(times, meta.rows)? {
                counted.groups.insert(meta.id, CountedRows::All);
            } else {
                by_groups.push(meta);
            }
        }
        segments.extend(by_groups);
        let mut lines = Lines::new(detail.clone());
        let by_footers = |open: &OpenSegment| {
            are_all(&open.meta) && (0..open.row_group_times.len()).all(|group| has_services(open, group))
        };
        let are_wanted = |open: &OpenSegment| {
            let fits = |windows: &InstantWindows| {
                let groups = 0..open.row_group_times.len();
                groups.map(|group| times_of(open, group)).any(|(first, last)| !windows.tell_apart(first, last))
            };
            windows.as_ref().is_some_and(fits) && detail.is_of_streams(open) && !by_footers(open)
        };
        let mut opened = parts.streams.open_all(&parts.loader, segments, are_wanted, stats);
        while let Some((open, streams)) = opened.try_next().await? {
            let mut groups = BTreeSet::new();
            if let Some(streams) = streams {
                let places = lines.stream_of_rows(&streams.heads)?;
                for (group, entries) in streams.groups.iter().enumerate() {
                    let own: Vec<StreamLines> = entries.iter().map(|entry| lines_of(entry, &places)).collect();
                    if run.count_streams(lines.table(), times_of(&open, group), &own)? {
                        groups.insert(group);
                    }
                }
            } else if by_footers(&open) {
                for group in 0..open.row_group_times.len() {
                    let rows = open.row_group_rows(group) as u64;
                    if run.count_lines(times_of(&open, group), rows)? {
                        groups.insert(group);
                    }
                }
            }
            is_everything &= groups.len() == open.row_group_times.len();
            row_groups += groups.len() as u64;
            if !groups.is_empty() {
                counted.groups.insert(open.meta.id, CountedRows::Groups(groups));
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

fn lines_of(entry: &StreamRows, places: &UInt32Array) -> StreamLines {
    StreamLines { stream: places.value(entry.head as usize), lines: entry.rows, bytes: entry.body_bytes }
}

/// Where a query counts the lines of services, all together: its selector.
fn services_counted(run: &MetricRun) -> Result<Option<StreamSelector>> {
    let matchers = run.counts_lines_of();
    let matchers = matchers.filter(|matchers| matchers.iter().all(|matcher| matcher.name == SERVICE_NAME));
    Ok(matchers.map(StreamSelector::new).transpose()?)
}

/// The first and the last time of a row group.
fn times_of(open: &OpenSegment, group: usize) -> (i64, i64) {
    let times = open.row_group_times[group];
    (times.start.0, times.end.0 - 1)
}

/// Whether the selector is met by every service of a segment.
fn all_meet(meta: &SegmentMeta, selector: &StreamSelector) -> bool {
    let meets = |name: &String| selector.meets(&StreamLabels::of([(SERVICE_NAME.to_owned(), name.clone())]));
    match meta.services.names() {
        None => false,
        Some(names) => names.iter().all(|name| !name.is_empty() && meets(name)),
    }
}

/// Whether every row of a row group has a service.
fn has_services(open: &OpenSegment, group: usize) -> bool {
    let nulls = |group: &RowGroupMetaData| group.column(open.leaf(SERVICE_NAME)?).statistics()?.null_count_opt();
    nulls(open.reader.metadata().row_group(group)) == Some(0)
}
