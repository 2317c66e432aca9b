//! Queries over a small lake of real segments, in one binary because linking DataFusion is what takes time.

mod docs;
mod equivalence;
mod logql;
mod metrics;
mod promql;
mod pruning;
mod replaced;
mod rollups;
mod sql;
mod trace_days;
mod traces;
mod world;
