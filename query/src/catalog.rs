//! The live catalog in this process, brought up to date before each query, and what footers have told of attributes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, RwLock};
use tidemill_plan::prune::{SegmentPlan, SegmentQuery};
use tidemill_plan::snapshot::{CatalogChanges, CatalogSnapshot};
use tidemill_segment::read::AttributeType;
use tidemill_store::Metastore;
use tidemill_store::metastore::TraceDay;
use tidemill_types::{CatalogSeq, Day, ErrorKind, OrganizationId, Signal, TimestampNs};

use crate::attributes::{AttributeKey, KnownAttributes};
use crate::{Error, Result};

/// Changes fetched in one transaction.
const CHANGES_TOGETHER: usize = 10_000;
/// How old what is known of retention may be.
const RETENTION_AGE: Duration = Duration::from_secs(30);
/// Attribute types remembered; beyond it they are forgotten all together and learned anew.
const MOST_KNOWN_TYPES: usize = 200_000;

/// The live segments of every organization, following the metastore.
#[derive(Debug)]
pub(crate) struct LiveCatalog {
    metastore: Arc<dyn Metastore>,
    snapshot: RwLock<CatalogSnapshot>,
    refreshing: tokio::sync::Mutex<()>,
    retention: Mutex<Retention>,
    /// The types that columns had in the last queries: where planning begins, never what it relies on.
    types: Mutex<HashMap<(OrganizationId, Signal, AttributeKey), AttributeType>>,
}

/// Days kept by organization and signal, as of some seconds ago.
#[derive(Debug, Default)]
struct Retention {
    days: HashMap<OrganizationId, [Option<u32>; 3]>,
    read_at: Option<Instant>,
}

struct Page {
    is_from_nothing: bool,
    changes: CatalogChanges,
}

impl LiveCatalog {
    pub(crate) fn new(metastore: Arc<dyn Metastore>) -> Self {
        Self {
            metastore,
            snapshot: RwLock::default(),
            refreshing: tokio::sync::Mutex::default(),
            retention: Mutex::default(),
            types: Mutex::default(),
        }
    }

    /// Applies all changes that were committed before the call.
    ///
    /// # Errors
    /// When the metastore does not answer.
    pub(crate) async fn refresh(&self) -> Result<()> {
        let _one_at_a_time = self.refreshing.lock().await;
        self.refresh_retention().await?;
        let since = self.snapshot.read().seq();
        let changes = match self.changes(since).await {
            // The change log no longer reaches back that far.
            Err(Error::Store(error)) if error.kind() == ErrorKind::Conflict && since != CatalogSeq(0) => {
                self.changes(CatalogSeq(0)).await?
            }
            answer => answer?,
        };
        if changes.first().is_some_and(|first| first.is_from_nothing) {
            // Pages are consistent only together, so a catalog read anew is filled aside.
            let mut fresh = CatalogSnapshot::new();
            changes.into_iter().for_each(|page| fresh.apply(page.changes));
            *self.snapshot.write() = fresh;
        } else {
            let mut snapshot = self.snapshot.write();
            changes.into_iter().for_each(|page| snapshot.apply(page.changes));
        }
        Ok(())
    }

    async fn refresh_retention(&self) -> Result<()> {
        if self.retention.lock().read_at.is_some_and(|at| at.elapsed() < RETENTION_AGE) {
            return Ok(());
        }
        let organizations = self.metastore.organizations().await?;
        let days =
            organizations.into_iter().map(|organization| (organization.id, organization.retention_days)).collect();
        *self.retention.lock() = Retention { days, read_at: Some(Instant::now()) };
        Ok(())
    }

    /// The first day that retention keeps, `None` when everything is kept.
    pub(crate) fn first_kept_day(&self, organization: OrganizationId, signal: Signal) -> Option<Day> {
        let place = Signal::ALL.iter().position(|other| *other == signal)?;
        let days = self.retention.lock().days.get(&organization).and_then(|days| days[place])?;
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let today = TimestampNs(i64::try_from(since_epoch.as_nanos()).ok()?).day();
        Some(Day(today.0.saturating_sub_unsigned(days)))
    }

    /// All changes after `since`, page by page.
    async fn changes(&self, since: CatalogSeq) -> Result<Vec<Page>> {
        let mut pages = Vec::new();
        let mut at = since;
        loop {
            let delta = self.metastore.catalog_changes(at, CHANGES_TOGETHER).await?;
            at = delta.seq;
            let has_more = delta.more;
            let changes =
                CatalogChanges { seq: delta.seq, added: delta.added, removed: delta.removed, hours: delta.hours };
            pages.push(Page { is_from_nothing: since == CatalogSeq(0), changes });
            if !has_more {
                return Ok(pages);
            }
        }
    }

    pub(crate) fn plan(&self, organization: OrganizationId, query: &SegmentQuery) -> SegmentPlan {
        self.snapshot.read().plan_segments(organization, query)
    }

    /// The day indexes of an organization's traces, from one day to another. They may be newer than the segments known here.
    pub(crate) async fn trace_days(
        &self,
        organization: OrganizationId,
        first: Day,
        last: Day,
    ) -> Result<Vec<TraceDay>> {
        Ok(self.metastore.trace_days(organization, first, last).await?)
    }

    /// Remembers the types that footers told.
    pub(crate) fn learn(&self, organization: OrganizationId, signal: Signal, known: &KnownAttributes) {
        let mut types = self.types.lock();
        if types.len() > MOST_KNOWN_TYPES {
            types.clear();
        }
        for (key, attribute) in known.iter() {
            if let Some(kind) = attribute.kind {
                types.insert((organization, signal, key.clone()), kind);
            }
        }
    }

    /// The type that an attribute had last, to plan with until its segments are known.
    pub(crate) fn known_type(
        &self,
        organization: OrganizationId,
        signal: Signal,
        key: &AttributeKey,
    ) -> Option<AttributeType> {
        self.types.lock().get(&(organization, signal, key.clone())).copied()
    }
}
