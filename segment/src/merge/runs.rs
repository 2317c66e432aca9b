//! Sorted runs of rows and their k-way merge.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use super::attributes::MergePlan;
use super::output::gather;
use crate::draft::SpoolFile;
use crate::error::{Error, Result};

/// Rows of a batch of a run, and of each merged batch, at most: two row blocks.
const RUN_BATCH_ROWS: usize = 8192;

/// Long rows make batches shorter: each run holds one or two.
const RUN_BATCH_BYTES: u64 = 4 << 20;

/// Rows of a batch of the runs of a plan: a power of two, so that batches end where row blocks and row groups do.
pub(crate) fn batch_rows(plan: &MergePlan) -> usize {
    1 << plan.rows_in(RUN_BATCH_BYTES, RUN_BATCH_ROWS).max(1).ilog2()
}

static NEXT_NAME: AtomicU64 = AtomicU64::new(0);

/// What points and spans are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SortKey {
    /// Place of the metric's name in the alphabet; for spans 0 without a trace id, else 1.
    pub(crate) name: u32,
    /// Series or trace id.
    pub(crate) id: [u8; 16],
    pub(crate) time: i64,
    pub(crate) arrival: i64,
}

/// Rows in order of their keys.
pub(crate) enum Run {
    Memory(VecDeque<RecordBatch>),
    /// A segment that is sorted already.
    Segment {
        input: usize,
        reader: ParquetRecordBatchReader,
    },
    Spilled {
        reader: Box<StreamReader<BufReader<File>>>,
        _file: SpoolFile,
    },
}

impl Run {
    fn next_batch(&mut self, plan: &MergePlan) -> Result<Option<RecordBatch>> {
        loop {
            let batch = match self {
                Self::Memory(batches) => batches.pop_front(),
                Self::Segment { input, reader } => match reader.next().transpose() {
                    Ok(batch) => batch.map(|batch| plan.convert(*input, &batch)).transpose()?,
                    Err(source) => return Err(Error::Arrow { operation: "read a merge's input", source }),
                },
                Self::Spilled { reader, .. } => {
                    reader.next().transpose().map_err(Error::arrow("read a spilled run"))?
                }
            };
            match batch {
                Some(batch) if batch.num_rows() == 0 => {}
                other => return Ok(other),
            }
        }
    }
}

/// A new file that is deleted with its owner.
pub(crate) fn new_spool_file(folder: &Path, purpose: &str) -> Result<(File, SpoolFile)> {
    let number = NEXT_NAME.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("{purpose}-{}-{number}.arrow", std::process::id()));
    let fail = |source| Error::Spool { path: path.clone(), source };
    std::fs::create_dir_all(folder).map_err(fail)?;
    let file = File::create_new(&path).map_err(fail)?;
    Ok((file, SpoolFile::own(path)))
}

/// Writes a run to a file of the spool folder.
pub(crate) struct RunSpiller {
    writer: StreamWriter<BufWriter<File>>,
    file: SpoolFile,
}

impl RunSpiller {
    pub(crate) fn create(folder: &Path, plan: &MergePlan) -> Result<Self> {
        let (file, owner) = new_spool_file(folder, "run")?;
        let writer = StreamWriter::try_new(BufWriter::with_capacity(256 << 10, file), &plan.schema)
            .map_err(Error::arrow("start a spilled run"))?;
        Ok(Self { writer, file: owner })
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(Error::arrow("spill a run"))
    }

    pub(crate) fn finish(mut self) -> Result<Run> {
        self.writer.finish().map_err(Error::arrow("end a spilled run"))?;
        let writer = self.writer.into_inner().map_err(Error::arrow("end a spilled run"))?;
        drop(writer);
        let path = self.file.path().to_owned();
        let file = File::open(&path).map_err(|source| Error::Spool { path, source })?;
        let reader = StreamReader::try_new(BufReader::with_capacity(256 << 10, file), None)
            .map_err(Error::arrow("open a spilled run"))?;
        Ok(Run::Spilled { reader: Box::new(reader), _file: self.file })
    }
}

