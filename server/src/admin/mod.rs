//! What operators ask and change: one set of functions over the metastore, used by the HTTP API and, where the metastore is at
//! hand, by the command line itself.
//!
//! Owns: what is asked and answered ([`shapes`]) and who sees whose rows ([`Scope`]). Never: HTTP, printing.

mod shapes;

use std::sync::Arc;

use tidemill_store::Metastore;
use tidemill_store::metastore::{ApiKey, InboxEntry, Organization, QueueEntry, SegmentFilter, SegmentTotals};
use tidemill_types::{
    Action, ErrorKind, OrganizationId, SegmentId, SegmentMeta, Signal, Tier, TimestampNs, WorkId, WorkQueue,
};
use uuid::Uuid;

pub use shapes::{
    CreatedKey, InboxRequest, Listed, OrganizationChange, QueueRequest, QueueStatus, SegmentsRequest, SegmentsStatus,
    Status,
};

use crate::auth::issue_key;
use crate::error::{Error, Result};
use crate::profiles::{MAPPINGS_DOCUMENT, PROFILES_DOCUMENT, parse_mappings, storable_profiles};

/// Longer is for ever.
const MAX_RETENTION_DAYS: u32 = 36_500;
/// At most this many rows are listed at once.
pub const MAX_ROWS: usize = 10_000;

const DOCUMENTS: &[&str] = &[PROFILES_DOCUMENT, MAPPINGS_DOCUMENT];

/// Whose rows are seen: one organization's, or everyone's.
pub type Scope = Option<OrganizationId>;

/// The administration of one installation.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where everything is kept.
    pub metastore: Arc<dyn Metastore>,
}

