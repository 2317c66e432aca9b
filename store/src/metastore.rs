//! The metastore: inbox, work queue, catalog and configuration in one database.
//!
//! Two backends, SQLite (embedded) and PostgreSQL 16 or later, behave alike; `tests/metastore_suite.rs` runs over both.
//! All times are the database's own clock.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tidemill_types::{
    Action, CatalogSeq, Day, Hour, LeaseToken, Level, OrganizationId, SegmentId, SegmentMeta, Signal, Tier, TimeRange,
    TimestampNs, WorkId, WorkQueue,
};

use crate::Result;

/// An organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Organization {
    /// Identity.
    pub id: OrganizationId,
    /// Unique display name.
    pub name: String,
    /// When it was created.
    pub created_at: TimestampNs,
    /// Set while its data is being deleted.
    pub deleting: bool,
    /// Days kept per signal, in the order of [`Signal::ALL`]; `None` keeps for ever.
    pub retention_days: [Option<u32>; 3],
    /// Accepted bytes a second over all inputs, `None` for no limit.
    pub ingest_bytes_per_second: Option<u64>,
}

/// What an API key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyRole {
    /// Write and read one organization.
    Organization,
    /// Operate the installation; notifications for any organization.
    Operator,
}

/// A stored API key; the key itself is known only to its holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// A short public id (its first characters), for listing and revoking.
    pub id: String,
    /// SHA-256 of the key.
    #[serde(skip)]
    pub hash: [u8; 32],
    /// Whose key; `None` for an operator's.
    pub organization: Option<OrganizationId>,
    /// What it may do.
    pub role: KeyRole,
    /// A note for people.
    pub label: String,
    /// When it was created.
    pub created_at: TimestampNs,
}

/// The identity of an input, remembered for 24 h (push) or for ever within the ledger's days (objects).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InputIdentity(pub [u8; 32]);

/// An input that was taken in before, as a segment lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RememberedInput {
    /// Its identity.
    pub identity: InputIdentity,
    /// When it arrived; it is remembered as long as if it had been admitted then.
    pub arrived_at: TimestampNs,
    /// A pushed request, not an object.
    pub owned: bool,
}

/// An input to be admitted: it becomes one ingest work item, which is its inbox row.
///
/// Several pushed requests may share one raw object: `identities` has one per request, and a request whose identity is already
/// known must not be in the object (the receiver asks [`Metastore::known_identities`] before it writes, and `admit` decides).
#[derive(Debug, Clone)]
pub struct NewInput {
    /// Whose data.
    pub organization: OrganizationId,
    /// The storage profile instance.
    pub instance_num: i32,
    /// The collector's name.
    pub collector: String,
    /// Which signal.
    pub signal: Signal,
    /// Where the object lies.
    pub bucket: String,
    /// Its path.
    pub object_key: String,
    /// Its version; read with If-Match.
    pub etag: Option<String>,
    /// Its size in bytes as stored.
    pub size_bytes: u64,
    /// Records, where known.
    pub records: Option<u64>,
    /// One hash per request (push) or one for the object. A claim brings back only an object's: a raw object lists its own.
    pub identities: Vec<InputIdentity>,
    /// When it arrived at our door.
    pub arrived_at: TimestampNs,
    /// A raw push object of our own: deleted after publication plus a grace.
    pub owned: bool,
    /// Live push goes before backfill: lower is first. 0 push, 10 notification, 20 backfill.
    pub priority: i16,
    /// Format hint (`otlp-protobuf`, `otlp-json`, `json-lines`, `csv`, `parquet`), `None` to recognize by name and content.
    pub format: Option<String>,
}

impl NewInput {
    /// The queue in which it waits.
    pub fn queue(&self) -> WorkQueue {
        WorkQueue { signal: self.signal, action: Action::Ingest }
    }
}

/// What became of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Admitted as this work item.
    Admitted(WorkId),
    /// These of its identities (by place) were already known; nothing of the input was stored. For a push of several
    /// requests the receiver writes the group again without them.
    Known(Vec<usize>),
}