/// Sorts the rows of some batches into one run in memory.
pub(crate) fn sort_run(
    plan: &MergePlan,
    batches: &[RecordBatch],
    keys_of: &dyn Fn(&RecordBatch) -> Vec<SortKey>,
) -> Result<Run> {
    let mut order: Vec<(SortKey, u32, u32)> = Vec::new();
    for (number, batch) in batches.iter().enumerate() {
        order.extend(keys_of(batch).into_iter().zip(0..).map(|(key, row)| (key, number as u32, row)));
    }
    order.sort_unstable();
    let places: Vec<(usize, usize)> = order.into_iter().map(|(_, batch, row)| (batch as usize, row as usize)).collect();
    let sorted = places.chunks(batch_rows(plan)).map(|places| gather(batches, places)).collect::<Result<_>>()?;
    Ok(Run::Memory(sorted))
}

struct Cursor {
    run: Run,
    keys: Vec<SortKey>,
    row: usize,
    /// Which of the held batches its rows are in.
    slot: usize,
}

/// Merges runs into batches of [`batch_rows`]; of equal rows those of earlier runs come first.
pub(crate) fn merge_runs(
    plan: &MergePlan,
    runs: Vec<Run>,
    keys_of: &dyn Fn(&RecordBatch) -> Vec<SortKey>,
    emit: &mut dyn FnMut(RecordBatch, &[SortKey]) -> Result<()>,
) -> Result<()> {
    let batch_rows = batch_rows(plan);
    let mut held: Vec<RecordBatch> = Vec::new();
    let mut cursors: Vec<Cursor> = Vec::new();
    let mut heap = BinaryHeap::new();
    for mut run in runs {
        if let Some(batch) = run.next_batch(plan)? {
            let keys = keys_of(&batch);
            heap.push(Reverse((keys[0], cursors.len())));
            cursors.push(Cursor { run, keys, row: 0, slot: held.len() });
            held.push(batch);
        }
    }
    let mut places: Vec<(usize, usize)> = Vec::with_capacity(batch_rows);
    let mut keys: Vec<SortKey> = Vec::with_capacity(batch_rows);
    while let Some(Reverse((_, number))) = heap.pop() {
        let limit = heap.peek().map(|Reverse(next)| *next);
        let cursor = &mut cursors[number];
        loop {
            let key = cursor.keys[cursor.row];
            if limit.is_some_and(|limit| (key, number) > limit) {
                heap.push(Reverse((key, number)));
                break;
            }
            places.push((cursor.slot, cursor.row));
            keys.push(key);
            cursor.row += 1;
            if cursor.row == cursor.keys.len() {
                let Some(batch) = cursor.run.next_batch(plan)? else {
                    cursor.row = usize::MAX;
                    break;
                };
                cursor.keys = keys_of(&batch);
                if cursor.keys[0] < key {
                    let problem = format!("run {number} is not sorted");
                    return Err(Error::Corrupt { subject: "merge".to_owned(), problem });
                }
                cursor.row = 0;
                cursor.slot = held.len();
                held.push(batch);
            }
            if places.len() == batch_rows {
                heap.push(Reverse((cursor.keys[cursor.row], number)));
                break;
            }
        }
        if places.len() == batch_rows {
            emit(gather(&held, &places)?, &keys)?;
            places.clear();
            keys.clear();
            held = release(&mut cursors, &held);
        }
    }
    if !places.is_empty() {
        emit(gather(&held, &places)?, &keys)?;
    }
    Ok(())
}

/// Keeps only the batches that cursors still stand in.
fn release(cursors: &mut [Cursor], held: &[RecordBatch]) -> Vec<RecordBatch> {
    let mut kept = Vec::new();
    for cursor in cursors.iter_mut().filter(|cursor| cursor.row != usize::MAX) {
        kept.push(held[cursor.slot].clone());
        cursor.slot = kept.len() - 1;
    }
    kept
}
