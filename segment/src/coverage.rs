//! What a catalog row says of a segment's rows: times, hours, services. Gathered while they are written.

use std::collections::BTreeSet;

use tidemill_types::{Hour, ServiceSet, Signal, TimeRange, TimestampNs};

/// Distinct service names kept by name; more become a bloom filter.
const NAMED_SERVICES: usize = 32;
const NAMED_SERVICES_BYTES: usize = 512;

#[derive(Debug, Default)]
pub(crate) struct Coverage {
    /// The first and the last time.
    range: Option<(i64, i64)>,
    hours: BTreeSet<Hour>,
    services: BTreeSet<String>,
    /// Whether a row without a service was seen.
    has_nameless: bool,
}

impl Coverage {
    pub(crate) fn note_times(&mut self, signal: Signal, times: &[i64]) {
        let mut hour = None;
        for time in times {
            let (first, last) = self.range.unwrap_or((*time, *time));
            self.range = Some((first.min(*time), last.max(*time)));
            let at = TimestampNs(*time);
            // A sample on the hour's boundary belongs to the windows that end there.
            if signal == Signal::Metrics && at.plus_ns(-1).hour() != at.hour() {
                self.hours.insert(at.plus_ns(-1).hour());
            }
            if hour.replace(at.hour()) != Some(at.hour()) {
                self.hours.insert(at.hour());
            }
        }
    }

    pub(crate) fn note_service(&mut self, name: &str) {
        if !self.services.contains(name) {
            self.services.insert(name.to_owned());
        }
    }

    pub(crate) fn note_nameless(&mut self) {
        self.has_nameless = true;
    }

    /// From the first time up to just after the last; `None` without rows.
    pub(crate) fn time(&self) -> Option<TimeRange> {
        let (first, last) = self.range?;
        Some(TimeRange { start: TimestampNs(first), end: TimestampNs(last.saturating_add(1)) })
    }

    pub(crate) fn hours(&self) -> Vec<Hour> {
        self.hours.iter().copied().collect()
    }

    /// The names themselves while they are few.
    pub(crate) fn services(&self) -> ServiceSet {
        let names = &self.services;
        if names.len() <= NAMED_SERVICES && names.iter().map(String::len).sum::<usize>() <= NAMED_SERVICES_BYTES {
            let names = names.iter().cloned().collect();
            if self.has_nameless || self.services.is_empty() {
                ServiceSet::Names(names)
            } else {
                ServiceSet::OfEveryRow(names)
            }
        } else {
            ServiceSet::Bloom(tidemill_text::service_bloom(names.iter().map(String::as_str)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_on_the_hour_ends_the_hour_before() {
        let hour = Hour(3).range().start.0;
        for (signal, expected) in [(Signal::Metrics, vec![Hour(2), Hour(3)]), (Signal::Logs, vec![Hour(3)])] {
            let mut coverage = Coverage::default();
            assert!(coverage.time().is_none());
            coverage.note_times(signal, &[hour + 5, hour]);
            assert_eq!(coverage.hours(), expected);
            assert_eq!(coverage.time(), Some(TimeRange { start: TimestampNs(hour), end: TimestampNs(hour + 6) }));
        }
    }

    #[test]
    fn many_services_become_a_filter() {
        let mut coverage = Coverage::default();
        (0..NAMED_SERVICES).for_each(|number| coverage.note_service(&number.to_string()));
        assert!(matches!(coverage.services(), ServiceSet::OfEveryRow(names) if names.len() == NAMED_SERVICES));
        coverage.note_nameless();
        assert!(matches!(coverage.services(), ServiceSet::Names(names) if names.len() == NAMED_SERVICES));
        coverage.note_service("one more");
        assert!(matches!(coverage.services(), ServiceSet::Bloom(_)));
    }
}
