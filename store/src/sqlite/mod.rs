//! The embedded metastore: one SQLite file, for all processes of one host.
//!
//! Owns: WAL with `synchronous=FULL`, one writing connection on its own thread (group commit), reading connections beside it.
//! Never: a write outside the writer, I/O inside a transaction, a file on a network file system.
//! Start with [`SqliteMetastore`]; then `writer` (transactions), `claim` and `finish` (the queue), `catalog`.

mod catalog;
mod claim;
mod commits;
mod connection;
mod finish;
mod holders;
mod inbox;
mod organizations;
mod readers;
mod sweep;
mod trace_days;
mod views;
mod wakeup;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidemill_scaling::retry::FailureNature;
use tidemill_types::{
    CatalogSeq, Day, ErrorKind, Hour, LeaseToken, OrganizationId, SegmentId, SegmentMeta, Signal, TimestampNs, WorkId,
    WorkQueue,
};

use crate::bells::Bells;
use crate::metastore::{
    Admission, ApiKey, Backlog, Bundle, CatalogDelta, ClaimRequest, DoomedObject, InboxEntry, InputIdentity, NewInput,
    NewWork, Organization, Publication, QueueEntry, Refusal, RememberedInput, SegmentFilter, SegmentTotals, TraceDay,
};
use crate::step::{Step, reach};
use crate::{Error, Metastore, MetastoreOptions, Result};
use commits::Commits;
use connection::{failed, now_ns, open_writer, refuse_network_file_system};
use holders::Holder;
use readers::Readers;
use writer::Writer;

/// A metastore in one SQLite file.
#[derive(Debug)]
pub struct SqliteMetastore {
    writer: Writer,
    readers: Arc<Readers>,
    bells: Arc<Bells>,
    commits: Arc<Commits>,
    holder: Arc<Holder>,
    options: Arc<MetastoreOptions>,
}

