//! The columns of a rollup segment, and rows of points and of rollups as windows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, Float64Array, Float64Builder, Int32Array, Int32Builder,
    ListArray, ListBuilder, RecordBatch, StringArray, TimestampNanosecondArray, TimestampNanosecondBuilder,
    UInt32Array, UInt64Array, UInt64Builder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, TimestampNanosecondType, UInt64Type};

use super::distribution::{Buckets, Distribution, Exponential, Side};
use super::sketch::Sketch;
use super::window::{Content, Course, Distributions, Numbers, Sample, Window};
use crate::error::{Error, Result};
use crate::index::corrupt;
use crate::schema::{list_of, timestamp_type};

const SUBJECT: &str = "rollup row";
/// Bit 0 of a data point's flags, `FLAG_NO_RECORDED_VALUE`: the series ended here.
const NO_RECORDED_VALUE: u32 = 1;

/// The columns that name the series: copied from any of its rows.
pub(crate) const LABEL_COLUMNS: [&str; 12] = [
    "service_name",
    "scope_name",
    "scope_version",
    "resource_schema_url",
    "scope_schema_url",
    "name",
    "description",
    "unit",
    "kind",
    "temporality",
    "is_monotonic",
    "series",
];

/// The fixed columns of a rollup segment, in file order. `time` is the end of the row's window, which is (start, end].
pub fn rollup_fields() -> Vec<Field> {
    let mut fields =
        vec![Field::new("time", timestamp_type(), false), Field::new("arrival_time", timestamp_type(), false)];
    fields.extend(LABEL_COLUMNS.map(|name| match name {
        "is_monotonic" => Field::new(name, DataType::Boolean, true),
        "series" => Field::new(name, DataType::FixedSizeBinary(16), false),
        _ => Field::new(name, DataType::Utf8, !matches!(name, "name" | "kind")),
    }));
    let column = |name: &str, kind: DataType| Field::new(name, kind, true);
    fields.extend([
        Field::new("samples", DataType::UInt64, false),
        Field::new("stale", DataType::UInt64, false),
        column("stale_time", timestamp_type()),
        Field::new("resets", DataType::UInt64, false),
        column("first_time", timestamp_type()),
        column("first_start_time", timestamp_type()),
        column("last_time", timestamp_type()),
        column("last_start_time", timestamp_type()),
        column("first", DataType::Float64),
        column("last", DataType::Float64),
        column("value_sum", DataType::Float64),
        column("value_min", DataType::Float64),
        column("value_max", DataType::Float64),
        column("increase", DataType::Float64),
        column("sketch", DataType::Binary),
        column("count", DataType::UInt64),
        column("sum", DataType::Float64),
        column("min", DataType::Float64),
        column("max", DataType::Float64),
        column("bucket_counts", list_of(DataType::UInt64)),
        column("explicit_bounds", list_of(DataType::Float64)),
        column("scale", DataType::Int32),
        column("zero_count", DataType::UInt64),
        column("zero_threshold", DataType::Float64),
        column("positive_offset", DataType::Int32),
        column("positive_counts", list_of(DataType::UInt64)),
        column("negative_offset", DataType::Int32),
        column("negative_counts", list_of(DataType::UInt64)),
        column("first_distribution", DataType::Binary),
        column("last_distribution", DataType::Binary),
    ]);
    fields
}

/// The columns of a batch that windows are read from, plain text whatever the batch holds.
pub(crate) struct Rows {
    batch: RecordBatch,
    time: TimestampNanosecondArray,
    arrival: TimestampNanosecondArray,
    kind: StringArray,
    temporality: StringArray,
    is_monotonic: BooleanArray,
    /// What every raw point is asked for; looked up once a batch.
    point: Option<PointArrays>,
}

struct PointArrays {
    flags: UInt32Array,
    start_time: TimestampNanosecondArray,
    value: Float64Array,
    count: UInt64Array,
}

