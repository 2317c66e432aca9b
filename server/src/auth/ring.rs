//! Which stored key a request carries.
//!
//! Keys are read from the metastore as one snapshot and trusted for a short time, so that a rotated key works, and a revoked one
//! stops working, without a restart. A key that the snapshot does not know makes it read again, but not more than a few times a
//! second, so that guessing costs the database nothing.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::HeaderMap;
use subtle::ConstantTimeEq as _;
use tidemill_lake::auth::{AuthError, Authenticator, Caller, api_key};
use tidemill_store::Metastore;
use tidemill_store::metastore::{ApiKey, KeyRole, Organization};
use tidemill_types::OrganizationId;
use tokio::sync::Mutex;

use super::issue::hash_key;

/// The header by which an operator says for which organization it acts: its id or its name.
pub const ORGANIZATION_HEADER: &str = "x-tidemill-organization";

/// The header by which clients of Loki, Mimir and Tempo name a tenant. Heard only where no keys are asked for: with keys, the key alone
/// says whose data it is.
const TENANT_HEADER: &str = "x-scope-orgid";

/// After an unknown key the snapshot is read again, but not before it is this old: the caller waits, and guessing costs the
/// database little.
const SHORTEST_AGE: Duration = Duration::from_millis(250);

/// Whether callers must show a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Openness {
    /// Every request needs a key.
    KeyNeeded,
    /// `--no-auth`, on loopback only: who sends no key acts for the only (or the default) organization.
    Open,
}

/// The authenticator of every listener.
pub struct KeyRing {
    metastore: Arc<dyn Metastore>,
    openness: Openness,
    trust: Duration,
    snapshot: ArcSwap<Snapshot>,
    refresh: Mutex<()>,
}

#[derive(Default)]
struct Snapshot {
    /// By the first 8 bytes of the hash; the rest is compared in constant time.
    keys: HashMap<[u8; 8], Vec<ApiKey>>,
    organizations: Vec<Organization>,
    read_at: Option<Instant>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("openness", &self.openness).field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl KeyRing {
    /// A ring over the metastore's keys, each snapshot trusted for `trust`.
    pub fn new(metastore: Arc<dyn Metastore>, openness: Openness, trust: Duration) -> Self {
        let empty = Snapshot::default();
        Self { metastore, openness, trust, snapshot: ArcSwap::from_pointee(empty), refresh: Mutex::new(()) }
    }

    /// Reads anew at the next request: keys or organizations were changed by this very process.
    pub fn forget(&self) {
        self.snapshot.store(Arc::new(Snapshot::default()));
    }

    /// The organization that `named` (an id or a name) means.
    ///
    /// # Errors
    /// `Forbidden` when there is none; `Unavailable`.
    async fn organization(&self, named: &str) -> Result<OrganizationId, AuthError> {
        // Only an operator's word, or that of a holder of a valid key, makes the snapshot be read at once.
        for oldest in [self.trust, Duration::ZERO] {
            let snapshot = self.snapshot(oldest).await?;
            let id = named.parse::<OrganizationId>().ok();
            let found =
                snapshot.organizations.iter().find(|it| !it.deleting && (Some(it.id) == id || it.name == named));
            if let Some(organization) = found {
                return Ok(organization.id);
            }
        }
        Err(AuthError::Forbidden(format!("there is no organization {named:?}")))
    }

    async fn caller_without_key(&self, named: Option<&str>) -> Result<Caller, AuthError> {
        if self.openness == Openness::KeyNeeded {
            return Err(AuthError::Missing);
        }
        let organization = match named {
            Some(named) => Some(self.organization(named).await?),
            None => {
                let snapshot = self.snapshot(self.trust).await?;
                let live: Vec<&Organization> = snapshot.organizations.iter().filter(|it| !it.deleting).collect();
                match live.as_slice() {
                    [only] => Some(only.id),
                    several => several.iter().find(|it| it.name == "default").map(|it| it.id),
                }
            }
        };
        Ok(Caller { organization, role: KeyRole::Operator })
    }

    async fn find_key(&self, key: &str) -> Result<ApiKey, AuthError> {
        let hash = hash_key(key);
        let snapshot = self.snapshot(self.trust).await?;
        if let Some(stored) = snapshot.find(&hash) {
            return Ok(stored);
        }
        let age = snapshot.read_at.map_or(SHORTEST_AGE, |read_at| read_at.elapsed());
        tokio::time::sleep(SHORTEST_AGE.saturating_sub(age)).await;
        self.snapshot(SHORTEST_AGE).await?.find(&hash).ok_or(AuthError::Unknown)
    }

    async fn snapshot(&self, oldest: Duration) -> Result<Arc<Snapshot>, AuthError> {
        let current = self.snapshot.load_full();
        if current.is_younger_than(oldest) {
            return Ok(current);
        }
        let _one_at_a_time = self.refresh.lock().await;
        let current = self.snapshot.load_full();
        if current.is_younger_than(oldest) {
            return Ok(current);
        }
        match self.read().await {
            Ok(read) => {
                let read = Arc::new(read);
                self.snapshot.store(Arc::clone(&read));
                Ok(read)
            }
            Err(error) => Err(AuthError::Unavailable(error.to_string())),
        }
    }

    async fn read(&self) -> tidemill_store::Result<Snapshot> {
        // Before the read: what changes during it is not taken for known.
        let read_at = Some(Instant::now());
        let mut keys: HashMap<[u8; 8], Vec<ApiKey>> = HashMap::new();
        for key in self.metastore.keys(None).await? {
            keys.entry(bucket_of(&key.hash)).or_default().push(key);
        }
        Ok(Snapshot { keys, organizations: self.metastore.organizations().await?, read_at })
    }
}

impl Snapshot {
    fn is_younger_than(&self, oldest: Duration) -> bool {
        self.read_at.is_some_and(|read_at| read_at.elapsed() < oldest)
    }

