//! `Metric` and its data points of five kinds.

use super::fault::{Fault, InField};
use super::value::{AnyRef, Attribute};
use super::wire::{Fields, Wire};
use super::{decode_id, push_attribute};

/// What all points of a `Metric` message share.
#[derive(Debug)]
pub(crate) struct MetricRow<'a> {
    pub name: &'a str,
    pub description: &'a str,
    pub unit: &'a str,
    pub kind: MetricKind,
    pub temporality: i32,
    pub is_monotonic: bool,
    pub metadata: Vec<Attribute<'a>>,
    /// The bytes of the `Gauge`, `Sum` … message.
    pub data: &'a [u8],
}

impl MetricRow<'_> {
    /// About how many bytes its description takes, which every point repeats in the file.
    pub(crate) fn described_bytes(&self) -> usize {
        let metadata = self.metadata.iter().map(|(key, value)| {
            key.len()
                + match value {
                    AnyRef::String(text) => text.len(),
                    AnyRef::Bytes(bytes) | AnyRef::Array(bytes) | AnyRef::Map(bytes) => bytes.len(),
                    _ => 8,
                }
        });
        self.name.len() + self.description.len() + self.unit.len() + metadata.sum::<usize>()
    }
}

/// Which `data` a metric has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetricKind {
    Gauge,
    Sum,
    Histogram,
    ExponentialHistogram,
    Summary,
}

impl MetricKind {
    /// The name in the column `kind`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Sum => "sum",
            Self::Histogram => "histogram",
            Self::ExponentialHistogram => "exponential_histogram",
            Self::Summary => "summary",
        }
    }

    /// The field's name in OTLP/JSON, for paths.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Sum => "sum",
            Self::Histogram => "histogram",
            Self::ExponentialHistogram => "exponentialHistogram",
            Self::Summary => "summary",
        }
    }
}

/// The name of an aggregation temporality as the column holds it, `None` when there is none.
pub(crate) fn temporality_name(temporality: i32) -> Option<&'static str> {
    match temporality {
        1 => Some("delta"),
        2 => Some("cumulative"),
        _ => None,
    }
}

/// A number that keeps its exact type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Int(i64),
    Double(f64),
}

/// One data point of any kind; what its kind lacks stays empty.
#[derive(Debug, Default)]
pub(crate) struct PointRow<'a> {
    /// Bytes of the message.
    pub size: usize,
    pub attributes: PointAttributes<'a>,
    pub start_time: u64,
    pub time: u64,
    pub number: Option<Number>,
    pub count: Option<u64>,
    pub sum: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub bucket_counts: Vec<u64>,
    /// Bit patterns of doubles.
    pub explicit_bounds: Vec<u64>,
    pub scale: Option<i32>,
    pub zero_count: Option<u64>,
    pub zero_threshold: Option<f64>,
    pub positive: Option<i32>,
    pub positive_counts: Vec<u64>,
    pub negative: Option<i32>,
    pub negative_counts: Vec<u64>,
    /// Quantile and value.
    pub quantiles: Vec<(f64, f64)>,
    pub exemplars: Vec<ExemplarRow<'a>>,
    pub flags: u32,
}

/// The attributes of a point, as they are and as they were sent.
#[derive(Debug, Default)]
pub(crate) struct PointAttributes<'a> {
    list: Vec<Attribute<'a>>,
    /// From the first attribute's content to the end of the last one's. Where this and `first_len` are equal, the attributes are.
    pub raw: &'a [u8],
    /// Length of the first attribute's content, with which `raw` begins.
    pub first_len: usize,
}

impl<'a> std::ops::Deref for PointAttributes<'a> {
    type Target = [Attribute<'a>];

    fn deref(&self) -> &Self::Target {
        &self.list
    }
}

impl<'a> PointAttributes<'a> {
    /// Adds the attribute in `wire`, which borrows from `point`.
    #[inline]
    fn push(&mut self, point: &'a [u8], wire: Wire<'a>) -> Result<(), Fault> {
        if let Wire::Bytes(content) = wire {
            let place = |bytes: &[u8]| bytes.as_ptr() as usize - point.as_ptr() as usize;
            let start = if self.list.is_empty() { place(content) } else { place(self.raw) };
            if self.list.is_empty() {
                self.first_len = content.len();
            }
            self.raw = &point[start..place(content) + content.len()];
        }
        push_attribute(&mut self.list, wire)
    }

    fn clear(&mut self) {
        self.list.clear();
        self.raw = &[];
        self.first_len = 0;
    }
}

/// An exemplar of a point.
#[derive(Debug, Default)]
pub(crate) struct ExemplarRow<'a> {
    pub attributes: Vec<Attribute<'a>>,
    pub time: u64,
    pub number: Option<Number>,
    pub trace_id: Option<&'a [u8; 16]>,
    pub span_id: Option<&'a [u8; 8]>,
}

