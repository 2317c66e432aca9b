//! The series of one segment as PromQL names them, by the rules of Prometheus's OTLP receiver.
//!
//! Owns: names, labels, `job` and `instance`, `target_info`, and which rows are whose. Made once a segment, from its series table or, at
//! level 0, from its rows, and kept in memory. Start with [`SegmentSeries`]; [`SeriesBuilder`] fills it.

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::{Arc, LazyLock, OnceLock};

use ahash::RandomState;
use tidemill_eval::{Labels, METRIC_NAME, Matcher};
use tidemill_segment::index::{SeriesFrame, SeriesTable};
use tidemill_segment::read::AttributeScope;
use tidemill_text::prometheus::{MetricShape, REMOTE_WRITE_SCOPE, is_plain_label, label_name, metric_name};

use super::conditions::Conditions;
use super::label_columns::{ColumnTest, LabelColumns};
use super::value_text::value_text;

/// The info series of a resource.
pub(super) const TARGET_INFO: &str = "target_info";
/// The resource attributes that become `job` and `instance`.
const IDENTIFYING: [&str; 3] = ["service.namespace", "service.name", "service.instance.id"];

/// The resource attributes that become labels of every series: keys, or beginnings that end in `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion(Vec<String>);

impl Promotion {
    /// A list of keys; a key that ends in `*` stands for all that begin so.
    pub fn new(keys: Vec<String>) -> Self {
        Self(keys)
    }

    fn has(&self, key: &str) -> bool {
        self.0.iter().any(|known| match known.strip_suffix('*') {
            Some(beginning) => key.starts_with(beginning),
            None => known == key,
        })
    }
}

impl Default for Promotion {
    fn default() -> Self {
        Self(vec!["service.*".to_owned(), "k8s.*".to_owned()])
    }
}

/// All series of a segment.
#[derive(Debug, Default)]
pub(crate) struct SegmentSeries {
    pub(super) metrics: Vec<Metric>,
    pub(super) series: Vec<StoredSeries>,
    pub(super) resources: Vec<Resource>,
    keys: Vec<Arc<str>>,
    values: Vec<Arc<str>>,
    /// The places of the values.
    places: HashMap<Arc<str>, u32, RandomState>,
    /// About how much memory all of it takes.
    pub(super) bytes: u64,
}

/// What a metric is in PromQL.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) unit: Arc<str>,
    pub(super) kind: Kind,
    /// As the metadata API tells it.
    pub(super) type_name: &'static str,
    pub(super) is_delta: bool,
    /// Whether start times of its points say when a counter began.
    pub(super) has_starts: bool,
    /// Whether its labels came by remote write and are kept as they are.
    pub(super) is_exact: bool,
    /// The name of its family.
    pub(super) family: Arc<str>,
    pub(super) parts: Vec<Part>,
    /// Its series, ascending.
    series: Vec<u32>,
    /// Their labels, by their numbers among [`Self::series`].
    columns: LabelColumns,
}

/// How the points of a metric are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Float,
    Histogram,
    Exponential,
    Summary,
}

/// One of the names under which a metric appears.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) role: Role,
    pub(super) name: Arc<str>,
    /// The name as it was sent, with the same ending.
    original: Arc<str>,
}

/// What of a metric's points a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The number.
    Value,
    /// A native histogram.
    Native,
    /// The counts of the buckets, by `le`.
    Bucket,
    /// The sum of all observations.
    Sum,
    /// The number of observations.
    Count,
    /// The quantiles of a summary, by `quantile`.
    Quantile,
}

/// One series of the segment.
#[derive(Debug)]
pub(super) struct StoredSeries {
    pub(super) metric: u32,
    /// Its labels without a name, `le` and `quantile`.
    pub(super) labels: Labels,
    /// Its labels with the first of its metric's names, once they were asked for.
    named: OnceLock<SeriesKey>,
    /// Its attributes as they were sent, as places among keys and values.
    attributes: Box<[(u32, u32)]>,
    /// Its rows, ascending.
    pub(super) rows: Vec<Range<u32>>,
}

/// Labels with their hash, which is the same for equal labels of all segments in this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeriesKey {
    hash: u64,
    labels: Labels,
}

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl SeriesKey {
    pub(super) fn of(labels: Labels) -> Self {
        Self { hash: HASHER.hash_one(&labels), labels }
    }

    pub(super) fn labels(&self) -> &Labels {
        &self.labels
    }

    pub(super) fn into_labels(self) -> Labels {
        self.labels
    }

    /// Which of so many parts the series belongs to.
    pub(super) fn part(&self, parts: usize) -> usize {
        // The upper half, since maps use the lower bits.
        ((self.hash >> 32) as usize) % parts
    }
}

impl Hash for SeriesKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// One resource: the labels of its `target_info`, if it has one, and its series.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) info: Option<Labels>,
    pub(super) series: Vec<u32>,
}

/// A series that meets the conditions, under these names.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) series: u32,
    pub(super) parts: Vec<(Role, Arc<str>)>,
}

impl SegmentSeries {
    /// From a segment's table; `None` when it has more rows than a segment can have.
    pub(super) fn of_table(table: &SeriesTable, promotion: &Promotion) -> Option<Self> {
        let mut builder = SeriesBuilder::new(promotion);
        let mut attributes: Vec<Vec<(AttributeScope, u32, u32)>> = vec![Vec::new(); table.series().len()];
        for label in table.labels().iter().filter(|label| label.scope != AttributeScope::Scope) {
            let (key, value) = (builder.key(&label.key), builder.value(&value_text(&label.value)));
            for series in &label.series {
                attributes[*series as usize].push((label.scope, key, value));
            }
        }
        for (stored, attributes) in table.series().iter().zip(attributes) {
            let rows = u32::try_from(stored.rows.start).ok()?..u32::try_from(stored.rows.end).ok()?;
            builder.add(&table.frames()[stored.frame as usize], &attributes, vec![rows]);
        }
        Some(builder.finish())
    }

