//! Object-key rules: what the path of a raw object says, and where ours are written.
//!
//! `otel-raw/<organization>/<collector>/…/<signal>_*` names its owner, collector and signal. Everything under `db/` is ours
//! and is never an input. Other paths need a prefix mapping (longest prefix wins), which the caller looks up.

use crate::{Day, LeaseToken, Level, OrganizationId, Signal, Tier, WorkId};

/// What the path of an object says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputKey {
    /// `otel-raw/<organization>/<collector>/…/<signal>_*`.
    Raw {
        /// Whose data.
        organization: OrganizationId,
        /// The collector's name, the path component after the organization.
        collector: String,
        /// From the file name up to its first `_`.
        signal: Signal,
    },
    /// Under `db/`, or a folder marker ending in `/`: never an input.
    Ignored,
    /// Outside `otel-raw/`: a prefix mapping may know it.
    Unmapped,
}

/// Why an `otel-raw/` path says nothing usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("object key {key:?}: {problem}")]
pub struct KeyError {
    /// The key as it was read.
    pub key: String,
    /// What is wrong and what is expected.
    pub problem: String,
}

/// Reads a decoded (not URL-encoded) object key.
///
/// # Errors
/// A key under `otel-raw/` whose organization is no UUID, that has no collector, or whose file name does not start with
/// `logs_`, `metrics_` or `traces_`.
pub fn parse_input_key(key: &str) -> Result<InputKey, KeyError> {
    let fail = |problem: String| Err(KeyError { key: key.to_owned(), problem });
    if key.starts_with("db/") || key.ends_with('/') {
        return Ok(InputKey::Ignored);
    }
    let Some(rest) = key.strip_prefix("otel-raw/") else {
        return Ok(InputKey::Unmapped);
    };
    let parts: Vec<&str> = rest.split('/').collect();
    if parts.len() < 3 {
        return fail("expected otel-raw/<organization>/<collector>/…/<signal>_<name>".to_owned());
    }
    let Ok(organization) = parts[0].parse() else {
        return fail(format!("{:?} is not an organization's UUID", parts[0]));
    };
    if parts[1].is_empty() {
        return fail("the collector's name is empty".to_owned());
    }
    let name = parts[parts.len() - 1];
    let Some((prefix, _)) = name.split_once('_') else {
        return fail(format!("the file name {name:?} has no '_' after its signal"));
    };
    match prefix.parse() {
        Ok(signal) => Ok(InputKey::Raw { organization, collector: parts[1].to_owned(), signal }),
        Err(problem) => fail(problem),
    }
}

/// Where a raw object of pushed requests is written: `raw/<organization>/<signal>/<YYYYMMDD>/<name>.binpb`.
pub fn push_object_key(organization: OrganizationId, signal: Signal, day: Day, name: &str) -> String {
    format!("raw/{organization}/{signal}/{day}/{name}.binpb")
}

/// The coordinates that a segment's object key spells out.
#[derive(Debug, Clone, Copy)]
pub struct SegmentKey {
    /// Whose data.
    pub organization: OrganizationId,
    /// Which signal.
    pub signal: Signal,
    /// The day of its rows.
    pub day: Day,
    /// Raw or rollup.
    pub tier: Tier,
    /// Compaction level.
    pub level: Level,
    /// The (first) work item that made it.
    pub work: WorkId,
    /// The lease under which it was made; makes the key unique, so that it is put only if absent.
    pub token: LeaseToken,
    /// Which of the outputs of that lease.
    pub ordinal: u32,
}

impl SegmentKey {
    /// `db/<organization>/<signal>/<YYYYMMDD>/t<tier>/l<level>/<work>-<token>-<ordinal>.parquet`.
    pub fn object_key(&self) -> String {
        format!(
            "db/{}/{}/{}/t{}/l{}/{}-{}-{}.parquet",
            self.organization,
            self.signal,
            self.day,
            self.tier.0,
            self.level.0,
            self.work,
            self.token.0.simple(),
            self.ordinal
        )
    }
}

/// The coordinates that the object key of a day index of traces spells out.
#[derive(Debug, Clone, Copy)]
pub struct TraceDayKey {
    /// Whose traces.
    pub organization: OrganizationId,
    /// The day of the segments that it covers.
    pub day: Day,
    /// The (first) work item that made it.
    pub work: WorkId,
    /// The lease under which it was made; makes the key unique, so that it is put only if absent.
    pub token: LeaseToken,
    /// Which of the outputs of that lease.
    pub ordinal: u32,
}

impl TraceDayKey {
    /// `db/<organization>/traces/<YYYYMMDD>/index/<work>-<token>-<ordinal>.tmtd`.
    pub fn object_key(&self) -> String {
        let Self { organization, day, work, token, ordinal } = self;
        format!("db/{organization}/{}/{day}/index/{work}-{}-{ordinal}.tmtd", Signal::Traces, token.0.simple())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORG: &str = "dddddddd-aaaa-4ff9-ae8f-365873c552f0";

    #[test]
    fn raw_keys_name_owner_collector_and_signal() {
        let key = format!("otel-raw/{ORG}/kubepi/2023/01/logs_1151.binpb.gz");
        let expected = InputKey::Raw {
            organization: ORG.parse().expect("a UUID"),
            collector: "kubepi".to_owned(),
            signal: Signal::Logs,
        };
        assert_eq!(parse_input_key(&key), Ok(expected));
    }

    #[test]
    fn our_own_objects_and_folder_markers_are_ignored() {
        assert_eq!(parse_input_key("db/x/y.parquet"), Ok(InputKey::Ignored));
        assert_eq!(parse_input_key("otel-raw/"), Ok(InputKey::Ignored));
        assert_eq!(parse_input_key("logs-raw/app.json"), Ok(InputKey::Unmapped));
    }

    #[test]
    fn bad_raw_keys_say_what_is_expected() {
        for (key, word) in [
            ("otel-raw/no-uuid/c/logs_1".to_owned(), "UUID"),
            (format!("otel-raw/{ORG}/logs_1"), "expected otel-raw/"),
            (format!("otel-raw/{ORG}//logs_1"), "collector"),
            (format!("otel-raw/{ORG}/c/logs1"), "'_'"),
            (format!("otel-raw/{ORG}/c/events_1"), "signal"),
        ] {
            let problem = parse_input_key(&key).expect_err("is refused").problem;
            assert!(problem.contains(word), "{problem}");
        }
    }
}