impl Rows {
    /// Rows of raw points, or of a finer rollup.
    pub(crate) fn new(batch: &RecordBatch) -> Result<Self> {
        let text = |name: &str| -> Result<StringArray> {
            let column = cast(column(batch, name)?, &DataType::Utf8).map_err(Error::arrow("read a column"))?;
            Ok(column.as_string::<i32>().clone())
        };
        let is_rollup = batch.column_by_name("samples").is_some();
        let point = match is_rollup {
            true => None,
            false => Some(PointArrays {
                flags: column(batch, "flags")?.as_primitive().clone(),
                start_time: column(batch, "start_time")?.as_primitive().clone(),
                value: column(batch, "value")?.as_primitive().clone(),
                count: column(batch, "count")?.as_primitive().clone(),
            }),
        };
        Ok(Self {
            point,
            time: column(batch, "time")?.as_primitive().clone(),
            arrival: column(batch, "arrival_time")?.as_primitive().clone(),
            kind: text("kind")?,
            temporality: text("temporality")?,
            is_monotonic: column(batch, "is_monotonic")?.as_boolean().clone(),
            batch: batch.clone(),
        })
    }

    pub(crate) fn time(&self, row: usize) -> i64 {
        self.time.value(row)
    }

    pub(crate) fn course(&self, row: usize) -> Course {
        let temporality = self.temporality.is_valid(row).then(|| self.temporality.value(row));
        match (self.kind.value(row), temporality) {
            ("sum" | "histogram" | "exponential_histogram", Some("delta")) => Course::Delta,
            ("histogram" | "exponential_histogram" | "summary", _) => Course::Cumulative,
            ("sum", Some("cumulative")) if self.is_monotonic.is_valid(row) && self.is_monotonic.value(row) => {
                Course::Cumulative
            }
            _ => Course::Level,
        }
    }

    /// What the row says; `None` when it is a point without a value.
    pub(crate) fn window(&self, row: usize) -> Result<Option<Window>> {
        match &self.point {
            Some(point) => self.point_window(point, row),
            None => self.rollup_window(row).map(Some),
        }
    }

    fn point_window(&self, point: &PointArrays, row: usize) -> Result<Option<Window>> {
        let (time, arrival) = (self.time.value(row), self.arrival.value(row));
        if point.flags.is_valid(row) && point.flags.value(row) & NO_RECORDED_VALUE != 0 {
            return Ok(Some(Window::of_stale_marker(time, arrival)));
        }
        let course = self.course(row);
        let start = point.start_time.is_valid(row).then(|| point.start_time.value(row));
        if point.count.is_valid(row) {
            let count = point.count.value(row);
            let value = Distribution { count, sum: self.double_at("sum", row)?, buckets: self.buckets(row)? };
            let extremes = (self.double_at("min", row)?, self.double_at("max", row)?);
            return Ok(Some(Window::of_distribution(course, Sample { time, start, value }, extremes, arrival)));
        }
        let value = point.value.is_valid(row).then(|| point.value.value(row));
        Ok(value.map(|value| Window::of_number(course, Sample { time, start, value }, arrival)))
    }

    fn rollup_window(&self, row: usize) -> Result<Window> {
        let missing = |name: &str| corrupt(SUBJECT, format!("{name} is null"));
        let samples = self.count_at("samples", row)?.ok_or_else(|| missing("samples"))?;
        let first_time = self.time_at("first_time", row)?;
        let last_time = self.time_at("last_time", row)?;
        let starts = (self.time_at("first_start_time", row)?, self.time_at("last_start_time", row)?);
        let content = match (first_time.zip(last_time), self.double_at("value_sum", row)?) {
            (None, _) => Content::Nothing,
            (Some((first_time, last_time)), Some(sum)) => {
                let value = |name: &str| self.double_at(name, row)?.ok_or_else(|| missing(name));
                let (min, max) = (value("value_min")?, value("value_max")?);
                let sketch = match self.bytes_at("sketch", row)? {
                    Some(bytes) => Sketch::decode(&bytes)?,
                    None => constant_sketch(min, samples),
                };
                Content::Numbers(Box::new(Numbers {
                    first: Sample { time: first_time, start: starts.0, value: value("first")? },
                    last: Sample { time: last_time, start: starts.1, value: value("last")? },
                    sum,
                    min,
                    max,
                    increase: self.double_at("increase", row)?,
                    sketch,
                }))
            }
            (Some((first_time, last_time)), None) => {
                let state = |name: &str| Distribution::decode(&self.bytes_at(name, row)?.ok_or_else(|| missing(name))?);
                let count = self.count_at("count", row)?.ok_or_else(|| missing("count"))?;
                Content::Distributions(Box::new(Distributions {
                    first: Sample { time: first_time, start: starts.0, value: state("first_distribution")? },
                    last: Sample { time: last_time, start: starts.1, value: state("last_distribution")? },
                    increase: Distribution { count, sum: self.double_at("sum", row)?, buckets: self.buckets(row)? },
                    min: self.double_at("min", row)?,
                    max: self.double_at("max", row)?,
                }))
            }
        };
        Ok(Window {
            samples,
            stale: self.count_at("stale", row)?.unwrap_or(0),
            stale_time: self.time_at("stale_time", row)?,
            resets: self.count_at("resets", row)?.unwrap_or(0),
            arrival: self.arrival.value(row),
            content,
        })
    }

