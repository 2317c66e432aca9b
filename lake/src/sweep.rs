//! The sweeper: deletes objects whose time is over, and nothing that anybody may still want.
//!
//! Owns: doomed objects (replaced, retired, used up), orphans (uploaded under a lease that was lost, or stored and never
//! admitted), retention, and the rows that are past their time. An orphan is told by its key alone: no row refers to it and no
//! current lease could still publish it; its age only keeps the sweeper away from what is just being written.
//! Never: deciding what is replaced (publishing does), or sweeping a bucket that another catalog writes to ([`ownership`]).
//! Start with [`SweeperTask::run`].

mod orphans;
mod ownership;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tidemill_plan::retention::{RetentionPolicy, first_kept, plan_retention};
use tidemill_store::Metastore;
use tidemill_store::buckets::Buckets;
use tidemill_store::metastore::{DoomedObject, Organization, SegmentFilter};
use tidemill_store::step::{Step, reach};
use tidemill_types::{Signal, TimeRange, TimestampNs};
use tokio_util::sync::CancellationToken;

use crate::Result;

pub(crate) use ownership::take_bucket;
pub use ownership::{BucketOwner, claim_bucket};

/// How often the sweeper looks, and how much it does at once.
#[derive(Debug, Clone)]
pub struct SweeperOptions {
    /// Doomed objects are looked for this often.
    pub doomed_every: Duration,
    /// Retention, orphans and old rows are looked for this often.
    pub full_every: Duration,
    /// An object that nothing refers to is an orphan only when it was written this long ago. Longer than any lease and than
    /// the receiver takes between storing and admitting.
    pub orphan_age: Duration,
    /// Objects asked for or deleted in one step.
    pub batch: usize,
    /// Objects deleted at the same time.
    pub deletes_in_flight: usize,
}

impl Default for SweeperOptions {
    fn default() -> Self {
        Self {
            doomed_every: Duration::from_secs(10),
            full_every: Duration::from_secs(3600),
            orphan_age: Duration::from_secs(3600),
            batch: 500,
            deletes_in_flight: 16,
        }
    }
}

/// What the sweeper stands on.
#[derive(Debug, Clone)]
pub struct SweeperDeps {
    /// Catalog and configuration.
    pub metastore: Arc<dyn Metastore>,
    /// Every bucket that may hold objects of ours.
    pub buckets: Arc<Buckets>,
}

/// Counts since the start, for metrics.
#[derive(Debug, Default)]
pub struct SweeperCounters {
    /// Doomed objects deleted.
    pub doomed_deleted: AtomicU64,
    /// Orphans deleted.
    pub orphans_deleted: AtomicU64,
    /// Segments retired by retention.
    pub retired: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    options: SweeperOptions,
    deps: SweeperDeps,
    counters: SweeperCounters,
    stopping: CancellationToken,
}

/// Stops the sweeper, tells its counts, and sweeps on demand.
#[derive(Debug, Clone)]
pub struct SweeperHandle(Arc<Shared>);

impl SweeperHandle {
    /// Ends the task after its current step.
    pub fn stop(&self) {
        self.0.stopping.cancel();
    }

    /// Counts since the start.
    pub fn counters(&self) -> &SweeperCounters {
        &self.0.counters
    }

    /// Deletes doomed objects whose grace is over; returns how many.
    ///
    /// # Errors
    /// What the metastore answers; a store that does not delete is logged, and its objects stay doomed.
    pub async fn sweep_doomed(&self) -> Result<u64> {
        self.0.sweep_doomed().await
    }

    /// Retention, orphans and old rows, once.
    ///
    /// # Errors
    /// What the metastore or a store answers.
    pub async fn sweep_fully(&self) -> Result<()> {
        self.0.sweep_fully().await
    }
}

/// Sweeps until stopped.
#[derive(Debug)]
pub struct SweeperTask(Arc<Shared>);

/// Builds a sweeper.
pub fn build(options: SweeperOptions, deps: SweeperDeps) -> (SweeperHandle, SweeperTask) {
    let counters = SweeperCounters::default();
    let shared = Arc::new(Shared { options, deps, counters, stopping: CancellationToken::new() });
    (SweeperHandle(shared.clone()), SweeperTask(shared))
}

