//! OTLP's messages as tables: what each JSON member is on the wire.
//!
//! After <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>: ids are hexadecimal, 64-bit integers may be text, enums are
//! numbers (names are taken as well), members are camelCase (snake_case is taken as well), unknown members are ignored.

use tidemill_types::Signal;

use super::metrics::MetricKind;

/// A message's members.
pub(crate) struct Message {
    pub fields: &'static [Field],
    /// Which record it is, if it is one: refused alone when it is wrong.
    pub record: Option<Record>,
}

/// A message that is refused alone.
#[derive(Clone, Copy)]
pub(crate) enum Record {
    Log,
    Span,
    /// A data point; those of gauges and sums are alike.
    Point(MetricKind),
}

/// A member of a message.
pub(crate) struct Field {
    pub number: u32,
    /// In camelCase.
    pub name: &'static str,
    pub kind: Kind,
    pub is_list: bool,
}

/// A member's type on the wire.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    String,
    /// Base64 text.
    Bytes,
    /// Hexadecimal text of this many bytes, or empty.
    Id(usize),
    Bool,
    Uint32,
    Sint32,
    Uint64,
    Int64,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
    Enum(&'static [(&'static str, i32)]),
    Message(&'static Message),
}

/// The export request of `signal`.
pub(crate) fn request(signal: Signal) -> &'static Message {
    match signal {
        Signal::Logs => &LOGS_REQUEST,
        Signal::Metrics => &METRICS_REQUEST,
        Signal::Traces => &TRACES_REQUEST,
    }
}

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, is_list: false }
}

const fn list(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, is_list: true }
}

const fn message(fields: &'static [Field]) -> Message {
    Message { fields, record: None }
}

const fn record(record: Record, fields: &'static [Field]) -> Message {
    Message { fields, record: Some(record) }
}

static LOGS_REQUEST: Message = message(&[list(1, "resourceLogs", Kind::Message(&RESOURCE_LOGS))]);
static METRICS_REQUEST: Message = message(&[list(1, "resourceMetrics", Kind::Message(&RESOURCE_METRICS))]);
static TRACES_REQUEST: Message = message(&[list(1, "resourceSpans", Kind::Message(&RESOURCE_SPANS))]);

static RESOURCE_LOGS: Message = message(&[
    one(1, "resource", Kind::Message(&RESOURCE)),
    list(2, "scopeLogs", Kind::Message(&SCOPE_LOGS)),
    one(3, "schemaUrl", Kind::String),
]);
static RESOURCE_METRICS: Message = message(&[
    one(1, "resource", Kind::Message(&RESOURCE)),
    list(2, "scopeMetrics", Kind::Message(&SCOPE_METRICS)),
    one(3, "schemaUrl", Kind::String),
]);
static RESOURCE_SPANS: Message = message(&[
    one(1, "resource", Kind::Message(&RESOURCE)),
    list(2, "scopeSpans", Kind::Message(&SCOPE_SPANS)),
    one(3, "schemaUrl", Kind::String),
]);
static SCOPE_LOGS: Message = message(&[
    one(1, "scope", Kind::Message(&SCOPE)),
    list(2, "logRecords", Kind::Message(&LOG_RECORD)),
    one(3, "schemaUrl", Kind::String),
]);
static SCOPE_METRICS: Message = message(&[
    one(1, "scope", Kind::Message(&SCOPE)),
    list(2, "metrics", Kind::Message(&METRIC)),
    one(3, "schemaUrl", Kind::String),
]);
static SCOPE_SPANS: Message = message(&[
    one(1, "scope", Kind::Message(&SCOPE)),
    list(2, "spans", Kind::Message(&SPAN)),
    one(3, "schemaUrl", Kind::String),
]);

static RESOURCE: Message = message(&[ATTRIBUTES_1, one(2, "droppedAttributesCount", Kind::Uint32)]);
static SCOPE: Message = message(&[
    one(1, "name", Kind::String),
    one(2, "version", Kind::String),
    list(3, "attributes", Kind::Message(&KEY_VALUE)),
    one(4, "droppedAttributesCount", Kind::Uint32),
]);
const ATTRIBUTES_1: Field = list(1, "attributes", Kind::Message(&KEY_VALUE));

static KEY_VALUE: Message = message(&[one(1, "key", Kind::String), one(2, "value", Kind::Message(&ANY_VALUE))]);
static ANY_VALUE: Message = message(&[
    one(1, "stringValue", Kind::String),
    one(2, "boolValue", Kind::Bool),
    one(3, "intValue", Kind::Int64),
    one(4, "doubleValue", Kind::Double),
    one(5, "arrayValue", Kind::Message(&ARRAY_VALUE)),
    one(6, "kvlistValue", Kind::Message(&KEY_VALUE_LIST)),
    one(7, "bytesValue", Kind::Bytes),
]);
static ARRAY_VALUE: Message = message(&[list(1, "values", Kind::Message(&ANY_VALUE))]);
static KEY_VALUE_LIST: Message = message(&[list(1, "values", Kind::Message(&KEY_VALUE))]);