    fn buckets(&self, row: usize) -> Result<Buckets> {
        let integer = |name: &str| -> Result<Option<i32>> {
            let column: &Int32Array = column(&self.batch, name)?.as_primitive();
            Ok(column.is_valid(row).then(|| column.value(row)))
        };
        let Some(scale) = integer("scale")? else {
            let bounds: Vec<f64> = self
                .list_at("explicit_bounds", row)?
                .map_or_else(Vec::new, |list| list.as_primitive::<Float64Type>().values().to_vec());
            return Ok(Buckets::Explicit { bounds, counts: self.counts_at("bucket_counts", row)? });
        };
        let side = |offset: &str, counts: &str| -> Result<Side> {
            Ok(Side { offset: integer(offset)?.unwrap_or(0), counts: self.counts_at(counts, row)? })
        };
        Ok(Buckets::Exponential(Exponential {
            scale,
            zero_count: self.count_at("zero_count", row)?.unwrap_or(0),
            zero_threshold: self.double_at("zero_threshold", row)?.unwrap_or(0.0),
            positive: side("positive_offset", "positive_counts")?,
            negative: side("negative_offset", "negative_counts")?,
        }))
    }

    fn double_at(&self, name: &str, row: usize) -> Result<Option<f64>> {
        let column: &Float64Array = column(&self.batch, name)?.as_primitive();
        Ok(column.is_valid(row).then(|| column.value(row)))
    }

    fn count_at(&self, name: &str, row: usize) -> Result<Option<u64>> {
        let column: &UInt64Array = column(&self.batch, name)?.as_primitive();
        Ok(column.is_valid(row).then(|| column.value(row)))
    }

    fn time_at(&self, name: &str, row: usize) -> Result<Option<i64>> {
        let column = column(&self.batch, name)?.as_primitive::<TimestampNanosecondType>();
        Ok(column.is_valid(row).then(|| column.value(row)))
    }

    fn bytes_at(&self, name: &str, row: usize) -> Result<Option<Vec<u8>>> {
        let column = column(&self.batch, name)?.as_binary::<i32>();
        Ok(column.is_valid(row).then(|| column.value(row).to_vec()))
    }

    fn list_at(&self, name: &str, row: usize) -> Result<Option<ArrayRef>> {
        let column: &ListArray = column(&self.batch, name)?.as_list();
        Ok(column.is_valid(row).then(|| column.value(row)))
    }

    fn counts_at(&self, name: &str, row: usize) -> Result<Vec<u64>> {
        let list = self.list_at(name, row)?;
        Ok(list.map_or_else(Vec::new, |list| list.as_primitive::<UInt64Type>().values().to_vec()))
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| corrupt(SUBJECT, format!("no column {name}")))
}

/// The sketch of a window whose values are all the same, which has none in the file.
fn constant_sketch(value: f64, count: u64) -> Sketch {
    let mut sketch = Sketch::default();
    sketch.add(value, count);
    sketch
}

