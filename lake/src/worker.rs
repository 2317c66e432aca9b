//! Workers: claim a bundle, do what its queue asks for, publish the result in one transaction.
//!
//! Owns: the loop, leases, downloads, uploads. Never: deciding what to merge or roll up (`tidemill_plan`), or counting attempts
//! (the metastore). A bundle ends in exactly one of: published, failed, handed back, or lost with its lease; in the last case
//! another worker has it and whatever was uploaded here is an orphan that the sweeper finds by its key.
//! Start with [`WorkerTask::run`]; what each action does is in its own module.

mod compact;
mod download;
mod ingest;
mod lag;
mod lease;
mod rollup;
mod trace_day;
mod trigger;
mod upload;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tidemill_store::Metastore;
use tidemill_store::buckets::Buckets;
use tidemill_store::metastore::{Bundle, ClaimRequest, WorkItem};
use tidemill_types::{Action, ErrorKind, OrganizationId, WorkQueue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use crate::clock::Clock;
use crate::place::Placement;
use crate::{Error, Result};

pub use lag::{LAG_BOUNDS, LAG_WINDOW, Lag, LagHistogram, RecentLag};
pub use trigger::Triggers;
pub(crate) use trigger::{CompactPayload, CompactTask, RollupPayload};

/// The collector under whose name a server sends what it tells of itself.
pub const OWN_COLLECTOR: &str = "tidemill";

/// A slot pauses at most this long after a failure of the world, so that other organizations' stores are still served.
const WORLD_PAUSE: Duration = Duration::from_secs(5);

/// What a worker serves and what it bounds.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// The queues it serves, most wanted first.
    pub queues: Vec<WorkQueue>,
    /// Who claims, for people: host, process, role.
    pub name: String,
    /// Bundles worked on at the same time.
    pub concurrency: usize,
    /// How long a lease lasts; it is extended at a third of it.
    pub lease: Duration,
    /// Inputs in a bundle.
    pub bundle_items: usize,
    /// Bytes of inputs in a bundle, but at least one input.
    pub bundle_bytes: u64,
    /// Folder for downloads and drafts.
    pub spool: PathBuf,
    /// Rows that one bundle holds in memory before they are written out.
    pub memory_bytes: usize,
    /// Look for work at least this often, even when no wake-up came.
    pub poll: Duration,
    /// Once nothing is left to ingest, what arrives gathers until this long after the last bundle began: under a steady stream fewer and
    /// larger segments cost much less. What arrives after a pause does not wait, nor does a backlog.
    pub gather: Duration,
    /// How long a stopping worker goes on with what it has begun before it hands it back.
    pub grace: Duration,
    /// Work for this organization makes no spans: what this process tells of itself is not traced while it is ingested.
    pub untraced: Option<OrganizationId>,
}

impl WorkerOptions {
    /// Defaults for a worker of `queues` with its files in `spool`.
    pub fn new(queues: Vec<WorkQueue>, name: impl Into<String>, spool: impl Into<PathBuf>) -> Self {
        Self {
            queues,
            name: name.into(),
            concurrency: 2,
            lease: Duration::from_secs(60),
            bundle_items: 256,
            bundle_bytes: 64 << 20,
            spool: spool.into(),
            memory_bytes: 96 << 20,
            poll: Duration::from_secs(1),
            gather: Duration::from_millis(100),
            grace: Duration::from_secs(5),
            untraced: None,
        }
    }
}

/// What a worker stands on.
#[derive(Debug, Clone)]
pub struct WorkerDeps {
    /// Queue and catalog.
    pub metastore: Arc<dyn Metastore>,
    /// Inputs and segments.
    pub buckets: Arc<Buckets>,
    /// Where segments go.
    pub placement: Arc<dyn Placement>,
    /// Times in reports; decisions use the database's clock.
    pub clock: Arc<dyn Clock>,
}

