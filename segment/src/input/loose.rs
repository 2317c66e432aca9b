//! A log record out of an object of any shape: well-known members get their place, all others become attributes.

use serde_json::{Map, Value};

use super::loose_time::read_time;
use crate::otlp::value::DEPTH_LIMIT;
use crate::otlp::writer::{
    put_attribute, put_bytes_field, put_fixed64_field, put_json_value, put_message_field, put_varint_field,
};

/// Members that may hold the time; the first one that can be read is taken.
const TIME_KEYS: [&str; 12] = [
    "timestamp",
    "time",
    "ts",
    "@timestamp",
    "_timestamp",
    "datetime",
    "date",
    "event_time",
    "eventTime",
    "created_at",
    "timeUnixNano",
    "time_unix_nano",
];
const SEVERITY_KEYS: [&str; 6] = ["severity_text", "severity", "level", "log.level", "loglevel", "lvl"];
const SERVICE_KEYS: [&str; 3] = ["service.name", "service_name", "service"];
const TRACE_ID_KEYS: [&str; 3] = ["trace_id", "traceId", "traceid"];
const SPAN_ID_KEYS: [&str; 3] = ["span_id", "spanId", "spanid"];
/// Objects nested deeper than this stay one attribute.
const FLATTEN_DEPTH: usize = 8;

/// Members that may hold the body, in the order of preference.
pub(crate) const JSON_BODY_KEYS: &[&str] = &["body", "message", "msg", "log", "data", "text"];
/// The same for CSV, where `data` is the established name.
pub(crate) const CSV_BODY_KEYS: &[&str] = &["data", "body", "message", "msg", "log", "text"];

/// A record as protobuf messages.
#[derive(Debug, PartialEq)]
pub(crate) struct LooseLog {
    /// The `Resource` message.
    pub resource: Vec<u8>,
    /// The `LogRecord` message.
    pub record: Vec<u8>,
}

/// Makes a record of `members`; `service` names the service when no member does.
///
/// # Errors
/// A reason when a value is nested too deep.
pub(crate) fn loose_log(
    mut members: Map<String, Value>,
    body_keys: &[&str],
    service: Option<&str>,
) -> Result<LooseLog, String> {
    if let Some((key, _)) = members.iter().find(|(_, value)| depth(value) > DEPTH_LIMIT) {
        return Err(format!("{key}: nested deeper than {DEPTH_LIMIT} levels"));
    }
    let mut record = Vec::with_capacity(256);
    if let Some(nanos) = take_first(&mut members, &TIME_KEYS, read_time) {
        put_fixed64_field(&mut record, 1, nanos);
    }
    if let Some(text) = take_first(&mut members, &SEVERITY_KEYS, |value| value.as_str().map(str::to_owned)) {
        put_severity(&mut record, &text);
    }
    if let Some(body) = take_first(&mut members, body_keys, |value| (!value.is_null()).then(|| value.clone())) {
        put_message_field(&mut record, 5, |out| put_json_value(out, &body));
    }
    for (keys, number, length) in [(TRACE_ID_KEYS, 9, 16), (SPAN_ID_KEYS, 10, 8)] {
        if let Some(id) = take_first(&mut members, &keys, |value| read_id(value, length)) {
            put_bytes_field(&mut record, number, &id);
        }
    }
    let named = take_first(&mut members, &SERVICE_KEYS, |value| value.as_str().map(str::to_owned));
    let mut resource = Vec::new();
    if let Some(name) = named.as_deref().or(service) {
        put_text_attribute(&mut resource, 1, "service.name", name);
    }
    for (key, value) in &members {
        put_flattened(&mut record, key, value, 0);
    }
    Ok(LooseLog { resource, record })
}

/// Appends severity text and, where the text is a known name, its number.
pub(crate) fn put_severity(record: &mut Vec<u8>, text: &str) {
    if let Some(number) = severity_number(text) {
        put_varint_field(record, 2, number);
    }
    put_bytes_field(record, 3, text.as_bytes());
}

/// Appends a text attribute to a message whose attributes are field `number`.
pub(crate) fn put_text_attribute(out: &mut Vec<u8>, number: u32, key: &str, value: &str) {
    put_attribute(out, number, key, |out| put_bytes_field(out, 1, value.as_bytes()));
}

/// The number in OpenTelemetry's scale, <https://opentelemetry.io/docs/specs/otel/logs/data-model/#severity-fields>.
fn severity_number(text: &str) -> Option<u64> {
    Some(match text.trim().to_ascii_lowercase().as_str() {
        "trace" | "verbose" => 1,
        "debug" | "dbg" => 5,
        "info" | "information" | "informational" | "inf" => 9,
        "notice" => 10,
        "warn" | "warning" | "wrn" => 13,
        "error" | "err" => 17,
        "crit" | "critical" => 18,
        "alert" => 19,
        "fatal" | "panic" | "emerg" | "emergency" => 21,
        _ => return None,
    })
}

fn read_id(value: &Value, length: usize) -> Option<Vec<u8>> {
    hex::decode(value.as_str()?).ok().filter(|id| id.len() == length)
}

/// Takes the first member among `keys` that `read` can read.
fn take_first<T>(members: &mut Map<String, Value>, keys: &[&str], read: impl Fn(&Value) -> Option<T>) -> Option<T> {
    for key in keys {
        if let Some(found) = members.get(*key).and_then(&read) {
            members.remove(*key);
            return Some(found);
        }
    }
    None
}

/// Appends an attribute; the members of an object become attributes of their own, their keys joined by dots.
fn put_flattened(record: &mut Vec<u8>, key: &str, value: &Value, depth: usize) {
    match value {
        Value::Object(members) if !members.is_empty() && depth < FLATTEN_DEPTH => {
            for (name, value) in members {
                put_flattened(record, &format!("{key}.{name}"), value, depth + 1);
            }
        }
        value => put_attribute(record, 6, key, |out| put_json_value(out, value)),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
