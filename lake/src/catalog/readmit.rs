//! What was taken in, told by the bucket: the ledger of identities is filled again, and raw objects that no segment covers are ingested.
//!
//! A raw object may repeat what another one holds: a receiver was killed before it could admit the first, and the sender came again. So a
//! raw object is admitted under the identities of its requests, and when some of them are known, only the rest of it, as a new object.

use futures::{StreamExt, TryStreamExt, stream};
use tidemill_segment::identities::{IDENTITIES_LIMIT_BYTES, InputKind, decode_identities};
use tidemill_segment::ingest::InputFormat;
use tidemill_store::metastore::{Admission, InputIdentity, NewInput, RememberedInput};
use tidemill_store::object::{ObjectInfo, PutBody, PutMode};
use tidemill_types::ErrorKind;
use tidemill_types::keys::push_object_key;
use uuid::Uuid;

use super::decide::Found;
use super::{ADOPTED_AT_ONCE, CatalogDeps};
use crate::loaded::{LOADED_COLLECTOR, LOADED_PRIORITY};
use crate::own_key::{self, OwnKey};
use crate::raw_object::{Part, encode_trailer, read_parts};
use crate::{Error, Result};

/// Objects looked into at the same time.
const READS_IN_FLIGHT: usize = 16;
/// Each round a receiver may have admitted some of the same requests; two are the rule.
const ROUNDS: usize = 8;

/// What became of the raw objects that no segment covers.
#[derive(Debug, Default)]
pub(super) struct Readmitted {
    /// Objects that are ingested now, whole or in part.
    pub admitted: u64,
    /// Objects of which all requests are known already.
    pub repeated: u64,
}

/// Fills the ledger with what published segments list; a list that cannot be read is an error of its segment, not of the rebuild.
pub(super) async fn remember(deps: &CatalogDeps, bucket: &str, published: &[&Found]) -> Result<Vec<(String, String)>> {
    let mut unreadable = Vec::new();
    let reads: Vec<_> = published.iter().map(|one| listed(deps, bucket, one)).collect();
    let mut reads = stream::iter(reads).buffered(READS_IN_FLIGHT);
    while let Some(read) = reads.next().await {
        match read {
            Ok(inputs) => {
                for chunk in inputs.chunks(ADOPTED_AT_ONCE * 10) {
                    deps.metastore.remember_inputs(chunk).await?;
                }
            }
            Err((key, Error::Segment { .. }, reason)) => unreadable.push((key, reason)),
            // Deleted since it was listed.
            Err((_, error, _)) if error.kind() == ErrorKind::NotFound => {}
            Err((_, error, _)) => return Err(error),
        }
    }
    Ok(unreadable)
}

async fn listed(
    deps: &CatalogDeps,
    bucket: &str,
    found: &Found,
) -> std::result::Result<Vec<RememberedInput>, (String, Error, String)> {
    let key = &found.meta.object_key;
    let failed = |error: Error| {
        let reason = error.to_string();
        (key.clone(), error, reason)
    };
    let Some(range) = found.identities.filter(|range| range.len <= IDENTITIES_LIMIT_BYTES) else {
        return Ok(Vec::new());
    };
    let store = deps.buckets.get(bucket).map_err(|error| failed(error.into()))?;
    let wanted = range.offset..range.offset + range.len;
    let read = store.get_ranges(key, std::slice::from_ref(&wanted)).await;
    let bytes = read.map_err(|error| failed(error.into()))?.pop().unwrap_or_default();
    let listed =
        decode_identities(&bytes).map_err(|error| failed(Error::segment("read a segment's identities")(error)))?;
    let remembered = listed.into_iter().map(|one| RememberedInput {
        identity: InputIdentity(one.identity),
        arrived_at: one.arrival,
        owned: one.kind == InputKind::Request,
    });
    Ok(remembered.collect())
}

/// Admits what is in `objects`, raw objects that no published segment covers, and neither in the ledger nor in the inbox.
pub(super) async fn readmit(deps: &CatalogDeps, bucket: &str, objects: &[&ObjectInfo]) -> Result<Readmitted> {
    let mut result = Readmitted::default();
    for chunk in objects.chunks(ADOPTED_AT_ONCE) {
        let keys: Vec<String> = chunk.iter().map(|info| info.key.clone()).collect();
        let referenced = deps.metastore.referenced(&keys).await?;
        let lost = chunk.iter().zip(referenced).filter(|(_, is_referenced)| !is_referenced).map(|(info, _)| *info);
        let reads: Vec<_> = lost.map(|info| with_parts(deps, bucket, info)).collect();
        let mut reads = stream::iter(reads).buffered(READS_IN_FLIGHT);
        while let Some((info, parts)) = reads.try_next().await? {
            match readmit_one(deps, bucket, info, parts).await? {
                true => result.admitted += 1,
                false => result.repeated += 1,
            }
        }
    }
    Ok(result)
}

