//! One batch becomes raw objects, inbox rows, and answers, in this order.
//!
//! A crash before `admit` leaves raw objects that nothing refers to, which the sweeper finds by key; a crash after it leaves
//! senders without an answer, whose repeated requests are recognized by their identities.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use tidemill_segment::ingest::InputFormat;
use tidemill_store::metastore::{Admission, InputIdentity, NewInput};
use tidemill_store::object::{ObjectInfo, PutBody, PutMode};
use tidemill_store::step::{Step, reach};
use tidemill_types::keys::push_object_key;
use tidemill_types::{ErrorKind, TimestampNs};
use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use super::gather::{GroupKey, Pending};
use super::{Reservation, Shared};
use crate::raw_object::{Part, encode_trailer};
use crate::{Error, Result};

/// Raw objects written at the same time.
const PUTS_IN_FLIGHT: usize = 8;
/// Each round removes at least one known request from each group that is left, and two are the rule.
const ROUNDS: usize = 8;
/// After this long between put and admission the sweeper might have taken the object for an orphan, so it is looked up again.
const SWEEP_MARGIN: Duration = Duration::from_secs(300);

/// Why a sender's group was not stored; shared by all senders of the group.
#[derive(Debug, Clone)]
pub(super) struct CommitFailure {
    kind: ErrorKind,
    reason: String,
}

impl From<CommitFailure> for Error {
    fn from(failure: CommitFailure) -> Self {
        match failure.kind {
            ErrorKind::Busy => Self::Busy { reason: failure.reason, retry_after: Duration::from_secs(5) },
            ErrorKind::Invalid => Self::Invalid { operation: "push", reason: failure.reason },
            // A sender must repeat what was not stored, whatever the store called it.
            _ => Self::NotStored { kind: ErrorKind::Unavailable, reason: failure.reason },
        }
    }
}

impl From<Error> for CommitFailure {
    fn from(error: Error) -> Self {
        // What a store does not find or refuses is no mistake of the sender's.
        let kind = if error.kind() == ErrorKind::Busy { ErrorKind::Busy } else { ErrorKind::Unavailable };
        Self { kind, reason: error.to_string() }
    }
}

impl CommitFailure {
    /// A bound was reached before the request was written.
    pub(super) fn busy(reason: String) -> Self {
        Self { kind: ErrorKind::Busy, reason }
    }

    /// The metastore does not admit it: an organization that is being deleted is gone for the sender.
    fn of_admission(error: &tidemill_store::Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::NotFound => ErrorKind::Invalid,
            ErrorKind::Busy => ErrorKind::Busy,
            _ => ErrorKind::Unavailable,
        };
        Self { kind, reason: error.to_string() }
    }
}

/// One request of a batch, with everyone who sent it.
struct Entry {
    identity: InputIdentity,
    body: Bytes,
    records: u64,
    arrival: TimestampNs,
    waiters: Vec<oneshot::Sender<std::result::Result<(), CommitFailure>>>,
    /// Held until the waiters are answered.
    _reservation: Reservation,
}

/// Requests that share one raw object.
struct Group {
    key: GroupKey,
    entries: Vec<Entry>,
    bytes: usize,
}

struct Stored {
    group: Group,
    object: ObjectInfo,
    at: Instant,
}

/// Links of a batch's span to the requests in it.
const MAX_LINKS: usize = 32;

/// Commits a batch and answers every sender.
pub(super) async fn commit(shared: &Shared, batch: Vec<Pending>) {
    let span = span_of(&batch);
    commit_batch(shared, batch).instrument(span).await;
}

/// A batch belongs to the trace of its first traced request and is linked to the others; where none is traced, as what this
/// process tells of itself never is, there is no span.
fn span_of(batch: &[Pending]) -> Span {
    let mut traced = batch.iter().map(|pending| &pending.span).filter(|span| !span.is_disabled());
    let Some(first) = traced.next() else { return Span::none() };
    let bytes: usize = batch.iter().map(|pending| pending.body.len()).sum();
    let records: u64 = batch.iter().map(|pending| pending.records).sum();
    // Signed, because OpenTelemetry has no other integers.
    let (requests, records, bytes) = (batch.len() as i64, records as i64, bytes as i64);
    let span = tracing::info_span!(parent: first, "commit pushes", requests, records, bytes);
    for other in traced.take(MAX_LINKS) {
        span.follows_from(other);
    }
    span
}

async fn commit_batch(shared: &Shared, batch: Vec<Pending>) {
    let mut groups = group(shared, batch).await;
    for _ in 0..ROUNDS {
        if groups.is_empty() {
            return;
        }
        groups = commit_round(shared, groups).await;
    }
    for group in groups {
        fail(
            group,
            &CommitFailure {
                kind: ErrorKind::Internal,
                reason: "the group kept changing while it was admitted".to_owned(),
            },
        );
    }
}

