//! Queries for lines: newest or oldest first, up to a limit.

use std::collections::HashMap;

use serde_json::{Value, json};
use tidemill_lang::logql::ast::LogQuery;

use super::batch::LogBatch;
use super::labels::{LabelSet, Origin};
use super::pipeline::{Pipeline, Row};
use super::selector::{Selection, StreamTests};
use crate::error::{Error, Result};

/// In which order lines are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Oldest first.
    Forward,
    /// Newest first.
    Backward,
}

/// What is asked beside the query.
#[derive(Debug, Clone, Copy)]
pub struct LogParams {
    /// The first nanosecond.
    pub start_ns: i64,
    /// The nanosecond behind the last.
    pub end_ns: i64,
    /// At most so many lines; 0 for as many as there are.
    pub limit: usize,
    /// In which order.
    pub direction: Direction,
    /// The least time between two lines of the answer, in nanoseconds.
    pub interval_ns: i64,
    /// The time of the query, for templates that ask.
    pub now_ns: i64,
}

/// Whether more lines can matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// They can.
    More,
    /// The limit is reached.
    Enough,
}

/// Lines with the same labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// The labels behind the pipeline.
    pub labels: LabelSet,
    /// The lines, in the order that was asked.
    pub entries: Vec<Entry>,
}

/// A line of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Nanoseconds since 1970.
    pub time_ns: i64,
    /// The line behind the pipeline.
    pub line: String,
    /// Those of its labels that are structured metadata.
    pub metadata: LabelSet,
    /// Those that a parser or formatter made.
    pub parsed: LabelSet,
}

/// The most bytes that the lines of an answer have, with their labels.
const ANSWER_LIMIT_BYTES: usize = 128 << 20;

/// A query for lines while it runs.
#[derive(Debug)]
pub struct LogRun {
    pipeline: Pipeline,
    tests: StreamTests,
    selection: Selection,
    params: LogParams,
    streams: Vec<Stream>,
    by_labels: HashMap<LabelSet, usize>,
    lines: usize,
    bytes: usize,
    last_time_ns: Option<i64>,
    last_kept_ns: Option<i64>,
}

impl LogRun {
    /// A run of `query`.
    ///
    /// # Errors
    /// A pattern of the query is too large.
    pub fn new(query: &LogQuery, params: LogParams) -> Result<Self> {
        Ok(Self {
            pipeline: Pipeline::new(query, None, params.now_ns)?,
            tests: StreamTests::new(&query.matchers)?,
            selection: Selection { matchers: query.matchers.clone(), start_ns: params.start_ns, end_ns: params.end_ns },
            params,
            streams: Vec::new(),
            by_labels: HashMap::new(),
            lines: 0,
            bytes: 0,
            last_time_ns: None,
            last_kept_ns: None,
        })
    }

    /// Which streams and times can matter.
    pub fn selections(&self) -> &[Selection] {
        std::slice::from_ref(&self.selection)
    }

    /// Takes lines, which come in the order that was asked, also from batch to batch.
    ///
    /// # Errors
    /// Lines come in another order, or have too many bytes together.
    pub fn push(&mut self, batch: &LogBatch) -> Result<Progress> {
        self.tests.learn(&batch.streams);
        let mut row = Row::default();
        for index in 0..batch.rows() {
            if self.is_full() {
                return Ok(Progress::Enough);
            }
            let time_ns = batch.time.value(index);
            let is_ordered = match (self.last_time_ns, self.params.direction) {
                (None, _) => true,
                (Some(last), Direction::Forward) => last <= time_ns,
                (Some(last), Direction::Backward) => last >= time_ns,
            };
            if !is_ordered {
                return Err(Error::Data("log lines came out of order".to_owned()));
            }
            self.last_time_ns = Some(time_ns);
            let is_inside = (self.params.start_ns..self.params.end_ns).contains(&time_ns);
            if !is_inside || !self.tests.meets(batch.stream.value(index)) {
                continue;
            }
            row.load(batch, index);
            if self.pipeline.run(&mut row) && self.is_spaced(time_ns) {
                self.keep(&row)?;
            }
        }
        Ok(if self.is_full() { Progress::Enough } else { Progress::More })
    }

    fn is_full(&self) -> bool {
        self.params.limit > 0 && self.lines >= self.params.limit
    }

    fn is_spaced(&self, time_ns: i64) -> bool {
        match self.last_kept_ns {
            Some(last) if self.params.interval_ns > 0 => {
                time_ns.abs_diff(last) >= self.params.interval_ns.unsigned_abs()
            }
            _ => true,
        }
    }

    fn keep(&mut self, row: &Row<'_>) -> Result<()> {
        self.lines += 1;
        let of_labels: usize = row.labels.iter().map(|label| label.name.len() + label.value.len()).sum();
        self.bytes += row.line.len() + of_labels;
        if self.bytes > ANSWER_LIMIT_BYTES {
            let message = format!("{} lines have more than {ANSWER_LIMIT_BYTES} bytes: ask for fewer", self.lines);
            return Err(Error::Limit(message));
        }
        self.last_kept_ns = Some(row.time_ns);
        let of = |origin: Origin| {
            let labels = row.labels.iter().filter(|label| label.origin == origin);
            LabelSet::of(labels.map(|label| (&*label.name, &*label.value)))
        };
        let mut parsed = of(Origin::Parsed);
        for (name, value) in row.labels.error_labels() {
            parsed.set(name.to_owned(), value.to_owned());
        }
        let entry =
            Entry { time_ns: row.time_ns, line: row.line.clone().into_owned(), metadata: of(Origin::Metadata), parsed };
        let labels = row.labels.to_set();
        let streams = &mut self.streams;
        let at = *self.by_labels.entry(labels).or_insert_with_key(|labels| {
            streams.push(Stream { labels: labels.clone(), entries: Vec::new() });
            streams.len() - 1
        });
        self.streams[at].entries.push(entry);
        Ok(())
    }

    /// The answer: streams in order of their labels.
    pub fn finish(self) -> Vec<Stream> {
        let mut streams = self.streams;
        streams.sort_by(|left, right| left.labels.cmp(&right.labels));
        streams
    }
}

impl Stream {
    /// As Loki's API has it; with `categorizes_labels` every line tells which of its labels are metadata and which were parsed.
    pub fn to_json(&self, categorizes_labels: bool) -> Value {
        let values: Vec<Value> = self
            .entries
            .iter()
            .map(|entry| {
                let mut value = vec![json!(entry.time_ns.to_string()), json!(entry.line)];
                if categorizes_labels {
                    let mut categories = serde_json::Map::new();
                    for (name, labels) in [("structuredMetadata", &entry.metadata), ("parsed", &entry.parsed)] {
                        if !labels.is_empty() {
                            categories.insert(name.to_owned(), labels.to_json());
                        }
                    }
                    value.push(Value::Object(categories));
                }
                Value::Array(value)
            })
            .collect();
        json!({ "stream": self.labels.to_json(), "values": values })
    }
}

impl LabelSet {
    /// As an object of texts.
    pub fn to_json(&self) -> Value {
        Value::Object(self.iter().map(|(name, value)| (name.to_owned(), json!(value))).collect())
    }
}