impl SqliteMetastore {
    /// Opens the file with default options, creating and migrating it if needed.
    ///
    /// # Errors
    /// `Invalid` for a newer schema or a network file system, `Corrupt` for a file that is no database, `Unavailable`.
    pub async fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, MetastoreOptions::default()).await
    }

    /// Opens the file.
    ///
    /// # Errors
    /// As [`SqliteMetastore::open`].
    pub async fn open_with(path: &Path, options: MetastoreOptions) -> Result<Self> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || Self::open_blocking(&path, options)).await;
        opened.unwrap_or_else(|source| Err(Error::new("open", "the metastore", ErrorKind::Internal, source)))
    }

    fn open_blocking(path: &Path, options: MetastoreOptions) -> Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        refuse_network_file_system(folder)?;
        let connection = open_writer(path)?;
        let holder = Holder::enter(path)?;
        for gone in holder.find_gone() {
            holders::end_leases(&connection, gone.id)?;
            gone.forget()?;
        }
        // The file's own name must survive a power cut as well.
        std::fs::File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| Error::from_io("open", folder.display().to_string(), source))?;
        let bells = Arc::new(Bells::new());
        let commits = Arc::new(Commits::new(path)?);
        wakeup::start_watch(&commits, &bells);
        Ok(Self {
            writer: Writer::start(connection)?,
            readers: Readers::new(path.to_owned()),
            bells,
            commits,
            holder: Arc::new(holder),
            options: Arc::new(options),
        })
    }

    async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&rusqlite::Connection, &MetastoreOptions) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let options = Arc::clone(&self.options);
        self.writer.run(operation, move |connection| work(connection, &options)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.readers.run(operation, work).await
    }

    async fn claim_once(&self, request: &ClaimRequest) -> Result<Option<Bundle>> {
        let (request, holder) = (request.clone(), self.holder.id);
        self.write("claim", move |connection, options| claim::claim(connection, &request, holder, options)).await
    }

    /// Ends the leases of killed processes, so that they need not run out; returns whether there were any.
    async fn end_leases_of_gone(&self) -> Result<bool> {
        let holder = Arc::clone(&self.holder);
        let found = tokio::task::spawn_blocking(move || holder.find_gone()).await;
        let found = found.map_err(|source| Error::new("claim", "the metastore", ErrorKind::Internal, source))?;
        let mut ended = 0;
        for gone in found {
            let id = gone.id;
            ended += self.write("end leases", move |connection, _| holders::end_leases(connection, id)).await?;
            gone.forget()?;
        }
        Ok(ended > 0)
    }

    /// Runs a read-only query and returns its first value as a number: what a scaler's trigger does.
    ///
    /// # Errors
    /// `Invalid` for a query that fails or has no number.
    pub async fn query_number(&self, query: &str) -> Result<f64> {
        let query = query.to_owned();
        self.read("query", move |connection| {
            let value = connection.query_row(&query, [], |row| row.get::<_, rusqlite::types::Value>(0));
            match value {
                Ok(rusqlite::types::Value::Integer(number)) => Ok(number as f64),
                Ok(rusqlite::types::Value::Real(number)) => Ok(number),
                Ok(other) => Err(Error::new("query", query, ErrorKind::Invalid, format!("{other:?} is no number"))),
                Err(source) => Err(Error::new("query", query, ErrorKind::Invalid, source)),
            }
        })
        .await
    }

    /// Copies the database to a new file while it is in use: the first step of a backup.
    ///
    /// # Errors
    /// `Conflict` when the file exists, `Busy` on a full disk.
    pub async fn back_up(&self, to: &Path) -> Result<()> {
        let key = to.display().to_string();
        if to.exists() {
            return Err(Error::new("back up", key, ErrorKind::Conflict, "the file exists"));
        }
        let file = key.clone();
        // VACUUM INTO reads one snapshot; it cannot run inside the readers' transaction.
        let readers = Arc::clone(&self.readers);
        let joined = tokio::task::spawn_blocking(move || {
            let connection = connection::open_reader(readers.path())?;
            // The copy counts as a write.
            connection.pragma_update(None, "query_only", false).map_err(failed("back up"))?;
            connection.execute("VACUUM INTO ?1", [&file]).map_err(failed("back up"))?;
            std::fs::File::open(&file)
                .and_then(|file| file.sync_all())
                .map_err(|source| Error::from_io("back up", file, source))
        })
        .await;
        joined.unwrap_or_else(|source| Err(Error::new("back up", key, ErrorKind::Internal, source)))
    }
}

#[async_trait]
impl Metastore for SqliteMetastore {
    fn describe(&self) -> String {
        format!("sqlite {}", rusqlite::version())
    }

    async fn now(&self) -> Result<TimestampNs> {
        Ok(TimestampNs(now_ns()))
    }

    async fn create_organization(&self, id: OrganizationId, name: &str) -> Result<Organization> {
        let name = name.to_owned();
        self.write("create organization", move |connection, _| organizations::create(connection, id, &name)).await
    }

    async fn organizations(&self) -> Result<Vec<Organization>> {
        self.read("list organizations", organizations::list).await
    }

    async fn update_organization(&self, organization: &Organization) -> Result<()> {
        let organization = organization.clone();
        self.write("update organization", move |connection, _| organizations::update(connection, &organization)).await
    }

    async fn delete_organization(&self, id: OrganizationId) -> Result<()> {
        self.write("delete organization", move |connection, _| organizations::delete(connection, id)).await
    }

    async fn create_key(&self, key: &ApiKey) -> Result<()> {
        let key = key.clone();
        self.write("create key", move |connection, _| organizations::create_key(connection, &key)).await
    }

    async fn keys(&self, organization: Option<OrganizationId>) -> Result<Vec<ApiKey>> {
        self.read("list keys", move |connection| organizations::keys(connection, organization)).await
    }

    async fn revoke_key(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.write("revoke key", move |connection, _| organizations::revoke_key(connection, &id)).await
    }

    async fn document(&self, name: &str) -> Result<Option<String>> {
        let name = name.to_owned();
        self.read("read document", move |connection| organizations::document(connection, &name)).await
    }

