//! API keys: making them, and telling by a request's key who calls.
//!
//! Owns: key generation, hashing, the short-lived snapshot of stored keys, the rule who may name which organization. Never: where a
//! key stands in a request (`tidemill_lake::auth::api_key`). Start with [`KeyRing`].

mod issue;
mod ring;

pub use issue::{hash_key, issue_key};
pub use ring::{KeyRing, ORGANIZATION_HEADER, Openness};
