//! Queries for traces.

mod mentions;

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use tidemill_lang::traceql::ast::{Query, QueryKind, Status};

use super::attributes::{Attributes, Wanted, hex_text};
use super::batch::SpanBatch;
use super::condition::View;
use super::spanset::Stages;
use super::structure::Trace;
use super::value::Value;
use crate::error::{Error, Result};
use mentions::Mentions;

/// What is asked beside the query.
#[derive(Debug, Clone, Copy)]
pub struct SearchParams {
    /// Traces that end before this nanosecond are not asked for.
    pub start_ns: i64,
    /// Nor those that start behind this one.
    pub end_ns: i64,
    /// At most so many traces, the newest.
    pub limit: usize,
    /// At most so many spans of each spanset; 0 for all.
    pub spans_per_spanset: usize,
}

/// A trace of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceAnswer {
    /// Its id, 16 bytes.
    pub trace_id: Vec<u8>,
    /// The root's service, or what stands for a root that has not come.
    pub root_service: String,
    /// The root's name.
    pub root_name: Option<String>,
    /// The start of its first span, in nanoseconds since 1970.
    pub start_ns: i64,
    /// From there to the end of the last span to end.
    pub duration_ns: i64,
    /// What matched.
    pub spansets: Vec<SpansetAnswer>,
    /// For each service, how many spans of the trace it has, and how many with an error.
    pub services: BTreeMap<String, (u64, u64)>,
}

/// Spans that matched together.
#[derive(Debug, Clone, PartialEq)]
pub struct SpansetAnswer {
    /// The spans, or the first of them.
    pub spans: Vec<SpanAnswer>,
    /// How many matched.
    pub matched: usize,
    /// What the query found out about them together.
    pub attributes: Vec<(String, Value)>,
}

/// A span of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanAnswer {
    /// Its id, 8 bytes.
    pub span_id: Vec<u8>,
    /// Its name, where the query mentions names.
    pub name: Option<String>,
    /// Nanoseconds since 1970.
    pub start_ns: i64,
    /// In nanoseconds.
    pub duration_ns: i64,
    /// What the query mentions of it, by name.
    pub attributes: Vec<(String, Value)>,
}

/// A query for traces while it runs.
#[derive(Debug)]
pub struct SearchRun {
    stages: Stages,
    wanted: Wanted,
    mentions: Mentions,
    params: SearchParams,
    /// By start and id; the newest are kept.
    traces: BTreeMap<(i64, Vec<u8>), TraceAnswer>,
}

impl SearchRun {
    /// A run of `query`.
    ///
    /// # Errors
    /// The query asks for numbers, or a pattern of it is too large.
    pub fn new(query: &Query, params: SearchParams) -> Result<Self> {
        let QueryKind::Search(pipeline) = &query.kind else {
            return Err(Error::Data("a metrics query is no search".to_owned()));
        };
        let mentions = Mentions::of(pipeline);
        let mut wanted = Wanted::default();
        mentions.attributes().for_each(|attribute| wanted.add(attribute));
        wanted.add_root();
        Ok(Self { stages: Stages::new(pipeline)?, wanted, mentions, params, traces: BTreeMap::new() })
    }

    /// Takes spans; every trace of the batch must be there as a whole.
    ///
    /// # Errors
    /// The attributes of a span cannot be read.
    pub fn push(&mut self, batch: &SpanBatch) -> Result<()> {
        let attributes = Attributes::decode(batch, &self.wanted)?;
        for rows in batch.traces() {
            let trace = Trace::new(batch, &attributes, rows);
            let is_inside = trace.end_ns >= self.params.start_ns && trace.start_ns <= self.params.end_ns;
            let is_wanted = self.traces.len() < self.params.limit
                || self.traces.first_key_value().is_some_and(|((oldest, _), _)| *oldest < trace.start_ns);
            if !is_inside || !is_wanted || self.params.limit == 0 {
                continue;
            }
            let spansets = self.stages.run(&trace);
            if spansets.is_empty() {
                continue;
            }
            let answer = self.answer(&trace, spansets);
            self.traces.insert((answer.start_ns, answer.trace_id.clone()), answer);
            if self.traces.len() > self.params.limit {
                self.traces.pop_first();
            }
        }
        Ok(())
    }

