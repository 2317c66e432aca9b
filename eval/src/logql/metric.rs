//! Queries for numbers: what each range aggregation gathers, and what the query makes of it.

use std::sync::Arc;

use ahash::AHashMap;
use serde::{Deserialize, Serialize};
use tidemill_lang::logql::ast::{
    Grouping, LogQuery, MatchOperator, Matcher, Metric, MetricKind, RangeAggregation, RangeFunction, StageKind,
};

use super::batch::{LogBatch, StreamLabels};
use super::collect::{Collected, Samples, Windows};
use super::filter::TextTest;
use super::labels::{ERROR, ERROR_DETAILS, LabelSet, RowLabels};
use super::log::StreamTable;
use super::pipeline::{Pipeline, Row};
use super::required::{injected_grouping, required_before};
use super::vector::{self, MetricAnswer, Series};
use crate::error::{Error, Result};

/// The most instants of one answer.
const INSTANT_LIMIT: usize = 11_000;
/// The most series that one range aggregation gathers.
const SERIES_LIMIT: usize = 500_000;

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

/// Lines that a query can use.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// What their stream must meet.
    pub matchers: Vec<Matcher>,
    /// Their first nanosecond.
    pub start_ns: i64,
    /// The nanosecond behind their last.
    pub end_ns: i64,
}

/// What a run has gathered, to be sent to another run of the same query.
#[derive(Debug, Serialize, Deserialize)]
pub struct MetricPartial(Vec<Vec<(LabelSet, Samples)>>);

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
            all.extend(required_before(stages, leaf.grouping.as_ref())?);
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
        if !leaf.windows.hold_together(first_ns, last_ns) {
            return Ok(false);
        }
        let series = leaf.series_of(&Row::default())?;
        leaf.collected[series].1.add_ones(&leaf.windows, (first_ns, last_ns), lines);
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
        self.0.iter().any(|windows| !windows.hold_together(first_ns, last_ns))
    }
}

/// The conditions of a selector, for one stream at a time.
#[derive(Debug)]
pub struct StreamSelector(StreamTests);

impl StreamSelector {
    /// The selector of `matchers`.
    ///
    /// # Errors
    /// A pattern is too large.
    pub fn new(matchers: &[Matcher]) -> Result<Self> {
        StreamTests::new(matchers).map(Self)
    }

    /// Whether a stream meets all conditions.
    pub fn meets(&self, stream: &StreamLabels) -> bool {
        self.0.tests.iter().all(|(name, test)| test.meets(stream.get(name)))
    }
}

/// The conditions of a selector, and which streams of the last table meet them.
#[derive(Debug)]
pub(super) struct StreamTests {
    tests: Vec<(String, TextTest)>,
    table: Option<StreamTable>,
    met: Vec<bool>,
}

impl StreamTests {
    pub fn new(matchers: &[Matcher]) -> Result<Self> {
        let tests = matchers.iter().map(|matcher| Ok((matcher.name.clone(), TextTest::new(matcher)?)));
        Ok(Self { tests: tests.collect::<Result<_>>()?, table: None, met: Vec::new() })
    }

    /// Looks at a batch's streams; whether they are others than before.
    pub fn learn(&mut self, table: &StreamTable) -> bool {
        if self.table.as_ref().is_some_and(|own| Arc::ptr_eq(own, table)) {
            return false;
        }
        self.met =
            table.iter().map(|stream| self.tests.iter().all(|(name, test)| test.meets(stream.get(name)))).collect();
        self.table = Some(Arc::clone(table));
        true
    }

    pub fn meets(&self, stream: u32) -> bool {
        self.met.get(stream as usize).copied().unwrap_or(false)
    }
}

/// What becomes of a line that the line filters keep.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It is not counted.
    Dropped,
    /// It counts in this series.
    Series(usize),
}

/// One range aggregation.
#[derive(Debug)]
struct Leaf {
    range: RangeAggregation,
    windows: Windows,
    grouping: Option<Grouping>,
    pipeline: Pipeline,
    tests: StreamTests,
    unwrapped: Option<String>,
    /// Whether lines that are marked count like others.
    keeps_errors: bool,
    by_key: AHashMap<Box<[u8]>, usize>,
    collected: Vec<Collected>,
    /// What becomes of the lines of each stream, where that depends on the stream alone.
    by_stream: Vec<Option<Fate>>,
    key: Vec<u8>,
}

