//! Whose objects go where: storage profiles, prefix mappings and API keys, read from where the configuration says and read again
//! when that changes.
//!
//! Owns: the current [`Routing`] and the open bucket of each profile. Never: parsing (`profiles`, `api_keys`). Start with
//! [`Directory::open`].

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tidemill_lake::place::{Place, Placement};
use tidemill_store::Metastore;
use tidemill_store::buckets::Buckets;
use tidemill_store::metastore::{ApiKey, KeyRole};
use tidemill_types::{ErrorKind, OrganizationId, Routing, Signal};
use tokio_util::sync::CancellationToken;

use crate::api_keys::{ApiKeySet, parse_api_keys};
use crate::auth::hash_key;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::open_bucket::open_profile_bucket;
use crate::profiles::{MAPPINGS_DOCUMENT, PROFILES_DOCUMENT, load_text, parse_mappings, parse_profiles};

/// How often sources are looked at.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// The label of keys that `auth.keys` brought; they go when they leave it.
const IMPORTED_LABEL: &str = "from auth.keys";

/// The current profiles, mappings and imported keys.
#[derive(Debug)]
pub struct Directory {
    config: Config,
    metastore: Arc<dyn Metastore>,
    buckets: Arc<Buckets>,
    routing: Arc<ArcSwap<Routing>>,
    default_bucket: String,
    /// The texts that the current state was made of.
    applied: Mutex<Texts>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Texts {
    profiles: Option<(String, String)>,
    mappings: Option<String>,
    keys: Option<(String, String)>,
}

impl Directory {
    /// Reads profiles, mappings and keys, and opens the profiles' buckets.
    ///
    /// # Errors
    /// `Invalid` with every problem of a document; those of the stores.
    pub async fn open(
        config: Config,
        metastore: Arc<dyn Metastore>,
        buckets: Arc<Buckets>,
        default_bucket: String,
    ) -> Result<Arc<Self>> {
        let routing = Arc::new(ArcSwap::from_pointee(Routing::default()));
        let directory = Self { config, metastore, buckets, routing, default_bucket, applied: Mutex::default() };
        let texts = directory.read().await?;
        directory.apply(texts).await?;
        Ok(Arc::new(directory))
    }

    /// The routing, which is replaced when it changes.
    pub fn routing(&self) -> Arc<ArcSwap<Routing>> {
        self.routing.clone()
    }

