//! From the frames, attributes and rows of a segment's series to what PromQL calls them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use tidemill_eval::{Labels, METRIC_NAME};
use tidemill_segment::index::SeriesFrame;
use tidemill_segment::read::AttributeScope;
use tidemill_text::prometheus::{MetricShape, REMOTE_WRITE_SCOPE, label_name, metric_name};

use super::super::label_columns::LabelColumns;
use super::{IDENTIFYING, Kind, Metric, Part, Promotion, Resource, Role, SegmentSeries, StoredSeries, TARGET_INFO};

/// Fills a [`SegmentSeries`] series by series.
pub(in crate::promql) struct SeriesBuilder<'a> {
    promotion: &'a Promotion,
    made: SegmentSeries,
    keys: HashMap<Arc<str>, u32>,
    /// The label names of the keys.
    names: Vec<Arc<str>>,
    metrics: BTreeMap<SeriesFrame, u32>,
    resources: HashMap<Vec<(u32, u32)>, u32>,
}

impl<'a> SeriesBuilder<'a> {
    pub(in crate::promql) fn new(promotion: &'a Promotion) -> Self {
        Self {
            promotion,
            made: SegmentSeries::default(),
            keys: HashMap::new(),
            names: Vec::new(),
            metrics: BTreeMap::new(),
            resources: HashMap::new(),
        }
    }

    /// The place of a key.
    pub(in crate::promql) fn key(&mut self, key: &str) -> u32 {
        if let Some(place) = self.keys.get(key) {
            return *place;
        }
        let place = self.made.keys.len() as u32;
        let key: Arc<str> = Arc::from(key);
        let name = label_name(&key);
        self.names.push(if *name == *key { Arc::clone(&key) } else { Arc::from(name) });
        self.made.keys.push(Arc::clone(&key));
        self.made.bytes += 2 * key.len() as u64 + 64;
        self.keys.insert(key, place);
        place
    }

    /// The place of a value.
    pub(in crate::promql) fn value(&mut self, value: &str) -> u32 {
        if let Some(place) = self.made.places.get(value) {
            return *place;
        }
        let place = self.made.values.len() as u32;
        let value: Arc<str> = Arc::from(value);
        self.made.values.push(Arc::clone(&value));
        self.made.bytes += value.len() as u64 + 80;
        self.made.places.insert(value, place);
        place
    }

    /// Adds a series with its attributes, sorted by key within each scope.
    pub(in crate::promql) fn add(
        &mut self,
        frame: &SeriesFrame,
        attributes: &[(AttributeScope, u32, u32)],
        rows: Vec<Range<u32>>,
    ) {
        let metric = self.metric(frame);
        let is_exact = self.made.metrics[metric as usize].is_exact;
        let of = |scope| {
            let own = attributes.iter().filter(move |(of, ..)| *of == scope);
            own.map(|(_, key, value)| (*key, *value)).collect::<Vec<_>>()
        };
        let (record, resource) = (of(AttributeScope::Record), of(AttributeScope::Resource));
        let labels = if is_exact { self.exact_labels(&record) } else { self.labels(&record, &resource) };
        let place = self.resource(&resource, is_exact);
        let series = self.made.series.len() as u32;
        self.made.resources[place as usize].series.push(series);
        let values: Vec<u32> = labels.iter().map(|label| self.value(&label.value)).collect();
        let metric_of = &mut self.made.metrics[metric as usize];
        metric_of.columns.push(metric_of.series.len(), &labels, &values);
        metric_of.series.push(series);
        let all = record.into_iter().chain(resource);
        let attributes: Box<[(u32, u32)]> = if is_exact { Box::default() } else { all.collect() };
        self.made.bytes += 100 + 8 * attributes.len() as u64 + 68 * labels.len() as u64 + 8 * rows.len() as u64;
        self.made.series.push(StoredSeries { metric, labels, named: OnceLock::new(), attributes, rows });
    }

    pub(in crate::promql) fn finish(self) -> SegmentSeries {
        self.made
    }

    fn exact_labels(&self, record: &[(u32, u32)]) -> Labels {
        let mut builder = Labels::default().builder();
        for (key, value) in record {
            builder.set_shared(&self.made.keys[*key as usize], &self.made.values[*value as usize]);
        }
        builder.build()
    }

    fn labels(&self, record: &[(u32, u32)], resource: &[(u32, u32)]) -> Labels {
        let mut labels = BTreeMap::new();
        self.translate(&mut labels, record.iter());
        let mut promoted = BTreeMap::new();
        self.translate(
            &mut promoted,
            resource.iter().filter(|(key, _)| self.promotion.has(&self.made.keys[*key as usize])),
        );
        for (name, value) in promoted {
            labels.entry(name).or_insert(value);
        }
        self.identify(&mut labels, resource);
        let mut builder = Labels::default().builder();
        for (name, value) in &labels {
            builder.set_shared(name, value);
        }
        builder.build()
    }