impl Leaf {
    fn new(range: &RangeAggregation, windows: Windows, injected: Option<Grouping>, now_ns: i64) -> Result<Self> {
        let grouping = range.grouping.clone().or(injected).map(|mut grouping| {
            grouping.labels.sort_unstable();
            grouping.labels.dedup();
            grouping
        });
        let unwrapped = range.query.stages.iter().find_map(|stage| match &stage.kind {
            StageKind::Unwrap(unwrap) => Some(unwrap.label.clone()),
            _ => None,
        });
        let groups_errors =
            grouping.as_ref().is_some_and(|own| !own.is_without && own.labels.iter().any(|label| label == ERROR));
        Ok(Self {
            pipeline: Pipeline::new(&range.query, grouping.as_ref(), now_ns)?,
            tests: StreamTests::new(&range.query.matchers)?,
            keeps_errors: groups_errors || range.function == RangeFunction::AbsentOverTime,
            range: range.clone(),
            windows,
            grouping,
            unwrapped,
            by_key: AHashMap::new(),
            collected: Vec::new(),
            by_stream: Vec::new(),
            key: Vec::new(),
        })
    }

    fn selection(&self) -> Selection {
        let (start_ns, end_ns) = (self.windows.start_ns(), self.windows.end_ns());
        Selection { matchers: self.range.query.matchers.clone(), start_ns, end_ns }
    }

    fn push(&mut self, batch: &LogBatch) -> Result<()> {
        if self.tests.learn(&batch.streams) {
            self.by_stream = vec![None; batch.streams.len()];
        }
        let has_no_others = self.grouping.as_ref().is_some_and(|grouping| {
            !grouping.is_without && !batch.metadata.iter().any(|(name, _)| grouping.labels.contains(name))
        });
        let depends_on_stream = (batch.metadata.is_empty() && self.pipeline.goes_by_labels())
            || (has_no_others && self.pipeline.only_filters_lines());
        let mut row = Row::default();
        for index in 0..batch.rows() {
            let time_ns = batch.time.value(index);
            let stream = batch.stream.value(index);
            if !self.tests.meets(stream) || !self.windows.hold(time_ns) {
                continue;
            }
            if depends_on_stream {
                let line = batch.line.value(index);
                if !self.pipeline.keeps_line(line) {
                    continue;
                }
                let fate = match self.by_stream[stream as usize] {
                    Some(fate) => fate,
                    None => {
                        row.load(batch, index);
                        let stays = self.pipeline.run_on_labels(&mut row);
                        let fate = if stays { Fate::Series(self.checked_series_of(&row)?) } else { Fate::Dropped };
                        self.by_stream[stream as usize] = Some(fate);
                        fate
                    }
                };
                if let Fate::Series(series) = fate {
                    let value = self.plain_value(line.len());
                    self.collected[series].1.add(&self.windows, time_ns, value);
                }
                continue;
            }
            row.load(batch, index);
            if !self.pipeline.run(&mut row) {
                continue;
            }
            let series = self.checked_series_of(&row)?;
            let value = if self.unwrapped.is_some() { row.value } else { self.plain_value(row.line.len()) };
            self.collected[series].1.add(&self.windows, time_ns, value);
        }
        Ok(())
    }

    /// The series of a line that stays.
    fn checked_series_of(&mut self, row: &Row<'_>) -> Result<usize> {
        if let Some(error) = row.labels.error().filter(|_| !self.keeps_errors) {
            let details = row.labels.get(ERROR_DETAILS).unwrap_or_default();
            let message = format!(
                "pipeline error {error:?} ({details}) for series {}; a label filter such as | {ERROR}=\"\" skips such lines",
                display(&row.labels.to_set())
            );
            return Err(Error::Data(message));
        }
        self.series_of(row)
    }

    fn plain_value(&self, bytes: usize) -> f64 {
        match self.range.function {
            RangeFunction::BytesOverTime | RangeFunction::BytesRate => bytes as f64,
            _ => 1.0,
        }
    }

