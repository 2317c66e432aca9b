//! From object events to inbox rows.
//!
//! An event's object is looked up (whose, which signal), described where the event does not, identified by bucket, key and version
//! or ETag, and admitted. What cannot be admitted becomes a refusal that `tidemill inbox` shows. Both are committed when
//! [`Admitter::admit`] returns; when it fails, the sender must send again, which is safe.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use tidemill_store::buckets::Buckets;
use tidemill_store::metastore::{Admission, InputIdentity, NewInput, Refusal};
use tidemill_store::step::{Step, reach};
use tidemill_store::{Metastore, object::ObjectInfo};
use tidemill_types::{OrganizationId, Route, Routing, Signal, TimestampNs};
use tokio::time::Instant;

use super::cursor::excerpt;
use super::event::ObjectEvent;
use crate::clock::Clock;
use crate::receive::Gate;

/// The largest object that is read.
pub const MAX_OBJECT_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Notified objects go after live push and before backfill.
pub const NOTIFICATION_PRIORITY: i16 = 10;

/// A name has at most this many bytes; S3 and Cloud Storage allow 1024, Azure 1024 characters.
const MAX_NAME_BYTES: usize = 2048;

/// Objects described at the same time.
const PARALLEL_HEADS: usize = 16;
/// Inputs admitted in one transaction, so that it stays short.
const INPUTS_PER_TRANSACTION: usize = 500;
/// How long the list of organizations is believed; an unknown one is looked up at once.
const ORGANIZATIONS_TTL: Duration = Duration::from_secs(1);

/// What an [`Admitter`] works on.
#[derive(Debug, Clone)]
pub struct AdmitterOptions {
    /// Where inbox rows and refusals go.
    pub metastore: Arc<dyn Metastore>,
    /// Where objects lie.
    pub buckets: Buckets,
    /// Whose objects are; replaced when profiles change.
    pub routing: Arc<ArcSwap<Routing>>,
    /// When things arrive.
    pub clock: Arc<dyn Clock>,
    /// Closed while no new data is taken, as for pushes.
    pub gate: Gate,
}

/// For whom a notification may speak (T-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// For objects of any organization: an operator's key, or a source that an operator configured.
    Operator,
    /// For objects of this organization.
    Organization(OrganizationId),
}

/// What became of a notification's events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admitted {
    /// Objects that are in the inbox now.
    pub admitted: usize,
    /// Objects whose very content was announced before.
    pub known: usize,
    /// Objects of our own, and folder markers.
    pub ignored: usize,
    /// Objects refused, with reasons; recorded.
    pub refused: Vec<Refusal>,
}

/// Why a notification was not taken; nothing of it was admitted, except for what a repetition finds to be known.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// The caller speaks for another organization's objects.
    #[error("the key of organization {of} may not announce {bucket}/{key}, which belongs to another organization")]
    Forbidden {
        /// The caller's organization.
        of: OrganizationId,
        /// The object's bucket.
        bucket: String,
        /// The object's path.
        key: String,
    },
    /// No new data is taken at the moment, or none of this organization.
    #[error("no new data is taken at the moment: {0}")]
    Closed(String),
    /// A store failed; the sender may come again.
    #[error(transparent)]
    Store(#[from] tidemill_store::Error),
}

/// Admits object events; clones share everything.
#[derive(Debug, Clone)]
pub struct Admitter {
    options: AdmitterOptions,
    organizations: Arc<Mutex<Option<KnownOrganizations>>>,
}

#[derive(Debug)]
struct KnownOrganizations {
    ids: HashSet<OrganizationId>,
    at: Instant,
}

/// An event whose owner is known.
struct Owned<'a> {
    event: &'a ObjectEvent,
    organization: OrganizationId,
    instance_num: i32,
    collector: String,
    signal: Signal,
}

impl Admitter {
    /// An admitter over these stores.
    pub fn new(options: AdmitterOptions) -> Self {
        Self { options, organizations: Arc::default() }
    }

