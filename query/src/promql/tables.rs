//! The series of each segment, in memory once they were read: from its series table or, where it has none yet, from its rows.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringViewArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Field, Schema};
use futures::StreamExt as _;
use moka::future::Cache;
use parquet::arrow::ProjectionMask;
use serde_json::value::RawValue;
use tidemill_segment::index::{SeriesFrame, SeriesTable};
use tidemill_segment::read::AttributeScope;
use tidemill_types::{SegmentId, Signal};

use super::series::{Promotion, SegmentSeries, SeriesBuilder};
use super::value_text::value_text;
use crate::scan::{Conversion, OpenSegment, SegmentLoader, stored_rows};
use crate::stats::{Counter, StatsHandle};
use crate::tables::TableColumns;
use crate::{Error, Result};

/// The columns of a point that make its series, as SQL names them.
const FRAME_COLUMNS: [&str; 7] = ["name", "unit", "kind", "temporality", "is_monotonic", "scope_name", "scope_version"];
const OBJECT_COLUMNS: [&str; 2] = ["attributes", "resource"];

/// The series of segments, kept in memory.
#[derive(Debug)]
pub(crate) struct SeriesTables {
    kept: Cache<SegmentId, Arc<SegmentSeries>>,
    pub(super) promotion: Promotion,
}

impl SeriesTables {
    pub(crate) fn new(bytes: u64, promotion: Promotion) -> Self {
        let weigh = |_: &SegmentId, series: &Arc<SegmentSeries>| {
            u32::try_from(series.bytes.saturating_add(1_024)).unwrap_or(u32::MAX)
        };
        Self { kept: Cache::builder().max_capacity(bytes).weigher(weigh).build(), promotion }
    }

    /// The series of a segment.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub(super) async fn get(
        &self,
        loader: &Arc<SegmentLoader>,
        open: &Arc<OpenSegment>,
        stats: &StatsHandle,
    ) -> Result<Arc<SegmentSeries>> {
        if let Some(series) = self.kept.get(&open.meta.id).await {
            stats.add(Counter::CacheHits, 1);
            return Ok(series);
        }
        let reading = async {
            let series = match open.part("series") {
                Some(range) => {
                    let bytes = loader.fetch(&open.meta, &[range], stats).await?;
                    let bytes = bytes.first().ok_or_else(|| corrupt(open, "the store returned no bytes"))?;
                    let table = SeriesTable::decode(bytes).map_err(|error| corrupt(open, error))?;
                    SegmentSeries::of_table(&table, &self.promotion)
                        .ok_or_else(|| corrupt(open, "its series have more rows than a segment can have"))?
                }
                None => self.of_rows(loader, open, stats).await?,
            };
            Ok(Arc::new(series))
        };
        self.kept.try_get_with(open.meta.id, reading).await.map_err(|error: Arc<Error>| Error::clone(&error))
    }

    /// Segments of level 0 have no table: their rows tell the series, each by its first row.
    async fn of_rows(
        &self,
        loader: &Arc<SegmentLoader>,
        open: &Arc<OpenSegment>,
        stats: &StatsHandle,
    ) -> Result<SegmentSeries> {
        let table = TableColumns::new(Signal::Metrics, &[]);
        let names = FRAME_COLUMNS.iter().chain(&OBJECT_COLUMNS);
        let places: Vec<usize> = names
            .map(|name| table.schema.index_of(name))
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| corrupt(open, error))?;
        let columns: Vec<_> = places.iter().map(|place| table.columns[*place].clone()).collect();
        let fields: Vec<Field> = places.iter().map(|place| table.schema.field(*place).clone()).collect();
        let conversion = Conversion::new(open, &columns, Arc::new(Schema::new(fields)));
        let mut mask = ProjectionMask::roots(open.reader.parquet_schema(), open.reader.schema().index_of("series"));
        mask.union(&conversion.mask);
        let mut batches = stored_rows(loader, open, stats, |stored| stored.with_projection(mask))?;
        let mut known: HashMap<[u8; 16], usize> = HashMap::new();
        let mut described: Vec<Described> = Vec::new();
        let mut rows: Vec<Vec<Range<u32>>> = Vec::new();
        let mut first_row = 0_u32;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let ids = batch.column_by_name("series").and_then(|ids| ids.as_fixed_size_binary_opt());
            let ids = ids.ok_or_else(|| corrupt(open, "column series is no column of ids"))?;
            let mut firsts: Vec<u32> = Vec::new();
            for row in 0..batch.num_rows() {
                let id: [u8; 16] = ids.value(row).try_into().map_err(|_| corrupt(open, "an id is not of 16 bytes"))?;
                let place = *known.entry(id).or_insert_with(|| {
                    firsts.push(row as u32);
                    rows.push(Vec::new());
                    rows.len() - 1
                });
                let at = first_row + row as u32;
                match rows[place].last_mut() {
                    Some(last) if last.end == at => last.end = at + 1,
                    _ => rows[place].push(at..at + 1),
                }
            }
            if !firsts.is_empty() {
                let taken =
                    take_record_batch(&batch, &UInt32Array::from(firsts)).map_err(|error| corrupt(open, error))?;
                let told = conversion.convert(&taken)?;
                described
                    .extend(describe(&told).ok_or_else(|| corrupt(open, "a column of metrics is not of its type"))?);
            }
            first_row += batch.num_rows() as u32;
        }
        let mut builder = SeriesBuilder::new(&self.promotion);
        for (described, rows) in described.into_iter().zip(rows) {
            let mut attributes = Vec::new();
            for (scope, object) in &described.objects {
                for (key, value) in object {
                    attributes.push((*scope, builder.key(key), builder.value(&value_text(value.get()))));
                }
            }
            builder.add(&described.frame, &attributes, rows);
        }
        Ok(builder.finish())
    }
}

/// What the first row of a series says.
struct Described {
    frame: SeriesFrame,
    objects: Vec<(AttributeScope, std::collections::BTreeMap<String, Box<RawValue>>)>,
}

fn describe(batch: &RecordBatch) -> Option<Vec<Described>> {
    let text = |name: &str| -> Option<&StringViewArray> { batch.column_by_name(name)?.as_string_view_opt() };
    let columns = ["name", "unit", "kind", "temporality", "scope_name", "scope_version", "attributes", "resource"];
    let columns: Vec<&StringViewArray> = columns.into_iter().map(text).collect::<Option<_>>()?;
    let monotonic = batch.column_by_name("is_monotonic")?.as_boolean_opt()?;
    let mut all = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let value = |at: usize| if columns[at].is_valid(row) { columns[at].value(row) } else { "" };
        let is_monotonic = monotonic.is_valid(row) && monotonic.value(row);
        let kind = if is_monotonic && value(2) == "sum" { "monotonic_sum" } else { value(2) };
        let frame = SeriesFrame {
            name: value(0).to_owned(),
            unit: value(1).to_owned(),
            kind: kind.to_owned(),
            temporality: value(3).to_owned(),
            scope_name: value(4).to_owned(),
            scope_version: value(5).to_owned(),
        };
        let object = |at: usize| serde_json::from_str(value(at)).ok();
        let objects = vec![(AttributeScope::Record, object(6)?), (AttributeScope::Resource, object(7)?)];
        all.push(Described { frame, objects });
    }
    Some(all)
}

fn corrupt(open: &OpenSegment, problem: impl std::fmt::Display) -> Error {
    Error::corrupt(&open.meta.object_key, problem)
}
