//! The streams of a segment of compacted logs: what each says of itself, and how many rows of each stream and severity a row group has.
//!
//! Whoever counts lines by what streams say, or lists streams, reads this table and no rows. Layout: `TMST`, version (1 byte), size of the body,
//! the body compressed by zstd, and the check of all before (8 bytes). The body: number of heads, one for each stream and severity; number of
//! columns ([`is_stream_column`]), of each its name, its type (byte; see [`KINDS`]), the number of its values, the values (texts with their
//! lengths, others little-endian), and for each head 0 for null or the value's place and one; then the number of row groups, of each the number of its entries, of
//! each entry the gap from the head of the one before, how many rows, and the bytes of their bodies.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::AHashMap;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int32DictionaryArray, Int64Array, RecordBatch,
    StringArray, UInt32Array,
};
use arrow::compute::{cast, concat_batches, partition, take};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

use super::wire::{Reader, corrupt, put_bytes, put_varint};
use super::zipped::{unzipped, zipped};
use crate::error::{Error, Result};
use crate::schema::{AttributeScope, SERVICE_NAME_COLUMN};

const MAGIC: &[u8; 4] = b"TMST";
/// The version that this code writes, and the only one it reads.
pub const STREAM_TABLE_VERSION: u8 = 1;
const SUBJECT: &str = "stream table";
/// A segment that has more streams and severities gets no table.
const MOST_HEADS: usize = 16 << 10;
/// As does one of which they say more than so many bytes: they are held while rows are written, and by who reads the table.
const MOST_HEAD_BYTES: usize = 16 << 20;
/// As does one whose row groups have together more than one in so many rows.
const ROWS_OF_ONE: u64 = 16;
/// As does one that has more severity numbers in a run of rows of one stream.
const MOST_SEVERITIES: usize = 64;
const SEVERITY_NUMBER: &str = "severity_number";
const BODY: &str = "body";

/// Whether a column of logs tells streams and severities: the service, the scope's name, both of the severity, and all of the resource.
pub fn is_stream_column(name: &str) -> bool {
    matches!(name, SERVICE_NAME_COLUMN | "scope_name" | SEVERITY_NUMBER | "severity_text")
        || name.starts_with(AttributeScope::Resource.prefix())
}

/// The rows of one stream and severity in a row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamRows {
    /// Place of the stream and severity in [`StreamTable::heads`].
    pub head: u32,
    /// How many rows.
    pub rows: u64,
    /// The bytes of their bodies.
    pub body_bytes: u64,
}

/// All streams of a segment.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamTable {
    heads: RecordBatch,
    groups: Vec<Vec<StreamRows>>,
}

impl StreamTable {
    /// A row of each stream and severity, each once, in the order in which they first occur; texts in dictionaries.
    pub fn heads(&self) -> &RecordBatch {
        &self.heads
    }

    /// What each row group has, by ascending place.
    pub fn groups(&self) -> &[Vec<StreamRows>] {
        &self.groups
    }

    /// Reads a table: exactly the bytes of the footer's index part `streams`.
    ///
    /// # Errors
    /// When they are not a table of version [`STREAM_TABLE_VERSION`], or not what was written.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        decode_body(&unzipped(SUBJECT, (MAGIC, STREAM_TABLE_VERSION), bytes)?)
    }

    fn encode(&self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        put_varint(&mut body, self.heads.num_rows() as u64);
        put_varint(&mut body, self.heads.num_columns() as u64);
        for (field, column) in self.heads.schema_ref().fields().iter().zip(self.heads.columns()) {
            put_bytes(&mut body, field.name().as_bytes());
            put_column(&mut body, column)?;
        }
        put_varint(&mut body, self.groups.len() as u64);
        for group in &self.groups {
            put_varint(&mut body, group.len() as u64);
            let mut next = 0;
            for entry in group {
                put_varint(&mut body, u64::from(entry.head - next));
                put_varint(&mut body, entry.rows);
                put_varint(&mut body, entry.body_bytes);
                next = entry.head + 1;
            }
        }
        zipped(SUBJECT, (MAGIC, STREAM_TABLE_VERSION), &body)
    }
}

