//! The metastore and the object stores, behind two small traits.
//!
//! Owns: durability. [`Metastore`] holds inbox, work queue, catalog and configuration in one database so that they change in one
//! transaction; [`ObjectStore`] holds bytes. One test suite (`tests/`) runs over every backend of each.
//! Never: Arrow, Parquet, decisions. Whether to retry and how to split a crashed bundle is `tidemill_scaling`'s.
//! Start with [`Metastore`].

pub mod buckets;
pub mod cloud;
pub mod folder;
pub mod lock;
pub mod metastore;
pub mod object;
pub mod postgres;
pub mod sqlite;
pub mod step;

mod bells;
mod encoding;
mod error;
mod migrations;
mod options;

pub use error::{Error, Result};
pub use metastore::Metastore;
pub use object::ObjectStore;
pub use options::MetastoreOptions;
