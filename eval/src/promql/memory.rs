//! Series held in memory: a source for tests and for small data.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::buffer::ScalarBuffer;

use super::histogram::Histogram;
use super::source::{HistogramSample, Samples, Select, Series, Source};
use crate::error::Result;
use crate::labels::Labels;
use crate::matcher::Matcher;

/// Series with their samples, added in any order; of samples of one series and time the last one stands.
#[derive(Debug, Default)]
pub struct MemoryStore {
    series: BTreeMap<Labels, BTreeMap<i64, Held>>,
}

#[derive(Debug)]
enum Held {
    Float { value: f64, start: i64 },
    Histogram { histogram: Arc<Histogram>, start: i64 },
}

impl MemoryStore {
    /// Adds a number, with the time at which its counter began, or 0.
    pub fn add_float(&mut self, labels: &Labels, time: i64, value: f64, start: i64) {
        self.samples(labels).insert(time, Held::Float { value, start });
    }

    /// Adds a histogram, with the time at which its counter began, or 0.
    pub fn add_histogram(&mut self, labels: &Labels, time: i64, histogram: Arc<Histogram>, start: i64) {
        self.samples(labels).insert(time, Held::Histogram { histogram, start });
    }

    fn samples(&mut self, labels: &Labels) -> &mut BTreeMap<i64, Held> {
        if !self.series.contains_key(labels) {
            self.series.insert(labels.clone(), BTreeMap::new());
        }
        self.series.get_mut(labels).expect("inserted above")
    }

    /// Divides the series into `count` stores, by turns.
    pub fn divided(self, count: usize) -> Vec<Self> {
        let mut parts: Vec<Self> = (0..count).map(|_| Self::default()).collect();
        for (at, (labels, samples)) in self.series.into_iter().enumerate() {
            parts[at % count].series.insert(labels, samples);
        }
        parts
    }
}

impl Source for MemoryStore {
    fn select(&self, select: &Select) -> Result<Vec<Series>> {
        let found = self.series.iter().filter(|(labels, _)| Matcher::all_meet(&select.matchers, labels));
        let series = found.map(|(labels, held)| Series { labels: labels.clone(), samples: columns(held, select) });
        Ok(series.filter(|series| !series.samples.is_empty()).collect())
    }
}

fn columns(held: &BTreeMap<i64, Held>, select: &Select) -> Samples {
    let (mut times, mut values, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    let mut histograms = Vec::new();
    if select.start_ms > select.end_ms {
        return Samples::default();
    }
    for (time, sample) in held.range(select.start_ms..=select.end_ms) {
        match sample {
            Held::Float { value, start } => {
                times.push(*time);
                values.push(*value);
                starts.push(*start);
            }
            Held::Histogram { histogram, start } => {
                histograms.push(HistogramSample { time: *time, start: *start, histogram: Arc::clone(histogram) });
            }
        }
    }
    if starts.iter().all(|start| *start == 0) {
        starts.clear();
    }
    Samples {
        times: ScalarBuffer::from(times),
        values: ScalarBuffer::from(values),
        starts: ScalarBuffer::from(starts),
        weights: ScalarBuffer::default(),
        histograms,
        is_delta: false,
        is_unbroken: false,
    }
}
