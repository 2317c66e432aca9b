//! What was read for a selector, and the series that become of it: all of them, or the part that one of several threads evaluates.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tidemill_eval::Labels;
use tidemill_eval::promql::{Samples, Series};
use tokio::runtime::Handle;

use super::assemble::{Assembly, Entries, Entry, check_names};
use super::stored_floats::StoredFloats;
use crate::together::together;
use crate::{Error, Result};

/// So many stretches are put together before other threads help.
const TOGETHER: usize = 500;

/// What one segment, or what stands for segments, has for a selector.
#[derive(Debug)]
pub(super) enum SegmentPoints {
    /// Samples under their labels.
    Made(Entries),
    /// Numbers where they lie.
    Stored(StoredFloats),
}

/// What all segments have for a selector, divided by the series' hashes into parts, each of which is put together once.
#[derive(Debug)]
pub(super) struct Gathered {
    /// In the order that decides between samples that arrived at the same time.
    read: Vec<Divided>,
    parts: Vec<OnceLock<Vec<Series>>>,
    /// Samples before are there only to tell about those after.
    since_ms: Option<i64>,
    stretches: usize,
    samples: usize,
    has_histograms: bool,
    /// How many series there may be, and how many are put together.
    most_series: usize,
    series: AtomicUsize,
}

#[derive(Debug)]
enum Divided {
    Made(Vec<Mutex<Vec<Entry>>>),
    Stored(StoredFloats),
}

impl SegmentPoints {
    pub(super) fn is_empty(&self) -> bool {
        self.stretches() == 0
    }

    /// The labels of the series.
    pub(super) fn labels(&self) -> Vec<Labels> {
        match self {
            Self::Made(entries) => entries.labels().cloned().collect(),
            Self::Stored(floats) => floats.labels(),
        }
    }

    fn stretches(&self) -> usize {
        match self {
            Self::Made(entries) => entries.len(),
            Self::Stored(floats) => floats.len(),
        }
    }

    fn samples(&self) -> usize {
        match self {
            Self::Made(entries) => entries.samples(),
            Self::Stored(floats) => floats.samples(),
        }
    }

    fn made(&self) -> Option<&Entries> {
        match self {
            Self::Made(entries) => Some(entries),
            Self::Stored(_) => None,
        }
    }

    fn divided(self) -> Divided {
        match self {
            Self::Made(entries) => Divided::Made(entries.into_parts().into_iter().map(Mutex::new).collect()),
            Self::Stored(floats) => Divided::Stored(floats),
        }
    }
}

impl Gathered {
    /// Of what was read, in the order that decides between samples that arrived at the same time; [`Entries`] are divided into as many
    /// parts.
    ///
    /// # Errors
    /// Several metrics are meant by one name.
    pub(super) fn new(read: Vec<SegmentPoints>, parts: usize, most_series: usize) -> Result<Self> {
        check_names(read.iter().filter_map(SegmentPoints::made))?;
        Ok(Self {
            parts: (0..parts.max(1)).map(|_| OnceLock::new()).collect(),
            since_ms: None,
            stretches: read.iter().map(SegmentPoints::stretches).sum(),
            samples: read.iter().map(SegmentPoints::samples).sum(),
            has_histograms: read.iter().filter_map(SegmentPoints::made).any(Entries::has_histograms),
            most_series,
            series: AtomicUsize::new(0),
            read: read.into_iter().map(SegmentPoints::divided).collect(),
        })
    }

    /// Without the samples before a time, once what they tell of others is known.
    #[must_use]
    pub(super) fn since(mut self, start_ms: i64) -> Self {
        self.since_ms = Some(start_ms);
        self
    }

    /// How many stretches of samples of one series there are in one segment each.
    pub(super) fn stretches(&self) -> usize {
        self.stretches
    }

    /// How many samples there are at most.
    pub(super) fn samples(&self) -> usize {
        self.samples
    }

    /// Whether there are native histograms among the samples.
    pub(super) fn has_histograms(&self) -> bool {
        self.has_histograms
    }

    /// One of `count` parts of the series, by their labels.
    ///
    /// # Errors
    /// They are more than a selector may have, together with those that were put together before.
    pub(super) fn part(&self, part: usize, count: usize) -> Result<Vec<Series>> {
        let mut series = Vec::new();
        for own in (part..self.parts.len()).step_by(count.max(1)) {
            series.extend_from_slice(self.put_together(own)?);
        }
        // A stable sort takes sorted stretches as they are.
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(series)
    }

    /// All series, by their labels.
    ///
    /// # Errors
    /// They are more than a selector may have.
    pub(super) fn whole(self: &Arc<Self>, runtime: &Handle) -> Result<Vec<Series>> {
        if self.stretches >= TOGETHER {
            let own = Arc::clone(self);
            together(runtime, self.parts.len(), move |part| own.put_together(part).map(|_| ()))?;
        }
        self.part(0, 1)
    }

    fn put_together(&self, part: usize) -> Result<&[Series]> {
        let series = self.parts[part].get_or_init(|| {
            let made = self.assemble(part);
            self.series.fetch_add(made.len(), Ordering::Relaxed);
            made
        });
        check_series(self.series.load(Ordering::Relaxed), self.most_series)?;
        Ok(series)
    }

    fn assemble(&self, part: usize) -> Vec<Series> {
        let mut assembly = Assembly::default();
        for read in &self.read {
            match read {
                Divided::Made(parts) => {
                    std::mem::take(&mut *parts[part].lock()).into_iter().for_each(|entry| assembly.add(entry));
                }
                Divided::Stored(floats) => {
                    let add = |key: &_, is_delta, run| assembly.add_floats(key, is_delta, run);
                    floats.for_part((part, self.parts.len()), add);
                }
            }
        }
        let mut series = assembly.finish();
        if let Some(start_ms) = self.since_ms {
            series.iter_mut().for_each(|series| series.samples = since(&series.samples, start_ms));
            series.retain(|series| !series.samples.is_empty());
        }
        series
    }
}

/// Refuses more series than a selector may have.
pub(super) fn check_series(series: usize, most: usize) -> Result<()> {
    if series <= most {
        return Ok(());
    }
    let problem = format!("a selector meets more than {most} series; name more labels, or raise promql.max_series");
    Err(Error::QueryLimit { problem })
}

/// The samples from `start_ms` on.
fn since(samples: &Samples, start_ms: i64) -> Samples {
    let first = samples.times.partition_point(|time| *time < start_ms);
    let count = samples.times.len() - first;
    let starts = if samples.starts.is_empty() { samples.starts.clone() } else { samples.starts.slice(first, count) };
    let after = samples.histograms.partition_point(|sample| sample.time < start_ms);
    Samples {
        times: samples.times.slice(first, count),
        values: samples.values.slice(first, count),
        starts,
        weights: if samples.weights.is_empty() { samples.weights.clone() } else { samples.weights.slice(first, count) },
        histograms: samples.histograms[after..].to_vec(),
        is_delta: samples.is_delta,
        is_unbroken: samples.is_unbroken,
    }
}
