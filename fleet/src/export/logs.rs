//! Lines of containers on their way to the sink, each container with a place of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_types::Signal;

use super::families::{Families, Labels};
use super::{AGAIN_AFTER, AGAIN_AFTER_MOST, Sink, SinkError, otlp};
use crate::local::{LocalRuntime, Piece, Place, PrintedBy};

/// About so many bytes of log go into a request, and of one container.
const MAX_REQUEST: usize = 4 << 20;
const MAX_PIECE: usize = 1 << 20;

type Who = (String, String);

/// A part of a request that may have been taken.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Range {
    uid: String,
    container: String,
    from: Place,
    to: Place,
}

/// A request on its way.
#[derive(Debug, Serialize, Deserialize)]
struct Pending {
    key: String,
    ranges: Vec<Range>,
}

/// A request that is to be taken.
struct Batch {
    pending: Pending,
    resources: Vec<Value>,
    records: u64,
}

/// Reads on where it was, container by container.
#[derive(Debug)]
pub(super) struct Logs {
    runtime: LocalRuntime,
    pending: PathBuf,
    places: BTreeMap<Who, Place>,
    /// Begins with another container each time, so that a loud one does not silence the others.
    turn: usize,
    records: u64,
    refused: u64,
    gaps: u64,
    unread: u64,
}

impl Logs {
    pub fn new(runtime: LocalRuntime, pending: PathBuf) -> Self {
        Self { runtime, pending, places: BTreeMap::new(), turn: 0, records: 0, refused: 0, gaps: 0, unread: 0 }
    }

    /// Tells the sink all that is there.
    pub async fn tell(&mut self, sink: &dyn Sink) {
        loop {
            let (own, printed): (Vec<PrintedBy>, Vec<PrintedBy>) =
                self.runtime.printed().into_iter().partition(|by| super::is_own(&by.replica.labels));
            let printed = Arc::new(printed);
            self.forget_absent(&printed);
            if let Some(batch) = self.repeated(&printed) {
                self.deliver(sink, batch, &printed).await;
                continue;
            }
            self.turn = self.turn.wrapping_add(1);
            let (turn, places, looking) = (self.turn, std::mem::take(&mut self.places), printed.clone());
            let Ok(gathered) = tokio::task::spawn_blocking(move || gather(&looking, places, turn)).await else {
                return;
            };
            self.places = gathered.places;
            self.gaps += gathered.gaps;
            let batch = gathered.batch;
            if batch.resources.is_empty() {
                self.pass(batch, &printed);
                self.let_go(&printed, &own);
                return;
            }
            self.deliver(sink, batch, &printed).await;
        }
    }

    /// Numbers of its own.
    pub fn add(&self, families: &mut Families) {
        let (none, began) = (Labels::default(), families.began);
        for (name, value) in [
            ("tidemill_fleet_log_records_total", self.records),
            ("tidemill_fleet_log_records_refused_total", self.refused),
            ("tidemill_fleet_log_gaps_total", self.gaps),
            ("tidemill_fleet_log_replicas_unread_total", self.unread),
        ] {
            families.counter(name, &none, &[], (value as f64, began));
        }
    }

    /// The request that an earlier process may have got through, as it was.
    fn repeated(&mut self, printed: &[PrintedBy]) -> Option<Batch> {
        let bytes = std::fs::read(&self.pending).ok()?;
        let Ok(pending) = serde_json::from_slice::<Pending>(&bytes) else {
            tracing::warn!(file = %self.pending.display(), "it cannot be read; its lines may be told twice");
            self.clear_pending();
            return None;
        };
        let mut batch = Batch { pending, resources: Vec::new(), records: 0 };
        let mut ranges = Vec::new();
        for range in std::mem::take(&mut batch.pending.ranges) {
            let Some(by) = find(printed, &range) else { continue };
            match by.read(&range.from, usize::MAX, Some(&range.to)) {
                Ok(piece) => add(&mut batch, by, &piece),
                Err(error) => tracing::warn!(replica = range.uid, %error, "what it printed cannot be read"),
            }
            ranges.push(range);
        }
        batch.pending.ranges = ranges;
        if batch.resources.is_empty() {
            self.clear_pending();
            return None;
        }
        Some(batch)
    }

    /// Hands a request over, however often that takes, and goes on behind it.
    async fn deliver(&mut self, sink: &dyn Sink, mut batch: Batch, printed: &[PrintedBy]) {
        if let Err(error) = write(&self.pending, &batch.pending) {
            tracing::warn!(%error, "a request's key cannot be kept; after a crash its lines would be told twice");
        }
        let body = otlp::logs(std::mem::take(&mut batch.resources));
        let mut rest = AGAIN_AFTER;
        loop {
            match sink.take(Signal::Logs, Some(&batch.pending.key), body.clone()).await {
                Ok(()) => {
                    self.records += batch.records;
                    break;
                }
                Err(SinkError::Later(why)) => {
                    tracing::debug!(why, "lines of replicas wait");
                    tokio::time::sleep(rest).await;
                    rest = (rest * 2).min(AGAIN_AFTER_MOST);
                }
                Err(SinkError::Never(why)) => {
                    self.refused += batch.records;
                    tracing::warn!(why, records = batch.records, "lines of replicas were refused");
                    break;
                }
            }
        }
        self.pass(batch, printed);
        self.clear_pending();
    }