async fn with_parts<'a>(
    deps: &CatalogDeps,
    bucket: &str,
    info: &'a ObjectInfo,
) -> Result<(&'a ObjectInfo, Option<Vec<Part>>)> {
    // Its name says what it is known by, and its bytes are not ours.
    if let Some(OwnKey::Loaded { .. }) = own_key::parse(&info.key) {
        return Ok((info, None));
    }
    let store = deps.buckets.get(bucket)?;
    match read_parts(store.as_ref(), &info.key, info.size).await {
        // Deleted since it was listed; nothing is left to admit.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok((info, Some(Vec::new()))),
        parts => Ok((info, parts?)),
    }
}

/// Whether any of it was admitted.
async fn readmit_one(deps: &CatalogDeps, bucket: &str, info: &ObjectInfo, parts: Option<Vec<Part>>) -> Result<bool> {
    let Some(parts) = parts else {
        let identity = match own_key::parse(&info.key) {
            Some(OwnKey::Loaded { identity, .. }) => identity,
            _ => identity_of_key(bucket, &info.key),
        };
        let Some(input) = raw_input(deps, bucket, info, vec![identity]) else {
            return Ok(false);
        };
        return Ok(matches!(deps.metastore.admit(&[input]).await?.as_slice(), [Admission::Admitted(_)]));
    };
    let identities: Vec<InputIdentity> = parts.iter().map(|part| part.identity).collect();
    for _ in 0..ROUNDS {
        let known = deps.metastore.known_identities(&identities).await?;
        let is_left: Vec<bool> = known.iter().map(|is_known| !is_known).collect();
        if !is_left.contains(&true) {
            return Ok(false);
        }
        let rest = match is_left.contains(&false) {
            true => Some(write_rest(deps, bucket, info, &parts, &is_left).await?),
            false => None,
        };
        let left = identities.iter().zip(&is_left).filter(|(_, is_left)| **is_left).map(|(identity, _)| *identity);
        let Some(input) = raw_input(deps, bucket, rest.as_ref().unwrap_or(info), left.collect()) else {
            return Ok(false);
        };
        if let [Admission::Admitted(_)] = deps.metastore.admit(&[input]).await?.as_slice() {
            return Ok(true);
        }
        if let Some(rest) = rest {
            deps.buckets.get(bucket)?.delete(&rest.key).await?;
        }
    }
    Err(Error::Internal(format!("{}: its requests kept becoming known while it was admitted", info.key)))
}

/// Writes the requests that are left of a raw object into one of their own.
async fn write_rest(
    deps: &CatalogDeps,
    bucket: &str,
    info: &ObjectInfo,
    parts: &[Part],
    is_left: &[bool],
) -> Result<ObjectInfo> {
    let (mut ranges, mut left, mut offset) = (Vec::new(), Vec::new(), 0);
    for (part, is_left) in parts.iter().zip(is_left) {
        if *is_left {
            ranges.push(offset..offset + part.bytes);
            left.push(*part);
        }
        offset += part.bytes;
    }
    let store = deps.buckets.get(bucket)?;
    let mut chunks = store.get_ranges(&info.key, &ranges).await?;
    chunks.push(encode_trailer(&left));
    let size = chunks.iter().map(|chunk| chunk.len() as u64).sum();
    let Some(OwnKey::Raw { organization, signal }) = own_key::parse(&info.key) else {
        return Err(Error::Internal(format!("{} is no raw object", info.key)));
    };
    let key = push_object_key(organization, signal, info.modified.day(), &Uuid::now_v7().simple().to_string());
    let written = store.put(&key, PutBody::Chunks(chunks), PutMode::IfAbsent).await?;
    // It arrived when the first one did.
    Ok(ObjectInfo { key, size, modified: info.modified, ..written })
}

/// The identity of a raw object that does not list its requests.
fn identity_of_key(bucket: &str, key: &str) -> InputIdentity {
    let mut identity =
        blake3::Hasher::new_derive_key("tidemill 2026-11 identity of a raw object found by catalog rebuild");
    identity.update(bucket.as_bytes());
    identity.update(&[0]);
    identity.update(key.as_bytes());
    InputIdentity(*identity.finalize().as_bytes())
}

/// A raw object as an input.
fn raw_input(deps: &CatalogDeps, bucket: &str, info: &ObjectInfo, identities: Vec<InputIdentity>) -> Option<NewInput> {
    let (organization, signal, collector, priority, format) = match own_key::parse(&info.key)? {
        OwnKey::Raw { organization, signal } => (organization, signal, "default", 10, InputFormat::OtlpProtobuf),
        OwnKey::Loaded { organization, signal, format, .. } => {
            (organization, signal, LOADED_COLLECTOR, LOADED_PRIORITY, format)
        }
        OwnKey::Segment { .. } | OwnKey::TraceDay { .. } => return None,
    };
    Some(NewInput {
        organization,
        instance_num: deps.placement.instance_of(organization, bucket),
        collector: collector.to_owned(),
        signal,
        bucket: bucket.to_owned(),
        object_key: info.key.clone(),
        etag: info.etag.clone(),
        size_bytes: info.size,
        records: None,
        identities,
        arrived_at: info.modified,
        owned: true,
        priority,
        format: Some(format.as_str().to_owned()),
    })
}