/// Decodes a `Metric` message up to its points; `None` when it has no data that we know.
pub(crate) fn decode_metric(message: &[u8]) -> Result<Option<MetricRow<'_>>, Fault> {
    let (mut name, mut description, mut unit) = ("", "", "");
    let mut data = None;
    let mut metadata = Vec::new();
    let mut fields = Fields::of(message);
    while let Some((number, wire)) = fields.next()? {
        let kind = match number {
            1 => {
                name = wire.text().in_field("name")?;
                continue;
            }
            2 => {
                description = wire.text().in_field("description")?;
                continue;
            }
            3 => {
                unit = wire.text().in_field("unit")?;
                continue;
            }
            5 => MetricKind::Gauge,
            7 => MetricKind::Sum,
            9 => MetricKind::Histogram,
            10 => MetricKind::ExponentialHistogram,
            11 => MetricKind::Summary,
            12 => {
                push_attribute(&mut metadata, wire).map_err(|fault| fault.within("metadata"))?;
                continue;
            }
            _ => continue,
        };
        data = Some((kind, wire.bytes().in_field(kind.field())?));
    }
    let Some((kind, data)) = data else { return Ok(None) };
    let mut metric = MetricRow { name, description, unit, kind, temporality: 0, is_monotonic: false, metadata, data };
    let mut fields = Fields::of(data);
    while let Some((number, wire)) = fields.next().in_field(kind.field())? {
        match (number, kind) {
            (2, MetricKind::Sum | MetricKind::Histogram | MetricKind::ExponentialHistogram) => {
                metric.temporality = wire.int32().in_field("aggregationTemporality").in_field(kind.field())?;
            }
            (3, MetricKind::Sum) => {
                metric.is_monotonic = wire.varint().in_field("isMonotonic").in_field(kind.field())? != 0;
            }
            _ => {}
        }
    }
    Ok(Some(metric))
}

impl<'a> PointRow<'a> {
    /// Makes this the row of a data point `message` of a metric of `kind`, keeping its allocations.
    pub(crate) fn decode(&mut self, kind: MetricKind, message: &'a [u8]) -> Result<(), Fault> {
        self.reset(message.len());
        match kind {
            MetricKind::Gauge | MetricKind::Sum => self.decode_number(message),
            MetricKind::Histogram => self.decode_histogram(message),
            MetricKind::ExponentialHistogram => self.decode_exponential(message),
            MetricKind::Summary => self.decode_summary(message),
        }
    }

    fn reset(&mut self, size: usize) {
        let mut kept = std::mem::take(self);
        kept.attributes.clear();
        kept.bucket_counts.clear();
        kept.explicit_bounds.clear();
        kept.positive_counts.clear();
        kept.negative_counts.clear();
        kept.quantiles.clear();
        kept.exemplars.clear();
        *self = Self {
            size,
            attributes: kept.attributes,
            bucket_counts: kept.bucket_counts,
            explicit_bounds: kept.explicit_bounds,
            positive_counts: kept.positive_counts,
            negative_counts: kept.negative_counts,
            quantiles: kept.quantiles,
            exemplars: kept.exemplars,
            ..Self::default()
        };
    }

    fn decode_number(&mut self, message: &'a [u8]) -> Result<(), Fault> {
        let mut fields = Fields::of(message);
        while let Some((number, wire)) = fields.next()? {
            match number {
                2 => self.start_time = wire.fixed64().in_field("startTimeUnixNano")?,
                3 => self.time = wire.fixed64().in_field("timeUnixNano")?,
                4 => self.number = Some(Number::Double(wire.double().in_field("asDouble")?)),
                5 => self.push_exemplar(wire)?,
                6 => self.number = Some(Number::Int(wire.fixed64().in_field("asInt")? as i64)),
                7 => self.attributes.push(message, wire)?,
                8 => self.flags = wire.uint32().in_field("flags")?,
                _ => {}
            }
        }
        Ok(())
    }

    fn decode_histogram(&mut self, message: &'a [u8]) -> Result<(), Fault> {
        self.count = Some(0);
        let mut fields = Fields::of(message);
        while let Some((number, wire)) = fields.next()? {
            match number {
                2 => self.start_time = wire.fixed64().in_field("startTimeUnixNano")?,
                3 => self.time = wire.fixed64().in_field("timeUnixNano")?,
                4 => self.count = Some(wire.fixed64().in_field("count")?),
                5 => self.sum = Some(wire.double().in_field("sum")?),
                6 => wire.extend_fixed64(&mut self.bucket_counts).in_field("bucketCounts")?,
                7 => wire.extend_fixed64(&mut self.explicit_bounds).in_field("explicitBounds")?,
                8 => self.push_exemplar(wire)?,
                9 => self.attributes.push(message, wire)?,
                10 => self.flags = wire.uint32().in_field("flags")?,
                11 => self.min = Some(wire.double().in_field("min")?),
                12 => self.max = Some(wire.double().in_field("max")?),
                _ => {}
            }
        }
        let (counts, bounds) = (self.bucket_counts.len(), self.explicit_bounds.len());
        if counts == bounds + 1 || (counts == 0 && bounds == 0) {
            return Ok(());
        }
        Err(Fault::new(format!("{counts} bucket counts for {bounds} bounds, expected one more than bounds"))
            .within("bucketCounts"))
    }

