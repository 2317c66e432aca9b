//! Answers as the Prometheus HTTP API writes them, to the character: numbers are strings with Prometheus's digits, times are seconds
//! with three decimals where they are needed.

use std::fmt::Write;
use std::sync::Arc;

use tidemill_types::ErrorKind;

use super::annotation::{Annotations, Severity};
use super::histogram::Histogram;
use super::value::{Sample, SeriesValue, Value};
use crate::error::Error;
use crate::labels::Labels;

/// How many annotations of each kind an answer tells.
const MAX_ANNOTATIONS: usize = 10;

/// What an answer says beside the value and the annotations of its evaluation.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// Warnings of who answers.
    pub warnings: Vec<String>,
    /// Statistics, as JSON.
    pub stats: Option<String>,
}

/// The answer to a query that succeeded.
pub fn encode_answer(value: &Value, notes: &Annotations, query: &str) -> String {
    encode_answer_with(value, notes, query, &Extras::default())
}

/// The answer to a query that succeeded, with more to say.
pub fn encode_answer_with(value: &Value, notes: &Annotations, query: &str, extras: &Extras) -> String {
    let mut json = String::from("{\"status\":\"success\",\"data\":");
    push_value(&mut json, value);
    if let Some(stats) = &extras.stats {
        // Into the object of the value.
        json.pop();
        json.push_str(",\"stats\":");
        json.push_str(stats);
        json.push('}');
    }
    let severities = [("warnings", "warning", Severity::Warning), ("infos", "info", Severity::Info)];
    for (field, word, severity) in severities {
        let mut texts = notes.texts(severity, query);
        let omitted = texts.len().saturating_sub(MAX_ANNOTATIONS);
        texts.truncate(MAX_ANNOTATIONS);
        if omitted > 0 {
            texts.push(format!("{omitted} more {word} annotations omitted"));
        }
        if severity == Severity::Warning {
            texts.splice(0..0, extras.warnings.iter().cloned());
        }
        if !texts.is_empty() {
            json.push_str(&format!(",\"{field}\":"));
            push_list(&mut json, &texts, |json, text| push_text(json, text));
        }
    }
    json.push('}');
    json
}

/// The answer to a query that failed.
pub fn encode_failure(error: &Error) -> String {
    let kind = match (error, error.kind()) {
        (Error::Query(_), _) => "bad_data",
        (Error::Data(_) | Error::Limit(_), _) => "execution",
        (_, ErrorKind::Cancelled) => "canceled",
        (_, ErrorKind::Busy | ErrorKind::Unavailable) => "unavailable",
        _ => "internal",
    };
    let message = match error {
        Error::Query(refusal) => {
            let text = refusal.to_string();
            text.split_once(": ").map_or_else(|| text.clone(), |(place, rest)| format!("{place}: parse error: {rest}"))
        }
        other => other.to_string(),
    };
    let mut json = format!("{{\"status\":\"error\",\"errorType\":\"{kind}\",\"error\":");
    push_text(&mut json, &message);
    json.push('}');
    json
}

fn push_value(json: &mut String, value: &Value) {
    let kind = match value {
        Value::Scalar(..) => "scalar",
        Value::Text(..) => "string",
        Value::Vector(_) => "vector",
        Value::Matrix(_) => "matrix",
    };
    let _infallible = write!(json, "{{\"resultType\":\"{kind}\",\"result\":");
    match value {
        Value::Scalar(time, value) => push_timed(json, *time, |json| push_number(json, *value)),
        Value::Text(time, text) => push_timed(json, *time, |json| push_text(json, text)),
        Value::Vector(samples) => push_list(json, samples, |json, (labels, time, sample)| {
            push_metric(json, labels);
            match sample {
                Sample::Float(value) => {
                    json.push_str(",\"value\":");
                    push_timed(json, *time, |json| push_number(json, *value));
                }
                Sample::Histogram(histogram) => {
                    json.push_str(",\"histogram\":");
                    push_timed(json, *time, |json| push_histogram(json, histogram));
                }
            }
            json.push('}');
        }),
        Value::Matrix(series) => push_list(json, series, push_series),
    }
    json.push('}');
}

fn push_series(json: &mut String, series: &SeriesValue) {
    push_metric(json, &series.labels);
    if !series.floats.is_empty() {
        json.push_str(",\"values\":");
        push_list(json, &series.floats, |json, (time, value)| {
            push_timed(json, *time, |json| push_number(json, *value))
        });
    }
    if !series.histograms.is_empty() {
        json.push_str(",\"histograms\":");
        push_list(json, &series.histograms, |json, (time, histogram): &(i64, Arc<Histogram>)| {
            push_timed(json, *time, |json| push_histogram(json, histogram));
        });
    }
    json.push('}');
}

/// Opens an object whose first field is the series' labels.
fn push_metric(json: &mut String, labels: &Labels) {
    json.push_str("{\"metric\":{");
    for (at, label) in labels.iter().enumerate() {
        if at > 0 {
            json.push(',');
        }
        push_text(json, &label.name);
        json.push(':');
        push_text(json, &label.value);
    }
    json.push('}');
}

