//! What the segments of a request must hold, written down from the official message types without our decoder.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{Exemplar, Metric, exemplar, metric, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Map, Value, json};

use super::{ARRIVAL, double};

type Row = Map<String, Value>;

fn value_json(value: Option<&AnyValue>) -> Value {
    use any_value::Value as Any;
    match value.and_then(|value| value.value.as_ref()) {
        None => Value::Null,
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::BoolValue(flag)) => json!(flag),
        Some(Any::IntValue(number)) => json!(number),
        Some(Any::DoubleValue(number)) => double(*number),
        Some(Any::BytesValue(bytes)) => json!({"bytesValue": STANDARD.encode(bytes)}),
        Some(Any::ArrayValue(list)) => list.values.iter().map(|value| value_json(Some(value))).collect(),
        Some(Any::KvlistValue(list)) => attributes_json(&list.values),
        Some(other) => panic!("{other:?} is not made by these tests"),
    }
}

fn attributes_json(attributes: &[KeyValue]) -> Value {
    Value::Object(attributes.iter().map(|pair| (pair.key.clone(), value_json(pair.value.as_ref()))).collect())
}

/// Inserts unless it is proto3's default.
fn put(row: &mut Row, name: &str, value: impl Into<Value>) {
    let value = value.into();
    if value != json!("") && value != json!(0) && !value.is_null() {
        row.insert(name.to_owned(), value);
    }
}

fn put_id(row: &mut Row, name: &str, id: &[u8]) {
    if id.iter().any(|byte| *byte != 0) {
        row.insert(name.to_owned(), json!(hex::encode(id)));
    }
}

fn put_time(row: &mut Row, name: &str, nanos: u64) {
    if let Ok(nanos @ 1..) = i64::try_from(nanos) {
        row.insert(name.to_owned(), json!(nanos));
    }
}

/// Event, else second, else arrival.
fn put_row_time(row: &mut Row, event: u64, second: u64) {
    let valid = |nanos: &u64| *nanos >= 946_684_800_000_000_000 && *nanos <= ARRIVAL.0 as u64 + 86_400_000_000_000;
    let time = [event, second].into_iter().find(valid).unwrap_or(ARRIVAL.0 as u64);
    row.insert("time".to_owned(), json!(time as i64));
    row.insert("arrival_time".to_owned(), json!(ARRIVAL.0));
    if event != 0 && !valid(&event) {
        row.insert("original_time".to_owned(), json!(event as i64));
    }
}

fn frame(
    resource: Option<&Resource>,
    resource_url: &str,
    scope: Option<&InstrumentationScope>,
    scope_url: &str,
) -> Row {
    let mut row = Row::new();
    let (resource, scope) = (resource.cloned().unwrap_or_default(), scope.cloned().unwrap_or_default());
    row.insert("resource".to_owned(), attributes_json(&resource.attributes));
    row.insert("scope".to_owned(), attributes_json(&scope.attributes));
    let service = resource.attributes.iter().find(|pair| pair.key == "service.name");
    if let Some(Value::String(name)) = service.map(|pair| value_json(pair.value.as_ref())) {
        row.insert("service_name".to_owned(), json!(name));
    }
    put(&mut row, "scope_name", scope.name);
    put(&mut row, "scope_version", scope.version);
    put(&mut row, "resource_schema_url", resource_url);
    put(&mut row, "scope_schema_url", scope_url);
    put(&mut row, "resource_dropped", resource.dropped_attributes_count);
    put(&mut row, "scope_dropped", scope.dropped_attributes_count);
    row
}

fn sorted(mut rows: Vec<Row>) -> Vec<Value> {
    let mut rows: Vec<Value> = rows.drain(..).map(Value::Object).collect();
    rows.sort_by_cached_key(Value::to_string);
    rows
}

/// The rows of a logs request.
pub fn log_rows(request: &ExportLogsServiceRequest) -> Vec<Value> {
    let mut rows = Vec::new();
    for resource in &request.resource_logs {
        for scope in &resource.scope_logs {
            let frame =
                frame(resource.resource.as_ref(), &resource.schema_url, scope.scope.as_ref(), &scope.schema_url);
            rows.extend(scope.log_records.iter().map(|log| log_row(frame.clone(), log)));
        }
    }
    sorted(rows)
}

fn log_row(mut row: Row, log: &LogRecord) -> Row {
    put_row_time(&mut row, log.time_unix_nano, log.observed_time_unix_nano);
    put_time(&mut row, "observed_time", log.observed_time_unix_nano);
    put(&mut row, "severity_number", log.severity_number);
    put(&mut row, "severity_text", log.severity_text.clone());
    match value_json(log.body.as_ref()) {
        Value::Null => {}
        Value::String(text) => {
            row.insert("body".to_owned(), json!(text));
        }
        other => {
            // Bodies are compared as JSON, not as text: member order and spelling of numbers are the encoder's.
            row.insert("body".to_owned(), other);
            row.insert("body_type".to_owned(), json!("json"));
        }
    }
    row.insert("attributes".to_owned(), attributes_json(&log.attributes));
    put(&mut row, "dropped_attributes", log.dropped_attributes_count);
    put(&mut row, "flags", log.flags);
    put_id(&mut row, "trace_id", &log.trace_id);
    put_id(&mut row, "span_id", &log.span_id);
    put(&mut row, "event_name", log.event_name.clone());
    row
}

