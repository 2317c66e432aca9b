//! Files that a person loads: each becomes one raw object of ours and one inbox row.
//!
//! Owns: the name and identity of such an object. Never: reading what is in it (a worker does). Start with [`Intake::admit_file`].

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_lake::place::Placement;
use tidemill_lake::receive::Gate;
use tidemill_segment::ingest::InputFormat;
use tidemill_store::Metastore;
use tidemill_store::buckets::Buckets;
use tidemill_store::metastore::{Admission, InputIdentity, NewInput};
use tidemill_store::object::{PutBody, PutMode};
use tidemill_types::{ErrorKind, OrganizationId, Signal, WorkId};

use crate::error::{Error, Result};

/// The largest file.
pub const MAX_FILE_BYTES: u64 = 4 << 30;
/// Backfill comes after what is pushed and notified.
const PRIORITY: i16 = 20;
/// The collector's name in paths and listings.
const COLLECTOR: &str = "load";

/// Admits files.
#[derive(Debug, Clone)]
pub struct Intake {
    /// The inbox.
    pub metastore: Arc<dyn Metastore>,
    /// Raw objects.
    pub buckets: Arc<Buckets>,
    /// Which bucket.
    pub placement: Arc<dyn Placement>,
    /// Whether anything may come in now.
    pub gate: Gate,
}

/// What a file is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDescription {
    /// Its name; its ending tells format and compression where `format` does not.
    pub name: String,
    /// Which signal its records are.
    pub signal: Signal,
    /// Its format, `None` to recognize it by name and content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// The inbox row; `None` when the same content was loaded before.
    pub work: Option<WorkId>,
    /// The raw object.
    pub object_key: String,
    /// Its size.
    pub bytes: u64,
}

impl Intake {
    /// Stores and admits a file of this machine.
    ///
    /// # Errors
    /// `Invalid` for a format that is none, an empty or too large file; `Busy` while the disk is full or the organization is above its
    /// ingest rate; those of the stores.
    pub async fn admit_file(
        &self,
        organization: OrganizationId,
        file: &FileDescription,
        path: &Path,
    ) -> Result<Loaded> {
        self.gate.check_for(organization).map_err(from_lake)?;
        let format = match file.format.as_deref().map(str::parse::<InputFormat>) {
            Some(Err(problem)) => return Err(Error::invalid(format!("format: {problem}"))),
            Some(Ok(format)) => Some(format.as_str().to_owned()),
            None => None,
        };
        let (identity, bytes) = identify(organization, file.signal, path).await?;
        let arrived_at = self.metastore.now().await?;
        let hash = hex::encode(&identity.0[..12]);
        let day = arrived_at.day();
        let object_key = format!("raw/{organization}/{}/{day}/load-{hash}-{}", file.signal, plain_name(&file.name));
        if self.metastore.known_identities(&[identity]).await? == [true] {
            return Ok(Loaded { work: None, object_key, bytes });
        }
        let place = self.placement.for_push(organization, COLLECTOR).map_err(from_lake)?;
        let store = self.buckets.get(&place.bucket)?;
        // Overwriting: a load that was cut off between object and inbox row is repeated under the same key.
        let info = store.put(&object_key, PutBody::File(path.to_owned()), PutMode::Overwrite).await?;
        let input = NewInput {
            organization,
            instance_num: place.instance_num,
            collector: COLLECTOR.to_owned(),
            signal: file.signal,
            bucket: place.bucket,
            object_key: object_key.clone(),
            etag: info.etag,
            size_bytes: info.size,
            records: None,
            identities: vec![identity],
            arrived_at,
            owned: true,
            priority: PRIORITY,
            format,
        };
        match self.metastore.admit(&[input]).await?.first() {
            Some(Admission::Admitted(work)) => {
                self.gate.charge(organization, bytes);
                Ok(Loaded { work: Some(*work), object_key, bytes })
            }
            Some(Admission::Known(_)) => Ok(Loaded { work: None, object_key, bytes }),
            None => Err(Error::new(ErrorKind::Internal, "the metastore did not say what became of the file")),
        }
    }
}

async fn identify(organization: OrganizationId, signal: Signal, path: &Path) -> Result<(InputIdentity, u64)> {
    let path = path.to_owned();
    let hashed = tokio::task::spawn_blocking(move || {
        let fail = |error| Error::io(format!("reading {}", path.display()), error);
        let file = std::fs::File::open(&path).map_err(fail)?;
        let bytes = file.metadata().map_err(fail)?.len();
        match bytes {
            0 => return Err(Error::invalid("the file is empty")),
            1..=MAX_FILE_BYTES => {}
            _ => return Err(Error::invalid(format!("the file has {bytes} bytes; at most {MAX_FILE_BYTES}"))),
        }
        let mut hasher = blake3::Hasher::new_derive_key("tidemill loaded file identity v1");
        hasher.update(organization.0.as_bytes());
        hasher.update(signal.as_str().as_bytes());
        hasher.update_reader(file).map_err(fail)?;
        Ok((InputIdentity(*hasher.finalize().as_bytes()), bytes))
    });
    hashed.await.map_err(|error| Error::caused(ErrorKind::Internal, "hashing a file", error))?
}

/// The last component of a name, without what paths and URLs give a meaning to, its ending kept.
fn plain_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let plain: String =
        last.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' }).collect();
    let from = plain.len().saturating_sub(100);
    plain[from..].trim_start_matches('.').to_owned()
}

/// A lake's error as the binary reports it.
pub fn from_lake(error: tidemill_lake::Error) -> Error {
    let kind = error.kind();
    Error::caused(kind, error.to_string(), error)
}

/// The signal that a file's name begins with: `logs_1.json.gz`, `traces.binpb`.
pub fn signal_of_name(name: &str) -> Option<Signal> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let word: String = last.chars().take_while(char::is_ascii_lowercase).collect();
    match word.as_str() {
        "spans" => Some(Signal::Traces),
        word => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_ending_and_lose_their_path() {
        assert_eq!(plain_name("../a b/logs 1.json.gz"), "logs_1.json.gz");
        assert!(plain_name(&format!("{}.csv", "x".repeat(300))).ends_with("x.csv"));
        assert_eq!(plain_name(".."), "");
    }

    #[test]
    fn a_signal_is_read_from_the_beginning_of_a_name() {
        assert_eq!(signal_of_name("in/logs_1.json.gz"), Some(Signal::Logs));
        assert_eq!(signal_of_name("spans.csv"), Some(Signal::Traces));
        assert_eq!(signal_of_name("app.json"), None);
    }
}
