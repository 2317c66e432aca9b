//! What `load` puts into a store: samples at equal distances, native histograms made of classic ones, hints of counter resets.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tidemill_lang::promql::parse_duration;

use super::super::histogram::{Buckets, CUSTOM_SCHEMA, CustomBounds, Histogram};
use super::super::memory::MemoryStore;
use super::super::value::Sample;
use super::series::{Item, end_of_labels, parse_labels, parse_line};
use super::{Loaded, LoadedSample};
use crate::labels::{Labels, METRIC_NAME};

/// The lines of one `load`.
pub(super) struct Loading {
    gap: i64,
    with_custom_buckets: bool,
    default_starts: Vec<Option<i64>>,
    pending_starts: Option<(Labels, Vec<Option<i64>>)>,
    data: Loaded,
}

impl Loading {
    pub(super) fn new(gap: i64, with_custom_buckets: bool) -> Self {
        let (default_starts, pending_starts, data) = (Vec::new(), None, Loaded::default());
        Self { gap, with_custom_buckets, default_starts, pending_starts, data }
    }

    /// Takes one line: a series, or the start times of the next one.
    pub(super) fn line(&mut self, line: &str) -> Result<(), String> {
        let end = end_of_labels(line);
        if let Some(series) = line[..end].strip_suffix("@st") {
            let starts = start_offsets(&line[end..])?;
            if series.is_empty() {
                self.default_starts = starts;
            } else {
                self.pending_starts = Some((parse_labels(series)?, starts));
            }
            return Ok(());
        }
        let (labels, items) = parse_line(line)?;
        let own = self.pending_starts.take();
        if let Some((series, starts)) = &own {
            if *series != labels {
                return Err("@st metric does not match the following sample line metric".to_owned());
            }
            if starts.len() != items.len() {
                let (starts, items) = (starts.len(), items.len());
                return Err(format!("@st line has {starts} values but sample line has {items}"));
            }
        }
        // A series that occurs twice is the one written last.
        self.data.samples.retain(|sample| sample.labels != labels);
        for (at, item) in items.into_iter().enumerate() {
            let time = self.gap.saturating_mul(at as i64);
            let offset = match &own {
                Some((_, starts)) => starts[at],
                None if self.default_starts.is_empty() => None,
                None => self.default_starts[at % self.default_starts.len()],
            };
            let start = offset.map_or(0, |offset| time + offset);
            let value = match item {
                Item::Omitted => continue,
                Item::Float(value) => Sample::Float(value),
                Item::Histogram(histogram, _) => Sample::Histogram(histogram),
            };
            self.data.samples.push(LoadedSample { labels: labels.clone(), time, start, value });
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Loaded, String> {
        if self.pending_starts.is_some() {
            return Err("@st line has no following sample line".to_owned());
        }
        if self.with_custom_buckets {
            let made = custom_histograms(&self.data.samples)?;
            self.data.samples.extend(made);
        }
        Ok(self.data)
    }
}

/// The start times of samples, relative to their own: `-1m`, `_`, `*`, `0sx3`, `-1m+10sx3`.
fn start_offsets(text: &str) -> Result<Vec<Option<i64>>, String> {
    let mut offsets: Vec<Option<i64>> = Vec::new();
    for item in text.split_whitespace() {
        let last = offsets.iter().rev().flatten().next().copied().unwrap_or(0);
        let (value, count) = match item.split_once('x') {
            Some((value, count)) => {
                (value, Some(count.parse::<usize>().map_err(|_| format!("invalid ST item {item:?}"))?))
            }
            None => (item, None),
        };
        if count.is_some_and(|count| count > 1_000_000) {
            return Err(format!("invalid ST item {item:?}: too many repetitions"));
        }
        match value {
            "_" => offsets.extend(vec![None; count.unwrap_or(1)]),
            "*" => offsets.extend(vec![Some(last); count.map_or(1, |count| count + 1)]),
            _ => {
                let split = value[1..].find(['+', '-']).map_or(value.len(), |at| at + 1);
                let base = signed_duration(&value[..split])?;
                let increment = if split < value.len() { signed_duration(&value[split..])? } else { 0 };
                offsets.extend((0..=count.unwrap_or(0) as i64).map(|at| Some(base + increment * at)));
            }
        }
    }
    Ok(offsets)
}

fn signed_duration(text: &str) -> Result<i64, String> {
    let length = parse_duration(text.trim_start_matches(['+', '-']))?;
    Ok(if text.starts_with('-') { -length } else { length })
}

/// A classic histogram at one time: bounds with cumulative counts, count, sum.
#[derive(Default)]
struct Classic {
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// Native histograms with custom bounds, made of the classic ones among `samples`.
fn custom_histograms(samples: &[LoadedSample]) -> Result<Vec<LoadedSample>, String> {
    let mut found: BTreeMap<Labels, BTreeMap<i64, Classic>> = BTreeMap::new();
    for sample in samples {
        let Sample::Float(value) = sample.value else { continue };
        let name = sample.labels.get(METRIC_NAME);
        let base =
            ["_bucket", "_sum", "_count"].into_iter().find_map(|ending| Some((ending, name.strip_suffix(ending)?)));
        let Some((ending, base)) = base else { continue };
        let bound = sample.labels.get("le").parse::<f64>().ok().filter(|bound| !bound.is_nan());
        if ending == "_bucket" && bound.is_none() {
            continue;
        }
        let mut labels = sample.labels.builder();
        labels.set(METRIC_NAME, base).remove("le");
        let classic = found.entry(labels.build()).or_default().entry(sample.time).or_default();
        match (ending, bound) {
            ("_bucket", Some(bound)) => classic.buckets.push((bound, value)),
            ("_count", _) => classic.count = Some(value),
            _ => classic.sum = value,
        }
    }
    let mut made = Vec::new();
    for (labels, times) in found {
        for (time, classic) in times {
            let histogram = classic.convert().map_err(|message| format!("{labels}: {message}"))?;
            let value = Sample::Histogram(Arc::new(histogram));
            made.push(LoadedSample { labels: labels.clone(), time, start: 0, value });
        }
    }
    Ok(made)
}

impl Classic {
    fn convert(mut self) -> Result<Histogram, String> {
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let last = self.buckets.last().copied();
        let count = match (self.count, last) {
            (Some(count), _) => count,
            (None, Some((_, count))) => count,
            (None, None) => return Err("count must be provided when no buckets are present".to_owned()),
        };
        if last.is_none_or(|(bound, _)| bound != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        let mut before = 0.0;
        let mut counts = Vec::with_capacity(self.buckets.len());
        for (_, cumulative) in &self.buckets {
            if *cumulative < before {
                return Err("count is not cumulative".to_owned());
            }
            counts.push(cumulative - before);
            before = *cumulative;
        }
        if before != count {
            return Err("count mismatch".to_owned());
        }
        let bounds: Vec<f64> = self.buckets.iter().map(|(bound, _)| *bound).filter(|bound| bound.is_finite()).collect();
        let histogram = Histogram {
            schema: CUSTOM_SCHEMA,
            count,
            sum: self.sum,
            positive: Buckets::run(0, counts),
            custom: CustomBounds::new(bounds),
            ..Histogram::default()
        };
        Ok(histogram.compacted())
    }
}

/// What a store knows of counter resets when it writes a histogram: whether it fits to the one before.
#[derive(Debug, Default)]
pub(super) struct Hints {
    last: HashMap<Labels, Option<Arc<Histogram>>>,
}

impl Hints {
    /// Stores a sample with the hint that a Prometheus would read back.
    pub(super) fn store(&mut self, sample: &LoadedSample, store: &mut MemoryStore) {
        match &sample.value {
            Sample::Float(value) => {
                self.last.insert(sample.labels.clone(), None);
                store.add_float(&sample.labels, sample.time, *value, sample.start);
            }
            Sample::Histogram(histogram) => {
                let before = self.last.get(&sample.labels).and_then(Option::as_ref);
                let hint = histogram.stored_hint(before.map(Arc::as_ref));
                let mut stored = histogram.as_ref().clone();
                stored.hint = hint;
                self.last.insert(sample.labels.clone(), Some(Arc::clone(histogram)));
                store.add_histogram(&sample.labels, sample.time, Arc::new(stored), sample.start);
            }
        }
    }
}

/// In which of `count` partitions a series lies.
pub(super) fn partition(labels: &Labels, count: usize) -> usize {
    let bytes = labels.to_string();
    (twox_hash::XxHash64::oneshot(0, bytes.as_bytes()) % count as u64) as usize
}