    /// Keeps the places behind a request.
    fn pass(&mut self, batch: Batch, printed: &[PrintedBy]) {
        for range in batch.pending.ranges {
            if let Some(by) = find(printed, &range)
                && let Err(error) = by.keep_place(&range.to)
            {
                tracing::warn!(replica = range.uid, %error, "a place cannot be kept; after a crash lines would be told twice");
            }
            self.places.insert((range.uid, range.container), range.to);
        }
    }

    /// Lets go of replicas that were removed and read, and of those that nobody reads.
    fn let_go(&mut self, printed: &[PrintedBy], own: &[PrintedBy]) {
        let mut done: BTreeMap<&str, bool> =
            own.iter().filter(|by| by.is_removed).map(|by| (by.replica.uid.as_str(), true)).collect();
        for by in printed.iter().filter(|by| by.is_removed) {
            let place = self.places.get(&(by.replica.uid.clone(), by.container.clone()));
            let is_read = place.is_some_and(|place| place.run >= by.last_run && !by.has_more(place));
            *done.entry(&by.replica.uid).or_insert(true) &= is_read;
        }
        let done: BTreeSet<String> =
            done.into_iter().filter(|(_, is_read)| *is_read).map(|(uid, _)| uid.to_owned()).collect();
        let unread = self.runtime.was_read(&done);
        if unread > 0 {
            self.unread += unread as u64;
            tracing::warn!(replicas = unread, "replicas were removed before all that they printed was taken");
        }
    }

    fn forget_absent(&mut self, printed: &[PrintedBy]) {
        let present: BTreeSet<(&str, &str)> =
            printed.iter().map(|by| (by.replica.uid.as_str(), by.container.as_str())).collect();
        self.places.retain(|(uid, container), _| present.contains(&(uid.as_str(), container.as_str())));
    }

    fn clear_pending(&self) {
        match std::fs::remove_file(&self.pending) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, file = %self.pending.display(), "it stays; its request is repeated and known by its key");
            }
            _ => {}
        }
    }
}

/// What comes next, in any order but that of a container.
struct Gathered {
    batch: Batch,
    places: BTreeMap<Who, Place>,
    gaps: u64,
}

fn gather(printed: &[PrintedBy], mut places: BTreeMap<Who, Place>, turn: usize) -> Gathered {
    let pending = Pending { key: String::new(), ranges: Vec::new() };
    let mut batch = Batch { pending, resources: Vec::new(), records: 0 };
    let (mut bytes, mut gaps) = (0, 0);
    let start = turn % printed.len().max(1);
    for by in printed[start..].iter().chain(&printed[..start]) {
        if bytes >= MAX_REQUEST {
            break;
        }
        let who = (by.replica.uid.clone(), by.container.clone());
        let from = places.entry(who).or_insert_with(|| by.kept_place()).clone();
        if !by.has_more(&from) {
            continue;
        }
        let piece = match by.read(&from, MAX_PIECE.min(MAX_REQUEST - bytes), None) {
            Ok(piece) => piece,
            Err(error) => {
                tracing::warn!(replica = by.replica.name, %error, "what it printed cannot be read");
                continue;
            }
        };
        if piece.has_gap {
            gaps += 1;
            let (replica, container) = (&by.replica.name, &by.container);
            tracing::warn!(replica, container, "it printed faster than it was read; lines are lost");
        }
        bytes += piece.bytes;
        add(&mut batch, by, &piece);
        if piece.to != from {
            let (uid, container) = (by.replica.uid.clone(), by.container.clone());
            batch.pending.ranges.push(Range { uid, container, from, to: piece.to });
        }
    }
    batch.pending.key = key_of(&batch.pending.ranges);
    Gathered { batch, places, gaps }
}

fn add(batch: &mut Batch, by: &PrintedBy, piece: &Piece) {
    if !piece.records.is_empty() {
        batch.records += piece.records.len() as u64;
        batch.resources.push(otlp::resource_logs(by, piece.to.run, &piece.records));
    }
}

fn find<'a>(printed: &'a [PrintedBy], range: &Range) -> Option<&'a PrintedBy> {
    printed.iter().find(|by| by.replica.uid == range.uid && by.container == range.container)
}

fn key_of(ranges: &[Range]) -> String {
    let text = serde_json::to_vec(ranges).unwrap_or_default();
    format!("fleet-{}", blake3::hash(&text).to_hex())
}

fn write(path: &Path, pending: &Pending) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, serde_json::to_vec(pending)?)?;
    std::fs::rename(beside, path)
}
