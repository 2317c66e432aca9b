//! What a fleet tells of its replicas: their lines as log records, their usage and states as metrics.
//!
//! Owns: reading what was printed with a place that is kept, metrics under the names that cAdvisor and kube-state-metrics use, requests of OTLP as JSON.
//! Never: where they go ([`Sink`]). A line is told at least once, and once only for a receiver that knows a repeated request by its key.
//! Start with [`Exporter::run`].

mod families;
mod logs;
#[cfg(test)]
mod names;
mod otlp;
mod pods;
mod scaling;
mod states;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tidemill_scaling::TimeMs;
use tidemill_scaling::manifest::chart::MANAGED_BY;
use tidemill_types::Signal;
use tokio_util::sync::CancellationToken;

use crate::control::now;
use crate::local::LocalRuntime;
use crate::objects::ObjectKey;
use crate::runtime::Runtime as _;
use crate::scale::Counters;
use crate::storage::Storage;
use families::Families;
use logs::Logs;

/// A replica that runs, for tests.
#[cfg(test)]
pub(crate) fn sample_replica() -> crate::runtime::ReplicaStatus {
    names::replica(crate::runtime::ContainerState::Running { since: TimeMs(1000), pid: 7 })
}

/// How often lines are looked for.
const LINES_EVERY: Duration = Duration::from_millis(500);
/// How often metrics are told.
const METRICS_EVERY: Duration = Duration::from_secs(10);
/// From the first failed request to the next; doubles.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const AGAIN_AFTER_MOST: Duration = Duration::from_secs(30);
/// How long the last lines may take when the process ends.
const LAST_WITHIN: Duration = Duration::from_secs(5);
/// Most bytes of metrics in a request.
const MAX_METRICS_BYTES: usize = 4 << 20;

/// Whether it is one of this installation's own roles. They are told of nowhere: what they printed would be work for them, for ever.
fn is_own(labels: &BTreeMap<String, String>) -> bool {
    labels.get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1)
}

/// Takes requests of OTLP, as JSON.
#[async_trait]
pub trait Sink: Send + Sync + std::fmt::Debug {
    /// Takes a request, durably. A repeated `key` is the same request again.
    ///
    /// # Errors
    /// Whether to come again.
    async fn take(&self, signal: Signal, key: Option<&str>, body: Bytes) -> Result<(), SinkError>;
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The same request may be taken later.
    #[error("{0}")]
    Later(String),
    /// It never will.
    #[error("{0}")]
    Never(String),
}

/// Tells of replicas until it is stopped.
#[derive(Debug)]
pub struct Exporter {
    runtime: LocalRuntime,
    storage: Arc<Storage>,
    counters: Arc<Counters>,
    /// What the request on its way is made of, for the case that this process is killed before it was answered.
    pending: PathBuf,
}

impl Exporter {
    /// An exporter of replicas and of what is stored; `pending` is a file of its own.
    pub fn new(runtime: LocalRuntime, storage: Arc<Storage>, counters: Arc<Counters>, pending: PathBuf) -> Self {
        runtime.begin_reading();
        Self { runtime, storage, counters, pending }
    }

    /// Tells `sink` everything until `stop`, and then the last lines.
    pub async fn run(self, sink: Arc<dyn Sink>, stop: CancellationToken) {
        let mut logs = Logs::new(self.runtime.clone(), self.pending.clone());
        let began = now();
        let mut metrics = tokio::time::interval(METRICS_EVERY);
        let mut lines = tokio::time::interval(LINES_EVERY);
        metrics.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        lines.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let working = async {
            loop {
                tokio::select! {
                    _ = lines.tick() => {
                        self.counters.observe(|| self.runtime.replicas());
                        logs.tell(sink.as_ref()).await;
                    }
                    _ = metrics.tick() => self.tell_metrics(&logs, sink.as_ref(), began).await,
                }
            }
        };
        tokio::select! {
            () = working => {}
            () = stop.cancelled() => {}
        }
        // A request that was cut off is repeated by its key.
        if tokio::time::timeout(LAST_WITHIN, logs.tell(sink.as_ref())).await.is_err() {
            tracing::debug!("the last lines of replicas are told by the next start");
        }
    }

    /// A look at everything that is told as metrics; one that cannot be taken is let go, because the next one says more.
    async fn tell_metrics(&self, logs: &Logs, sink: &dyn Sink, began: TimeMs) {
        let mut families = Families::new(began, now());
        let (mut replicas, mut objects) = (self.runtime.replicas(), self.storage.all());
        replicas.retain(|replica| !is_own(&replica.spec.labels));
        let own: BTreeSet<ObjectKey> =
            objects.extract_if(.., |object| is_own(&object.metadata.labels)).map(|object| object.key()).collect();
        // A fleet that nothing was ever applied to has nothing to tell. What happened to its roles is no object of anybody's.
        if replicas.is_empty() && objects.iter().all(|object| object.kind == "Event") {
            return;
        }
        usage::add(&mut families, &replicas, |uid| self.runtime.usage(uid));
        pods::add(&mut families, &replicas);
        states::add(&mut families, &objects);
        scaling::add(&mut families, &self.counters, &own);
        logs.add(&mut families);
        for body in otlp::metrics(families, MAX_METRICS_BYTES) {
            if let Err(error) = sink.take(Signal::Metrics, None, body).await {
                tracing::warn!(%error, "metrics of replicas were not taken");
                return;
            }
        }
    }
}
