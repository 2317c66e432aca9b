//! The group-committing receiver: pushed requests become durable raw objects and inbox rows, then their senders are answered.
//!
//! Owns: identity, gathering, back-pressure. A sender is answered only after its records are in a durable raw object *and* the
//! inbox row is committed, so an acknowledged request is in the lake exactly once (I-1). A request that is repeated is
//! acknowledged and stored once. Never: transport (see [`crate::otlp_http`], [`crate::otlp_grpc`]) and encoding of segments.
//! Start with [`Receiver::push`]; [`commit`] is where the promise is kept.

mod budget;
mod check;
mod commit;
mod disk;
mod gather;
mod limits;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tidemill_segment::ingest::Issue;
use tidemill_segment::push::PushEncoding;
use tidemill_store::Metastore;
use tidemill_store::buckets::Buckets;
use tidemill_store::metastore::Refusal;
use tidemill_store::step::{Step, reach};
use tidemill_types::{OrganizationId, Signal, TimestampNs};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::clock::Clock;
pub use crate::intake::Compression;
use crate::place::Placement;
use crate::{Error, Result};

pub use budget::{MemoryBudget, Reservation};
pub use disk::{DiskLimits, DiskMonitor};
pub use gather::ReceiverTask;
pub use limits::Gate;

/// How the receiver gathers and what it bounds.
#[derive(Debug, Clone)]
pub struct ReceiverOptions {
    /// A group waits at most this long for more requests.
    pub gather: Duration,
    /// A group of one organization, collector and signal grows to at most this many bytes.
    pub group_bytes: usize,
    /// The largest request, uncompressed.
    pub max_request_bytes: usize,
    /// All requests that are being read, checked or committed hold at most this many bytes together.
    pub memory_bytes: usize,
    /// Groups that are being written at the same time.
    pub commits_in_flight: usize,
    /// Requests that are being decompressed and checked at the same time.
    pub checks_in_flight: usize,
}

impl Default for ReceiverOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            gather: Duration::from_millis(20),
            group_bytes: 8 << 20,
            max_request_bytes: 64 << 20,
            memory_bytes: 256 << 20,
            commits_in_flight: 2,
            checks_in_flight: cores,
        }
    }
}

/// What the receiver stands on.
#[derive(Debug, Clone)]
pub struct ReceiverDeps {
    /// Inbox and identities.
    pub metastore: Arc<dyn Metastore>,
    /// Raw objects.
    pub buckets: Arc<Buckets>,
    /// Which bucket serves a collector.
    pub placement: Arc<dyn Placement>,
    /// Arrival times.
    pub clock: Arc<dyn Clock>,
    /// Closed while ingest must wait, for example on a full disk.
    pub gate: Gate,
}

/// One pushed request.
#[derive(Debug)]
pub struct PushRequest {
    /// Whose data.
    pub organization: OrganizationId,
    /// Which signal.
    pub signal: Signal,
    /// The collector that sends it.
    pub collector: String,
    /// How the body is encoded.
    pub encoding: PushEncoding,
    /// How the body is compressed.
    pub compression: Compression,
    /// The body as it came.
    pub body: Bytes,
    /// The sender's own identity for the request; by default its content is.
    pub idempotency_key: Option<String>,
    /// When it arrived.
    pub arrival: TimestampNs,
    /// What the body already holds of the memory budget.
    pub reservation: Option<Reservation>,
}

/// What became of a request that is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushOutcome {
    /// Records that are durable now.
    pub accepted: u64,
    /// Records that were refused.
    pub rejected: u64,
    /// The first reasons, with their places.
    pub issues: Vec<Issue>,
}

/// Counts since the start, for metrics.
#[derive(Debug, Default)]
pub struct ReceiverCounters {
    /// Requests acknowledged.
    pub requests: AtomicU64,
    /// Requests acknowledged as repeats of a known one.
    pub repeats: AtomicU64,
    /// Requests turned away because of a bound.
    pub turned_away: AtomicU64,
    /// Requests that were malformed as a whole.
    pub malformed: AtomicU64,
    /// Records acknowledged.
    pub records: AtomicU64,
    /// Records refused in acknowledged requests.
    pub records_rejected: AtomicU64,
    /// Uncompressed bytes acknowledged.
    pub bytes: AtomicU64,
    /// Raw objects written.
    pub raw_objects: AtomicU64,
}

pub(crate) struct Shared {
    options: ReceiverOptions,
    deps: ReceiverDeps,
    budget: MemoryBudget,
    checks: Arc<Semaphore>,
    counters: ReceiverCounters,
}

/// A cheap handle to the receiver; the task ends once every handle is dropped.
#[derive(Clone)]
pub struct Receiver {
    shared: Arc<Shared>,
    arrivals: mpsc::Sender<gather::Arrival>,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// Builds a receiver: the handle that senders use, and the task that commits groups until every handle is dropped.
pub fn build(options: ReceiverOptions, deps: ReceiverDeps) -> (Receiver, ReceiverTask) {
    let shared = Arc::new(Shared {
        budget: MemoryBudget::new(options.memory_bytes),
        checks: Arc::new(Semaphore::new(options.checks_in_flight.max(1))),
        counters: ReceiverCounters::default(),
        options,
        deps,
    });
    let (arrivals, queue) = mpsc::channel(1024);
    (Receiver { shared: shared.clone(), arrivals }, ReceiverTask::new(shared, queue))
}

impl Receiver {
    /// An empty share of the memory budget, to be grown while a request's body is read.
    pub fn reservation(&self) -> Reservation {
        self.shared.budget.reservation()
    }