impl Admin {
    /// Backlog, segments, lag.
    ///
    /// # Errors
    /// Those of the metastore.
    pub async fn status(&self) -> Result<Status> {
        let now = self.metastore.now().await?;
        let age_ms = |since: Option<TimestampNs>| since.map_or(0, |since| (now.0 - since.0).max(0) / 1_000_000);
        let backlog = self.metastore.backlog().await?;
        let ingest = backlog.iter().filter(|it| it.queue.action == Action::Ingest);
        let ingest_lag_ms = ingest.map(|it| age_ms(it.oldest)).max().unwrap_or(0);
        let totals = self.metastore.segment_totals().await?;
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            metastore: self.metastore.describe(),
            queues: backlog
                .into_iter()
                .map(|it| QueueStatus { oldest_age_ms: age_ms(it.oldest), backlog: it })
                .collect(),
            segments: totals
                .into_iter()
                .map(|SegmentTotals { signal, tier, level, segments, rows, bytes }| SegmentsStatus {
                    signal,
                    tier,
                    level,
                    segments,
                    rows,
                    bytes,
                })
                .collect(),
            ingest_lag_ms,
            arrival_to_queryable: None,
        })
    }

    /// The inbox, newest first.
    ///
    /// # Errors
    /// Those of the metastore.
    pub async fn inbox(&self, scope: Scope, request: &InboxRequest) -> Result<Listed<InboxEntry>> {
        let limit = limit(request.limit, 100)?;
        // What is looked for may lie behind any number of other rows.
        let is_narrowed = request.state.is_some() || request.work.is_some() || request.object_key.is_some();
        let mut entries = self.metastore.inbox(scope, if is_narrowed { usize::MAX } else { limit + 1 }).await?;
        entries.retain(|entry| {
            request.work.is_none_or(|work| entry.work == Some(work))
                && request.object_key.as_ref().is_none_or(|key| entry.object_key == *key)
        });
        if let Some(state) = &request.state {
            one_of("state", state, &["waiting", "leased", "dead", "refused"])?;
            entries.retain(|entry| entry.state == *state);
        }
        Ok(Listed::cut(entries, limit))
    }

    /// The queue, oldest first.
    ///
    /// # Errors
    /// Those of the metastore; `Invalid` when only one of signal and action is given.
    pub async fn queue(&self, scope: Scope, request: &QueueRequest) -> Result<Listed<QueueEntry>> {
        let limit = limit(request.limit, 100)?;
        let queue = match (request.signal, request.action) {
            (Some(signal), Some(action)) => Some(WorkQueue { signal, action }),
            _ => None,
        };
        let is_narrowed = scope.is_some()
            || request.work.is_some()
            || (queue.is_none() && (request.signal.is_some() || request.action.is_some()));
        let read = if is_narrowed { usize::MAX } else { limit + 1 };
        let mut entries = self.metastore.queue(queue, request.dead, read).await?;
        entries.retain(|entry| {
            request.work.is_none_or(|work| entry.id == work)
                && scope.is_none_or(|scope| entry.organization == scope)
                && request.signal.is_none_or(|signal| entry.queue.signal == signal)
                && request.action.is_none_or(|action| entry.queue.action == action)
        });
        Ok(Listed::cut(entries, limit))
    }

    /// Makes dead letters runnable again: these, or all. Returns how many.
    ///
    /// # Errors
    /// Those of the metastore.
    pub async fn redrive(&self, ids: Option<&[WorkId]>) -> Result<u64> {
        Ok(self.metastore.redrive(ids).await?)
    }

    /// Live segments, the newest first.
    ///
    /// # Errors
    /// Those of the metastore.
    pub async fn segments(&self, scope: Scope, request: &SegmentsRequest) -> Result<Listed<SegmentMeta>> {
        let limit = limit(request.limit, 100)?;
        let filter = SegmentFilter {
            organization: scope,
            signal: request.signal,
            tier: request.tier.map(Tier),
            latest: Some(limit + 1),
            ..SegmentFilter::default()
        };
        Ok(Listed::cut(self.metastore.segments(&filter).await?, limit))
    }

    /// One live segment.
    ///
    /// # Errors
    /// `NotFound`; those of the metastore.
    pub async fn segment(&self, scope: Scope, id: SegmentId) -> Result<SegmentMeta> {
        let filter = SegmentFilter { organization: scope, id: Some(id), ..SegmentFilter::default() };
        let found = self.metastore.segments(&filter).await?.into_iter().next();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no live segment {id}")))
    }

    /// Every organization.
    ///
    /// # Errors
    /// Those of the metastore.
    pub async fn organizations(&self) -> Result<Vec<Organization>> {
        Ok(self.metastore.organizations().await?)
    }

    /// The organization called `named`: its id or its name.
    ///
    /// # Errors
    /// `NotFound`, with the names there are.
    pub async fn organization(&self, named: &str) -> Result<Organization> {
        let all = self.organizations().await?;
        let id = named.parse::<OrganizationId>().ok();
        let names: Vec<String> = all.iter().take(20).map(|it| it.name.clone()).collect();
        all.into_iter().find(|it| Some(it.id) == id || it.name == named).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("there is no organization {named:?}")).with_hint(format!(
                "there are: {}",
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            ))
        })
    }

    /// Creates an organization, with a given id or a new one.
    ///
    /// # Errors
    /// `Conflict` when the name or id is taken; `Invalid` for a name that could be taken for an id or is unprintable.
    pub async fn create_organization(&self, name: &str, id: Option<OrganizationId>) -> Result<Organization> {
        let is_printable = name.trim() == name && !name.chars().any(char::is_control);
        if name.is_empty() || name.len() > 100 || !is_printable || name.parse::<Uuid>().is_ok() {
            return Err(Error::invalid(format!(
                "{name:?} is no name for an organization: 1 to 100 printable bytes, no blank at either end, not a UUID"
            )));
        }
        let given = id;
        let id = id.unwrap_or_else(|| OrganizationId(Uuid::new_v4()));
        match self.metastore.create_organization(id, name).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let all = self.organizations().await?;
                let taken = all.iter().find(|it| it.name == name || Some(it.id) == given);
                let Some(taken) = taken else { return Err(error.into()) };
                let whose = format!("there is an organization {:?} with the id {}", taken.name, taken.id);
                let error = Error::new(ErrorKind::Conflict, whose);
                let hint =
                    "it is being deleted; its name and id are free once its objects are gone (`tidemill org list`)";
                Err(if taken.deleting { error.with_hint(hint) } else { error })
            }
            created => Ok(created?),
        }
    }

    /// Changes retention and limits.
    ///
    /// # Errors
    /// `NotFound`; those of the metastore.
    pub async fn change_organization(&self, named: &str, change: &OrganizationChange) -> Result<Organization> {
        let mut organization = self.organization(named).await?;
        for (signal, days) in &change.retention_days {
            if *days > MAX_RETENTION_DAYS {
                let problem = format!("{signal} are kept for at most {MAX_RETENTION_DAYS} days; 0 keeps for ever");
                return Err(Error::invalid(problem));
            }
            let place = Signal::ALL.iter().position(|it| it == signal).expect("ALL holds every signal");
            organization.retention_days[place] = Some(*days).filter(|days| *days > 0);
        }
        if let Some(rate) = change.ingest_bytes_per_second {
            organization.ingest_bytes_per_second = Some(rate).filter(|rate| *rate > 0);
        }
        self.metastore.update_organization(&organization).await?;
        Ok(organization)
    }

    /// Begins the deletion of an organization and all it has.
    ///
    /// # Errors
    /// `NotFound`; those of the metastore.
    pub async fn delete_organization(&self, named: &str) -> Result<Organization> {
        let organization = self.organization(named).await?;
        self.metastore.delete_organization(organization.id).await?;
        Ok(Organization { deleting: true, ..organization })
    }

    /// The keys of one organization, or all.
    ///
    /// # Errors
    /// Those of the metastore.
    pub async fn keys(&self, organization: Option<&str>) -> Result<Vec<ApiKey>> {
        let id = match organization {
            Some(named) => Some(self.organization(named).await?.id),
            None => None,
        };
        Ok(self.metastore.keys(id).await?)
    }

    /// Makes a key: of an organization, or (`None`) an operator's.
    ///
    /// # Errors
    /// `NotFound`; those of the metastore.
    pub async fn create_key(&self, organization: Option<&str>, label: &str) -> Result<CreatedKey> {
        let id = match organization {
            Some(named) => Some(self.organization(named).await?.id),
            None => None,
        };
        let key = issue_key(id, label, self.metastore.now().await?)?;
        self.metastore.create_key(&key.stored).await?;
        Ok(CreatedKey { key: key.secret, stored: key.stored })
    }

    /// A stored configuration document: storage profiles, prefix mappings.
    ///
    /// # Errors
    /// Those of the metastore.
    pub async fn document(&self, name: &str) -> Result<Option<String>> {
        one_of("document", name, DOCUMENTS)?;
        Ok(self.metastore.document(name).await?)
    }

    /// Checks and stores such a document; `label` names it in problems.
    ///
    /// # Errors
    /// `Invalid` with every problem; those of the metastore.
    pub async fn store_document(&self, name: &str, label: &str, text: &str) -> Result<()> {
        one_of("document", name, DOCUMENTS)?;
        let checked = match name {
            MAPPINGS_DOCUMENT => parse_mappings(label, text).map(|_| text.to_owned()),
            _ => storable_profiles(label, text),
        };
        let stored = checked.map_err(|problems| Error::invalid(problems.to_string()))?;
        Ok(self.metastore.store_document(name, &stored).await?)
    }

    /// Revokes a key by its public id.
    ///
    /// # Errors
    /// `NotFound`; those of the metastore.
    pub async fn revoke_key(&self, id: &str) -> Result<()> {
        Ok(self.metastore.revoke_key(id).await?)
    }
}

fn limit(asked: Option<usize>, default: usize) -> Result<usize> {
    match asked {
        Some(0) => Err(Error::invalid("limit: must be at least 1")),
        Some(asked) if asked > MAX_ROWS => Err(Error::invalid(format!("limit: {asked} is more than {MAX_ROWS}"))),
        Some(asked) => Ok(asked),
        None => Ok(default),
    }
}

fn one_of(what: &str, text: &str, allowed: &[&str]) -> Result<()> {
    if allowed.contains(&text) {
        return Ok(());
    }
    Err(Error::invalid(format!("{what}: {text:?} is none of {}", allowed.join(", "))))
}
