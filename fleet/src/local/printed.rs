//! What containers printed, for a reader that keeps its own place: nothing is skipped while it is slow, and nothing read twice unless it loses its place.
//!
//! A place is a position in a file and the line before it, because a log is turned over and a file's number is given again. What was overwritten before it
//! was read is gone, and the piece says so.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::files::ContainerFolder;
use crate::runtime::ReplicaSpec;

/// A record longer than this is cut.
const MAX_RECORD: usize = 256 * 1024;
/// How often files are opened again that were turned over in between.
const TRIES: usize = 5;

/// A place in what a container printed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Place {
    /// Which run of the container.
    pub run: u32,
    /// The file; 0 before the first one was opened.
    inode: u64,
    offset: u64,
    /// Where the line before it starts, and its time.
    last: Option<(u64, String)>,
}

impl Place {
    /// The start of a run.
    fn of_run(run: u32) -> Self {
        Self { run, ..Self::default() }
    }
}

/// A container whose output can be read.
#[derive(Debug, Clone)]
pub struct PrintedBy {
    /// Its replica.
    pub replica: Arc<ReplicaSpec>,
    /// Its name.
    pub container: String,
    /// Which run is the last one.
    pub last_run: u32,
    /// Whether the last run has ended.
    pub is_over: bool,
    /// Whether the replica was removed and is kept only to be read.
    pub is_removed: bool,
    pub(super) folder: ContainerFolder,
}

/// One record: a line, its parts joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was read, in nanoseconds since 1970.
    pub time_ns: i64,
    /// Whether it went to standard error.
    pub is_stderr: bool,
    /// Its text without the end of line; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// What was read between two places of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What was read.
    pub records: Vec<Record>,
    /// Where to go on.
    pub to: Place,
    /// How many bytes of the log it took.
    pub bytes: usize,
    /// Whether lines before it are gone.
    pub has_gap: bool,
    /// Whether nothing is left to read and nothing will come.
    pub is_done: bool,
}

