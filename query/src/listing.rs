//! What attributes there are: from footers, and their cardinalities from the newest rows.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use futures::stream::TryStreamExt;
use tidemill_plan::prune::SegmentQuery;
use tidemill_segment::read::AttributeType;
use tidemill_types::{OrganizationId, SegmentMeta, Signal, TimeRange, TimestampNs};

use crate::attributes::{AttributeInfo, AttributeKey, Cardinality, KnownAttribute, KnownAttributes, type_name};
use crate::stats::StatsHandle;
use crate::{Error, QueryEngine, QueryLimits, Result};

/// Distinct values are counted in the newest segments up to about so many rows.
const COUNTED_ROWS: u64 = 2_000_000;
/// Distinct values are counted for so long.
const COUNTING_TIME: Duration = Duration::from_secs(20);
/// Distinct values are counted for the keys that occur most.
const COUNTED_KEYS: usize = 200;

impl QueryEngine {
    /// What is known of the attributes of a signal in a time range, sorted by scope and key.
    ///
    /// Keys, types and rows come from the footers of all segments in the range. Distinct values are counted approximately in the
    /// newest segments, for at most 20 s; where that does not suffice a cardinality is `AtLeast` or `Unknown`.
    ///
    /// # Errors
    /// As for a query.
    pub async fn attributes(
        &self,
        organization: OrganizationId,
        signal: Signal,
        time: TimeRange,
    ) -> Result<Vec<AttributeInfo>> {
        let stats = StatsHandle::new();
        self.parts().catalog.refresh().await?;
        let query = SegmentQuery { time, ..SegmentQuery::everything(signal) };
        let segments = self.parts().catalog.plan(organization, &query).segments;
        let mut known = KnownAttributes::default();
        let mut footers = self.parts().loader.open_all(segments.clone(), &stats);
        while let Some(open) = footers.try_next().await? {
            known.add(&open.footer);
        }
        let cardinalities = self.cardinalities(organization, signal, time, &segments, &known).await?;
        let describe = |(key, attribute): (&AttributeKey, &KnownAttribute)| AttributeInfo {
            scope: key.scope,
            key: key.key.clone(),
            expression: key.column_name(),
            kind: type_name(attribute.kind.unwrap_or(AttributeType::String)).to_owned(),
            rows: attribute.rows,
            promoted_in: attribute.promoted_in,
            overflow_in: attribute.overflow_in,
            cardinality: cardinalities.get(key).copied().unwrap_or(Cardinality::Unknown),
        };
        Ok(known.iter().map(describe).collect())
    }

    async fn cardinalities(
        &self,
        organization: OrganizationId,
        signal: Signal,
        time: TimeRange,
        segments: &[SegmentMeta],
        known: &KnownAttributes,
    ) -> Result<BTreeMap<AttributeKey, Cardinality>> {
        let mut by_rows: Vec<(u64, &AttributeKey)> =
            known.iter().map(|(key, attribute)| (attribute.rows, key)).collect();
        by_rows.sort_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(other.1)));
        let keys: Vec<&AttributeKey> = by_rows.into_iter().take(COUNTED_KEYS).map(|(_, key)| key).collect();
        let (counted, is_all) = newest(segments, time);
        let Some(counted) = counted.filter(|_| !keys.is_empty()) else { return Ok(BTreeMap::new()) };
        let columns: Vec<String> =
            keys.iter().map(|key| format!("approx_distinct(CAST({} AS VARCHAR))", key.column_name())).collect();
        let statement = format!("SELECT {} FROM {}", columns.join(", "), signal.table());
        let limits = QueryLimits { time: COUNTING_TIME, within: Some(counted), ..QueryLimits::default() };
        let batches = match self.sql(organization, &statement, limits).await {
            Ok(stream) => stream.collect().await,
            Err(error) => Err(error),
        };
        let batches = match batches {
            // What the limits do not allow stays unknown; it is said so.
            Err(Error::TimeLimit { .. } | Error::Engine(_)) => return Ok(BTreeMap::new()),
            batches => batches?,
        };
        let Some(row) = batches.iter().find(|batch| batch.num_rows() == 1) else { return Ok(BTreeMap::new()) };
        let counts = keys.into_iter().zip(row.columns()).filter_map(|(key, column)| {
            let count = column.as_primitive_opt::<UInt64Type>()?.value(0);
            Some((key.clone(), if is_all { Cardinality::About(count) } else { Cardinality::AtLeast(count) }))
        });
        Ok(counts.collect())
    }
}

/// The time of the newest segments that have about `COUNTED_ROWS` rows, and whether those are all.
fn newest(segments: &[SegmentMeta], time: TimeRange) -> (Option<TimeRange>, bool) {
    let mut rows = 0;
    let mut start = None;
    for (place, meta) in segments.iter().enumerate() {
        if rows >= COUNTED_ROWS {
            return (start.map(|start| TimeRange { start, end: time.end }), place == segments.len());
        }
        rows += meta.rows;
        let first = meta.time.start.max(time.start);
        start = Some(start.map_or(first, |before: TimestampNs| before.min(first)));
    }
    (start.map(|_| time), true)
}
