//! Recorded answers of a Loki server to queries over `logql/data.json`; see `logql/README.md`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array};
use serde_json::Value;
use tidemill_eval::logql::{
    Direction, LINE_COLUMN, LogBatch, LogParams, LogRun, MetricParams, MetricRun, Progress, STREAM_COLUMN,
    StreamLabels, TIME_COLUMN,
};
use tidemill_lang::logql::ast::Query;
use tidemill_lang::logql::{parse, print};

const DATA: &str = include_str!("logql/data.json");
const CASES: &str = include_str!("logql/cases.json");
/// Rows of one batch, small so that every query meets several.
const BATCH_ROWS: usize = 200;
const NOW_NS: i64 = 1_748_743_200_000_000_000;

struct Line {
    time_ns: i64,
    stream: u32,
    line: String,
    metadata: BTreeMap<String, String>,
}

struct Data {
    streams: Arc<[StreamLabels]>,
    /// Oldest first.
    lines: Vec<Line>,
}

fn data() -> Data {
    let document: Value = serde_json::from_str(DATA).expect("the data is JSON");
    let mut streams = Vec::new();
    let mut lines = Vec::new();
    for stream in document["streams"].as_array().expect("streams") {
        let labels = stream["stream"].as_object().expect("labels");
        streams.push(StreamLabels::of(labels.iter().map(|(name, value)| (name, value.as_str().expect("a value")))));
        for value in stream["values"].as_array().expect("values") {
            let metadata = value[2].as_object().into_iter().flatten();
            lines.push(Line {
                time_ns: value[0].as_str().expect("a time").parse().expect("nanoseconds"),
                stream: streams.len() as u32 - 1,
                line: value[1].as_str().expect("a line").to_owned(),
                metadata: metadata
                    .map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()))
                    .collect(),
            });
        }
    }
    lines.sort_by_key(|line| line.time_ns);
    Data { streams: streams.into(), lines }
}

impl Data {
    fn batches(&self, direction: Direction) -> Vec<LogBatch> {
        let mut lines: Vec<&Line> = self.lines.iter().collect();
        if direction == Direction::Backward {
            lines.reverse();
        }
        lines.chunks(BATCH_ROWS).map(|lines| self.batch(lines)).collect()
    }

    fn batch(&self, lines: &[&Line]) -> LogBatch {
        let text = |read: &dyn Fn(&Line) -> Option<String>| -> ArrayRef {
            Arc::new(lines.iter().map(|line| read(line)).collect::<StringArray>())
        };
        let mut columns: Vec<(String, ArrayRef)> = vec![
            (TIME_COLUMN.into(), Arc::new(lines.iter().map(|line| line.time_ns).collect::<Int64Array>())),
            (LINE_COLUMN.into(), text(&|line| Some(line.line.clone()))),
            (STREAM_COLUMN.into(), Arc::new(lines.iter().map(|line| line.stream).collect::<UInt32Array>())),
        ];
        for name in ["trace_id", "user"] {
            columns.push((name.into(), text(&|line| line.metadata.get(name).cloned())));
        }
        let rows =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
                .expect("columns of one length");
        LogBatch::new(&rows, Arc::clone(&self.streams)).expect("a batch")
    }
}

fn time_ns(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse::<i64>() {
        return Some(if text.len() > 10 { number } else { number * 1_000_000_000 });
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Some((seconds * 1e9) as i64);
    }
    chrono::DateTime::parse_from_rfc3339(text).ok().and_then(|time| time.timestamp_nanos_opt())
}

fn param<'c>(case: &'c Value, name: &str) -> Option<&'c str> {
    case["params"][name].as_str()
}

