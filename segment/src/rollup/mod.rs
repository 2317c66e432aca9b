//! Rollup windows from a finer tier.
