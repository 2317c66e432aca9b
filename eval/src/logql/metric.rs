//! Queries for numbers: what each range aggregation gathers, and what the query makes of it.

use serde::{Deserialize, Serialize};
use tidemill_lang::logql::ast::{Grouping, LogQuery, Matcher, Metric, MetricKind, RangeFunction, StageKind};

use super::batch::LogBatch;
use super::collect::{Collected, Windows};
use super::leaf::Leaf;
use super::required::{injected_grouping, required_before};
use super::selector::{Selection, StreamLines, StreamTable};
use super::vector::{self, MetricAnswer};
use crate::error::{Error, Result};

/// The most instants of one answer.
const INSTANT_LIMIT: usize = 11_000;

/// What is asked beside the query.
#[derive(Debug, Clone, Copy)]
pub struct MetricParams {
    /// The first instant, in nanoseconds.
    pub start_ns: i64,
    /// No instant lies behind it; the same as `start_ns` for one instant.
    pub end_ns: i64,
    /// Nanoseconds between instants; `None` asks for one instant.
    pub step_ns: Option<i64>,
    /// The time of the query, for templates that ask.
    pub now_ns: i64,
}

/// What a run has gathered, to be sent to another run of the same query.
#[derive(Debug, Serialize, Deserialize)]
pub struct MetricPartial(Vec<Vec<Collected>>);

/// A query for numbers while it runs.
#[derive(Debug)]
pub struct MetricRun {
    metric: Metric,
    params: MetricParams,
    instants: usize,
    leaves: Vec<Leaf>,
}

impl MetricRun {
    /// A run of `metric`.
    ///
    /// # Errors
    /// The step is no time, there would be too many instants, or a pattern of the query is too large.
    pub fn new(metric: &Metric, params: MetricParams) -> Result<Self> {
        let instants = match params.step_ns {
            None => 1,
            Some(step) if step <= 0 => return Err(Error::Data("the step must be above 0".to_owned())),
            Some(_) if params.end_ns < params.start_ns => {
                return Err(Error::Data("the end lies before the start".to_owned()));
            }
            Some(step) => {
                usize::try_from((params.end_ns - params.start_ns) / step).unwrap_or(usize::MAX).saturating_add(1)
            }
        };
        if instants > INSTANT_LIMIT {
            let message = format!("{instants} instants; at most {INSTANT_LIMIT}: narrow the range or widen the step");
            return Err(Error::Limit(message));
        }
        let mut run = Self { metric: metric.clone(), params, instants, leaves: Vec::new() };
        run.add_leaves(metric, None)?;
        Ok(run)
    }

    fn add_leaves(&mut self, metric: &Metric, injected: Option<Grouping>) -> Result<()> {
        match &metric.kind {
            MetricKind::Literal(_) | MetricKind::Vector(_) => {}
            MetricKind::Range(range) => {
                let first_ns = self.params.start_ns.saturating_sub(range.offset_ns);
                let step_ns = self.params.step_ns.unwrap_or(1);
                let windows = Windows::new(first_ns, step_ns, self.instants, range.range_ns);
                self.leaves.push(Leaf::new(range, windows, injected, self.params.now_ns)?);
            }
            MetricKind::Aggregation(aggregation) => {
                let injected = match &aggregation.of.kind {
                    MetricKind::Range(range) => injected_grouping(aggregation, range),
                    _ => None,
                };
                self.add_leaves(&aggregation.of, injected)?;
            }
            MetricKind::Binary(binary) => {
                self.add_leaves(&binary.left, None)?;
                self.add_leaves(&binary.right, None)?;
            }
            MetricKind::LabelReplace(replace) => self.add_leaves(&replace.of, None)?,
        }
        Ok(())
    }

    /// Which streams and times can matter.
    pub fn selections(&self) -> Vec<Selection> {
        self.leaves.iter().map(Leaf::selection).collect()
    }

    /// The labels and structured metadata that lines must carry for the answer to be right, beside those of the selectors' streams;
    /// `None` where any may matter.
    pub fn needed_labels(&self) -> Option<Vec<String>> {
        let mut all = Vec::new();
        for leaf in &self.leaves {
            let stages = &leaf.range.query.stages;
            // Whether there are lines does not depend on their labels.
            let nothing = Grouping { is_without: false, labels: Vec::new() };
            let is_absence = leaf.range.function == RangeFunction::AbsentOverTime;
            let grouping = if is_absence { Some(&nothing) } else { leaf.grouping.as_ref() };
            all.extend(required_before(stages, grouping)?);
            all.extend(leaf.range.query.matchers.iter().map(|matcher| matcher.name.clone()));
        }
        all.sort_unstable();
        all.dedup();
        Some(all)
    }

    /// Whether the text of lines matters for the answer; where it does not, lines may be empty.
    pub fn reads_lines(&self) -> bool {
        let reads = |stage: &StageKind| {
            use StageKind::{Decolorize, Drop, Keep, LabelFilter, Unwrap};
            !matches!(stage, LabelFilter(_) | Drop(_) | Keep(_) | Unwrap(_) | Decolorize)
        };
        self.leaves.iter().any(|leaf| {
            matches!(leaf.range.function, RangeFunction::BytesOverTime | RangeFunction::BytesRate)
                || leaf.range.query.stages.iter().any(|stage| reads(&stage.kind))
        })
    }

