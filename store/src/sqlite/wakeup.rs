//! Waking workers when work may have arrived: at once within this process, within a few tens of milliseconds between the
//! processes of the host.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::commits::Commits;
use crate::bells::Bells;

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Starts to look at the database and rings `bells`; ends when they are dropped. Must be called within a runtime.
pub(super) fn start_watch(commits: &Arc<Commits>, bells: &Arc<Bells>) {
    tokio::runtime::Handle::current().spawn(run_watch(Arc::clone(commits), Arc::downgrade(bells)));
}

async fn run_watch(commits: Arc<Commits>, bells: Weak<Bells>) {
    let mut last = None;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let Some(bells) = bells.upgrade() else { return };
        if !bells.has_listeners() {
            continue;
        }
        let version = commits.version();
        if version.is_some() && version != last {
            last = version;
            bells.ring_all();
        }
    }
}
