//! Whose an object is: storage profiles, prefix mappings, and the one lookup over both.
//!
//! Start with [`Routing::route`]. It never asks whether the organization exists, and reads nothing: loading profiles and
//! checking organizations is the caller's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::keys::{InputKey, parse_input_key};
use crate::{OrganizationId, Signal};

/// Which kind of object store a profile's bucket lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CloudProvider {
    /// Amazon S3, or any store that speaks its protocol.
    Aws,
    /// Google Cloud Storage.
    Gcp,
    /// Azure Blob Storage; a bucket is a container.
    Azure,
    /// A folder of this host; the bucket names it.
    Folder,
}

impl CloudProvider {
    /// Every provider, in the order in which they are listed everywhere.
    pub const ALL: [Self; 4] = [Self::Aws, Self::Gcp, Self::Azure, Self::Folder];

    /// The name in profiles.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Gcp => "gcp",
            Self::Azure => "azure",
            Self::Folder => "folder",
        }
    }
}

impl fmt::Display for CloudProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CloudProvider {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|provider| provider.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not a cloud provider; one of aws, gcp, azure, folder"))
    }
}

/// Where one collector of one organization keeps its objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageProfile {
    /// Whose data.
    pub organization: OrganizationId,
    /// Tells apart the profiles of one organization and collector; 1 unless given.
    pub instance_num: i32,
    /// The path component after the organization; `default` unless given.
    pub collector_name: String,
    /// Which kind of store.
    pub cloud_provider: CloudProvider,
    /// The store's region, where it has one.
    pub region: Option<String>,
    /// The bucket, container or folder name.
    pub bucket: String,
    /// The role assumed before the bucket is read or written.
    pub role: Option<String>,
    /// The address of a store that is not the provider's own.
    pub endpoint: Option<String>,
    /// The bucket is in the path of the address instead of its host name.
    pub use_path_style: bool,
    /// Certificates of the endpoint are not verified.
    pub insecure_tls: bool,
}

/// Objects of a bucket under a prefix belong to an organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixMapping {
    /// Which bucket.
    pub bucket: String,
    /// Whose data.
    pub organization: OrganizationId,
    /// The start of the key; the longest that fits wins, the empty one fits all.
    pub path_prefix: String,
    /// Which signal; `None` reads it from the file name up to its first `_`, and takes logs where that is no signal.
    pub signal: Option<Signal>,
}

/// What an object is, by its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// An input.
    Input {
        /// Whose data.
        organization: OrganizationId,
        /// The profile's instance.
        instance_num: i32,
        /// The collector's name.
        collector: String,
        /// Which signal.
        signal: Signal,
    },
    /// Something of our own, or a folder marker.
    Ignored,
}

/// Why an object has no owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct RouteError {
    /// The organization, where the path names one.
    pub organization: Option<OrganizationId>,
    /// The signal, where the path names one.
    pub signal: Option<Signal>,
    /// What is wrong and what is expected.
    pub problem: String,
}

/// All profiles and mappings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routing {
    /// The storage profiles.
    pub profiles: Vec<StorageProfile>,
    /// The prefix mappings.
    pub mappings: Vec<PrefixMapping>,
    /// A bucket in which every organization has an implied profile of instance 1 for every collector.
    pub default_bucket: Option<String>,
}

impl Routing {
    /// Finds the owner of the object `key` (decoded) in `bucket`.
    ///
    /// # Errors
    /// A malformed `otel-raw/` key, a key that no mapping knows, or an owner without a profile in this bucket.
    pub fn route(&self, bucket: &str, key: &str) -> Result<Route, RouteError> {
        if is_own_object(key) {
            return Ok(Route::Ignored);
        }
        let parsed = parse_input_key(key).map_err(|error| RouteError {
            organization: None,
            signal: None,
            problem: error.to_string(),
        })?;
        match parsed {
            InputKey::Ignored => Ok(Route::Ignored),
            InputKey::Raw { organization, collector, signal } => {
                let instance_num = self.instance_of(organization, Some(&collector), bucket).map(|found| found.0);
                let instance_num =
                    instance_num.ok_or_else(|| self.no_profile(organization, &collector, signal, bucket))?;
                Ok(Route::Input { organization, instance_num, collector, signal })
            }
            InputKey::Unmapped => self.route_by_prefix(bucket, key),
        }
    }

    fn route_by_prefix(&self, bucket: &str, key: &str) -> Result<Route, RouteError> {
        let fitting =
            self.mappings.iter().filter(|mapping| mapping.bucket == bucket && key.starts_with(&mapping.path_prefix));
        let Some(mapping) = fitting.max_by_key(|mapping| mapping.path_prefix.len()) else {
            return Err(RouteError {
                organization: None,
                signal: None,
                problem: format!(
                    "the key is not under otel-raw/<organization>/<collector>/ and no prefix mapping of bucket {bucket:?} fits it"
                ),
            });
        };
        let organization = mapping.organization;
        let signal = mapping.signal.unwrap_or_else(|| signal_of_name(key));
        let Some((instance_num, collector)) = self.instance_of(organization, None, bucket) else {
            return Err(RouteError {
                organization: Some(organization),
                signal: Some(signal),
                problem: format!("organization {organization} has no storage profile for bucket {bucket:?}"),
            });
        };
        Ok(Route::Input { organization, instance_num, collector, signal })
    }

