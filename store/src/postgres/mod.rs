//! The metastore in PostgreSQL 16 or later, for any number of machines.
//!
//! Owns: a pool of connections, the schema, NOTIFY and LISTEN. Commits are synchronous as the server is configured, but those that
//! only take or extend a lease: a crash of the server that loses such a lease lets others have the work, and its holder is refused
//! . Enqueueing answers when it is durable, but workers see the work before: the log is one, so whatever a worker commits is
//! durable only after the work is, and a crash that loses the work leaves its holder without a lease and its sender unanswered. Locks are taken in one order everywhere, and a transaction that PostgreSQL undoes because of others is run again.
//! Never: a decision about retries or blame (`tidemill_scaling`), a transaction held open over an await of anything else.
//! Start with [`PostgresMetastore`]; then `claim` and `finish` (the queue), `catalog`.

mod catalog;
mod claim;
mod connection;
mod due;
mod enqueue;
mod finish;
mod inbox;
mod notify;
mod options;
mod organizations;
mod outcomes;
mod ring;
mod scan;
mod sweep;
mod trace_days;
mod views;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use deadpool_postgres::{Client, Pool, PoolError};
use tidemill_scaling::retry::FailureNature;
use tidemill_types::{
    CatalogSeq, Day, ErrorKind, Hour, LeaseToken, OrganizationId, SegmentId, SegmentMeta, Signal, TimestampNs, WorkId,
    WorkQueue,
};
use tokio::task::JoinHandle;
use tokio_postgres::{IsolationLevel, SimpleQueryMessage};
use uuid::Uuid;

use crate::bells::Bells;
use crate::metastore::{
    Admission, ApiKey, Backlog, Bundle, CatalogDelta, ClaimRequest, DoomedObject, InboxEntry, InputIdentity, NewInput,
    NewWork, Organization, Publication, QueueEntry, Refusal, RememberedInput, SegmentFilter, SegmentTotals, TraceDay,
};
use crate::step::{Step, reach};
use crate::{Error, Metastore, MetastoreOptions, Result};
use connection::{Address, failed, is_worth_repeating, query};
use due::Dues;
use notify::Notifier;
use outcomes::Outcomes;
use ring::{Arrival, Arrivals, Next, Rings};

pub use options::PostgresOptions;

/// How often a transaction is run that is undone because of others.
const ATTEMPTS: usize = 5;
/// How many organizations one claim looks at when others were there first.
const CHOICES: usize = 1_000;
/// What is due already and cannot be claimed is waited for this long: somebody else has it at this moment.
const DUE_PAUSE: Duration = Duration::from_millis(5);