impl PrintedBy {
    /// The place that was kept; the start of all where none was.
    pub fn kept_place(&self) -> Place {
        std::fs::read(self.folder.path().join("exported.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Keeps a place, and lets go of runs that lie behind it, but for the one before the last.
    ///
    /// # Errors
    /// What the host said.
    pub fn keep_place(&self, place: &Place) -> io::Result<()> {
        let beside = self.folder.path().join(".exported.json.new");
        // Not synced: after a power failure a few lines are read again.
        std::fs::write(&beside, serde_json::to_vec(place)?)?;
        std::fs::rename(&beside, self.folder.path().join("exported.json"))?;
        if let Some(run) = place.run.checked_sub(2) {
            self.folder.forget(run);
        }
        Ok(())
    }

    /// Whether there is something after `place`, by a look at the file alone.
    pub fn has_more(&self, place: &Place) -> bool {
        if place.run < self.last_run {
            return true;
        }
        let found = std::fs::metadata(self.folder.log(place.run));
        found.is_ok_and(|file| file.len() > 0 && (file.ino(), file.len()) != (place.inode, place.offset))
    }

    /// Reads on from `place`: about `most` bytes, all of the run of the place that it returns, or up to `until`.
    ///
    /// # Errors
    /// What the host said.
    pub fn read(&self, place: &Place, most: usize, until: Option<&Place>) -> io::Result<Piece> {
        if let Some(until) = until.filter(|until| until.inode == 0) {
            return Ok(Piece { records: Vec::new(), to: until.clone(), bytes: 0, has_gap: false, is_done: false });
        }
        let mut from = place.clone();
        loop {
            let is_run_over = from.run < self.last_run || self.is_over;
            let mut piece = read_run(&self.folder.log(from.run), &from, Bounds { most, until, is_run_over })?;
            let is_passed = piece.is_done && piece.records.is_empty() && from.run < self.last_run;
            // A run that printed nothing more is passed.
            if !is_passed || until.is_some_and(|until| until.run == from.run) {
                piece.is_done &= from.run >= self.last_run;
                return Ok(piece);
            }
            from = Place::of_run(from.run + 1);
        }
    }
}

struct Bounds<'a> {
    most: usize,
    until: Option<&'a Place>,
    is_run_over: bool,
}

fn read_run(log: &Path, from: &Place, bounds: Bounds<'_>) -> io::Result<Piece> {
    let files = open(log)?;
    let at = files.iter().position(|(inode, file)| *inode == from.inode && is_after(file, from));
    let has_gap = from.inode != 0 && at.is_none() && !files.is_empty();
    let mut reading = Reading::new(from.clone());
    for (index, (inode, file)) in files.iter().enumerate().skip(at.unwrap_or(0)) {
        let offset = if at == Some(index) { from.offset } else { 0 };
        if !reading.file(file, *inode, offset, &bounds)? {
            return Ok(reading.finish(has_gap, false));
        }
    }
    if bounds.is_run_over {
        reading.flush();
    }
    let is_done = bounds.is_run_over && reading.waiting.iter().all(Vec::is_empty);
    Ok(reading.finish(has_gap, is_done))
}

/// The log that was turned over and the current one, as they belong together.
fn open(log: &Path) -> io::Result<Vec<(u64, File)>> {
    let open = |path: &Path| match File::open(path) {
        Ok(file) => Ok(Some((file.metadata()?.ino(), file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let mut files = Vec::new();
    for _ in 0..TRIES {
        let current = open(log)?;
        let before = open(&log.with_extension("log.1"))?;
        let is_turned = matches!((&before, &current), (Some((before, _)), Some((current, _))) if before == current);
        files = before.into_iter().chain(current).collect();
        if !is_turned {
            break;
        }
        files.truncate(1);
    }
    Ok(files)
}

/// Whether the line before `place` stands in this very file.
fn is_after(file: &File, place: &Place) -> bool {
    use std::os::unix::fs::FileExt as _;
    let Some((start, time)) = &place.last else { return place.offset == 0 };
    let mut found = vec![0; time.len()];
    file.read_exact_at(&mut found, *start).is_ok() && found == time.as_bytes()
}

/// What is gathered while files are read.
struct Reading {
    records: Vec<Record>,
    /// How many of them lie before `place`.
    whole: usize,
    place: Place,
    /// The last line that was looked at.
    here: Place,
    /// Parts of lines of standard output and standard error.
    waiting: [Vec<u8>; 2],
    times: [i64; 2],
    bytes: usize,
}

impl Reading {
    fn new(place: Place) -> Self {
        Self {
            records: Vec::new(),
            whole: 0,
            here: place.clone(),
            place,
            waiting: [Vec::new(), Vec::new()],
            times: [0; 2],
            bytes: 0,
        }
    }

    /// Reads a file to its end; false where a bound was met before.
    fn file(&mut self, mut file: &File, inode: u64, offset: u64, bounds: &Bounds<'_>) -> io::Result<bool> {
        file.seek(SeekFrom::Start(offset))?;
        let mut reader = BufReader::with_capacity(64 * 1024, file);
        let mut at = offset;
        let mut line = Vec::new();
        loop {
            if bounds.until.is_some_and(|until| (until.inode, until.offset) == (inode, at)) {
                self.flush();
                return Ok(false);
            }
            line.clear();
            let read = reader.by_ref().take(2 * MAX_RECORD as u64).read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                // Half a line: its shim is writing, or was ended while it did.
                return Ok(true);
            }
            self.line(&line);
            let time: Vec<u8> = line.iter().copied().take_while(|byte| *byte != b' ').take(64).collect();
            let last = Some((at, String::from_utf8_lossy(&time).into_owned()));
            at += read as u64;
            self.bytes += read;
            self.here = Place { run: self.place.run, inode, offset: at, last };
            let is_far = bounds.until.is_none() && self.bytes >= bounds.most;
            if self.waiting.iter().all(Vec::is_empty) {
                self.commit();
                if is_far {
                    return Ok(false);
                }
            } else if is_far && self.bytes >= bounds.most.saturating_mul(2) {
                self.flush();
                return Ok(false);
            }
        }
    }

    /// Takes a line of the format of CRI; what is none is passed.
    fn line(&mut self, line: &[u8]) {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(stream), Some(tag), Some(text)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return;
        };
        let time: Option<jiff::Timestamp> = std::str::from_utf8(time).ok().and_then(|time| time.parse().ok());
        let Some(time_ns) = time.and_then(|time| i64::try_from(time.as_nanosecond()).ok()) else { return };
        let index = usize::from(stream == b"stderr");
        if self.waiting[index].is_empty() {
            self.times[index] = time_ns;
        }
        self.waiting[index].extend_from_slice(text.strip_suffix(b"\n").unwrap_or(text));
        if tag == b"F" || self.waiting[index].len() >= MAX_RECORD {
            self.take(index);
        }
    }

    fn take(&mut self, index: usize) {
        let text = std::mem::take(&mut self.waiting[index]);
        let text = String::from_utf8_lossy(&text).into_owned();
        self.records.push(Record { time_ns: self.times[index], is_stderr: index == 1, text });
    }

    fn commit(&mut self) {
        self.whole = self.records.len();
        self.place = self.here.clone();
    }

    /// Parts become records of their own.
    fn flush(&mut self) {
        for index in 0..self.waiting.len() {
            if !self.waiting[index].is_empty() {
                self.take(index);
            }
        }
        self.commit();
    }

    fn finish(mut self, has_gap: bool, is_done: bool) -> Piece {
        self.records.truncate(self.whole);
        Piece { records: self.records, to: self.place, bytes: self.bytes, has_gap, is_done }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn lines(numbers: std::ops::Range<u32>) -> String {
        numbers.fold(String::new(), |mut text, number| {
            let _ = writeln!(text, "2026-01-01T00:00:{:02}.{number:09}Z stdout F line {number}", number % 60);
            text
        })
    }

    fn texts(piece: &Piece) -> Vec<&str> {
        piece.records.iter().map(|record| record.text.as_str()).collect()
    }

    fn bounds(most: usize) -> Bounds<'static> {
        Bounds { most, until: None, is_run_over: false }
    }

    #[test]
    fn every_line_is_read_once_through_a_turn() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("0.log");
        assert_eq!(read_run(&log, &Place::default(), bounds(1000)).expect("nothing").records, []);
        std::fs::write(&log, lines(0..3) + "2026-01-01T00:00:00Z stdout F half").expect("written");
        let first = read_run(&log, &Place::default(), bounds(1000)).expect("a piece");
        assert_eq!(texts(&first), ["line 0", "line 1", "line 2"]);
        assert_eq!(read_run(&log, &first.to, bounds(1000)).expect("nothing").records, []);
        std::fs::write(&log, lines(0..5)).expect("written");
        std::fs::rename(&log, log.with_extension("log.1")).expect("turned over");
        std::fs::write(&log, lines(5..7)).expect("written");
        let second = read_run(&log, &first.to, bounds(1000)).expect("a piece");
        assert_eq!((texts(&second), second.has_gap), (vec!["line 3", "line 4", "line 5", "line 6"], false));
        // The same range again is the same, whatever came after it.
        std::fs::write(&log, lines(5..9)).expect("written");
        let again = Bounds { most: 1, until: Some(&second.to), is_run_over: false };
        assert_eq!(read_run(&log, &first.to, again).expect("a piece").records, second.records);
        // A bound in bytes cuts between records.
        let one = read_run(&log, &second.to, bounds(1)).expect("a piece");
        assert_eq!(texts(&one), ["line 7"]);
    }

    #[test]
    fn what_was_overwritten_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("0.log");
        std::fs::write(&log, lines(0..3)).expect("written");
        let first = read_run(&log, &Place::default(), bounds(1000)).expect("a piece");
        // Another file, perhaps of the same number, whose line there is another one.
        std::fs::remove_file(&log).expect("removed");
        std::fs::write(&log, lines(10..14)).expect("written");
        let second = read_run(&log, &first.to, bounds(1000)).expect("a piece");
        assert!(second.has_gap);
        assert_eq!(texts(&second), ["line 10", "line 11", "line 12", "line 13"]);
    }

    #[test]
    fn parts_are_joined_by_stream_and_no_record_is_told_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("0.log");
        let time = "2026-01-01T00:00:00.000000001Z";
        let text = format!("{time} stdout P a\n{time} stderr F err\n{time} stdout P b\n");
        std::fs::write(&log, &text).expect("written");
        let none = read_run(&log, &Place::default(), bounds(1000)).expect("a piece");
        assert_eq!((none.records.len(), &none.to), (0, &Place::default()));
        std::fs::write(&log, format!("{text}{time} stdout F c\nno line\n")).expect("written");
        let piece = read_run(&log, &none.to, bounds(1000)).expect("a piece");
        assert_eq!(texts(&piece), ["err", "abc"]);
        assert!(piece.records[0].is_stderr && !piece.records[1].is_stderr);
        // A run that ended in the middle of a line has told what it had.
        std::fs::write(&log, &text).expect("written");
        let over = Bounds { most: 1000, until: None, is_run_over: true };
        let piece = read_run(&log, &Place::default(), over).expect("a piece");
        assert_eq!(texts(&piece), ["err", "ab"]);
        assert!(piece.is_done);
    }
}
