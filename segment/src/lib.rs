//! Bytes to Arrow and back: telemetry in, segments out.
//!
//! Owns the segment format: physical columns ([`schema`]), footer ([`footer`]), what an input becomes ([`ingest`]), how a request is
//! checked before it is acknowledged ([`push`]), how a segment is described to readers ([`read`]), indexes, merges and rollups. It never
//! touches the network, a clock or a database: callers hand in readers, times and a spool folder. Start with [`ingest::BundleEncoder`].

pub mod footer;
pub mod identities;
pub mod index;
pub mod ingest;
pub mod loki;
pub mod merge;
pub mod push;
pub mod read;
pub mod remote_write;
pub mod rollup;
pub mod schema;
pub mod severity;
pub mod write;

mod coverage;
mod draft;
mod error;
mod input;
mod json;
mod otlp;
mod spool;

pub use draft::{DraftBody, DraftSegment, SpoolFile, segment_id};
pub use error::{Error, Result};
