//! Waking workers when work may have arrived: at once within this process, within a few tens of milliseconds between the
//! processes of the host (by `PRAGMA data_version`, which moves with every commit of another connection).

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::MissedTickBehavior;

use super::connection::open_reader;
use crate::Result;
use crate::bells::Bells;

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Starts to look at the database and rings `bells`; ends when they are dropped. Must be called within a runtime.
pub(super) fn start_watch(path: &Path, bells: &Arc<Bells>) -> Result<()> {
    let connection = open_reader(path)?;
    tokio::runtime::Handle::current().spawn(run_watch(connection, Arc::downgrade(bells)));
    Ok(())
}

async fn run_watch(connection: Connection, bells: Weak<Bells>) {
    let mut last = None;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let Some(bells) = bells.upgrade() else { return };
        if !bells.has_listeners() {
            continue;
        }
        // A handful of microseconds: it reads a counter in shared memory.
        let version: Option<i64> = connection.query_row("PRAGMA data_version", [], |row| row.get(0)).ok();
        if version.is_some() && version != last {
            last = version;
            bells.ring_all();
        }
    }
}