/// The types of columns, each at the place that stands for it.
const KINDS: [DataType; 5] = [DataType::Utf8, DataType::Int32, DataType::Int64, DataType::Float64, DataType::Boolean];

fn put_column(out: &mut Vec<u8>, column: &ArrayRef) -> Result<()> {
    let kind = KINDS.iter().position(|kind| kind == column.data_type());
    let kind = kind.ok_or_else(|| corrupt(SUBJECT, format!("a column of {}", column.data_type())))?;
    out.push(kind as u8);
    let bytes_of = |row: usize| match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).as_bytes().to_vec(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_le_bytes().to_vec(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_le_bytes().to_vec(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_le_bytes().to_vec(),
        _ => vec![u8::from(column.as_boolean().value(row))],
    };
    let mut places: AHashMap<Vec<u8>, u64> = AHashMap::new();
    let (mut values, mut rows) = (Vec::new(), Vec::new());
    for row in 0..column.len() {
        if column.is_null(row) {
            put_varint(&mut rows, 0);
            continue;
        }
        let bytes = bytes_of(row);
        let next = places.len() as u64 + 1;
        let place = *places.entry(bytes.clone()).or_insert_with(|| {
            match column.data_type() {
                DataType::Utf8 => put_bytes(&mut values, &bytes),
                _ => values.extend_from_slice(&bytes),
            }
            next
        });
        put_varint(&mut rows, place);
    }
    put_varint(out, places.len() as u64);
    out.extend_from_slice(&values);
    out.extend_from_slice(&rows);
    Ok(())
}

/// The values of a column, in a dictionary where they are texts: however many heads have one, it is there once.
fn read_column(reader: &mut Reader<'_>, heads: usize) -> Result<ArrayRef> {
    let kind = reader.byte()?;
    let count = reader.count()?;
    let values: ArrayRef = match KINDS.get(usize::from(kind)) {
        Some(DataType::Utf8) => {
            let texts: Result<Vec<&str>> = (0..count).map(|_| reader.text()).collect();
            Arc::new(StringArray::from(texts?))
        }
        Some(DataType::Int32) => {
            let numbers = (0..count).map(|_| Ok(i32::from_le_bytes(reader.array()?)));
            Arc::new(Int32Array::from(numbers.collect::<Result<Vec<_>>>()?))
        }
        Some(DataType::Int64) => {
            let numbers = (0..count).map(|_| Ok(i64::from_le_bytes(reader.array()?)));
            Arc::new(Int64Array::from(numbers.collect::<Result<Vec<_>>>()?))
        }
        Some(DataType::Float64) => {
            let numbers = (0..count).map(|_| Ok(f64::from_le_bytes(reader.array()?)));
            Arc::new(Float64Array::from(numbers.collect::<Result<Vec<_>>>()?))
        }
        Some(DataType::Boolean) => {
            let flags = (0..count).map(|_| Ok(reader.byte()? != 0));
            Arc::new(BooleanArray::from(flags.collect::<Result<Vec<_>>>()?))
        }
        _ => return Err(corrupt(SUBJECT, format!("a column of type {kind}"))),
    };
    let keys = (0..heads).map(|_| Ok(reader.bounded("value", count as u64)?.checked_sub(1).map(|place| place as i32)));
    let keys = Int32Array::from(keys.collect::<Result<Vec<_>>>()?);
    let failed = |error: ArrowError| corrupt(SUBJECT, error.to_string());
    match values.data_type() {
        DataType::Utf8 => Ok(Arc::new(Int32DictionaryArray::try_new(keys, values).map_err(failed)?)),
        _ => take(&values, &keys, None).map_err(failed),
    }
}

fn decode_body(body: &[u8]) -> Result<StreamTable> {
    let mut reader = Reader::new(SUBJECT, body);
    let count = reader.count()?;
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for _ in 0..reader.count()? {
        let name = reader.text()?.to_owned();
        let column = read_column(&mut reader, count)?;
        fields.push(Field::new(name, column.data_type().clone(), true));
        columns.push(column);
    }
    let heads = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|error| corrupt(SUBJECT, error.to_string()))?;
    let mut groups = Vec::new();
    for _ in 0..reader.count()? {
        let mut group = Vec::new();
        let mut next = 0_u64;
        for _ in 0..reader.count()? {
            let head = next.saturating_add(reader.varint()?);
            if head >= heads.num_rows() as u64 {
                return Err(corrupt(SUBJECT, format!("stream {head} of {}", heads.num_rows())));
            }
            group.push(StreamRows { head: head as u32, rows: reader.varint()?, body_bytes: reader.varint()? });
            next = head + 1;
        }
        groups.push(group);
    }
    Ok(StreamTable { heads, groups })
}

