//! How rows are written in either database: durable forms, frozen by the committed samples.
//!
//! Owns: the bytes of a service set and of a list of segments, the JSON of an inbox row, the limits of a row. Never: SQL.

use serde::{Deserialize, Serialize};
use tidemill_types::{ErrorKind, Hour, LeaseToken, SegmentId, SegmentMeta, ServiceSet, Tier, TimestampNs};
use uuid::Uuid;

use crate::metastore::{InputIdentity, NewInput, NewWork};
use crate::{Error, Result};

/// A catalog row is planned from memory by the million, so it is small.
const MAX_SEGMENT_ROW_BYTES: usize = 1024;
const MAX_PAYLOAD_BYTES: usize = 64 * 1024;
const MAX_REASON_BYTES: usize = 16 * 1024;

const NAMES: u8 = 1;
const BLOOM: u8 = 2;

/// Tag 1: names as they are stored ([`ServiceSet::stored_names`]), each as its length in two bytes (little endian) and its UTF-8. Tag 2:
/// the filter's bytes.
pub(crate) fn encode_services(services: &ServiceSet) -> Vec<u8> {
    match services.stored_names() {
        Ok(names) => {
            let mut bytes = vec![NAMES];
            for name in names {
                let len = name.len().min(usize::from(u16::MAX));
                bytes.extend_from_slice(&(len as u16).to_le_bytes());
                bytes.extend_from_slice(&name.as_bytes()[..len]);
            }
            bytes
        }
        Err(filter) => [&[BLOOM], filter].concat(),
    }
}

/// Reads what [`encode_services`] wrote; `None` when it did not.
pub(crate) fn decode_services(bytes: &[u8]) -> Option<ServiceSet> {
    match bytes.split_first()? {
        (&NAMES, mut rest) => {
            let mut names = Vec::new();
            while let Some((len, after)) = rest.split_first_chunk::<2>() {
                let (name, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
                names.push(String::from_utf8(name.to_vec()).ok()?);
                rest = after;
            }
            rest.is_empty().then_some(ServiceSet::of_stored_names(names))
        }
        (&BLOOM, filter) => Some(ServiceSet::Bloom(filter.to_vec())),
        _ => None,
    }
}

/// Segments' ids one after another, 16 bytes each.
pub(crate) fn encode_segment_ids(ids: &[SegmentId]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.0.into_bytes()).collect()
}

/// Reads what [`encode_segment_ids`] wrote; `None` when it did not.
pub(crate) fn decode_segment_ids(bytes: &[u8]) -> Option<Vec<SegmentId>> {
    let (ids, rest) = bytes.as_chunks::<16>();
    rest.is_empty().then(|| ids.iter().map(|id| SegmentId(Uuid::from_bytes(*id))).collect())
}

/// Refuses a catalog row that is larger than 1 KiB.
pub(crate) fn check_segment(operation: &'static str, segment: &SegmentMeta, services: &[u8]) -> Result<()> {
    let fixed = 16 + 16 + 32 + 14 * 8;
    let etag = segment.etag.as_ref().map_or(0, String::len);
    let size = fixed + segment.bucket.len() + segment.object_key.len() + etag + services.len();
    if size <= MAX_SEGMENT_ROW_BYTES {
        return Ok(());
    }
    let problem = format!("its catalog row would have {size} bytes, more than {MAX_SEGMENT_ROW_BYTES}");
    Err(Error::new(operation, &segment.object_key, ErrorKind::Invalid, problem))
}

/// What an ingest row's payload holds besides its columns.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InputPayload {
    pub(crate) collector: String,
    pub(crate) bucket: String,
    pub(crate) etag: Option<String>,
    pub(crate) records: Option<u64>,
    pub(crate) arrived_at: TimestampNs,
    pub(crate) owned: bool,
    pub(crate) format: Option<String>,
    /// Of an object, in hexadecimal; a raw object of pushed requests lists its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<String>,
}

impl InputPayload {
    pub(crate) fn identities(&self) -> Vec<InputIdentity> {
        let hash = self.identity.as_deref().and_then(|text| blake3::Hash::from_hex(text).ok());
        hash.into_iter().map(|hash| InputIdentity(*hash.as_bytes())).collect()
    }

    pub(crate) fn of(input: &NewInput) -> Self {
        Self {
            collector: input.collector.clone(),
            bucket: input.bucket.clone(),
            etag: input.etag.clone(),
            records: input.records,
            arrived_at: input.arrived_at,
            owned: input.owned,
            format: input.format.clone(),
            identity: match input.identities.as_slice() {
                [only] if !input.owned => Some(blake3::Hash::from_bytes(only.0).to_hex().to_string()),
                _ => None,
            },
        }
    }
}