    /// Admits the objects of a notification. When this returns `Ok`, inbox rows and refusals are committed.
    ///
    /// # Errors
    /// [`Denied::Closed`] and [`Denied::Forbidden`] before anything is admitted; [`Denied::Store`] when the metastore or an object store does not answer.
    pub async fn admit(&self, events: &[ObjectEvent], authority: Authority) -> Result<Admitted, Denied> {
        if let Some(reason) = self.options.gate.closed_because().filter(|_| !events.is_empty()) {
            return Err(Denied::Closed(reason));
        }
        let mut result = Admitted::default();
        let owned = self.find_owners(events, authority, &mut result).await?;
        for owned in &owned {
            self.options.gate.check_for(owned.organization).map_err(|error| Denied::Closed(error.to_string()))?;
        }
        // The futures are made first: a closure inside the stream would make this one not `Send`.
        let describing: Vec<_> = owned.into_iter().map(|owned| self.describe(owned)).collect();
        let described: Vec<_> = stream::iter(describing).buffered(PARALLEL_HEADS).try_collect().await?;
        let now = self.options.clock.now();
        let mut inputs = Vec::with_capacity(described.len());
        for (owned, info) in described {
            match info.and_then(|info| new_input(&owned, info.as_ref(), now)) {
                Ok(input) => inputs.push(input),
                Err(reason) => {
                    let refusal = self.refusal(owned.event, Some(owned.organization), Some(owned.signal), reason);
                    result.refused.push(refusal);
                }
            }
        }
        for batch in inputs.chunks(INPUTS_PER_TRANSACTION) {
            for (input, admission) in batch.iter().zip(self.options.metastore.admit(batch).await?) {
                match admission {
                    Admission::Admitted(_) => {
                        self.options.gate.charge(input.organization, input.size_bytes);
                        result.admitted += 1;
                    }
                    Admission::Known(_) => result.known += 1,
                }
            }
            reach(Step::Admitted);
        }
        if !result.refused.is_empty() {
            self.options.metastore.record_refusals(&result.refused).await?;
        }
        Ok(result)
    }

    /// Records that something sent to `place` could not be read.
    ///
    /// # Errors
    /// The metastore's.
    pub async fn refuse(&self, authority: Authority, place: &str, reason: String) -> tidemill_store::Result<()> {
        let organization = match authority {
            Authority::Operator => None,
            Authority::Organization(id) => Some(id),
        };
        let event = ObjectEvent {
            bucket: "notification".to_owned(),
            key: place.to_owned(),
            size_bytes: None,
            version: None,
            etag: None,
            event_time: None,
        };
        self.options.metastore.record_refusals(&[self.refusal(&event, organization, None, reason)]).await
    }

    async fn find_owners<'a>(
        &self,
        events: &'a [ObjectEvent],
        authority: Authority,
        result: &mut Admitted,
    ) -> Result<Vec<Owned<'a>>, Denied> {
        let routing = self.options.routing.load_full();
        let mut owned = Vec::with_capacity(events.len());
        let mut seen = HashSet::with_capacity(events.len());
        let speaker = match authority {
            Authority::Operator => None,
            Authority::Organization(of) => Some(of),
        };
        for event in events {
            if let Err(reason) = check_names(event) {
                result.refused.push(self.refusal(event, speaker, None, reason));
                continue;
            }
            let found = routing.route(&event.bucket, &event.key);
            let organization = match &found {
                Ok(Route::Input { organization, .. }) => Some(*organization),
                Ok(Route::Ignored) => None,
                Err(error) => error.organization,
            };
            if let (Authority::Organization(of), Some(organization)) = (authority, organization)
                && of != organization
            {
                return Err(Denied::Forbidden { of, bucket: event.bucket.clone(), key: event.key.clone() });
            }
            match found {
                Ok(Route::Ignored) => result.ignored += 1,
                Ok(Route::Input { organization, instance_num, collector, signal }) => {
                    if !self.organization_exists(organization).await? {
                        let reason = format!("organization {organization} does not exist");
                        result.refused.push(self.refusal(event, Some(organization), Some(signal), reason));
                    } else if seen.insert((&event.bucket, &event.key, &event.version, &event.etag)) {
                        owned.push(Owned { event, organization, instance_num, collector, signal });
                    } else {
                        result.known += 1;
                    }
                }
                Err(error) => {
                    let organization = error.organization.or(speaker);
                    result.refused.push(self.refusal(event, organization, error.signal, error.problem));
                }
            }
        }
        Ok(owned)
    }

    async fn organization_exists(&self, id: OrganizationId) -> tidemill_store::Result<bool> {
        let is_known = |known: &KnownOrganizations| known.at.elapsed() < ORGANIZATIONS_TTL && known.ids.contains(&id);
        if self.organizations.lock().as_ref().is_some_and(is_known) {
            return Ok(true);
        }
        let organizations = self.options.metastore.organizations().await?;
        self.options.gate.rates().refresh(&organizations, std::time::Instant::now());
        let ids: HashSet<_> = organizations.into_iter().filter(|found| !found.deleting).map(|found| found.id).collect();
        let exists = ids.contains(&id);
        *self.organizations.lock() = Some(KnownOrganizations { ids, at: Instant::now() });
        Ok(exists)
    }

    /// Asks the object's store for what the event leaves out. The inner `Err` is a reason to refuse the object.
    async fn describe<'a>(
        &self,
        owned: Owned<'a>,
    ) -> tidemill_store::Result<(Owned<'a>, Result<Option<ObjectInfo>, String>)> {
        let event = owned.event;
        if event.etag.is_some() && event.size_bytes.is_some() {
            return Ok((owned, Ok(None)));
        }
        let found = match self.options.buckets.get(&event.bucket) {
            Ok(store) => store.head(&event.key).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(info) => Ok((owned, Ok(Some(info)))),
            Err(error) if error.kind().is_retryable() => Err(error),
            Err(error) => Ok((owned, Err(format!("the object cannot be read: {error}")))),
        }
    }

    fn refusal(
        &self,
        event: &ObjectEvent,
        organization: Option<OrganizationId>,
        signal: Option<Signal>,
        reason: String,
    ) -> Refusal {
        Refusal {
            organization,
            signal,
            bucket: bounded(&event.bucket),
            object_key: bounded(&event.key),
            records_refused: 0,
            records_kept: 0,
            reason,
            at: self.options.clock.now(),
        }
    }
}

