//! The tasks that gather checked requests into batches and have each batch committed: one lane for each bucket.
//!
//! A bucket that is slow or down delays its own requests only: its lane fills, and further requests of it are answered `Busy`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidemill_store::metastore::{InputIdentity, Refusal};
use tidemill_types::{OrganizationId, Signal, TimestampNs};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::commit::{CommitFailure, commit};
use super::{MemoryBudget, Reservation, Shared};
use crate::place::Place;

/// How often the organizations' limits are read again.
const LIMITS_EVERY: Duration = Duration::from_secs(5);
/// A batch holds at most this many requests, so that one transaction stays short.
const BATCH_REQUESTS: usize = 4096;
/// Requests that wait in one lane.
const LANE_REQUESTS: usize = 1024;
/// Refusals kept between two commits.
const REFUSALS_KEPT: usize = 64;

/// What may share a raw object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct GroupKey {
    pub organization: OrganizationId,
    pub collector: String,
    pub signal: Signal,
    pub place: Place,
}

/// A checked request whose sender waits.
#[derive(Debug)]
pub(super) struct Pending {
    pub key: GroupKey,
    pub identity: InputIdentity,
    pub body: Bytes,
    pub records: u64,
    pub arrival: TimestampNs,
    pub answer: oneshot::Sender<Result<(), CommitFailure>>,
    pub reservation: Reservation,
    /// The sender's, where requests are traced.
    pub span: tracing::Span,
}

/// What reaches the gathering task, for the lane of a bucket.
#[derive(Debug)]
pub(super) enum Arrival {
    Push(Pending),
    Refused(String, Refusal),
}

/// Commits groups until every [`super::Receiver`] is dropped and the last group is answered.
pub struct ReceiverTask {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Arrival>,
    lanes: HashMap<String, Lane>,
    running: JoinSet<()>,
}

impl std::fmt::Debug for ReceiverTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiverTask").finish_non_exhaustive()
    }
}

/// The way to the task of one bucket.
struct Lane {
    queue: mpsc::Sender<Arrival>,
    /// Its share of the memory, so that one bucket that is down leaves room for the others.
    budget: MemoryBudget,
}

impl ReceiverTask {
    pub(super) fn new(shared: Arc<Shared>, queue: mpsc::Receiver<Arrival>) -> Self {
        Self { shared, queue, lanes: HashMap::new(), running: JoinSet::new() }
    }

    /// Runs until every handle is dropped.
    pub async fn run(mut self) {
        let mut limits = tokio::time::interval(LIMITS_EVERY);
        limits.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                arrival = self.queue.recv() => match arrival {
                    Some(arrival) => self.pass_on(arrival),
                    None => break,
                },
                _ = limits.tick() => refresh_limits(&self.shared).await,
            }
        }
        // Without their senders the lanes end once the last sender is answered.
        self.lanes.clear();
        while self.running.join_next().await.is_some() {}
    }

    fn pass_on(&mut self, arrival: Arrival) {
        let bucket = match &arrival {
            Arrival::Push(pending) => &pending.key.place.bucket,
            Arrival::Refused(bucket, _) => bucket,
        };
        if let Some(lane) = self.lanes.get(bucket) {
            return lane.send(arrival);
        }
        let bucket = bucket.clone();
        let lane = self.open_lane();
        lane.send(arrival);
        self.lanes.insert(bucket, lane);
    }

    fn open_lane(&mut self) -> Lane {
        let (sender, queue) = mpsc::channel(LANE_REQUESTS);
        let shared = self.shared.clone();
        let budget = MemoryBudget::new(shared.options.memory_bytes / 4 * 3);
        let lane = LaneTask { shared, queue, batch: Vec::new(), batch_bytes: 0, refusals: Vec::new() };
        self.running.spawn(lane.run());
        Lane { queue: sender, budget }
    }
}

impl Lane {
    /// Hands an arrival to the lane's task, or answers its sender at once when the lane is full.
    fn send(&self, arrival: Arrival) {
        let arrival = match arrival {
            Arrival::Push(mut pending) => {
                let mut share = self.budget.reservation();
                if share.grow(pending.body.len()).is_err() {
                    return turn_away(pending);
                }
                pending.reservation.join(share);
                Arrival::Push(pending)
            }
            refused @ Arrival::Refused(..) => refused,
        };
        // A refusal that finds no room is not listed; a closed lane drops its sender, which the receiver notices.
        if let Err(mpsc::error::TrySendError::Full(Arrival::Push(pending))) = self.queue.try_send(arrival) {
            turn_away(pending);
        }
    }
}

fn turn_away(pending: Pending) {
    let bucket = &pending.key.place.bucket;
    let failure = CommitFailure::busy(format!("the bucket {bucket} takes writes more slowly than they arrive"));
    drop(pending.answer.send(Err(failure)));
}

/// Gathers and commits what goes to one bucket.
struct LaneTask {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Arrival>,
    batch: Vec<Pending>,
    batch_bytes: usize,
    refusals: Vec<Refusal>,
}

impl LaneTask {
    async fn run(mut self) {
        let slots = self.shared.options.commits_in_flight.max(1);
        let in_flight = Arc::new(Semaphore::new(slots));
        while let Some(arrival) = self.queue.recv().await {
            self.take(arrival);
            self.gather().await;
            // While the earlier groups are written, this one goes on growing.
            let Ok(slot) = in_flight.clone().acquire_owned().await else { break };
            self.drain();
            let (shared, batch) = (self.shared.clone(), std::mem::take(&mut self.batch));
            let refusals = std::mem::take(&mut self.refusals);
            self.batch_bytes = 0;
            tokio::spawn(async move {
                if !refusals.is_empty()
                    && let Err(error) = shared.deps.metastore.record_refusals(&refusals).await
                {
                    tracing::warn!(%error, "malformed requests could not be listed in the inbox");
                }
                commit(&shared, batch).await;
                drop(slot);
            });
        }
        // Every slot free: the last senders are answered.
        let all = u32::try_from(slots).unwrap_or(u32::MAX);
        drop(in_flight.acquire_many(all).await);
    }

    fn take(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Push(pending) => {
                self.batch_bytes += pending.body.len();
                self.batch.push(pending);
            }
            Arrival::Refused(_, refusal) if self.refusals.len() < REFUSALS_KEPT => self.refusals.push(refusal),
            Arrival::Refused(..) => {}
        }
    }

    fn is_full(&self) -> bool {
        self.batch_bytes >= self.shared.options.group_bytes || self.batch.len() >= BATCH_REQUESTS
    }

    async fn gather(&mut self) {
        let until = tokio::time::Instant::now() + self.shared.options.gather;
        while !self.is_full() {
            match tokio::time::timeout_at(until, self.queue.recv()).await {
                Ok(Some(arrival)) => self.take(arrival),
                Ok(None) | Err(_) => break,
            }
        }
    }

    fn drain(&mut self) {
        while !self.is_full() {
            match self.queue.try_recv() {
                Ok(arrival) => self.take(arrival),
                Err(_) => break,
            }
        }
    }
}

async fn refresh_limits(shared: &Shared) {
    match shared.deps.metastore.organizations().await {
        Ok(organizations) => shared.deps.gate.rates().refresh(&organizations, Instant::now()),
        Err(error) => {
            tracing::warn!(%error, "the organizations' ingest rates could not be read; the last known ones hold")
        }
    }
}