/// Counts since the start, for metrics.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Bundles published.
    pub published: AtomicU64,
    /// Bundles that failed.
    pub failed: AtomicU64,
    /// Bundles whose lease was lost.
    pub lost: AtomicU64,
    /// Segments published.
    pub segments: AtomicU64,
    /// Rows in segments published by ingest.
    pub rows: AtomicU64,
    /// Bytes of inputs ingested, as stored.
    pub input_bytes: AtomicU64,
    /// Records whose time was outside the valid range and was replaced.
    pub times_replaced: AtomicU64,
    /// Records refused.
    pub records_refused: AtomicU64,
    /// From arrival to queryable.
    pub lag: Lag,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: WorkerOptions,
    pub(crate) deps: WorkerDeps,
    pub(crate) counters: WorkerCounters,
    pub(crate) triggers: Triggers,
    /// No new bundles are claimed.
    stopping: CancellationToken,
    /// Bundles that are still worked on are handed back.
    abandon: CancellationToken,
    last_served: Mutex<Option<OrganizationId>>,
    claims: AtomicU64,
    gathering: Mutex<Gathering>,
    /// Bundles being worked on that are not ingest.
    upkeep_running: AtomicUsize,
    /// Failures in a row of what we stand on, over all slots.
    world_failures: AtomicU32,
}

/// See [`WorkerOptions::gather`].
#[derive(Debug, Default)]
struct Gathering {
    /// When the last ingest bundle began, unless it was full.
    begun: Option<Instant>,
    /// Until when what arrives gathers.
    until: Option<Instant>,
}

/// Stops a worker and tells its counts.
#[derive(Debug, Clone)]
pub struct WorkerHandle(Arc<Shared>);

impl WorkerHandle {
    /// Claims nothing more; the task ends within the grace period.
    pub fn stop(&self) {
        self.0.stopping.cancel();
    }

    /// Counts since the start.
    pub fn counters(&self) -> &WorkerCounters {
        &self.0.counters
    }
}

/// Works until stopped.
#[derive(Debug)]
pub struct WorkerTask(Arc<Shared>);

/// Builds a worker.
///
/// # Errors
/// `Invalid` without queues; a spool folder that cannot be made.
pub fn build(options: WorkerOptions, deps: WorkerDeps) -> Result<(WorkerHandle, WorkerTask)> {
    if options.queues.is_empty() {
        return Err(Error::Invalid { operation: "start a worker", reason: "it serves no queue".to_owned() });
    }
    std::fs::create_dir_all(&options.spool).map_err(Error::file("create the spool folder", &options.spool))?;
    let shared = Arc::new(Shared {
        options,
        deps,
        counters: WorkerCounters::default(),
        triggers: Triggers::default(),
        stopping: CancellationToken::new(),
        abandon: CancellationToken::new(),
        last_served: Mutex::new(None),
        claims: AtomicU64::new(0),
        gathering: Mutex::default(),
        upkeep_running: AtomicUsize::new(0),
        world_failures: AtomicU32::new(0),
    });
    Ok((WorkerHandle(shared.clone()), WorkerTask(shared)))
}

impl WorkerTask {
    /// Runs until stopped. What is unfinished after the grace period is handed back, which counts as no attempt.
    pub async fn run(self) {
        let shared = self.0;
        let slots = Arc::new(Semaphore::new(shared.options.concurrency.max(1)));
        let mut running = JoinSet::new();
        let mut failures = 0u32;
        loop {
            while running.try_join_next().is_some() {}
            let slot = tokio::select! {
                () = shared.stopping.cancelled() => break,
                slot = slots.clone().acquire_owned() => slot,
            };
            let Ok(slot) = slot else { break };
            let queues = shared.open_queues();
            match claim(&shared, queues.clone()).await {
                Ok(Some(bundle)) => {
                    failures = 0;
                    running.spawn(run_bundle(shared.clone(), bundle, slot));
                }
                Ok(None) => {
                    failures = 0;
                    drop(slot);
                    shared.gather_after(&queues);
                    let pause =
                        shared.gathering_for().map_or(shared.options.poll, |left| left.min(shared.options.poll));
                    tokio::select! {
                        () = shared.stopping.cancelled() => break,
                        // A finished bundle may have opened a queue again.
                        Some(_) = running.join_next() => {}
                        () = shared.wait_for_work(&queues, pause) => {}
                    }
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, failures, "no work can be claimed");
                    tokio::select! {
                        () = shared.stopping.cancelled() => break,
                        () = tokio::time::sleep(backoff(failures)) => {}
                    }
                }
            }
        }
        let finished =
            tokio::time::timeout(shared.options.grace, async { while running.join_next().await.is_some() {} });
        if finished.await.is_err() {
            shared.abandon.cancel();
            while running.join_next().await.is_some() {}
        }
    }
}