/// An input, or a part of one, that was refused, with the reason a person can act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Whose data, where known.
    pub organization: Option<OrganizationId>,
    /// Which signal, where known.
    pub signal: Option<Signal>,
    /// The bucket, or `push`.
    pub bucket: String,
    /// The object's path or the request's address.
    pub object_key: String,
    /// Records refused; 0 when the whole input could not be read.
    pub records_refused: u64,
    /// Records of the same input that were kept.
    pub records_kept: u64,
    /// The first reasons with their places, one a line, bounded.
    pub reason: String,
    /// When.
    pub at: TimestampNs,
}

/// A row of `tidemill inbox`: waiting, leased, or refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InboxEntry {
    /// The work item, `None` for a refusal.
    pub work: Option<WorkId>,
    /// `waiting`, `leased`, `dead` or `refused`.
    pub state: String,
    /// Whose data.
    pub organization: Option<OrganizationId>,
    /// Which signal.
    pub signal: Option<Signal>,
    /// Where the input lies.
    pub bucket: String,
    /// Its path.
    pub object_key: String,
    /// Its size.
    pub size_bytes: u64,
    /// When it arrived or was refused.
    pub at: TimestampNs,
    /// Attempts that ended with an error.
    pub failures: u32,
    /// Attempts that ended without a report.
    pub crashes: u32,
    /// Why it is refused, dead or waiting.
    pub reason: Option<String>,
}

/// Work to be enqueued.
#[derive(Debug, Clone)]
pub struct NewWork {
    /// Which queue.
    pub queue: WorkQueue,
    /// Whose work.
    pub organization: OrganizationId,
    /// The storage profile instance.
    pub instance_num: i32,
    /// Lower is first.
    pub priority: i16,
    /// Not before this long from now.
    pub delay: Duration,
    /// One live item per (queue, organization, key): enqueueing again moves `runnable_at` earlier; while it is leased, it runs
    /// once more after completion.
    pub dedupe_key: Option<String>,
    /// The hour or day it is about, for the KEDA views.
    pub range: Option<TimeRange>,
    /// The rollup window for the views; raw otherwise.
    pub tier: Tier,
    /// Counts toward a bundle's byte budget.
    pub size_bytes: u64,
    /// What to do, as JSON whose shape belongs to the action (at most 64 KiB).
    pub payload: serde_json::Value,
}

/// What a worker asks for.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// The queues it serves, most wanted first.
    pub queues: Vec<WorkQueue>,
    /// At most this many items.
    pub max_items: usize,
    /// At most this many bytes, but at least one item.
    pub max_bytes: u64,
    /// How long the lease lasts unless extended.
    pub lease: Duration,
    /// Who claims, for people: host, process, role.
    pub worker: String,
    /// Serve the organization after this one first (fairness is a ring over organizations that have work).
    pub after: Option<OrganizationId>,
}

/// A claimed item.
#[derive(Debug, Clone)]
pub struct WorkItem {
    /// Identity.
    pub id: WorkId,
    /// Attempts that ended with an error.
    pub failures: u32,
    /// Attempts that ended without a report.
    pub crashes: u32,
    /// When it was enqueued.
    pub created_at: TimestampNs,
    /// For ingest: the input. For others: `payload`.
    pub input: Option<NewInput>,
    /// What to do.
    pub payload: serde_json::Value,
}

/// Items of one queue, one organization and one storage profile instance under one lease.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The lease.
    pub token: LeaseToken,
    /// Which queue.
    pub queue: WorkQueue,
    /// Whose work.
    pub organization: OrganizationId,
    /// The storage profile instance.
    pub instance_num: i32,
    /// The items, oldest first.
    pub items: Vec<WorkItem>,
}