fn push_histogram(json: &mut String, histogram: &Histogram) {
    json.push_str("{\"count\":");
    push_number(json, histogram.count);
    json.push_str(",\"sum\":");
    push_number(json, histogram.sum);
    let buckets: Vec<_> = histogram.all_buckets().into_iter().filter(|bucket| bucket.count != 0.0).collect();
    if !buckets.is_empty() {
        json.push_str(",\"buckets\":");
        push_list(json, &buckets, |json, bucket| {
            // 0: open to the left, 1: open to the right, 2: open, 3: closed.
            let edges = match (bucket.lower < 0.0, bucket.upper > 0.0) {
                (true, true) => 3,
                (true, false) => 1,
                (false, true) => 0,
                (false, false) => 2,
            };
            let _infallible = write!(json, "[{edges}");
            for number in [bucket.lower, bucket.upper, bucket.count] {
                json.push(',');
                push_number(json, number);
            }
            json.push(']');
        });
    }
    json.push('}');
}

fn push_list<T>(json: &mut String, items: &[T], mut push: impl FnMut(&mut String, &T)) {
    json.push('[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            json.push(',');
        }
        push(json, item);
    }
    json.push(']');
}

fn push_timed(json: &mut String, milliseconds: i64, push: impl FnOnce(&mut String)) {
    json.push_str(if milliseconds < 0 { "[-" } else { "[" });
    let (seconds, fraction) = (milliseconds.unsigned_abs() / 1000, milliseconds.unsigned_abs() % 1000);
    json.push_str(itoa::Buffer::new().format(seconds));
    if fraction > 0 {
        let _infallible = write!(json, ".{fraction:03}");
    }
    json.push(',');
    push(json);
    json.push(']');
}

/// A number as a string: the shortest digits, with an exponent below 10^-6 and from 10^21 on.
fn push_number(json: &mut String, value: f64) {
    let size = value.abs();
    if value.is_finite() && size != 0.0 && !(1e-6..1e21).contains(&size) {
        let scientific = format!("{value:e}");
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
        let _infallible = write!(json, "\"{digits}e{sign}{exponent:0>2}\"");
    } else {
        json.push('"');
        crate::number::push_number(json, value);
        json.push('"');
    }
}

fn push_text(json: &mut String, text: &str) {
    json.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::{Buckets, Engine, MemoryStore, Source};

    fn answer(query: &str, times: (i64, i64, i64)) -> String {
        let mut store = MemoryStore::default();
        for time in [0, 1500] {
            store.add_float(&Labels::of([("__name__", "a"), ("l", "x\"y")]), time, time as f64 * 1e-9, 0);
        }
        let histogram = Histogram {
            count: 4.0,
            sum: -1.5,
            zero_count: 1.0,
            zero_threshold: 0.001,
            positive: Buckets::run(1, vec![2.0, 0.0]),
            negative: Buckets::run(0, vec![1.0]),
            ..Histogram::default()
        };
        store.add_histogram(&Labels::of([("__name__", "h")]), 0, Arc::new(histogram), 0);
        let sources: [&dyn Source; 1] = [&store];
        let engine = Engine::default();
        let result = match times {
            (at, _, 0) => engine.instant(query, at, &sources),
            times => engine.range(query, times, &sources),
        };
        match result {
            Ok((value, notes)) => encode_answer(&value, &notes, query),
            Err(error) => encode_failure(&error),
        }
    }

    #[test]
    fn answers_are_written_as_prometheus_writes_them() {
        let now = (1500, 1500, 0);
        let cases = [
            ("1e21", now, r#"{"status":"success","data":{"resultType":"scalar","result":[1.500,"1e+21"]}}"#),
            ("\"t\"", now, r#"{"status":"success","data":{"resultType":"string","result":[1.500,"t"]}}"#),
            ("none", now, r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#),
            (
                "a * 0.125",
                now,
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"l":"x\"y"},"value":[1.500,"1.875e-07"]}]}}"#,
            ),
            (
                "a",
                (0, 2000, 1500),
                r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"a","l":"x\"y"},"values":[[0,"0"],[1.500,"0.0000015"]]}]}}"#,
            ),
            (
                "h",
                (1000, 1000, 0),
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"h"},"histogram":[1,{"count":"4","sum":"-1.5","buckets":[[1,"-1","-0.5","1"],[3,"-0.001","0.001","1"],[0,"1","2","2"]]}]}]}}"#,
            ),
            (
                "increase(a[5s])",
                (1500, 1500, 0),
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"l":"x\"y"},"value":[1.500,"0.0000015"]}]},"infos":["PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"a\" (1:10)"]}"#,
            ),
            (
                "a +",
                now,
                r#"{"status":"error","errorType":"bad_data","error":"1:4: parse error: unexpected end of input; expected expression"}"#,
            ),
            ("topk(NaN, a)", now, r#"{"status":"error","errorType":"execution","error":"Parameter value is NaN"}"#),
        ];
        for (query, times, expected) in cases {
            assert_eq!(answer(query, times), expected, "{query}");
        }
    }
}
