//! Waking workers when work may have arrived: at once within this process, within a few tens of milliseconds between the
//! processes of the host (by `PRAGMA data_version`, which moves with every commit of another connection).

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::watch;

use super::connection::open_reader;
use crate::Result;

const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Wakeup {
    bell: Arc<watch::Sender<u64>>,
}

impl Wakeup {
    /// Starts to look at the database; ends when the metastore is dropped. Must be called within a runtime.
    pub(super) fn start(path: &Path) -> Result<Self> {
        let bell = Arc::new(watch::Sender::new(0));
        let connection = open_reader(path)?;
        tokio::runtime::Handle::current().spawn(run_watch(connection, Arc::downgrade(&bell)));
        Ok(Self { bell })
    }

    /// Wakes everybody who listens.
    pub(super) fn ring(&self) {
        self.bell.send_modify(|rung| *rung = rung.wrapping_add(1));
    }

    pub(super) fn listen(&self) -> watch::Receiver<u64> {
        self.bell.subscribe()
    }
}

async fn run_watch(connection: Connection, bell: Weak<watch::Sender<u64>>) {
    let mut last = None;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let Some(bell) = bell.upgrade() else { return };
        // A handful of microseconds: it reads a counter in shared memory.
        let version: Option<i64> =
            if bell.receiver_count() == 0 { None } else { connection.query_row("PRAGMA data_version", [], |row| row.get(0)).ok() };
        if version.is_some() && version != last {
            last = version;
            bell.send_modify(|rung| *rung = rung.wrapping_add(1));
        }
    }
}
