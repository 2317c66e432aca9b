//! The few file operations on which the folder store's durability rests.
//!
//! Owns: the line between "asked for" and "survives a power cut", so that tests can put a disk below it that forgets what was not
//! synced. Never: paths outside what it is given. Start with [`Disk`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

/// Writes to a file system. A file's bytes are durable after `sync_file`, a name after `sync_folder` of the folder that has it.
pub trait Disk: Send + Sync + std::fmt::Debug + 'static {
    /// Creates one folder; `AlreadyExists` when it is there.
    ///
    /// # Errors
    /// What the system answers.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// Creates a file that must not exist and fills it from `body`; returns its size.
    ///
    /// # Errors
    /// What the system, or `body`, answers; the file may be left half written.
    fn write_new(&self, path: &Path, body: &mut dyn Read) -> io::Result<u64>;

    /// Makes a file's bytes durable.
    ///
    /// # Errors
    /// What the system answers.
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// What the system answers.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;

    /// Moves a file over whatever has the name `to`.
    ///
    /// # Errors
    /// What the system answers.
    fn replace(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Moves a file to a name that must be free.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the system answers.
    fn move_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system answers.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The operating system's disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn write_new(&self, path: &Path, body: &mut dyn Read) -> io::Result<u64> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        io::copy(body, &mut file)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn move_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        // A hard link is the one portable "rename unless it exists".
        fs::hard_link(from, to)?;
        // The object is stored; a leftover second name is removed when the folder is opened next.
        let _ = fs::remove_file(from);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}