/// The columns of windows, in the order of [`rollup_fields`] without the labels.
pub(crate) struct WindowColumns {
    time: TimestampNanosecondBuilder,
    arrival: TimestampNanosecondBuilder,
    /// samples, stale, resets.
    totals: [UInt64Builder; 3],
    /// stale, first, first start, last, last start.
    times: [TimestampNanosecondBuilder; 5],
    /// first, last, value_sum, value_min, value_max, increase.
    values: [Float64Builder; 6],
    sketch: BinaryBuilder,
    count: UInt64Builder,
    /// sum, min, max.
    extremes: [Float64Builder; 3],
    bucket_counts: ListBuilder<UInt64Builder>,
    explicit_bounds: ListBuilder<Float64Builder>,
    scale: Int32Builder,
    zero_count: UInt64Builder,
    zero_threshold: Float64Builder,
    offsets: [Int32Builder; 2],
    sides: [ListBuilder<UInt64Builder>; 2],
    /// first, last.
    states: [BinaryBuilder; 2],
    rows: usize,
}

impl Default for WindowColumns {
    fn default() -> Self {
        let time = || TimestampNanosecondBuilder::new().with_timezone("UTC");
        let counts = || ListBuilder::new(UInt64Builder::new()).with_field(element(DataType::UInt64));
        Self {
            time: time(),
            arrival: time(),
            totals: Default::default(),
            times: [time(), time(), time(), time(), time()],
            values: Default::default(),
            sketch: BinaryBuilder::new(),
            count: UInt64Builder::new(),
            extremes: Default::default(),
            bucket_counts: counts(),
            explicit_bounds: ListBuilder::new(Float64Builder::new()).with_field(element(DataType::Float64)),
            scale: Int32Builder::new(),
            zero_count: UInt64Builder::new(),
            zero_threshold: Float64Builder::new(),
            offsets: Default::default(),
            sides: [counts(), counts()],
            states: Default::default(),
            rows: 0,
        }
    }
}

fn element(kind: DataType) -> Arc<Field> {
    Arc::new(Field::new("element", kind, false))
}

impl WindowColumns {
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds the window that ends at `end`.
    pub(crate) fn push(&mut self, end: i64, window: &Window) {
        self.rows += 1;
        self.time.append_value(end);
        self.arrival.append_value(window.arrival);
        for (builder, total) in self.totals.iter_mut().zip([window.samples, window.stale, window.resets]) {
            builder.append_value(total);
        }
        let (numbers, distributions) = match &window.content {
            Content::Nothing => (None, None),
            Content::Numbers(numbers) => (Some(numbers.as_ref()), None),
            Content::Distributions(distributions) => (None, Some(distributions.as_ref())),
        };
        let ends = numbers
            .map(|numbers| [&numbers.first, &numbers.last].map(|sample| (sample.time, sample.start)))
            .or_else(|| distributions.map(|all| [&all.first, &all.last].map(|sample| (sample.time, sample.start))));
        let mut times = [window.stale_time, None, None, None, None];
        if let Some([first, last]) = ends {
            times = [window.stale_time, Some(first.0), first.1, Some(last.0), last.1];
        }
        self.times.iter_mut().zip(times).for_each(|(builder, time)| builder.append_option(time));
        self.push_numbers(numbers, window.samples);
        self.push_distributions(distributions);
    }

    fn push_numbers(&mut self, numbers: Option<&Numbers>, samples: u64) {
        let values = numbers.map_or([None; 6], |numbers| {
            let Numbers { first, last, sum, min, max, increase, .. } = numbers;
            [Some(first.value), Some(last.value), Some(*sum), Some(*min), Some(*max), *increase]
        });
        self.values.iter_mut().zip(values).for_each(|(builder, value)| builder.append_option(value));
        // Equal values need no sketch: it follows from the smallest value and the number of samples.
        let sketch = numbers.filter(|numbers| numbers.sketch != constant_sketch(numbers.min, samples));
        self.sketch.append_option(sketch.map(|numbers| numbers.sketch.encode()));
    }

