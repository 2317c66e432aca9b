//! The trace ids of a stored segment, from its footer and the bytes of one column.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use bytes::{Buf, Bytes, buf};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};
use tidemill_types::{ByteRange, SegmentMeta};

use super::parse_footer;
use crate::error::{Error, Result};

const COLUMN: &str = "trace_id";
/// Rows decoded at a time.
const BATCH_ROWS: usize = 8192;

/// Where the trace ids of a segment lie, and how to decode them.
#[derive(Debug)]
pub struct TraceColumn {
    object_key: String,
    metadata: ArrowReaderMetadata,
    /// Its place among the leaves of the schema.
    leaf: usize,
}

impl TraceColumn {
    /// From the bytes of a segment's footer, as [`SegmentMeta::footer`] tells where they are.
    ///
    /// # Errors
    /// `Corrupt` when the footer is not the one that the catalog knows, or knows no trace ids.
    pub fn decode(meta: &SegmentMeta, footer: &[u8]) -> Result<Self> {
        let corrupt = |problem: &str| Error::Corrupt { subject: meta.object_key.clone(), problem: problem.to_owned() };
        if blake3::hash(footer).as_bytes() != &meta.footer_hash {
            return Err(corrupt("its footer is not the one that the catalog knows (the hash differs)"));
        }
        let metadata = parse_footer(footer)?;
        let leaves = metadata.file_metadata().schema_descr().columns();
        let leaf = leaves.iter().position(|leaf| leaf.path().parts() == [COLUMN]);
        let leaf = leaf.ok_or_else(|| corrupt("it has no column trace_id"))?;
        let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())
            .map_err(Error::parquet("read the schema of a segment"))?;
        Ok(Self { object_key: meta.object_key.clone(), metadata, leaf })
    }

    /// Where the column lies in the object, for each row group.
    pub fn ranges(&self) -> Vec<ByteRange> {
        let groups = self.metadata.metadata().row_groups().iter();
        groups
            .map(|group| {
                let (offset, len) = group.column(self.leaf).byte_range();
                ByteRange { offset, len }
            })
            .collect()
    }

    /// The trace ids of a row group in the order of its rows, without those that equal the one before. Rows without an id are left out.
    ///
    /// `column` has the bytes of its range, as [`Self::ranges`] tells.
    ///
    /// # Errors
    /// When they are not a column of trace ids with as many rows as the footer says.
    pub fn trace_ids(&self, row_group: usize, column: Bytes) -> Result<Vec<[u8; 16]>> {
        let corrupt = |problem: String| Error::Corrupt { subject: self.object_key.clone(), problem };
        let failed = Error::parquet("read trace ids");
        let group = self.metadata.metadata().row_group(row_group);
        let bytes = ColumnBytes { offset: group.column(self.leaf).byte_range().0, bytes: column };
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, self.metadata.clone());
        let mask = ProjectionMask::leaves(builder.parquet_schema(), [self.leaf]);
        let reader = builder.with_projection(mask).with_row_groups(vec![row_group]).with_batch_size(BATCH_ROWS);
        let mut ids: Vec<[u8; 16]> = Vec::new();
        let mut rows = 0;
        for batch in reader.build().map_err(failed)? {
            let batch = batch.map_err(Error::arrow("read trace ids"))?;
            let column = batch.column(0).as_fixed_size_binary_opt();
            let column = column.ok_or_else(|| corrupt("its trace ids are no fixed-length bytes".to_owned()))?;
            rows += column.len();
            for id in column.iter().flatten() {
                let id = id.try_into().map_err(|_| corrupt(format!("a trace id has {} bytes", id.len())))?;
                if ids.last() != Some(&id) {
                    ids.push(id);
                }
            }
        }
        if i64::try_from(rows) != Ok(group.num_rows()) {
            let problem = format!("row group {row_group} has {rows} trace ids, its footer says {}", group.num_rows());
            return Err(corrupt(problem));
        }
        Ok(ids)
    }
}

/// The part of an object in which one column lies.
struct ColumnBytes {
    /// Where it begins in the object.
    offset: u64,
    bytes: Bytes,
}

impl ColumnBytes {
    fn from(&self, start: u64) -> ParquetResult<Bytes> {
        let outside = || ParquetError::EOF(format!("byte {start} lies outside of the column"));
        let start = start.checked_sub(self.offset).and_then(|start| usize::try_from(start).ok());
        start.filter(|start| *start <= self.bytes.len()).map(|start| self.bytes.slice(start..)).ok_or_else(outside)
    }
}

impl Length for ColumnBytes {
    fn len(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

impl ChunkReader for ColumnBytes {
    type T = buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let rest = self.from(start)?;
        if rest.len() < length {
            return Err(ParquetError::EOF(format!("{length} bytes expected, {} left of the column", rest.len())));
        }
        Ok(rest.slice(..length))
    }
}