    /// Where the answer is how many lines a selector has, all together: the conditions of that selector.
    pub fn counts_lines_of(&self) -> Option<&[Matcher]> {
        let [leaf] = self.leaves.as_slice() else { return None };
        let is_count = matches!(leaf.range.function, RangeFunction::CountOverTime | RangeFunction::Rate)
            && leaf.range.query.stages.is_empty()
            && leaf.unwrapped.is_none();
        let is_one = leaf.grouping.as_ref().is_some_and(|grouping| !grouping.is_without && grouping.labels.is_empty());
        (is_count && is_one).then_some(&leaf.range.query.matchers)
    }

    /// Counts lines of a query that [`Self::counts_lines_of`] one selector, all of which meet it: so many, from a first time to a last.
    /// Whether they were taken: not where windows hold some of them and not others.
    ///
    /// # Errors
    /// There are too many series.
    pub fn count_lines(&mut self, (first_ns, last_ns): (i64, i64), lines: u64) -> Result<bool> {
        let Some(leaf) = self.leaves.first_mut() else { return Ok(false) };
        leaf.count_lines((first_ns, last_ns), lines)
    }

    /// Whether the answer follows from how many lines and bytes each stream has, with labels and metadata that all of its lines share.
    pub fn counts_by_stream(&self) -> bool {
        !self.leaves.is_empty() && self.leaves.iter().all(Leaf::counts_by_stream)
    }

    /// Counts lines of a query that [counts by stream](Self::counts_by_stream), from a first time to a last, of streams of the table.
    /// Whether they were taken: not where windows hold some of them and not others.
    ///
    /// # Errors
    /// A stream is marked with an error that the query does not handle, or there are too many series.
    pub fn count_streams(
        &mut self,
        table: &StreamTable,
        (first_ns, last_ns): (i64, i64),
        lines: &[StreamLines],
    ) -> Result<bool> {
        if self.leaves.iter().any(|leaf| leaf.windows.tell_apart(first_ns, last_ns)) {
            return Ok(false);
        }
        self.leaves.iter_mut().try_for_each(|leaf| leaf.count_streams(table, (first_ns, last_ns), lines))?;
        Ok(true)
    }

    /// The windows of the query, where the times of lines matter only to tell in which windows they lie.
    pub fn windows(&self) -> Option<InstantWindows> {
        use RangeFunction::{FirstOverTime, LastOverTime, RateCounter};
        let orders = |leaf: &Leaf| matches!(leaf.range.function, FirstOverTime | LastOverTime | RateCounter);
        let has_others = self.leaves.iter().any(|leaf| orders(leaf) || leaf.pipeline.runs_templates());
        (!has_others).then(|| InstantWindows(self.leaves.iter().map(|leaf| leaf.windows).collect()))
    }

    /// The lines that each selection's aggregation takes, in the order of [`Self::selections`].
    pub fn queries(&self) -> impl Iterator<Item = &LogQuery> {
        self.leaves.iter().map(|leaf| &leaf.range.query)
    }

    /// Takes lines, in any order.
    ///
    /// # Errors
    /// A line is marked with an error that the query does not handle, or there are too many series.
    pub fn push(&mut self, batch: &LogBatch) -> Result<()> {
        self.leaves.iter_mut().try_for_each(|leaf| leaf.push(batch))
    }

    /// What was gathered so far; the run is empty afterwards.
    pub fn take_partial(&mut self) -> MetricPartial {
        MetricPartial(self.leaves.iter_mut().map(Leaf::take).collect())
    }

    /// Adds what another run of the same query has gathered.
    ///
    /// # Errors
    /// It is of another query, or there are too many series.
    pub fn absorb(&mut self, partial: MetricPartial) -> Result<()> {
        if partial.0.len() != self.leaves.len() {
            return Err(Error::Data("a partial answer of another query".to_owned()));
        }
        self.leaves.iter_mut().zip(partial.0).try_for_each(|(leaf, collected)| leaf.absorb(collected))
    }

    /// The answer.
    ///
    /// # Errors
    /// Series match series where only one may.
    pub fn finish(mut self) -> Result<MetricAnswer> {
        let mut leaves = Vec::new();
        for leaf in &mut self.leaves {
            leaves.push(leaf.series());
        }
        let mut leaves = leaves.into_iter();
        let value = vector::evaluate(&self.metric, self.instants, &mut leaves)?;
        let step_ns = self.params.step_ns.unwrap_or(0);
        let times_ns = (0..self.instants as i64).map(|index| self.params.start_ns + index * step_ns).collect();
        Ok(MetricAnswer::new(value, times_ns, self.params.step_ns.is_none(), &self.metric))
    }
}

/// The windows of all range aggregations of a query.
#[derive(Debug, Clone)]
pub struct InstantWindows(Vec<Windows>);

impl InstantWindows {
    /// Whether some window holds a time between two, in nanoseconds, and not another; or one at all.
    pub fn tell_apart(&self, first_ns: i64, last_ns: i64) -> bool {
        self.0.iter().any(|windows| windows.tell_apart(first_ns, last_ns))
    }
}