/// Collapses repeats within the batch, answers what is known already, and groups the rest.
async fn group(shared: &Shared, batch: Vec<Pending>) -> Vec<Group> {
    let mut places: HashMap<InputIdentity, usize> = HashMap::new();
    let mut entries: Vec<(GroupKey, Entry)> = Vec::with_capacity(batch.len());
    for pending in batch {
        if let Some(place) = places.get(&pending.identity) {
            shared.counters.repeats.fetch_add(1, Ordering::Relaxed);
            entries[*place].1.waiters.push(pending.answer);
            continue;
        }
        places.insert(pending.identity, entries.len());
        let entry = Entry {
            identity: pending.identity,
            body: pending.body,
            records: pending.records,
            arrival: pending.arrival,
            waiters: vec![pending.answer],
            _reservation: pending.reservation,
        };
        entries.push((pending.key, entry));
    }
    if entries.is_empty() {
        return Vec::new();
    }
    let identities: Vec<InputIdentity> = entries.iter().map(|(_, entry)| entry.identity).collect();
    let known = match shared.deps.metastore.known_identities(&identities).await {
        Ok(known) => known,
        Err(error) => {
            let failure = CommitFailure::from(Error::from(error));
            entries.into_iter().for_each(|(_, entry)| answer(entry, &Err(failure.clone())));
            return Vec::new();
        }
    };
    let mut groups: Vec<Group> = Vec::new();
    let mut open: HashMap<GroupKey, usize> = HashMap::new();
    for ((key, entry), known) in entries.into_iter().zip(known) {
        if known {
            shared.counters.repeats.fetch_add(1, Ordering::Relaxed);
            answer(entry, &Ok(()));
            continue;
        }
        let fits = |group: &Group| group.bytes + entry.body.len() <= shared.options.group_bytes;
        match open.get(&key).copied().filter(|place| fits(&groups[*place])) {
            Some(place) => groups[place].push(entry),
            None => {
                open.insert(key.clone(), groups.len());
                groups.push(Group { key, bytes: entry.body.len(), entries: vec![entry] });
            }
        }
    }
    groups
}

impl Group {
    fn push(&mut self, entry: Entry) {
        self.bytes += entry.body.len();
        self.entries.push(entry);
    }
}

/// Writes, admits and answers; returns the groups that must be written again without the requests that were known.
async fn commit_round(shared: &Shared, groups: Vec<Group>) -> Vec<Group> {
    let mut stored = Vec::with_capacity(groups.len());
    let mut puts = stream::iter(groups).map(|group| put(shared, group)).buffer_unordered(PUTS_IN_FLIGHT);
    while let Some((group, result)) = puts.next().await {
        match result {
            Ok(object) => stored.push(Stored { group, object, at: Instant::now() }),
            Err(error) => {
                tracing::warn!(%error, "a raw object could not be written; its senders are told to repeat");
                fail(group, &error.into());
            }
        }
    }
    drop(puts);
    if stored.is_empty() {
        return Vec::new();
    }
    reach(Step::RawStored);
    let (stored, admissions) = match admit(shared, stored).await {
        Ok(admitted) => admitted,
        Err(answered) => return answered,
    };
    reach(Step::Admitted);
    let mut again = Vec::new();
    for (stored, admission) in stored.into_iter().zip(admissions) {
        match admission {
            Admission::Admitted(_) => finish(shared, stored).await,
            Admission::Known(places) => again.extend(without_known(shared, stored, &places).await),
        }
    }
    reach(Step::Acknowledged);
    again
}

/// Admits all groups in one transaction. The error is what is left to do after everyone was answered: nothing.
async fn admit(shared: &Shared, stored: Vec<Stored>) -> std::result::Result<(Vec<Stored>, Vec<Admission>), Vec<Group>> {
    let inputs: Vec<NewInput> = stored.iter().map(new_input).collect();
    match shared.deps.metastore.admit(&inputs).await {
        Ok(admissions) if admissions.len() == inputs.len() => Ok((stored, admissions)),
        Ok(admissions) => {
            let reason = format!("{} inputs gave {} admissions", inputs.len(), admissions.len());
            Err(fail_all(stored, &CommitFailure { kind: ErrorKind::Internal, reason }))
        }
        // One organization is being deleted; that is no reason to turn the others away.
        Err(error) if error.kind() == ErrorKind::NotFound && stored.len() > 1 => {
            Ok(admit_one_by_one(shared, stored).await)
        }
        Err(error) => Err(fail_all(stored, &CommitFailure::of_admission(&error))),
    }
}

async fn admit_one_by_one(shared: &Shared, stored: Vec<Stored>) -> (Vec<Stored>, Vec<Admission>) {
    let (mut left, mut admissions) = (Vec::new(), Vec::new());
    for stored in stored {
        match shared.deps.metastore.admit(&[new_input(&stored)]).await {
            Ok(mut one) if one.len() == 1 => {
                admissions.append(&mut one);
                left.push(stored);
            }
            Ok(_) => {
                let reason = "one input gave no admission".to_owned();
                fail(stored.group, &CommitFailure { kind: ErrorKind::Internal, reason });
            }
            Err(error) => fail(stored.group, &CommitFailure::of_admission(&error)),
        }
    }
    (left, admissions)
}