    /// The largest request, uncompressed.
    pub fn max_request_bytes(&self) -> usize {
        self.shared.options.max_request_bytes
    }

    /// The clock that arrival times are read from.
    pub fn now(&self) -> TimestampNs {
        self.shared.deps.clock.now()
    }

    /// Counts since the start.
    pub fn counters(&self) -> &ReceiverCounters {
        &self.shared.counters
    }

    /// Whether a request of this organization would be turned away right now; asked before its body is read.
    ///
    /// # Errors
    /// `Busy` with the reason and when to come again.
    pub fn check_open(&self, organization: OrganizationId) -> Result<()> {
        let opened = self.shared.deps.gate.check_for(organization);
        if opened.is_err() {
            self.shared.counters.turned_away.fetch_add(1, Ordering::Relaxed);
        }
        opened
    }

    /// Stores one request. When this returns `Ok`, its accepted records are durable and will be in the lake exactly once.
    ///
    /// # Errors
    /// `Invalid` for a request that is malformed as a whole or too large; `Busy` at a bound; `Unavailable` when a store failed,
    /// in which case the sender repeats the request: what was already stored is recognized.
    pub async fn push(&self, request: PushRequest) -> Result<PushOutcome> {
        let outcome = self.push_inner(request).await;
        let counters = &self.shared.counters;
        match &outcome {
            Ok(outcome) => {
                counters.requests.fetch_add(1, Ordering::Relaxed);
                counters.records.fetch_add(outcome.accepted, Ordering::Relaxed);
                counters.records_rejected.fetch_add(outcome.rejected, Ordering::Relaxed);
            }
            Err(Error::Busy { .. }) => drop(counters.turned_away.fetch_add(1, Ordering::Relaxed)),
            Err(Error::Invalid { .. }) => drop(counters.malformed.fetch_add(1, Ordering::Relaxed)),
            Err(_) => {}
        }
        outcome
    }

    async fn push_inner(&self, mut request: PushRequest) -> Result<PushOutcome> {
        let shared = &self.shared;
        shared.deps.gate.check()?;
        let place = shared.deps.placement.for_push(request.organization, &request.collector)?;
        if request.reservation.is_none() {
            let mut reservation = self.reservation();
            reservation.grow(request.body.len())?;
            request.reservation = Some(reservation);
        }
        let key = gather::GroupKey {
            organization: request.organization,
            collector: request.collector.clone(),
            signal: request.signal,
            place,
        };
        let checked = match self.check(request).await? {
            Ok(checked) => checked,
            Err(malformed) => return Err(self.refuse(&key, malformed)),
        };
        reach(Step::PushReceived);
        let outcome = PushOutcome { accepted: checked.records, rejected: checked.rejected, issues: checked.issues };
        // Nobody meets these again: where nothing is stored, and of JSON, whose wrong records are left out when it becomes protobuf.
        let untold = if checked.records == 0 { outcome.rejected } else { checked.left_out };
        if untold > 0 {
            let reason = crate::otlp_answer::partial_message(&outcome).unwrap_or_default();
            self.list_refusal(&key, (untold, checked.records), reason);
        }
        if checked.records == 0 {
            return Ok(outcome);
        }
        shared.deps.gate.rates().take(key.organization, checked.body.len() as u64)?;
        let (answer, answered) = oneshot::channel();
        let pending = gather::Pending {
            key,
            identity: checked.identity,
            body: checked.body,
            records: outcome.accepted,
            arrival: checked.arrival,
            answer,
            reservation: checked.reservation,
            span: tracing::Span::current(),
        };
        let stopping = || Error::Stopping("the receiver");
        self.arrivals.send(gather::Arrival::Push(pending)).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())??;
        Ok(outcome)
    }

    /// Decompresses, checks and hashes a request on the blocking pool.
    async fn check(&self, request: PushRequest) -> Result<std::result::Result<check::Checked, check::Malformed>> {
        let permit = self.shared.checks.clone().acquire_owned().await.map_err(|_| Error::Stopping("the receiver"))?;
        let max_bytes = self.shared.options.max_request_bytes;
        let checking = tokio::task::spawn_blocking(move || {
            let checked = check::check(request, max_bytes);
            drop(permit);
            checked
        });
        checking.await.map_err(|error| Error::Internal(format!("checking a pushed request: {error}")))?
    }

    /// Makes a malformed request visible in the inbox, and says what is wrong with it.
    fn refuse(&self, key: &gather::GroupKey, malformed: check::Malformed) -> Error {
        self.list_refusal(key, (0, 0), malformed.reason.clone());
        Error::Invalid { operation: "push", reason: malformed.reason }
    }

    fn list_refusal(&self, key: &gather::GroupKey, (records_refused, records_kept): (u64, u64), reason: String) {
        let refusal = Refusal {
            organization: Some(key.organization),
            signal: Some(key.signal),
            bucket: "push".to_owned(),
            object_key: key.collector.clone(),
            records_refused,
            records_kept,
            reason,
            at: self.shared.deps.clock.now(),
        };
        // Bounded: while the task is busy committing, further malformed requests are answered but not listed.
        if self.arrivals.try_send(gather::Arrival::Refused(key.place.bucket.clone(), refusal)).is_err() {
            tracing::debug!(organization = %key.organization, "a refused request is not listed in the inbox");
        }
    }
}