/// The rows of a traces request.
pub fn span_rows(request: &ExportTraceServiceRequest) -> Vec<Value> {
    let mut rows = Vec::new();
    for resource in &request.resource_spans {
        for scope in &resource.scope_spans {
            let frame =
                frame(resource.resource.as_ref(), &resource.schema_url, scope.scope.as_ref(), &scope.schema_url);
            rows.extend(scope.spans.iter().map(|span| span_row(frame.clone(), span)));
        }
    }
    sorted(rows)
}

fn span_row(mut row: Row, span: &Span) -> Row {
    put_row_time(&mut row, span.start_time_unix_nano, span.end_time_unix_nano);
    put_id(&mut row, "trace_id", &span.trace_id);
    put_id(&mut row, "span_id", &span.span_id);
    put_id(&mut row, "parent_span_id", &span.parent_span_id);
    put(&mut row, "trace_state", span.trace_state.clone());
    row.insert("name".to_owned(), json!(span.name));
    let kinds = ["unspecified", "internal", "server", "client", "producer", "consumer"];
    row.insert("kind".to_owned(), json!(kinds.get(span.kind as usize).unwrap_or(&"unspecified")));
    put_time(&mut row, "end_time", span.end_time_unix_nano);
    let (start, end) = (i64::try_from(span.start_time_unix_nano), i64::try_from(span.end_time_unix_nano));
    if let (Ok(start @ 1..), Ok(end @ 1..)) = (start, end) {
        row.insert("duration_ns".to_owned(), json!(end - start));
    }
    let status = span.status.clone().unwrap_or_default();
    row.insert("status_code".to_owned(), json!(["unset", "ok", "error"].get(status.code as usize).unwrap_or(&"unset")));
    put(&mut row, "status_message", status.message);
    row.insert("attributes".to_owned(), attributes_json(&span.attributes));
    put(&mut row, "dropped_attributes", span.dropped_attributes_count);
    put(&mut row, "flags", span.flags);
    put(&mut row, "dropped_events", span.dropped_events_count);
    put(&mut row, "dropped_links", span.dropped_links_count);
    let events = span.events.iter().map(|event| {
        let mut out = Row::new();
        put_time(&mut out, "time", event.time_unix_nano);
        out.insert("name".to_owned(), json!(event.name));
        put_attributes(&mut out, &event.attributes);
        put(&mut out, "dropped", event.dropped_attributes_count);
        Value::Object(out)
    });
    let links = span.links.iter().map(|link| {
        let mut out = Row::new();
        put_id(&mut out, "trace_id", &link.trace_id);
        put_id(&mut out, "span_id", &link.span_id);
        put(&mut out, "trace_state", link.trace_state.clone());
        put_attributes(&mut out, &link.attributes);
        put(&mut out, "flags", link.flags);
        put(&mut out, "dropped", link.dropped_attributes_count);
        Value::Object(out)
    });
    put_list(&mut row, "events", events.collect());
    put_list(&mut row, "links", links.collect());
    row
}

fn put_attributes(row: &mut Row, attributes: &[KeyValue]) {
    if !attributes.is_empty() {
        row.insert("attributes".to_owned(), attributes_json(attributes));
    }
}

fn put_list(row: &mut Row, name: &str, list: Vec<Value>) {
    if !list.is_empty() {
        row.insert(name.to_owned(), Value::Array(list));
    }
}

/// The rows of a metrics request, without their series.
pub fn point_rows(request: &ExportMetricsServiceRequest) -> Vec<Value> {
    let mut rows = Vec::new();
    for resource in &request.resource_metrics {
        for scope in &resource.scope_metrics {
            let frame =
                frame(resource.resource.as_ref(), &resource.schema_url, scope.scope.as_ref(), &scope.schema_url);
            for metric in &scope.metrics {
                metric_rows(&frame, metric, &mut rows);
            }
        }
    }
    sorted(rows)
}

