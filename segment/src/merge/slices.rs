//! Slices of time, and the rows that wait for theirs: in memory while they are few, else in a file of the spool folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Int32Type, TimestampNanosecondType};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use tidemill_types::ByteRange;

use super::runs::new_spool_file;
use crate::draft::SpoolFile;
use crate::error::{Error, Result};

/// Where slices end: slice `i` has the times before `cuts[i]` that no slice before it has; the last has the rest.
#[derive(Debug)]
pub(crate) struct Slices {
    cuts: Vec<i64>,
}

impl Slices {
    /// Equal shares of about `slice_rows`; rows of one time stay together.
    pub(crate) fn of_times(mut times: Vec<i64>, slice_rows: usize) -> Self {
        times.sort_unstable();
        let slices = times.len().div_ceil(slice_rows).max(1);
        let mut cuts: Vec<i64> = (1..slices).map(|slice| times[slice * times.len() / slices]).collect();
        cuts.dedup();
        // Nothing lies before the first time, and an output without rows would be missing among its siblings.
        cuts.retain(|cut| Some(cut) > times.first());
        Self { cuts }
    }

    pub(crate) fn count(&self) -> usize {
        self.cuts.len() + 1
    }

    pub(crate) fn slice_of(&self, time: i64) -> usize {
        self.cuts.partition_point(|cut| *cut <= time)
    }
}

/// Rows that were read before their slice is written.
#[derive(Debug)]
pub(crate) struct WaitingRows<'a> {
    slices: &'a Slices,
    folder: &'a Path,
    memory_bytes: usize,
    held: BTreeMap<usize, Vec<RecordBatch>>,
    held_bytes: usize,
    spilled: BTreeMap<usize, Vec<ByteRange>>,
    file: Option<(File, SpoolFile)>,
    file_bytes: u64,
}

impl<'a> WaitingRows<'a> {
    /// Holds about `memory_bytes`, and the rest in a file in `folder`.
    pub(crate) fn new(slices: &'a Slices, folder: &'a Path, memory_bytes: usize) -> Self {
        Self {
            slices,
            folder,
            memory_bytes,
            held: BTreeMap::new(),
            held_bytes: 0,
            spilled: BTreeMap::new(),
            file: None,
            file_bytes: 0,
        }
    }

    /// Hands each row to its slice; the rows of slices after `current` may move to the file.
    pub(crate) fn add(&mut self, batch: &RecordBatch, current: usize) -> Result<()> {
        let times = batch.column(0).as_primitive::<TimestampNanosecondType>();
        let mut rows: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for (row, time) in times.values().iter().enumerate() {
            rows.entry(self.slices.slice_of(*time)).or_default().push(row as u32);
        }
        for (slice, rows) in rows {
            let piece = if rows.len() == batch.num_rows() {
                batch.clone()
            } else {
                arrow::compute::take_record_batch(batch, &UInt32Array::from(rows))
                    .map_err(Error::arrow("cut a row group"))?
            };
            self.held_bytes += memory_of(&piece);
            self.held.entry(slice).or_default().push(piece);
        }
        if self.held_bytes > self.memory_bytes {
            self.spill_after(current)?;
        }
        Ok(())
    }

    /// All rows of a slice, in the order in which they came.
    pub(crate) fn take(&mut self, slice: usize) -> Result<Vec<RecordBatch>> {
        let mut pieces = Vec::new();
        for range in self.spilled.remove(&slice).unwrap_or_default() {
            self.read_back(range, &mut pieces)?;
        }
        let held = self.held.remove(&slice).unwrap_or_default();
        self.held_bytes -= held.iter().map(memory_of).sum::<usize>();
        pieces.extend(held);
        Ok(pieces)
    }

    fn spill_after(&mut self, current: usize) -> Result<()> {
        for (slice, pieces) in self.held.split_off(&(current + 1)) {
            self.held_bytes -= pieces.iter().map(memory_of).sum::<usize>();
            let range = self.append(&pieces)?;
            self.spilled.entry(slice).or_default().push(range);
        }
        Ok(())
    }

    /// Writes batches as an Arrow IPC stream of their own.
    fn append(&mut self, pieces: &[RecordBatch]) -> Result<ByteRange> {
        let Some(first) = pieces.first() else { return Ok(ByteRange { offset: self.file_bytes, len: 0 }) };
        let mut writer = StreamWriter::try_new(Vec::new(), &first.schema()).map_err(Error::arrow("spill rows"))?;
        for piece in pieces {
            writer.write(piece).map_err(Error::arrow("spill rows"))?;
        }
        let bytes = writer.into_inner().map_err(Error::arrow("spill rows"))?;
        let (file, owner) = match &mut self.file {
            Some(open) => open,
            none => none.insert(new_spool_file(self.folder, "slices")?),
        };
        file.write_all(&bytes).map_err(|source| Error::Spool { path: owner.path().to_owned(), source })?;
        let range = ByteRange { offset: self.file_bytes, len: bytes.len() as u64 };
        self.file_bytes += range.len;
        Ok(range)
    }

