//! One hour of one tier: rows of the finer tier in order of series and time, folded into windows.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidemill_types::{ByteRange, Hour, Level, SegmentId, Signal, Tier, TimeRange};

use super::columns::{Rows, WindowColumns, rollup_fields};
use super::window::{Course, Window, window_end};
use crate::coverage::Coverage;
use crate::draft::DraftSegment;
use crate::error::{Error, Result};
use crate::footer::SegmentFooter;
use crate::merge::{MergeInput, MergeOptions, MergePlan, compacted_properties, each_sorted, gather};
use crate::schema::{AttributeScope, core_fields};
use crate::write::{ROW_GROUP_ROWS, SegmentWriter};

/// Rows of a written batch.
const BATCH_ROWS: usize = 8192;

/// What to compute.
#[derive(Debug, Clone)]
pub struct RollupOptions {
    /// The tier of the output.
    pub tier: Tier,
    /// Its windows are those that end in this hour: after its first instant, up to and with the next hour's first.
    pub hour: Hour,
    /// The hour's `ingest_seq` that the inputs cover.
    pub covers_ingest_seq: i64,
    /// The rollup segments that the output replaces.
    pub replaces: Vec<SegmentId>,
    /// Folder for what does not fit in memory.
    pub spool: PathBuf,
}

/// Computes one hour of `options.tier` from all segments of the finer tier that have rows in its windows; other rows of them are ignored.
/// `None` when no row lies in the hour.
///
/// # Errors
/// When the inputs are not of the finer tier, or not segments, and when the spool fails.
pub fn rollup_hour(inputs: Vec<MergeInput>, options: RollupOptions) -> Result<Option<DraftSegment>> {
    let invalid = |problem: String| Err(Error::Invalid { problem });
    let Some(finer) = options.tier.finer() else {
        return invalid(format!("{} s is not the window of a rollup", options.tier.0));
    };
    if let Some(other) = inputs.iter().find(|input| input.meta.tier != finer || input.meta.signal != Signal::Metrics) {
        return invalid(format!("{} is no metrics segment of tier {}", other.meta.object_key, finer.0));
    }
    if inputs.is_empty() {
        return Ok(None);
    }
    let merge_options =
        MergeOptions { level: Level(0), promote: Vec::new(), spool: options.spool.clone(), target_bytes: u64::MAX };
    let core = if finer == Tier::RAW { core_fields(Signal::Metrics) } else { rollup_fields() };
    let range = options.hour.range();
    let plan = MergePlan::open(inputs, merge_options, core)?.within(range.start.plus_ns(1), range.end);
    let mut folding = Folding::new(&plan, &options);
    each_sorted(&plan, &mut |batch, _| folding.add(&batch))?;
    folding.finish()
}

/// The window that is being filled.
struct Open {
    series: [u8; 16],
    end: i64,
    course: Course,
    /// Almost always one; more when a histogram changed its bounds.
    windows: Vec<Window>,
    /// A row of the series, for the labels: batch and row.
    label: (usize, usize),
    /// The latest sample, not yet in a window: another of the same time may replace it.
    pending: Option<(i64, Window)>,
}

struct Folding<'a> {
    plan: &'a MergePlan,
    options: &'a RollupOptions,
    schema: SchemaRef,
    open: Option<Open>,
    held: Vec<RecordBatch>,
    labels: Vec<(usize, usize)>,
    columns: WindowColumns,
    writer: Option<SegmentWriter>,
    rows: u64,
    group_rows: usize,
    coverage: Coverage,
}

impl<'a> Folding<'a> {
    fn new(plan: &'a MergePlan, options: &'a RollupOptions) -> Self {
        let held_type = |field: Field| match plan.schema.field_with_name(field.name()) {
            Ok(held) if matches!(held.data_type(), DataType::Dictionary(..)) => {
                let kind = held.data_type().clone();
                field.with_data_type(kind)
            }
            _ => field,
        };
        let mut fields: Vec<Field> = rollup_fields().into_iter().map(held_type).collect();
        let attributes = plan
            .schema
            .fields()
            .iter()
            .filter(|field| AttributeScope::ALL.into_iter().any(|scope| field.name().starts_with(scope.prefix())));
        fields.extend(attributes.map(|field| field.as_ref().clone()));
        Self {
            plan,
            options,
            schema: Arc::new(Schema::new(fields)),
            open: None,
            held: Vec::new(),
            labels: Vec::new(),
            columns: WindowColumns::default(),
            writer: None,
            rows: 0,
            group_rows: 0,
            coverage: Coverage::default(),
        }
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = Rows::new(batch)?;
        let series = batch.column_by_name("series").expect("the core columns have it").as_fixed_size_binary();
        self.held.push(batch.clone());
        for row in 0..batch.num_rows() {
            let Some(window) = rows.window(row)? else { continue };
            let (time, id) = (rows.time(row), series.value(row).try_into().expect("series have 16 bytes"));
            let end = window_end(time, self.options.tier.window_ns());
            if self.open.as_ref().is_some_and(|open| (open.series, open.end) != (id, end)) {
                self.close();
            }
            let label = (self.held.len() - 1, row);
            let open = self.open.get_or_insert_with(|| Open {
                series: id,
                end,
                course: rows.course(row),
                windows: Vec::new(),
                label,
                pending: None,
            });
            open.label = label;
            // Equal times stand in order of arrival, so the last one wins. Rows of a rollup that changed bounds share their time.
            let is_repeated = open.pending.as_ref().is_some_and(|(before, _)| *before == time);
            if !is_repeated || batch.column_by_name("samples").is_some() {
                open.settle();
            }
            open.pending = Some((time, window));
        }
        if self.columns.rows() >= BATCH_ROWS {
            self.flush()?;
        } else {
            self.release();
        }
        Ok(())
    }