    /// Adds attributes under their label names; values that meet under one name are joined.
    fn translate<'i>(
        &self,
        labels: &mut BTreeMap<Arc<str>, Arc<str>>,
        attributes: impl Iterator<Item = &'i (u32, u32)>,
    ) {
        for (key, value) in attributes {
            let (name, value) = (&self.names[*key as usize], &self.made.values[*value as usize]);
            if value.is_empty() {
                continue;
            }
            match labels.get_mut(name) {
                Some(before) => *before = Arc::from(format!("{before};{value}")),
                None => drop(labels.insert(Arc::clone(name), Arc::clone(value))),
            }
        }
    }

    /// Adds `job` and `instance`.
    fn identify(&self, labels: &mut BTreeMap<Arc<str>, Arc<str>>, resource: &[(u32, u32)]) {
        let value = |wanted: &str| {
            let found = resource.iter().find(|(key, _)| &*self.made.keys[*key as usize] == wanted);
            found.map(|(_, value)| Arc::clone(&self.made.values[*value as usize])).filter(|value| !value.is_empty())
        };
        let [namespace, name, instance] = IDENTIFYING.map(value);
        if let Some(name) = name {
            let job = namespace.map_or_else(|| Arc::clone(&name), |namespace| Arc::from(format!("{namespace}/{name}")));
            labels.insert(Arc::from("job"), job);
        }
        if let Some(instance) = instance {
            labels.insert(Arc::from("instance"), instance);
        }
    }

    fn resource(&mut self, resource: &[(u32, u32)], is_exact: bool) -> u32 {
        // What came by remote write brings its own `target_info`.
        let key = if is_exact { vec![(u32::MAX, u32::MAX)] } else { resource.to_vec() };
        if let Some(place) = self.resources.get(&key) {
            return *place;
        }
        let mut labels = BTreeMap::new();
        let others = resource.iter().filter(|(key, _)| !IDENTIFYING.contains(&&*self.made.keys[*key as usize]));
        self.translate(&mut labels, others);
        let has_others = !labels.is_empty();
        let before = labels.len();
        self.identify(&mut labels, resource);
        let is_identified = labels.len() > before || labels.contains_key("job") || labels.contains_key("instance");
        let info = (!is_exact && has_others && is_identified).then(|| {
            let mut builder = Labels::default().builder();
            for (name, value) in &labels {
                builder.set_shared(name, value);
            }
            builder.set(METRIC_NAME, TARGET_INFO);
            builder.build()
        });
        let place = self.made.resources.len() as u32;
        self.made.resources.push(Resource { info, series: Vec::new() });
        self.resources.insert(key, place);
        place
    }

    fn metric(&mut self, frame: &SeriesFrame) -> u32 {
        if let Some(place) = self.metrics.get(frame) {
            return *place;
        }
        let place = self.made.metrics.len() as u32;
        self.made.metrics.push(metric_of(frame));
        self.made.bytes += 512;
        self.metrics.insert(frame.clone(), place);
        place
    }
}

fn metric_of(frame: &SeriesFrame) -> Metric {
    let is_exact = frame.scope_name == REMOTE_WRITE_SCOPE;
    let is_delta = frame.temporality == "delta";
    let (kind, shape, type_name) = match frame.kind.as_str() {
        "gauge" if is_exact => (Kind::Float, MetricShape::Gauge, "unknown"),
        "gauge" => (Kind::Float, MetricShape::Gauge, "gauge"),
        "monotonic_sum" => (Kind::Float, MetricShape::Counter, "counter"),
        "histogram" => (Kind::Histogram, MetricShape::Other, "histogram"),
        "exponential_histogram" => (Kind::Exponential, MetricShape::Other, "histogram"),
        "summary" => (Kind::Summary, MetricShape::Other, "summary"),
        // Carries exemplars alone.
        _ if is_exact => (Kind::Float, MetricShape::Other, "unknown"),
        _ => (Kind::Float, MetricShape::Other, "gauge"),
    };
    let family = if is_exact { frame.name.clone() } else { metric_name(&frame.name, &frame.unit, shape) };
    let endings: &[(Role, &str)] = match kind {
        Kind::Float => &[(Role::Value, "")],
        // Native histograms with bounds of their own have no classic names.
        Kind::Histogram if is_exact => &[(Role::Native, "")],
        Kind::Histogram => &[(Role::Bucket, "_bucket"), (Role::Sum, "_sum"), (Role::Count, "_count")],
        Kind::Exponential => &[(Role::Native, "")],
        Kind::Summary => &[(Role::Quantile, ""), (Role::Sum, "_sum"), (Role::Count, "_count")],
    };
    let part = |(role, ending): &(Role, &str)| Part {
        role: *role,
        name: Arc::from(format!("{family}{ending}")),
        original: Arc::from(format!("{}{ending}", frame.name)),
    };
    Metric {
        unit: if is_exact {
            Arc::from(&*frame.unit)
        } else {
            // A name of nothing but its unit.
            Arc::from(metric_name("", &frame.unit, MetricShape::Other))
        },
        kind,
        type_name,
        is_delta,
        has_starts: is_exact
            || is_delta
            || shape == MetricShape::Counter
            || matches!(kind, Kind::Histogram | Kind::Exponential),
        is_exact,
        parts: endings.iter().map(part).collect(),
        family: Arc::from(family),
        series: Vec::new(),
        columns: LabelColumns::default(),
    }
}