    async fn store_document(&self, name: &str, body: &str) -> Result<()> {
        let (name, body) = (name.to_owned(), body.to_owned());
        self.write("store document", move |connection, _| organizations::store_document(connection, &name, &body)).await
    }

    async fn known_identities(&self, identities: &[InputIdentity]) -> Result<Vec<bool>> {
        let identities = identities.to_vec();
        self.read("look up identity", move |connection| inbox::known_identities(connection, &identities)).await
    }

    async fn remember_inputs(&self, inputs: &[RememberedInput]) -> Result<()> {
        let inputs = inputs.to_vec();
        self.write("remember inputs", move |connection, options| inbox::remember_inputs(connection, &inputs, options))
            .await
    }

    async fn admit(&self, inputs: &[NewInput]) -> Result<Vec<Admission>> {
        let queues: Vec<WorkQueue> = inputs.iter().map(NewInput::queue).collect();
        let inputs = inputs.to_vec();
        let admitted =
            self.write("admit", move |connection, options| inbox::admit(connection, &inputs, options)).await?;
        self.bells.ring(queues);
        Ok(admitted)
    }

    async fn record_refusals(&self, refusals: &[Refusal]) -> Result<()> {
        let refusals = refusals.to_vec();
        self.write("record refusals", move |connection, _| inbox::record_refusals(connection, &refusals)).await
    }

    async fn inbox(&self, organization: Option<OrganizationId>, limit: usize) -> Result<Vec<InboxEntry>> {
        self.read("list inbox", move |connection| inbox::inbox(connection, organization, limit)).await
    }

