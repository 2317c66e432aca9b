//! The live catalog in this process, brought up to date before each query, and what footers have told of attributes.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tidemill_plan::prune::{SegmentPlan, SegmentQuery};
use tidemill_plan::snapshot::{CatalogChanges, CatalogSnapshot};
use tidemill_segment::read::AttributeType;
use tidemill_store::Metastore;
use tidemill_types::{ErrorKind, OrganizationId, SegmentId, Signal};

use crate::Result;
use crate::attributes::{AttributeKey, KnownAttributes};

/// Changes fetched in one transaction.
const CHANGES_TOGETHER: usize = 10_000;
/// Attribute types remembered; beyond it they are forgotten all together and learned anew.
const MOST_KNOWN_TYPES: usize = 200_000;

/// The live segments of every organization, following the metastore.
#[derive(Debug)]
pub(crate) struct LiveCatalog {
    metastore: Arc<dyn Metastore>,
    snapshot: RwLock<CatalogSnapshot>,
    refreshing: tokio::sync::Mutex<()>,
    /// The types that columns had in the last queries: where planning begins, never what it relies on.
    types: Mutex<HashMap<(OrganizationId, Signal, AttributeKey), AttributeType>>,
}

impl LiveCatalog {
    pub(crate) fn new(metastore: Arc<dyn Metastore>) -> Self {
        Self {
            metastore,
            snapshot: RwLock::default(),
            refreshing: tokio::sync::Mutex::default(),
            types: Mutex::default(),
        }
    }

    /// Applies all changes that were committed before the call.
    ///
    /// # Errors
    /// When the metastore does not answer.
    pub(crate) async fn refresh(&self) -> Result<()> {
        let _one_at_a_time = self.refreshing.lock().await;
        loop {
            let since = self.snapshot.read().seq();
            let delta = match self.metastore.catalog_changes(since, CHANGES_TOGETHER).await {
                // The change log no longer reaches back that far.
                Err(error) if error.kind() == ErrorKind::Conflict && since.0 != 0 => {
                    *self.snapshot.write() = CatalogSnapshot::new();
                    continue;
                }
                answer => answer?,
            };
            let has_more = delta.more;
            let changes =
                CatalogChanges { seq: delta.seq, added: delta.added, removed: delta.removed, hours: delta.hours };
            self.snapshot.write().apply(changes);
            if !has_more {
                return Ok(());
            }
        }
    }

    pub(crate) fn plan(&self, organization: OrganizationId, query: &SegmentQuery) -> SegmentPlan {
        self.snapshot.read().plan_segments(organization, query)
    }

    pub(crate) fn is_live(&self, id: SegmentId) -> bool {
        self.snapshot.read().contains(id)
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
    pub(crate) fn known_type(&self, organization: OrganizationId, signal: Signal, key: &AttributeKey) -> Option<AttributeType> {
        self.types.lock().get(&(organization, signal, key.clone())).copied()
    }
}
