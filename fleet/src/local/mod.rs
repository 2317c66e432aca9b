//! Replicas as processes of this host.
//!
//! Owns: one folder a replica with all that is known of it, the small parent ([`shim`]) that outlives the server and keeps each container's exit code,
//! probes, back-off, limits, usage, logs. Never: which replicas there should be. A server that was killed finds every replica again by its folder and
//! starts no second copy: whoever holds the lock of a container's folder runs it. Start with [`LocalRuntime`].

mod cgroup;
mod container;
mod descendants;
mod files;
mod grpc;
mod limits;
mod logs;
mod printed;
mod probe;
mod process;
mod replica;
pub mod service;
pub mod shim;
mod tls;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use tidemill_scaling::TimeMs;
use tokio::sync::watch;

use crate::runtime::{LogOptions, LogStream, ReplicaPhase, ReplicaSpec, ReplicaStatus, Runtime, RuntimeError, Usage};
use files::ReplicaFolder;
use limits::Limiting;
pub use printed::{Piece, Place, PrintedBy, Record};
use replica::Entry;

/// A removed replica is kept so long for what it printed.
const KEPT_UNREAD: Duration = Duration::from_secs(600);

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
    /// Whether limits are kept by control groups where this process may make them.
    pub use_cgroups: bool,
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
            use_cgroups: true,
        })
    }
}

/// What the tasks of all replicas share.
#[derive(Debug)]
struct Shared {
    options: LocalOptions,
    limiting: Limiting,
    entries: Mutex<BTreeMap<String, Arc<Entry>>>,
    usage: Mutex<BTreeMap<String, Usage>>,
    /// Whether somebody reads what containers print; what is removed is then kept until it was read.
    is_read: AtomicBool,
    removed: Mutex<BTreeMap<String, Removed>>,
    changed: watch::Sender<u64>,
}

/// A replica that was removed, kept for what it printed.
#[derive(Debug)]
struct Removed {
    entry: Arc<Entry>,
    at: Instant,
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
        let limiting = Limiting::find(options.use_cgroups);
        let shared = Shared {
            options,
            limiting,
            entries: Mutex::default(),
            usage: Mutex::default(),
            is_read: AtomicBool::new(false),
            removed: Mutex::default(),
            changed: watch::Sender::new(0),
        };
        let runtime = Self { shared: Arc::new(shared) };
        for folder in known.replicas {
            runtime.adopt(folder);
        }
        for folder in known.removed {
            runtime.take_removed(folder);
        }
        for folder in known.remains {
            if let Err(error) = remove_folder(&folder) {
                tracing::warn!(%error, "what is left of a replica stays");
            }
        }
        let shared = Arc::downgrade(&runtime.shared);
        tokio::spawn(usage::run(shared));
        Ok(runtime)
    }

    /// In one sentence, who keeps containers within their limits.
    pub fn limits(&self) -> String {
        self.shared.limiting.to_string()
    }

    /// What containers print is read from now on: of replicas that are removed it is kept until [`Self::was_read`], for at most ten minutes.
    pub fn begin_reading(&self) {
        self.shared.is_read.store(true, Ordering::Relaxed);
    }

    /// Every container whose output can be read.
    pub fn printed(&self) -> Vec<PrintedBy> {
        let mut found = Vec::new();
        for entry in self.shared.entries.lock().values() {
            entry.printed(false, &mut found);
        }
        for removed in self.shared.removed.lock().values() {
            removed.entry.printed(true, &mut found);
        }
        found
    }

    /// Lets go of removed replicas that were read, and of those that waited too long; returns how many of the latter.
    pub fn was_read(&self, uids: &BTreeSet<String>) -> usize {
        let mut gone = Vec::new();
        let mut unread = 0;
        self.shared.removed.lock().retain(|uid, removed| {
            let is_late = removed.at.elapsed() > KEPT_UNREAD;
            let mut printed = Vec::new();
            removed.entry.printed(true, &mut printed);
            let is_read = printed.is_empty() || uids.contains(uid);
            let goes = is_late || is_read;
            unread += usize::from(!is_read && is_late);
            if goes {
                gone.push(removed.entry.folder().path().to_owned());
            }
            !goes
        });
        for folder in gone {
            if let Err(error) = remove_folder(&folder) {
                tracing::warn!(%error, "what is left of a replica stays");
            }
        }
        unread
    }

    fn take_removed(&self, folder: ReplicaFolder) {
        match Entry::load(folder) {
            Ok(Some(entry)) => {
                let removed = Removed { entry: Arc::new(entry), at: Instant::now() };
                self.shared.removed.lock().insert(removed.entry.uid().to_owned(), removed);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a removed replica's folder cannot be read; it is left alone"),
        }
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
        self.shared.limiting.let_go(entry.spec());
        let folder = entry.folder().path().to_owned();
        let is_read = self.shared.is_read.load(Ordering::Relaxed);
        if is_read {
            self.shared.removed.lock().insert(uid.to_owned(), Removed { entry, at: Instant::now() });
        }
        let removed =
            tokio::task::spawn_blocking(move || if is_read { retire_folder(&folder) } else { remove_folder(&folder) })
                .await;
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

fn retire_folder(folder: &Path) -> Result<(), RuntimeError> {
    std::fs::rename(folder.join(files::RECORD), folder.join(files::REMOVED))
        .map_err(|source| RuntimeError::Io { what: format!("removing {}", folder.display()), source })
}

fn remove_folder(folder: &Path) -> Result<(), RuntimeError> {
    let io = |source| RuntimeError::Io { what: format!("removing {}", folder.display()), source };
    // Whoever is killed in the middle leaves a folder without its record, which the next start takes away.
    for record in [files::RECORD, files::REMOVED] {
        match std::fs::remove_file(folder.join(record)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
    }
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(error)),
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
