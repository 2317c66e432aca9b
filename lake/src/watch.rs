//! A watched folder: complete files become inbox rows, each once.
//!
//! Owns: noticing files by the kernel's events, with a periodic scan as the net below; waiting until a file is complete; and
//! remembering, over restarts, which were offered. Never: reading or deleting files, or following links. A file is complete when
//! it was renamed into the folder, or when its size and modification time have stood still for a while; names that start with `.`
//! or end in `.tmp`, `.part` or `~` are never taken. A file that is written again is new data.
//! Start with [`Watch::open`].

mod journal;
mod scan;
mod settle;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::notify::event::{ModifyKind, RenameMode};
use ::notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tidemill_types::is_own_object;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::journal::Journal;
use self::scan::{Found, Stamp, find_files, stamp_of};
use self::settle::Settling;
use crate::notify::{Admitter, Authority, ObjectEvent};
use crate::{Error, Result};

/// Events of the kernel that may wait; when more come, the folder is scanned instead.
const EVENT_BACKLOG: usize = 4096;
/// Files offered in one call.
const FILES_PER_ADMISSION: usize = 1000;

/// What is watched, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchOptions {
    /// The folder; files keep their path inside it as their key.
    pub folder: PathBuf,
    /// The bucket whose store is that folder.
    pub bucket: String,
    /// Where it is remembered which files were offered; outside the watched folder.
    pub journal: PathBuf,
    /// How long a file must stand still to be complete.
    pub settle: Duration,
    /// How often the folder is scanned for what the kernel's events missed.
    pub rescan_every: Duration,
}

impl WatchOptions {
    /// Options with the usual times: 1 s and 30 s.
    pub fn new(folder: impl Into<PathBuf>, bucket: impl Into<String>, journal: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            bucket: bucket.into(),
            journal: journal.into(),
            settle: Duration::from_secs(1),
            rescan_every: Duration::from_secs(30),
        }
    }
}

/// A folder being watched.
#[derive(Debug)]
pub struct Watch {
    options: WatchOptions,
    admitter: Admitter,
    journal: Journal,
    settling: Settling,
    /// Names that are no text, told once each.
    unreadable: HashSet<PathBuf>,
    events: mpsc::Receiver<Event>,
    overflowed: Arc<AtomicBool>,
    /// Stops watching when dropped. `None` where the kernel refused: then only scans notice files.
    _watcher: Option<RecommendedWatcher>,
}

/// What the loop waits for.
enum Happening {
    Seen(Event),
    ScanDue,
    SettleDue,
    Stop,
}

impl Watch {
    /// Opens the journal and asks the kernel for events.
    ///
    /// # Errors
    /// A folder or journal that cannot be opened.
    pub fn open(options: WatchOptions, admitter: Admitter) -> Result<Self> {
        let folder = options.folder.canonicalize().map_err(Error::file("watch", &options.folder))?;
        let options = WatchOptions { folder, ..options };
        let journal = Journal::open(&options.journal).map_err(Error::file("open the journal", &options.journal))?;
        let (sender, events) = mpsc::channel(EVENT_BACKLOG);
        let overflowed = Arc::new(AtomicBool::new(false));
        let watcher = start_watcher(&options.folder, sender, overflowed.clone());
        let settling = Settling::new(options.settle);
        let unreadable = HashSet::new();
        Ok(Self { options, admitter, journal, settling, unreadable, events, overflowed, _watcher: watcher })
    }

