//! Indexes: which rows of a segment may hold a token, a literal or a value, without reading the rows.
//!
//! An index answers with a superset and never with less; readers recheck every row. It lies between the last row group and the Parquet
//! footer, where other readers skip. Its small directory tells which few ranges a condition needs. Frequent terms are in an FST with
//! postings of row blocks; rare identifiers are in filters laid out by hash, so that they cost ten bits and one small read.
//! Nothing here reads files or the network. Start with [`IndexBuilder`] to make one and [`TokenIndex`] to ask one.

mod build;
mod directory;
mod filter_keys;
mod hash_pages;
mod lookup;
mod postings;
mod row_blocks;
mod series_table;
mod stream_table;
pub(crate) mod wire;
mod zipped;

pub mod trace_day;

#[cfg(test)]
mod tests;

pub use build::{EncodedIndex, IndexBuilder};
pub use directory::{INDEX_VERSION, IndexDirectory, IndexMode, IndexedColumn};
pub use lookup::{Condition, IndexBytes, TokenIndex};
pub use row_blocks::RowBlocks;
pub use series_table::{LabelPostings, SERIES_TABLE_VERSION, SeriesFrame, SeriesRows, SeriesTable, SeriesTableBuilder};
pub use stream_table::{STREAM_TABLE_VERSION, StreamRows, StreamTable, StreamTableBuilder, is_stream_column};

pub(crate) use wire::{Reader, corrupt, put_varint};

/// Rows of a block, and of a Parquet page: what the reader of one matching row must decode.
pub const BLOCK_ROWS: usize = 4096;
