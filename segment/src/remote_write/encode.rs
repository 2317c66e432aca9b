//! Series with exact labels as an OTLP request.

use std::collections::BTreeMap;

use tidemill_text::prometheus::{FLOAT_COUNTS_FLAG, REMOTE_WRITE_SCOPE, RESET_HINT_SHIFT};

use super::{Malformed, STALE_NAN_BITS, WrittenExemplar, WrittenHistogram, WrittenSample, WrittenSeries};
use crate::otlp::writer::{
    close_message, open_message, put_attribute, put_bytes_field, put_fixed64_field, put_message_field, put_varint,
    put_varint_field,
};

const METRIC_NAME: &str = "__name__";
pub(super) const CUSTOM_SCHEMA: i32 = -53;
/// OTLP writes the buckets between the first and the last, the empty ones too; a wider histogram is refused.
pub(super) const MAX_WIDTH: i64 = 65_536;
pub(super) const NS_PER_MS: i64 = 1_000_000;
const CUMULATIVE: u64 = 2;
const NO_VALUE: u32 = 1;

/// An OTLP request of metrics that says what `series` say. Series with a job are of the service of that name.
///
/// # Errors
/// A series has no name, or a histogram that cannot be kept.
pub fn encode_otlp(series: &[WrittenSeries]) -> Result<Vec<u8>, Malformed> {
    let label = |series: &WrittenSeries, wanted: &str| {
        series.labels.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let mut by_job: BTreeMap<String, Vec<&WrittenSeries>> = BTreeMap::new();
    for series in series {
        by_job.entry(label(series, "job")).or_default().push(series);
    }
    let mut out = Vec::new();
    for (job, series) in by_job {
        let resource = open_message(&mut out, 1);
        put_message_field(&mut out, 1, |out| {
            if !job.is_empty() {
                put_attribute(out, 1, "service.name", |out| put_bytes_field(out, 1, job.as_bytes()));
            }
        });
        let scope = open_message(&mut out, 2);
        put_message_field(&mut out, 1, |out| put_bytes_field(out, 1, REMOTE_WRITE_SCOPE.as_bytes()));
        for series in series {
            put_series(&mut out, series)?;
        }
        close_message(&mut out, scope);
        close_message(&mut out, resource);
    }
    Ok(out)
}

fn put_series(out: &mut Vec<u8>, series: &WrittenSeries) -> Result<(), Malformed> {
    let name = series.labels.iter().find(|(name, _)| name == METRIC_NAME).map(|(_, value)| value.as_str());
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Err(Malformed { reason: format!("a series has no label {METRIC_NAME}: {:?}", series.labels) });
    };
    // The field of the kind of data, and what it says of all points.
    let mut put_metric = |field: u32, put_points: &mut dyn FnMut(&mut Vec<u8>), is_cumulative: bool| {
        let metric = open_message(out, 2);
        put_bytes_field(out, 1, name.as_bytes());
        for (number, text) in [(2, &series.help), (3, &series.unit)] {
            if !text.is_empty() {
                put_bytes_field(out, number, text.as_bytes());
            }
        }
        let data = open_message(out, field);
        put_points(out);
        if is_cumulative {
            put_varint_field(out, 2, CUMULATIVE);
        }
        if is_cumulative && field == 7 {
            put_varint_field(out, 3, 1);
        }
        close_message(out, data);
        close_message(out, metric);
    };
    if !series.samples.is_empty() {
        let field = if series.is_counter { 7 } else { 5 };
        let mut put = |out: &mut Vec<u8>| series.samples.iter().for_each(|sample| put_sample(out, series, sample));
        put_metric(field, &mut put, series.is_counter);
    }
    if !series.exemplars.is_empty() {
        // A point without a value, of a kind of its own, so that it replaces none.
        put_metric(7, &mut |out| put_exemplars(out, series), false);
    }
    for custom in [false, true] {
        for is_gauge in [false, true] {
            let is_of =
                |one: &&WrittenHistogram| (one.schema == CUSTOM_SCHEMA) == custom && (one.reset_hint == 3) == is_gauge;
            let of_kind: Vec<&WrittenHistogram> = series.histograms.iter().filter(is_of).collect();
            if of_kind.is_empty() {
                continue;
            }
            let mut failure = Ok(());
            let mut put = |out: &mut Vec<u8>| {
                for one in &of_kind {
                    let written = if custom { put_custom(out, series, one) } else { put_exponential(out, series, one) };
                    if let (Ok(()), Err(problem)) = (&failure, written) {
                        failure = Err(problem);
                    }
                }
            };
            put_metric(if custom { 9 } else { 10 }, &mut put, !is_gauge);
            failure?;
        }
    }
    Ok(())
}

fn put_labels(out: &mut Vec<u8>, number: u32, labels: &[(String, String)]) {
    for (name, value) in labels.iter().filter(|(name, _)| name != METRIC_NAME) {
        put_attribute(out, number, name, |out| put_bytes_field(out, 1, value.as_bytes()));
    }
}

fn put_times(out: &mut Vec<u8>, start_ms: i64, time_ms: i64) {
    if start_ms > 0 {
        put_fixed64_field(out, 2, start_ms.saturating_mul(NS_PER_MS) as u64);
    }
    put_fixed64_field(out, 3, time_ms.saturating_mul(NS_PER_MS).max(0) as u64);
}

fn put_sample(out: &mut Vec<u8>, series: &WrittenSeries, sample: &WrittenSample) {
    put_message_field(out, 1, |out| {
        put_times(out, sample.start_ms, sample.time_ms);
        put_labels(out, 7, &series.labels);
        if sample.value.to_bits() == STALE_NAN_BITS {
            put_varint_field(out, 8, u64::from(NO_VALUE));
        } else {
            put_fixed64_field(out, 4, sample.value.to_bits());
        }
    });
}