    /// The series that meet the conditions, each with the names that do.
    pub(super) fn find(&self, conditions: &Conditions) -> Vec<Found> {
        let named: Vec<Vec<(Role, Arc<str>)>> =
            self.metrics.iter().map(|metric| parts_that_meet(metric, conditions)).collect();
        if named.iter().all(Vec::is_empty) {
            return Vec::new();
        }
        // Names that need quotes may be those of attributes, too.
        let (plain, quoted): (Vec<&Matcher>, Vec<&Matcher>) =
            conditions.others.iter().partition(|matcher| is_plain_label(&matcher.name));
        let place_of = |text: &str| self.places.get(text).copied();
        let mut tests: Vec<ColumnTest<'_>> =
            plain.into_iter().map(|matcher| ColumnTest::new(matcher, &self.values, place_of)).collect();
        let mut found = Vec::new();
        for (metric, named) in self.metrics.iter().zip(&named).filter(|(_, named)| !named.is_empty()) {
            let mut left: Vec<u32> = (0..metric.series.len() as u32).collect();
            tests.iter_mut().for_each(|test| test.leave(&metric.columns, &self.values, &mut left));
            for place in left.into_iter().map(|at| metric.series[at as usize]) {
                let series = &self.series[place as usize];
                if !quoted.iter().all(|matcher| matcher.meets(self.value_of(series, &matcher.name))) {
                    continue;
                }
                let parts = named.iter().filter(|(role, _)| {
                    let own = |name: &str| conditions.of(name).all(|matcher| matcher.meets(series.labels.get(name)));
                    // What the points tell is compared when they are read.
                    (*role == Role::Bucket || own("le")) && (*role == Role::Quantile || own("quantile"))
                });
                let parts: Vec<(Role, Arc<str>)> = parts.cloned().collect();
                if !parts.is_empty() {
                    found.push(Found { series: place, parts });
                }
            }
        }
        found.sort_unstable_by_key(|found| found.series);
        found
    }

    /// The info series of resources that meet the conditions, each with the series of its resource.
    pub(super) fn find_infos(&self, conditions: &Conditions) -> Vec<(&Labels, &[u32])> {
        if !conditions.may_be_info() {
            return Vec::new();
        }
        let infos = self.resources.iter().filter_map(|resource| Some((resource.info.as_ref()?, &*resource.series)));
        infos.filter(|(labels, _)| conditions.all().all(|matcher| matcher.meets(labels.get(&matcher.name)))).collect()
    }

    /// The value of a label; of one that needs quotes also that of the attribute of that key.
    fn value_of<'a>(&'a self, series: &'a StoredSeries, name: &str) -> &'a str {
        let value = series.labels.get(name);
        if !value.is_empty() || is_plain_label(name) {
            return value;
        }
        let own = series.attributes.iter().find(|(key, _)| &*self.keys[*key as usize] == name);
        own.map_or("", |(_, value)| &self.values[*value as usize])
    }
}

impl StoredSeries {
    /// Its labels under one of its metric's names.
    pub(super) fn named(&self, metric: &Metric, name: &Arc<str>) -> SeriesKey {
        let build = || {
            let mut named = self.labels.builder();
            named.set_shared(&Arc::from(METRIC_NAME), name);
            SeriesKey::of(named.build())
        };
        let is_first = metric.parts.first().is_some_and(|part| Arc::ptr_eq(&part.name, name));
        if is_first { self.named.get_or_init(build).clone() } else { build() }
    }
}

/// The names of a metric that meet the conditions. The name as it was sent counts where conditions name exactly that.
fn parts_that_meet(metric: &Metric, conditions: &Conditions) -> Vec<(Role, Arc<str>)> {
    let is_exact = !conditions.names.is_empty() && conditions.names.iter().all(|matcher| matcher.is_equality());
    let named = metric.parts.iter().filter_map(|part| {
        let meets = |name: &str| conditions.names.iter().all(|matcher| matcher.meets(name));
        if meets(&part.name) {
            return Some((part.role, Arc::clone(&part.name)));
        }
        (is_exact && meets(&part.original)).then(|| (part.role, Arc::clone(&part.original)))
    });
    named.collect()
}

/// Fills a [`SegmentSeries`] series by series.
pub(super) struct SeriesBuilder<'a> {
    promotion: &'a Promotion,
    made: SegmentSeries,
    keys: HashMap<Arc<str>, u32>,
    /// The label names of the keys.
    names: Vec<Arc<str>>,
    metrics: BTreeMap<SeriesFrame, u32>,
    resources: HashMap<Vec<(u32, u32)>, u32>,
}

impl<'a> SeriesBuilder<'a> {
    pub(super) fn new(promotion: &'a Promotion) -> Self {
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
    pub(super) fn key(&mut self, key: &str) -> u32 {
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
    pub(super) fn value(&mut self, value: &str) -> u32 {
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
    pub(super) fn add(
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

    pub(super) fn finish(self) -> SegmentSeries {
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
        unit: Arc::from(&*frame.unit),
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
