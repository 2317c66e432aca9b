//! Prometheus's remote write, versions 1 and 2, as an OTLP request that keeps every label exactly.
//!
//! A series becomes a metric of the scope [`REMOTE_WRITE_SCOPE`]: its name as it is, its other labels as attributes of the points, `job`
//! also as the resource's `service.name`. Numbers are gauges, or sums where the sender says that they count; native histograms are
//! exponential histograms, or with bounds of their own explicit ones, which only this scope has as native. What OTLP has no field for
//! stands in the highest bits of a point's flags. Start with [`decode`]; [`encode_otlp`] writes.
//!
//! [`REMOTE_WRITE_SCOPE`]: tidemill_text::prometheus::REMOTE_WRITE_SCOPE

mod check;
mod decode;
mod encode;

use std::fmt;

use crate::otlp::fault::Fault;

pub use decode::decode;
pub use encode::encode_otlp;

/// The NaN by which a sample says that its series has ended.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// So many reasons of refusals are told.
const REASONS_TOLD: usize = 5;

/// The version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

/// One series of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WrittenSeries {
    /// Its labels by name, `__name__` among them.
    pub labels: Vec<(String, String)>,
    /// Whether its numbers count.
    pub is_counter: bool,
    /// What it is for.
    pub help: String,
    /// Its unit.
    pub unit: String,
    /// Numbers.
    pub samples: Vec<WrittenSample>,
    /// Native histograms.
    pub histograms: Vec<WrittenHistogram>,
    /// Exemplars.
    pub exemplars: Vec<WrittenExemplar>,
}

/// What was read of a request.
#[derive(Debug, Default)]
pub struct Decoded {
    /// The series, without samples that are refused.
    pub series: Vec<WrittenSeries>,
    /// How many series, or samples of others, are refused.
    pub refused: usize,
    /// Why the first of them are, with their places.
    pub reasons: Vec<Malformed>,
}

impl Decoded {
    fn refuse(&mut self, fault: Fault) {
        self.refused += 1;
        if self.reasons.len() < REASONS_TOLD {
            self.reasons.push(Malformed::of(fault));
        }
    }
}

/// One number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WrittenSample {
    /// Milliseconds since 1970.
    pub time_ms: i64,
    /// When its counter began, 0 where that is not known.
    pub start_ms: i64,
    /// The number; a stale marker where the series ends.
    pub value: f64,
}

/// One native histogram.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WrittenHistogram {
    /// Milliseconds since 1970.
    pub time_ms: i64,
    /// When its counter began, 0 where that is not known.
    pub start_ms: i64,
    /// The resolution, or -53 for bounds of its own.
    pub schema: i32,
    /// Half the width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// The sum of all observations; a stale marker where the series ends.
    pub sum: f64,
    /// Buckets above zero by Prometheus's index, rising.
    pub positive: Vec<(i32, f64)>,
    /// Buckets below zero.
    pub negative: Vec<(i32, f64)>,
    /// The bounds of its own, rising.
    pub bounds: Vec<f64>,
    /// What is known of a counter reset: 0 nothing, 1 there was one, 2 there was none, 3 it is a gauge.
    pub reset_hint: u32,
}

/// One exemplar.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WrittenExemplar {
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// What was observed.
    pub value: f64,
    /// Milliseconds since 1970.
    pub time_ms: i64,
}

/// A request that cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong, with its place.
    pub reason: String,
}

