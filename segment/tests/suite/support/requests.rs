//! Seeded OTLP requests of every shape, made with the official message types.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
    exponential_histogram_data_point::Buckets, metric, number_data_point, summary_data_point::ValueAtQuantile,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore};

use super::ARRIVAL;

const WORDS: [&str; 8] = ["", "a", "checkout", "GET /users/42", "naïve ✓", "\"quoted\" \\ \n", "null", "0"];
const KEYS: [&str; 9] = ["http.method", "http.Method", "http_method", "code", "rest", "k8s.pod.name", "x", "", "größe"];

/// Makes requests out of one source of randomness.
pub struct Maker<'r>(pub &'r mut StdRng);

impl Maker<'_> {
    fn word(&mut self) -> String {
        (*WORDS.choose(self.0).expect("not empty")).to_owned()
    }

    fn time(&mut self) -> u64 {
        let near = |nanos: u64| ARRIVAL.0 as u64 - nanos;
        match self.0.random_range(0..12) {
            0 => 0,
            1 => 5,
            2 => u64::MAX,
            3 => near(0) + 25 * 3_600_000_000_000,
            4 => near(self.0.random_range(0..3 * 86_400_000_000_000)),
            _ => near(self.0.random_range(0..3_600_000_000_000)),
        }
    }

    fn id(&mut self, length: usize) -> Vec<u8> {
        match self.0.random_range(0..6) {
            0 => Vec::new(),
            1 => vec![0; length],
            _ => {
                let mut id = vec![0; length];
                self.0.fill_bytes(&mut id);
                id
            }
        }
    }

    fn number(&mut self) -> f64 {
        let specials = [0.0, -0.0, 1.0, -2.5, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        if self.0.random_bool(0.5) { *specials.choose(self.0).expect("not empty") } else { self.0.random() }
    }

    fn value(&mut self, depth: usize) -> AnyValue {
        use any_value::Value;
        let value = match self.0.random_range(0..if depth < 3 { 10 } else { 7 }) {
            0 => return AnyValue { value: None },
            1 => Value::BoolValue(self.0.random()),
            2 => Value::IntValue(*[0, -1, i64::MAX, i64::MIN, 77].choose(self.0).expect("not empty")),
            3 => Value::DoubleValue(self.number()),
            4 => Value::BytesValue(self.id(5)),
            7 | 8 => Value::ArrayValue(ArrayValue {
                values: (0..self.0.random_range(0..3)).map(|_| self.value(depth + 1)).collect(),
            }),
            9 => Value::KvlistValue(KeyValueList { values: self.attributes(depth + 1) }),
            _ => Value::StringValue(self.word()),
        };
        AnyValue { value: Some(value) }
    }

    fn attributes(&mut self, depth: usize) -> Vec<KeyValue> {
        let mut keys: Vec<&str> = KEYS.to_vec();
        let count = self.0.random_range(0..4);
        let mut out = Vec::new();
        for _ in 0..count {
            let key = keys.swap_remove(self.0.random_range(0..keys.len()));
            out.push(KeyValue { key: key.to_owned(), value: Some(self.value(depth)), ..KeyValue::default() });
        }
        out
    }

    fn resource(&mut self) -> Option<Resource> {
        let mut attributes = self.attributes(0);
        if self.0.random_bool(0.7) {
            attributes.push(KeyValue {
                key: "service.name".to_owned(),
                value: Some(self.value(3)),
                ..KeyValue::default()
            });
        }
        let resource =
            Resource { attributes, dropped_attributes_count: self.0.random_range(0..2), ..Resource::default() };
        self.0.random_bool(0.8).then_some(resource)
    }

    fn scope(&mut self) -> Option<InstrumentationScope> {
        let scope = InstrumentationScope {
            name: self.word(),
            version: self.word(),
            attributes: self.attributes(0),
            dropped_attributes_count: self.0.random_range(0..2),
        };
        self.0.random_bool(0.8).then_some(scope)
    }

    fn many<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.0.random_range(0..=most)).map(|_| make(self)).collect()
    }

    /// A logs request.
    pub fn logs(&mut self) -> ExportLogsServiceRequest {
        let resource_logs = self.many(3, |maker| ResourceLogs {
            resource: maker.resource(),
            scope_logs: maker.many(2, |maker| ScopeLogs {
                scope: maker.scope(),
                log_records: maker.many(6, Self::log),
                schema_url: maker.word(),
            }),
            schema_url: maker.word(),
        });
        ExportLogsServiceRequest { resource_logs }
    }

    fn log(&mut self) -> LogRecord {
        LogRecord {
            time_unix_nano: self.time(),
            observed_time_unix_nano: self.time(),
            severity_number: self.0.random_range(-1..25),
            severity_text: self.word(),
            body: self.0.random_bool(0.9).then(|| self.value(0)),
            attributes: self.attributes(0),
            dropped_attributes_count: self.0.random_range(0..2),
            flags: self.0.random_range(0..2),
            trace_id: self.id(16),
            span_id: self.id(8),
            event_name: self.word(),
        }
    }

    /// A traces request.
    pub fn traces(&mut self) -> ExportTraceServiceRequest {
        let resource_spans = self.many(3, |maker| ResourceSpans {
            resource: maker.resource(),
            scope_spans: maker.many(2, |maker| ScopeSpans {
                scope: maker.scope(),
                spans: maker.many(6, Self::span),
                schema_url: maker.word(),
            }),
            schema_url: maker.word(),
        });
        ExportTraceServiceRequest { resource_spans }
    }

    fn span(&mut self) -> Span {
        Span {
            trace_id: self.id(16),
            span_id: self.id(8),
            trace_state: self.word(),
            parent_span_id: self.id(8),
            flags: self.0.random_range(0..300),
            name: self.word(),
            kind: self.0.random_range(0..7),
            start_time_unix_nano: self.time(),
            end_time_unix_nano: self.time(),
            attributes: self.attributes(0),
            dropped_attributes_count: self.0.random_range(0..2),
            events: self.many(2, |maker| span::Event {
                time_unix_nano: maker.time(),
                name: maker.word(),
                attributes: maker.attributes(0),
                dropped_attributes_count: maker.0.random_range(0..2),
            }),
            dropped_events_count: self.0.random_range(0..2),
            links: self.many(2, |maker| span::Link {
                trace_id: maker.id(16),
                span_id: maker.id(8),
                trace_state: maker.word(),
                attributes: maker.attributes(0),
                dropped_attributes_count: maker.0.random_range(0..2),
                flags: maker.0.random_range(0..2),
            }),
            dropped_links_count: self.0.random_range(0..2),
            status: self.0.random_bool(0.5).then(|| Status { message: self.word(), code: self.0.random_range(0..4) }),
        }
    }

    /// A metrics request.
    pub fn metrics(&mut self) -> ExportMetricsServiceRequest {
        let resource_metrics = self.many(3, |maker| ResourceMetrics {
            resource: maker.resource(),
            scope_metrics: maker.many(2, |maker| ScopeMetrics {
                scope: maker.scope(),
                metrics: maker.many(4, Self::metric),
                schema_url: maker.word(),
            }),
            schema_url: maker.word(),
        });
        ExportMetricsServiceRequest { resource_metrics }
    }

    fn metric(&mut self) -> Metric {
        let temporality = self.0.random_range(0..3);
        let data = match self.0.random_range(0..5) {
            0 => metric::Data::Gauge(Gauge { data_points: self.many(3, Self::number_point) }),
            1 => metric::Data::Sum(Sum {
                data_points: self.many(3, Self::number_point),
                aggregation_temporality: temporality,
                is_monotonic: self.0.random(),
            }),
            2 => metric::Data::Histogram(Histogram {
                data_points: self.many(3, Self::histogram_point),
                aggregation_temporality: temporality,
            }),
            3 => metric::Data::ExponentialHistogram(ExponentialHistogram {
                data_points: self.many(3, Self::exponential_point),
                aggregation_temporality: temporality,
            }),
            _ => metric::Data::Summary(Summary { data_points: self.many(3, Self::summary_point) }),
        };
        Metric {
            name: format!("m{}", self.0.random_range(0..4)),
            description: self.word(),
            unit: self.word(),
            metadata: self.attributes(0),
            data: Some(data),
        }
    }

    fn number_point(&mut self) -> NumberDataPoint {
        NumberDataPoint {
            attributes: self.attributes(0),
            start_time_unix_nano: self.time(),
            time_unix_nano: self.time(),
            exemplars: self.many(1, Self::exemplar),
            flags: self.0.random_range(0..2),
            value: match self.0.random_range(0..3) {
                0 => None,
                1 => Some(number_data_point::Value::AsInt(self.0.random())),
                _ => Some(number_data_point::Value::AsDouble(self.number())),
            },
        }
    }

    fn exemplar(&mut self) -> Exemplar {
        Exemplar {
            filtered_attributes: self.attributes(0),
            time_unix_nano: self.time(),
            span_id: self.id(8),
            trace_id: self.id(16),
            value: match self.0.random_range(0..3) {
                0 => None,
                1 => Some(exemplar::Value::AsInt(self.0.random())),
                _ => Some(exemplar::Value::AsDouble(self.number())),
            },
        }
    }

    fn histogram_point(&mut self) -> HistogramDataPoint {
        let bounds: Vec<f64> = (0..self.0.random_range(0..4)).map(f64::from).collect();
        HistogramDataPoint {
            attributes: self.attributes(0),
            start_time_unix_nano: self.time(),
            time_unix_nano: self.time(),
            count: self.0.random(),
            sum: self.0.random_bool(0.5).then(|| self.number()),
            bucket_counts: if bounds.is_empty() {
                Vec::new()
            } else {
                (0..=bounds.len()).map(|_| self.0.random()).collect()
            },
            explicit_bounds: bounds,
            exemplars: self.many(2, Self::exemplar),
            flags: self.0.random_range(0..2),
            min: self.0.random_bool(0.5).then(|| self.number()),
            max: self.0.random_bool(0.5).then(|| self.number()),
        }
    }

    fn exponential_point(&mut self) -> ExponentialHistogramDataPoint {
        let mut buckets = || {
            let counts = self.many(3, |maker| maker.0.random());
            let buckets = Buckets { offset: self.0.random_range(-5..5), bucket_counts: counts };
            self.0.random_bool(0.7).then_some(buckets)
        };
        let (positive, negative) = (buckets(), buckets());
        ExponentialHistogramDataPoint {
            attributes: self.attributes(0),
            start_time_unix_nano: self.time(),
            time_unix_nano: self.time(),
            count: self.0.random(),
            sum: self.0.random_bool(0.5).then(|| self.number()),
            scale: self.0.random_range(-4..10),
            zero_count: self.0.random_range(0..3),
            positive,
            negative,
            flags: self.0.random_range(0..2),
            exemplars: self.many(1, Self::exemplar),
            min: None,
            max: self.0.random_bool(0.5).then(|| self.number()),
            zero_threshold: *[0.0, 0.5].choose(self.0).expect("not empty"),
        }
    }

    fn summary_point(&mut self) -> SummaryDataPoint {
        SummaryDataPoint {
            attributes: self.attributes(0),
            start_time_unix_nano: self.time(),
            time_unix_nano: self.time(),
            count: self.0.random(),
            sum: self.number(),
            quantile_values: self
                .many(2, |maker| ValueAtQuantile { quantile: maker.0.random(), value: maker.number() }),
            flags: self.0.random_range(0..2),
        }
    }
}
