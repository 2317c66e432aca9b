//! Files that a person loads: each becomes one raw object of ours and one inbox row.
//!
//! Owns: the identity of such an object. Never: reading what is in it (a worker does). Start with [`Intake::admit_file`].

use std::io::Seek as _;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_lake::loaded::{LOADED_COLLECTOR, LOADED_PRIORITY, loaded_object_key};
use tidemill_lake::place::Placement;
use tidemill_lake::receive::Gate;
use tidemill_segment::ingest::{InputFormat, recognize_input};
use tidemill_store::Metastore;
use tidemill_store::buckets::Buckets;
use tidemill_store::metastore::{Admission, InputIdentity, NewInput};
use tidemill_store::object::{PutBody, PutMode};
use tidemill_store::step::{Step, reach};
use tidemill_types::{ErrorKind, OrganizationId, Signal, WorkId};

use crate::error::{Error, Result};

/// The largest file.
pub const MAX_FILE_BYTES: u64 = 4 << 30;

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
        let format = match file.format.as_deref().map(str::parse::<InputFormat>).transpose() {
            Err(problem) => return Err(Error::invalid(format!("format: {problem}"))),
            Ok(format) => format,
        };
        let Identified { identity, format, bytes } = identify(organization, file, format, path).await?;
        let arrived_at = self.metastore.now().await?;
        let owner = (organization, file.signal, arrived_at.day());
        let object_key = loaded_object_key(owner, &identity, format, &file.name);
        if self.metastore.known_identities(&[identity]).await? == [true] {
            return Ok(Loaded { work: None, object_key, bytes });
        }
        let place = self.placement.for_push(organization, LOADED_COLLECTOR).map_err(from_lake)?;
        let store = self.buckets.get(&place.bucket)?;
        // Overwriting: a load that was cut off between object and inbox row is repeated under the same key.
        let info = store.put(&object_key, PutBody::File(path.to_owned()), PutMode::Overwrite).await?;
        reach(Step::RawStored);
        let input = NewInput {
            organization,
            instance_num: place.instance_num,
            collector: LOADED_COLLECTOR.to_owned(),
            signal: file.signal,
            bucket: place.bucket,
            object_key: object_key.clone(),
            etag: info.etag,
            size_bytes: info.size,
            records: None,
            identities: vec![identity],
            arrived_at,
            owned: true,
            priority: LOADED_PRIORITY,
            format: Some(format.as_str().to_owned()),
        };
        let admitted = self.metastore.admit(&[input]).await?;
        reach(Step::Admitted);
        match admitted.first() {
            Some(Admission::Admitted(work)) => {
                self.gate.charge(organization, bytes);
                Ok(Loaded { work: Some(*work), object_key, bytes })
            }
            Some(Admission::Known(_)) => Ok(Loaded { work: None, object_key, bytes }),
            None => Err(Error::new(ErrorKind::Internal, "the metastore did not say what became of the file")),
        }
    }
}

/// What a file is known by.
struct Identified {
    identity: InputIdentity,
    format: InputFormat,
    bytes: u64,
}

/// Hashes a file, and recognizes its format where none is said. The format belongs to the identity: what was refused as one thing may be
/// loaded as another.
async fn identify(
    organization: OrganizationId,
    file: &FileDescription,
    format: Option<InputFormat>,
    path: &Path,
) -> Result<Identified> {
    let (path, name, signal) = (path.to_owned(), file.name.clone(), file.signal);
    let hashed = tokio::task::spawn_blocking(move || {
        let fail = |error| Error::io(format!("reading {}", path.display()), error);
        let mut file = std::fs::File::open(&path).map_err(fail)?;
        let bytes = file.metadata().map_err(fail)?.len();
        match bytes {
            0 => return Err(Error::invalid("the file is empty")),
            1..=MAX_FILE_BYTES => {}
            _ => return Err(Error::invalid(format!("the file has {bytes} bytes; at most {MAX_FILE_BYTES}"))),
        }
        let format = match format {
            Some(format) => format,
            None => recognize_input(&name, &mut file).map_err(fail)?,
        };
        file.rewind().map_err(fail)?;
        let mut hasher = blake3::Hasher::new_derive_key("tidemill loaded file identity v2");
        for part in [&organization.0.as_bytes()[..], signal.as_str().as_bytes(), format.as_str().as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.update_reader(file).map_err(fail)?;
        Ok(Identified { identity: InputIdentity(*hasher.finalize().as_bytes()), format, bytes })
    });
    hashed.await.map_err(|error| Error::caused(ErrorKind::Internal, "hashing a file", error))?
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
    fn a_signal_is_read_from_the_beginning_of_a_name() {
        assert_eq!(signal_of_name("in/logs_1.json.gz"), Some(Signal::Logs));
        assert_eq!(signal_of_name("spans.csv"), Some(Signal::Traces));
        assert_eq!(signal_of_name("app.json"), None);
    }
}