    /// Reads again until `stop`; what is wrong is told and leaves the former state in use.
    pub async fn run_refresh(self: Arc<Self>, stop: CancellationToken) {
        let mut told = String::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(REFRESH_INTERVAL) => {}
            }
            match self.refresh().await {
                Ok(()) => told.clear(),
                Err(error) if error.full_message() == told => {}
                Err(error) => {
                    told = error.full_message();
                    tracing::warn!(error = %told, "changed profiles or keys are not used");
                }
            }
        }
    }

    async fn refresh(&self) -> Result<()> {
        let texts = self.read().await?;
        if *self.applied.lock() == texts {
            return Ok(());
        }
        self.apply(texts).await?;
        tracing::info!("storage profiles, mappings or keys changed and are in use");
        Ok(())
    }

    async fn read(&self) -> Result<Texts> {
        let profiles = match self.config.optional("storage.profiles") {
            Some(source) => Some((source.to_owned(), read_source(source)?)),
            None => self.metastore.document(PROFILES_DOCUMENT).await?.map(|text| (PROFILES_DOCUMENT.to_owned(), text)),
        };
        let mappings = self.metastore.document(MAPPINGS_DOCUMENT).await?;
        let keys = match self.config.optional("auth.keys") {
            Some(source) => Some((source.to_owned(), read_source(source)?)),
            None => None,
        };
        Ok(Texts { profiles, mappings, keys })
    }

    async fn apply(&self, texts: Texts) -> Result<()> {
        let invalid = |problems: crate::profiles::Problems| Error::invalid(problems.to_string());
        let profiles = match &texts.profiles {
            Some((label, text)) => parse_profiles(label, text).map_err(invalid)?,
            None => Vec::new(),
        };
        let mappings = match &texts.mappings {
            Some(text) => parse_mappings(MAPPINGS_DOCUMENT, text).map_err(invalid)?,
            None => Vec::new(),
        };
        let keys = match &texts.keys {
            Some((label, text)) => Some(parse_api_keys(label, text).map_err(invalid)?),
            None => None,
        };
        for profile in &profiles {
            if profile.bucket != self.default_bucket {
                self.buckets.set(profile.bucket.clone(), open_profile_bucket(profile)?);
            }
        }
        for profile in &profiles {
            self.ensure_organization(profile.organization).await?;
        }
        if let Some(keys) = keys {
            self.import_keys(&keys).await?;
        }
        // With profiles, a folder of this machine is where nobody would look for data: only a bucket that was named serves others.
        let is_default_meant = profiles.is_empty() || self.config.optional("storage.url").is_some();
        let default_bucket = is_default_meant.then(|| self.default_bucket.clone());
        self.routing.store(Arc::new(Routing { profiles, mappings, default_bucket }));
        *self.applied.lock() = texts;
        Ok(())
    }

    async fn ensure_organization(&self, id: OrganizationId) -> Result<()> {
        if self.metastore.organizations().await?.iter().any(|it| it.id == id) {
            return Ok(());
        }
        match self.metastore.create_organization(id, &format!("organization {id}")).await {
            Ok(_) => Ok(()),
            // Another process was faster.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn import_keys(&self, sets: &[ApiKeySet]) -> Result<()> {
        let stored = self.metastore.keys(None).await?;
        let known: HashSet<[u8; 32]> = stored.iter().map(|key| key.hash).collect();
        let mut wanted = HashSet::new();
        let now = self.metastore.now().await?;
        for set in sets {
            self.ensure_organization(set.organization).await?;
            for key in &set.keys {
                let hash = hash_key(key);
                wanted.insert(hash);
                if !known.contains(&hash) {
                    let id = format!("key_{}", hex::encode(&hash[..6]));
                    let organization = Some(set.organization);
                    let (role, label) = (KeyRole::Organization, IMPORTED_LABEL.to_owned());
                    let key = ApiKey { id, hash, organization, role, label, created_at: now };
                    match self.metastore.create_key(&key).await {
                        Err(error) if error.kind() != ErrorKind::Conflict => return Err(error.into()),
                        _ => {}
                    }
                }
            }
        }
        for key in stored.iter().filter(|key| key.label == IMPORTED_LABEL && !wanted.contains(&key.hash)) {
            self.metastore.revoke_key(&key.id).await?;
        }
        Ok(())
    }
}

fn read_source(source: &str) -> Result<String> {
    load_text(source).map_err(|error| Error::caused(ErrorKind::Invalid, error.to_string(), error))
}

impl Placement for Directory {
    fn for_push(&self, organization: OrganizationId, collector: &str) -> tidemill_lake::Result<Place> {
        let routing = self.routing.load();
        let own = || routing.profiles.iter().filter(|profile| profile.organization == organization);
        // A collector without a profile of its own writes where the organization's lowest instance does.
        let chosen = own()
            .filter(|profile| profile.collector_name == collector)
            .min_by_key(|profile| profile.instance_num)
            .or_else(|| own().min_by_key(|profile| profile.instance_num));
        match (chosen, &routing.default_bucket) {
            (Some(profile), _) => Ok(Place { bucket: profile.bucket.clone(), instance_num: profile.instance_num }),
            (None, Some(bucket)) => Ok(Place { bucket: bucket.clone(), instance_num: 1 }),
            (None, None) => Err(no_profile("place a push", organization)),
        }
    }

    fn for_segments(&self, organization: OrganizationId, instance_num: i32) -> tidemill_lake::Result<Place> {
        let routing = self.routing.load();
        let own = || routing.profiles.iter().filter(|profile| profile.organization == organization);
        // What came by a watched folder has the implied instance: its segments go where the lowest one's do.
        let chosen = own()
            .find(|profile| profile.instance_num == instance_num)
            .or_else(|| own().min_by_key(|profile| profile.instance_num));
        match (chosen, &routing.default_bucket) {
            (Some(profile), _) => Ok(Place { bucket: profile.bucket.clone(), instance_num: profile.instance_num }),
            (None, Some(bucket)) => Ok(Place { bucket: bucket.clone(), instance_num }),
            (None, None) => Err(no_profile("place segments", organization)),
        }
    }

    fn promoted(&self, _: OrganizationId, _: Signal) -> Vec<String> {
        self.config.list("worker.promote")
    }
}

fn no_profile(operation: &'static str, organization: OrganizationId) -> tidemill_lake::Error {
    let reason = format!("organization {organization} has no storage profile");
    tidemill_lake::Error::Invalid { operation, reason }
}