/// The inbox row of an object; `Err` is a reason to refuse it.
fn new_input(owned: &Owned<'_>, info: Option<&ObjectInfo>, now: TimestampNs) -> Result<NewInput, String> {
    let event = owned.event;
    let etag = event.etag.clone().or_else(|| info?.etag.clone());
    let size_bytes = event.size_bytes.or(info.map(|info| info.size)).unwrap_or_default();
    if size_bytes == 0 {
        return Err("the object is empty (0 bytes)".to_owned());
    }
    if size_bytes > MAX_OBJECT_BYTES {
        return Err(format!("the object has {size_bytes} bytes; at most {MAX_OBJECT_BYTES} (4 GiB) are read"));
    }
    // What is read is what the ETag names. Where the store was asked for it, it may be newer than what was announced, and would then be
    // taken in once more with the event of its own.
    let found = info.filter(|_| event.etag.is_none());
    let version = match (&event.version, found.map(|found| &found.version)) {
        (Some(announced), Some(Some(found))) if announced != found => {
            return Err(format!(
                "version {announced} was replaced by {found} after it was announced; the new one has an event of its own"
            ));
        }
        // A store that does not tell its versions: what was found is known by its ETag.
        (_, Some(None)) if etag.is_some() => None,
        (announced, _) => announced.as_ref(),
    };
    let content = match (version, &etag, info) {
        (Some(version), _, _) => format!("version {version}"),
        (None, Some(etag), _) => format!("etag {}", bare_etag(etag)),
        (None, None, info) => format!("written {} {size_bytes}", info.map_or(0, |info| info.modified.0)),
    };
    Ok(NewInput {
        organization: owned.organization,
        instance_num: owned.instance_num,
        collector: owned.collector.clone(),
        signal: owned.signal,
        bucket: event.bucket.clone(),
        object_key: event.key.clone(),
        etag,
        size_bytes,
        records: None,
        identities: vec![object_identity(&event.bucket, &event.key, &content)],
        arrived_at: now,
        owned: false,
        priority: NOTIFICATION_PRIORITY,
        format: None,
    })
}

/// A name as a refusal shows it.
fn bounded(name: &str) -> String {
    if name.len() > MAX_NAME_BYTES { excerpt(name) } else { name.to_owned() }
}

/// Refuses what no store names so, and what a database or a request could not take at all: it would be offered again for ever.
fn check_names(event: &ObjectEvent) -> Result<(), String> {
    for (what, text) in
        [("bucket", Some(&event.bucket)), ("key", Some(&event.key)), ("version", event.version.as_ref())]
    {
        let Some(text) = text else { continue };
        if text.len() > MAX_NAME_BYTES {
            return Err(format!("the {what} has {} bytes, at most {MAX_NAME_BYTES}", text.len()));
        }
        if text.contains('\0') {
            return Err(format!("the {what} has a zero byte"));
        }
    }
    // RFC 9110, section 8.8.3, without the bytes beyond ASCII.
    let is_etag = |etag: &str| etag.len() <= MAX_NAME_BYTES && etag.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    match event.etag.as_deref() {
        Some(etag) if !is_etag(etag) => Err(format!("the ETag {:?} is none", excerpt(etag))),
        _ => Ok(()),
    }
}

/// An ETag without its quotes: S3's events leave them out, its answers do not.
fn bare_etag(etag: &str) -> &str {
    etag.trim_start_matches("W/").trim_matches('"')
}

/// The identity of an object's content: BLAKE3 over its length-prefixed bucket, key and version or ETag.
pub(crate) fn object_identity(bucket: &str, key: &str, content: &str) -> InputIdentity {
    let mut hasher = blake3::Hasher::new_derive_key("tidemill object identity v1");
    for part in [bucket, key, content] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    InputIdentity(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written the day the identity was first stored; a ledger holds such hashes, so they never change.
    #[test]
    fn the_identity_of_an_object_is_frozen() {
        let identity = object_identity("bucket", "logs-raw/a.json", "etag 0123");
        assert_eq!(hex::encode(identity.0), "324a3ce76e6522f76488227796a84be0d761316ce28bbb5a1143954b2d314c5a");
        assert_ne!(identity, object_identity("bucketl", "ogs-raw/a.json", "etag 0123"));
    }
}