/// 100 ms doubled with each failure in a row, at most 10 s.
fn backoff(failures: u32) -> Duration {
    Duration::from_millis(100u64 << failures.min(7)).min(Duration::from_secs(10))
}

impl Shared {
    /// The queues that may be claimed from now. Merges and rollups may take long, so the last slot is left to ingest: what
    /// arrives is queryable soon, whatever is being tidied up.
    fn open_queues(&self) -> Vec<WorkQueue> {
        let queues = &self.options.queues;
        let for_upkeep = self.options.concurrency.saturating_sub(1).max(1);
        let ingest: Vec<WorkQueue> = queues.iter().copied().filter(|queue| queue.action == Action::Ingest).collect();
        let is_upkeep_full = self.upkeep_running.load(Ordering::SeqCst) >= for_upkeep;
        let mut open = if ingest.is_empty() || !is_upkeep_full { queues.clone() } else { ingest };
        if self.gathering_for().is_some() {
            open.retain(|queue| queue.action != Action::Ingest);
        }
        open
    }

    /// How long what arrives still gathers before the next ingest bundle.
    fn gathering_for(&self) -> Option<Duration> {
        let left = self.gathering.lock().until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Nothing is left in these queues.
    fn gather_after(&self, queues: &[WorkQueue]) {
        if queues.iter().any(|queue| queue.action == Action::Ingest) {
            let mut gathering = self.gathering.lock();
            gathering.until = gathering.begun.take().map(|begun| begun + self.options.gather);
        }
    }

    fn note_begun(&self, bundle: &Bundle) {
        let options = &self.options;
        let bytes: u64 = bundle.items.iter().filter_map(|item| item.input.as_ref()).map(|input| input.size_bytes).sum();
        let is_full = bundle.items.len() >= options.bundle_items || bytes >= options.bundle_bytes / 2;
        self.gathering.lock().begun = (!is_full).then(Instant::now);
    }

    async fn wait_for_work(&self, queues: &[WorkQueue], at_most: Duration) {
        if queues.is_empty() {
            return tokio::time::sleep(at_most).await;
        }
        self.deps.metastore.wait_for_work(queues, at_most).await;
    }
}

async fn claim(shared: &Shared, queues: Vec<WorkQueue>) -> Result<Option<Bundle>> {
    if queues.is_empty() {
        return Ok(None);
    }
    let options = &shared.options;
    let after = *shared.last_served.lock();
    let request = ClaimRequest {
        queues: in_turn(&queues, shared.claims.fetch_add(1, Ordering::Relaxed)),
        max_items: options.bundle_items,
        max_bytes: options.bundle_bytes,
        lease: options.lease,
        worker: options.name.clone(),
        after,
    };
    let bundle = shared.deps.metastore.claim(&request).await?;
    if let Some(bundle) = &bundle {
        *shared.last_served.lock() = Some(bundle.organization);
        if bundle.queue.action == Action::Ingest {
            shared.note_begun(bundle);
        } else {
            shared.upkeep_running.fetch_add(1, Ordering::SeqCst);
        }
    }
    Ok(bundle)
}

/// The queues in the order of one claim: as wanted, but every fourth claim looks at the others first, so that compaction goes on
/// while more arrives than can be ingested.
fn in_turn(queues: &[WorkQueue], claim: u64) -> Vec<WorkQueue> {
    let mut turned = queues.to_vec();
    if claim % 4 == 3 {
        let by = (claim / 4) as usize % queues.len().max(1);
        turned.rotate_left(by);
    }
    turned
}

/// How work on a bundle ended, other than by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The result is committed.
    Published,
    /// The lease is another worker's; ours is refused.
    Lost,
    /// The process is stopping.
    Abandoned,
}

/// Gives the place of an upkeep bundle back, also after a panic.
struct UpkeepSlot(Arc<Shared>);

