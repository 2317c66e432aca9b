//! Whose objects go where: storage profiles, prefix mappings and API keys, read from where the configuration says and read again
//! when that changes.
//!
//! Owns: the current [`Routing`] and the open bucket of each profile. Never: parsing (`profiles`, `api_keys`). Start with
//! [`Directory::open`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tidemill_lake::place::{Place, Placement};
use tidemill_store::Metastore;
use tidemill_store::buckets::Buckets;
use tidemill_store::metastore::{ApiKey, KeyRole};
use tidemill_types::{ErrorKind, OrganizationId, PrefixMapping, Routing, Signal, StorageProfile, TimestampNs};
use tokio_util::sync::CancellationToken;

use crate::api_keys::{ApiKeySet, parse_api_keys};
use crate::auth::hash_key;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::open_bucket::open_profile_bucket;
use crate::profiles::{MAPPINGS_DOCUMENT, PROFILES_DOCUMENT, Problems, load_text, parse_mappings, parse_profiles};

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

/// What the texts say.
struct Documents {
    profiles: Vec<StorageProfile>,
    mappings: Vec<PrefixMapping>,
    /// `None` where no source of keys is configured.
    keys: Option<Vec<ApiKeySet>>,
}

/// The storage profiles that a server would use.
///
/// # Errors
/// `Invalid` with every problem of profiles, mappings and keys; those of the metastore.
pub async fn read_profiles(config: &Config, metastore: &dyn Metastore) -> Result<Vec<StorageProfile>> {
    Ok(Texts::read(config, metastore).await?.parse()?.profiles)
}

impl Texts {
    async fn read(config: &Config, metastore: &dyn Metastore) -> Result<Self> {
        let profiles = match config.optional("storage.profiles") {
            Some(source) => Some((source.to_owned(), read_source(source)?)),
            None => metastore.document(PROFILES_DOCUMENT).await?.map(|text| (PROFILES_DOCUMENT.to_owned(), text)),
        };
        let mappings = metastore.document(MAPPINGS_DOCUMENT).await?;
        let keys = match config.optional("auth.keys") {
            Some(source) => Some((source.to_owned(), read_source(source)?)),
            None => None,
        };
        Ok(Self { profiles, mappings, keys })
    }