/// The day index of an organization's traces in one storage profile instance: where its object lies, and what it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceDay {
    /// Whose traces.
    pub organization: OrganizationId,
    /// The storage profile instance whose segments it covers.
    pub instance_num: i32,
    /// Their day.
    pub day: Day,
    /// Which bucket.
    pub bucket: String,
    /// Which object.
    pub object_key: String,
    /// Size of the object.
    pub bytes: u64,
    /// Bytes at the object's end that a reader keeps: they tell where everything else is.
    pub tail_bytes: u64,
    /// The segments all of whose traces it has. Of others it says nothing.
    pub segments: Vec<SegmentId>,
}

/// A day index that becomes the current one of its organization, instance and day.
#[derive(Debug, Clone)]
pub struct TraceDayChange {
    /// The new one.
    pub index: TraceDay,
    /// Object key of the one that it replaces, `None` for the first. If another is current, nothing happens (`Conflict`).
    pub replaces: Option<String>,
}

/// The result of a bundle, committed at once.
#[derive(Debug, Clone, Default)]
pub struct Publication {
    /// Segments to insert.
    pub segments: Vec<SegmentMeta>,
    /// Live segments that the new ones replace; if one is no longer live, nothing happens (`Conflict`).
    pub replaces: Vec<SegmentId>,
    /// Day indexes of traces that become current; the objects of those that they replace are doomed.
    pub trace_days: Vec<TraceDayChange>,
    /// Hours of the new rows whose `ingest_seq` is raised (ingest only).
    pub raised_hours: Vec<Hour>,
    /// Follow-ups.
    pub enqueue: Vec<NewWork>,
    /// Records or inputs refused while reading.
    pub refusals: Vec<Refusal>,
    /// Objects written under this lease that are not published (so that they are swept at once).
    pub orphans: Vec<DoomedObject>,
}

/// An object to be deleted once its grace is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoomedObject {
    /// Which bucket.
    pub bucket: String,
    /// Which object.
    pub object_key: String,
}

/// One queue's backlog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    /// Which queue.
    pub queue: WorkQueue,
    /// Claimable now.
    pub runnable: u64,
    /// Waiting for their time (delay or backoff).
    pub delayed: u64,
    /// Under a live lease.
    pub leased: u64,
    /// Bytes of what is runnable.
    pub runnable_bytes: u64,
    /// The oldest runnable item's arrival.
    pub oldest: Option<TimestampNs>,
    /// Dead letters.
    pub dead: u64,
}

/// A row of `tidemill queue`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueEntry {
    /// Identity.
    pub id: WorkId,
    /// Which queue.
    pub queue: WorkQueue,
    /// Whose work.
    pub organization: OrganizationId,
    /// `runnable`, `delayed`, `leased` or `dead`.
    pub state: String,
    /// When it was enqueued.
    pub created_at: TimestampNs,
    /// When it may run.
    pub runnable_at: TimestampNs,
    /// Attempts that ended with an error.
    pub failures: u32,
    /// Attempts that ended without a report.
    pub crashes: u32,
    /// Who holds it.
    pub worker: Option<String>,
    /// The last error.
    pub last_error: Option<String>,
    /// What it asks for.
    pub payload: serde_json::Value,
}

/// What happened to the catalog since a position.
#[derive(Debug, Clone, Default)]
pub struct CatalogDelta {
    /// Position after these changes.
    pub seq: CatalogSeq,
    /// Segments that became live, in commit order.
    pub added: Vec<SegmentMeta>,
    /// Segments that are no longer live.
    pub removed: Vec<SegmentId>,
    /// Hours whose `ingest_seq` changed: organization, signal, hour, new value.
    pub hours: Vec<(OrganizationId, Signal, Hour, i64)>,
    /// Whether more changes follow.
    pub more: bool,
}