    fn decode_exponential(&mut self, message: &'a [u8]) -> Result<(), Fault> {
        (self.count, self.scale, self.zero_count) = (Some(0), Some(0), Some(0));
        let mut fields = Fields::of(message);
        while let Some((number, wire)) = fields.next()? {
            match number {
                1 => self.attributes.push(message, wire)?,
                2 => self.start_time = wire.fixed64().in_field("startTimeUnixNano")?,
                3 => self.time = wire.fixed64().in_field("timeUnixNano")?,
                4 => self.count = Some(wire.fixed64().in_field("count")?),
                5 => self.sum = Some(wire.double().in_field("sum")?),
                6 => self.scale = Some(wire.sint32().in_field("scale")?),
                7 => self.zero_count = Some(wire.fixed64().in_field("zeroCount")?),
                8 => self.positive = Some(decode_buckets(wire, &mut self.positive_counts).in_field("positive")?),
                9 => self.negative = Some(decode_buckets(wire, &mut self.negative_counts).in_field("negative")?),
                10 => self.flags = wire.uint32().in_field("flags")?,
                11 => self.push_exemplar(wire)?,
                12 => self.min = Some(wire.double().in_field("min")?),
                13 => self.max = Some(wire.double().in_field("max")?),
                14 => self.zero_threshold = Some(wire.double().in_field("zeroThreshold")?),
                _ => {}
            }
        }
        Ok(())
    }

    fn decode_summary(&mut self, message: &'a [u8]) -> Result<(), Fault> {
        (self.count, self.sum) = (Some(0), Some(0.0));
        let mut fields = Fields::of(message);
        while let Some((number, wire)) = fields.next()? {
            match number {
                2 => self.start_time = wire.fixed64().in_field("startTimeUnixNano")?,
                3 => self.time = wire.fixed64().in_field("timeUnixNano")?,
                4 => self.count = Some(wire.fixed64().in_field("count")?),
                5 => self.sum = Some(wire.double().in_field("sum")?),
                6 => {
                    let place = self.quantiles.len();
                    let quantile = decode_quantile(wire).map_err(|fault| fault.within_item("quantileValues", place))?;
                    self.quantiles.push(quantile);
                }
                7 => self.attributes.push(message, wire)?,
                8 => self.flags = wire.uint32().in_field("flags")?,
                _ => {}
            }
        }
        Ok(())
    }

    fn push_exemplar(&mut self, wire: Wire<'a>) -> Result<(), Fault> {
        let exemplar = decode_exemplar(wire).map_err(|fault| fault.within_item("exemplars", self.exemplars.len()))?;
        self.exemplars.push(exemplar);
        Ok(())
    }
}

/// Decodes `Buckets` into `counts`; answers the offset.
fn decode_buckets(wire: Wire<'_>, counts: &mut Vec<u64>) -> Result<i32, Fault> {
    counts.clear();
    let mut offset = 0;
    let mut fields = Fields::of(wire.bytes()?);
    while let Some((number, wire)) = fields.next()? {
        match number {
            1 => offset = wire.sint32().in_field("offset")?,
            2 => wire.extend_varints(counts).in_field("bucketCounts")?,
            _ => {}
        }
    }
    Ok(offset)
}

fn decode_quantile(wire: Wire<'_>) -> Result<(f64, f64), Fault> {
    let (mut quantile, mut value) = (0.0, 0.0);
    let mut fields = Fields::of(wire.bytes()?);
    while let Some((number, wire)) = fields.next()? {
        match number {
            1 => quantile = wire.double().in_field("quantile")?,
            2 => value = wire.double().in_field("value")?,
            _ => {}
        }
    }
    Ok((quantile, value))
}

fn decode_exemplar(wire: Wire<'_>) -> Result<ExemplarRow<'_>, Fault> {
    let mut exemplar = ExemplarRow::default();
    let mut fields = Fields::of(wire.bytes()?);
    while let Some((number, wire)) = fields.next()? {
        match number {
            2 => exemplar.time = wire.fixed64().in_field("timeUnixNano")?,
            3 => exemplar.number = Some(Number::Double(wire.double().in_field("asDouble")?)),
            4 => exemplar.span_id = decode_id(wire, "spanId")?,
            5 => exemplar.trace_id = decode_id(wire, "traceId")?,
            6 => exemplar.number = Some(Number::Int(wire.fixed64().in_field("asInt")? as i64)),
            7 => push_attribute(&mut exemplar.attributes, wire).map_err(|fault| fault.within("filteredAttributes"))?,
            _ => {}
        }
    }
    Ok(exemplar)
}
