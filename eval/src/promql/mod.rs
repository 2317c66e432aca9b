//! PromQL over series in memory.
//!
//! [`Engine`] takes a query, a time and a [`Source`] and gives a [`Value`] with [`Annotations`]. Every expression becomes rows on the
//! query's grid of steps ([`Row`], columns of values); what looks at one series only runs per series, aggregations run as partials
//! that can be merged ([`partial`]). Names are removed at the end of the evaluation, as with Prometheus's `promql-delayed-name-removal`.

mod aggregate;
mod annotation;
mod binary;
mod engine;
mod evaluator;
mod exact_sum;
mod functions;
mod grid;
mod histogram;
mod info;
pub mod json;
mod label_functions;
mod memory;
mod natural;
pub mod partial;
mod prepare;
mod quantile;
mod range_call;
mod row;
pub mod script;
mod select_k;
mod selection;
mod selectors;
mod source;
mod value;
mod walk;

pub use annotation::{Annotation, Annotations, Severity};
pub use engine::{Engine, Interrupt, Options};
pub use grid::Grid;
pub use histogram::{Bucket, Buckets, CUSTOM_SCHEMA, CustomBounds, Histogram, ResetHint};
pub use memory::MemoryStore;
pub use quantile::{classic_quantile, native_quantile};
pub use row::{Cell, Row};
pub use selectors::{selector_of, selectors_in};
pub use source::{HistogramSample, STALE_NAN, Samples, Select, Series, Source, WindowFunction, Windows, is_stale};
pub use value::{Sample, SeriesValue, Value};
