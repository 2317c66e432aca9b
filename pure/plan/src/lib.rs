//! Plans over segment metadata: which segments a query reads, which are compacted, rolled up or retired.
//!
//! Pure: no I/O, no clock, no randomness. Every function that selects segments takes the organization first (T-1).
//! Start with [`snapshot::CatalogSnapshot`] (the live catalog in memory) and [`prune::SegmentQuery`] (what a query asks of it).

pub mod compaction;
pub mod prune;
pub mod retention;
pub mod rollup;
pub mod snapshot;
