//! A trace as JSON, as Tempo writes it: ids in base64, enumerations by name, 64-bit numbers as text, defaults left out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use serde_json::{Map, Value, json};

/// The resources with their spans.
pub(super) fn resource_spans(trace: &TracesData) -> Vec<Value> {
    trace.resource_spans.iter().map(resource_json).collect()
}

/// An object that leaves out what is at its default.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn text(mut self, name: &str, text: &str) -> Self {
        if !text.is_empty() {
            self.0.insert(name.to_owned(), json!(text));
        }
        self
    }

    fn bytes(self, name: &str, bytes: &[u8]) -> Self {
        let text = STANDARD.encode(bytes);
        self.text(name, &text)
    }

    fn number(mut self, name: &str, number: u32) -> Self {
        if number != 0 {
            self.0.insert(name.to_owned(), json!(number));
        }
        self
    }

    fn time(self, name: &str, ns: u64) -> Self {
        let text = if ns == 0 { String::new() } else { ns.to_string() };
        self.text(name, &text)
    }

    fn list(mut self, name: &str, list: Vec<Value>) -> Self {
        if !list.is_empty() {
            self.0.insert(name.to_owned(), Value::Array(list));
        }
        self
    }

    fn attributes(self, attributes: &[KeyValue]) -> Self {
        self.list("attributes", attributes.iter().map(attribute).collect())
    }

    fn value(mut self, name: &str, value: Value) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

fn resource_json(own: &ResourceSpans) -> Value {
    let resource = own.resource.as_ref().map_or_else(Object::default, |resource| {
        Object::default()
            .attributes(&resource.attributes)
            .number("droppedAttributesCount", resource.dropped_attributes_count)
    });
    Object::default()
        .value("resource", resource.done())
        .list("scopeSpans", own.scope_spans.iter().map(scope_json).collect())
        .text("schemaUrl", &own.schema_url)
        .done()
}

fn scope_json(own: &ScopeSpans) -> Value {
    let scope = own.scope.as_ref().map_or_else(Object::default, |scope| {
        Object::default()
            .text("name", &scope.name)
            .text("version", &scope.version)
            .attributes(&scope.attributes)
            .number("droppedAttributesCount", scope.dropped_attributes_count)
    });
    Object::default()
        .value("scope", scope.done())
        .list("spans", own.spans.iter().map(span_json).collect())
        .text("schemaUrl", &own.schema_url)
        .done()
}

fn span_json(span: &Span) -> Value {
    let kind = SpanKind::try_from(span.kind).unwrap_or_default();
    let status = span.status.as_ref().map_or_else(Object::default, |status| {
        let code = StatusCode::try_from(status.code).unwrap_or_default();
        let code = if code == StatusCode::Unset { "" } else { code.as_str_name() };
        Object::default().text("message", &status.message).text("code", code)
    });
    Object::default()
        .bytes("traceId", &span.trace_id)
        .bytes("spanId", &span.span_id)
        .text("traceState", &span.trace_state)
        .bytes("parentSpanId", &span.parent_span_id)
        .number("flags", span.flags)
        .text("name", &span.name)
        .text("kind", if kind == SpanKind::Unspecified { "" } else { kind.as_str_name() })
        .time("startTimeUnixNano", span.start_time_unix_nano)
        .time("endTimeUnixNano", span.end_time_unix_nano)
        .attributes(&span.attributes)
        .number("droppedAttributesCount", span.dropped_attributes_count)
        .list("events", span.events.iter().map(event_json).collect())
        .number("droppedEventsCount", span.dropped_events_count)
        .list("links", span.links.iter().map(link_json).collect())
        .number("droppedLinksCount", span.dropped_links_count)
        .value("status", status.done())
        .done()
}

fn event_json(event: &Event) -> Value {
    Object::default()
        .time("timeUnixNano", event.time_unix_nano)
        .text("name", &event.name)
        .attributes(&event.attributes)
        .number("droppedAttributesCount", event.dropped_attributes_count)
        .done()
}

fn link_json(link: &Link) -> Value {
    Object::default()
        .bytes("traceId", &link.trace_id)
        .bytes("spanId", &link.span_id)
        .text("traceState", &link.trace_state)
        .attributes(&link.attributes)
        .number("droppedAttributesCount", link.dropped_attributes_count)
        .number("flags", link.flags)
        .done()
}

fn attribute(own: &KeyValue) -> Value {
    json!({ "key": own.key, "value": own.value.as_ref().map_or_else(|| json!({}), any_value) })
}

fn any_value(own: &AnyValue) -> Value {
    match &own.value {
        Some(Any::StringValue(text)) => json!({ "stringValue": text }),
        Some(Any::BoolValue(value)) => json!({ "boolValue": value }),
        Some(Any::IntValue(value)) => json!({ "intValue": value.to_string() }),
        Some(Any::DoubleValue(value)) if value.is_nan() => json!({ "doubleValue": "NaN" }),
        Some(Any::DoubleValue(value)) if value.is_infinite() => {
            json!({ "doubleValue": if *value > 0.0 { "Infinity" } else { "-Infinity" } })
        }
        Some(Any::DoubleValue(value)) => json!({ "doubleValue": value }),
        Some(Any::BytesValue(bytes)) => json!({ "bytesValue": STANDARD.encode(bytes) }),
        Some(Any::ArrayValue(list)) => {
            json!({ "arrayValue": { "values": list.values.iter().map(any_value).collect::<Vec<_>>() } })
        }
        Some(Any::KvlistValue(list)) => {
            json!({ "kvlistValue": { "values": list.values.iter().map(attribute).collect::<Vec<_>>() } })
        }
        _ => json!({}),
    }
}