    /// The lowest instance of the organization (and collector) in the bucket, with its collector's name.
    fn instance_of(
        &self,
        organization: OrganizationId,
        collector: Option<&str>,
        bucket: &str,
    ) -> Option<(i32, String)> {
        let fitting = self.profiles.iter().filter(|profile| {
            profile.organization == organization
                && profile.bucket == bucket
                && collector.is_none_or(|name| profile.collector_name == name)
        });
        let found = fitting.min_by_key(|profile| profile.instance_num);
        let found = found.map(|profile| (profile.instance_num, profile.collector_name.clone()));
        let implied = || (1, collector.unwrap_or("default").to_owned());
        found.or_else(|| (self.default_bucket.as_deref() == Some(bucket)).then(implied))
    }

    fn no_profile(&self, organization: OrganizationId, collector: &str, signal: Signal, bucket: &str) -> RouteError {
        let of_collector: Vec<&str> = self
            .profiles
            .iter()
            .filter(|profile| profile.organization == organization && profile.collector_name == collector)
            .map(|profile| profile.bucket.as_str())
            .collect();
        let problem = if of_collector.is_empty() {
            format!("organization {organization} has no storage profile with collector_name {collector:?}")
        } else {
            format!(
                "collector {collector:?} of organization {organization} keeps its objects in {of_collector:?}, not in {bucket:?}"
            )
        };
        RouteError { organization: Some(organization), signal: Some(signal), problem }
    }
}

/// Whether a key is one of ours: a segment under `db/`, or a raw object of pushed requests, which is in the inbox already.
pub fn is_own_object(key: &str) -> bool {
    let mut parts = key.split('/');
    match parts.next() {
        Some("db") => parts.next().is_some(),
        Some("raw") => {
            parts.next().is_some_and(|part| part.parse::<OrganizationId>().is_ok())
                && parts.next().is_some_and(|part| part.parse::<Signal>().is_ok())
        }
        _ => false,
    }
}

fn signal_of_name(key: &str) -> Signal {
    let name = key.rsplit('/').next().unwrap_or(key);
    name.split_once('_').and_then(|(signal, _)| signal.parse().ok()).unwrap_or(Signal::Logs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORG: &str = "dddddddd-aaaa-4ff9-ae8f-365873c552f0";
    const OTHER: &str = "00000000-0000-4000-8000-000000000001";

    fn id(text: &str) -> OrganizationId {
        text.parse().expect("a UUID")
    }

    fn profile(collector: &str, bucket: &str, instance_num: i32) -> StorageProfile {
        StorageProfile {
            organization: id(ORG),
            instance_num,
            collector_name: collector.to_owned(),
            cloud_provider: CloudProvider::Aws,
            region: None,
            bucket: bucket.to_owned(),
            role: None,
            endpoint: None,
            use_path_style: false,
            insecure_tls: false,
        }
    }

    fn mapping(prefix: &str, organization: &str, signal: Option<Signal>) -> PrefixMapping {
        let organization = id(organization);
        PrefixMapping { bucket: "b".to_owned(), organization, path_prefix: prefix.to_owned(), signal }
    }

    fn routing() -> Routing {
        Routing {
            profiles: vec![profile("east", "b", 3), profile("east", "b", 2), profile("west", "other", 1)],
            mappings: vec![
                mapping("", ORG, None),
                mapping("metrics-raw/", ORG, Some(Signal::Metrics)),
                mapping("metrics-raw/x/", OTHER, Some(Signal::Traces)),
            ],
            default_bucket: None,
        }
    }

    fn input(instance_num: i32, collector: &str, signal: Signal) -> Result<Route, RouteError> {
        Ok(Route::Input { organization: id(ORG), instance_num, collector: collector.to_owned(), signal })
    }

    #[test]
    fn a_raw_key_takes_the_lowest_instance_of_its_collector_in_that_bucket() {
        let key = format!("otel-raw/{ORG}/east/2026/logs_1.binpb");
        assert_eq!(routing().route("b", &key), input(2, "east", Signal::Logs));
        let problem = routing().route("other", &key).expect_err("the wrong bucket").problem;
        assert!(problem.contains("not in \"other\""), "{problem}");
    }

    #[test]
    fn an_unknown_collector_or_organization_is_named() {
        let error = routing().route("b", &format!("otel-raw/{ORG}/north/traces_1")).expect_err("no such collector");
        assert!(error.problem.contains("\"north\""), "{error}");
        assert_eq!((error.organization, error.signal), (Some(id(ORG)), Some(Signal::Traces)));
        let error = routing().route("b", "metrics-raw/x/1.json").expect_err("no profile");
        assert_eq!(error.organization, Some(id(OTHER)));
    }

    #[test]
    fn the_longest_prefix_wins_and_names_the_signal() {
        assert_eq!(routing().route("b", "metrics-raw/1.json"), input(2, "east", Signal::Metrics));
        assert_eq!(routing().route("b", "any/traces_1.json"), input(2, "east", Signal::Traces));
        assert_eq!(routing().route("b", "any/app_1.json"), input(2, "east", Signal::Logs));
        assert!(routing().route("c", "any/app_1.json").is_err());
    }

    #[test]
    fn our_own_objects_are_never_inputs() {
        let raw = crate::keys::push_object_key(id(ORG), Signal::Logs, crate::Day(20_000), "x");
        assert_eq!(routing().route("b", &raw), Ok(Route::Ignored));
        assert_eq!(routing().route("b", "db/x.parquet"), Ok(Route::Ignored));
        assert_eq!(routing().route("b", "raw/mine/logs_1"), input(2, "east", Signal::Logs));
    }

    #[test]
    fn the_default_bucket_has_a_profile_for_every_organization() {
        let routing = Routing { default_bucket: Some("lake".to_owned()), ..Routing::default() };
        assert_eq!(routing.route("lake", &format!("otel-raw/{ORG}/c/logs_1")), input(1, "c", Signal::Logs));
        assert!(routing.route("other", &format!("otel-raw/{ORG}/c/logs_1")).is_err());
    }
}