    fn push_distributions(&mut self, distributions: Option<&Distributions>) {
        self.count.append_option(distributions.map(|all| all.increase.count));
        let extremes = distributions.map_or([None; 3], |all| [all.increase.sum, all.min, all.max]);
        self.extremes.iter_mut().zip(extremes).for_each(|(builder, value)| builder.append_option(value));
        let explicit = distributions.and_then(|all| match &all.increase.buckets {
            Buckets::Explicit { bounds, counts } => Some((bounds, counts)),
            Buckets::Exponential(_) => None,
        });
        push_list(&mut self.bucket_counts, explicit.map(|(_, counts)| counts.as_slice()));
        match explicit {
            Some((bounds, _)) => {
                self.explicit_bounds.values().append_slice(bounds);
                self.explicit_bounds.append(true);
            }
            None => self.explicit_bounds.append(false),
        }
        let exponential = distributions.and_then(|all| match &all.increase.buckets {
            Buckets::Exponential(exponential) => Some(exponential),
            Buckets::Explicit { .. } => None,
        });
        self.scale.append_option(exponential.map(|all| all.scale));
        self.zero_count.append_option(exponential.map(|all| all.zero_count));
        self.zero_threshold.append_option(exponential.map(|all| all.zero_threshold));
        let sides = exponential.map(|all| [&all.positive, &all.negative]);
        for place in 0..2 {
            let side = sides.map(|sides| sides[place]);
            self.offsets[place].append_option(side.map(|side| side.offset));
            push_list(&mut self.sides[place], side.map(|side| side.counts.as_slice()));
        }
        let states = distributions.map(|all| [&all.first.value, &all.last.value].map(Distribution::encode));
        match states {
            Some(states) => self.states.iter_mut().zip(states).for_each(|(builder, state)| builder.append_value(state)),
            None => self.states.iter_mut().for_each(BinaryBuilder::append_null),
        }
    }

    /// Every column with its name.
    pub(crate) fn finish(&mut self) -> Vec<(&'static str, ArrayRef)> {
        self.rows = 0;
        let mut out: Vec<(&'static str, ArrayRef)> =
            vec![("time", Arc::new(self.time.finish())), ("arrival_time", Arc::new(self.arrival.finish()))];
        for (name, builder) in ["samples", "stale", "resets"].into_iter().zip(&mut self.totals) {
            out.push((name, Arc::new(builder.finish())));
        }
        let times = ["stale_time", "first_time", "first_start_time", "last_time", "last_start_time"];
        for (name, builder) in times.into_iter().zip(&mut self.times) {
            out.push((name, Arc::new(builder.finish())));
        }
        let values = ["first", "last", "value_sum", "value_min", "value_max", "increase"];
        for (name, builder) in values.into_iter().zip(&mut self.values) {
            out.push((name, Arc::new(builder.finish())));
        }
        out.push(("sketch", Arc::new(self.sketch.finish())));
        out.push(("count", Arc::new(self.count.finish())));
        for (name, builder) in ["sum", "min", "max"].into_iter().zip(&mut self.extremes) {
            out.push((name, Arc::new(builder.finish())));
        }
        out.push(("bucket_counts", Arc::new(self.bucket_counts.finish())));
        out.push(("explicit_bounds", Arc::new(self.explicit_bounds.finish())));
        out.push(("scale", Arc::new(self.scale.finish())));
        out.push(("zero_count", Arc::new(self.zero_count.finish())));
        out.push(("zero_threshold", Arc::new(self.zero_threshold.finish())));
        for (name, builder) in ["positive_offset", "negative_offset"].into_iter().zip(&mut self.offsets) {
            out.push((name, Arc::new(builder.finish())));
        }
        for (name, builder) in ["positive_counts", "negative_counts"].into_iter().zip(&mut self.sides) {
            out.push((name, Arc::new(builder.finish())));
        }
        for (name, builder) in ["first_distribution", "last_distribution"].into_iter().zip(&mut self.states) {
            out.push((name, Arc::new(builder.finish())));
        }
        out
    }
}

fn push_list(builder: &mut ListBuilder<UInt64Builder>, counts: Option<&[u64]>) {
    if let Some(counts) = counts {
        builder.values().append_slice(counts);
    }
    builder.append(counts.is_some());
}
