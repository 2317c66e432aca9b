//! Metrics of one look: families of samples, as Prometheus writes them.

use std::collections::BTreeMap;

use tidemill_scaling::TimeMs;

/// What a family's numbers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FamilyKind {
    /// A number that goes up and down.
    Gauge,
    /// A number that only rises, since the sample's start.
    Counter,
}

/// A sample.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    pub labels: Vec<(&'static str, String)>,
    pub value: f64,
    /// When a counter began.
    pub since: TimeMs,
}

/// Counts in buckets, of one set of labels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Histogram {
    pub name: &'static str,
    pub labels: Vec<(&'static str, String)>,
    pub bounds: &'static [f64],
    /// One more than bounds.
    pub counts: Vec<u64>,
    pub sum: f64,
}

/// All families of one look.
#[derive(Debug)]
pub(super) struct Families {
    /// When this process began to count.
    pub began: TimeMs,
    /// When it looked.
    pub at: TimeMs,
    pub samples: BTreeMap<&'static str, (FamilyKind, Vec<Sample>)>,
    pub histograms: Vec<Histogram>,
}

impl Families {
    pub fn new(began: TimeMs, at: TimeMs) -> Self {
        Self { began, at, samples: BTreeMap::new(), histograms: Vec::new() }
    }

    pub fn gauge(&mut self, name: &'static str, labels: &Labels, more: &[(&'static str, &str)], value: f64) {
        self.add(name, FamilyKind::Gauge, labels, more, (value, self.at));
    }

    pub fn truth(&mut self, name: &'static str, labels: &Labels, more: &[(&'static str, &str)], is_true: bool) {
        self.gauge(name, labels, more, f64::from(u8::from(is_true)));
    }

    pub fn counter(
        &mut self,
        name: &'static str,
        labels: &Labels,
        more: &[(&'static str, &str)],
        (value, since): (f64, TimeMs),
    ) {
        self.add(name, FamilyKind::Counter, labels, more, (value, since));
    }

    fn add(
        &mut self,
        name: &'static str,
        kind: FamilyKind,
        labels: &Labels,
        more: &[(&'static str, &str)],
        (value, since): (f64, TimeMs),
    ) {
        let mut all = labels.0.clone();
        // An empty label is none.
        all.extend(
            more.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (*name, (*value).to_owned())),
        );
        self.samples.entry(name).or_insert_with(|| (kind, Vec::new())).1.push(Sample { labels: all, value, since });
    }
}

/// Labels that many samples share.
#[derive(Debug, Clone, Default)]
pub(super) struct Labels(pub Vec<(&'static str, String)>);

impl Labels {
    pub fn new(labels: &[(&'static str, &str)]) -> Self {
        Self(labels.iter().filter(|(_, value)| !value.is_empty()).map(|(n, v)| (*n, (*v).to_owned())).collect())
    }

    pub fn and(&self, name: &'static str, value: &str) -> Self {
        let mut all = self.clone();
        all.0.push((name, value.to_owned()));
        all
    }
}
