//! The folder of a replica.
//!
//! ```text
//! <uid>/replica.json            what it was told, and when; removed.json once it was removed and its output is still to be read
//! <uid>/stop.json               that it was told to stop, and how long it may take
//! <uid>/ended.json              how it ended
//! <uid>/<container>/launch.json what the shim runs next
//! <uid>/<container>/lock        held by the shim while it lives
//! <uid>/<container>/N.run.json  run N: its process
//! <uid>/<container>/N.end.json  run N: how it ended
//! <uid>/<container>/N.log       run N: what it printed, in the log format of CRI; before it was turned over N.log.1
//! <uid>/<container>/exported.json how far what it printed was read by an exporter
//! ```

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidemill_scaling::TimeMs;

use crate::runtime::{ContainerEnd, ReplicaPhase, ReplicaSpec, RuntimeError};

pub(super) const RECORD: &str = "replica.json";
/// The record of a replica that was removed.
pub(super) const REMOVED: &str = "removed.json";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Created {
    pub spec: ReplicaSpec,
    pub created_at: TimeMs,
}

/// That a replica was told to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stop {
    pub at: TimeMs,
    pub grace_ms: u64,
    /// `DeadlineExceeded` …; without one somebody asked.
    pub reason: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ended {
    pub phase: ReplicaPhase,
    pub at: TimeMs,
    pub started_at: Option<TimeMs>,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub containers: Vec<crate::runtime::ContainerStatus>,
}

/// What a shim runs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Launch {
    pub run: u32,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: std::collections::BTreeMap<String, String>,
    pub working_dir: PathBuf,
    /// Its control group, where there are such.
    #[serde(default)]
    pub group: Option<super::cgroup::Group>,
    /// The most data that a process of it may map, where there are none.
    #[serde(default)]
    pub data_bytes: Option<u64>,
}

/// A run of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Run {
    pub pid: u32,
    /// When the kernel says that the process began, in ticks since the host's start; tells a process from a later one of the same number.
    pub start_ticks: u64,
    pub started_at: TimeMs,
}

/// The folder of one replica.
#[derive(Debug, Clone)]
pub(super) struct ReplicaFolder {
    path: PathBuf,
}

impl ReplicaFolder {
    /// The folder for `uid`, which may not lead out of `parent`.
    pub(super) fn new(parent: &Path, uid: &str) -> Result<Self, RuntimeError> {
        let is_plain = !uid.is_empty()
            && uid.len() <= 200
            && uid.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        if !is_plain {
            return Err(RuntimeError::Invalid(format!("{uid:?} is no uid")));
        }
        Ok(Self { path: parent.join(uid) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn container(&self, name: &str) -> ContainerFolder {
        ContainerFolder { path: self.path.join(name) }
    }

    pub(super) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, RuntimeError> {
        read_json(&self.path.join(name))
    }

    pub(super) fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), RuntimeError> {
        write_json(&self.path, name, value)
    }
}

/// The folder of one container.
#[derive(Debug, Clone)]
pub(super) struct ContainerFolder {
    path: PathBuf,
}

impl ContainerFolder {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn launch(&self) -> Result<Option<Launch>, RuntimeError> {
        read_json(&self.path.join("launch.json"))
    }

    pub(super) fn write_launch(&self, launch: &Launch) -> Result<(), RuntimeError> {
        create_private_folder(&self.path)
            .map_err(|source| RuntimeError::Io { what: format!("creating {}", self.path.display()), source })?;
        write_json(&self.path, "launch.json", launch)
    }

    pub(super) fn run(&self, run: u32) -> Result<Option<Run>, RuntimeError> {
        read_json(&self.path.join(format!("{run}.run.json")))
    }

    pub(super) fn write_run(&self, number: u32, run: &Run) -> Result<(), RuntimeError> {
        write_json(&self.path, &format!("{number}.run.json"), run)
    }

    pub(super) fn end(&self, run: u32) -> Result<Option<ContainerEnd>, RuntimeError> {
        read_json(&self.path.join(format!("{run}.end.json")))
    }

    pub(super) fn write_end(&self, number: u32, end: &ContainerEnd) -> Result<(), RuntimeError> {
        write_json(&self.path, &format!("{number}.end.json"), end)
    }

    pub(super) fn log(&self, run: u32) -> PathBuf {
        self.path.join(format!("{run}.log"))
    }

    /// Lets go of all that is known of a run.
    pub(super) fn forget(&self, run: u32) {
        for name in ["log", "log.1", "run.json", "end.json", "oom"] {
            // What is not there is let go already.
            let _ = std::fs::remove_file(self.path.join(format!("{run}.{name}")));
        }
    }

    /// Takes the lock that says who runs this container; `None` while somebody else holds it.
    pub(super) fn try_lock(&self) -> Result<Option<File>, RuntimeError> {
        let io = |source| RuntimeError::Io { what: format!("locking {}", self.path.display()), source };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.path.join("lock"))
            .map_err(io)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(io(error.into())),
        }
    }
}

/// The folders of replicas below a parent.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub replicas: Vec<ReplicaFolder>,
    /// Removed, and kept until what they printed is read.
    pub removed: Vec<ReplicaFolder>,
    /// Of a start or a removal that never came to its end.
    pub remains: Vec<PathBuf>,
}

pub(super) fn replica_folders(parent: &Path) -> std::io::Result<Found> {
    let mut found = Found::default();
    for item in std::fs::read_dir(parent)? {
        let path = item?.path();
        if path.join(RECORD).exists() {
            found.replicas.push(ReplicaFolder { path });
        } else if path.join(REMOVED).exists() {
            found.removed.push(ReplicaFolder { path });
        } else {
            found.remains.push(path);
        }
    }
    Ok(found)
}

/// A folder that nobody else may read: what replicas are told has secrets in it.
pub(super) fn create_private_folder(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RuntimeError> {
    let io = |source| RuntimeError::Io { what: format!("reading {}", path.display()), source };
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| io(error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(error)),
    }
}

/// Writes beside, syncs, renames: a reader sees the old or the new, whole.
fn write_json<T: Serialize>(folder: &Path, name: &str, value: &T) -> Result<(), RuntimeError> {
    let path = folder.join(name);
    let io = |source| RuntimeError::Io { what: format!("writing {}", path.display()), source };
    let beside = folder.join(format!(".{name}.new"));
    let bytes = serde_json::to_vec(value).map_err(|error| io(error.into()))?;
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside).map_err(io)?;
    file.write_all(&bytes).and_then(|()| file.sync_data()).map_err(io)?;
    std::fs::rename(&beside, &path).map_err(io)
}