    fn close(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        open.settle();
        for window in &open.windows {
            self.columns.push(open.end, window);
            self.labels.push(open.label);
        }
    }

    /// Writes the finished windows.
    fn flush(&mut self) -> Result<()> {
        if self.labels.is_empty() {
            return Ok(());
        }
        let labels = gather(&self.held, &self.labels)?;
        self.labels.clear();
        let mut computed = self.columns.finish();
        let columns: Vec<ArrayRef> = self
            .schema
            .fields()
            .iter()
            .map(|field| match computed.iter().position(|(name, _)| name == field.name()) {
                Some(place) => computed.swap_remove(place).1,
                None => Arc::clone(labels.column_by_name(field.name()).expect("labels come from the inputs' schema")),
            })
            .collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(Error::arrow("build a rollup"))?;
        self.note_services(&batch)?;
        if self.writer.is_none() {
            let properties = compacted_properties(Signal::Metrics, &batch);
            self.writer = Some(SegmentWriter::create(&self.options.spool, Arc::clone(&self.schema), properties)?);
        }
        let writer = self.writer.as_mut().expect("was made above");
        if self.group_rows + batch.num_rows() > ROW_GROUP_ROWS {
            writer.end_row_group()?;
            self.group_rows = 0;
        }
        for start in (0..batch.num_rows()).step_by(ROW_GROUP_ROWS) {
            writer.write(&batch.slice(start, (batch.num_rows() - start).min(ROW_GROUP_ROWS)))?;
        }
        self.group_rows += batch.num_rows();
        self.rows += batch.num_rows() as u64;
        self.release();
        Ok(())
    }

    /// Lets go of batches that no label points into any more.
    fn release(&mut self) {
        if !self.labels.is_empty() {
            return;
        }
        match &mut self.open {
            Some(open) => {
                self.held = vec![self.held[open.label.0].slice(open.label.1, 1)];
                open.label = (0, 0);
            }
            None => self.held.clear(),
        }
    }

    fn note_services(&mut self, batch: &RecordBatch) -> Result<()> {
        // A window tells of many rows.
        self.coverage.note_nameless();
        let Some(column) = batch.column_by_name("service_name") else { return Ok(()) };
        let names = arrow::compute::cast(column, &DataType::Utf8).map_err(Error::arrow("read a column"))?;
        names.as_string::<i32>().iter().flatten().for_each(|name| self.coverage.note_service(name));
        Ok(())
    }

    fn finish(mut self) -> Result<Option<DraftSegment>> {
        self.close();
        self.flush()?;
        let Some(writer) = self.writer.take() else { return Ok(None) };
        let range = self.options.hour.range();
        let inputs = &self.plan.inputs;
        let first = &inputs[0].footer;
        let footer = SegmentFooter {
            signal: Signal::Metrics,
            tier: self.options.tier,
            level: Level(0),
            day: self.options.hour.day(),
            time: TimeRange { start: range.start.plus_ns(1), end: range.end.plus_ns(1) },
            ingest_day: inputs.iter().map(|input| input.footer.ingest_day).max().unwrap_or(first.ingest_day),
            rows: self.rows,
            services: self.coverage.services(),
            covers_ingest_seq: self.options.covers_ingest_seq,
            hours: vec![self.options.hour],
            attributes: self.plan.attributes.clone(),
            attributes_truncated: self.plan.attributes_truncated,
            duplicate_rows: None,
            severity_rows: Vec::new(),
            index: ByteRange::default(),
            sections: Vec::new(),
            replaces: self.options.replaces.clone(),
            outputs: 1,
            ordinal: 0,
            inputs: Vec::new(),
        };
        writer.finish(&footer).map(Some)
    }
}

impl Open {
    /// Takes the latest sample into its window.
    fn settle(&mut self) {
        let Some((_, sample)) = self.pending.take() else { return };
        match self.windows.iter_mut().find(|window| window.fits(&sample)) {
            Some(window) => window.append(self.course, sample),
            None => self.windows.push(sample),
        }
    }
}