/// JSON for a payload column.
pub(crate) fn to_json<T: Serialize>(operation: &'static str, value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|source| Error::new(operation, "payload", ErrorKind::Invalid, source))
}

/// A work item's payload as text, bounded.
pub(crate) fn work_payload(operation: &'static str, work: &NewWork) -> Result<String> {
    let text = to_json(operation, &work.payload)?;
    if text.len() > MAX_PAYLOAD_BYTES {
        let problem = format!("the payload has {} bytes, more than {MAX_PAYLOAD_BYTES}", text.len());
        return Err(Error::new(operation, "payload", ErrorKind::Invalid, problem));
    }
    Ok(text)
}

/// A reason as it is kept: bounded, cut at a character.
pub(crate) fn bounded_reason(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

/// The hours whose rollups a segment found in a bucket may feed: those that its rows touch, and the one before, because a rollup's
/// windows are (start, end]. None for a rollup itself.
pub(crate) fn touched_hours(segment: &SegmentMeta) -> Vec<Hour> {
    if segment.tier != Tier::RAW {
        return Vec::new();
    }
    let (first, last) = (segment.time.start.plus_ns(-1).hour(), segment.time.end.plus_ns(-1).hour());
    // A segment never crosses a day; the bound holds for a row that claims otherwise.
    (first.0..=last.0).take(26).map(Hour).collect()
}

/// The lease token in the object key of a segment or day index (`…/<work>-<token>-<ordinal>.<kind>`), `None` for any other key.
pub(crate) fn token_of_key(object_key: &str) -> Option<LeaseToken> {
    let name = object_key.rsplit('/').next()?;
    name.split('-').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use tidemill_types::keys::{SegmentKey, TraceDayKey};
    use tidemill_types::{Day, Level, OrganizationId, Signal, WorkId};

    use super::*;

    #[test]
    fn service_sets_round_trip_and_garbage_is_seen() {
        for services in [
            ServiceSet::Names(vec![]),
            ServiceSet::Names(vec![String::new(), "checkout".into(), "größe".into()]),
            ServiceSet::Names(vec![String::new()]),
            ServiceSet::OfEveryRow(vec![String::new()]),
            ServiceSet::OfEveryRow(vec!["checkout".into()]),
            ServiceSet::Bloom(vec![7; 256]),
        ] {
            assert_eq!(decode_services(&encode_services(&services)), Some(services));
        }
        for garbage in [&[][..], &[9], &[NAMES, 1], &[NAMES, 2, 0, b'x'], &[NAMES, 1, 0, 0xff]] {
            assert_eq!(decode_services(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn service_sets_keep_their_bytes() {
        let names = ServiceSet::Names(vec!["cart".into(), "web".into()]);
        assert_eq!(hex::encode(encode_services(&names)), "0104006361727403007765 62".replace(' ', ""));
        let of_every_row = ServiceSet::OfEveryRow(vec!["cart".into(), "web".into()]);
        assert_eq!(hex::encode(encode_services(&of_every_row)), "0104006361727403007765 620000".replace(' ', ""));
    }

    #[test]
    fn segment_ids_round_trip_and_garbage_is_seen() {
        let ids = [1, u128::MAX].map(|id| SegmentId(Uuid::from_u128(id)));
        let bytes = encode_segment_ids(&ids);
        assert_eq!(hex::encode(&bytes), format!("{:032x}{:032x}", 1, u128::MAX));
        assert_eq!(decode_segment_ids(&bytes).as_deref(), Some(&ids[..]));
        assert_eq!(decode_segment_ids(&bytes[1..]), None);
    }

    #[test]
    fn keys_of_what_we_write_name_their_lease() {
        let token = LeaseToken(Uuid::from_u128(0x1234));
        let (organization, day, work, ordinal) = (OrganizationId(Uuid::from_u128(1)), Day(1), WorkId(12), 3);
        let (signal, tier, level) = (Signal::Logs, Tier::RAW, Level(0));
        let key = SegmentKey { organization, signal, day, tier, level, work, token, ordinal };
        assert_eq!(token_of_key(&key.object_key()), Some(token));
        let index = TraceDayKey { organization, day, work, token, ordinal };
        assert_eq!(token_of_key(&index.object_key()), Some(token));
        assert_eq!(token_of_key("raw/a/logs/20230101/0-x.binpb"), None);
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        let long = "ß".repeat(MAX_REASON_BYTES);
        assert_eq!(bounded_reason(&long).len(), MAX_REASON_BYTES);
        assert_eq!(bounded_reason("x"), "x");
    }
}
