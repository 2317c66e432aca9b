//! One input of a merge: its footer, and its rows as batches of the output's schema.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::file::statistics::Statistics;

use super::MergeInput;
use crate::error::{Error, Result};
use crate::footer::SegmentFooter;
use crate::identities::{IDENTITIES_LIMIT_BYTES, IDENTITIES_PART, ListedIdentity, decode_identities};
use crate::schema::AttributeScope;

/// Text as a dictionary: what repeats is held once a batch.
pub(crate) fn dictionary_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// Texts that hardly repeat; a dictionary would only cost.
const DISTINCT_TEXTS: [&str; 5] = ["body", "exemplars", "a_rest", "trace_state", "status_message"];

/// How a column of the file is held in memory.
pub(crate) fn memory_type(name: &str, file_type: &DataType, is_dictionary: bool) -> DataType {
    match file_type {
        DataType::Utf8 if is_dictionary && !DISTINCT_TEXTS.contains(&name) => dictionary_type(),
        other => other.clone(),
    }
}

/// An opened input.
#[derive(Debug)]
pub(crate) struct OpenInput {
    pub(crate) input: MergeInput,
    pub(crate) footer: SegmentFooter,
    metadata: ArrowReaderMetadata,
}

impl OpenInput {
    pub(crate) fn open(input: MergeInput) -> Result<Self> {
        let file = open_file(&input.file)?;
        let plain = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new().with_skip_arrow_metadata(true))
            .map_err(Error::parquet("read the footer of a merge's input"))?;
        let footer = SegmentFooter::from_metadata(plain.metadata())?;
        if footer.rows != input.meta.rows || footer.signal != input.meta.signal {
            let problem = format!("its footer has {} rows, its catalog row {}", footer.rows, input.meta.rows);
            return Err(Error::Corrupt { subject: input.meta.object_key, problem });
        }
        let fields: Vec<Field> = plain
            .schema()
            .fields()
            .iter()
            .map(|field| {
                let is_dictionary = plain.metadata().row_groups().iter().all(|group| {
                    let chunk = group.columns().iter().find(|chunk| chunk.column_path().string() == *field.name());
                    chunk.is_some_and(|chunk| chunk.dictionary_page_offset().is_some())
                });
                let kind = memory_type(field.name(), field.data_type(), is_dictionary);
                field.as_ref().clone().with_data_type(kind)
            })
            .collect();
        let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields)));
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(plain.metadata()), options)
            .map_err(Error::parquet("read the schema of a merge's input"))?;
        Ok(Self { input, footer, metadata })
    }

    /// The identities that it lists.
    pub(crate) fn identities(&self) -> Result<Vec<ListedIdentity>> {
        let Some(part) = self.footer.sections.iter().find(|part| part.name == IDENTITIES_PART) else {
            return Ok(Vec::new());
        };
        if part.range.len > IDENTITIES_LIMIT_BYTES {
            let problem = format!("its identities take {} bytes", part.range.len);
            return Err(Error::Corrupt { subject: self.input.meta.object_key.clone(), problem });
        }
        let mut bytes = vec![0; part.range.len as usize];
        let mut file = open_file(&self.input.file)?;
        let read = file.seek(SeekFrom::Start(part.range.offset)).and_then(|_| file.read_exact(&mut bytes));
        read.map_err(|source| Error::Spool { path: self.input.file.clone(), source })?;
        decode_identities(&bytes)
    }

    /// The columns as they are read.
    pub(crate) fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    pub(crate) fn row_groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    pub(crate) fn row_group_rows(&self, group: usize) -> usize {
        self.metadata.metadata().row_group(group).num_rows() as usize
    }

    /// Size of all rows before compression.
    pub(crate) fn decoded_bytes(&self) -> u64 {
        self.metadata.metadata().row_groups().iter().map(|group| group.total_byte_size().max(0) as u64).sum()
    }

    /// The first and last time of a row group, where its statistics tell.
    pub(crate) fn row_group_times(&self, group: usize) -> Option<(i64, i64)> {
        let chunk = self.metadata.metadata().row_group(group).columns().first()?;
        match chunk.statistics()? {
            Statistics::Int64(times) if chunk.column_path().string() == "time" => {
                Some((*times.min_opt()?, *times.max_opt()?))
            }
            _ => None,
        }
    }

    /// The rows of some row groups, in their order.
    pub(crate) fn read(&self, groups: Vec<usize>, batch_rows: usize) -> Result<ParquetRecordBatchReader> {
        self.builder()?
            .with_row_groups(groups)
            .with_batch_size(batch_rows)
            .build()
            .map_err(Error::parquet("read a merge's input"))
    }

    /// One row group as one batch.
    pub(crate) fn read_row_group(&self, group: usize) -> Result<RecordBatch> {
        let rows = self.row_group_rows(group);
        let batches = self.read(vec![group], rows.max(1))?.collect::<std::result::Result<Vec<_>, _>>();
        let batches = batches.map_err(Error::arrow("read a row group"))?;
        match <[RecordBatch; 1]>::try_from(batches) {
            Ok([batch]) => Ok(batch),
            Err(batches) => {
                arrow::compute::concat_batches(self.schema(), &batches).map_err(Error::arrow("join a row group"))
            }
        }
    }

    /// One column of all rows.
    pub(crate) fn read_column(&self, name: &str, group: usize) -> Result<RecordBatch> {
        let builder = self.builder()?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), [name]);
        let reader = builder
            .with_projection(mask)
            .with_row_groups(vec![group])
            .with_batch_size(self.row_group_rows(group).max(1))
            .build()
            .map_err(Error::parquet("read a column"))?;
        let schema = reader.schema();
        let batches = reader.collect::<std::result::Result<Vec<_>, _>>().map_err(Error::arrow("read a column"))?;
        arrow::compute::concat_batches(&schema, &batches).map_err(Error::arrow("join a column"))
    }

    fn builder(&self) -> Result<ParquetRecordBatchReaderBuilder<File>> {
        let file = open_file(&self.input.file)?;
        Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone()))
    }
}

/// Whether `name` may be an attribute's column.
pub(crate) fn is_attribute_column(name: &str) -> bool {
    AttributeScope::ALL.into_iter().any(|scope| name.starts_with(scope.prefix()) && name != scope.overflow_column())
}

fn open_file(path: &PathBuf) -> Result<File> {
    File::open(path).map_err(|source| Error::Spool { path: path.clone(), source })
}
