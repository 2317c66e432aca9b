//! The two versions of the protocol, read from bytes that anybody may have sent. What is wrong with a series or a sample loses that one
//! alone; what is wrong with the message around them, all of it.

use crate::otlp::fault::{Fault, InField as _};
use crate::otlp::wire::{Fields, Wire};

use super::check::{check_histogram, check_time};
use super::{Decoded, Malformed, Version, WrittenExemplar, WrittenHistogram, WrittenSample, WrittenSeries};

/// A histogram may have this many buckets a side.
const MAX_BUCKETS: usize = 20_000;
const METRIC_NAME: &str = "__name__";
/// The type of a metric that counts, in metadata of version 2.
const COUNTER: u64 = 1;

/// The series of a request, uncompressed, as it arrives at a time in milliseconds. Labels of series and exemplars are sorted by name,
/// and unique; series have a name, times are valid, and histograms are what Prometheus takes for such.
///
/// # Errors
/// What is wrong with the message itself, with its place.
pub fn decode(version: Version, body: &[u8], arrival_ms: i64) -> Result<Decoded, Malformed> {
    let mut reader = Reader { decoded: Decoded::default(), arrival_ms };
    let read = match version {
        Version::V1 => reader.read_v1(body),
        Version::V2 => reader.read_v2(body),
    };
    read.map_err(Malformed::of)?;
    Ok(reader.decoded)
}

/// Reads a request.
struct Reader {
    decoded: Decoded,
    arrival_ms: i64,
}

impl Reader {
    fn read_v1(&mut self, body: &[u8]) -> Result<(), Fault> {
        let mut place = 0;
        let mut fields = Fields::of(body);
        while let Some((number, wire)) = fields.next()? {
            if number == 1 {
                let series = wire.bytes().map_err(Fault::from).and_then(|message| self.series_v1(message));
                self.add(place, series);
                place += 1;
            }
        }
        Ok(())
    }

    fn series_v1(&self, message: &[u8]) -> Result<Sent, Fault> {
        let mut sent = Sent::default();
        let mut fields = Fields::of(message);
        while let Some((number, wire)) = fields.next()? {
            match number {
                1 => sent.series.labels.push(label(wire).in_field("labels")?),
                2 => sent.add_sample(sample(wire), self.arrival_ms),
                3 => sent.add_exemplar(exemplar(wire, None), self.arrival_ms),
                4 => sent.add_histogram(histogram(wire), self.arrival_ms),
                _ => {}
            }
        }
        sort_labels(&mut sent.series.labels)?;
        Ok(sent)
    }

    fn read_v2(&mut self, body: &[u8]) -> Result<(), Fault> {
        let mut symbols: Vec<&str> = Vec::new();
        let mut messages: Vec<&[u8]> = Vec::new();
        let mut fields = Fields::of(body);
        while let Some((number, wire)) = fields.next()? {
            match number {
                4 => symbols.push(wire.text().in_field("symbols")?),
                5 => messages.push(wire.bytes().in_field("timeseries")?),
                _ => {}
            }
        }
        if symbols.first().is_some_and(|first| !first.is_empty()) {
            return Err(Fault::new("the first symbol must be empty").within("symbols"));
        }
        for (place, message) in messages.into_iter().enumerate() {
            let series = self.series_v2(message, &symbols);
            self.add(place, series);
        }
        Ok(())
    }

    fn series_v2(&self, message: &[u8], symbols: &[&str]) -> Result<Sent, Fault> {
        let mut sent = Sent::default();
        let mut created = 0;
        let mut fields = Fields::of(message);
        while let Some((number, wire)) = fields.next()? {
            match number {
                1 => referenced(wire, symbols, &mut sent.series.labels)?,
                2 => sent.add_sample(sample(wire), self.arrival_ms),
                3 => sent.add_histogram(histogram(wire), self.arrival_ms),
                4 => sent.add_exemplar(exemplar(wire, Some(symbols)), self.arrival_ms),
                5 => metadata(wire, symbols, &mut sent.series).map_err(|fault| fault.within("metadata"))?,
                6 => created = wire.varint().in_field("created_timestamp")? as i64,
                _ => {}
            }
        }
        let series = &mut sent.series;
        let samples = series.samples.iter_mut().map(|sample| &mut sample.start_ms);
        let histograms = series.histograms.iter_mut().map(|histogram| &mut histogram.start_ms);
        for start in samples.chain(histograms).filter(|start| **start == 0) {
            *start = created;
        }
        sort_labels(&mut series.labels)?;
        Ok(sent)
    }

    /// Keeps what is right of a series.
    fn add(&mut self, place: usize, read: Result<Sent, Fault>) {
        let named = read.and_then(|sent| {
            let has_name = |(name, value): &(String, String)| name == METRIC_NAME && !value.is_empty();
            if sent.series.labels.iter().any(has_name) {
                return Ok(sent);
            }
            Err(Fault::new(format!("a series has no label {METRIC_NAME}: {:?}", sent.series.labels)))
        });
        let (series, faults) = match named {
            Ok(sent) => (Some(sent.series), sent.faults),
            Err(fault) => (None, vec![fault]),
        };
        for fault in faults {
            self.decoded.refuse(fault.within_item("timeseries", place));
        }
        self.decoded.series.extend(series);
    }
}

