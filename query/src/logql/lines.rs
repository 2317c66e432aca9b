//! Queries for lines: pieces of time, from the end that is wanted first, until there are enough.
//!
//! Segments overlap in time and their rows stand in no order of time, so a piece is read whole and sorted. Its size is chosen by what the
//! catalog tells of segments' rows: small first, because most queries end early, then larger. A piece that turns out to be too large
//! for memory is read again in halves.

use std::time::Instant;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{SortOptions, concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::TimestampNanosecondType;
use futures::StreamExt as _;
use tidemill_eval::logql::{Direction, LogParams, LogRun, Progress, Stream};
use tidemill_lang::logql::ast::LogQuery;
use tidemill_plan::prune::SegmentQuery;
use tidemill_types::{OrganizationId, Signal, TimeRange, TimestampNs};

use super::batches::Lines;
use super::conditions;
use super::detail::Detail;
use super::{CountedGroups, SparedColumns};
use super::{Error, LineScan, Result, add_stats};
use crate::{QueryEngine, QueryLimits, QueryStats};

/// Rows of all streams that the first piece is expected to hold.
const FIRST_ROWS: u64 = 16 << 10;
/// Rows that a piece is expected to hold at most.
const MOST_ROWS: u64 = 1 << 20;
/// Matching rows of one piece in memory.
const MOST_BYTES: usize = 64 << 20;
/// Rows given to the evaluator at a time.
const BATCH_ROWS: usize = 2_048;

/// The answer to a query for lines.
#[derive(Debug)]
pub struct LinesAnswer {
    /// The streams with their lines.
    pub streams: Vec<Stream>,
    /// What was done for it.
    pub stats: QueryStats,
}

impl QueryEngine {
    /// Answers a checked query for lines.
    ///
    /// # Errors
    /// Those of reading and of the evaluator.
    pub async fn logql_lines(
        &self,
        organization: OrganizationId,
        query: &LogQuery,
        params: LogParams,
        limits: QueryLimits,
    ) -> Result<LinesAnswer> {
        let (engine, query) = (self.clone(), query.clone());
        self.on_engine(async move { engine.lines(organization, &query, params, limits).await }).await
    }

    async fn lines(
        &self,
        organization: OrganizationId,
        query: &LogQuery,
        params: LogParams,
        limits: QueryLimits,
    ) -> Result<LinesAnswer> {
        limits.check()?;
        let started = Instant::now();
        let mut run = LogRun::new(query, params)?;
        let mut stats = QueryStats::default();
        let whole = TimeRange { start: TimestampNs(params.start_ns), end: TimestampNs(params.end_ns) };
        self.parts().catalog.refresh().await?;
        let asked = SegmentQuery { time: whole, ..SegmentQuery::everything(Signal::Logs) };
        let segments = self.parts().catalog.plan(organization, &asked).segments;
        let spans = segments.iter().map(|meta| (meta.time, meta.rows)).collect();
        let mut pieces = Pieces::new(spans, whole, params.direction);
        let condition = conditions::of_query(query);
        let mut lines = Lines::new(Detail::Everything);
        while let Some(time) = pieces.next() {
            let left = limits.time.checked_sub(started.elapsed()).filter(|left| !left.is_zero());
            let left = left.ok_or(crate::Error::TimeLimit { limit: limits.time })?;
            let scan = LineScan {
                time,
                condition: condition.clone(),
                columns: Detail::Everything.columns(),
                spared: SparedColumns::default(),
                counted: CountedGroups::new(),
            };
            let mut rows = self.scan_lines(organization, scan, QueryLimits { time: left, ..limits }).await?;
            let (mut batches, mut bytes) = (Vec::new(), 0);
            let mut is_too_large = false;
            while let Some(batch) = rows.next().await {
                let batch = batch?;
                bytes += batch.get_array_memory_size();
                batches.push(batch);
                if bytes > MOST_BYTES && pieces.can_halve(time) {
                    is_too_large = true;
                    break;
                }
            }
            add_stats(&mut stats, rows.stats().read());
            if is_too_large {
                pieces.halve(time);
                continue;
            }
            if feed(&mut run, &mut lines, &batches, params.direction).await? == Progress::Enough {
                break;
            }
        }
        stats.wall_ms = started.elapsed().as_secs_f64() * 1e3;
        Ok(LinesAnswer { streams: run.finish(), stats })
    }
}

/// Gives the rows of one piece to the evaluator in the order that was asked.
async fn feed(run: &mut LogRun, lines: &mut Lines, batches: &[RecordBatch], direction: Direction) -> Result<Progress> {
    let Some(first) = batches.first() else { return Ok(Progress::More) };
    let unsortable = |_| Error::Rows("rows that cannot be sorted");
    let rows = concat_batches(&first.schema(), batches).map_err(unsortable)?;
    let time = rows.column_by_name("time").ok_or(Error::Rows("rows without a time"))?;
    let is_typed = time.as_primitive_opt::<TimestampNanosecondType>().is_some();
    if !is_typed {
        return Err(Error::Rows("rows without a time"));
    }
    let options = SortOptions { descending: direction == Direction::Backward, nulls_first: false };
    let order = sort_to_indices(time, Some(options), None).map_err(unsortable)?;
    for start in (0..rows.num_rows()).step_by(BATCH_ROWS) {
        let length = BATCH_ROWS.min(rows.num_rows() - start);
        let slice = take_record_batch(&rows, &order.slice(start, length)).map_err(unsortable)?;
        if run.push(&lines.batch(&slice)?)? == Progress::Enough {
            return Ok(Progress::Enough);
        }
        tokio::task::yield_now().await;
    }
    Ok(Progress::More)
}

/// The pieces of a range that are left to read.
struct Pieces {
    /// Times and rows of the segments.
    segments: Vec<(TimeRange, u64)>,
    left: TimeRange,
    direction: Direction,
    rows: u64,
}

impl Pieces {
    fn new(segments: Vec<(TimeRange, u64)>, whole: TimeRange, direction: Direction) -> Self {
        Self { segments, left: whole, direction, rows: FIRST_ROWS }
    }

    /// The next piece: it has about as many rows as pieces now may have. Time without segments is passed over.
    fn next(&mut self) -> Option<TimeRange> {
        let inside = self.segments.iter().filter(|(time, _)| time.overlaps(self.left));
        let (start, end) =
            inside.fold((i64::MAX, i64::MIN), |(start, end), (time, _)| (start.min(time.start.0), end.max(time.end.0)));
        let (start, end) = (start.max(self.left.start.0), end.min(self.left.end.0));
        if start >= end {
            return None;
        }
        let piece = match self.direction {
            Direction::Backward => TimeRange { start: TimestampNs(self.edge(start, end)), end: TimestampNs(end) },
            Direction::Forward => TimeRange { start: TimestampNs(start), end: TimestampNs(self.edge(start, end)) },
        };
        self.take(piece);
        self.rows = (self.rows * 2).min(MOST_ROWS);
        Some(piece)
    }

    fn take(&mut self, piece: TimeRange) {
        match self.direction {
            Direction::Backward => self.left.end = piece.start,
            Direction::Forward => self.left.start = piece.end,
        }
    }

    /// Where a piece of `start..end` ends that has the rows wanted, seen from the end that is read first.
    fn edge(&self, start: i64, end: i64) -> i64 {
        let (mut near, mut far) = match self.direction {
            Direction::Backward => (end, start),
            Direction::Forward => (start, end),
        };
        let first = near;
        let rows_to = |edge: i64| self.rows_within(first.min(edge), first.max(edge));
        if rows_to(far) <= self.rows as f64 {
            return far;
        }
        while near.abs_diff(far) > 1 {
            let middle = near.midpoint(far);
            if rows_to(middle) <= self.rows as f64 { near = middle } else { far = middle }
        }
        // At least one nanosecond, however full it is.
        if near == first { far } else { near }
    }

    /// About how many rows lie in `start..end`, as if segments' rows were spread evenly.
    fn rows_within(&self, start: i64, end: i64) -> f64 {
        let rows = self.segments.iter().map(|(time, rows)| {
            let overlap = time.end.0.min(end) as f64 - time.start.0.max(start) as f64;
            let length = (time.end.0 as f64 - time.start.0 as f64).max(1.0);
            *rows as f64 * (overlap.max(0.0) / length).min(1.0)
        });
        rows.sum()
    }

    fn can_halve(&self, piece: TimeRange) -> bool {
        piece.end.0.abs_diff(piece.start.0) > 1
    }

    /// Gives a piece back, to be read in smaller ones.
    fn halve(&mut self, piece: TimeRange) {
        match self.direction {
            Direction::Backward => self.left.end = piece.end,
            Direction::Forward => self.left.start = piece.start,
        }
        self.rows = ((self.rows_within(piece.start.0, piece.end.0) / 2.0) as u64).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: i64, end: i64) -> TimeRange {
        TimeRange { start: TimestampNs(start), end: TimestampNs(end) }
    }

    /// Whatever is given back in between, pieces follow each other and leave out only time that has no segment.
    #[test]
    fn pieces_cover_every_segment_once_in_order() {
        let segments =
            vec![(range(0, 1_000), 100_000), (range(500, 3_000), 1_000_000), (range(9_000, 9_001), 5_000_000)];
        for direction in [Direction::Forward, Direction::Backward] {
            let mut pieces = Pieces::new(segments.clone(), range(10, 20_000), direction);
            let mut covered: Vec<TimeRange> = Vec::new();
            let mut turn = 0;
            while let Some(piece) = pieces.next() {
                turn += 1;
                assert!(turn < 5_000 && piece.start < piece.end, "{piece:?}");
                if turn % 3 == 0 && pieces.can_halve(piece) {
                    pieces.halve(piece);
                    continue;
                }
                if let Some(last) = covered.last() {
                    let is_next = match direction {
                        Direction::Forward => last.end <= piece.start,
                        Direction::Backward => piece.end <= last.start,
                    };
                    assert!(is_next, "{last:?} then {piece:?}");
                }
                covered.push(piece);
            }
            for at in (10..3_000).chain(9_000..9_001) {
                let count = covered.iter().filter(|piece| piece.start.0 <= at && at < piece.end.0).count();
                assert_eq!(count, 1, "{at}: {covered:?}");
            }
            assert!(covered.len() > 5, "{covered:?}");
        }
    }

    #[test]
    fn the_first_piece_is_small_and_few_rows_are_one_piece() {
        let mut pieces = Pieces::new(vec![(range(0, 1_000_000), 10_000_000)], range(0, 1_000_000), Direction::Backward);
        let first = pieces.next().expect("a piece");
        assert_eq!(first.end.0, 1_000_000);
        assert!((1_500..1_700).contains(&(first.end.0 - first.start.0)), "{first:?}");
        let mut few = Pieces::new(vec![(range(0, 1_000_000), 100)], range(0, 1_000_000), Direction::Backward);
        assert_eq!(few.next(), Some(range(0, 1_000_000)));
        assert_eq!(few.next(), None);
    }
}
