//! Whether anything was committed since one looked last, by this process or another of the host: a look takes a few microseconds, so
//! that it needs no thread of its own, and spares the reading of what has not changed.

use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use tidemill_types::CatalogSeq;

use super::connection::{failed, open_reader};
use crate::Result;

/// Looks at the database's commits.
#[derive(Debug)]
pub(super) struct Commits {
    /// Commits nothing, so that it sees the commits of all connections.
    connection: Mutex<Connection>,
    catalog: Mutex<Option<KnownCatalog>>,
}

/// Where the catalog was.
#[derive(Debug)]
struct KnownCatalog {
    version: Version,
    seq: CatalogSeq,
}

/// Differs after every commit; `PRAGMA data_version`, a counter in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version(i64);

impl Commits {
    pub(super) fn new(path: &Path) -> Result<Self> {
        let connection = open_reader(path)?;
        // A look is made on threads that may not wait; what cannot be told at once is read.
        connection.busy_timeout(Duration::ZERO).map_err(failed("open"))?;
        Ok(Self { connection: Mutex::new(connection), catalog: Mutex::default() })
    }

    /// The version now; `None` where it cannot be told.
    pub(super) fn version(&self) -> Option<Version> {
        let connection = self.connection.lock();
        let mut statement = connection.prepare_cached("PRAGMA data_version").ok()?;
        statement.query_row([], |row| row.get(0)).ok().map(Version)
    }

    /// Remembers where the catalog was when it was read to its end, after the database had been at `version`.
    pub(super) fn note_catalog(&self, version: Version, seq: CatalogSeq) {
        *self.catalog.lock() = Some(KnownCatalog { version, seq });
    }

    /// Whether the catalog is known to be at `seq` while the database is at `version`.
    pub(super) fn is_catalog_at(&self, version: Version, seq: CatalogSeq) -> bool {
        self.catalog.lock().as_ref().is_some_and(|known| known.version == version && known.seq == seq)
    }
}