/// Which live segments to list.
#[derive(Debug, Clone, Default)]
pub struct SegmentFilter {
    /// Only this organization.
    pub organization: Option<OrganizationId>,
    /// Only this signal.
    pub signal: Option<Signal>,
    /// Only this tier.
    pub tier: Option<Tier>,
    /// Only this day.
    pub day: Option<Day>,
    /// Only those that overlap this.
    pub time: Option<TimeRange>,
    /// Only the one with this id.
    pub id: Option<SegmentId>,
    /// Only so many, those that reach into the latest times first; without, all of them by organization, signal, day and time.
    pub latest: Option<usize>,
}

/// The live segments of one kind, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentTotals {
    /// Their signal.
    pub signal: Signal,
    /// Raw rows, or a rollup's window.
    pub tier: Tier,
    /// Their level.
    pub level: Level,
    /// How many segments.
    pub segments: u64,
    /// Their rows.
    pub rows: u64,
    /// Their size.
    pub bytes: u64,
}

/// The database. Every method is one transaction; an `Err` means nothing happened, except where the connection broke during
/// commit: then the caller may repeat the call (publishing twice under one token is refused, admitting twice is known).
#[async_trait]
pub trait Metastore: Send + Sync + std::fmt::Debug + 'static {
    /// `sqlite` or `postgresql`, with its version.
    fn describe(&self) -> String;

    /// The database's clock.
    async fn now(&self) -> Result<TimestampNs>;

    // Organizations, keys, documents.

    /// Creates an organization; `Conflict` when the name or id is taken.
    async fn create_organization(&self, id: OrganizationId, name: &str) -> Result<Organization>;
    /// Lists organizations by name.
    async fn organizations(&self) -> Result<Vec<Organization>>;
    /// Changes retention and limits; `NotFound` otherwise.
    async fn update_organization(&self, organization: &Organization) -> Result<()>;
    /// Begins the deletion of all an organization has: keys are gone and work is cancelled at once, its objects are doomed, and
    /// the sweeper finishes. `NotFound` otherwise.
    async fn delete_organization(&self, id: OrganizationId) -> Result<()>;
    /// Stores a key.
    async fn create_key(&self, key: &ApiKey) -> Result<()>;
    /// Lists the keys of one organization, or all.
    async fn keys(&self, organization: Option<OrganizationId>) -> Result<Vec<ApiKey>>;
    /// Revokes a key by its public id; `NotFound` otherwise.
    async fn revoke_key(&self, id: &str) -> Result<()>;
    /// A named configuration document (`storage-profiles` …), with its version.
    async fn document(&self, name: &str) -> Result<Option<String>>;
    /// Replaces a document.
    async fn store_document(&self, name: &str, body: &str) -> Result<()>;

    // Inbox.

    /// Which of these identities are already known.
    async fn known_identities(&self, identities: &[InputIdentity]) -> Result<Vec<bool>>;
    /// Remembers the identities of inputs that were taken in before (`catalog rebuild`); those whose time is over are left out.
    async fn remember_inputs(&self, inputs: &[RememberedInput]) -> Result<()>;
    /// Admits inputs, all in one transaction; each is admitted or known on its own.
    async fn admit(&self, inputs: &[NewInput]) -> Result<Vec<Admission>>;
    /// Records refusals that happened before admission.
    async fn record_refusals(&self, refusals: &[Refusal]) -> Result<()>;
    /// The inbox, newest first.
    async fn inbox(&self, organization: Option<OrganizationId>, limit: usize) -> Result<Vec<InboxEntry>>;

    // Work.

    /// Enqueues work.
    async fn enqueue(&self, work: &[NewWork]) -> Result<()>;
    /// Claims a bundle, or says that nothing is claimable. Expired leases count as crashes here.
    async fn claim(&self, request: &ClaimRequest) -> Result<Option<Bundle>>;
    /// Extends a lease; `Conflict` when it is no longer current.
    async fn extend_lease(&self, token: LeaseToken, lease: Duration) -> Result<()>;
    /// Gives a bundle back unworked: no attempt is counted.
    async fn hand_back(&self, token: LeaseToken) -> Result<()>;
    /// Reports that a bundle failed. With several items, nothing is blamed: they are split. One item alone is retried with
    /// backoff, or dead-lettered when `is_permanent` or after its last attempt.
    async fn fail(&self, token: LeaseToken, reason: &str, is_permanent: bool) -> Result<()>;
    /// Commits a bundle's result; `Conflict` when the token is not current, a replaced segment is not live or a replaced
    /// day index not current. Owned raw objects of the completed items are doomed with a grace; what is replaced too.
    async fn publish(&self, token: LeaseToken, publication: &Publication) -> Result<CatalogSeq>;
    /// Completes items without a result, several bundles at once (jobs). Tokens that are not current are returned.
    async fn complete(&self, tokens: &[LeaseToken]) -> Result<Vec<LeaseToken>>;
    /// Every queue's backlog, in one snapshot.
    async fn backlog(&self) -> Result<Vec<Backlog>>;
    /// The queue, oldest first.
    async fn queue(&self, queue: Option<WorkQueue>, dead_only: bool, limit: usize) -> Result<Vec<QueueEntry>>;
    /// Makes dead letters runnable again: these, or all. Returns how many.
    async fn redrive(&self, ids: Option<&[WorkId]>) -> Result<u64>;
    /// Resolves when work may have arrived in one of `queues` since the last call, or after `at_most`.
    async fn wait_for_work(&self, queues: &[WorkQueue], at_most: Duration);

    // Catalog.

    /// Changes after `since`, at most `limit` segments a call. `CatalogSeq(0)` starts from nothing. While a page says `more` it is
    /// no snapshot: a segment that was replaced after the page's end is already missing. `Conflict` when the change log no longer
    /// reaches back to `since`: start from nothing.
    async fn catalog_changes(&self, since: CatalogSeq, limit: usize) -> Result<CatalogDelta>;
    /// Live segments.
    async fn segments(&self, filter: &SegmentFilter) -> Result<Vec<SegmentMeta>>;
    /// How many live segments there are, by signal, tier and level, in that order.
    async fn segment_totals(&self) -> Result<Vec<SegmentTotals>>;
    /// The `ingest_seq` of hours, 0 for an hour that never had data.
    async fn ingest_seqs(&self, organization: OrganizationId, signal: Signal, hours: &[Hour]) -> Result<Vec<i64>>;
    /// Retires live segments (retention, deletion); their objects are doomed. Returns how many were live.
    async fn retire_segments(&self, ids: &[SegmentId]) -> Result<u64>;
    /// Inserts rows found in a bucket (`catalog rebuild`); live and doomed ones are left alone. The hours that new raw rows touch are
    /// raised, so that their rollups are computed. Returns how many were new.
    async fn adopt_segments(&self, segments: &[SegmentMeta]) -> Result<u64>;

    /// The current day indexes of an organization's traces, from one day to another, both included; by day and instance.
    async fn trace_days(&self, organization: OrganizationId, first: Day, last: Day) -> Result<Vec<TraceDay>>;

    // Sweeping.

    /// Objects whose grace is over.
    async fn doomed_objects(&self, limit: usize) -> Result<Vec<DoomedObject>>;
    /// Forgets objects that were deleted.
    async fn forget_doomed(&self, objects: &[DoomedObject]) -> Result<()>;
    /// Whether each object key is referenced by a live or doomed segment, a current or doomed day index, an inbox row, or a current
    /// lease's token.
    async fn referenced(&self, object_keys: &[String]) -> Result<Vec<bool>>;
    /// Forgets identities, refusals, change-log entries, and day indexes of days without live traces; dooms the objects of the latter.
    /// Finishes deleted organizations.
    async fn prune(&self) -> Result<()>;
}

/// Which actions a worker performs, parsed from `--signal` and `--action`.
pub fn queues_for(signals: &[Signal], actions: &[Action]) -> Vec<WorkQueue> {
    let mut queues = Vec::new();
    for &action in actions {
        for &signal in signals {
            queues.push(WorkQueue { signal, action });
        }
    }
    queues
}
