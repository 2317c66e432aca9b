//! Which segments and row groups hold a trace, by the day indexes of traces: one read a day instead of every segment's footer.
//!
//! An index speaks for the segments that the metastore says it covers and for no others. It only spares reading: one that is
//! missing or damaged is left aside, and its segments are opened.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use bytes::Bytes;
use datafusion::physical_expr::utils::Guarantee;
use datafusion::physical_optimizer::pruning::PruningPredicate;
use futures::stream::StreamExt;
use tidemill_segment::index::trace_day::TraceDayIndex;
use tidemill_segment::segment_id;
use tidemill_store::metastore::TraceDay;
use tidemill_types::{SegmentId, SegmentMeta, Signal};

use super::open::ObjectPlace;
use super::provider::TableContext;
use crate::stats::Counter;
use crate::{Error, Result};

/// Indexes read at a time.
const INDEXES_TOGETHER: usize = 16;
/// More traces than this are looked for in the segments, one by one.
const MOST_TRACES: usize = 32;

/// Row groups of covered segments that may hold the traces asked for; no entry for a segment that no index covers.
pub(crate) type TracePlaces = HashMap<SegmentId, BTreeSet<usize>>;

/// Leaves out the segments that hold none of the traces that a predicate asks for, and tells the row groups of the others where known.
pub(super) async fn find_traces(
    context: &TableContext,
    signal: Signal,
    pruning: Option<&PruningPredicate>,
    segments: Vec<SegmentMeta>,
) -> (Vec<SegmentMeta>, TracePlaces) {
    let traces = pruning.filter(|_| signal == Signal::Traces).and_then(trace_ids);
    // A single segment is opened as fast as an index is.
    let Some(traces) = traces.filter(|_| segments.len() > 1) else { return (segments, TracePlaces::new()) };
    let places = match places_of(context, &traces, &segments).await {
        Ok(places) => places,
        Err(error) => {
            tracing::warn!(%error, "the day indexes of traces cannot be listed; every segment is opened");
            return (segments, TracePlaces::new());
        }
    };
    let before = segments.len();
    let may_hold = |meta: &SegmentMeta| places.get(&meta.id).is_none_or(|groups| !groups.is_empty());
    let segments: Vec<SegmentMeta> = segments.into_iter().filter(may_hold).collect();
    context.stats.add(Counter::SegmentsPruned, (before - segments.len()) as u64);
    (segments, places)
}

/// The traces to which a predicate confines its rows, `None` for any or too many.
fn trace_ids(predicate: &PruningPredicate) -> Option<Vec<[u8; 16]>> {
    let of_traces = predicate
        .literal_guarantees()
        .iter()
        .filter(|guarantee| guarantee.column.name == "trace_id" && guarantee.guarantee == Guarantee::In);
    let smallest = of_traces.min_by_key(|guarantee| guarantee.literals.len())?;
    if smallest.literals.len() > MOST_TRACES {
        return None;
    }
    smallest.literals.iter().map(|literal| trace_id(literal.try_as_str().flatten()?)).collect()
}

/// An id as the column writes it: 32 lower-case hexadecimal digits.
fn trace_id(text: &str) -> Option<[u8; 16]> {
    let mut id = [0; 16];
    hex::decode_to_slice(text, &mut id).ok()?;
    (hex::encode(id) == text).then_some(id)
}

async fn places_of(context: &TableContext, traces: &[[u8; 16]], segments: &[SegmentMeta]) -> Result<TracePlaces> {
    let days = segments.iter().map(|meta| meta.day);
    let Some((first, last)) = days.clone().min().zip(days.max()) else { return Ok(TracePlaces::new()) };
    let wanted: HashSet<SegmentId> = segments.iter().map(|meta| meta.id).collect();
    let indexes = context.catalog.trace_days(context.organization, first, last).await?;
    let useful = indexes.into_iter().filter(|index| index.segments.iter().any(|id| wanted.contains(id)));
    let mut reading = futures::stream::iter(useful)
        .map(|index| async move {
            let read = read_index(context, &index, traces).await;
            (index, read)
        })
        .buffer_unordered(INDEXES_TOGETHER);
    let mut places = TracePlaces::new();
    while let Some((index, read)) = reading.next().await {
        match read {
            Ok(found) => places.extend(found),
            Err(error) => {
                let problem = match error {
                    Error::SegmentMissing { .. } => "its object is missing".to_owned(),
                    other => other.to_string(),
                };
                let key = index.object_key;
                tracing::warn!(
                    key,
                    problem,
                    "a day index of traces is left aside; the segments that it covers are opened"
                );
            }
        }
    }
    Ok(places)
}

/// The row groups of every segment that an index covers, none for one without the traces.
async fn read_index(context: &TableContext, index: &TraceDay, traces: &[[u8; 16]]) -> Result<TracePlaces> {
    let corrupt = |error: tidemill_segment::Error| Error::corrupt(&index.object_key, error);
    let (loader, stats) = (&context.loader, &context.stats);
    let object = ObjectPlace { id: segment_id(&index.object_key), bucket: &index.bucket, key: &index.object_key };
    let tail = index.bytes.saturating_sub(index.tail_bytes)..index.bytes;
    let tail = loader.fetch_object_kept(object, &[tail], stats).await?.concat();
    let decoded = TraceDayIndex::decode(&tail).map_err(corrupt)?;
    let needed: Vec<Vec<Range<u64>>> = traces
        .iter()
        .map(|trace| decoded.needed(trace).iter().map(|range| range.offset..range.offset + range.len).collect())
        .collect();
    // A block that several traces need is asked for once.
    let distinct: BTreeSet<(u64, u64)> = needed.iter().flatten().map(|range| (range.start, range.end)).collect();
    let ranges: Vec<Range<u64>> = distinct.iter().map(|(start, end)| *start..*end).collect();
    let parts = loader.fetch_object_kept(object, &ranges, stats).await?;
    let blocks: BTreeMap<(u64, u64), Bytes> = distinct.into_iter().zip(parts).collect();
    let mut places: TracePlaces = index.segments.iter().map(|id| (*id, BTreeSet::new())).collect();
    for (trace, ranges) in traces.iter().zip(&needed) {
        let blocks: Vec<&[u8]> = ranges.iter().map(|range| &blocks[&(range.start, range.end)][..]).collect();
        for place in decoded.places(trace, &blocks).map_err(corrupt)? {
            let segment = segment_id(&decoded.segments()[place.segment as usize]);
            if let Some(groups) = places.get_mut(&segment) {
                groups.insert(place.row_group as usize);
            }
        }
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_column_writes_is_an_id() {
        let id = "00112233445566778899aabbccddeeff";
        assert_eq!(trace_id(id).map(hex::encode).as_deref(), Some(id));
        for other in [&id.to_uppercase()[..], &id[1..], "", "not hexadecimal, but 32 characters"] {
            assert_eq!(trace_id(other), None, "{other}");
        }
    }
}