/// Gathers the streams of a segment's row groups.
#[derive(Debug)]
pub struct StreamTableBuilder {
    /// Columns of the segment, and how they are kept.
    columns: Vec<usize>,
    schema: SchemaRef,
    converter: RowConverter,
    by_key: AHashMap<Box<[u8]>, u32>,
    /// Bytes of the keys.
    key_bytes: usize,
    heads: Vec<RecordBatch>,
    groups: Vec<Vec<StreamRows>>,
    /// Rows and bytes by head, of the row group that is being written.
    current: BTreeMap<u32, (u64, u64)>,
    rows: u64,
    are_too_many: bool,
}

impl StreamTableBuilder {
    /// A builder for rows with the columns of `schema`.
    ///
    /// # Errors
    /// When a column of a stream has a type that segments do not have.
    pub fn new(schema: &Schema) -> Result<Self> {
        let (columns, fields): (Vec<usize>, Vec<Field>) = schema
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| is_stream_column(field.name()))
            .map(|(place, field)| (place, Field::new(field.name(), plain(field.data_type()), true)))
            .unzip();
        let sorted = fields.iter().map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Self {
            columns,
            schema: Arc::new(Schema::new(fields)),
            converter: RowConverter::new(sorted).map_err(Error::arrow("gather streams"))?,
            by_key: AHashMap::new(),
            key_bytes: 0,
            heads: Vec::new(),
            groups: Vec::new(),
            current: BTreeMap::new(),
            rows: 0,
            are_too_many: false,
        })
    }

    /// Counts rows of the current row group; rows of a stream should stand together.
    ///
    /// # Errors
    /// When the rows do not have the columns of the schema.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        if self.are_too_many || batch.num_rows() == 0 {
            return Ok(());
        }
        match self.alike_rows(batch).map_err(Error::arrow("gather streams"))? {
            Some(found) => self.count(batch, &found).map_err(Error::arrow("gather streams")),
            None => {
                self.give_up();
                Ok(())
            }
        }
    }

    /// Ends the current row group.
    pub fn end_group(&mut self) {
        let entries = std::mem::take(&mut self.current).into_iter();
        self.groups.push(entries.map(|(head, (rows, body_bytes))| StreamRows { head, rows, body_bytes }).collect());
    }

    /// The table's bytes; `None` where there are too many streams for a table to be worth its room.
    ///
    /// # Errors
    /// When compression fails.
    pub fn encode(self) -> Result<Option<Vec<u8>>> {
        let entries: usize = self.groups.iter().map(Vec::len).sum();
        if self.are_too_many || self.heads.is_empty() || entries as u64 > (self.rows / ROWS_OF_ONE).max(1) {
            return Ok(None);
        }
        let heads = concat_batches(&self.schema, &self.heads).map_err(Error::arrow("gather streams"))?;
        StreamTable { heads, groups: self.groups }.encode().map(Some)
    }

    fn give_up(&mut self) {
        self.are_too_many = true;
        self.by_key.clear();
        self.heads.clear();
        self.groups.clear();
        self.current.clear();
    }

    /// Rows that are equal in all that makes streams and severities; `None` where there are too many severities.
    fn alike_rows(&self, batch: &RecordBatch) -> std::result::Result<Option<Vec<Alike>>, ArrowError> {
        // Numbers may alternate where texts do not.
        let is_number = |place: &&usize| batch.schema_ref().field(**place).name() == SEVERITY_NUMBER;
        let streams: Vec<ArrayRef> = self
            .columns
            .iter()
            .filter(|place| !is_number(place))
            .map(|place| Arc::clone(batch.column(*place)))
            .collect();
        let number = self.columns.iter().find(is_number);
        let number = number.and_then(|place| batch.column(*place).as_primitive_opt::<Int32Type>());
        let body = batch.column_by_name(BODY).and_then(|body| body.as_string_opt::<i32>());
        let runs = match streams.is_empty() {
            true => std::iter::once(0..batch.num_rows()).collect(),
            false => partition(&streams)?.ranges(),
        };
        let mut all = Vec::new();
        let mut own: Vec<Alike> = Vec::new();
        for run in runs {
            for row in run {
                let number = number.filter(|own| own.is_valid(row)).map(|own| own.value(row));
                let bytes = body.filter(|own| own.is_valid(row)).map_or(0, |own| own.value_length(row) as u64);
                match own.iter_mut().find(|alike| alike.number == number) {
                    Some(alike) => {
                        alike.rows += 1;
                        alike.body_bytes += bytes;
                    }
                    None => own.push(Alike { number, first: row as u32, rows: 1, body_bytes: bytes }),
                }
                if own.len() > MOST_SEVERITIES {
                    return Ok(None);
                }
            }
            all.append(&mut own);
        }
        Ok(Some(all))
    }

    fn count(&mut self, batch: &RecordBatch, found: &[Alike]) -> std::result::Result<(), ArrowError> {
        let firsts: UInt32Array = found.iter().map(|alike| alike.first).collect();
        let columns = self.columns.iter().zip(self.schema.fields()).map(|(place, field)| {
            let taken = take(batch.column(*place), &firsts, None)?;
            if taken.data_type() == field.data_type() { Ok(taken) } else { cast(&taken, field.data_type()) }
        });
        let columns: Vec<ArrayRef> = columns.collect::<std::result::Result<_, _>>()?;
        let keys = self.converter.convert_columns(&columns)?;
        let mut unknown = Vec::new();
        for (place, (key, alike)) in keys.iter().zip(found).enumerate() {
            let head = match self.by_key.get(key.as_ref()) {
                Some(head) => *head,
                None => {
                    let head = self.by_key.len() as u32;
                    self.key_bytes += key.as_ref().len();
                    self.by_key.insert(key.as_ref().into(), head);
                    unknown.push(place as u32);
                    head
                }
            };
            let (rows, bytes) = self.current.entry(head).or_default();
            *rows += alike.rows;
            *bytes += alike.body_bytes;
        }
        if self.by_key.len() > MOST_HEADS || self.key_bytes > MOST_HEAD_BYTES {
            self.give_up();
            return Ok(());
        }
        if !unknown.is_empty() {
            let rows = UInt32Array::from(unknown);
            let columns = columns.iter().map(|column| take(column, &rows, None));
            let columns = columns.collect::<std::result::Result<_, _>>()?;
            self.heads.push(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        }
        Ok(())
    }
}

