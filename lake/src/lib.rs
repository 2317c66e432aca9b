//! The lake's moving parts: receivers, notifications, workers, compaction, sweeping.
//!
//! Owns: what happens between a request or an object event and a live segment. Never: SQL, query planning, or bytes inside a
//! segment (those are `tidemill_query`'s and `tidemill_segment`'s); decisions about what to merge or retire are
//! `tidemill_plan`'s. Start with [`receive`] (the way in) and [`worker`] (the way to a segment).

pub mod auth;
pub mod catalog;
pub mod clock;
pub mod loaded;
pub mod loki_push;
pub mod notify;
pub mod otlp_grpc;
pub mod otlp_http;
pub mod place;
pub mod receive;
pub mod sqs;
pub mod sweep;
pub mod watch;
pub mod worker;

mod error;
mod intake;
mod otlp_answer;
mod own_key;
mod raw_object;

pub use error::{Error, Result};
