//! The core columns of metric data points. What all points of a metric share is stored once and pointed at.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StructArray};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, TimestampNanosecondType, UInt32Type, UInt64Type};
use hashbrown::HashMap;

use super::columns::{BoolColumn, IdColumn, ListColumn, NumberColumn, Placement, TextColumn, build_list};
use super::tables::push_count;
use super::time::stored_time;
use crate::json::{write_attributes, write_display, write_double, write_member};
use crate::otlp::metrics::{ExemplarRow, MetricKind, MetricRow, Number, PointRow, temporality_name};
use crate::otlp::value::AnyRef;
use crate::schema::{list_of, quantile_fields, timestamp_type};

/// Data points of one partition that are not written yet.
#[derive(Debug, Default)]
pub(crate) struct PointColumns {
    metrics: MetricTable,
    /// For each row its metric.
    metric: Vec<u32>,
    start_time: NumberColumn<TimestampNanosecondType>,
    value: NumberColumn<Float64Type>,
    value_int: NumberColumn<Int64Type>,
    flags: NumberColumn<UInt32Type>,
    series: IdColumn<16>,
    count: NumberColumn<UInt64Type>,
    sum: NumberColumn<Float64Type>,
    min: NumberColumn<Float64Type>,
    max: NumberColumn<Float64Type>,
    bucket_counts: ListColumn<UInt64Type>,
    explicit_bounds: ListColumn<Float64Type>,
    scale: NumberColumn<Int32Type>,
    zero_count: NumberColumn<UInt64Type>,
    zero_threshold: NumberColumn<Float64Type>,
    positive_offset: NumberColumn<Int32Type>,
    positive_counts: ListColumn<UInt64Type>,
    negative_offset: NumberColumn<Int32Type>,
    negative_counts: ListColumn<UInt64Type>,
    quantiles: QuantileColumns,
    exemplars: TextColumn,
}

#[derive(Debug, Default)]
struct QuantileColumns {
    rows: Vec<u32>,
    ends: Vec<usize>,
    quantile: Vec<f64>,
    value: Vec<f64>,
}

/// The metrics that rows point at, by equality of all they say.
#[derive(Debug, Default)]
struct MetricTable {
    by_identity: HashMap<Box<[u8]>, u32, ahash::RandomState>,
    identity: Vec<u8>,
    name: TextColumn,
    description: TextColumn,
    unit: TextColumn,
    kind: TextColumn,
    temporality: TextColumn,
    is_monotonic: BoolColumn,
    metadata: TextColumn,
}

