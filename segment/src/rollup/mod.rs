//! Rollups: windows of 10 s to 1 h computed from the next finer tier, the first from raw points.
//!
//! A window is (start, end], labelled by its end. Of repeated samples the last to arrive counts. What a row keeps merges exactly, so each tier
//! equals a rollup of the raw points; quantiles come from a sketch with 1 % error. A rollup is replaced as a whole by recomputing it,
//! never patched. Start with [`rollup_hour`].

mod columns;
mod distribution;
mod hour;
mod sketch;
mod window;

pub use columns::rollup_fields;
pub use hour::{RollupOptions, rollup_hour};
pub use sketch::{BIN_LIMIT, SKETCH_ERROR, SKETCH_VERSION, Sketch};