async fn put(shared: &Shared, group: Group) -> (Group, Result<ObjectInfo>) {
    let day = group.entries[0].arrival.day();
    let object_key =
        push_object_key(group.key.organization, group.key.signal, day, &Uuid::now_v7().simple().to_string());
    let result = put_at(shared, &group, &object_key).await;
    (group, result)
}

async fn put_at(shared: &Shared, group: &Group, object_key: &str) -> Result<ObjectInfo> {
    let store = shared.deps.buckets.get(&group.key.place.bucket)?;
    // Concatenated OTLP requests are one valid request: every field of theirs is repeated.
    let mut chunks: Vec<Bytes> = group.entries.iter().map(|entry| entry.body.clone()).collect();
    let parts = group.entries.iter().map(|entry| Part { identity: entry.identity, bytes: entry.body.len() as u64 });
    let trailer = encode_trailer(&parts.collect::<Vec<_>>());
    let bytes = group.bytes + trailer.len();
    chunks.push(trailer);
    let object = store.put(object_key, PutBody::Chunks(chunks), PutMode::IfAbsent).await?;
    shared.counters.raw_objects.fetch_add(1, Ordering::Relaxed);
    Ok(ObjectInfo { key: object_key.to_owned(), size: bytes as u64, ..object })
}

fn new_input(stored: &Stored) -> NewInput {
    let Stored { group, object, .. } = stored;
    NewInput {
        organization: group.key.organization,
        instance_num: group.key.place.instance_num,
        collector: group.key.collector.clone(),
        signal: group.key.signal,
        bucket: group.key.place.bucket.clone(),
        object_key: object.key.clone(),
        etag: object.etag.clone(),
        size_bytes: object.size,
        records: Some(group.entries.iter().map(|entry| entry.records).sum()),
        identities: group.entries.iter().map(|entry| entry.identity).collect(),
        arrived_at: group.entries.iter().map(|entry| entry.arrival).min().unwrap_or_default(),
        owned: true,
        priority: 0,
        format: Some(InputFormat::OtlpProtobuf.as_str().to_owned()),
    }
}

/// Answers the senders of an admitted group.
async fn finish(shared: &Shared, stored: Stored) {
    let Stored { group, object, at } = stored;
    // The process may have been stopped for so long that the sweeper deleted the object before it was admitted. The bytes are
    // still here, and nobody was answered yet.
    if at.elapsed() > SWEEP_MARGIN
        && let Err(error) = restore_if_swept(shared, &group, &object.key).await
    {
        return fail(group, &error.into());
    }
    shared.counters.bytes.fetch_add(group.bytes as u64, Ordering::Relaxed);
    group.entries.into_iter().for_each(|entry| answer(entry, &Ok(())));
}

async fn restore_if_swept(shared: &Shared, group: &Group, object_key: &str) -> Result<()> {
    let store = shared.deps.buckets.get(&group.key.place.bucket)?;
    match store.head(object_key).await {
        Err(error) if error.kind() == ErrorKind::NotFound => put_at(shared, group, object_key).await.map(drop),
        other => Ok(other.map(drop)?),
    }
}

/// Answers the known requests of a group that was not admitted, and returns what is left of it.
async fn without_known(shared: &Shared, stored: Stored, known: &[usize]) -> Option<Group> {
    let Stored { group, object, .. } = stored;
    // Nothing refers to the object, unless a rebuild of the catalog just admitted it; where this fails the sweeper finds it.
    let is_unused =
        matches!(shared.deps.metastore.referenced(std::slice::from_ref(&object.key)).await.as_deref(), Ok([false]));
    if is_unused
        && let Ok(store) = shared.deps.buckets.get(&group.key.place.bucket)
        && let Err(error) = store.delete(&object.key).await
    {
        tracing::debug!(%error, "an unused raw object is left to the sweeper");
    }
    let mut left = Group { key: group.key, entries: Vec::new(), bytes: 0 };
    for (place, entry) in group.entries.into_iter().enumerate() {
        if known.contains(&place) {
            shared.counters.repeats.fetch_add(1, Ordering::Relaxed);
            answer(entry, &Ok(()));
        } else {
            left.push(entry);
        }
    }
    Some(left).filter(|group| !group.entries.is_empty())
}

fn answer(entry: Entry, result: &std::result::Result<(), CommitFailure>) {
    for waiter in entry.waiters {
        // A sender that went away is nobody's loss: its records are stored, or it will repeat them.
        drop(waiter.send(result.clone()));
    }
}

fn fail(group: Group, failure: &CommitFailure) {
    group.entries.into_iter().for_each(|entry| answer(entry, &Err(failure.clone())));
}

fn fail_all(stored: Vec<Stored>, failure: &CommitFailure) -> Vec<Group> {
    tracing::warn!(reason = failure.reason, "a batch could not be admitted; its senders are told to repeat");
    stored.into_iter().for_each(|stored| fail(stored.group, failure));
    Vec::new()
}