fn metric_rows(frame: &Row, metric: &Metric, rows: &mut Vec<Row>) {
    let mut base = frame.clone();
    base.insert("name".to_owned(), json!(metric.name));
    put(&mut base, "description", metric.description.clone());
    put(&mut base, "unit", metric.unit.clone());
    if !metric.metadata.is_empty() {
        base.insert("metadata".to_owned(), attributes_json(&metric.metadata));
    }
    let mut describe = |kind: &str, temporality: i32| {
        base.insert("kind".to_owned(), json!(kind));
        put(&mut base, "temporality", ["", "delta", "cumulative"][temporality as usize]);
    };
    match metric.data.as_ref().expect("these tests always set it") {
        metric::Data::Gauge(gauge) => {
            describe("gauge", 0);
            rows.extend(gauge.data_points.iter().map(|point| number_row(base.clone(), point)));
        }
        metric::Data::Sum(sum) => {
            describe("sum", sum.aggregation_temporality);
            base.insert("is_monotonic".to_owned(), json!(sum.is_monotonic));
            rows.extend(sum.data_points.iter().map(|point| number_row(base.clone(), point)));
        }
        metric::Data::Histogram(histogram) => {
            describe("histogram", histogram.aggregation_temporality);
            for point in &histogram.data_points {
                let mut row = base.clone();
                put_point(&mut row, &point.attributes, point.start_time_unix_nano, point.time_unix_nano, point.flags);
                put_exemplars(&mut row, &point.exemplars);
                row.insert("count".to_owned(), json!(point.count));
                put_doubles(&mut row, [("sum", point.sum), ("min", point.min), ("max", point.max)]);
                put_list(&mut row, "bucket_counts", point.bucket_counts.iter().map(|count| json!(count)).collect());
                put_list(&mut row, "explicit_bounds", point.explicit_bounds.iter().map(|bound| json!(bound)).collect());
                rows.push(row);
            }
        }
        metric::Data::ExponentialHistogram(histogram) => {
            describe("exponential_histogram", histogram.aggregation_temporality);
            for point in &histogram.data_points {
                let mut row = base.clone();
                put_point(&mut row, &point.attributes, point.start_time_unix_nano, point.time_unix_nano, point.flags);
                put_exemplars(&mut row, &point.exemplars);
                row.insert("count".to_owned(), json!(point.count));
                row.insert("scale".to_owned(), json!(point.scale));
                row.insert("zero_count".to_owned(), json!(point.zero_count));
                let threshold = (point.zero_threshold != 0.0).then_some(point.zero_threshold);
                put_doubles(
                    &mut row,
                    [("sum", point.sum), ("min", point.min), ("max", point.max), ("zero_threshold", threshold)],
                );
                for (side, buckets) in [("positive", &point.positive), ("negative", &point.negative)] {
                    if let Some(buckets) = buckets {
                        row.insert(format!("{side}_offset"), json!(buckets.offset));
                        row.insert(format!("{side}_counts"), json!(buckets.bucket_counts));
                    }
                }
                rows.push(row);
            }
        }
        metric::Data::Summary(summary) => {
            describe("summary", 0);
            for point in &summary.data_points {
                let mut row = base.clone();
                put_point(&mut row, &point.attributes, point.start_time_unix_nano, point.time_unix_nano, point.flags);
                row.insert("count".to_owned(), json!(point.count));
                put_doubles(&mut row, [("sum", Some(point.sum))]);
                let quantiles = point.quantile_values.iter();
                let pairs = quantiles.map(|pair| json!({"quantile": pair.quantile, "value": double(pair.value)}));
                put_list(&mut row, "quantiles", pairs.collect());
                rows.push(row);
            }
        }
    }
}

fn number_row(mut row: Row, point: &opentelemetry_proto::tonic::metrics::v1::NumberDataPoint) -> Row {
    put_point(&mut row, &point.attributes, point.start_time_unix_nano, point.time_unix_nano, point.flags);
    put_exemplars(&mut row, &point.exemplars);
    match point.value {
        None => {}
        Some(number_data_point::Value::AsDouble(value)) => put_doubles(&mut row, [("value", Some(value))]),
        Some(number_data_point::Value::AsInt(value)) => {
            row.insert("value_int".to_owned(), json!(value));
            put_doubles(&mut row, [("value", Some(value as f64))]);
        }
    }
    row
}

fn put_point(row: &mut Row, attributes: &[KeyValue], start: u64, time: u64, flags: u32) {
    put_row_time(row, time, 0);
    put_time(row, "start_time", start);
    row.insert("attributes".to_owned(), attributes_json(attributes));
    put(row, "flags", flags);
}

fn put_doubles<const N: usize>(row: &mut Row, values: [(&str, Option<f64>); N]) {
    for (name, value) in values {
        if let Some(value) = value {
            row.insert(name.to_owned(), double(value));
        }
    }
}

fn put_exemplars(row: &mut Row, exemplars: &[Exemplar]) {
    let list = exemplars.iter().map(|exemplar| {
        let mut out = Row::new();
        out.insert("time".to_owned(), json!(exemplar.time_unix_nano));
        match exemplar.value {
            None => {}
            Some(exemplar::Value::AsInt(value)) => {
                out.insert("value".to_owned(), json!(value));
            }
            Some(exemplar::Value::AsDouble(value)) => put_doubles(&mut out, [("value", Some(value))]),
        }
        put_id(&mut out, "trace_id", &exemplar.trace_id);
        put_id(&mut out, "span_id", &exemplar.span_id);
        put_attributes(&mut out, &exemplar.filtered_attributes);
        Value::Object(out)
    });
    put_list(row, "exemplars", list.collect());
}
