//! Which holders of leases still live: each open metastore of this host keeps a locked file that the kernel unlocks when its
//! process ends, so that the leases of a killed process need not run out before others take over.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};
use uuid::Uuid;

use super::connection::{failed, now_ns};
use crate::Result;
use crate::lock::LockedFile;

/// This process's own mark, and the folder with everybody's.
#[derive(Debug)]
pub(super) struct Holder {
    /// Stored with every lease.
    pub(super) id: Uuid,
    folder: PathBuf,
    _file: Option<LockedFile>,
}

impl Holder {
    /// Marks this process as living.
    pub(super) fn enter(database: &Path) -> Result<Self> {
        let mut folder = database.as_os_str().to_owned();
        folder.push("-holders");
        let folder = PathBuf::from(folder);
        std::fs::create_dir_all(&folder)
            .map_err(|source| crate::Error::from_io("open", folder.display().to_string(), source))?;
        let id = Uuid::new_v4();
        let file = LockedFile::try_acquire(&folder.join(id.simple().to_string()))?;
        Ok(Self { id, folder, _file: file })
    }

    /// Holders whose process is gone. Their marks stay locked by us until they are dropped or removed.
    pub(super) fn find_gone(&self) -> Vec<Gone> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        entries.filter_map(|entry| self.lock_if_gone(&entry.ok()?)).collect()
    }

    fn lock_if_gone(&self, entry: &std::fs::DirEntry) -> Option<Gone> {
        let id: Uuid = entry.file_name().to_str()?.parse().ok()?;
        if id == self.id {
            return None;
        }
        Some(Gone { id, mark: LockedFile::try_acquire(&entry.path()).ok()?? })
    }
}

/// A holder whose process is gone.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) id: Uuid,
    mark: LockedFile,
}

impl Gone {
    /// Removes the mark, after the leases were ended.
    pub(super) fn forget(self) -> Result<()> {
        self.mark.remove()
    }
}

/// Ends a holder's leases; the next claim counts them as crashes.
pub(super) fn end_leases(connection: &Connection, holder: Uuid) -> Result<usize> {
    connection
        .prepare_cached("UPDATE leases SET lease_until = min(lease_until, ?2) WHERE holder = ?1")
        .and_then(|mut statement| statement.execute(params![holder.into_bytes(), now_ns()]))
        .map_err(failed("end leases"))
}
