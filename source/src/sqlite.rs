//! SQLite: as PostgreSQL, over a file that is only read.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use crate::parameters::Parameters;
use crate::{Client, Observed, SourceError};

#[derive(Debug, Clone)]
pub(crate) struct Sqlite {
    path: PathBuf,
    query: String,
    in_flight: Option<String>,
    timeout: Duration,
}

impl Sqlite {
    pub(crate) fn new(parameters: &Parameters, timeout: Duration) -> Result<Self, SourceError> {
        Ok(Self {
            path: PathBuf::from(parameters.need("path")?),
            query: parameters.need("query")?.to_owned(),
            in_flight: parameters.get("inFlightQuery").map(ToOwned::to_owned),
            timeout,
        })
    }

    fn look(&self, interrupt: &std::sync::mpsc::Sender<rusqlite::InterruptHandle>) -> Result<Observed, SourceError> {
        let failed =
            |what: &'static str| move |error: rusqlite::Error| SourceError::unavailable(format!("{what}: {error}"));
        // Never creates a file, never writes to one.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(&self.path, flags)
            .map_err(|error| SourceError::unavailable(format!("opening {}: {error}", self.path.display())))?;
        connection.busy_timeout(self.timeout).map_err(failed("setting it up"))?;
        // Nobody may be left to take it.
        let _ = interrupt.send(connection.get_interrupt_handle());
        let snapshot = connection.transaction().map_err(failed("beginning"))?;
        let value = one_value("query", &snapshot, &self.query)?;
        let at = Timestamp::now();
        let in_flight =
            self.in_flight.as_ref().map(|query| one_value("inFlightQuery", &snapshot, query)).transpose()?;
        Ok(Observed { in_flight, ..Observed::new(value, at) })
    }
}

/// Interrupts a look that nobody waits for any more.
struct Abandon(std::sync::mpsc::Receiver<rusqlite::InterruptHandle>);

impl Drop for Abandon {
    fn drop(&mut self) {
        if let Ok(handle) = self.0.try_recv() {
            handle.interrupt();
        }
    }
}

#[async_trait]
impl Client for Sqlite {
    async fn observe(&self, _now: Timestamp) -> Result<Observed, SourceError> {
        let this = self.clone();
        let (sender, receiver) = std::sync::mpsc::channel();
        let _abandon = Abandon(receiver);
        let looked = tokio::task::spawn_blocking(move || this.look(&sender)).await;
        looked.map_err(|error| SourceError::unavailable(error.to_string()))?
    }
}

fn one_value(what: &str, connection: &Connection, query: &str) -> Result<f64, SourceError> {
    let failed = |error: rusqlite::Error| SourceError::unavailable(format!("{what}: {error}"));
    let mut statement = connection.prepare(query).map_err(failed)?;
    if statement.column_count() != 1 {
        return Err(SourceError::no_value(format!(
            "{what}: gives {} columns; one is needed",
            statement.column_count()
        )));
    }
    let mut rows = statement.query([]).map_err(failed)?;
    let Some(row) = rows.next().map_err(failed)? else {
        return Err(SourceError::no_value(format!("{what}: gave no row; COUNT and COALESCE always give one")));
    };
    match row.get_ref(0).map_err(failed)? {
        ValueRef::Integer(value) => Ok(value as f64),
        ValueRef::Real(value) => Ok(value),
        ValueRef::Null => {
            Err(SourceError::no_value(format!("{what}: gave NULL; write COALESCE(…, 0) where that means none")))
        }
        ValueRef::Text(text) | ValueRef::Blob(text) => {
            let text = String::from_utf8_lossy(text);
            text.trim().parse().map_err(|_| SourceError::no_value(format!("{what}: gave {text:?}, which is no number")))
        }
    }
}