    fn find(&self, hash: &[u8; 32]) -> Option<ApiKey> {
        let candidates = self.keys.get(&bucket_of(hash))?;
        candidates.iter().find(|key| bool::from(key.hash.ct_eq(hash))).cloned()
    }
}

fn bucket_of(hash: &[u8; 32]) -> [u8; 8] {
    let mut bucket = [0; 8];
    bucket.copy_from_slice(&hash[..8]);
    bucket
}

#[async_trait]
impl Authenticator for KeyRing {
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, AuthError> {
        // A name in other letters than ASCII comes as its UTF-8.
        let name_in = |header| headers.get(header).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let named = name_in(ORGANIZATION_HEADER);
        let Some(key) = api_key(headers) else {
            let named = named.or_else(|| name_in(TENANT_HEADER));
            return self.caller_without_key(named.as_deref()).await;
        };
        let named = named.as_deref();
        let stored = self.find_key(&key).await?;
        let organization = match (stored.role, stored.organization, named) {
            (KeyRole::Operator, _, Some(named)) => Some(self.organization(named).await?),
            (KeyRole::Operator, _, None) => None,
            (KeyRole::Organization, own, None) => own,
            (KeyRole::Organization, own, Some(named)) => match self.organization(named).await {
                Ok(found) if Some(found) == own => own,
                Err(AuthError::Unavailable(reason)) => return Err(AuthError::Unavailable(reason)),
                // Also where there is none: whose names there are is nobody's business.
                _ => return Err(AuthError::Forbidden(format!("the API key is not one of organization {named:?}"))),
            },
        };
        Ok(Caller { organization, role: stored.role })
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use tidemill_store::sqlite::SqliteMetastore;
    use tidemill_types::TimestampNs;
    use uuid::Uuid;

    use super::*;
    use crate::auth::issue_key;

    struct World {
        _folder: tempfile::TempDir,
        metastore: Arc<dyn Metastore>,
        shop: OrganizationId,
        other: OrganizationId,
    }

    impl World {
        async fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let metastore = SqliteMetastore::open(&folder.path().join("metastore.sqlite")).await.expect("opens");
            let metastore: Arc<dyn Metastore> = Arc::new(metastore);
            let (shop, other) = (OrganizationId(Uuid::new_v4()), OrganizationId(Uuid::new_v4()));
            metastore.create_organization(shop, "shop").await.expect("is created");
            metastore.create_organization(other, "other").await.expect("is created");
            Self { _folder: folder, metastore, shop, other }
        }

        /// Nothing is believed for longer than one request.
        fn ring(&self, openness: Openness) -> KeyRing {
            KeyRing::new(self.metastore.clone(), openness, Duration::ZERO)
        }

        async fn key(&self, organization: Option<OrganizationId>) -> (String, String) {
            let key = issue_key(organization, "", TimestampNs(0)).expect("is made");
            self.metastore.create_key(&key.stored).await.expect("is stored");
            (key.secret, key.stored.id)
        }
    }

