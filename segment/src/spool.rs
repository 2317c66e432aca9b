//! Where an unfinished segment is kept: in memory while it is small, then in a file of the spool folder.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::draft::{DraftBody, SpoolFile};
use crate::error::{Error, Result};

/// A body moves from memory to a file when it grows beyond this.
const MEMORY_LIMIT_BYTES: usize = 4 << 20;

static NEXT_NAME: AtomicU64 = AtomicU64::new(0);

/// A writer that starts in memory and moves to a file.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    len: u64,
    memory: Vec<u8>,
    file: Option<(BufWriter<File>, SpoolFile)>,
}

impl Spool {
    /// An empty spool that may make a file in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), len: 0, memory: Vec::new(), file: None }
    }

    /// Bytes written so far.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes held in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory.capacity()
    }

    /// The body, and its last `tail` bytes.
    pub(crate) fn finish(self, tail: usize) -> Result<(DraftBody, Vec<u8>)> {
        match self.file {
            None => {
                let start = self.memory.len().saturating_sub(tail);
                let last = self.memory[start..].to_vec();
                Ok((DraftBody::Memory(Bytes::from(self.memory)), last))
            }
            Some((writer, owner)) => {
                let fail = |source| Error::Spool { path: owner.path().to_owned(), source };
                let mut file = writer.into_inner().map_err(|error| fail(error.into_error()))?;
                let last = read_tail(&mut file, tail).map_err(fail)?;
                Ok((DraftBody::File(owner), last))
            }
        }
    }

    fn move_to_file(&mut self) -> io::Result<&mut BufWriter<File>> {
        if self.file.is_none() {
            std::fs::create_dir_all(&self.folder)?;
            let number = NEXT_NAME.fetch_add(1, Ordering::Relaxed);
            let path = self.folder.join(format!("segment-{}-{number}.parquet", std::process::id()));
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
            let mut writer = BufWriter::with_capacity(256 << 10, file);
            writer.write_all(&self.memory)?;
            self.memory = Vec::new();
            self.file = Some((writer, SpoolFile::own(path)));
        }
        Ok(&mut self.file.as_mut().expect("was made above").0)
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.file.is_none() && self.memory.len() + bytes.len() <= MEMORY_LIMIT_BYTES {
            self.memory.extend_from_slice(bytes);
        } else {
            self.move_to_file()?.write_all(bytes)?;
        }
        self.len += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.file {
            Some((writer, _)) => writer.flush(),
            None => Ok(()),
        }
    }
}

fn read_tail(file: &mut File, tail: usize) -> io::Result<Vec<u8>> {
    let size = file.seek(SeekFrom::End(0))?;
    let want = size.min(tail as u64);
    file.seek(SeekFrom::Start(size - want))?;
    let mut last = vec![0; want as usize];
    file.read_exact(&mut last)?;
    Ok(last)
}
