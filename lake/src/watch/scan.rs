//! What lies in a folder. Links are not followed, so nothing outside it is ever named.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What tells one content of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size_bytes: u64,
    pub(super) modified_ns: i128,
    pub(super) inode: u64,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    File(Stamp),
    Folder,
    Nothing,
}

pub(super) fn stamp_of(path: &Path) -> Found {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_file() => Found::File(stamp(&metadata)),
        Ok(metadata) if metadata.is_dir() => Found::Folder,
        _ => Found::Nothing,
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    Stamp {
        size_bytes: metadata.len(),
        modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
        inode: metadata.ino(),
    }
}

/// All regular files below `folder`. What vanishes during the walk is left out.
pub(super) fn find_files(folder: &Path) -> io::Result<Vec<(PathBuf, Stamp)>> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(current) = open.pop() {
        let entries = match std::fs::read_dir(&current) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound && current != folder => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            match stamp_of(&path) {
                Found::File(stamp) => files.push((path, stamp)),
                Found::Folder => open.push(path),
                Found::Nothing => {}
            }
        }
    }
    Ok(files)
}