impl Malformed {
    fn of(fault: Fault) -> Self {
        let issue = fault.into_issue();
        let place = if issue.path.is_empty() { String::new() } else { format!("{}: ", issue.path) };
        Self { reason: format!("{place}{}", issue.reason) }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::{PushEncoding, check_push};
    use tidemill_types::Signal;

    fn series() -> WrittenSeries {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        WrittenSeries {
            labels: vec![pair("__name__", "latency"), pair("job", "api"), pair("zone.a", "1")],
            samples: vec![
                WrittenSample { time_ms: 1_714_521_600_000, start_ms: 0, value: 1.5 },
                WrittenSample { time_ms: 1_714_521_601_000, start_ms: 0, value: f64::from_bits(STALE_NAN_BITS) },
            ],
            histograms: vec![WrittenHistogram {
                time_ms: 1_714_521_602_000,
                schema: 3,
                count: 4.5,
                positive: vec![(-2, 1.0), (5, 3.5)],
                ..WrittenHistogram::default()
            }],
            exemplars: vec![WrittenExemplar { value: 2.0, time_ms: 1_714_521_600_500, ..WrittenExemplar::default() }],
            ..WrittenSeries::default()
        }
    }

    #[test]
    fn what_is_written_is_a_request_that_may_be_pushed() {
        let body = encode_otlp(&[series()]).expect("is encoded");
        let check = check_push(Signal::Metrics, PushEncoding::Protobuf, &body).expect("is well formed");
        // Two numbers, a histogram, and a point that carries the exemplar.
        assert_eq!((check.records, check.rejected), (4, 0), "{:?}", check.issues);
        assert_eq!(encode_otlp(&[series()]).expect("is encoded"), body, "a repeat has the same identity");
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_its_reason() {
        let wide = WrittenHistogram { positive: vec![(0, 1.0), (i32::MAX, 1.0)], ..WrittenHistogram::default() };
        let cases = [
            (WrittenSeries { labels: Vec::new(), ..series() }, "__name__"),
            (WrittenSeries { histograms: vec![wide], ..series() }, "buckets"),
        ];
        for (series, word) in cases {
            let problem = encode_otlp(&[series]).expect_err(word);
            assert!(problem.reason.contains(word), "{problem}");
        }
    }

    #[test]
    fn what_is_wrong_loses_nothing_else() {
        let field = |number: u8, content: &[u8]| [&[number << 3 | 2, content.len() as u8][..], content].concat();
        let label =
            |name: &str, value: &str| field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat());
        let sample = |time_ms: i64| {
            let mut message = vec![0x10];
            crate::otlp::writer::put_varint(&mut message, time_ms as u64);
            field(2, &message)
        };
        let now = 1_714_521_600_000;
        let good = [label("__name__", "ok"), sample(now), sample(-4)].concat();
        let nameless = [label("foo", "bar"), sample(now)].concat();
        let twice = [label("__name__", "ok2"), label("a", "1"), label("a", "2"), sample(now)].concat();
        let cut = [label("__name__", "ok3"), vec![0x12, 9]].concat();
        let body = [good, nameless, twice, cut].map(|series| field(1, &series)).concat();
        let decoded = decode(Version::V1, &body, now).expect("the message is right");
        assert_eq!(decoded.series.len(), 1, "{:?}", decoded.series);
        assert_eq!(decoded.series[0].samples.len(), 1);
        let told: Vec<&str> = decoded.reasons.iter().map(|problem| problem.reason.as_str()).collect();
        assert_eq!(decoded.refused, 4, "{told:?}");
        for (reason, words) in told.iter().zip([
            "timeseries[0].samples.timestamp: -4 ms",
            "timeseries[1]: a series has no",
            "\"a\" occurs twice",
            "timeseries[3]",
        ]) {
            assert!(reason.contains(words), "{reason}");
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        // The messages' own shapes, cut and bent.
        let mut state = 7_u64;
        for round in 0..4_000 {
            let mut bytes: Vec<u8> = (0..round % 90)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 56) as u8
                })
                .collect();
            if let Some(first) = bytes.first_mut() {
                *first = if round % 2 == 0 { 0x0a } else { 0x2a };
            }
            for version in [Version::V1, Version::V2] {
                if let Ok(decoded) = decode(version, &bytes, i64::MAX) {
                    drop(encode_otlp(&decoded.series));
                }
            }
        }
    }
}
