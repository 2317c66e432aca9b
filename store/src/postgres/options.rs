//! How to reach PostgreSQL.

use std::fmt;
use std::path::PathBuf;

use crate::MetastoreOptions;

/// Where the database is and how it is spoken to.
#[derive(Clone)]
pub struct PostgresOptions {
    /// A URL or key-value string; `sslmode` may be `disable`, `prefer`, `require` or `verify-full`.
    pub dsn: String,
    /// Another database than the DSN's.
    pub database: Option<String>,
    /// A direct connection for LISTEN where `dsn` goes through a pooler; `dsn` otherwise.
    pub listen_dsn: Option<String>,
    /// PEM certificates trusted by `verify-full`, in place of the system's.
    pub root_certificates: Option<PathBuf>,
    /// Connections at most.
    pub connections: usize,
    /// What both metastores can be told.
    pub metastore: MetastoreOptions,
}

impl PostgresOptions {
    /// Options for a DSN, the rest by default.
    pub fn new(dsn: &str) -> Self {
        Self {
            dsn: dsn.to_owned(),
            database: None,
            listen_dsn: None,
            root_certificates: None,
            connections: 16,
            metastore: MetastoreOptions::default(),
        }
    }
}

impl fmt::Debug for PostgresOptions {
    /// A DSN may hold a password, so it is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("database", &self.database)
            .field("connections", &self.connections)
            .field("metastore", &self.metastore)
            .finish_non_exhaustive()
    }
}
