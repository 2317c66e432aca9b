//! The disk budget: closes the gate while the disk is nearly full or our share of it is spent.
//!
//! Queries and workers go on, and nothing acknowledged is dropped; only new data waits at its sender.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Gate;
use crate::{Error, Result};

/// What must stay free, and what may be used.
#[derive(Debug, Clone)]
pub struct DiskLimits {
    /// The folder that grows.
    pub folder: PathBuf,
    /// Ingest stops while less than this is free on its file system.
    pub min_free_bytes: u64,
    /// Ingest stops while the folder holds more than this.
    pub max_used_bytes: Option<u64>,
    /// How often to look.
    pub every: Duration,
}

/// Watches a folder and its file system.
#[derive(Debug)]
pub struct DiskMonitor {
    limits: DiskLimits,
    gate: Gate,
    closed_by_us: bool,
}

impl DiskMonitor {
    /// Watches `limits.folder` on behalf of `gate`.
    pub fn new(limits: DiskLimits, gate: Gate) -> Self {
        Self { limits, gate, closed_by_us: false }
    }

    /// Looks again and again until dropped.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(self.limits.every);
        loop {
            ticks.tick().await;
            let limits = self.limits.clone();
            let looked = tokio::task::spawn_blocking(move || look(&limits)).await;
            match looked {
                Ok(Ok(reason)) => self.apply(reason),
                Ok(Err(error)) => tracing::warn!(%error, "the disk budget cannot be checked"),
                Err(error) => tracing::warn!(%error, "the disk budget cannot be checked"),
            }
        }
    }

    fn apply(&mut self, reason: Option<String>) {
        match reason {
            Some(reason) => {
                if !self.closed_by_us {
                    tracing::warn!(reason, "ingest is answered 429 until there is room");
                }
                self.gate.close(reason);
                self.closed_by_us = true;
            }
            None if self.closed_by_us => {
                tracing::info!("there is room again; ingest is open");
                self.gate.open();
                self.closed_by_us = false;
            }
            None => {}
        }
    }
}

/// Why ingest must wait, if it must.
fn look(limits: &DiskLimits) -> Result<Option<String>> {
    let space = rustix::fs::statvfs(&limits.folder)
        .map_err(|errno| Error::file("look at free space of", &limits.folder)(errno.into()))?;
    let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
    if free_bytes < limits.min_free_bytes {
        let (folder, least) = (limits.folder.display(), limits.min_free_bytes);
        return Ok(Some(format!(
            "the disk of {folder} has {free_bytes} bytes free and must keep {least}; queries go on"
        )));
    }
    if let Some(max) = limits.max_used_bytes {
        let used = used_bytes(&limits.folder)?;
        if used > max {
            let folder = limits.folder.display();
            return Ok(Some(format!("{folder} holds {used} bytes of at most {max}; queries go on")));
        }
    }
    Ok(None)
}

fn used_bytes(folder: &Path) -> Result<u64> {
    let mut folders = vec![folder.to_owned()];
    let mut total = 0u64;
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Folders and files come and go while we look.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::file("list", &folder)(error)),
        };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => total += metadata.len(),
                Err(_) => {}
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_budget_closes_the_gate_and_room_opens_it() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("segment"), [0; 100]).expect("written");
        let mut limits = DiskLimits {
            folder: folder.path().to_owned(),
            min_free_bytes: 0,
            max_used_bytes: Some(99),
            every: Duration::from_secs(1),
        };
        let gate = Gate::default();
        let mut monitor = DiskMonitor::new(limits.clone(), gate.clone());
        monitor.apply(look(&limits).expect("readable"));
        assert!(gate.closed_because().expect("closed").contains("at most 99"));
        limits.max_used_bytes = Some(100);
        monitor.apply(look(&limits).expect("readable"));
        assert_eq!(gate.closed_because(), None);
        limits.min_free_bytes = u64::MAX;
        assert!(look(&limits).expect("readable").expect("no disk is that large").contains("bytes free"));
    }
}