/// The answer to a case, as the API's `data`; an error where the query is refused.
fn answer(data: &Data, case: &Value) -> Result<Value, String> {
    let text = case["query"].as_str().unwrap_or_default();
    let query = parse(text).map_err(|error| error.to_string())?;
    let time = |name: &str| param(case, name).map(|text| time_ns(text).ok_or(format!("bad {name}"))).transpose();
    let seconds = |name: &str| param(case, name).map(|text| (text.parse::<f64>().expect("seconds") * 1e9) as i64);
    let (start_ns, end_ns) = (time("start")?.unwrap_or(0), time("end")?.unwrap_or(NOW_NS));
    match query {
        Query::Metric(metric) => {
            let params = if case["kind"] == "instant" {
                let time_ns = time("time")?.unwrap_or(NOW_NS);
                MetricParams { start_ns: time_ns, end_ns: time_ns, step_ns: None, now_ns: NOW_NS }
            } else {
                let default = ((end_ns - start_ns) / 1_000_000_000 / 250).max(1) * 1_000_000_000;
                MetricParams { start_ns, end_ns, step_ns: Some(seconds("step").unwrap_or(default)), now_ns: NOW_NS }
            };
            let run = |batches: Vec<LogBatch>| -> Result<MetricRun, String> {
                let mut run = MetricRun::new(&metric, params).map_err(|error| error.to_string())?;
                for batch in batches {
                    run.push(&batch).map_err(|error| error.to_string())?;
                }
                Ok(run)
            };
            let whole = run(data.batches(Direction::Forward))?.finish().map_err(|error| error.to_string())?.to_json();
            // Two halves that were sent over give the same.
            let mut batches = data.batches(Direction::Backward);
            let mut second = run(batches.split_off(4))?;
            let sent = serde_json::to_string(&second.take_partial()).expect("serializable");
            let mut first = run(batches)?;
            first.absorb(serde_json::from_str(&sent).expect("readable")).map_err(|error| error.to_string())?;
            let halves = first.finish().map_err(|error| error.to_string())?.to_json();
            compare_result(&whole, &halves, true).map_err(|difference| format!("halves differ: {difference}"))?;
            Ok(whole)
        }
        Query::Log(_) if case["kind"] == "instant" => Err("a log query for one instant".to_owned()),
        Query::Log(query) => {
            let direction =
                if param(case, "direction") == Some("forward") { Direction::Forward } else { Direction::Backward };
            let limit = param(case, "limit").map_or(100, |text| text.parse().expect("a limit"));
            let interval_ns = seconds("interval").unwrap_or(0);
            let params = LogParams { start_ns, end_ns, limit, direction, interval_ns, now_ns: NOW_NS };
            let mut run = LogRun::new(&query, params).map_err(|error| error.to_string())?;
            for batch in data.batches(direction) {
                if run.push(&batch).map_err(|error| error.to_string())? == Progress::Enough {
                    break;
                }
            }
            let categorizes = case["headers"]["X-Loki-Response-Encoding-Flags"] == "categorize-labels";
            let streams: Vec<Value> = run.finish().iter().map(|stream| stream.to_json(categorizes)).collect();
            Ok(serde_json::json!({ "resultType": "streams", "result": streams }))
        }
    }
}

fn numbers_agree(left: &str, right: &str) -> bool {
    match (left.parse::<f64>(), right.parse::<f64>()) {
        (Ok(left), Ok(right)) => {
            left == right
                || left.is_nan() && right.is_nan()
                || (left - right).abs() <= 1e-9 * left.abs().max(right.abs()).max(1.0)
        }
        _ => false,
    }
}

fn key(entry: &Value) -> String {
    let labels = entry.get("stream").or(entry.get("metric")).and_then(Value::as_object);
    let sorted: BTreeMap<_, _> =
        labels.into_iter().flatten().filter(|(name, _)| *name != "__error_details__").collect();
    format!("{sorted:?}")
}

fn compare_points(left: &Value, right: &Value) -> Result<(), String> {
    let agree = left[0].as_f64() == right[0].as_f64()
        && numbers_agree(left[1].as_str().unwrap_or("?"), right[1].as_str().unwrap_or("?"));
    if agree { Ok(()) } else { Err(format!("point {left}, expected {right}")) }
}

fn compare_result(got: &Value, expected: &Value, is_unordered: bool) -> Result<(), String> {
    if got["resultType"] != expected["resultType"] {
        return Err(format!("a {}, expected a {}", got["resultType"], expected["resultType"]));
    }
    if got["resultType"] == "scalar" {
        let agree =
            numbers_agree(got["result"][1].as_str().unwrap_or("?"), expected["result"][1].as_str().unwrap_or("?"));
        return if agree { Ok(()) } else { Err(format!("{got}, expected {expected}")) };
    }
    let list = |value: &Value| -> Vec<Value> {
        // Streams whose labels differ in their error's words only count as one.
        let mut list: Vec<Value> = value["result"].as_array().cloned().unwrap_or_default();
        if is_unordered {
            list.sort_by_key(key);
        }
        list
    };
    let (got, expected) = (list(got), list(expected));
    let keys = |list: &[Value]| list.iter().map(key).collect::<Vec<_>>();
    if keys(&got) != keys(&expected) {
        let only = |left: &[Value], right: &[Value]| {
            let right = keys(right);
            keys(left).into_iter().filter(|key| !right.contains(key)).take(3).collect::<Vec<_>>()
        };
        let (surplus, missing) = (only(&got, &expected), only(&expected, &got));
        return Err(format!("{} of {} entries; surplus {surplus:#?}; missing {missing:#?}", got.len(), expected.len()));
    }
    for (got, expected) in got.iter().zip(&expected) {
        let at = |difference: String| format!("{}: {difference}", key(expected));
        if let Some(value) = expected.get("value") {
            compare_points(&got["value"], value).map_err(at)?;
            continue;
        }
        let points = |entry: &Value| entry["values"].as_array().cloned().unwrap_or_default();
        let (values, wanted) = (points(got), points(expected));
        if values.len() != wanted.len() {
            return Err(at(format!("{} values, expected {}", values.len(), wanted.len())));
        }
        for (value, wanted) in values.iter().zip(&wanted) {
            if expected.get("stream").is_none() {
                compare_points(value, wanted).map_err(at)?;
            } else if without_details(value) != without_details(wanted) {
                return Err(at(format!("line {value}, expected {wanted}")));
            }
        }
    }
    Ok(())
}

