//! The identity of a point's series: hashed from its labels once, then known by the bytes that it was sent as.

use ahash::RandomState;
use hashbrown::HashTable;
use tidemill_text::{LabelValue, MetricHash, ScopeHash, SeriesMetric};

use crate::otlp::Frame;
use crate::otlp::metrics::{MetricRow, PointRow, temporality_name};
use crate::otlp::value::{AnyRef, Attribute, decode_any, decode_attribute, each_element};

/// Beyond this many bytes of keys what is known is forgotten and learned anew.
const KNOWN_BYTES: usize = 16 << 20;

/// The series that a bundle has met. Points of one series are sent with equal bytes again and again, and comparing those is much
/// cheaper than hashing labels.
#[derive(Debug, Default)]
pub(crate) struct SeriesIds {
    /// Numbers of resources with a scope, and of metrics in those.
    numbers: KnownBytes<u64>,
    series: KnownBytes<[u8; 16]>,
    next_number: u64,
    scope_number: u64,
    metric_number: u64,
    /// Of where the walk stands; made when a series is met for the first time.
    scope: Option<ScopeHash>,
    metric: Option<MetricHash>,
    key: Vec<u8>,
}

impl SeriesIds {
    /// Another scope begins; `resource` and `scope` are equal bytes where the two are equal.
    pub(crate) fn enter_scope(&mut self, resource: &[u8], scope: &[u8]) {
        self.key.clear();
        self.key.extend_from_slice(b"s");
        push_bytes(&mut self.key, resource);
        push_bytes(&mut self.key, scope);
        self.scope_number = self.number_of_key();
        self.scope = None;
        self.metric = None;
    }

    /// Another metric begins.
    pub(crate) fn enter_metric(&mut self, metric: &MetricRow<'_>) {
        self.key.clear();
        self.key.extend_from_slice(b"m");
        self.key.extend_from_slice(&self.scope_number.to_le_bytes());
        push_bytes(&mut self.key, metric.name.as_bytes());
        push_bytes(&mut self.key, metric.unit.as_bytes());
        self.key.extend_from_slice(&[metric.kind as u8, u8::from(metric.is_monotonic)]);
        self.key.extend_from_slice(&metric.temporality.to_le_bytes());
        self.metric_number = self.number_of_key();
        self.metric = None;
    }

    /// The series of a point of the metric that was entered last.
    pub(crate) fn of(&mut self, frame: Frame<'_, '_>, metric: &MetricRow<'_>, point: &PointRow<'_>) -> [u8; 16] {
        self.key.clear();
        self.key.extend_from_slice(&self.metric_number.to_le_bytes());
        self.key.extend_from_slice(&(point.attributes.first_len as u64).to_le_bytes());
        self.key.extend_from_slice(point.attributes.raw);
        let (scope, hash) = (&mut self.scope, &mut self.metric);
        self.series.get_or_insert_with(&self.key, || {
            let scope = scope.get_or_insert_with(|| scope_hash(frame));
            let hash = hash.get_or_insert_with(|| scope.metric(&series_metric(metric)));
            hash.series(&label_values(&point.attributes))
        })
    }

    fn number_of_key(&mut self) -> u64 {
        let next = &mut self.next_number;
        self.numbers.get_or_insert_with(&self.key, || {
            *next += 1;
            *next
        })
    }
}

fn push_bytes(key: &mut Vec<u8>, bytes: &[u8]) {
    key.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    key.extend_from_slice(bytes);
}

fn series_metric<'a>(metric: &MetricRow<'a>) -> SeriesMetric<'a> {
    SeriesMetric {
        name: metric.name,
        unit: metric.unit,
        kind: metric.kind.as_str(),
        temporality: temporality_name(metric.temporality).unwrap_or_default(),
        is_monotonic: metric.is_monotonic,
    }
}

/// A bounded map whose keys are bytes, kept one behind the other.
#[derive(Debug)]
struct KnownBytes<V> {
    bytes: Vec<u8>,
    known: HashTable<Known<V>>,
    state: RandomState,
}

#[derive(Debug, Clone, Copy)]
struct Known<V> {
    hash: u64,
    start: usize,
    len: usize,
    value: V,
}

impl<V> Default for KnownBytes<V> {
    fn default() -> Self {
        Self { bytes: Vec::new(), known: HashTable::new(), state: RandomState::new() }
    }
}

impl<V: Copy> KnownBytes<V> {
    fn get_or_insert_with(&mut self, key: &[u8], make: impl FnOnce() -> V) -> V {
        let hash = self.state.hash_one(key);
        let bytes = &self.bytes;
        let is_key = |known: &Known<V>| known.hash == hash && bytes[known.start..known.start + known.len] == *key;
        if let Some(known) = self.known.find(hash, is_key) {
            return known.value;
        }
        let value = make();
        if self.bytes.len() + key.len() > KNOWN_BYTES {
            self.bytes.clear();
            self.known.clear();
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.known.insert_unique(hash, Known { hash, start, len: key.len(), value }, |known| known.hash);
        value
    }
}

/// The hash so far of all series of the frame.
fn scope_hash(frame: Frame<'_, '_>) -> ScopeHash {
    let scope = frame.scope;
    ScopeHash::new(
        &label_values(&frame.resource.attributes),
        scope.name,
        scope.version,
        &label_values(&scope.attributes),
    )
}

/// The attributes as labels, in their order.
fn label_values<'a>(attributes: &[Attribute<'a>]) -> Vec<(&'a str, LabelValue<'a>)> {
    attributes.iter().map(|(key, value)| (*key, label_value(*value))).collect()
}

fn label_value(value: AnyRef<'_>) -> LabelValue<'_> {
    match value {
        AnyRef::Empty => LabelValue::Empty,
        AnyRef::String(text) => LabelValue::String(text),
        AnyRef::Bool(flag) => LabelValue::Bool(flag),
        AnyRef::Int(number) => LabelValue::Int(number),
        AnyRef::Double(number) => LabelValue::Double(number),
        AnyRef::Bytes(bytes) => LabelValue::Bytes(bytes),
        AnyRef::Array(list) => {
            let mut values = Vec::new();
            let walked = each_element(list, |_, element| {
                values.push(label_value(decode_any(element, 0)?));
                Ok(())
            });
            debug_assert!(walked.is_ok(), "the list was checked when it was decoded");
            LabelValue::Array(values)
        }
        AnyRef::Map(list) => {
            let mut labels = Vec::new();
            let walked = each_element(list, |_, pair| {
                let (key, value) = decode_attribute(pair, 0)?;
                labels.push((key, label_value(value)));
                Ok(())
            });
            debug_assert!(walked.is_ok(), "the list was checked when it was decoded");
            LabelValue::Map(labels)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_known_until_there_are_too_many() {
        let mut known = KnownBytes::default();
        for round in 0..2 {
            for number in 0..1_000_u64 {
                let value = known.get_or_insert_with(&number.to_be_bytes(), || number + round * 1_000);
                assert_eq!(value, number, "it is computed once");
            }
        }
        let long = vec![7; KNOWN_BYTES];
        assert_eq!(known.get_or_insert_with(&long, || 1), 1);
        assert_eq!(known.get_or_insert_with(&5_u64.to_be_bytes(), || 77), 77, "it was forgotten");
        assert!(known.bytes.len() <= KNOWN_BYTES);
    }
}