    /// Watches until stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut scan = tokio::time::interval(self.options.rescan_every);
        scan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_first_scan = true;
        loop {
            let due = self.settling.next_due();
            let happening = tokio::select! {
                () = stop.cancelled() => Happening::Stop,
                Some(event) = self.events.recv() => Happening::Seen(event),
                _ = scan.tick() => Happening::ScanDue,
                () = sleep_until(due) => Happening::SettleDue,
            };
            match happening {
                Happening::Stop => return,
                Happening::Seen(event) => {
                    let needs_scan = self.see(&event).await;
                    if needs_scan || self.overflowed.swap(false, Ordering::SeqCst) {
                        scan.reset_immediately();
                    }
                }
                Happening::ScanDue => {
                    self.scan(is_first_scan).await;
                    is_first_scan = false;
                }
                Happening::SettleDue => self.offer_settled().await,
            }
        }
    }

    /// Takes an event of the kernel; answers whether only a scan can tell what happened.
    async fn see(&mut self, event: &Event) -> bool {
        let is_rename = matches!(event.kind, EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)));
        if matches!(event.kind, EventKind::Access(::notify::event::AccessKind::Open(_)) | EventKind::Remove(_)) {
            return false;
        }
        if event.need_rescan() {
            return true;
        }
        let mut complete = Vec::new();
        for path in &event.paths {
            match stamp_of(path) {
                Found::File(stamp) => {
                    let Some(key) = self.key_of(path) else { continue };
                    if self.journal.holds(&key, stamp) {
                        continue;
                    }
                    if is_rename {
                        complete.push((key, stamp));
                    } else {
                        self.settling.observe(key, stamp, Instant::now());
                    }
                }
                // Files may have been put in before the kernel watched it.
                Found::Folder => return true,
                Found::Nothing => {}
            }
        }
        self.offer(complete).await;
        false
    }

    async fn scan(&mut self, is_first: bool) {
        let folder = self.options.folder.clone();
        let scanned = tokio::task::spawn_blocking(move || find_files(&folder)).await;
        let files = match scanned {
            Ok(Ok(files)) => files,
            Ok(Err(error)) => {
                tracing::warn!(folder = %self.options.folder.display(), %error, "the watched folder cannot be scanned");
                return;
            }
            Err(error) => {
                tracing::warn!(folder = %self.options.folder.display(), %error, "a scan of the watched folder broke off");
                return;
            }
        };
        let now = Instant::now();
        let mut present = HashSet::with_capacity(files.len());
        for (path, stamp) in files {
            match self.key_of(&path) {
                Some(key) => {
                    if !self.journal.holds(&key, stamp) {
                        self.settling.observe(key.clone(), stamp, now);
                    }
                    present.insert(key);
                }
                None => self.tell_unreadable(&path).await,
            }
        }
        if is_first && let Err(error) = self.journal.retain(&present) {
            tracing::warn!(journal = %self.options.journal.display(), %error, "the journal cannot be shortened");
        }
    }

    async fn offer_settled(&mut self) {
        let mut complete = Vec::new();
        let now = Instant::now();
        for (key, stamp) in self.settling.take_due(now) {
            match stamp_of(&self.options.folder.join(&key)) {
                Found::File(found) if found == stamp => complete.push((key, stamp)),
                Found::File(found) => self.settling.observe(key, found, now),
                Found::Folder | Found::Nothing => {}
            }
        }
        self.offer(complete).await;
    }

    async fn offer(&mut self, complete: Vec<(String, Stamp)>) {
        for files in complete.chunks(FILES_PER_ADMISSION) {
            let events: Vec<ObjectEvent> = files.iter().map(|(key, _)| self.event(key)).collect();
            match self.admitter.admit(&events, Authority::Operator).await {
                Ok(admitted) => {
                    tracing::info!(
                        bucket = self.options.bucket,
                        admitted = admitted.admitted,
                        known = admitted.known,
                        refused = admitted.refused.len(),
                        "files taken"
                    );
                    if let Err(error) = self.journal.add(files) {
                        // The ledger of the metastore still knows the files, so offering them again is harmless.
                        tracing::warn!(journal = %self.options.journal.display(), %error, "the journal cannot be written");
                    }
                }
                Err(error) => {
                    tracing::warn!(bucket = self.options.bucket, %error, "files wait until they can be admitted");
                    let now = Instant::now();
                    for (key, stamp) in files {
                        self.settling.observe(key.clone(), *stamp, now);
                    }
                }
            }
        }
    }

    fn event(&self, key: &str) -> ObjectEvent {
        ObjectEvent {
            bucket: self.options.bucket.clone(),
            key: key.to_owned(),
            size_bytes: None,
            version: None,
            etag: None,
            event_time: None,
        }
    }

    /// The path inside the folder with `/` between its parts; `None` for what is never taken, or is no text.
    fn key_of(&self, path: &Path) -> Option<String> {
        let inside = path.strip_prefix(&self.options.folder).ok()?;
        let parts: Option<Vec<&str>> = inside.components().map(|part| part.as_os_str().to_str()).collect();
        let key = parts?.join("/");
        (!is_never_taken(&key)).then_some(key)
    }

    async fn tell_unreadable(&mut self, path: &Path) {
        if path.to_str().is_some() || !self.unreadable.insert(path.to_owned()) {
            return;
        }
        let reason = "the file's name is not UTF-8; rename it".to_owned();
        if let Err(error) = self.admitter.refuse(Authority::Operator, &path.to_string_lossy(), reason).await {
            self.unreadable.remove(path);
            tracing::warn!(path = %path.display(), %error, "a refusal cannot be recorded");
        }
    }
}

/// Files being written, hidden ones, and objects of our own.
fn is_never_taken(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    key.is_empty()
        || is_own_object(key)
        || key.split('/').any(|part| part.starts_with('.'))
        || [".tmp", ".part", "~"].iter().any(|ending| name.ends_with(ending))
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn start_watcher(
    folder: &Path,
    sender: mpsc::Sender<Event>,
    overflowed: Arc<AtomicBool>,
) -> Option<RecommendedWatcher> {
    let handler = move |event: ::notify::Result<Event>| {
        let is_taken = event.is_ok_and(|event| sender.try_send(event).is_ok());
        if !is_taken {
            overflowed.store(true, Ordering::SeqCst);
        }
    };
    let started = ::notify::recommended_watcher(handler).and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::Recursive)?;
        Ok(watcher)
    });
    match started {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            let folder = folder.display();
            tracing::warn!(%folder, %error, "no events for the watched folder; new files are found by scanning only");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_being_written_and_our_own_are_never_taken() {
        for key in ["", ".hidden", "a/.git/x", "a/x.tmp", "x.part", "x~", "db/o/x.parquet", "a/.x/logs_1"] {
            assert!(is_never_taken(key), "{key}");
        }
        for key in ["x.json", "otel-raw/o/c/logs_1.binpb.gz", "a/db/x", "database/x"] {
            assert!(!is_never_taken(key), "{key}");
        }
    }
}
