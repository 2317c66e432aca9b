//! Storage profiles and prefix mappings, as YAML that people already have.
//!
//! Owns: reading them from a file, an environment variable or a document of the metastore, alone or inside a chart's values file,
//! and refusing them with every problem at once, each with its line and path. Never: opening buckets, or filling in a value that
//! is wrong. Start with [`parse_profiles`]; API keys, which share the reader, are in `crate::api_keys`.

pub(crate) mod problems;
pub(crate) mod reader;
pub(crate) mod syntax;

mod mapping;
mod profile;
mod source;

#[cfg(test)]
mod golden;

pub use mapping::parse_mappings;
pub use problems::Problems;
pub use profile::{parse_profiles, storable_profiles};
pub use source::load_text;

/// The metastore's document of storage profiles.
pub const PROFILES_DOCUMENT: &str = "storage-profiles";

/// The metastore's document of prefix mappings.
pub const MAPPINGS_DOCUMENT: &str = "prefix-mappings";