    /// Whether traces that start at `start_ns` or before can no longer become part of the answer.
    pub fn is_settled(&self, start_ns: i64) -> bool {
        let oldest = self.traces.first_key_value().map(|((oldest, _), _)| *oldest);
        self.params.limit == 0 || (self.traces.len() >= self.params.limit && oldest.is_some_and(|it| it >= start_ns))
    }

    /// The answer, newest first.
    pub fn finish(self) -> Vec<TraceAnswer> {
        self.traces.into_values().rev().collect()
    }

    fn answer(&self, trace: &Trace<'_>, spansets: Vec<super::spanset::Spanset>) -> TraceAnswer {
        let mut services: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for (span, row) in trace.rows.iter().enumerate() {
            let counts = services.entry(trace.service(span).to_owned()).or_default();
            counts.0 += 1;
            counts.1 += u64::from(trace.batch.status.value(*row) == Status::Error.name());
        }
        let spansets = spansets.into_iter().map(|own| {
            let limit =
                if self.params.spans_per_spanset == 0 { own.spans.len() } else { self.params.spans_per_spanset };
            SpansetAnswer {
                matched: own.spans.len(),
                spans: own.spans.iter().take(limit).map(|view| self.span(trace, *view)).collect(),
                attributes: own.attributes,
            }
        });
        TraceAnswer {
            trace_id: trace.batch.trace_id.value(trace.rows[0]).to_vec(),
            root_service: trace.root_service().to_owned(),
            root_name: trace.root_name().map(str::to_owned),
            start_ns: trace.start_ns,
            duration_ns: trace.end_ns - trace.start_ns,
            spansets: spansets.collect(),
            services,
        }
    }

    fn span(&self, trace: &Trace<'_>, view: View) -> SpanAnswer {
        let row = trace.rows[view.span];
        let batch = trace.batch;
        SpanAnswer {
            span_id: batch.span_id.value(row).to_vec(),
            name: self.mentions.shows_name(trace, view).then(|| batch.name.value(row).to_owned()),
            start_ns: batch.start_ns(row),
            duration_ns: batch.duration_ns(row),
            attributes: self.mentions.shown(trace, view),
        }
    }
}

impl TraceAnswer {
    /// As Tempo's API has it.
    pub fn to_json(&self) -> Json {
        let id = hex_text(&self.trace_id);
        let mut trace = json!({
            "traceID": id.trim_start_matches('0'),
            "rootServiceName": self.root_service,
            "startTimeUnixNano": self.start_ns.to_string(),
            "spanSets": self.spansets.iter().map(SpansetAnswer::to_json).collect::<Vec<_>>(),
        });
        if let Some(name) = &self.root_name {
            trace["rootTraceName"] = json!(name);
        }
        if self.duration_ns >= 1_000_000 {
            trace["durationMs"] = json!(self.duration_ns / 1_000_000);
        }
        let services = self.services.iter().map(|(service, (spans, errors))| {
            let mut stats = json!({ "spanCount": spans });
            if *errors > 0 {
                stats["errorCount"] = json!(errors);
            }
            (service.clone(), stats)
        });
        trace["serviceStats"] = Json::Object(services.collect());
        trace
    }
}

impl SpansetAnswer {
    fn to_json(&self) -> Json {
        let spans: Vec<Json> = self.spans.iter().map(SpanAnswer::to_json).collect();
        let mut spanset = json!({ "spans": spans, "matched": self.matched });
        if !self.attributes.is_empty() {
            spanset["attributes"] = attributes_json(&self.attributes);
        }
        spanset
    }
}

impl SpanAnswer {
    fn to_json(&self) -> Json {
        let mut span = json!({
            "spanID": hex_text(&self.span_id),
            "startTimeUnixNano": self.start_ns.to_string(),
        });
        if self.duration_ns != 0 {
            span["durationNanos"] = json!(self.duration_ns.to_string());
        }
        if let Some(name) = &self.name {
            span["name"] = json!(name);
        }
        if !self.attributes.is_empty() {
            span["attributes"] = attributes_json(&self.attributes);
        }
        span
    }
}

fn attributes_json(attributes: &[(String, Value)]) -> Json {
    attributes.iter().map(|(key, value)| json!({ "key": key, "value": value.to_json() })).collect()
}
