//! The series of one segment as PromQL names them, by the rules of Prometheus's OTLP receiver.
//!
//! Owns: names, labels, `job` and `instance`, `target_info`, and which rows are whose. Made once a segment, from its series table or, at
//! level 0, from its rows, and kept in memory. Start with [`SegmentSeries`]; [`SeriesBuilder`] fills it.

mod builder;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::{Arc, LazyLock, OnceLock};

use ahash::RandomState;
use tidemill_eval::{Labels, METRIC_NAME, Matcher};
use tidemill_segment::index::SeriesTable;
use tidemill_segment::read::AttributeScope;
use tidemill_text::prometheus::is_plain_label;

use super::conditions::Conditions;
use super::label_columns::{ColumnTest, LabelColumns};
use super::value_text::value_text;
pub(super) use builder::SeriesBuilder;

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

impl Metric {
    /// Whether its series are numbers, known by this name and no other, which is not one as it was sent.
    pub(super) fn is_plainly(&self, name: &Arc<str>) -> bool {
        self.kind == Kind::Float && matches!(&*self.parts, [part] if Arc::ptr_eq(&part.name, name))
    }

    /// What Prometheus names the part that is known by `name`, where that is the name as it was sent.
    pub(super) fn name_behind(&self, name: &Arc<str>) -> Option<&Arc<str>> {
        let part = self.parts.iter().find(|part| Arc::ptr_eq(&part.original, name))?;
        Some(&part.name)
    }
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
    pub(super) parts: NamedParts,
}

/// What names stand for.
pub(super) type NamedParts = Arc<[(Role, Arc<str>)]>;

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
        let named = self.metrics.iter().filter_map(|metric| {
            let parts = parts_that_meet(metric, conditions);
            (!parts.is_empty()).then(|| (metric, Arc::from(parts)))
        });
        let named: Vec<(&Metric, NamedParts)> = named.collect();
        if named.is_empty() {
            return Vec::new();
        }
        // Names that need quotes may be those of attributes, too.
        let (plain, quoted): (Vec<&Matcher>, Vec<&Matcher>) =
            conditions.others.iter().partition(|matcher| is_plain_label(&matcher.name));
        let place_of = |text: &str| self.places.get(text).copied();
        let mut tests: Vec<ColumnTest<'_>> =
            plain.into_iter().map(|matcher| ColumnTest::new(matcher, &self.values, place_of)).collect();
        let mut found = Vec::new();
        for (metric, all) in named {
            let mut left: Vec<u32> = (0..metric.series.len() as u32).collect();
            tests.iter_mut().for_each(|test| test.leave(&metric.columns, &self.values, &mut left));
            for place in left.into_iter().map(|at| metric.series[at as usize]) {
                let series = &self.series[place as usize];
                if !quoted.iter().all(|matcher| matcher.meets(self.value_of(series, &matcher.name))) {
                    continue;
                }
                let own = |name: &str| conditions.of(name).all(|matcher| matcher.meets(series.labels.get(name)));
                let (le, quantile) = (own("le"), own("quantile"));
                // What the points tell is compared when they are read.
                let meets = |role: Role| (role == Role::Bucket || le) && (role == Role::Quantile || quantile);
                let parts = match all.iter().all(|(role, _)| meets(*role)) {
                    true => Arc::clone(&all),
                    false => all.iter().filter(|(role, _)| meets(*role)).cloned().collect(),
                };
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
        let is_first = metric.parts.first().is_some_and(|part| Arc::ptr_eq(&part.name, name));
        if is_first { self.first_named(name).clone() } else { self.key(name) }
    }

    /// Its labels under the first of its metric's names.
    pub(super) fn first_named(&self, first: &Arc<str>) -> &SeriesKey {
        self.named.get_or_init(|| self.key(first))
    }

    fn key(&self, name: &Arc<str>) -> SeriesKey {
        let mut named = self.labels.builder();
        named.set_shared(&Arc::from(METRIC_NAME), name);
        SeriesKey::of(named.build())
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
