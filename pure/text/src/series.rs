//! The identity of a metric series: 128 bits of BLAKE3 over everything that makes it a series of its own.
//!
//! Hashed are, each with its length or type: resource attributes, scope name, version and attributes, metric name, unit, kind,
//! temporality, monotonicity, and the point's attributes. Descriptions and schema URLs are not part of it. The hash is kept after each
//! step, so that a point costs only its own attributes.

use crate::labels::{LabelValue, encode_labels, push_text};

/// The first bytes hashed; a change of what is hashed takes another number.
const DOMAIN: &[u8] = b"tidemill series 1\0";

/// What a metric adds to the identity of its series.
#[derive(Debug, Clone, Copy)]
pub struct SeriesMetric<'a> {
    /// The metric's name as it was sent.
    pub name: &'a str,
    /// Its unit.
    pub unit: &'a str,
    /// `gauge`, `sum`, `histogram`, `exponential_histogram` or `summary`.
    pub kind: &'a str,
    /// `delta`, `cumulative` or empty.
    pub temporality: &'a str,
    /// Whether a sum only grows.
    pub is_monotonic: bool,
}

/// The hash so far of all series of one resource and scope.
#[derive(Debug, Clone)]
pub struct ScopeHash(blake3::Hasher);

/// The hash so far of all series of one metric.
#[derive(Debug, Clone)]
pub struct MetricHash {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

impl ScopeHash {
    /// Starts with a resource and a scope.
    pub fn new(
        resource: &[(&str, LabelValue<'_>)],
        scope_name: &str,
        scope_version: &str,
        scope: &[(&str, LabelValue<'_>)],
    ) -> Self {
        let mut bytes = DOMAIN.to_vec();
        encode_labels(&mut bytes, resource);
        push_text(&mut bytes, scope_name);
        push_text(&mut bytes, scope_version);
        encode_labels(&mut bytes, scope);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes);
        Self(hasher)
    }

    /// Adds a metric.
    pub fn metric(&self, metric: &SeriesMetric<'_>) -> MetricHash {
        let mut buffer = Vec::with_capacity(256);
        for text in [metric.name, metric.unit, metric.kind, metric.temporality] {
            push_text(&mut buffer, text);
        }
        buffer.push(u8::from(metric.is_monotonic));
        let mut hasher = self.0.clone();
        hasher.update(&buffer);
        MetricHash { hasher, buffer }
    }
}

impl MetricHash {
    /// The series of the metric's points with these attributes.
    pub fn series(&mut self, attributes: &[(&str, LabelValue<'_>)]) -> [u8; 16] {
        self.buffer.clear();
        encode_labels(&mut self.buffer, attributes);
        let mut hasher = self.hasher.clone();
        hasher.update(&self.buffer);
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(name: &str) -> SeriesMetric<'_> {
        SeriesMetric { name, unit: "ms", kind: "gauge", temporality: "", is_monotonic: false }
    }

    #[test]
    fn every_part_counts() {
        let resource = [("service.name", LabelValue::String("shop"))];
        let labels = [("route", LabelValue::String("/"))];
        let scope = ScopeHash::new(&resource, "lib", "1", &[]);
        let id = scope.metric(&metric("m")).series(&labels);
        assert_eq!(id, scope.metric(&metric("m")).series(&labels));
        let others = [
            ScopeHash::new(&[], "lib", "1", &[]).metric(&metric("m")).series(&labels),
            ScopeHash::new(&resource, "lib", "2", &[]).metric(&metric("m")).series(&labels),
            ScopeHash::new(&resource, "lib", "1", &labels).metric(&metric("m")).series(&labels),
            scope.metric(&metric("n")).series(&labels),
            scope.metric(&SeriesMetric { unit: "s", ..metric("m") }).series(&labels),
            scope.metric(&SeriesMetric { kind: "sum", ..metric("m") }).series(&labels),
            scope.metric(&SeriesMetric { temporality: "delta", ..metric("m") }).series(&labels),
            scope.metric(&SeriesMetric { is_monotonic: true, ..metric("m") }).series(&labels),
            scope.metric(&metric("m")).series(&[]),
        ];
        assert!(others.iter().all(|other| *other != id));
    }
}
