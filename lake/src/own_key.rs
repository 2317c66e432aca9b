//! Which objects of a bucket are ours, by the exact shape of their keys.
//!
//! A bucket may hold other things under `raw/` and `db/`: a watched folder's own files, or another system's segments. What is
//! not exactly as we write it is never read as ours, and never deleted.

use tidemill_segment::ingest::InputFormat;
use tidemill_store::metastore::InputIdentity;
use tidemill_types::{OrganizationId, Signal};
use uuid::Uuid;

use crate::loaded::parse_loaded_name;

/// What one of our keys names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnKey {
    /// A raw object of pushed requests.
    Raw {
        /// Whose.
        organization: OrganizationId,
        /// Which signal.
        signal: Signal,
    },
    /// A file that was loaded.
    Loaded {
        /// Whose.
        organization: OrganizationId,
        /// Which signal.
        signal: Signal,
        /// What it is known by.
        identity: InputIdentity,
        /// How it is encoded.
        format: InputFormat,
    },
    /// A segment object.
    Segment {
        /// Whose.
        organization: OrganizationId,
    },
    /// A day index of traces.
    TraceDay {
        /// Whose.
        organization: OrganizationId,
    },
}

/// Reads `raw/<organization>/<signal>/<YYYYMMDD>/<32 hex digits>.binpb`, the same with the name of a loaded file,
/// `db/<organization>/<signal>/<YYYYMMDD>/t<tier>/l<level>/<work>-<32 hex digits>-<ordinal>.parquet` and
/// `db/<organization>/traces/<YYYYMMDD>/index/<work>-<32 hex digits>-<ordinal>.tmtd`; `None` for all else.
pub(crate) fn parse(key: &str) -> Option<OwnKey> {
    let parts: Vec<&str> = key.split('/').collect();
    match parts.as_slice() {
        ["raw", organization, signal, day, name] => {
            is_day(day).then_some(())?;
            let (organization, signal) = (owner(organization)?, signal.parse().ok()?);
            if let Some((identity, format)) = parse_loaded_name(name) {
                return Some(OwnKey::Loaded { organization, signal, identity, format });
            }
            is_token(name.strip_suffix(".binpb")?).then_some(OwnKey::Raw { organization, signal })
        }
        ["db", organization, signal, day, tier, level, name] => {
            signal.parse::<Signal>().ok()?;
            number(tier.strip_prefix('t')?)?;
            number(level.strip_prefix('l')?)?;
            is_output(name.strip_suffix(".parquet")?).then_some(())?;
            is_day(day).then_some(OwnKey::Segment { organization: owner(organization)? })
        }
        ["db", organization, "traces", day, "index", name] => {
            is_output(name.strip_suffix(".tmtd")?).then_some(())?;
            is_day(day).then_some(OwnKey::TraceDay { organization: owner(organization)? })
        }
        _ => None,
    }
}

/// UUIDs are written in one form only: lower case, with hyphens.
fn owner(text: &str) -> Option<OrganizationId> {
    let id: Uuid = text.parse().ok()?;
    (id.to_string() == text).then_some(OrganizationId(id))
}

/// `<work>-<token>-<ordinal>`.
fn is_output(name: &str) -> bool {
    match name.split('-').collect::<Vec<_>>().as_slice() {
        [work, token, ordinal] => number(work).is_some() && is_token(token) && number(ordinal).is_some(),
        _ => false,
    }
}

fn is_day(text: &str) -> bool {
    text.len() == 8 && number(text).is_some()
}

fn is_token(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn number(text: &str) -> Option<u64> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use tidemill_types::keys::{SegmentKey, TraceDayKey, push_object_key};
    use tidemill_types::{Day, LeaseToken, Level, Tier, WorkId};

    use super::*;
    use crate::loaded::loaded_object_key;

    const ORGANIZATION: OrganizationId = OrganizationId(Uuid::from_u128(7));

    #[test]
    fn what_we_write_is_ours() {
        let raw = push_object_key(ORGANIZATION, Signal::Logs, Day(20_000), &Uuid::from_u128(9).simple().to_string());
        assert_eq!(parse(&raw), Some(OwnKey::Raw { organization: ORGANIZATION, signal: Signal::Logs }));
        let segment = SegmentKey {
            organization: ORGANIZATION,
            signal: Signal::Metrics,
            day: Day(20_000),
            tier: Tier(10),
            level: Level(2),
            work: WorkId(12),
            token: LeaseToken(Uuid::from_u128(11)),
            ordinal: 3,
        };
        assert_eq!(parse(&segment.object_key()), Some(OwnKey::Segment { organization: ORGANIZATION }));
        let SegmentKey { organization, day, work, token, ordinal, .. } = segment;
        let index = TraceDayKey { organization, day, work, token, ordinal };
        assert_eq!(parse(&index.object_key()), Some(OwnKey::TraceDay { organization: ORGANIZATION }));
    }

    #[test]
    fn a_loaded_file_is_ours() {
        let (identity, format) = (InputIdentity([3; 32]), InputFormat::Csv);
        let key = loaded_object_key((ORGANIZATION, Signal::Logs, Day(20_000)), &identity, format, "a.csv");
        let (organization, signal) = (ORGANIZATION, Signal::Logs);
        assert_eq!(parse(&key), Some(OwnKey::Loaded { organization, signal, identity, format }));
    }

    #[test]
    fn what_others_write_is_not() {
        let organization = ORGANIZATION;
        for key in [
            "raw/app.json".to_owned(),
            "db/tidemill-catalog.json".to_owned(),
            format!("raw/{organization}/logs/20260101/app.binpb"),
            format!("raw/{organization}/logs/20260101/load-{}-app.csv", "0".repeat(24)),
            format!("raw/{organization}/events/20260101/{}.binpb", "0".repeat(32)),
            format!("otel-raw/{organization}/logs/20260101/{}.binpb", "0".repeat(32)),
            format!("db/{organization}/default/20260101/logs/00/tbl_298374.parquet"),
            format!("db/{organization}/logs/20260101/t0/l0/1-{}-0-1.parquet", "0".repeat(32)),
            format!("db/{organization}/logs/20260101/t0/l0/1-{}-x.parquet", "0".repeat(32)),
            format!("db/{organization}/logs/20260101/t0/l0/1-{}-.parquet", "0".repeat(32)),
            format!("db/{organization}/logs/20260101/index/1-{}-0.tmtd", "0".repeat(32)),
            format!("db/{organization}/traces/20260101/index/1-{}-0.parquet", "0".repeat(32)),
            format!("db/{organization}/traces/20260101/index/{}.tmtd", "0".repeat(32)),
        ] {
            assert_eq!(parse(&key), None, "{key}");
        }
    }
}