/// A point of each exemplar, at its time.
fn put_exemplars(out: &mut Vec<u8>, series: &WrittenSeries) {
    for exemplar in &series.exemplars {
        put_message_field(out, 1, |out| {
            put_times(out, 0, exemplar.time_ms);
            put_labels(out, 7, &series.labels);
            put_message_field(out, 5, |out| put_exemplar(out, exemplar));
        });
    }
}

fn put_exemplar(out: &mut Vec<u8>, exemplar: &WrittenExemplar) {
    put_fixed64_field(out, 2, exemplar.time_ms.saturating_mul(NS_PER_MS).max(0) as u64);
    put_fixed64_field(out, 3, exemplar.value.to_bits());
    put_labels(out, 7, &exemplar.labels);
}

/// How counts are written: as they are where all are whole, else by their bits, with a flag.
struct Counts {
    are_floats: bool,
}

impl Counts {
    fn of(histogram: &WrittenHistogram) -> Self {
        let all = [histogram.count, histogram.zero_count].into_iter();
        let buckets = histogram.positive.iter().chain(&histogram.negative).map(|(_, count)| *count);
        // Beyond 2^53 a float says less than an integer.
        let is_whole = |count: f64| (0.0..=9_007_199_254_740_992.0).contains(&count) && count.fract() == 0.0;
        Self { are_floats: !all.chain(buckets).all(is_whole) }
    }

    fn number(&self, count: f64) -> u64 {
        if self.are_floats { count.to_bits() } else { count as u64 }
    }

    /// What of the histogram the flags say.
    fn flags(&self, histogram: &WrittenHistogram) -> u32 {
        let is_stale = histogram.sum.to_bits() == STALE_NAN_BITS;
        let floats = if self.are_floats { FLOAT_COUNTS_FLAG } else { 0 };
        u32::from(is_stale) | floats | (histogram.reset_hint & 3) << RESET_HINT_SHIFT
    }

    /// The counts of all buckets from the first to the last, and the first's index.
    fn dense(&self, buckets: &[(i32, f64)]) -> Result<(i32, Vec<u64>), Malformed> {
        let (Some((first, _)), Some((last, _))) = (buckets.first(), buckets.last()) else { return Ok((0, Vec::new())) };
        let width = i64::from(*last) - i64::from(*first) + 1;
        if !(1..=MAX_WIDTH).contains(&width) {
            let reason = format!("a histogram has buckets from {first} to {last}; at most {MAX_WIDTH} are kept");
            return Err(Malformed { reason });
        }
        let mut counts = vec![self.number(0.0); width as usize];
        for (index, count) in buckets {
            let place = usize::try_from(i64::from(*index) - i64::from(*first)).ok();
            if let Some(slot) = place.and_then(|place| counts.get_mut(place)) {
                *slot = self.number(*count);
            }
        }
        Ok((*first, counts))
    }
}

fn put_exponential(out: &mut Vec<u8>, series: &WrittenSeries, one: &WrittenHistogram) -> Result<(), Malformed> {
    let counts = Counts::of(one);
    let (positive, negative) = (counts.dense(&one.positive)?, counts.dense(&one.negative)?);
    put_message_field(out, 1, |out| {
        put_labels(out, 1, &series.labels);
        put_times(out, one.start_ms, one.time_ms);
        put_fixed64_field(out, 4, counts.number(one.count));
        put_fixed64_field(out, 5, one.sum.to_bits());
        put_varint_field(out, 6, zigzag(one.schema));
        put_fixed64_field(out, 7, counts.number(one.zero_count));
        for (number, (first, buckets)) in [(8, &positive), (9, &negative)] {
            put_message_field(out, number, |out| {
                // Prometheus's bucket 1 is OpenTelemetry's bucket 0.
                put_varint_field(out, 1, zigzag(first.saturating_sub(1)));
                let mut packed = Vec::new();
                buckets.iter().for_each(|count| put_varint(&mut packed, *count));
                put_bytes_field(out, 2, &packed);
            });
        }
        put_varint_field(out, 10, u64::from(counts.flags(one)));
        put_fixed64_field(out, 14, one.zero_threshold.to_bits());
    });
    Ok(())
}

fn put_custom(out: &mut Vec<u8>, series: &WrittenSeries, one: &WrittenHistogram) -> Result<(), Malformed> {
    let counts = Counts::of(one);
    let width = one.bounds.len() + 1;
    let mut buckets = vec![counts.number(0.0); width];
    for (index, count) in &one.positive {
        let slot = usize::try_from(*index).ok().and_then(|index| buckets.get_mut(index));
        let slot = slot.ok_or_else(|| Malformed {
            reason: format!("a histogram has bucket {index}, and bounds for {width} buckets"),
        })?;
        *slot = counts.number(*count);
    }
    put_message_field(out, 1, |out| {
        put_times(out, one.start_ms, one.time_ms);
        put_fixed64_field(out, 4, counts.number(one.count));
        put_fixed64_field(out, 5, one.sum.to_bits());
        let packed = |values: &[u64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        put_bytes_field(out, 6, &packed(&buckets));
        let bounds: Vec<u64> = one.bounds.iter().map(|bound| bound.to_bits()).collect();
        put_bytes_field(out, 7, &packed(&bounds));
        put_labels(out, 9, &series.labels);
        put_varint_field(out, 10, u64::from(counts.flags(one)));
    });
    Ok(())
}

fn zigzag(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)) as u32)
}
