//! The rows of one (day, ingest day): buffered, sorted by time, written out a row group at a time.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampNanosecondType, UInt32Type};
use parquet::file::properties::WriterProperties;
use tidemill_types::{ByteRange, Day, Level, Signal, Tier, TimestampNs};

use super::attributes::AttributeColumns;
use super::columns::{NumberColumn, Placement, build_dense};
use super::keys::Keys;
use super::log_columns::LogColumns;
use super::point_columns::PointColumns;
use super::promotion::{Promotion, attribute_entries, choose_columns};
use super::properties::level_0_properties;
use super::span_columns::SpanColumns;
use super::tables::NewService;
use super::tables::{ResourceTable, ScopeTable};
use super::time::ChosenTime;
use crate::coverage::Coverage;
use crate::draft::DraftSegment;
use crate::error::{Error, Result};
use crate::footer::{IndexPart, LISTED_ATTRIBUTES, SegmentFooter};
use crate::identities::IDENTITIES_PART;
use crate::schema::{segment_schema, timestamp_type};
use crate::write::SegmentWriter;

/// What a buffered row costs besides its own bytes, roughly.
const ROW_OVERHEAD_BYTES: usize = 96;

/// Keys of the three attribute scopes, in the order of `AttributeScope::ALL`.
pub(crate) type ScopeKeys = [Keys; 3];

/// The partition of one day and ingest day.
pub(crate) struct Partition {
    pub signal: Signal,
    pub day: Day,
    pub ingest_day: Day,
    times: Vec<i64>,
    arrivals: Vec<i64>,
    original: NumberColumn<Int64Type>,
    resource_of: Vec<u32>,
    scope_of: Vec<u32>,
    pub dropped: NumberColumn<UInt32Type>,
    pub attributes: AttributeColumns,
    pub resources: ResourceTable,
    pub scopes: ScopeTable,
    pub core: CoreColumns,
    /// Which resource, scope and metric of the input the current entries are of.
    pub current: Current,
    coverage: Coverage,
    buffered_bytes: usize,
    written: Option<Written>,
    rows: u64,
    /// When it last got a row, in rows of the bundle.
    pub last_used: u64,
    /// Rows of the input that is being read.
    pub input_rows: u64,
}

/// The columns that only one signal has.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one per open partition, of which there are at most 64, and touched for every row"
)]
pub(crate) enum CoreColumns {
    Logs(LogColumns),
    Points(PointColumns),
    Spans(SpanColumns),
}

/// Entries of the partition's tables for what the walk currently stands in; each is valid while its stamp is the encoder's.
#[derive(Debug, Default)]
pub(crate) struct Current {
    pub resource_stamp: u64,
    pub resource: u32,
    pub scope_stamp: u64,
    pub scope: u32,
    pub metric_stamp: u64,
    pub metric: u32,
}

struct Written {
    writer: SegmentWriter,
    schema: SchemaRef,
    promotion: Promotion,
}

/// A partition whose rows are all written and whose footer is not: it names all inputs and counts all segments of its bundle.
pub(crate) struct ClosedPartition {
    writer: SegmentWriter,
    footer: SegmentFooter,
}

impl ClosedPartition {
    /// Ends the segment, the `ordinal`-th of `outputs` of a bundle of `inputs`.
    pub(crate) fn finish(mut self, inputs: &[String], outputs: u32, ordinal: u32) -> Result<DraftSegment> {
        self.footer.inputs = inputs.to_vec();
        self.footer.outputs = outputs;
        self.footer.ordinal = ordinal;
        self.writer.finish(&self.footer)
    }

    pub(crate) fn day(&self) -> Day {
        self.footer.day
    }

    /// Adds the identities of the bundle's inputs.
    pub(crate) fn list_identities(&mut self, encoded: &[u8]) -> Result<()> {
        let range = self.writer.append(encoded)?;
        self.footer.sections.push(IndexPart { name: IDENTITIES_PART.to_owned(), range });
        Ok(())
    }
}

