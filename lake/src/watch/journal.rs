//! Which files were offered, remembered over restarts.
//!
//! A text file: a heading, then one line a file: size, modification time, inode and the key as a JSON string. Lines are added
//! after the files' inbox rows are committed. A torn or lost line only means that a file is offered again, which the metastore's
//! ledger of identities answers with "known".

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::scan::Stamp;

const HEADING: &str = "tidemill-watch 1";

/// The journal, open for adding.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: BufWriter<File>,
    stamps: HashMap<String, Stamp>,
}

impl Journal {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let stamps = match File::open(path) {
            Ok(file) => load(file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => HashMap::new(),
            Err(error) => return Err(error),
        };
        // Written anew, so that a torn last line never joins the next one.
        write_all(path, &stamps)?;
        let file = BufWriter::new(OpenOptions::new().append(true).open(path)?);
        Ok(Self { path: path.to_owned(), file, stamps })
    }

    pub(super) fn holds(&self, key: &str, stamp: Stamp) -> bool {
        self.stamps.get(key) == Some(&stamp)
    }

    pub(super) fn add(&mut self, files: &[(String, Stamp)]) -> io::Result<()> {
        for (key, stamp) in files {
            self.stamps.insert(key.clone(), *stamp);
            write_line(&mut self.file, key, *stamp)?;
        }
        self.file.flush()
    }

    /// Forgets files that are gone.
    pub(super) fn retain(&mut self, present: &HashSet<String>) -> io::Result<()> {
        let before = self.stamps.len();
        self.stamps.retain(|key, _| present.contains(key));
        if self.stamps.len() == before {
            return Ok(());
        }
        write_all(&self.path, &self.stamps)?;
        self.file = BufWriter::new(OpenOptions::new().append(true).open(&self.path)?);
        Ok(())
    }
}

fn load(file: File) -> io::Result<HashMap<String, Stamp>> {
    let mut lines = BufReader::new(file).split(b'\n');
    match lines.next().transpose()? {
        Some(heading) if heading == HEADING.as_bytes() => {}
        None => return Ok(HashMap::new()),
        Some(_) => {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the first line is not {HEADING:?}")));
        }
    }
    let mut stamps = HashMap::new();
    for line in lines {
        // A line that is none was torn by a crash.
        if let Some((key, stamp)) = std::str::from_utf8(&line?).ok().and_then(parse_line) {
            stamps.insert(key, stamp);
        }
    }
    Ok(stamps)
}

fn parse_line(line: &str) -> Option<(String, Stamp)> {
    let mut parts = line.splitn(4, ' ');
    let stamp = Stamp {
        size_bytes: parts.next()?.parse().ok()?,
        modified_ns: parts.next()?.parse().ok()?,
        inode: parts.next()?.parse().ok()?,
    };
    Some((serde_json::from_str(parts.next()?).ok()?, stamp))
}

fn write_line(to: &mut impl Write, key: &str, stamp: Stamp) -> io::Result<()> {
    writeln!(to, "{} {} {} {}", stamp.size_bytes, stamp.modified_ns, stamp.inode, serde_json::Value::from(key))
}

fn write_all(path: &Path, stamps: &HashMap<String, Stamp>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = BufWriter::new(File::create(&temporary)?);
    writeln!(file, "{HEADING}")?;
    for (key, stamp) in stamps {
        write_line(&mut file, key, *stamp)?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(size_bytes: u64) -> Stamp {
        Stamp { size_bytes, modified_ns: -5, inode: 7 }
    }

    #[test]
    fn what_was_added_is_known_after_a_restart_and_a_torn_line_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state/journal");
        let mut journal = Journal::open(&path).expect("opened");
        journal.add(&[("a b\n\"".to_owned(), stamp(1)), ("c".to_owned(), stamp(2))]).expect("added");
        drop(journal);
        let mut bytes = std::fs::read(&path).expect("read");
        bytes.extend_from_slice(b"3 0 1 \"torn");
        std::fs::write(&path, bytes).expect("written");
        let mut journal = Journal::open(&path).expect("opened again");
        assert!(journal.holds("a b\n\"", stamp(1)) && journal.holds("c", stamp(2)));
        assert!(!journal.holds("c", stamp(3)) && !journal.holds("torn", stamp(3)));
        journal.add(&[("torn".to_owned(), stamp(3))]).expect("added");
        journal.retain(&HashSet::from(["torn".to_owned()])).expect("shortened");
        drop(journal);
        let journal = Journal::open(&path).expect("opened a third time");
        assert!(journal.holds("torn", stamp(3)) && !journal.holds("c", stamp(2)));
    }

    #[test]
    fn another_file_is_not_taken_for_a_journal() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        std::fs::write(&path, "something else\n").expect("written");
        assert!(Journal::open(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "something else\n");
    }
}