/// A series as it was sent, and what was wrong with its samples.
#[derive(Default)]
struct Sent {
    series: WrittenSeries,
    faults: Vec<Fault>,
}

impl Sent {
    fn add_sample(&mut self, read: Result<WrittenSample, Fault>, arrival_ms: i64) {
        let checked = read.and_then(|sample| check_time(sample.time_ms, arrival_ms).map(|()| sample));
        keep(&mut self.series.samples, checked, "samples", &mut self.faults);
    }

    fn add_histogram(&mut self, read: Result<WrittenHistogram, Fault>, arrival_ms: i64) {
        let checked = read.and_then(|histogram| check_time(histogram.time_ms, arrival_ms).map(|()| histogram));
        keep(&mut self.series.histograms, checked, "histograms", &mut self.faults);
    }

    fn add_exemplar(&mut self, read: Result<WrittenExemplar, Fault>, arrival_ms: i64) {
        let checked = read.and_then(|exemplar| check_time(exemplar.time_ms, arrival_ms).map(|()| exemplar));
        keep(&mut self.series.exemplars, checked, "exemplars", &mut self.faults);
    }
}

fn keep<T>(kept: &mut Vec<T>, checked: Result<T, Fault>, step: &str, faults: &mut Vec<Fault>) {
    match checked {
        Ok(one) => kept.push(one),
        Err(fault) => faults.push(fault.within(step)),
    }
}

fn label(wire: Wire<'_>) -> Result<(String, String), crate::otlp::wire::WireFault> {
    let (mut name, mut value) = (String::new(), String::new());
    let mut fields = Fields::of(wire.bytes()?);
    while let Some((number, wire)) = fields.next()? {
        match number {
            1 => name = wire.text()?.to_owned(),
            2 => value = wire.text()?.to_owned(),
            _ => {}
        }
    }
    Ok((name, value))
}

fn sample(wire: Wire<'_>) -> Result<WrittenSample, Fault> {
    let mut sample = WrittenSample { time_ms: 0, start_ms: 0, value: 0.0 };
    let mut fields = Fields::of(wire.bytes()?);
    while let Some((number, wire)) = fields.next()? {
        match number {
            1 => sample.value = wire.double().in_field("value")?,
            2 => sample.time_ms = wire.varint().in_field("timestamp")? as i64,
            3 => sample.start_ms = wire.varint().in_field("start_timestamp")? as i64,
            _ => {}
        }
    }
    Ok(sample)
}

/// An exemplar; its labels are messages, or with `symbols` numbers of texts.
fn exemplar(wire: Wire<'_>, symbols: Option<&[&str]>) -> Result<WrittenExemplar, Fault> {
    let mut exemplar = WrittenExemplar::default();
    let mut fields = Fields::of(wire.bytes()?);
    while let Some((number, wire)) = fields.next()? {
        match (number, symbols) {
            (1, None) => exemplar.labels.push(label(wire).in_field("labels")?),
            (1, Some(symbols)) => referenced(wire, symbols, &mut exemplar.labels)?,
            (2, _) => exemplar.value = wire.double().in_field("value")?,
            (3, _) => exemplar.time_ms = wire.varint().in_field("timestamp")? as i64,
            _ => {}
        }
    }
    sort_labels(&mut exemplar.labels)?;
    Ok(exemplar)
}

fn metadata(wire: Wire<'_>, symbols: &[&str], series: &mut WrittenSeries) -> Result<(), Fault> {
    let mut fields = Fields::of(wire.bytes()?);
    while let Some((number, wire)) = fields.next()? {
        match number {
            1 => series.is_counter = wire.varint().in_field("type")? == COUNTER,
            3 => series.help = symbol(symbols, wire.varint().in_field("help_ref")?)?.to_owned(),
            4 => series.unit = symbol(symbols, wire.varint().in_field("unit_ref")?)?.to_owned(),
            _ => {}
        }
    }
    Ok(())
}

/// Adds labels that are told as pairs of numbers of symbols.
fn referenced(wire: Wire<'_>, symbols: &[&str], labels: &mut Vec<(String, String)>) -> Result<(), Fault> {
    let mut references = Vec::new();
    wire.extend_varints(&mut references).in_field("labels_refs")?;
    if references.len() % 2 == 1 {
        return Err(Fault::new("an odd number of references").within("labels_refs"));
    }
    for pair in references.chunks_exact(2) {
        labels.push((symbol(symbols, pair[0])?.to_owned(), symbol(symbols, pair[1])?.to_owned()));
    }
    Ok(())
}

fn symbol<'s>(symbols: &[&'s str], number: u64) -> Result<&'s str, Fault> {
    let found = usize::try_from(number).ok().and_then(|number| symbols.get(number));
    found.copied().ok_or_else(|| Fault::new(format!("symbol {number} of {}", symbols.len())))
}