/// A metastore in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresMetastore {
    pool: Pool,
    version: String,
    /// Stored with every lease: this process, until the metastore is dropped.
    holder: Uuid,
    bells: Arc<Bells>,
    notifier: Arc<Notifier>,
    outcomes: Outcomes,
    rings: Arc<Rings>,
    /// Held while a queue is scanned.
    scanning: HashMap<WorkQueue, tokio::sync::Mutex<()>>,
    dues: Arc<Dues>,
    /// Each statement of a connection reaches the same process of the server: no pooler shares them.
    has_sessions: bool,
    options: MetastoreOptions,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for PostgresMetastore {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Runs `$body` in a transaction `$transaction` and commits it; again when PostgreSQL undid it because of others.
macro_rules! in_transaction {
    ($store:expr, $operation:literal, |$transaction:ident| $body:expr) => {
        in_transaction!($store, $operation, |$transaction| $body, ())
    };
    ($store:expr, $operation:literal, |$transaction:ident| $body:expr, $before_commit:expr) => {{
        let mut attempt = 1;
        loop {
            let mut client = $store.client($operation).await?;
            let $transaction = client.transaction().await.map_err(failed($operation))?;
            let result = match $body {
                Ok(value) => {
                    $before_commit;
                    $transaction.commit().await.map(|()| value).map_err(failed($operation))
                }
                // Dropping the transaction rolls it back.
                Err(error) => Err(error),
            };
            match result {
                Err(error) if attempt < ATTEMPTS && is_worth_repeating(&error) => attempt += 1,
                result => break result,
            }
        }
    }};
}

impl PostgresMetastore {
    /// Connects and brings the schema up to date.
    ///
    /// # Errors
    /// `Invalid` for a server older than 16, a newer schema or a bad DSN; `Unavailable`.
    pub async fn connect(options: &PostgresOptions) -> Result<Self> {
        let address = Address::new(&options.dsn, options)?;
        let pool = address.pool(options.connections)?;
        let mut client = take(&pool, "open").await?;
        let version = connection::check_version(&client).await?;
        connection::migrate(&mut client).await?;
        drop(client);
        let listen = match &options.listen_dsn {
            Some(dsn) => Address::new(dsn, options)?,
            None => address,
        };
        let holder = Uuid::new_v4();
        let (bells, notifier) = (Arc::new(Bells::new()), Arc::new(Notifier::new(holder)));
        let (rings, dues) = (Arc::new(Rings::default()), Arc::new(Dues::default()));
        let heard =
            notify::Heard { holder, bells: Arc::clone(&bells), rings: Arc::clone(&rings), dues: Arc::clone(&dues) };
        let tasks = [
            tokio::spawn(notify::run_notify(Arc::clone(&notifier), pool.clone())),
            tokio::spawn(notify::run_listen(listen, heard)),
        ];
        Ok(Self {
            pool,
            version,
            holder,
            bells,
            notifier,
            outcomes: Outcomes::default(),
            rings,
            scanning: WorkQueue::all().into_iter().map(|queue| (queue, tokio::sync::Mutex::default())).collect(),
            dues,
            has_sessions: options.listen_dsn.is_none(),
            options: options.metastore.clone(),
            tasks,
        })
    }

    /// Runs a read-only query and returns its first value as a number: what a scaler's trigger does.
    ///
    /// # Errors
    /// `Invalid` for an answer that is no number; what the server answers.
    pub async fn query_number(&self, query: &str) -> Result<f64> {
        let mut client = self.client("query").await?;
        let transaction = client.build_transaction().read_only(true).start().await.map_err(failed("query"))?;
        let messages = transaction.simple_query(query).await.map_err(failed("query"))?;
        let value = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        let number = value.and_then(|value| value.parse().ok());
        number.ok_or_else(|| Error::new("query", query, ErrorKind::Invalid, format!("{value:?} is no number")))
    }

    /// Enqueues in one statement, if all organizations are open.
    async fn enqueue_at_once(&self, work: &[NewWork]) -> Result<bool> {
        let client = self.client("enqueue").await?;
        if self.has_sessions {
            return enqueue::enqueue_then_flush(&client, work, |since| self.announce_work(work, since)).await;
        }
        let since = enqueue::enqueue_at_once(&client, work).await?;
        since.iter().for_each(|since| self.announce_work(work, *since));
        Ok(since.is_some())
    }

    async fn client(&self, operation: &'static str) -> Result<Client> {
        take(&self.pool, operation).await
    }

    /// Wakes the workers of this process now, those of others by NOTIFY: this work became claimable.
    fn announce(&self, arrivals: &Arrivals) {
        if !arrivals.is_empty() {
            self.rings.offer(arrivals);
            self.notifier.tell_arrivals(arrivals);
            self.bells.ring(arrivals.iter().map(|arrival| arrival.queue).collect::<BTreeSet<_>>());
        }
    }

    /// The same for work of which only the queue is known.
    fn announce_queues(&self, queues: &[WorkQueue]) {
        if !queues.is_empty() {
            self.rings.forget(queues.iter().copied());
            self.dues.forget();
            self.notifier.tell_queues(queues);
            self.bells.ring(queues.iter().copied());
        }
    }

    /// The same for work that was enqueued: those without key and delay run from `since`.
    fn announce_work(&self, work: &[NewWork], since: i64) {
        let unkeyed = || work.iter().filter(|item| item.dedupe_key.is_none());
        if let Some(delay) = unkeyed().map(|item| item.delay).filter(|delay| !delay.is_zero()).min() {
            self.dues.add(delay);
        }
        let arrivals = unkeyed().filter(|item| item.delay.is_zero()).map(|item| {
            let NewWork { queue, priority, organization, .. } = *item;
            Arrival { queue, priority, organization, since }
        });
        self.announce(&arrivals.collect());
        // One whose key is known keeps its place, which may be before others and have another priority.
        let keyed: BTreeSet<WorkQueue> =
            work.iter().filter(|item| item.dedupe_key.is_some()).map(|item| item.queue).collect();
        self.announce_queues(&keyed.into_iter().collect::<Vec<_>>());
    }

    async fn count_reported(&self, queues: impl IntoIterator<Item = i16>) {
        let Some(counts) = self.outcomes.count(queues) else { return };
        for (queue, reported) in counts {
            let written = async {
                let client = self.client("count outcomes").await?;
                claim::count_outcomes(&client, queue, reported, 0).await
            };
            if let Err(error) = written.await {
                tracing::debug!(%error, "how leases ended was not counted");
            }
        }
    }

    /// Claims from one queue: whose turn it is as far as is known, else after a scan.
    async fn claim_from(&self, client: &Client, request: &ClaimRequest, queue: WorkQueue) -> Result<Option<Bundle>> {
        let mut is_scanned = false;
        for _ in 0..CHOICES {
            let choice = match self.rings.next(queue, request.after) {
                Next::Claim(choice) => choice,
                Next::Nothing => return Ok(None),
                Next::Scan if std::mem::replace(&mut is_scanned, true) => return Ok(None),
                Next::Scan => {
                    self.scan(client, queue).await?;
                    continue;
                }
            };
            match claim::lease(client, request, &choice, self.holder).await {
                Ok(Some((bundle, reached))) => {
                    self.rings.advance(&choice, reached);
                    self.dues.add_lease(request.lease);
                    self.store_marks(client, queue, bundle.items.len()).await;
                    return Ok(Some(bundle));
                }
                Ok(None) => self.rings.exhaust(&choice),
                Err(error) => {
                    // Others passed over what this one held until now.
                    self.rings.forget([queue]);
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// Stores how far the claims have come, now and then, for processes that begin later.
    async fn store_marks(&self, client: &Client, queue: WorkQueue, items: usize) {
        let Some(marks) = self.rings.take_unstored(queue, items) else { return };
        if let Err(error) = scan::store_marks(client, queue, &marks).await {
            tracing::debug!(%error, "marks were not stored");
        }
    }

    /// Looks what is claimable in a queue. Of those that ask at one time, one looks.
    async fn scan(&self, client: &Client, queue: WorkQueue) -> Result<()> {
        let asked = Instant::now();
        let Some(turn) = self.scanning.get(&queue) else { return Ok(()) };
        let _turn = turn.lock().await;
        if !self.rings.is_scanned_since(queue, asked) {
            let mut scan = self.rings.scan(queue);
            if scan.is_first() {
                scan.begin_at(scan::load_marks(client, queue).await?);
            }
            let found = match scan.known() {
                Some(known) => scan::scan_from_marks(client, queue, known).await?,
                None => None,
            };
            match found {
                Some(found) => scan.finish(found),
                None => scan.everywhere().finish(scan::scan(client, queue).await?),
            }
        }
        Ok(())
    }

    async fn claim_from_any(&self, client: &Client, request: &ClaimRequest) -> Result<Option<Bundle>> {
        for &queue in &request.queues {
            if let Some(bundle) = self.claim_from(client, request, queue).await? {
                return Ok(Some(bundle));
            }
        }
        Ok(None)
    }

    /// Makes the items of leases that ran out claimable again; returns whether there were any.
    async fn settle_crashes(&self, client: &Client) -> Result<bool> {
        let next_ns = claim::next_expiry_ns(client).await?;
        if let Some(next_ns) = next_ns {
            self.dues.settle_in(Duration::from_nanos(next_ns.max(0).cast_unsigned()));
        }
        if next_ns.is_none_or(|next_ns| next_ns > 0) {
            return Ok(false);
        }
        in_transaction!(self, "claim", |transaction| {
            claim::settle_crashes(&transaction, self.holder, &self.options).await
        })?;
        self.rings.forget(WorkQueue::all());
        Ok(true)
    }

    /// Looks when something falls due for waiters at `queues`, unless that is known. The look goes on when the caller does not, so
    /// that no connection is given back while the server still looks.
    fn look_for_dues(&self, queues: &[WorkQueue]) -> JoinHandle<()> {
        let (pool, dues, queues) = (self.pool.clone(), Arc::clone(&self.dues), queues.to_vec());
        tokio::spawn(async move {
            let begun = Instant::now();
            let look = async { views::due_in_ns(&take(&pool, "wait for work").await?, &queues).await };
            match look.await {
                Ok(due_ns) => {
                    let due = due_ns.map(|due_ns| begun + Duration::from_nanos(due_ns.max(0).cast_unsigned()));
                    dues.learn(&queues, begun, due);
                }
                Err(error) => tracing::warn!(%error, "cannot see when work falls due"),
            }
        })
    }

    /// A lease ended; its items are claimable again if they came back or may have been enqueued again meanwhile.
    async fn lease_ended(&self, ended: &finish::Ended, came_back: bool) {
        if came_back || ended.has_keys {
            self.announce_queues(WorkQueue::from_code(ended.queue).as_slice());
        }
        self.count_reported([ended.queue]).await;
    }
}

async fn take(pool: &Pool, operation: &'static str) -> Result<Client> {
    pool.get().await.map_err(|source| match source {
        PoolError::Backend(source) => failed(operation)(source),
        PoolError::Timeout(_) => Error::new(operation, "the metastore", ErrorKind::Busy, "no connection became free"),
        other => Error::new(operation, "the metastore", ErrorKind::Unavailable, other),
    })
}

#[async_trait]
impl Metastore for PostgresMetastore {
    fn describe(&self) -> String {
        format!("postgresql {}", self.version)
    }

    async fn now(&self) -> Result<TimestampNs> {
        let client = self.client("read clock").await?;
        Ok(TimestampNs(query(&client, "read clock", "SELECT now_ns()", &[]).await?[0].get(0)))
    }

    async fn create_organization(&self, id: OrganizationId, name: &str) -> Result<Organization> {
        organizations::create(&self.client("create organization").await?, id, name).await
    }

    async fn organizations(&self) -> Result<Vec<Organization>> {
        organizations::list(&self.client("list organizations").await?).await
    }

    async fn update_organization(&self, organization: &Organization) -> Result<()> {
        organizations::update(&self.client("update organization").await?, organization).await
    }

    async fn delete_organization(&self, id: OrganizationId) -> Result<()> {
        in_transaction!(self, "delete organization", |transaction| organizations::delete(&transaction, id).await)
    }

    async fn create_key(&self, key: &ApiKey) -> Result<()> {
        in_transaction!(self, "create key", |transaction| organizations::create_key(&transaction, key).await)
    }

    async fn keys(&self, organization: Option<OrganizationId>) -> Result<Vec<ApiKey>> {
        organizations::keys(&self.client("list keys").await?, organization).await
    }

    async fn revoke_key(&self, id: &str) -> Result<()> {
        organizations::revoke_key(&self.client("revoke key").await?, id).await
    }

    async fn document(&self, name: &str) -> Result<Option<String>> {
        organizations::document(&self.client("read document").await?, name).await
    }

    async fn store_document(&self, name: &str, body: &str) -> Result<()> {
        organizations::store_document(&self.client("store document").await?, name, body).await
    }

    async fn known_identities(&self, identities: &[InputIdentity]) -> Result<Vec<bool>> {
        inbox::known_identities(&self.client("look up identity").await?, identities).await
    }

    async fn remember_inputs(&self, inputs: &[RememberedInput]) -> Result<()> {
        inbox::remember_inputs(&self.client("remember inputs").await?, inputs, &self.options).await
    }

    async fn admit(&self, inputs: &[NewInput]) -> Result<Vec<Admission>> {
        let (admitted, since) =
            in_transaction!(self, "admit", |transaction| inbox::admit(&transaction, inputs, &self.options).await)?;
        let arrivals = inputs.iter().zip(&admitted).filter(|(_, is)| matches!(is, Admission::Admitted(_)));
        let arrivals = arrivals.map(|(input, _)| Arrival {
            queue: input.queue(),
            priority: input.priority,
            organization: input.organization,
            since,
        });
        self.announce(&arrivals.collect());
        Ok(admitted)
    }

    async fn record_refusals(&self, refusals: &[Refusal]) -> Result<()> {
        in_transaction!(self, "record refusals", |transaction| inbox::record_refusals(&transaction, refusals).await)
    }

    async fn inbox(&self, organization: Option<OrganizationId>, limit: usize) -> Result<Vec<InboxEntry>> {
        inbox::inbox(&self.client("list inbox").await?, organization, limit).await
    }

    async fn enqueue(&self, work: &[NewWork]) -> Result<()> {
        let is_one_statement =
            work.len() <= enqueue::ENQUEUED_AT_ONCE && work.iter().all(|item| item.dedupe_key.is_none());
        if is_one_statement && self.enqueue_at_once(work).await? {
            return Ok(());
        }
        let since = in_transaction!(self, "enqueue", |transaction| enqueue::enqueue(&transaction, work).await)?;
        self.announce_work(work, since);
        Ok(())
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Option<Bundle>> {
        let client = self.client("claim").await?;
        let mut is_settled = false;
        if self.dues.is_settling_due() {
            self.settle_crashes(&client).await?;
            is_settled = true;
        }
        let claimed = self.claim_from_any(&client, request).await?;
        if claimed.is_some() || is_settled || !self.dues.is_settling_due() || !self.settle_crashes(&client).await? {
            return Ok(claimed);
        }
        self.claim_from_any(&client, request).await
    }

    async fn extend_lease(&self, token: LeaseToken, lease: Duration) -> Result<()> {
        finish::extend_lease(&self.client("extend lease").await?, token, lease).await
    }

    async fn hand_back(&self, token: LeaseToken) -> Result<()> {
        let ended = in_transaction!(self, "hand back", |transaction| finish::hand_back(&transaction, token).await)?;
        self.lease_ended(&ended, true).await;
        Ok(())
    }

    async fn fail(&self, token: LeaseToken, reason: &str, is_permanent: bool) -> Result<()> {
        let nature = if is_permanent { FailureNature::Permanent } else { FailureNature::Transient };
        let ended = in_transaction!(self, "fail", |transaction| {
            finish::fail(&transaction, token, reason, nature, &self.options).await
        })?;
        self.lease_ended(&ended, true).await;
        Ok(())
    }

    async fn publish(&self, token: LeaseToken, publication: &Publication) -> Result<CatalogSeq> {
        let published = in_transaction!(
            self,
            "publish",
            |transaction| finish::publish(&transaction, token, publication, &self.options).await,
            reach(Step::PublishBeforeCommit)
        )?;
        reach(Step::PublishCommitted);
        self.announce_work(&publication.enqueue, published.enqueued_at);
        self.lease_ended(&published.ended, false).await;
        Ok(published.seq)
    }

    async fn complete(&self, tokens: &[LeaseToken]) -> Result<Vec<LeaseToken>> {
        let all: Vec<Uuid> = tokens.iter().map(|token| token.0).collect();
        let client = self.client("complete").await?;
        let ended = finish::complete_unkeyed(&client, &all, &self.options).await?;
        drop(client);
        let mut queues: Vec<i16> = ended.iter().map(|(_, queue)| *queue).collect();
        let mut lost = Vec::new();
        for &token in tokens {
            if ended.iter().any(|(done, _)| *done == token.0) {
                continue;
            }
            let ended = in_transaction!(self, "complete", |transaction| {
                finish::complete_one(&transaction, token, &self.options).await
            })?;
            match ended {
                Some(ended) => {
                    self.announce_queues(WorkQueue::from_code(ended.queue).as_slice());
                    queues.push(ended.queue);
                }
                None => lost.push(token),
            }
        }
        self.count_reported(queues).await;
        Ok(lost)
    }

    async fn backlog(&self) -> Result<Vec<Backlog>> {
        views::backlog(&self.client("read backlog").await?).await
    }

    async fn queue(&self, queue: Option<WorkQueue>, dead_only: bool, limit: usize) -> Result<Vec<QueueEntry>> {
        views::queue(&self.client("list queue").await?, queue, dead_only, limit).await
    }

    async fn redrive(&self, ids: Option<&[WorkId]>) -> Result<u64> {
        let redriven = finish::redrive(&self.client("redrive").await?, ids).await?;
        self.announce_queues(&WorkQueue::all());
        Ok(redriven)
    }

    async fn wait_for_work(&self, queues: &[WorkQueue], at_most: Duration) {
        let mut listening = self.bells.listen(queues);
        let turns = queues.iter().map(|queue| self.rings.next(*queue, None));
        let mut is_known = true;
        for turn in turns {
            match turn {
                Next::Claim(_) => return,
                Next::Nothing => {}
                Next::Scan => is_known = false,
            }
        }
        let due = match self.dues.known(queues).filter(|_| is_known) {
            Some(due) => due,
            None => {
                tokio::select! {
                    // What rings while we look needs no look.
                    () = listening.rung() => return,
                    _ = self.look_for_dues(queues) => self.dues.known(queues).flatten(),
                }
            }
        };
        // Either something changes, or the time comes.
        let until_due = due.map(|due| due.saturating_duration_since(Instant::now()).max(DUE_PAUSE));
        let pause = until_due.map_or(at_most, |until_due| until_due.min(at_most));
        if tokio::time::timeout(pause, listening.rung()).await.is_err() && until_due == Some(pause) {
            self.dues.fall_due();
            self.rings.forget(queues.iter().copied());
        }
    }

    async fn catalog_changes(&self, since: CatalogSeq, limit: usize) -> Result<CatalogDelta> {
        let mut client = self.client("read catalog changes").await?;
        let snapshot = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let transaction = snapshot.start().await.map_err(failed("read catalog changes"))?;
        let delta = catalog::changes(&transaction, since, limit).await?;
        transaction.commit().await.map_err(failed("read catalog changes"))?;
        Ok(delta)
    }

    async fn segments(&self, filter: &SegmentFilter) -> Result<Vec<SegmentMeta>> {
        catalog::segments(&self.client("list segments").await?, filter).await
    }

    async fn segment_totals(&self) -> Result<Vec<SegmentTotals>> {
        catalog::segment_totals(&self.client("count segments").await?).await
    }

    async fn ingest_seqs(&self, organization: OrganizationId, signal: Signal, hours: &[Hour]) -> Result<Vec<i64>> {
        catalog::ingest_seqs(&self.client("read hours").await?, organization, signal, hours).await
    }

    async fn retire_segments(&self, ids: &[SegmentId]) -> Result<u64> {
        let grace = i64::try_from(self.options.replaced_grace.as_nanos()).unwrap_or(i64::MAX / 4);
        in_transaction!(self, "retire segments", |transaction| catalog::retire_segments(&transaction, ids, grace).await)
    }

    async fn adopt_segments(&self, segments: &[SegmentMeta]) -> Result<u64> {
        in_transaction!(self, "adopt segments", |transaction| catalog::adopt_segments(&transaction, segments).await)
    }

    async fn trace_days(&self, organization: OrganizationId, first: Day, last: Day) -> Result<Vec<TraceDay>> {
        trace_days::list(&self.client("list day indexes").await?, organization, first, last).await
    }

    async fn doomed_objects(&self, limit: usize) -> Result<Vec<DoomedObject>> {
        sweep::doomed_objects(&self.client("list doomed objects").await?, limit).await
    }

    async fn forget_doomed(&self, objects: &[DoomedObject]) -> Result<()> {
        sweep::forget_doomed(&self.client("forget doomed objects").await?, objects).await
    }

    async fn referenced(&self, object_keys: &[String]) -> Result<Vec<bool>> {
        sweep::referenced(&self.client("look up references").await?, object_keys).await
    }

    async fn prune(&self) -> Result<()> {
        let client = self.client("prune").await?;
        while sweep::prune(&client, &self.options).await? {}
        Ok(())
    }
}