impl SweeperTask {
    /// Runs until stopped. A failure is logged and tried again at the next tick.
    pub async fn run(self) {
        let shared = self.0;
        let mut doomed = tokio::time::interval(shared.options.doomed_every);
        let mut full = tokio::time::interval(shared.options.full_every);
        doomed.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        full.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let (what, swept) = tokio::select! {
                () = shared.stopping.cancelled() => return,
                _ = doomed.tick() => ("doomed objects", shared.sweep_doomed().await.map(drop)),
                _ = full.tick() => ("everything", shared.sweep_fully().await),
            };
            if let Err(error) = swept {
                tracing::warn!(%error, what, "sweeping will be tried again");
            }
        }
    }
}

impl Shared {
    async fn sweep_doomed(&self) -> Result<u64> {
        let mut total = 0;
        while !self.stopping.is_cancelled() {
            let doomed = self.deps.metastore.doomed_objects(self.options.batch).await?;
            if doomed.is_empty() {
                break;
            }
            let deleted = self.delete(doomed.clone()).await;
            reach(Step::SweepDeleted);
            self.deps.metastore.forget_doomed(&deleted).await?;
            total += deleted.len() as u64;
            self.counters.doomed_deleted.fetch_add(deleted.len() as u64, Ordering::Relaxed);
            if deleted.len() < doomed.len() {
                // Those that cannot be deleted stay first in line; go on at the next tick.
                break;
            }
        }
        Ok(total)
    }

    /// Deletes objects; returns those that are gone.
    async fn delete(&self, objects: Vec<DoomedObject>) -> Vec<DoomedObject> {
        let deletions = stream::iter(objects).map(|object| async move {
            let deleted = match self.deps.buckets.get(&object.bucket) {
                Ok(store) => store.delete(&object.object_key).await,
                Err(error) => Err(error),
            };
            match deleted {
                Ok(()) => Some(object),
                Err(error) => {
                    tracing::warn!(%error, bucket = object.bucket, "an object could not be deleted");
                    None
                }
            }
        });
        deletions.buffer_unordered(self.options.deletes_in_flight.max(1)).filter_map(std::future::ready).collect().await
    }

    async fn sweep_fully(&self) -> Result<()> {
        let now = self.deps.metastore.now().await?;
        for organization in self.deps.metastore.organizations().await? {
            self.retire_past(&organization, now).await?;
        }
        self.deps.metastore.prune().await?;
        for bucket in self.deps.buckets.names() {
            if self.stopping.is_cancelled() {
                break;
            }
            // One bucket that does not answer is no reason to leave the others unswept.
            match orphans::sweep_bucket(self, &bucket, now).await {
                Ok(deleted) => drop(self.counters.orphans_deleted.fetch_add(deleted, Ordering::Relaxed)),
                Err(error) => tracing::warn!(%error, bucket, "orphans of a bucket will be looked for again"),
            }
        }
        Ok(())
    }

    async fn retire_past(&self, organization: &Organization, now: TimestampNs) -> Result<()> {
        let policy = RetentionPolicy { organization: organization.id, days: organization.retention_days };
        for signal in Signal::ALL {
            let Some(first) = first_kept(&policy, signal, now) else { continue };
            let filter = SegmentFilter {
                organization: Some(organization.id),
                signal: Some(signal),
                time: Some(TimeRange { start: TimeRange::ALL.start, end: first.range().start }),
                ..SegmentFilter::default()
            };
            let old = self.deps.metastore.segments(&filter).await?;
            let past = plan_retention(&policy, &old, now);
            for ids in past.chunks(self.options.batch.max(1)) {
                let retired = self.deps.metastore.retire_segments(ids).await?;
                self.counters.retired.fetch_add(retired, Ordering::Relaxed);
            }
            if !past.is_empty() {
                let (organization, segments) = (&organization.name, past.len());
                tracing::info!(organization, %signal, segments, "segments past their retention were retired");
            }
        }
        Ok(())
    }
}
