//! TraceQL over batches of spans: a query for traces ([`SearchRun`]) or for numbers over time ([`MetricsRun`]).
//!
//! Both are given batches that hold whole traces and tell their answer at the end. They read nothing themselves. Start with [`SpanBatch`]
//! for the input, [`condition`] for what holds for one span, [`spanset`] for what holds in a trace.

mod aggregate;
mod attributes;
mod batch;
mod compare;
mod condition;
mod metrics;
mod search;
mod series;
mod spanset;
mod structure;
mod tags;
mod value;

pub use attributes::AttributeScope;
pub use batch::{AttributeColumn, SpanBatch};
pub use metrics::{MetricsAnswer, MetricsParams, MetricsPartial, MetricsRun};
pub use search::{SearchParams, SearchRun, SpanAnswer, SpansetAnswer, TraceAnswer};
pub use series::{Exemplar, LabelValue, MetricsSeries};
pub use tags::{TagNamesRun, TagValuesRun};
pub use value::Value;