static LOG_RECORD: Message = record(
    Record::Log,
    &[
        one(1, "timeUnixNano", Kind::Fixed64),
        one(11, "observedTimeUnixNano", Kind::Fixed64),
        one(2, "severityNumber", Kind::Enum(SEVERITIES)),
        one(3, "severityText", Kind::String),
        one(5, "body", Kind::Message(&ANY_VALUE)),
        list(6, "attributes", Kind::Message(&KEY_VALUE)),
        one(7, "droppedAttributesCount", Kind::Uint32),
        one(8, "flags", Kind::Fixed32),
        one(9, "traceId", Kind::Id(16)),
        one(10, "spanId", Kind::Id(8)),
        one(12, "eventName", Kind::String),
    ],
);

static SPAN: Message = record(
    Record::Span,
    &[
        one(1, "traceId", Kind::Id(16)),
        one(2, "spanId", Kind::Id(8)),
        one(3, "traceState", Kind::String),
        one(4, "parentSpanId", Kind::Id(8)),
        one(16, "flags", Kind::Fixed32),
        one(5, "name", Kind::String),
        one(6, "kind", Kind::Enum(SPAN_KINDS)),
        one(7, "startTimeUnixNano", Kind::Fixed64),
        one(8, "endTimeUnixNano", Kind::Fixed64),
        list(9, "attributes", Kind::Message(&KEY_VALUE)),
        one(10, "droppedAttributesCount", Kind::Uint32),
        list(11, "events", Kind::Message(&EVENT)),
        one(12, "droppedEventsCount", Kind::Uint32),
        list(13, "links", Kind::Message(&LINK)),
        one(14, "droppedLinksCount", Kind::Uint32),
        one(15, "status", Kind::Message(&STATUS)),
    ],
);
static EVENT: Message = message(&[
    one(1, "timeUnixNano", Kind::Fixed64),
    one(2, "name", Kind::String),
    list(3, "attributes", Kind::Message(&KEY_VALUE)),
    one(4, "droppedAttributesCount", Kind::Uint32),
]);
static LINK: Message = message(&[
    one(1, "traceId", Kind::Id(16)),
    one(2, "spanId", Kind::Id(8)),
    one(3, "traceState", Kind::String),
    list(4, "attributes", Kind::Message(&KEY_VALUE)),
    one(5, "droppedAttributesCount", Kind::Uint32),
    one(6, "flags", Kind::Fixed32),
]);
static STATUS: Message = message(&[one(2, "message", Kind::String), one(3, "code", Kind::Enum(STATUS_CODES))]);

static METRIC: Message = message(&[
    one(1, "name", Kind::String),
    one(2, "description", Kind::String),
    one(3, "unit", Kind::String),
    one(5, "gauge", Kind::Message(&GAUGE)),
    one(7, "sum", Kind::Message(&SUM)),
    one(9, "histogram", Kind::Message(&HISTOGRAM)),
    one(10, "exponentialHistogram", Kind::Message(&EXPONENTIAL_HISTOGRAM)),
    one(11, "summary", Kind::Message(&SUMMARY)),
    list(12, "metadata", Kind::Message(&KEY_VALUE)),
]);
static GAUGE: Message = message(&[list(1, "dataPoints", Kind::Message(&NUMBER_POINT))]);
static SUM: Message = message(&[
    list(1, "dataPoints", Kind::Message(&NUMBER_POINT)),
    one(2, "aggregationTemporality", Kind::Enum(TEMPORALITIES)),
    one(3, "isMonotonic", Kind::Bool),
]);
static HISTOGRAM: Message = message(&[
    list(1, "dataPoints", Kind::Message(&HISTOGRAM_POINT)),
    one(2, "aggregationTemporality", Kind::Enum(TEMPORALITIES)),
]);
static EXPONENTIAL_HISTOGRAM: Message = message(&[
    list(1, "dataPoints", Kind::Message(&EXPONENTIAL_POINT)),
    one(2, "aggregationTemporality", Kind::Enum(TEMPORALITIES)),
]);
static SUMMARY: Message = message(&[list(1, "dataPoints", Kind::Message(&SUMMARY_POINT))]);