/// A line without the words of its error.
fn without_details(line: &Value) -> Value {
    let mut line = line.clone();
    if let Some(parsed) =
        line.get_mut(2).and_then(|categories| categories.get_mut("parsed")).and_then(Value::as_object_mut)
    {
        parsed.remove("__error_details__");
    }
    line
}

/// Streams that differ in `__error_details__` only are one for the comparison, their lines by time.
fn merged(mut data: Value, is_forward: bool) -> Value {
    if data["resultType"] != "streams" {
        return data;
    }
    let mut by_key: BTreeMap<String, Value> = BTreeMap::new();
    for stream in data["result"].as_array().cloned().unwrap_or_default() {
        match by_key.get_mut(&key(&stream)) {
            Some(own) => {
                let more = stream["values"].as_array().cloned().unwrap_or_default();
                own["values"].as_array_mut().expect("values").extend(more);
            }
            None => drop(by_key.insert(key(&stream), stream)),
        }
    }
    let mut streams: Vec<Value> = by_key.into_values().collect();
    for stream in &mut streams {
        let values = stream["values"].as_array_mut().expect("values");
        values.sort_by_key(|value| value[0].as_str().expect("a time").to_owned());
        if !is_forward {
            values.reverse();
        }
    }
    data["result"] = Value::Array(streams);
    data
}

#[test]
fn logql_answers_equal_the_recorded_ones() {
    let data = data();
    let cases: Vec<Value> = serde_json::from_str(CASES).expect("the cases are JSON");
    let mut failures = Vec::new();
    let mut compared = 0;
    for case in &cases {
        let query = case["query"].as_str().unwrap_or_default();
        if case["kind"] == "api" || case["group"] == "server_quirk" {
            continue;
        }
        compared += 1;
        let is_refused = case["status"].as_u64().expect("a status") >= 400;
        let is_forward = param(case, "direction") == Some("forward");
        let outcome = match answer(&data, case) {
            Err(_) if is_refused => Ok(()),
            Err(error) => Err(format!("refused: {error}")),
            Ok(_) if is_refused => Err("answered, but must be refused".to_owned()),
            Ok(got) => compare_result(
                &merged(got, is_forward),
                &merged(case["expect"].clone(), is_forward),
                case["unordered"].as_bool().unwrap_or(false),
            ),
        };
        if let Err(difference) = outcome {
            failures.push(format!("{} {query}\n    {difference}", case["id"]));
        }
    }
    assert!(compared > 480, "{compared} cases");
    assert!(failures.is_empty(), "{} of {compared} failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn logql_queries_are_printed_as_recorded() {
    let cases: Vec<Value> = serde_json::from_str(CASES).expect("the cases are JSON");
    let mut compared = 0;
    for case in cases.iter().filter(|case| case["kind"] == "api") {
        let text = param(case, "query").expect("a query");
        let printed = parse(text).map(|query| print::print(&query));
        match printed {
            Ok(printed) => assert_eq!(printed, case["expect"]["data"].as_str().expect("a text"), "{text}"),
            Err(error) => assert!(case["status"].as_u64().expect("a status") >= 400, "{text}: {error}"),
        }
        compared += 1;
    }
    assert!(compared >= 8, "{compared} cases");
}

#[test]
fn printed_logql_reads_back_the_same() {
    let cases: Vec<Value> = serde_json::from_str(CASES).expect("the cases are JSON");
    let mut compared = 0;
    for query in cases.iter().filter_map(|case| case["query"].as_str()) {
        let Ok(tree) = parse(query) else { continue };
        let printed = print::print(&tree);
        let again = parse(&printed).unwrap_or_else(|error| panic!("{query} printed as {printed}: {error}"));
        assert_eq!(print::print(&again), printed, "{query}");
        compared += 1;
    }
    assert!(compared > 380, "{compared} queries");
}