    /// Reads all of them, so that what is wrong in any is told at once.
    fn parse(&self) -> Result<Documents> {
        let mut problems = Vec::new();
        let mut note = |found: Problems| problems.push(found.to_string());
        let profiles = self.profiles.as_ref().map(|(label, text)| parse_profiles(label, text).map_err(&mut note));
        let mappings = self.mappings.as_ref().map(|text| parse_mappings(MAPPINGS_DOCUMENT, text).map_err(&mut note));
        let keys = self.keys.as_ref().map(|(label, text)| parse_api_keys(label, text).map_err(&mut note));
        match (profiles.transpose(), mappings.transpose(), keys.transpose()) {
            (Ok(profiles), Ok(mappings), Ok(keys)) => {
                Ok(Documents { profiles: profiles.unwrap_or_default(), mappings: mappings.unwrap_or_default(), keys })
            }
            _ => Err(Error::invalid(problems.join("\n"))),
        }
    }
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
        Texts::read(&self.config, self.metastore.as_ref()).await
    }

    async fn apply(&self, texts: Texts) -> Result<()> {
        let Documents { profiles, mappings, keys } = texts.parse()?;
        let mut opened = Vec::new();
        for profile in &profiles {
            if profile.bucket != self.default_bucket {
                opened.push((profile.bucket.clone(), open_profile_bucket(profile)?));
            } else if self.config.optional("storage.url").is_none() {
                let problem =
                    format!("a storage profile names the bucket {:?}, as the embedded one is called", profile.bucket);
                return Err(Error::invalid(problem).with_hint("give the bucket another name"));
            }
        }
        opened.into_iter().for_each(|(bucket, store)| self.buckets.set(bucket, store));
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
        let all = sets.iter().flat_map(|set| set.keys.iter().map(|key| (hash_key(key), set.organization)));
        let wanted: HashMap<[u8; 32], OrganizationId> = all.collect();
        // First, so that a key that another organization has now stops working for the former one.
        let (kept, gone): (Vec<ApiKey>, Vec<ApiKey>) = stored
            .into_iter()
            .partition(|key| key.label != IMPORTED_LABEL || wanted.get(&key.hash).copied() == key.organization);
        for key in gone {
            match self.metastore.revoke_key(&key.id).await {
                // Another process was faster.
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let now = self.metastore.now().await?;
        for set in sets {
            self.ensure_organization(set.organization).await?;
            for hash in set.keys.iter().map(|key| hash_key(key)) {
                match kept.iter().find(|key| key.hash == hash) {
                    Some(known) => check_owner(known, set.organization)?,
                    None => self.import_key(hash, set.organization, now).await?,
                }
            }
        }
        Ok(())
    }

    async fn import_key(&self, hash: [u8; 32], organization: OrganizationId, now: TimestampNs) -> Result<()> {
        let id = format!("key_{}", hex::encode(&hash[..6]));
        let (role, label) = (KeyRole::Organization, IMPORTED_LABEL.to_owned());
        let key = ApiKey { id, hash, organization: Some(organization), role, label, created_at: now };
        match self.metastore.create_key(&key).await {
            Err(error) if error.kind() != ErrorKind::Conflict => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// A key that was made by `tidemill key create` may stand in the file too, but not as another's.
fn check_owner(known: &ApiKey, organization: OrganizationId) -> Result<()> {
    if known.organization == Some(organization) {
        return Ok(());
    }
    let problem = format!("auth.keys gives the key {} to organization {organization}, and it is not its key", known.id);
    Err(Error::new(ErrorKind::Conflict, problem)
        .with_hint(format!("take it out of that file, or: tidemill key revoke {}", known.id)))
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tidemill_store::sqlite::SqliteMetastore;
    use uuid::Uuid;

    use super::*;
    use crate::config::Layers;
    use crate::stack::EMBEDDED_BUCKET;

    async fn open(folder: &Path, flags: &[(&str, &Path)]) -> Result<(Arc<dyn Metastore>, Arc<Directory>)> {
        let flags =
            flags.iter().map(|(key, value)| ((*key).to_owned(), "--set".to_owned(), value.display().to_string()));
        let config = Config::merge(&Layers { flags: flags.collect(), ..Layers::default() })?;
        let metastore: Arc<dyn Metastore> = Arc::new(SqliteMetastore::open(&folder.join("metastore.sqlite")).await?);
        let buckets = Arc::new(Buckets::new());
        let directory = Directory::open(config, metastore.clone(), buckets, EMBEDDED_BUCKET.to_owned()).await?;
        Ok((metastore, directory))
    }

    #[tokio::test]
    async fn keys_of_a_file_are_just_those_that_it_gives() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("keys.yaml");
        let [shop, other] = [Uuid::new_v4(), Uuid::new_v4()].map(OrganizationId);
        let write = |keys: &[(OrganizationId, &str)]| {
            let lines = keys.iter().map(|(id, key)| format!("- organization_id: {id}\n  keys: [\"{key}\"]\n"));
            std::fs::write(&file, lines.collect::<String>()).expect("is written");
        };
        let owners = async |metastore: &Arc<dyn Metastore>| {
            let keys = metastore.keys(None).await.expect("are listed");
            let find = |text: &str| keys.iter().find(|key| key.hash == hash_key(text)).and_then(|key| key.organization);
            [find("one"), find("two")]
        };
        write(&[(shop, "one"), (other, "two")]);
        let (metastore, directory) = open(folder.path(), &[("auth.keys", &file)]).await.expect("opens");
        assert_eq!(owners(&metastore).await, [Some(shop), Some(other)]);
        // One is gone, and the other belongs to somebody else now: without a restart.
        write(&[(shop, "two")]);
        directory.refresh().await.expect("is read again");
        assert_eq!(owners(&metastore).await, [None, Some(shop)]);
        // Nor is what the file does not say believed of a key that was made elsewhere.
        let made = crate::auth::issue_key(Some(other), "", TimestampNs(0)).expect("is made");
        metastore.create_key(&made.stored).await.expect("is stored");
        write(&[(shop, &made.secret)]);
        let error = directory.refresh().await.expect_err("is refused");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(!error.full_message().contains(&made.secret));
    }

    #[tokio::test]
    async fn problems_of_all_documents_are_told_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let [profiles, keys] = ["profiles.yaml", "keys.yaml"].map(|name| folder.path().join(name));
        std::fs::write(&profiles, "- bucket: lake\n").expect("is written");
        std::fs::write(&keys, "- keys: [a]\n").expect("is written");
        let error = open(folder.path(), &[("storage.profiles", &profiles), ("auth.keys", &keys)]).await;
        let message = error.expect_err("is refused").full_message();
        for word in
            ["profiles.yaml:1:3: [0]: the field cloud_provider", "keys.yaml:1:3: [0]: the field organization_id"]
        {
            assert!(message.contains(word), "{word}: {message}");
        }
    }

    #[tokio::test]
    async fn a_profile_does_not_take_the_embedded_bucket_s_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("profiles.yaml");
        let text = format!("- {{organization_id: {}, cloud_provider: aws, bucket: local}}\n", Uuid::new_v4());
        std::fs::write(&file, text).expect("is written");
        let error = open(folder.path(), &[("storage.profiles", &file)]).await.expect_err("is refused");
        assert!(error.full_message().contains("\"local\""), "{}", error.full_message());
    }
}
