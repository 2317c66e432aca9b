//! The words of Tidemill as types: ids, signals, time, levels, typed attribute values, catalog rows, object keys, error kinds.
//!
//! Pure: no I/O, no clock, no randomness, no async. Every other crate may depend on it, so a type belongs here only when two
//! crates that do not know each other must agree on it. Start with [`SegmentMeta`] (what the catalog knows of a segment) and
//! [`keys`] (what an object's path says).

pub mod keys;

mod error_kind;
mod ids;
mod routing;
mod segment_meta;
mod signal;
mod time;
mod value;
mod work;

pub use error_kind::ErrorKind;
pub use ids::{CatalogSeq, LeaseToken, OrganizationId, SegmentId, WorkId};
pub use routing::{CloudProvider, PrefixMapping, Route, RouteError, Routing, StorageProfile, is_own_object};
pub use segment_meta::{ByteRange, SegmentMeta, ServiceSet};
pub use signal::{Level, Signal, Tier};
pub use time::{Day, Hour, NANOS_PER_DAY, NANOS_PER_HOUR, NANOS_PER_SECOND, TimeRange, TimestampNs, civil_date};
pub use value::Value;
pub use work::{Action, WorkQueue};