impl Partition {
    pub(crate) fn new(signal: Signal, day: Day, ingest_day: Day) -> Self {
        let core = match signal {
            Signal::Logs => CoreColumns::Logs(LogColumns::default()),
            Signal::Metrics => CoreColumns::Points(PointColumns::default()),
            Signal::Traces => CoreColumns::Spans(SpanColumns::default()),
        };
        Self {
            signal,
            day,
            ingest_day,
            times: Vec::new(),
            arrivals: Vec::new(),
            original: NumberColumn::default(),
            resource_of: Vec::new(),
            scope_of: Vec::new(),
            dropped: NumberColumn::default(),
            attributes: AttributeColumns::default(),
            resources: ResourceTable::default(),
            scopes: ScopeTable::default(),
            core,
            current: Current::default(),
            coverage: Coverage::default(),
            buffered_bytes: 0,
            written: None,
            rows: 0,
            last_used: 0,
            input_rows: 0,
        }
    }

    /// Adds the part of a row that all signals share; answers the row's number.
    #[inline]
    pub(crate) fn push_shared(&mut self, time: ChosenTime, arrival: TimestampNs, size: usize) -> u32 {
        let row = self.times.len() as u32;
        self.times.push(time.time.0);
        self.arrivals.push(arrival.0);
        if let Some(original) = time.original {
            self.original.push(row, original);
        }
        self.resource_of.push(self.current.resource);
        self.scope_of.push(self.current.scope);
        self.buffered_bytes += size + ROW_OVERHEAD_BYTES;
        row
    }

    pub(crate) fn note_service(&mut self, service: &NewService<'_>) {
        match service {
            NewService::Known => {}
            NewService::Named(name) => self.coverage.note_service(name),
            NewService::Nameless => self.coverage.note_nameless(),
        }
    }

    pub(crate) fn buffered_rows(&self) -> usize {
        self.times.len()
    }

    pub(crate) fn buffered_bytes(&self) -> usize {
        self.buffered_bytes + self.resources.bytes() + self.scopes.bytes()
    }

    /// Writes the buffered rows as one row group.
    pub(crate) fn write_row_group(&mut self, spool: &Path, keys: &ScopeKeys, promote: &[String]) -> Result<()> {
        let rows = self.times.len();
        if rows == 0 {
            return Ok(());
        }
        self.coverage.note_times(self.signal, &self.times);
        self.weigh_tables();
        if self.written.is_none() {
            self.written = Some(self.start(spool, keys, promote)?);
        }
        let order = time_order(&self.times);
        let order = order.as_deref();
        let arrays = self.build(order);
        let written = self.written.as_mut().expect("was started above");
        let schema = memory_schema(&written.schema, &arrays);
        let batch = RecordBatch::try_new(schema, arrays).map_err(Error::arrow("build a row group"))?;
        written.writer.write(&batch)?;
        written.writer.end_row_group()?;
        self.rows += rows as u64;
        self.clear();
        Ok(())
    }

    /// Writes what is left and ends the rows; `None` when the partition never had one.
    pub(crate) fn close(
        mut self,
        spool: &Path,
        keys: &ScopeKeys,
        promote: &[String],
    ) -> Result<Option<ClosedPartition>> {
        self.write_row_group(spool, keys, promote)?;
        let (Some(written), Some(time)) = (self.written.take(), self.coverage.time()) else { return Ok(None) };
        let columns = [&self.attributes, &self.resources.attributes, &self.scopes.attributes];
        let mut attributes = attribute_entries(&written.promotion, columns, keys);
        let truncated = attributes.len() > LISTED_ATTRIBUTES || keys.iter().any(|keys| keys.overflowed);
        attributes.truncate(LISTED_ATTRIBUTES);
        let footer = SegmentFooter {
            signal: self.signal,
            tier: Tier::RAW,
            level: Level(0),
            day: self.day,
            time,
            ingest_day: self.ingest_day,
            rows: self.rows,
            services: self.coverage.services(),
            covers_ingest_seq: 0,
            hours: self.coverage.hours(),
            attributes,
            attributes_truncated: truncated,
            duplicate_rows: None,
            severity_rows: Vec::new(),
            index: ByteRange::default(),
            sections: Vec::new(),
            replaces: Vec::new(),
            outputs: 1,
            ordinal: 0,
            inputs: Vec::new(),
        };
        Ok(Some(ClosedPartition { writer: written.writer, footer }))
    }