impl Drop for UpkeepSlot {
    fn drop(&mut self) {
        self.0.upkeep_running.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn run_bundle(shared: Arc<Shared>, bundle: Bundle, slot: OwnedSemaphorePermit) {
    let _upkeep = (bundle.queue.action != Action::Ingest).then(|| UpkeepSlot(shared.clone()));
    let span = span_of(&shared, &bundle);
    let keeper = lease::keep(shared.deps.metastore.clone(), bundle.token, shared.options.lease);
    let ending = tokio::select! {
        ending = perform(&shared, &bundle).instrument(span.clone()) => ending,
        () = keeper.lost() => Ok(Ending::Lost),
        () = shared.abandon.cancelled() => Ok(Ending::Abandoned),
    };
    drop(keeper);
    let counters = &shared.counters;
    match &ending {
        Ok(ending) => span.record("ending", tracing::field::debug(ending)),
        Err(error) => span.record("otel.status_code", "ERROR").record("error", tracing::field::display(error)),
    };
    match ending {
        Ok(Ending::Published) => {
            counters.published.fetch_add(1, Ordering::Relaxed);
            shared.world_failures.store(0, Ordering::Relaxed);
        }
        Ok(Ending::Lost) => {
            counters.lost.fetch_add(1, Ordering::Relaxed);
            tracing::info!(token = %bundle.token, "the lease was lost; another worker has the bundle");
        }
        Ok(Ending::Abandoned) => {
            if let Err(error) = shared.deps.metastore.hand_back(bundle.token).await {
                tracing::info!(token = %bundle.token, %error, "a bundle could not be handed back; its lease will expire");
            }
        }
        Err(error) => {
            counters.failed.fetch_add(1, Ordering::Relaxed);
            report_failure(&shared, &bundle, &error).await;
        }
    }
    drop(slot);
}

/// One span for a bundle; none for what servers tell of themselves, so that ingesting it does not make more of it.
fn span_of(shared: &Shared, bundle: &Bundle) -> Span {
    let is_own = |item: &WorkItem| item.input.as_ref().is_some_and(|input| input.collector == OWN_COLLECTOR);
    if shared.options.untraced == Some(bundle.organization) || bundle.items.iter().all(is_own) {
        return Span::none();
    }
    let bytes: u64 = bundle.items.iter().filter_map(|item| item.input.as_ref()).map(|input| input.size_bytes).sum();
    tracing::info_span!(
        "bundle",
        otel.name = format!("{} {}", bundle.queue.action, bundle.queue.signal),
        otel.status_code = tracing::field::Empty,
        organization = %bundle.organization,
        token = %bundle.token,
        // Signed, because OpenTelemetry has no other integers.
        items = bundle.items.len() as i64,
        bytes = bytes as i64,
        ending = tracing::field::Empty,
        error = tracing::field::Empty,
    )
}

async fn perform(shared: &Arc<Shared>, bundle: &Bundle) -> Result<Ending> {
    match bundle.queue.action {
        Action::Ingest => ingest::ingest(shared, bundle).await,
        Action::Compact => compact::compact(shared, bundle).await,
        Action::Rollup => rollup::roll_up(shared, bundle).await,
        Action::Job => {
            Err(Error::Invalid { operation: "work", reason: "jobs are performed by whoever submitted them".to_owned() })
        }
    }
}

/// What a work item asks for.
pub(crate) fn payload<T: DeserializeOwned>(item: &WorkItem) -> Result<T> {
    serde_json::from_value(item.payload.clone()).map_err(|error| Error::Invalid {
        operation: "read the payload of work",
        reason: format!("item {}: {error}: {}", item.id, item.payload),
    })
}

/// Reports a failure. What is the world's (a store that does not answer, a full disk) is no fault of the inputs: the bundle is
/// handed back and this slot pauses. Wrong input stays wrong and corrupt bytes stay corrupt, so those are permanent.
async fn report_failure(shared: &Shared, bundle: &Bundle, error: &Error) {
    let kind = error.kind();
    let items = bundle.items.len();
    tracing::warn!(token = %bundle.token, queue = ?bundle.queue, items, %kind, %error, "a bundle failed");
    let metastore = &shared.deps.metastore;
    if kind.is_retryable() {
        let failures = shared.world_failures.fetch_add(1, Ordering::Relaxed) + 1;
        if let Err(error) = metastore.hand_back(bundle.token).await {
            tracing::info!(token = %bundle.token, %error, "a bundle could not be handed back; its lease will expire");
        }
        tokio::select! {
            () = shared.stopping.cancelled() => {}
            () = tokio::time::sleep(backoff(failures).min(WORLD_PAUSE)) => {}
        }
        return;
    }
    let is_permanent = matches!(kind, ErrorKind::Invalid | ErrorKind::Corrupt);
    if let Err(error) = metastore.fail(bundle.token, &error.to_string(), is_permanent).await {
        tracing::info!(token = %bundle.token, %error, "the failure could not be reported; the lease will expire");
    }
}
