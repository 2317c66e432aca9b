//! Writing one segment file: row groups, index bytes that other readers skip, and the footer.

use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::file::properties::WriterProperties;
use tidemill_types::ByteRange;

use crate::draft::DraftSegment;
use crate::error::{Error, Result};
use crate::footer::SegmentFooter;
use crate::spool::Spool;

/// The most rows of a row group, at every level.
pub const ROW_GROUP_ROWS: usize = 64 << 10;
/// A Parquet file ends with the footer's length (4 bytes) and `PAR1`.
const TRAILER_BYTES: u64 = 8;

/// A segment file under construction.
pub struct SegmentWriter {
    arrow: ArrowWriter<Spool>,
}

impl SegmentWriter {
    /// Starts a file whose rows have `schema`; it stays in memory while small and moves to a file of `spool`.
    ///
    /// # Errors
    /// When Parquet cannot express the schema.
    pub fn create(spool: &Path, schema: SchemaRef, properties: WriterProperties) -> Result<Self> {
        // The Arrow schema is left out of the footer: Parquet's own types say all that readers need, and reading strings as
        // dictionary, plain or view is the reader's choice.
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let arrow = ArrowWriter::try_new_with_options(Spool::new(spool), schema, options)
            .map_err(Error::parquet("start a segment"))?;
        Ok(Self { arrow })
    }

    /// Adds rows to the current row group.
    ///
    /// # Errors
    /// When the batch does not fit the schema or the spool refuses it.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.arrow.write(batch).map_err(Error::parquet("write rows"))
    }

    /// Ends the current row group.
    ///
    /// # Errors
    /// When the spool refuses it.
    pub fn end_row_group(&mut self) -> Result<()> {
        self.arrow.flush().map_err(Error::parquet("write a row group"))
    }

    /// Appends bytes that Parquet readers skip, after all rows so far; answers where they lie.
    ///
    /// # Errors
    /// When the spool refuses it.
    pub fn append(&mut self, bytes: &[u8]) -> Result<ByteRange> {
        self.end_row_group()?;
        let offset = self.arrow.bytes_written() as u64;
        self.arrow
            .write_all(bytes)
            .map_err(|error| Error::Parquet { operation: "write an index", source: error.into() })?;
        Ok(ByteRange { offset, len: bytes.len() as u64 })
    }

    /// Bytes held in memory: encoded pages of the current row group and the body while it has no file.
    pub fn memory_bytes(&self) -> usize {
        self.arrow.memory_size() + self.arrow.inner().memory_bytes()
    }

    /// Writes the footer and ends the file.
    ///
    /// # Errors
    /// When the spool refuses it.
    pub fn finish(mut self, footer: &SegmentFooter) -> Result<DraftSegment> {
        self.end_row_group()?;
        for entry in footer.encode() {
            self.arrow.append_key_value_metadata(entry);
        }
        let spool = self.arrow.into_inner().map_err(Error::parquet("finish a segment"))?;
        seal(spool, footer)
    }
}

/// Finds and hashes the footer of the finished file.
fn seal(spool: Spool, footer: &SegmentFooter) -> Result<DraftSegment> {
    let bytes = spool.len();
    let corrupt = |problem: &str| Error::Corrupt { subject: "draft".to_owned(), problem: problem.to_owned() };
    // Footers are a few kilobytes to a few hundred; the tail read covers any that the limits on columns and row groups allow.
    let (body, tail) = spool.finish(16 << 20)?;
    let trailer = tail.len().checked_sub(TRAILER_BYTES as usize).ok_or_else(|| corrupt("shorter than a trailer"))?;
    let length =
        tail[trailer..trailer + 4].try_into().map(u32::from_le_bytes).expect("the slice has four bytes") as usize;
    let start = trailer.checked_sub(length).ok_or_else(|| corrupt("the footer is longer than 16 MiB"))?;
    let footer_hash = *blake3::hash(&tail[start..trailer]).as_bytes();
    Ok(DraftSegment {
        signal: footer.signal,
        tier: footer.tier,
        level: footer.level,
        day: footer.day,
        time: footer.time,
        ingest_day: footer.ingest_day,
        rows: footer.rows,
        bytes,
        footer: ByteRange { offset: bytes - TRAILER_BYTES - length as u64, len: length as u64 },
        footer_hash,
        index: footer.index,
        services: footer.services.clone(),
        covers_ingest_seq: footer.covers_ingest_seq,
        hours: footer.hours.clone(),
        body,
    })
}
