//! One range aggregation: which lines it takes, and into which series.

use ahash::AHashMap;
use tidemill_lang::logql::ast::{Grouping, MatchOperator, RangeAggregation, RangeFunction, StageKind};

use super::batch::LogBatch;
use super::collect::{Collected, Samples, Windows};
use super::labels::{ERROR, ERROR_DETAILS, LabelSet, RowLabels};
use super::pipeline::{Pipeline, Row};
use super::selector::{Selection, StreamLines, StreamTable, StreamTests};
use super::vector::Series;
use crate::error::{Error, Result};

/// The most series that one range aggregation gathers.
const SERIES_LIMIT: usize = 500_000;
/// The most bytes that their labels have.
const LABELS_LIMIT_BYTES: usize = 128 << 20;

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
pub(super) struct Leaf {
    pub(super) range: RangeAggregation,
    pub(super) windows: Windows,
    pub(super) grouping: Option<Grouping>,
    pub(super) pipeline: Pipeline,
    tests: StreamTests,
    pub(super) unwrapped: Option<String>,
    /// Whether lines that are marked count like others.
    keeps_errors: bool,
    by_key: AHashMap<Box<[u8]>, usize>,
    collected: Vec<Collected>,
    /// What becomes of the lines of each stream, where that depends on the stream alone.
    by_stream: Vec<Option<Fate>>,
    key: Vec<u8>,
    /// Of all series so far.
    label_bytes: usize,
}

impl Leaf {
    pub(super) fn new(
        range: &RangeAggregation,
        windows: Windows,
        injected: Option<Grouping>,
        now_ns: i64,
    ) -> Result<Self> {
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
            label_bytes: 0,
        })
    }

    pub(super) fn selection(&self) -> Selection {
        let (start_ns, end_ns) = (self.windows.start_ns(), self.windows.end_ns());
        Selection { matchers: self.range.query.matchers.clone(), start_ns, end_ns }
    }

    pub(super) fn push(&mut self, batch: &LogBatch) -> Result<()> {
        self.learn(&batch.streams);
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
                if let Fate::Series(series) = self.fate(stream, &mut row, |row| row.load(batch, index))? {
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

    /// What becomes of the lines of a stream, for which `load` gives a row.
    fn fate<'b>(&mut self, stream: u32, row: &mut Row<'b>, load: impl FnOnce(&mut Row<'b>)) -> Result<Fate> {
        if let Some(fate) = self.by_stream[stream as usize] {
            return Ok(fate);
        }
        load(row);
        let stays = self.pipeline.run_on_labels(row);
        let fate = if stays { Fate::Series(self.checked_series_of(row)?) } else { Fate::Dropped };
        self.by_stream[stream as usize] = Some(fate);
        Ok(fate)
    }

    /// As [`MetricRun::count_lines`](super::MetricRun::count_lines).
    pub(super) fn count_lines(&mut self, (first_ns, last_ns): (i64, i64), lines: u64) -> Result<bool> {
        if self.windows.tell_apart(first_ns, last_ns) {
            return Ok(false);
        }
        let series = self.series_of(&Row::default())?;
        self.collected[series].1.add_alike(&self.windows, (first_ns, last_ns), lines, lines as f64);
        Ok(true)
    }

    /// Whether it asks only how many lines or bytes there are, of which each stream's have one fate.
    pub(super) fn counts_by_stream(&self) -> bool {
        use RangeFunction::{AbsentOverTime, BytesOverTime, BytesRate, CountOverTime, Rate};
        matches!(self.range.function, CountOverTime | Rate | BytesOverTime | BytesRate | AbsentOverTime)
            && self.unwrapped.is_none()
            && self.pipeline.goes_by_labels()
            && !self.pipeline.filters_lines()
    }

    /// As [`MetricRun::count_streams`](super::MetricRun::count_streams), of windows that hold all of the time or nothing.
    pub(super) fn count_streams(&mut self, table: &StreamTable, times: (i64, i64), all: &[StreamLines]) -> Result<()> {
        use RangeFunction::{BytesOverTime, BytesRate};
        self.learn(table);
        let counts_bytes = matches!(self.range.function, BytesOverTime | BytesRate);
        let mut row = Row::default();
        for own in all.iter().filter(|own| own.lines > 0 && (own.stream as usize) < table.len()) {
            if !self.tests.meets(own.stream) {
                continue;
            }
            let labels = &table[own.stream as usize];
            if let Fate::Series(series) = self.fate(own.stream, &mut row, |row| row.load_stream(labels))? {
                let sum = if counts_bytes { own.bytes } else { own.lines };
                self.collected[series].1.add_alike(&self.windows, times, own.lines, sum as f64);
            }
        }
        Ok(())
    }

    fn learn(&mut self, table: &StreamTable) {
        if self.tests.learn(table) {
            self.by_stream = vec![None; table.len()];
        }
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
        self.label_bytes += self.key.len();
        if self.label_bytes > LABELS_LIMIT_BYTES {
            let message = format!(
                "the labels of series have more than {LABELS_LIMIT_BYTES} bytes: group by fewer or shorter ones"
            );
            return Err(Error::Limit(message));
        }
        let series = self.collected.len();
        self.by_key.insert(self.key.clone().into_boxed_slice(), series);
        self.collected.push((labels, samples));
        Ok(series)
    }

    pub(super) fn take(&mut self) -> Vec<Collected> {
        self.by_key.clear();
        self.label_bytes = 0;
        self.by_stream.fill(None);
        std::mem::take(&mut self.collected)
    }

    pub(super) fn absorb(&mut self, collected: Vec<Collected>) -> Result<()> {
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

    pub(super) fn series(&mut self) -> Vec<Series> {
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
