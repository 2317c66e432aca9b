//! LogQL over batches of log lines: a query for lines ([`LogRun`]) or for numbers ([`MetricRun`]).
//!
//! Both are given batches until they have enough, and then tell their answer. They read nothing themselves: whoever has the lines
//! feeds them, and learns from [`LogRun::selections`] or [`MetricRun::selections`] which streams and times can matter. Start with
//! [`LogBatch`] for the input, [`pipeline`] for what happens to a line, [`metric`] for numbers.

mod batch;
mod bytes_text;
mod collect;
mod filter;
mod labels;
mod leaf;
mod log;
mod metric;
mod parsers;
mod pipeline;
mod required;
mod selector;
mod template;
mod vector;

pub use batch::{LINE_COLUMN, LogBatch, STREAM_COLUMN, StreamLabels, TIME_COLUMN};
pub use labels::LabelSet;
pub use log::{Direction, Entry, LogParams, LogRun, Progress, Stream};
pub use metric::{InstantWindows, MetricParams, MetricPartial, MetricRun};
pub use selector::{Selection, StreamLines, StreamSelector};
pub use vector::{MetricAnswer, Series};
