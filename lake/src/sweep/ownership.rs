//! Whose catalog a bucket belongs to, so that an empty, restored or foreign database never sweeps a lake away.
//!
//! The bucket holds a marker with the catalog's id and a number that rises with every full sweep; the database holds the same.
//! A new database has another id, and one restored from a backup a smaller number: in both cases objects that it does not know
//! are not orphans, and `tidemill catalog rebuild` has to take them over first.

use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tidemill_store::object::{PutBody, PutMode};
use tidemill_types::ErrorKind;
use uuid::Uuid;

use super::SweeperDeps;
use crate::{Error, Result, own_key};

/// Where the marker lies.
pub(crate) const MARKER_KEY: &str = "db/tidemill-catalog.json";
/// The database's document, one for each bucket.
const DOCUMENT: &str = "bucket-owner";
/// Objects looked up to tell whose a bucket without a marker is, of segments and of raw objects each.
const SAMPLE: usize = 500;
/// A marker is larger than this only when it is none.
const MARKER_BYTES: u64 = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    /// The catalog.
    catalog: Uuid,
    /// How often it swept this bucket.
    sweeps: u64,
}

/// Whether a bucket may be swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketOwner {
    /// Its objects were written under this catalog.
    Us,
    /// Its objects were written under another catalog, or under a later state of this one.
    Other,
}

/// Says whose a bucket is, and takes one that is empty. When it is ours, the sweep is counted on both sides.
///
/// # Errors
/// What the metastore or the store answers; `Corrupt` for a marker that cannot be read.
pub async fn claim_bucket(deps: &SweeperDeps, bucket: &str) -> Result<BucketOwner> {
    let name = document_name(bucket);
    let ours = match deps.metastore.document(&name).await? {
        Some(text) => Some(parse(&name, text.as_bytes())?),
        None => None,
    };
    let theirs = read_marker(deps, bucket).await?;
    let known = match (ours, theirs) {
        // The marker is written first, so it may be one ahead after a crash, never more.
        (Some(ours), Some(theirs)) if ours.catalog == theirs.catalog && theirs.sweeps <= ours.sweeps + 1 => ours,
        (Some(_) | None, Some(_)) => return Ok(BucketOwner::Other),
        (ours, None) => {
            if !is_empty_or_known(deps, bucket).await? {
                return Ok(BucketOwner::Other);
            }
            ours.unwrap_or_else(|| Marker { catalog: Uuid::new_v4(), sweeps: 0 })
        }
    };
    store_both(deps, bucket, &Marker { sweeps: known.sweeps + 1, ..known }).await?;
    Ok(BucketOwner::Us)
}

/// Makes a bucket ours, whoever's it was; only after its objects were adopted.
pub(crate) async fn take_bucket(deps: &SweeperDeps, bucket: &str) -> Result<()> {
    store_both(deps, bucket, &Marker { catalog: Uuid::new_v4(), sweeps: 1 }).await
}

async fn store_both(deps: &SweeperDeps, bucket: &str, marker: &Marker) -> Result<()> {
    let text = serde_json::to_string(marker).expect("a plain struct is JSON");
    let body = PutBody::Chunks(vec![Bytes::from(text.clone())]);
    deps.buckets.get(bucket)?.put(MARKER_KEY, body, PutMode::Overwrite).await?;
    deps.metastore.store_document(&document_name(bucket), &text).await?;
    Ok(())
}

fn document_name(bucket: &str) -> String {
    format!("{DOCUMENT}/{bucket}")
}

async fn read_marker(deps: &SweeperDeps, bucket: &str) -> Result<Option<Marker>> {
    let store = deps.buckets.get(bucket)?;
    let mut read = match store.get(MARKER_KEY, None).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    while let Some(chunk) = read.body.next().await {
        bytes.extend_from_slice(&chunk?);
        if bytes.len() as u64 > MARKER_BYTES {
            break;
        }
    }
    parse(MARKER_KEY, &bytes).map(Some)
}

fn parse(name: &str, bytes: &[u8]) -> Result<Marker> {
    let corrupt =
        |error| Error::Store(tidemill_store::Error::new("read the owner of a bucket", name, ErrorKind::Corrupt, error));
    serde_json::from_slice(bytes).map_err(|error: serde_json::Error| corrupt(error.to_string()))
}

/// A bucket without a marker is ours when it has no object of ours yet, or one that this database knows: the first data may
/// arrive before the first sweep.
async fn is_empty_or_known(deps: &SweeperDeps, bucket: &str) -> Result<bool> {
    let store = deps.buckets.get(bucket)?;
    let mut keys = Vec::new();
    for prefix in ["db/", "raw/"] {
        let mut listing = store.list(prefix);
        let mut seen = 0;
        while let Some(info) = listing.next().await {
            let key = info?.key;
            if own_key::parse(&key).is_some() {
                keys.push(key);
                seen += 1;
            }
            if seen == SAMPLE {
                break;
            }
        }
    }
    Ok(keys.is_empty() || deps.metastore.referenced(&keys).await?.contains(&true))
}
