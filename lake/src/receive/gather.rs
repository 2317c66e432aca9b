//! The task that gathers checked requests into batches and has each batch committed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidemill_store::metastore::{InputIdentity, Refusal};
use tidemill_types::{OrganizationId, Signal, TimestampNs};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::commit::{CommitFailure, commit};
use super::{Reservation, Shared};
use crate::place::Place;

/// How often the organizations' limits are read again.
const LIMITS_EVERY: Duration = Duration::from_secs(5);
/// A batch holds at most this many requests, so that one transaction stays short.
const BATCH_REQUESTS: usize = 4096;
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
}

/// What reaches the gathering task.
#[derive(Debug)]
pub(super) enum Arrival {
    Push(Pending),
    Refused(Refusal),
}

/// Commits groups until every [`super::Receiver`] is dropped and the last group is answered.
pub struct ReceiverTask {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Arrival>,
    batch: Vec<Pending>,
    batch_bytes: usize,
    refusals: Vec<Refusal>,
}

impl std::fmt::Debug for ReceiverTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiverTask").finish_non_exhaustive()
    }
}

impl ReceiverTask {
    pub(super) fn new(shared: Arc<Shared>, queue: mpsc::Receiver<Arrival>) -> Self {
        Self { shared, queue, batch: Vec::new(), batch_bytes: 0, refusals: Vec::new() }
    }

    /// Runs until every handle is dropped.
    pub async fn run(mut self) {
        let slots = self.shared.options.commits_in_flight.max(1);
        let in_flight = Arc::new(Semaphore::new(slots));
        let mut limits = tokio::time::interval(LIMITS_EVERY);
        limits.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let arrival = tokio::select! {
                arrival = self.queue.recv() => arrival,
                _ = limits.tick() => {
                    refresh_limits(&self.shared).await;
                    continue;
                }
            };
            let Some(arrival) = arrival else { break };
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
            Arrival::Refused(refusal) if self.refusals.len() < REFUSALS_KEPT => self.refusals.push(refusal),
            Arrival::Refused(_) => {}
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
        Ok(organizations) => shared.rates.refresh(&organizations, Instant::now()),
        Err(error) => {
            tracing::warn!(%error, "the organizations' ingest rates could not be read; the last known ones hold")
        }
    }
}