    async fn ask(ring: &KeyRing, key: Option<&str>, organization: Option<&str>) -> Result<Caller, AuthError> {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            headers.insert("x-api-key", key.parse().expect("a header"));
        }
        if let Some(organization) = organization {
            let value = http::HeaderValue::from_bytes(organization.as_bytes()).expect("a header");
            headers.insert(ORGANIZATION_HEADER, value);
        }
        ring.authenticate(&headers).await
    }

    #[tokio::test]
    async fn keys_come_and_go_without_a_restart() {
        let world = World::new().await;
        let ring = world.ring(Openness::KeyNeeded);
        assert_eq!(ask(&ring, Some("tm_guess"), None).await, Err(AuthError::Unknown));
        let (key, id) = world.key(Some(world.shop)).await;
        let caller = Caller { organization: Some(world.shop), role: KeyRole::Organization };
        assert_eq!(ask(&ring, Some(&key), None).await, Ok(caller));
        world.metastore.revoke_key(&id).await.expect("is revoked");
        assert_eq!(ask(&ring, Some(&key), None).await, Err(AuthError::Unknown));
        assert_eq!(ask(&ring, None, None).await, Err(AuthError::Missing));
    }

    #[tokio::test]
    async fn only_an_operator_names_organizations() {
        let world = World::new().await;
        let ring = world.ring(Openness::KeyNeeded);
        let (member, _) = world.key(Some(world.shop)).await;
        let (operator, _) = world.key(None).await;
        assert_eq!(ask(&ring, Some(&member), Some("shop")).await.map(|it| it.organization), Ok(Some(world.shop)));
        let refusal =
            |named: &str| Err(AuthError::Forbidden(format!("the API key is not one of organization {named:?}")));
        assert_eq!(ask(&ring, Some(&member), Some("other")).await, refusal("other"));
        assert_eq!(
            ask(&ring, Some(&member), Some("nobody")).await,
            refusal("nobody"),
            "it tells whose names there are"
        );
        assert_eq!(ask(&ring, Some(&operator), Some("other")).await.map(|it| it.organization), Ok(Some(world.other)));
        assert_eq!(ask(&ring, Some(&operator), None).await.map(|it| it.organization), Ok(None));
        let bakery = OrganizationId(Uuid::new_v4());
        world.metastore.create_organization(bakery, "Bäckerei").await.expect("is created");
        assert_eq!(ask(&ring, Some(&operator), Some("Bäckerei")).await.map(|it| it.organization), Ok(Some(bakery)));
        assert!(matches!(ask(&ring, Some(&operator), Some("nobody")).await, Err(AuthError::Forbidden(_))));
    }

    #[tokio::test]
    async fn tenants_are_named_only_where_no_keys_are_asked_for() {
        let world = World::new().await;
        let (member, _) = world.key(Some(world.shop)).await;
        let (operator, _) = world.key(None).await;
        let ask = async |openness, key: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(TENANT_HEADER, "other".parse().expect("a header"));
            if let Some(key) = key {
                let basic = base64::engine::general_purpose::STANDARD.encode(format!("anybody:{key}"));
                headers.insert("authorization", format!("Basic {basic}").parse().expect("a header"));
            }
            world.ring(openness).authenticate(&headers).await.map(|caller| caller.organization)
        };
        assert_eq!(ask(Openness::Open, None).await, Ok(Some(world.other)));
        assert_eq!(ask(Openness::KeyNeeded, None).await, Err(AuthError::Missing));
        for openness in [Openness::Open, Openness::KeyNeeded] {
            assert_eq!(ask(openness, Some(&member)).await, Ok(Some(world.shop)), "a key says whose data it is");
            assert_eq!(ask(openness, Some(&operator)).await, Ok(None));
        }
    }

    #[tokio::test]
    async fn without_keys_somebody_must_be_meant() {
        let world = World::new().await;
        let ring = world.ring(Openness::Open);
        assert_eq!(ask(&ring, None, None).await.map(|it| it.organization), Ok(None));
        assert_eq!(ask(&ring, None, Some("other")).await.map(|it| it.organization), Ok(Some(world.other)));
        world.metastore.delete_organization(world.other).await.expect("is deleted");
        assert_eq!(ask(&ring, None, None).await.map(|it| it.organization), Ok(Some(world.shop)));
        assert_eq!(ask(&ring, Some("tm_guess"), None).await, Err(AuthError::Unknown));
    }
}