    /// The series of a line.
    fn series_of(&mut self, row: &Row<'_>) -> Result<usize> {
        self.key.clear();
        if self.range.function != RangeFunction::AbsentOverTime {
            write_key(&row.labels, self.grouping.as_ref(), self.unwrapped.as_deref(), &mut self.key);
        }
        if let Some(series) = self.by_key.get(self.key.as_slice()) {
            return Ok(*series);
        }
        self.add_series(read_key(&self.key), Samples::new(self.range.function))
    }

    fn add_series(&mut self, labels: LabelSet, samples: Samples) -> Result<usize> {
        if self.collected.len() == SERIES_LIMIT {
            let message = format!("more than {SERIES_LIMIT} series: narrow the selector or group by fewer labels");
            return Err(Error::Limit(message));
        }
        let series = self.collected.len();
        self.by_key.insert(self.key.clone().into_boxed_slice(), series);
        self.collected.push((labels, samples));
        Ok(series)
    }

    fn take(&mut self) -> Vec<Collected> {
        self.by_key.clear();
        self.by_stream.fill(None);
        std::mem::take(&mut self.collected)
    }

    fn absorb(&mut self, collected: Vec<Collected>) -> Result<()> {
        for (labels, samples) in collected {
            self.key.clear();
            for (name, value) in labels.iter() {
                write_pair(&mut self.key, name, value);
            }
            match self.by_key.get(self.key.as_slice()) {
                Some(series) => self.collected[*series].1.merge(samples),
                None => drop(self.add_series(labels, samples)?),
            }
        }
        Ok(())
    }

    fn series(&mut self) -> Vec<Series> {
        let function = self.range.function;
        let parameter = self.range.parameter.unwrap_or(f64::NAN);
        let collected = self.take();
        let mut series: Vec<Series> = collected
            .into_iter()
            .map(|(labels, samples)| Series { labels, values: samples.values(&self.windows, function, parameter) })
            .collect();
        if function == RangeFunction::AbsentOverTime {
            return vec![self.absent(series.first(), self.windows_count())];
        }
        series.sort_by(|left, right| left.labels.cmp(&right.labels));
        series
    }

    fn windows_count(&self) -> usize {
        self.windows.count()
    }

    /// 1 where no window has a line; the labels are those that the selector gives one value.
    fn absent(&self, present: Option<&Series>, count: usize) -> Series {
        let mut labels = LabelSet::default();
        let matchers = &self.range.query.matchers;
        for matcher in matchers.iter().filter(|matcher| matcher.operator == MatchOperator::Equal) {
            if matchers.iter().filter(|other| other.name == matcher.name).count() == 1 && !matcher.value.is_empty() {
                labels.set(matcher.name.clone(), matcher.value.clone());
            }
        }
        let is_present = |index: usize| present.is_some_and(|series| series.values[index].is_some());
        Series { labels, values: (0..count).map(|index| (!is_present(index)).then_some(1.0)).collect() }
    }
}

fn display(labels: &LabelSet) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// Writes the labels of a line's series, sorted by name.
fn write_key(labels: &RowLabels<'_>, grouping: Option<&Grouping>, unwrapped: Option<&str>, key: &mut Vec<u8>) {
    if let Some(grouping) = grouping.filter(|grouping| !grouping.is_without) {
        for name in &grouping.labels {
            if let Some(value) = labels.get(name) {
                write_pair(key, name, value);
            }
        }
        return;
    }
    let gone = |name: &str| {
        Some(name) == unwrapped || grouping.is_some_and(|grouping| grouping.labels.iter().any(|own| own == name))
    };
    let mut pairs: Vec<(&str, &str)> = labels
        .iter()
        .map(|label| (&*label.name, &*label.value))
        .chain(labels.error_labels())
        .filter(|(name, _)| !gone(name))
        .collect();
    pairs.sort_unstable();
    for (name, value) in pairs {
        write_pair(key, name, value);
    }
}

fn write_pair(key: &mut Vec<u8>, name: &str, value: &str) {
    for text in [name, value] {
        key.extend_from_slice(&(text.len() as u32).to_le_bytes());
        key.extend_from_slice(text.as_bytes());
    }
}

fn read_key(key: &[u8]) -> LabelSet {
    let mut texts = Vec::new();
    let mut rest = key;
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        texts.push(String::from_utf8_lossy(&behind[..length]).into_owned());
        rest = &behind[length..];
    }
    LabelSet::of(texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())))
}
