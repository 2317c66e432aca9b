//! Reading connections: a few, each call in one snapshot, off the I/O threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tidemill_types::ErrorKind;
use tokio::sync::Semaphore;

use super::connection::{failed, open_reader};
use crate::{Error, Result};

const CONNECTIONS: usize = 6;

#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(Self { path, idle: Mutex::default(), permits: Semaphore::new(CONNECTIONS) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in one read transaction.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let internal = |source: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(operation, "the metastore", ErrorKind::Internal, source)
        };
        let _permit = self.permits.acquire().await.map_err(|closed| internal(closed.into()))?;
        let readers = Arc::clone(self);
        let joined = tokio::task::spawn_blocking(move || {
            let idle = readers.idle.lock().pop();
            let connection = idle.map_or_else(|| open_reader(&readers.path), Ok)?;
            connection.execute_batch("BEGIN").map_err(failed(operation))?;
            let result = work(&connection);
            // A connection that cannot end its transaction is dropped.
            if connection.execute_batch("COMMIT").is_ok() {
                readers.idle.lock().push(connection);
            }
            result
        });
        joined.await.map_err(|source| internal(source.into()))?
    }
}
