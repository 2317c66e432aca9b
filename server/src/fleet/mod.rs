//! The fleet of this process: opened on the data folder, told the backlog of its own queue, its replicas stopped with it.

mod metrics;
pub mod roles;

use std::sync::Arc;
use std::time::Duration;

use tidemill_fleet::scale::ScaleOptions;
use tidemill_fleet::{Fleet, FleetOptions};
use tidemill_source::{PushedValue, SourcesOptions};
use tidemill_store::Metastore;
use tidemill_store::metastore::queues_for;
use tidemill_types::{Action, Signal};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::data_folder::DataFolder;
use crate::error::{Error, Result};
use crate::serve::Tasks;

pub use metrics::answer_metrics;

/// The backlog is told at least so often, so that its age stays small while nothing changes.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// And at most so often.
const TELL_AT_MOST_EVERY: Duration = Duration::from_millis(20);
/// Of the grace of a shutdown, what is kept for the rest of it.
const REST: Duration = Duration::from_secs(2);

/// Opens the fleet and starts its tasks.
///
/// # Errors
/// A folder that cannot be opened.
pub fn start(config: &Config, folder: &DataFolder, metastore: Arc<dyn Metastore>, tasks: &mut Tasks) -> Result<Fleet> {
    let shim = std::env::current_exe().map_err(|error| Error::io("finding this program", error))?;
    let options = FleetOptions {
        folder: folder.root().join("fleet"),
        shim,
        scale: ScaleOptions { sync_period: config.duration("fleet.sync_period"), ..ScaleOptions::default() },
        // As with crash points: for rehearsals and tests, so no key of the configuration.
        told_usage: std::env::var_os("TIDEMILL_FLEET_USAGE").map(Into::into),
        sources: SourcesOptions { timeout: config.duration("fleet.source_timeout"), ..SourcesOptions::default() },
    };
    let (fleet, task) = Fleet::open(options).map_err(|error| from_fleet(&error))?;
    let stop = tasks.stop.clone();
    let is_kept = config.flag("fleet.keep_replicas");
    let grace = config.duration("shutdown.grace").saturating_sub(REST);
    let stopping = fleet.clone();
    tasks.spawn("fleet", async move {
        // The controller goes first, so that it starts no replica anew while they are stopped.
        task.run(stop).await;
        if !is_kept {
            stopping.stop_replicas(grace).await;
        }
    });
    tasks.spawn("backlog", tell_backlog(metastore, fleet.clone(), tasks.stop.clone()));
    Ok(fleet)
}

/// An error of the fleet as the binary reports it.
pub fn from_fleet(error: &tidemill_fleet::Error) -> Error {
    Error::new(error.kind(), error.to_string())
}

/// Tells what waits in this installation's own queue, as the sources of triggers of type `tidemill`: `logs/ingest` …, and `ingest` … of all signals.
async fn tell_backlog(metastore: Arc<dyn Metastore>, fleet: Fleet, stop: CancellationToken) {
    let queues = queues_for(&Signal::ALL, &Action::ALL);
    loop {
        match metastore.backlog().await {
            Ok(backlog) => {
                let at = jiff::Timestamp::now();
                let mut all: std::collections::BTreeMap<String, (u64, u64)> = std::collections::BTreeMap::new();
                for queue in &queues {
                    all.insert(format!("{}/{}", queue.signal, queue.action), (0, 0));
                    all.insert(queue.action.to_string(), (0, 0));
                }
                for one in backlog {
                    for name in [format!("{}/{}", one.queue.signal, one.queue.action), one.queue.action.to_string()] {
                        let sum = all.entry(name).or_default();
                        sum.0 += one.runnable;
                        sum.1 += one.leased;
                    }
                }
                for (name, (waiting, leased)) in all {
                    let value = PushedValue { value: waiting as f64, in_flight: Some(leased as f64), at };
                    fleet.sources().pushed().tell(&name, value);
                }
            }
            // What was told last ages, and whoever decides by it sees how old it is.
            Err(error) => tracing::warn!(%error, "the backlog cannot be read"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = metastore.wait_for_work(&queues, TELL_EVERY) => {}
        }
        tokio::time::sleep(TELL_AT_MOST_EVERY).await;
    }
}