/// Sorts labels by name. Empty values are no labels.
fn sort_labels(labels: &mut Vec<(String, String)>) -> Result<(), Fault> {
    labels.retain(|(_, value)| !value.is_empty());
    labels.sort();
    if labels.iter().any(|(name, _)| name.is_empty()) {
        return Err(Fault::new("a label without a name").within("labels"));
    }
    match labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(Fault::new(format!("label {:?} occurs twice", pair[0].0)).within("labels")),
        None => Ok(()),
    }
}

/// The buckets of one side as they are sent: runs of indexes, and counts, of integers as differences.
#[derive(Default)]
struct Side {
    spans: Vec<(i32, u32)>,
    deltas: Vec<u64>,
    counts: Vec<f64>,
}

impl Side {
    fn span(&mut self, wire: Wire<'_>) -> Result<(), Fault> {
        let (mut offset, mut length) = (0, 0);
        let mut fields = Fields::of(wire.bytes()?);
        while let Some((number, wire)) = fields.next()? {
            match number {
                1 => offset = wire.sint32().in_field("offset")?,
                2 => length = wire.uint32().in_field("length")?,
                _ => {}
            }
        }
        self.spans.push((offset, length));
        Ok(())
    }

    fn buckets(self) -> Result<Vec<(i32, f64)>, Fault> {
        let mut counts = self.counts;
        let mut count = 0_i64;
        for delta in self.deltas {
            // Zigzag.
            let difference = (delta >> 1) as i64 ^ -((delta & 1) as i64);
            count = count.wrapping_add(difference);
            if count < 0 {
                return Err(Fault::new("a bucket has fewer than no observations"));
            }
            counts.push(count as f64);
        }
        let told: u64 = self.spans.iter().map(|(_, length)| u64::from(*length)).sum();
        if told != counts.len() as u64 || counts.len() > MAX_BUCKETS {
            return Err(Fault::new(format!(
                "spans tell {told} buckets, {} have counts; at most {MAX_BUCKETS} are kept",
                counts.len()
            )));
        }
        let mut counts = counts.into_iter();
        let mut buckets = Vec::new();
        let mut index = 0_i32;
        for (offset, length) in self.spans {
            index = index.checked_add(offset).ok_or_else(|| Fault::new("the index of a bucket is out of range"))?;
            for count in counts.by_ref().take(length as usize) {
                buckets.push((index, count));
                index = index.checked_add(1).ok_or_else(|| Fault::new("the index of a bucket is out of range"))?;
            }
        }
        if buckets.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(Fault::new("buckets are not in the order of their indexes"));
        }
        Ok(buckets)
    }
}

fn histogram(wire: Wire<'_>) -> Result<WrittenHistogram, Fault> {
    let mut told = WrittenHistogram::default();
    let mut has_float_counts = false;
    let (mut positive, mut negative) = (Side::default(), Side::default());
    let mut fields = Fields::of(wire.bytes()?);
    while let Some((number, wire)) = fields.next()? {
        match number {
            1 => told.count = wire.varint().in_field("count_int")? as f64,
            2 => {
                told.count = wire.double().in_field("count_float")?;
                has_float_counts = true;
            }
            3 => told.sum = wire.double().in_field("sum")?,
            4 => told.schema = wire.sint32().in_field("schema")?,
            5 => told.zero_threshold = wire.double().in_field("zero_threshold")?,
            6 => told.zero_count = wire.varint().in_field("zero_count_int")? as f64,
            7 => told.zero_count = wire.double().in_field("zero_count_float")?,
            8 => negative.span(wire).map_err(|fault| fault.within("negative_spans"))?,
            9 => wire.extend_varints(&mut negative.deltas).in_field("negative_deltas")?,
            10 => doubles(wire, &mut negative.counts).map_err(|fault| fault.within("negative_counts"))?,
            11 => positive.span(wire).map_err(|fault| fault.within("positive_spans"))?,
            12 => wire.extend_varints(&mut positive.deltas).in_field("positive_deltas")?,
            13 => doubles(wire, &mut positive.counts).map_err(|fault| fault.within("positive_counts"))?,
            14 => told.reset_hint = wire.uint32().in_field("reset_hint")?.min(3),
            15 => told.time_ms = wire.varint().in_field("timestamp")? as i64,
            16 => doubles(wire, &mut told.bounds).map_err(|fault| fault.within("custom_values"))?,
            17 => told.start_ms = wire.varint().in_field("start_timestamp")? as i64,
            _ => {}
        }
    }
    told.positive = positive.buckets().map_err(|fault| fault.within("positive_spans"))?;
    told.negative = negative.buckets().map_err(|fault| fault.within("negative_spans"))?;
    check_histogram(&told, has_float_counts)?;
    Ok(told)
}

fn doubles(wire: Wire<'_>, values: &mut Vec<f64>) -> Result<(), Fault> {
    let mut bits = Vec::new();
    wire.extend_fixed64(&mut bits)?;
    values.extend(bits.into_iter().map(f64::from_bits));
    Ok(())
}