impl MetricTable {
    fn entry(&mut self, metric: &MetricRow<'_>) -> u32 {
        self.identity.clear();
        for text in [metric.name, metric.description, metric.unit] {
            self.identity.extend_from_slice(&(text.len() as u64).to_le_bytes());
            self.identity.extend_from_slice(text.as_bytes());
        }
        self.identity.push(metric.kind as u8);
        self.identity.extend_from_slice(&metric.temporality.to_le_bytes());
        self.identity.push(u8::from(metric.is_monotonic));
        let metadata_from = self.identity.len();
        if !metric.metadata.is_empty() {
            write_attributes(&mut self.identity, &metric.metadata);
        }
        if let Some(entry) = self.by_identity.get(self.identity.as_slice()) {
            return *entry;
        }
        let entry = self.by_identity.len() as u32;
        self.by_identity.insert(self.identity.as_slice().into(), entry);
        self.name.push(entry, metric.name);
        self.description.push_some(entry, metric.description);
        self.unit.push_some(entry, metric.unit);
        self.kind.push(entry, metric.kind.as_str());
        self.temporality.push_some(entry, temporality_name(metric.temporality).unwrap_or_default());
        if metric.kind == MetricKind::Sum {
            self.is_monotonic.push(entry, metric.is_monotonic);
        }
        if !metric.metadata.is_empty() {
            self.metadata.push_written(entry, |out| out.extend_from_slice(&self.identity[metadata_from..]));
        }
        entry
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl PointColumns {
    /// The entry of `metric`, to be given to `push` with each of its points.
    pub(crate) fn metric(&mut self, metric: &MetricRow<'_>) -> u32 {
        self.metrics.entry(metric)
    }

    #[inline]
    pub(crate) fn push(&mut self, row: u32, metric: u32, series: &[u8; 16], point: &PointRow<'_>) {
        self.metric.push(metric);
        self.start_time.push_some(row, stored_time(point.start_time));
        match point.number {
            Some(Number::Double(value)) => self.value.push(row, value),
            Some(Number::Int(value)) => {
                self.value.push(row, value as f64);
                self.value_int.push(row, value);
            }
            None => {}
        }
        push_count(&mut self.flags, row, point.flags);
        self.series.push_some(row, Some(series));
        if point.count.is_some() {
            self.push_distribution(row, point);
        }
        if !point.exemplars.is_empty() {
            self.exemplars.push_written(row, |out| write_exemplars(out, &point.exemplars));
        }
    }

    fn push_distribution(&mut self, row: u32, point: &PointRow<'_>) {
        self.count.push_some(row, point.count);
        self.sum.push_some(row, point.sum);
        self.min.push_some(row, point.min);
        self.max.push_some(row, point.max);
        if !point.bucket_counts.is_empty() {
            self.bucket_counts.push(row, point.bucket_counts.iter().copied());
            self.explicit_bounds.push(row, point.explicit_bounds.iter().copied().map(f64::from_bits));
        }
        self.scale.push_some(row, point.scale);
        self.zero_count.push_some(row, point.zero_count);
        self.zero_threshold.push_some(row, point.zero_threshold);
        if let Some(offset) = point.positive {
            self.positive_offset.push(row, offset);
            self.positive_counts.push(row, point.positive_counts.iter().copied());
        }
        if let Some(offset) = point.negative {
            self.negative_offset.push(row, offset);
            self.negative_counts.push(row, point.negative_counts.iter().copied());
        }
        if !point.quantiles.is_empty() {
            self.quantiles.push(row, &point.quantiles);
        }
    }

    /// Arrays in the order of the schema.
    pub(crate) fn build(&mut self, rows: Placement<'_>, out: &mut Vec<ArrayRef>) {
        let source: Vec<u32> = match rows.source {
            None => self.metric.clone(),
            Some(order) => order.iter().map(|row| self.metric[*row as usize]).collect(),
        };
        let shared = Placement { rows: self.metrics.by_identity.len(), source: Some(&source) };
        let float_list = list_of(DataType::Float64);
        let count_list = list_of(DataType::UInt64);
        out.push(self.metrics.name.build(shared));
        out.push(self.metrics.description.build(shared));
        out.push(self.metrics.unit.build(shared));
        out.push(self.metrics.kind.build(shared));
        out.push(self.metrics.temporality.build(shared));
        out.push(self.metrics.is_monotonic.build(shared));
        out.push(self.start_time.build(rows, &timestamp_type()));
        out.push(self.value.build(rows, &DataType::Float64));
        out.push(self.value_int.build(rows, &DataType::Int64));
        out.push(self.flags.build(rows, &DataType::UInt32));
        out.push(self.series.build(rows));
        out.push(self.count.build(rows, &DataType::UInt64));
        out.push(self.sum.build(rows, &DataType::Float64));
        out.push(self.min.build(rows, &DataType::Float64));
        out.push(self.max.build(rows, &DataType::Float64));
        out.push(self.bucket_counts.build(rows, &count_list));
        out.push(self.explicit_bounds.build(rows, &float_list));
        out.push(self.scale.build(rows, &DataType::Int32));
        out.push(self.zero_count.build(rows, &DataType::UInt64));
        out.push(self.zero_threshold.build(rows, &DataType::Float64));
        out.push(self.positive_offset.build(rows, &DataType::Int32));
        out.push(self.positive_counts.build(rows, &count_list));
        out.push(self.negative_offset.build(rows, &DataType::Int32));
        out.push(self.negative_counts.build(rows, &count_list));
        out.push(self.quantiles.build(rows));
        out.push(self.exemplars.build_long(rows));
        out.push(self.metrics.metadata.build(shared));
    }

    pub(crate) fn clear(&mut self) {
        self.metrics.clear();
        self.metric.clear();
        self.start_time.clear();
        self.value.clear();
        self.value_int.clear();
        self.flags.clear();
        self.series.clear();
        self.count.clear();
        self.sum.clear();
        self.min.clear();
        self.max.clear();
        self.bucket_counts.clear();
        self.explicit_bounds.clear();
        self.scale.clear();
        self.zero_count.clear();
        self.zero_threshold.clear();
        self.positive_offset.clear();
        self.positive_counts.clear();
        self.negative_offset.clear();
        self.negative_counts.clear();
        self.quantiles = QuantileColumns::default();
        self.exemplars.clear();
    }
}

impl QuantileColumns {
    fn push(&mut self, row: u32, quantiles: &[(f64, f64)]) {
        if self.ends.is_empty() {
            self.ends.push(0);
        }
        for (quantile, value) in quantiles {
            self.quantile.push(*quantile);
            self.value.push(*value);
        }
        self.rows.push(row);
        self.ends.push(self.quantile.len());
    }

    fn build(&self, rows: Placement<'_>) -> ArrayRef {
        let arrays: Vec<ArrayRef> =
            vec![Arc::new(Float64Array::from(self.quantile.clone())), Arc::new(Float64Array::from(self.value.clone()))];
        let array = StructArray::new(quantile_fields(), arrays, None);
        build_list(&self.rows, &self.ends, Arc::new(array), rows, &list_of(DataType::Struct(quantile_fields())))
    }
}

/// A JSON array of `{"time":ns,"value":…,"trace_id":hex,"span_id":hex,"attributes":{…}}`, absent members left out.
fn write_exemplars(out: &mut Vec<u8>, exemplars: &[ExemplarRow<'_>]) {
    for (place, exemplar) in exemplars.iter().enumerate() {
        out.extend_from_slice(if place == 0 { b"[{\"time\":" } else { b",{\"time\":" });
        write_display(out, exemplar.time);
        match exemplar.number {
            Some(Number::Int(value)) => {
                out.extend_from_slice(b",\"value\":");
                write_display(out, value);
            }
            Some(Number::Double(value)) => {
                out.extend_from_slice(b",\"value\":");
                write_double(out, value);
            }
            None => {}
        }
        for (name, id) in
            [("trace_id", exemplar.trace_id.map(hex::encode)), ("span_id", exemplar.span_id.map(hex::encode))]
        {
            if let Some(id) = id {
                out.push(b',');
                write_member(out, name, AnyRef::String(&id));
            }
        }
        if !exemplar.attributes.is_empty() {
            out.extend_from_slice(b",\"attributes\":");
            write_attributes(out, &exemplar.attributes);
        }
        out.push(b'}');
    }
    out.push(b']');
}