static NUMBER_POINT: Message = record(
    Record::Point(MetricKind::Gauge),
    &[
        list(7, "attributes", Kind::Message(&KEY_VALUE)),
        one(2, "startTimeUnixNano", Kind::Fixed64),
        one(3, "timeUnixNano", Kind::Fixed64),
        one(4, "asDouble", Kind::Double),
        one(6, "asInt", Kind::Sfixed64),
        list(5, "exemplars", Kind::Message(&EXEMPLAR)),
        one(8, "flags", Kind::Uint32),
    ],
);
static HISTOGRAM_POINT: Message = record(
    Record::Point(MetricKind::Histogram),
    &[
        list(9, "attributes", Kind::Message(&KEY_VALUE)),
        one(2, "startTimeUnixNano", Kind::Fixed64),
        one(3, "timeUnixNano", Kind::Fixed64),
        one(4, "count", Kind::Fixed64),
        one(5, "sum", Kind::Double),
        list(6, "bucketCounts", Kind::Fixed64),
        list(7, "explicitBounds", Kind::Double),
        list(8, "exemplars", Kind::Message(&EXEMPLAR)),
        one(10, "flags", Kind::Uint32),
        one(11, "min", Kind::Double),
        one(12, "max", Kind::Double),
    ],
);
static EXPONENTIAL_POINT: Message = record(
    Record::Point(MetricKind::ExponentialHistogram),
    &[
        ATTRIBUTES_1,
        one(2, "startTimeUnixNano", Kind::Fixed64),
        one(3, "timeUnixNano", Kind::Fixed64),
        one(4, "count", Kind::Fixed64),
        one(5, "sum", Kind::Double),
        one(6, "scale", Kind::Sint32),
        one(7, "zeroCount", Kind::Fixed64),
        one(8, "positive", Kind::Message(&BUCKETS)),
        one(9, "negative", Kind::Message(&BUCKETS)),
        one(10, "flags", Kind::Uint32),
        list(11, "exemplars", Kind::Message(&EXEMPLAR)),
        one(12, "min", Kind::Double),
        one(13, "max", Kind::Double),
        one(14, "zeroThreshold", Kind::Double),
    ],
);
static BUCKETS: Message = message(&[one(1, "offset", Kind::Sint32), list(2, "bucketCounts", Kind::Uint64)]);
static SUMMARY_POINT: Message = record(
    Record::Point(MetricKind::Summary),
    &[
        list(7, "attributes", Kind::Message(&KEY_VALUE)),
        one(2, "startTimeUnixNano", Kind::Fixed64),
        one(3, "timeUnixNano", Kind::Fixed64),
        one(4, "count", Kind::Fixed64),
        one(5, "sum", Kind::Double),
        list(6, "quantileValues", Kind::Message(&QUANTILE)),
        one(8, "flags", Kind::Uint32),
    ],
);
static QUANTILE: Message = message(&[one(1, "quantile", Kind::Double), one(2, "value", Kind::Double)]);
static EXEMPLAR: Message = message(&[
    list(7, "filteredAttributes", Kind::Message(&KEY_VALUE)),
    one(2, "timeUnixNano", Kind::Fixed64),
    one(3, "asDouble", Kind::Double),
    one(6, "asInt", Kind::Sfixed64),
    one(4, "spanId", Kind::Id(8)),
    one(5, "traceId", Kind::Id(16)),
]);

const SPAN_KINDS: &[(&str, i32)] = &[
    ("SPAN_KIND_UNSPECIFIED", 0),
    ("SPAN_KIND_INTERNAL", 1),
    ("SPAN_KIND_SERVER", 2),
    ("SPAN_KIND_CLIENT", 3),
    ("SPAN_KIND_PRODUCER", 4),
    ("SPAN_KIND_CONSUMER", 5),
];
const STATUS_CODES: &[(&str, i32)] = &[("STATUS_CODE_UNSET", 0), ("STATUS_CODE_OK", 1), ("STATUS_CODE_ERROR", 2)];
const TEMPORALITIES: &[(&str, i32)] = &[
    ("AGGREGATION_TEMPORALITY_UNSPECIFIED", 0),
    ("AGGREGATION_TEMPORALITY_DELTA", 1),
    ("AGGREGATION_TEMPORALITY_CUMULATIVE", 2),
];
const SEVERITIES: &[(&str, i32)] = &[
    ("SEVERITY_NUMBER_UNSPECIFIED", 0),
    ("SEVERITY_NUMBER_TRACE", 1),
    ("SEVERITY_NUMBER_TRACE2", 2),
    ("SEVERITY_NUMBER_TRACE3", 3),
    ("SEVERITY_NUMBER_TRACE4", 4),
    ("SEVERITY_NUMBER_DEBUG", 5),
    ("SEVERITY_NUMBER_DEBUG2", 6),
    ("SEVERITY_NUMBER_DEBUG3", 7),
    ("SEVERITY_NUMBER_DEBUG4", 8),
    ("SEVERITY_NUMBER_INFO", 9),
    ("SEVERITY_NUMBER_INFO2", 10),
    ("SEVERITY_NUMBER_INFO3", 11),
    ("SEVERITY_NUMBER_INFO4", 12),
    ("SEVERITY_NUMBER_WARN", 13),
    ("SEVERITY_NUMBER_WARN2", 14),
    ("SEVERITY_NUMBER_WARN3", 15),
    ("SEVERITY_NUMBER_WARN4", 16),
    ("SEVERITY_NUMBER_ERROR", 17),
    ("SEVERITY_NUMBER_ERROR2", 18),
    ("SEVERITY_NUMBER_ERROR3", 19),
    ("SEVERITY_NUMBER_ERROR4", 20),
    ("SEVERITY_NUMBER_FATAL", 21),
    ("SEVERITY_NUMBER_FATAL2", 22),
    ("SEVERITY_NUMBER_FATAL3", 23),
    ("SEVERITY_NUMBER_FATAL4", 24),
];