    fn read_back(&self, range: ByteRange, pieces: &mut Vec<RecordBatch>) -> Result<()> {
        let Some((_, owner)) = self.file.as_ref().filter(|_| range.len > 0) else { return Ok(()) };
        let fail = |source| Error::Spool { path: PathBuf::from(owner.path()), source };
        let mut file = File::open(owner.path()).map_err(fail)?;
        file.seek(SeekFrom::Start(range.offset)).map_err(fail)?;
        let stream = StreamReader::try_new(BufReader::with_capacity(256 << 10, file.take(range.len)), None);
        for piece in stream.map_err(Error::arrow("read spilled rows"))? {
            pieces.push(piece.map_err(Error::arrow("read spilled rows"))?);
        }
        Ok(())
    }
}

/// What a piece holds for itself: the values of dictionaries are shared with others.
fn memory_of(piece: &RecordBatch) -> usize {
    let of_column = |column: &dyn Array| match column.data_type() {
        DataType::Dictionary(..) => column.as_dictionary::<Int32Type>().keys().get_array_memory_size(),
        _ => column.get_array_memory_size(),
    };
    piece.columns().iter().map(|column| of_column(column.as_ref())).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, DictionaryArray, StringArray, TimestampNanosecondArray};

    use super::*;

    #[test]
    fn every_slice_has_rows_and_rows_of_one_time_stay_together() {
        for times in [vec![], vec![5; 10], vec![1, 1, 1, 1, 1, 2, 3], (0..100).collect(), vec![1, 9, 9, 9, 9, 9, 9]] {
            let slices = Slices::of_times(times.clone(), 3);
            let mut rows = vec![0; slices.count()];
            times.iter().for_each(|time| rows[slices.slice_of(*time)] += 1);
            assert!(times.is_empty() || rows.iter().all(|rows| *rows > 0), "{times:?}: {rows:?}");
            assert!(slices.cuts.is_sorted_by(|left, right| left < right));
        }
        assert_eq!(Slices::of_times((0..100).collect(), 10).count(), 10);
    }

    fn batch(times: impl Iterator<Item = i64>) -> RecordBatch {
        let times: Vec<i64> = times.collect();
        let bodies: StringArray = times.iter().map(|time| Some(format!("body {time}"))).collect();
        let services: DictionaryArray<Int32Type> =
            times.iter().map(|time| ["a", "b", "c"][*time as usize % 3]).collect();
        let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(times));
        RecordBatch::try_from_iter([
            ("time", times),
            ("body", Arc::new(bodies) as ArrayRef),
            ("service", Arc::new(services) as ArrayRef),
        ])
        .expect("columns of one length")
    }

    #[test]
    fn rows_beyond_the_budget_come_back_from_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let slices = Slices::of_times((0..1000).collect(), 100);
        for memory_bytes in [1 << 30, 20_000, 0] {
            let mut waiting = WaitingRows::new(&slices, folder.path(), memory_bytes);
            // Every batch reaches into every slice.
            for first in 0..10 {
                waiting.add(&batch((first..1000).step_by(10)), 0).expect("takes rows");
                assert!(waiting.held_bytes <= memory_bytes.max(10_000), "{} of {memory_bytes}", waiting.held_bytes);
            }
            assert_eq!(waiting.file.is_some(), memory_bytes < 1 << 30);
            for slice in 0..slices.count() {
                let pieces = waiting.take(slice).expect("comes back");
                let mut rows: Vec<(i64, String, String)> = Vec::new();
                for piece in &pieces {
                    let times = piece.column(0).as_primitive::<TimestampNanosecondType>();
                    let services = arrow::compute::cast(piece.column(2), &DataType::Utf8).expect("is text");
                    rows.extend((0..piece.num_rows()).map(|row| {
                        let text = |column: &ArrayRef| column.as_string::<i32>().value(row).to_owned();
                        (times.value(row), text(piece.column(1)), text(&services))
                    }));
                }
                rows.sort();
                let first = slice as i64 * 100;
                let expected = (first..first + 100)
                    .map(|time| (time, format!("body {time}"), ["a", "b", "c"][time as usize % 3].to_owned()));
                assert_eq!(rows, expected.collect::<Vec<_>>());
            }
            assert_eq!(waiting.held_bytes, 0);
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("is there").count(), 0, "the files are gone");
    }
}
