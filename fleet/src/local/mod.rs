//! Replicas as processes of this host.
//!
//! Owns: one folder a replica with all that is known of it, the small parent ([`shim`]) that outlives the server and keeps each container's exit code,
//! probes, back-off, limits, usage, logs. Never: which replicas there should be. A server that was killed finds every replica again by its folder and
//! starts no second copy: whoever holds the lock of a container's folder runs it. Start with [`LocalRuntime`].

mod container;
mod files;
mod logs;
mod probe;
mod process;
mod replica;
pub mod service;
pub mod shim;
mod usage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidemill_scaling::TimeMs;
use tokio::sync::watch;

use crate::runtime::{LogOptions, LogStream, ReplicaPhase, ReplicaSpec, ReplicaStatus, Runtime, RuntimeError, Usage};
use files::ReplicaFolder;
use replica::Entry;

/// How a [`LocalRuntime`] runs replicas.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Where the replicas' folders are; created where missing.
    pub folder: PathBuf,
    /// The program that becomes a shim when its first argument is `fleet-shim`.
    pub shim: PathBuf,
    /// The first wait before a container is started again; doubles up to `back_off_most`. Kubernetes waits 10 s.
    pub back_off: Duration,
    /// The longest wait before a container is started again. Kubernetes waits 5 min.
    pub back_off_most: Duration,
    /// After so long a run the next wait is the first again. Kubernetes says 10 min.
    pub back_off_reset: Duration,
    /// How often usage is measured.
    pub measure_every: Duration,
}

impl LocalOptions {
    /// Kubernetes's times, in `folder`, with this very program as the shim.
    ///
    /// # Errors
    /// When the host does not tell which program this is.
    pub fn new(folder: PathBuf) -> std::io::Result<Self> {
        Ok(Self {
            folder,
            shim: std::env::current_exe()?,
            back_off: Duration::from_secs(10),
            back_off_most: Duration::from_secs(300),
            back_off_reset: Duration::from_secs(600),
            measure_every: Duration::from_secs(1),
        })
    }
}

/// What the tasks of all replicas share.
#[derive(Debug)]
struct Shared {
    options: LocalOptions,
    entries: Mutex<BTreeMap<String, Arc<Entry>>>,
    usage: Mutex<BTreeMap<String, Usage>>,
    changed: watch::Sender<u64>,
}

impl Shared {
    fn bump(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

/// Runs replicas as processes of this host.
#[derive(Debug, Clone)]
pub struct LocalRuntime {
    shared: Arc<Shared>,
}

impl LocalRuntime {
    /// Finds every replica of the folder again and goes on with it. To be called inside of a tokio runtime.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn open(options: LocalOptions) -> Result<Self, RuntimeError> {
        let io = |what: String| move |source| RuntimeError::Io { what, source };
        let folder = options.folder.clone();
        files::create_private_folder(&folder).map_err(io(format!("creating {}", folder.display())))?;
        let known = files::replica_folders(&folder).map_err(io(format!("reading {}", folder.display())))?;
        let shared =
            Shared { options, entries: Mutex::default(), usage: Mutex::default(), changed: watch::Sender::new(0) };
        let runtime = Self { shared: Arc::new(shared) };
        for folder in known {
            runtime.adopt(folder);
        }
        let shared = Arc::downgrade(&runtime.shared);
        tokio::spawn(usage::run(shared));
        Ok(runtime)
    }

    fn adopt(&self, folder: ReplicaFolder) {
        match Entry::load(folder) {
            Ok(Some(entry)) => self.launch(entry),
            // Its start was never recorded whole, so nothing of it ever ran.
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a replica's folder cannot be read; it is left alone"),
        }
    }

    fn launch(&self, entry: Entry) {
        let entry = Arc::new(entry);
        let uid = entry.uid().to_owned();
        let has_ended = entry.has_ended();
        self.shared.entries.lock().insert(uid, entry.clone());
        self.shared.bump();
        if !has_ended {
            tokio::spawn(replica::run(self.shared.clone(), entry));
        }
    }

    fn entry(&self, uid: &str) -> Result<Arc<Entry>, RuntimeError> {
        let found = self.shared.entries.lock().get(uid).cloned();
        found.ok_or_else(|| RuntimeError::NotFound(format!("there is no replica {uid}")))
    }
}

#[async_trait]
impl Runtime for LocalRuntime {
    async fn start(&self, replica: ReplicaSpec) -> Result<(), RuntimeError> {
        if self.shared.entries.lock().contains_key(&replica.uid) {
            return Ok(());
        }
        let folder = ReplicaFolder::new(&self.shared.options.folder, &replica.uid)?;
        let entry = tokio::task::spawn_blocking(move || Entry::create(folder, replica)).await;
        let entry = entry.map_err(|error| RuntimeError::Invalid(error.to_string()))??;
        self.launch(entry);
        Ok(())
    }

    async fn stop(&self, uid: &str, grace: Option<Duration>) -> Result<(), RuntimeError> {
        let entry = self.entry(uid)?;
        let stopping = entry.clone();
        let stopped = tokio::task::spawn_blocking(move || stopping.ask_to_stop(grace, None)).await;
        stopped.map_err(|error| RuntimeError::Invalid(error.to_string()))??;
        self.shared.bump();
        Ok(())
    }

    async fn remove(&self, uid: &str) -> Result<(), RuntimeError> {
        let entry = self.entry(uid)?;
        if !entry.has_ended() {
            return Err(RuntimeError::Invalid(format!("replica {uid} has not ended")));
        }
        self.shared.entries.lock().remove(uid);
        self.shared.usage.lock().remove(uid);
        let folder = entry.folder().path().to_owned();
        let removed = tokio::task::spawn_blocking(move || remove_folder(&folder)).await;
        removed.map_err(|error| RuntimeError::Invalid(error.to_string()))??;
        self.shared.bump();
        Ok(())
    }

    fn replicas(&self) -> Vec<ReplicaStatus> {
        self.shared.entries.lock().values().map(|entry| entry.status()).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    fn usage(&self, uid: &str) -> Option<Usage> {
        self.shared.usage.lock().get(uid).cloned()
    }

    async fn logs(&self, uid: &str, options: LogOptions) -> Result<LogStream, RuntimeError> {
        logs::open(self.entry(uid)?, options)
    }
}

fn remove_folder(folder: &Path) -> Result<(), RuntimeError> {
    // Whoever is killed in the middle leaves a folder without its record, which is none.
    match std::fs::remove_file(folder.join(files::RECORD)).and_then(|()| std::fs::remove_dir_all(folder)) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(RuntimeError::Io { what: format!("removing {}", folder.display()), source })
        }
        _ => Ok(()),
    }
}

/// The clock of this host.
fn now() -> TimeMs {
    TimeMs(jiff::Timestamp::now().as_millisecond())
}

/// Whether a phase is the last one.
fn is_last(phase: ReplicaPhase) -> bool {
    matches!(phase, ReplicaPhase::Succeeded | ReplicaPhase::Failed)
}