/// Rows that are equal in what makes streams and severities.
struct Alike {
    number: Option<i32>,
    /// The first of them.
    first: u32,
    rows: u64,
    body_bytes: u64,
}

/// The type of the values of a dictionary, and any other type itself.
fn plain(kind: &DataType) -> DataType {
    match kind {
        DataType::Dictionary(_, values) => (**values).clone(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(rows: &[(Option<&str>, Option<i32>, &str, &str)]) -> RecordBatch {
        let services: StringArray = rows.iter().map(|row| row.0).collect();
        let services = cast(&services, &DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)));
        let columns: [(&str, ArrayRef); 4] = [
            (SERVICE_NAME_COLUMN, services.expect("a dictionary")),
            (SEVERITY_NUMBER, Arc::new(rows.iter().map(|row| row.1).collect::<Int32Array>())),
            (BODY, Arc::new(rows.iter().map(|row| Some(row.2)).collect::<StringArray>())),
            ("r_pod", Arc::new(rows.iter().map(|row| Some(row.3)).collect::<StringArray>())),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).expect("rows")
    }

    /// Two row groups, the first in two batches; most streams in both.
    fn sample() -> Vec<u8> {
        let many = |service, number, pod| vec![(Some(service), Some(number), "12345", pod); 40];
        let first = [many("api", 9, "a"), many("api", 9, "b"), vec![(None, None, "1", "a"); 9]].concat();
        let second = [many("api", 9, "b"), many("api", 17, "b")].concat();
        let third = [many("web", 9, "a"), many("api", 9, "b"), many("api", 9, "a")].concat();
        let mut builder = StreamTableBuilder::new(&rows(&first).schema()).expect("a builder");
        builder.add(&rows(&first)).expect("rows");
        builder.add(&rows(&second)).expect("rows");
        builder.end_group();
        builder.add(&rows(&third)).expect("rows");
        builder.end_group();
        builder.encode().expect("encodes").expect("few streams")
    }

    #[test]
    fn rows_are_counted_by_stream_and_severity() {
        let table = StreamTable::decode(&sample()).expect("reads");
        let heads = table.heads();
        assert_eq!(
            heads.schema().fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(),
            [SERVICE_NAME_COLUMN, SEVERITY_NUMBER, "r_pod"]
        );
        let told = |entry: &StreamRows| {
            let head = entry.head as usize;
            let text = |place: usize| {
                let texts = heads.column(place).as_dictionary::<Int32Type>();
                texts.key(head).map_or("-", |key| texts.values().as_string::<i32>().value(key)).to_owned()
            };
            let number = heads.column(1).as_primitive::<Int32Type>();
            let number = if number.is_valid(head) { number.value(head) } else { 0 };
            format!("{} {number} {}: {} {}", text(0), text(2), entry.rows, entry.body_bytes)
        };
        let groups: Vec<Vec<String>> = table.groups().iter().map(|group| group.iter().map(told).collect()).collect();
        assert_eq!(
            groups,
            [
                vec!["api 9 a: 40 200", "api 9 b: 80 400", "- 0 a: 9 9", "api 17 b: 40 200"],
                vec!["api 9 a: 40 200", "api 9 b: 40 200", "web 9 a: 40 200"]
            ]
        );
    }

    #[test]
    fn too_many_streams_are_no_table() {
        let alternating: Vec<_> = (0..MOST_SEVERITIES as i32 + 1).map(|number| (None, Some(number), "", "a")).collect();
        let pods: Vec<String> = (0..200).map(|pod| pod.to_string()).collect();
        let short: Vec<_> = pods.iter().map(|pod| (None, None, "", pod.as_str())).collect();
        for rows in [rows(&alternating), rows(&short)] {
            let mut builder = StreamTableBuilder::new(&rows.schema()).expect("a builder");
            builder.add(&rows).expect("rows");
            builder.end_group();
            assert_eq!(builder.encode().expect("encodes"), None);
        }
    }

    #[test]
    fn long_streams_are_held_up_to_a_bound() {
        let mut builder = StreamTableBuilder::new(&rows(&[(None, None, "", "a")]).schema()).expect("a builder");
        for number in 0..20 {
            let long = format!("{number}{}", "x".repeat(1 << 20));
            builder.add(&rows(&[(None, None, "", long.as_str()); 40])).expect("rows");
            assert!(builder.key_bytes <= MOST_HEAD_BYTES || builder.by_key.is_empty());
        }
        builder.end_group();
        assert!(builder.by_key.is_empty() && builder.heads.is_empty());
        assert_eq!(builder.encode().expect("encodes"), None);
    }

    /// The bytes of version 1 as they were first written; later builds must read them.
    #[test]
    fn version_1_is_still_read() {
        if std::env::var_os("TIDEMILL_REWRITE").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/samples/stream-table-v1.hex");
            std::fs::write(path, hex::encode(sample())).expect("a writable folder");
        }
        let frozen = hex::decode(include_str!("../../tests/samples/stream-table-v1.hex").trim()).expect("hex");
        assert_eq!(StreamTable::decode(&frozen).expect("reads"), StreamTable::decode(&sample()).expect("reads"));
    }

    proptest! {
        #[test]
        fn damage_is_refused(place in any::<proptest::sample::Index>(), bit in 0_u32..8) {
            let mut bytes = sample();
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
            prop_assert!(StreamTable::decode(&bytes).is_err());
        }

        /// Whoever can write a check can write anything behind it.
        #[test]
        fn any_body_is_read_or_refused(places in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6)) {
            let mut body = unzipped(SUBJECT, (MAGIC, STREAM_TABLE_VERSION), &sample()).expect("reads");
            for (place, byte) in places {
                let place = place.index(body.len());
                body[place] = byte;
            }
            let _ = decode_body(&body);
        }
    }
}
