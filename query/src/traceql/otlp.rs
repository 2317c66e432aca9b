//! Rows of spans as OTLP: spans under their scopes under their resources, in the order of their starts.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Int64Type, TimestampNanosecondType, UInt32Type};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion::common::DataFusionError;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};

use super::node::Node;
use crate::{Error, Result};

/// What is read of a span.
pub(super) const COLUMNS: [&str; 26] = [
    "trace_id",
    "span_id",
    "parent_span_id",
    "trace_state",
    "name",
    "kind",
    "time",
    "original_time",
    "end_time",
    "status_code",
    "status_message",
    "flags",
    "events",
    "links",
    "dropped_attributes",
    "dropped_events",
    "dropped_links",
    "scope_name",
    "scope_version",
    "scope_schema_url",
    "scope_dropped",
    "resource_schema_url",
    "resource_dropped",
    "attributes",
    "resource",
    "scope",
];

/// Rows with [`COLUMNS`] as OTLP.
pub(super) fn traces_data(rows: &RecordBatch) -> Result<TracesData> {
    let rows = Rows::new(rows)?;
    let mut order: Vec<usize> = (0..rows.count).collect();
    order.sort_by_key(|row| (rows.start_ns(*row), rows.text("span_id", *row).unwrap_or_default()));
    let mut traces = TracesData::default();
    let mut resources: HashMap<(&str, &str, u32), usize> = HashMap::new();
    let mut scopes: HashMap<(usize, &str, &str, &str, &str, u32), usize> = HashMap::new();
    for row in order {
        let text = |name| rows.text(name, row).unwrap_or_default();
        let key = (text("resource"), text("resource_schema_url"), rows.number("resource_dropped", row));
        let resource = match resources.get(&key) {
            Some(at) => *at,
            None => {
                traces.resource_spans.push(ResourceSpans {
                    resource: Some(Resource {
                        attributes: attributes(key.0)?,
                        dropped_attributes_count: key.2,
                        ..Resource::default()
                    }),
                    scope_spans: Vec::new(),
                    schema_url: key.1.to_owned(),
                });
                resources.insert(key, traces.resource_spans.len() - 1);
                traces.resource_spans.len() - 1
            }
        };
        let own = &mut traces.resource_spans[resource].scope_spans;
        let scope_dropped = rows.number("scope_dropped", row);
        let key = (
            resource,
            text("scope_name"),
            text("scope_version"),
            text("scope"),
            text("scope_schema_url"),
            scope_dropped,
        );
        let scope = match scopes.get(&key) {
            Some(at) => *at,
            None => {
                own.push(ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: key.1.to_owned(),
                        version: key.2.to_owned(),
                        attributes: attributes(key.3)?,
                        dropped_attributes_count: scope_dropped,
                    }),
                    spans: Vec::new(),
                    schema_url: key.4.to_owned(),
                });
                scopes.insert(key, own.len() - 1);
                own.len() - 1
            }
        };
        own[scope].spans.push(rows.span(row)?);
    }
    Ok(traces)
}

/// Columns by name.
struct Rows<'r> {
    columns: HashMap<&'r str, &'r ArrayRef>,
    count: usize,
}

impl<'r> Rows<'r> {
    fn new(rows: &'r RecordBatch) -> Result<Self> {
        let names = rows.schema_ref().fields().iter().map(|field| field.name().as_str());
        let columns: HashMap<&str, &ArrayRef> = names.zip(rows.columns()).collect();
        match COLUMNS.iter().find(|name| !columns.contains_key(*name)) {
            Some(name) => Err(corrupt(&format!("column {name} was not read"))),
            None => Ok(Self { columns, count: rows.num_rows() }),
        }
    }

