//! Rows of the Parquet files that Lakerunner's collector writes (v0.0.4): columns `_cardinalhq.*`, `resource.*`, `scope.*`, `log.*` and
//! `metric.*`.
//!
//! A metric row is ten seconds of a series, summed up. A `count` becomes a delta sum of its `rollup_sum`, a `gauge` the average
//! `rollup_avg`, a `histogram` a summary of count, sum, extremes and percentiles. The sketch itself is not taken over.

use serde_json::{Map, Value};

use super::arrow_values::number_in;
use super::loose::{put_severity, put_text_attribute};
use crate::otlp::writer::{
    put_attribute, put_bytes_field, put_fixed64_field, put_json_value, put_message_field, put_varint_field,
};

/// A row of a metric covers this many nanoseconds.
const INTERVAL_NS: u64 = 10_000_000_000;
/// Columns that name a file written by the collector.
pub(crate) const MARKER_COLUMN: &str = "_cardinalhq.timestamp";
/// A binary column that nothing here reads.
pub(crate) const SKETCH_COLUMN: &str = "sketch";
/// The quantile that each column of percentiles holds.
const QUANTILES: [(&str, f64); 7] = [
    ("rollup_min", 0.0),
    ("rollup_p25", 0.25),
    ("rollup_p50", 0.5),
    ("rollup_p75", 0.75),
    ("rollup_p95", 0.95),
    ("rollup_p99", 0.99),
    ("rollup_max", 1.0),
];

/// A row as protobuf messages.
pub(crate) struct CollectorRow {
    /// The `Resource` and the `InstrumentationScope`.
    pub frame: (Vec<u8>, Vec<u8>),
    /// The `LogRecord` or `Metric`.
    pub record: Vec<u8>,
}

/// A log row.
///
/// # Errors
/// A reason when the row has no usable time.
pub(crate) fn log_row(mut members: Map<String, Value>) -> Result<CollectorRow, String> {
    let mut record = Vec::new();
    put_fixed64_field(&mut record, 1, take_time(&mut members)?);
    if let Some(level) = take_text(&mut members, "_cardinalhq.level") {
        put_severity(&mut record, &level);
    }
    if let Some(message) = take_text(&mut members, "_cardinalhq.message") {
        put_message_field(&mut record, 5, |out| put_bytes_field(out, 1, message.as_bytes()));
    }
    let frame = take_frame(&mut members);
    for (key, value) in &members {
        put_attribute(&mut record, 6, key.strip_prefix("log.").unwrap_or(key), |out| put_json_value(out, value));
    }
    Ok(CollectorRow { frame, record })
}

/// A metric row.
///
/// # Errors
/// A reason when the row has no usable time, name or type.
pub(crate) fn metric_row(mut members: Map<String, Value>) -> Result<CollectorRow, String> {
    let time = take_time(&mut members)?;
    let name = take_text(&mut members, "_cardinalhq.name").ok_or("_cardinalhq.name is missing")?;
    let kind = take_text(&mut members, "_cardinalhq.metric_type").ok_or("_cardinalhq.metric_type is missing")?;
    let frame = take_frame(&mut members);
    let rollup = |column: &str| members.get(column).and_then(number_in);
    let value = rollup("_cardinalhq.value");
    let mut point = Vec::new();
    put_fixed64_field(&mut point, 3, time);
    let no_number = |column: &str| format!("neither {column} nor _cardinalhq.value holds a number");
    let number = match kind.as_str() {
        "gauge" => Some(rollup("rollup_avg").or(value).ok_or_else(|| no_number("rollup_avg"))?),
        "count" => Some(rollup("rollup_sum").or(value).ok_or_else(|| no_number("rollup_sum"))?),
        "histogram" => None,
        other => return Err(format!("_cardinalhq.metric_type is {other:?}, expected gauge, count or histogram")),
    };
    if let Some(number) = number {
        put_fixed64_field(&mut point, 4, number.to_bits());
    }
    if kind == "count" {
        put_fixed64_field(&mut point, 2, time.saturating_sub(INTERVAL_NS));
    }
    if kind == "histogram" {
        put_fixed64_field(&mut point, 4, rollup("rollup_count").unwrap_or(0.0) as u64);
        put_fixed64_field(&mut point, 5, rollup("rollup_sum").unwrap_or(0.0).to_bits());
        for (column, quantile) in QUANTILES {
            if let Some(value) = rollup(column) {
                put_message_field(&mut point, 6, |out| {
                    put_fixed64_field(out, 1, quantile.to_bits());
                    put_fixed64_field(out, 2, value.to_bits());
                });
            }
        }
    }
    for (key, value) in &members {
        // What is left of `_cardinalhq.` tells the collector and an old series hash: neither makes a series.
        if let Some(key) = key.strip_prefix("metric.") {
            put_attribute(&mut point, 7, key, |out| put_json_value(out, value));
        }
    }
    let mut record = Vec::new();
    put_bytes_field(&mut record, 1, name.as_bytes());
    let data = match kind.as_str() {
        "gauge" => 5,
        "count" => 7,
        _ => 11,
    };
    put_message_field(&mut record, data, |out| {
        put_bytes_field(out, 1, &point);
        if kind == "count" {
            put_varint_field(out, 2, 1);
            put_varint_field(out, 3, 1);
        }
    });
    Ok(CollectorRow { frame, record })
}

/// The row's milliseconds as nanoseconds.
fn take_time(members: &mut Map<String, Value>) -> Result<u64, String> {
    let value = members.remove(MARKER_COLUMN).ok_or_else(|| format!("{MARKER_COLUMN} is missing"))?;
    let millis = value.as_u64().ok_or_else(|| format!("{MARKER_COLUMN} is {value}, expected milliseconds"))?;
    millis.checked_mul(1_000_000).ok_or_else(|| format!("{MARKER_COLUMN} is {millis}, too far in the future"))
}

fn take_text(members: &mut Map<String, Value>, column: &str) -> Option<String> {
    match members.remove(column) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// Takes the columns of the resource and of the scope.
fn take_frame(members: &mut Map<String, Value>) -> (Vec<u8>, Vec<u8>) {
    let (mut resource, mut scope) = (Vec::new(), Vec::new());
    let mut names = [None, None];
    members.retain(|column, value| {
        if let Some(key) = column.strip_prefix("resource.") {
            put_loose_attribute(&mut resource, 1, key, value);
        } else if let Some(key) = column.strip_prefix("scope.") {
            match (key, value.as_str()) {
                ("name", Some(name)) => names[0] = Some(name.to_owned()),
                ("version", Some(version)) => names[1] = Some(version.to_owned()),
                _ => put_loose_attribute(&mut scope, 3, key, value),
            }
        } else {
            return true;
        }
        false
    });
    for (number, name) in names.into_iter().enumerate() {
        if let Some(name) = name {
            put_bytes_field(&mut scope, number as u32 + 1, name.as_bytes());
        }
    }
    (resource, scope)
}

fn put_loose_attribute(out: &mut Vec<u8>, number: u32, key: &str, value: &Value) {
    match value {
        Value::String(text) => put_text_attribute(out, number, key, text),
        value => put_attribute(out, number, key, |out| put_json_value(out, value)),
    }
}
