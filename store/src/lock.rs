//! Locks on files, released by the kernel when their process ends in whatever way.
//!
//! Owns: the rule that a data folder has one `up`, and the knowledge whether another process of this host still lives.
//! Never: decides what a dead process's leases are worth. Start with [`DataFolderLock`].

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tidemill_types::ErrorKind;

use crate::{Error, Result};

/// The right to run `tidemill up` on a data folder; ends when it is dropped or its process ends.
#[derive(Debug)]
pub struct DataFolderLock {
    _file: LockedFile,
}

impl DataFolderLock {
    /// Takes the lock; the folder must exist.
    ///
    /// # Errors
    /// `Conflict`, naming the process that holds it.
    pub fn acquire(folder: &Path) -> Result<Self> {
        let path = folder.join("tidemill.lock");
        match LockedFile::try_acquire(&path)? {
            Some(mut file) => {
                file.write_text(&std::process::id().to_string())?;
                Ok(Self { _file: file })
            }
            None => {
                let holder = std::fs::read_to_string(&path).unwrap_or_default();
                let problem = format!("another tidemill (process {}) serves this data folder", holder.trim());
                Err(Error::new("lock", folder.display().to_string(), ErrorKind::Conflict, problem))
            }
        }
    }
}

/// A file under an exclusive advisory lock.
#[derive(Debug)]
pub(crate) struct LockedFile {
    file: File,
    path: PathBuf,
}

impl LockedFile {
    /// Locks the file, created if needed; `None` while somebody else has it.
    pub(crate) fn try_acquire(path: &Path) -> Result<Option<Self>> {
        let fail = |source| Error::from_io("lock", path.display().to_string(), source);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(fail)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file, path: path.to_owned() })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(fail(errno.into())),
        }
    }

    /// Removes the file while it is still locked.
    pub(crate) fn remove(self) -> Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::from_io("unlock", self.path.display().to_string(), source))
            }
            _ => Ok(()),
        }
    }

    /// Replaces the file's text.
    fn write_text(&mut self, text: &str) -> Result<()> {
        let mut write = || {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(text.as_bytes())
        };
        write().map_err(|source| Error::from_io("lock", self.path.display().to_string(), source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_folder_has_one_holder() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = DataFolderLock::acquire(folder.path()).expect("is free");
        let error = DataFolderLock::acquire(folder.path()).expect_err("is taken");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(first);
        let _again = DataFolderLock::acquire(folder.path()).expect("is free again");
    }
}