    fn start(&mut self, spool: &Path, keys: &ScopeKeys, promote: &[String]) -> Result<Written> {
        let promotion = choose_columns(
            [&mut self.attributes, &mut self.resources.attributes, &mut self.scopes.attributes],
            keys,
            promote,
        );
        let schema = segment_schema(self.signal, &promotion.columns);
        let properties: WriterProperties = level_0_properties(self.signal, &promotion, self.times.len());
        let writer = SegmentWriter::create(spool, Arc::clone(&schema), properties)?;
        Ok(Written { writer, schema, promotion })
    }

    fn weigh_tables(&mut self) {
        let mut counts = vec![0; self.resources.len()];
        self.resource_of.iter().for_each(|entry| counts[*entry as usize] += 1);
        self.resources.attributes.weigh(&counts);
        counts = vec![0; self.scopes.len()];
        self.scope_of.iter().for_each(|entry| counts[*entry as usize] += 1);
        self.scopes.attributes.weigh(&counts);
    }

    /// All arrays in the order of the schema.
    fn build(&mut self, order: Option<&[u32]>) -> Vec<ArrayRef> {
        let rows = Placement { rows: self.times.len(), source: order };
        let sorted = |entries: &Vec<u32>| -> Vec<u32> {
            order.map_or_else(|| entries.clone(), |order| order.iter().map(|row| entries[*row as usize]).collect())
        };
        let (resource_of, scope_of) = (sorted(&self.resource_of), sorted(&self.scope_of));
        let resources = Placement { rows: self.resources.len(), source: Some(&resource_of) };
        let scopes = Placement { rows: self.scopes.len(), source: Some(&scope_of) };
        let [scope_name, scope_version, scope_schema_url] = self.scopes.build_texts(scopes);
        let mut out = vec![
            build_dense::<TimestampNanosecondType>(&self.times, order, &timestamp_type()),
            build_dense::<TimestampNanosecondType>(&self.arrivals, order, &timestamp_type()),
            self.original.build(rows, &DataType::Int64),
            self.resources.build_service(resources),
            scope_name,
            scope_version,
            self.resources.build_schema_url(resources),
            scope_schema_url,
            self.resources.build_dropped(resources),
            self.scopes.build_dropped(scopes),
            self.dropped.build(rows, &DataType::UInt32),
        ];
        match &mut self.core {
            CoreColumns::Logs(core) => core.build(rows, &mut out),
            CoreColumns::Points(core) => core.build(rows, &mut out),
            CoreColumns::Spans(core) => core.build(rows, &mut out),
        }
        let sets = [&mut self.attributes, &mut self.resources.attributes, &mut self.scopes.attributes];
        let mut rest = Vec::with_capacity(sets.len());
        for (columns, placement) in sets.into_iter().zip([rows, resources, scopes]) {
            columns.build_slots(placement, &mut out);
            rest.push(columns.build_rest(placement));
        }
        out.extend(rest);
        out
    }

    fn clear(&mut self) {
        self.times.clear();
        self.arrivals.clear();
        self.original.clear();
        self.resource_of.clear();
        self.scope_of.clear();
        self.dropped.clear();
        self.attributes.clear();
        self.resources.clear();
        self.scopes.clear();
        match &mut self.core {
            CoreColumns::Logs(core) => core.clear(),
            CoreColumns::Points(core) => core.clear(),
            CoreColumns::Spans(core) => core.clear(),
        }
        self.current = Current::default();
        self.buffered_bytes = 0;
    }
}

/// The schema of arrays that may be dictionaries where the segment has plain text; the file is the same either way.
fn memory_schema(segment: &SchemaRef, arrays: &[ArrayRef]) -> SchemaRef {
    let fields = segment.fields().iter().zip(arrays);
    let typed = fields.map(|(field, array)| field.as_ref().clone().with_data_type(array.data_type().clone()));
    Arc::new(Schema::new(typed.collect::<Vec<Field>>()))
}

/// The rows by ascending time, equal times in their order; `None` when they stand so already.
fn time_order(times: &[i64]) -> Option<Vec<u32>> {
    if times.is_sorted() {
        return None;
    }
    let mut order: Vec<(i64, u32)> = times.iter().copied().zip(0..).collect();
    order.sort_unstable();
    Some(order.into_iter().map(|(_, row)| row).collect())
}
