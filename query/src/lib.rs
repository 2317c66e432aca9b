//! SQL over the lake: one read-only statement in, record batches out.
//!
//! Owns: which statements are allowed (T-1), how `attr('k')` becomes a column, which segments, row groups and rows a statement
//! reads, its memory and time limits, and the encodings of its answer. The only crate with DataFusion. Never: writes to the
//! metastore or a bucket, or answers from data of another organization; every entry takes the organization first.
//! Start with [`QueryEngine::sql`]; evaluators that bring their own language read rows through [`scan`].

pub mod logql;
pub mod output;
pub mod promql;
pub mod scan;

mod attributes;
mod catalog;
mod describe;
mod engine;
mod error;
mod functions;
mod guards;
mod known_plans;
mod limits;
mod listing;
mod plan;
mod run;
mod session;
mod slots;
mod statement;
mod stats;
mod tables;
mod together;
pub mod traceql;

pub use attributes::{AttributeInfo, AttributeKey, Cardinality};
pub use engine::QueryEngine;
pub use error::{Error, Result};
pub use limits::{QueryLimits, QueryOptions};
pub use run::QueryStream;
pub use stats::{QueryStats, StatsHandle};
pub use tidemill_segment::read::{AttributeScope, AttributeType};