    fn text(&self, name: &str, row: usize) -> Option<&'r str> {
        let column = self.columns.get(name)?.as_string_view_opt()?;
        column.is_valid(row).then(|| column.value(row))
    }

    fn number(&self, name: &str, row: usize) -> u32 {
        let column = self.columns.get(name).and_then(|column| column.as_primitive_opt::<UInt32Type>());
        column.filter(|column| column.is_valid(row)).map_or(0, |column| column.value(row))
    }

    fn time_ns(&self, name: &str, row: usize) -> Option<i64> {
        let column = self.columns.get(name)?;
        let valid = column.is_valid(row);
        match column.data_type() {
            DataType::Int64 => valid.then(|| column.as_primitive::<Int64Type>().value(row)),
            DataType::Timestamp(..) => {
                column.as_primitive_opt::<TimestampNanosecondType>().filter(|_| valid).map(|column| column.value(row))
            }
            _ => None,
        }
    }

    /// The start as it was sent.
    fn start_ns(&self, row: usize) -> u64 {
        let sent = self.time_ns("original_time", row).or_else(|| self.time_ns("time", row));
        sent.unwrap_or(0).cast_unsigned()
    }

    fn id(&self, name: &str, row: usize) -> Result<Vec<u8>> {
        let text = self.text(name, row).unwrap_or_default();
        hex::decode(text).map_err(|_| corrupt("an id is no hexadecimal text"))
    }

    fn lists(&self, name: &str, row: usize) -> Option<(&'r StructArray, std::ops::Range<usize>)> {
        let column = self.columns.get(name)?.as_list_opt::<i32>()?;
        if column.is_null(row) {
            return None;
        }
        let start = usize::try_from(column.value_offsets()[row]).ok()?;
        let count = usize::try_from(column.value_length(row)).ok()?;
        Some((column.values().as_struct_opt()?, start..start + count))
    }

    fn span(&self, row: usize) -> Result<Span> {
        let text = |name| self.text(name, row).unwrap_or_default().to_owned();
        let kind = match self.text("kind", row).unwrap_or_default() {
            "internal" => SpanKind::Internal,
            "server" => SpanKind::Server,
            "client" => SpanKind::Client,
            "producer" => SpanKind::Producer,
            "consumer" => SpanKind::Consumer,
            _ => SpanKind::Unspecified,
        };
        let code = match self.text("status_code", row).unwrap_or_default() {
            "ok" => StatusCode::Ok,
            "error" => StatusCode::Error,
            _ => StatusCode::Unset,
        };
        let message = text("status_message");
        let has_status = code != StatusCode::Unset || !message.is_empty();
        Ok(Span {
            trace_id: self.id("trace_id", row)?,
            span_id: self.id("span_id", row)?,
            trace_state: text("trace_state"),
            parent_span_id: self.id("parent_span_id", row)?,
            flags: self.number("flags", row),
            name: text("name"),
            kind: kind.into(),
            start_time_unix_nano: self.start_ns(row),
            end_time_unix_nano: self.time_ns("end_time", row).unwrap_or(0).cast_unsigned(),
            attributes: attributes(self.text("attributes", row).unwrap_or_default())?,
            dropped_attributes_count: self.number("dropped_attributes", row),
            events: self.events(row)?,
            dropped_events_count: self.number("dropped_events", row),
            links: self.links(row)?,
            dropped_links_count: self.number("dropped_links", row),
            status: has_status.then(|| Status { message, code: code.into() }),
        })
    }

    fn events(&self, row: usize) -> Result<Vec<Event>> {
        let Some((elements, range)) = self.lists("events", row) else { return Ok(Vec::new()) };
        let element = Element(elements);
        range
            .map(|at| {
                Ok(Event {
                    time_unix_nano: element.time_ns("time", at).cast_unsigned(),
                    name: element.text("name", at).to_owned(),
                    attributes: attributes(element.text("attributes", at))?,
                    dropped_attributes_count: element.number("dropped", at),
                })
            })
            .collect()
    }

    fn links(&self, row: usize) -> Result<Vec<Link>> {
        let Some((elements, range)) = self.lists("links", row) else { return Ok(Vec::new()) };
        let element = Element(elements);
        range
            .map(|at| {
                Ok(Link {
                    trace_id: element.bytes("trace_id", at),
                    span_id: element.bytes("span_id", at),
                    trace_state: element.text("trace_state", at).to_owned(),
                    attributes: attributes(element.text("attributes", at))?,
                    dropped_attributes_count: element.number("dropped", at),
                    flags: element.number("flags", at),
                })
            })
            .collect()
    }
}