    async fn enqueue(&self, work: &[NewWork]) -> Result<()> {
        let queues: Vec<WorkQueue> = work.iter().map(|item| item.queue).collect();
        let work = work.to_vec();
        self.write("enqueue", move |connection, _| claim::enqueue(connection, &work)).await?;
        self.bells.ring(queues);
        Ok(())
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Option<Bundle>> {
        let claimed = self.claim_once(request).await?;
        // Only a worker with nothing to do looks whose process is gone.
        if claimed.is_some() || !self.end_leases_of_gone().await? {
            return Ok(claimed);
        }
        self.claim_once(request).await
    }

    async fn extend_lease(&self, token: LeaseToken, lease: Duration) -> Result<()> {
        self.write("extend lease", move |connection, _| finish::extend_lease(connection, token, lease)).await
    }

    async fn hand_back(&self, token: LeaseToken) -> Result<()> {
        self.write("hand back", move |connection, _| finish::hand_back(connection, token)).await?;
        self.bells.ring_all();
        Ok(())
    }

    async fn fail(&self, token: LeaseToken, reason: &str, is_permanent: bool) -> Result<()> {
        let reason = reason.to_owned();
        let nature = if is_permanent { FailureNature::Permanent } else { FailureNature::Transient };
        self.write("fail", move |connection, options| finish::fail(connection, token, &reason, nature, options))
            .await?;
        self.bells.ring_all();
        Ok(())
    }

    async fn publish(&self, token: LeaseToken, publication: &Publication) -> Result<CatalogSeq> {
        let queues: Vec<WorkQueue> = publication.enqueue.iter().map(|item| item.queue).collect();
        let publication = publication.clone();
        let seq = self
            .write("publish", move |connection, options| finish::publish(connection, token, &publication, options))
            .await?;
        reach(Step::PublishCommitted);
        self.bells.ring(queues);
        Ok(seq)
    }

    async fn complete(&self, tokens: &[LeaseToken]) -> Result<Vec<LeaseToken>> {
        let tokens = tokens.to_vec();
        self.write("complete", move |connection, options| finish::complete(connection, &tokens, options)).await
    }

    async fn backlog(&self) -> Result<Vec<Backlog>> {
        self.read("read backlog", views::backlog).await
    }

    async fn queue(&self, queue: Option<WorkQueue>, dead_only: bool, limit: usize) -> Result<Vec<QueueEntry>> {
        self.read("list queue", move |connection| views::queue(connection, queue, dead_only, limit)).await
    }

    async fn redrive(&self, ids: Option<&[WorkId]>) -> Result<u64> {
        let ids = ids.map(<[WorkId]>::to_vec);
        let redriven = self.write("redrive", move |connection, _| finish::redrive(connection, ids.as_deref())).await?;
        self.bells.ring_all();
        Ok(redriven)
    }

    async fn wait_for_work(&self, queues: &[WorkQueue], at_most: Duration) {
        let mut listening = self.bells.listen(queues);
        let queues = queues.to_vec();
        let due = self.read("wait for work", move |connection| views::due_in_ns(connection, &queues)).await;
        let pause = match due {
            Ok(Some(due_ns)) => at_most.min(Duration::from_nanos(due_ns.cast_unsigned())),
            Ok(None) => at_most,
            Err(error) => {
                tracing::warn!(%error, "cannot see when work falls due");
                at_most
            }
        };
        if !pause.is_zero() {
            // Either something changed, or the time has come.
            let _ = tokio::time::timeout(pause, listening.rung()).await;
        }
    }

    async fn catalog_changes(&self, since: CatalogSeq, limit: usize) -> Result<CatalogDelta> {
        // What is committed from here on is of the next call.
        let version = self.commits.version();
        if version.is_some_and(|version| self.commits.is_catalog_at(version, since)) {
            return Ok(CatalogDelta { seq: since, ..CatalogDelta::default() });
        }
        let delta =
            self.read("read catalog changes", move |connection| catalog::changes(connection, since, limit)).await?;
        if let Some(version) = version.filter(|_| !delta.more) {
            self.commits.note_catalog(version, delta.seq);
        }
        Ok(delta)
    }

    async fn segments(&self, filter: &SegmentFilter) -> Result<Vec<SegmentMeta>> {
        let filter = filter.clone();
        self.read("list segments", move |connection| catalog::segments(connection, &filter)).await
    }

    async fn segment_totals(&self) -> Result<Vec<SegmentTotals>> {
        self.read("count segments", catalog::segment_totals).await
    }

    async fn ingest_seqs(&self, organization: OrganizationId, signal: Signal, hours: &[Hour]) -> Result<Vec<i64>> {
        let hours = hours.to_vec();
        self.read("read hours", move |connection| catalog::ingest_seqs(connection, organization, signal, &hours)).await
    }

    async fn retire_segments(&self, ids: &[SegmentId]) -> Result<u64> {
        let ids = ids.to_vec();
        self.write("retire segments", move |connection, options| catalog::retire_segments(connection, &ids, options))
            .await
    }

    async fn adopt_segments(&self, segments: &[SegmentMeta]) -> Result<u64> {
        let segments = segments.to_vec();
        self.write("adopt segments", move |connection, _| catalog::adopt_segments(connection, &segments)).await
    }

    async fn trace_days(&self, organization: OrganizationId, first: Day, last: Day) -> Result<Vec<TraceDay>> {
        self.read("list day indexes", move |connection| trace_days::list(connection, organization, first, last)).await
    }

    async fn doomed_objects(&self, limit: usize) -> Result<Vec<DoomedObject>> {
        self.read("list doomed objects", move |connection| sweep::doomed_objects(connection, limit)).await
    }

    async fn forget_doomed(&self, objects: &[DoomedObject]) -> Result<()> {
        let objects = objects.to_vec();
        self.write("forget doomed objects", move |connection, _| sweep::forget_doomed(connection, &objects)).await
    }

    async fn referenced(&self, object_keys: &[String]) -> Result<Vec<bool>> {
        let object_keys = object_keys.to_vec();
        self.read("look up references", move |connection| sweep::referenced(connection, &object_keys)).await
    }

    async fn prune(&self) -> Result<()> {
        while self.write("prune", sweep::prune).await? {}
        Ok(())
    }
}