/// Elements of a list, by the names of their fields.
struct Element<'e>(&'e StructArray);

impl<'e> Element<'e> {
    fn field(&self, name: &str, at: usize) -> Option<&'e ArrayRef> {
        self.0.column_by_name(name).filter(|column| column.is_valid(at))
    }

    fn text(&self, name: &str, at: usize) -> &'e str {
        match self.field(name, at) {
            Some(column) if *column.data_type() == DataType::Utf8View => column.as_string_view().value(at),
            Some(column) => column.as_string_opt::<i32>().map_or("", |column| column.value(at)),
            None => "",
        }
    }

    fn bytes(&self, name: &str, at: usize) -> Vec<u8> {
        let column = self.field(name, at).and_then(|column| column.as_fixed_size_binary_opt());
        column.map_or_else(Vec::new, |column| column.value(at).to_vec())
    }

    fn number(&self, name: &str, at: usize) -> u32 {
        let column = self.field(name, at).and_then(|column| column.as_primitive_opt::<UInt32Type>());
        column.map_or(0, |column| column.value(at))
    }

    fn time_ns(&self, name: &str, at: usize) -> i64 {
        let column = self.field(name, at).and_then(|column| column.as_primitive_opt::<TimestampNanosecondType>());
        column.map_or(0, |column| column.value(at))
    }
}

/// Attributes from the JSON that segments hold them in.
fn attributes(json: &str) -> Result<Vec<KeyValue>> {
    if json.is_empty() {
        return Ok(Vec::new());
    }
    match serde_json::from_str(json) {
        Ok(Node::Object(members)) => members.into_iter().map(|(key, value)| key_value(key, value)).collect(),
        _ => Err(corrupt("attributes are no JSON object")),
    }
}

fn key_value(key: String, value: Node) -> Result<KeyValue> {
    Ok(KeyValue { key, value: Some(AnyValue { value: any_value(value)? }), ..KeyValue::default() })
}

fn any_value(node: Node) -> Result<Option<Value>> {
    Ok(Some(match node {
        Node::Null => return Ok(None),
        Node::Bool(value) => Value::BoolValue(value),
        Node::Int(value) => Value::IntValue(value),
        Node::Double(value) => Value::DoubleValue(value),
        Node::Text(text) => Value::StringValue(text),
        Node::Array(elements) => {
            let values = elements.into_iter().map(|element| Ok(AnyValue { value: any_value(element)? }));
            Value::ArrayValue(ArrayValue { values: values.collect::<Result<_>>()? })
        }
        Node::Object(members) => match special(&members) {
            Some(value) => value,
            None => {
                let values = members.into_iter().map(|(key, value)| key_value(key, value));
                Value::KvlistValue(KeyValueList { values: values.collect::<Result<_>>()? })
            }
        },
    }))
}

/// Bytes and doubles that JSON cannot say.
fn special(members: &[(String, Node)]) -> Option<Value> {
    let [(key, Node::Text(text))] = members else { return None };
    match (key.as_str(), text.as_str()) {
        ("bytesValue", text) => STANDARD.decode(text).ok().map(Value::BytesValue),
        ("doubleValue", "NaN") => Some(Value::DoubleValue(f64::NAN)),
        ("doubleValue", "Infinity") => Some(Value::DoubleValue(f64::INFINITY)),
        ("doubleValue", "-Infinity") => Some(Value::DoubleValue(f64::NEG_INFINITY)),
        _ => None,
    }
}

fn corrupt(problem: &str) -> Error {
    Error::from(DataFusionError::Internal(format!("spans: {problem}")))
}
