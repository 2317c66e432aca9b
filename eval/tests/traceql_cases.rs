//! Recorded answers of a Tempo server to queries over `traceql/data.json.gz`; see `traceql/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeBinaryBuilder, Int64Array, ListArray, RecordBatch, StringArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use serde_json::{Value, json};
use tidemill_eval::traceql::{
    AttributeColumn, AttributeScope, MetricsParams, MetricsRun, SearchParams, SearchRun, SpanBatch, TagNamesRun,
    TagValuesRun,
};
use tidemill_lang::traceql::ast::{Attribute, Intrinsic, QueryKind, Scope};
use tidemill_lang::traceql::{parse, parse_attribute, print};

const DATA: &[u8] = include_bytes!("traceql/data.json.gz");
const CASES: &str = include_str!("traceql/cases.json");
/// Quirks of the server that we do not share, as `quirk` of the case tells them.
const QUIRKS: &[&str] = &[
    "compare-int-013",
    "array-011",
    "array-014",
    "mixed-type-005",
    "mixed-type-009",
    "boolean-logic-008",
    "arithmetic-005",
    "structural-orphan-001",
    "structural-orphan-003",
    "structural-orphan-006",
    "strict-type-001",
    "strict-type-005",
    "strict-type-008",
    "strict-type-013",
    "aggregate-num-011",
    "count_over_time-006",
    "histogram-004",
    "tags-v2-014",
    "tag-values-v2-032",
];
/// Answers of the server that are wrong, which its record does not call quirks: why we answer otherwise.
const OTHERWISE: &[(&str, &str)] = &[
    ("select-007", "an array of several types that was asked for is left out there"),
    ("compare-002", "a value that the filter compares counts twice there: 160 spans of kind producer among 80"),
    ("compare-004", "a value that the filter compares counts twice there: 72 spans named Charge among 36"),
    ("topk-005", "spans without the attribute make the sum of their group no number there"),
    ("tags-v2-011", "service.name is listed there though no span matches"),
    ("tag-values-v2-031", "two names that spans of the service have are left out there"),
];

/// A span with its resource and scope.
struct Span {
    resource: Arc<Value>,
    scope: Arc<Value>,
    span: Value,
}

fn spans() -> Vec<Span> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(DATA).read_to_string(&mut text).expect("gzip of text");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let mut spans = Vec::new();
    for resource_spans in list(&document["resourceSpans"]) {
        let resource = Arc::new(resource_spans["resource"].clone());
        for scope_spans in list(&resource_spans["scopeSpans"]) {
            let scope = Arc::new(scope_spans["scope"].clone());
            for span in list(&scope_spans["spans"]) {
                spans.push(Span { resource: Arc::clone(&resource), scope: Arc::clone(&scope), span: span.clone() });
            }
        }
    }
    spans
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A value of OTLP's JSON as the overflow columns of segments have it.
fn plain(value: &Value) -> Value {
    let Some((kind, inner)) = value.as_object().and_then(|object| object.iter().next()) else { return Value::Null };
    match kind.as_str() {
        "intValue" => json!(number(inner)),
        "doubleValue" => match inner.as_f64() {
            Some(value) => json!(value),
            None => json!({ "doubleValue": inner }),
        },
        "arrayValue" => Value::Array(list(&inner["values"]).iter().map(plain).collect()),
        "kvlistValue" | "bytesValue" => json!({ "bytesValue": "" }),
        _ => inner.clone(),
    }
}

fn number(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok())).unwrap_or(0)
}

fn attributes(owner: &Value, without: &[&str]) -> String {
    let pairs = list(&owner["attributes"]).iter();
    let pairs = pairs.map(|pair| (pair["key"].as_str().expect("a key").to_owned(), plain(&pair["value"])));
    Value::Object(pairs.filter(|(key, _)| !without.contains(&key.as_str())).collect()).to_string()
}

fn bytes(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap_or_default();
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hexadecimal")).collect()
}

fn ids<'s>(size: i32, ids: impl Iterator<Item = &'s Value>) -> ArrayRef {
    let mut builder = FixedSizeBinaryBuilder::new(size);
    for id in ids {
        match bytes(id) {
            own if own.is_empty() => builder.append_null(),
            own => builder.append_value(own).expect("an id of its size"),
        }
    }
    Arc::new(builder.finish())
}

/// The columns of a list's elements.
type Columns = Vec<(Field, ArrayRef)>;

/// The spans' events or links, as lists of structs.
fn lists(spans: &[&Span], key: &str, columns: &dyn Fn(&[&Value]) -> Columns) -> ArrayRef {
    let all: Vec<&Value> = spans.iter().flat_map(|own| list(&own.span[key])).collect();
    let offsets = OffsetBuffer::from_lengths(spans.iter().map(|own| list(&own.span[key]).len()));
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = columns(&all).into_iter().unzip();
    let structs = StructArray::new(Fields::from(fields), columns, None);
    let element = Arc::new(Field::new("element", structs.data_type_of(), false));
    Arc::new(ListArray::new(element, offsets, Arc::new(structs), None))
}

trait DataTypeOf {
    fn data_type_of(&self) -> DataType;
}

impl DataTypeOf for StructArray {
    fn data_type_of(&self) -> DataType {
        arrow::array::Array::data_type(self).clone()
    }
}

fn batch(spans: &[&Span]) -> SpanBatch {
    let texts = |read: &dyn Fn(&Span) -> Option<String>| -> ArrayRef {
        Arc::new(spans.iter().map(|own| read(own)).collect::<StringArray>())
    };
    let numbers = |read: &dyn Fn(&Span) -> i64| -> ArrayRef {
        Arc::new(spans.iter().map(|own| read(own)).collect::<Int64Array>())
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let of = |own: &Span, key: &str| {
        list(&own.span["attributes"]).iter().find(|pair| pair["key"] == key).map(|pair| plain(&pair["value"]))
    };
    let kinds = ["unspecified", "internal", "server", "client", "producer", "consumer"];
    let statuses = ["unset", "ok", "error"];
    let nullable_text = |name: &str| Field::new(name, DataType::Utf8, true);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("trace_id", ids(16, spans.iter().map(|own| &own.span["traceId"]))),
        ("span_id", ids(8, spans.iter().map(|own| &own.span["spanId"]))),
        ("parent_span_id", ids(8, spans.iter().map(|own| &own.span["parentSpanId"]))),
        ("name", texts(&|own| Some(text(&own.span["name"]).unwrap_or_default()))),
        ("kind", texts(&|own| Some(kinds[number(&own.span["kind"]) as usize].to_owned()))),
        ("time", numbers(&|own| number(&own.span["startTimeUnixNano"]))),
        ("duration_ns", numbers(&|own| number(&own.span["endTimeUnixNano"]) - number(&own.span["startTimeUnixNano"]))),
        ("status_code", texts(&|own| Some(statuses[number(&own.span["status"]["code"]) as usize].to_owned()))),
        ("status_message", texts(&|own| text(&own.span["status"]["message"]))),
        ("scope_name", texts(&|own| text(&own.scope["name"]))),
        ("scope_version", texts(&|own| text(&own.scope["version"]))),
        (
            "events",
            lists(spans, "events", &|events| {
                let times = events.iter().map(|event| number(&event["timeUnixNano"])).collect::<Int64Array>();
                let names = events.iter().map(|event| text(&event["name"])).collect::<StringArray>();
                let own = events.iter().map(|event| Some(attributes(event, &[]))).collect::<StringArray>();
                vec![
                    (Field::new("time", DataType::Int64, true), Arc::new(times) as ArrayRef),
                    (nullable_text("name"), Arc::new(names)),
                    (nullable_text("attributes"), Arc::new(own)),
                ]
            }),
        ),
        (
            "links",
            lists(spans, "links", &|links| {
                let own = links.iter().map(|link| Some(attributes(link, &[]))).collect::<StringArray>();
                vec![
                    (
                        Field::new("trace_id", DataType::FixedSizeBinary(16), true),
                        ids(16, links.iter().map(|link| &link["traceId"])),
                    ),
                    (
                        Field::new("span_id", DataType::FixedSizeBinary(8), true),
                        ids(8, links.iter().map(|link| &link["spanId"])),
                    ),
                    (nullable_text("attributes"), Arc::new(own)),
                ]
            }),
        ),
        ("a_http_method", texts(&|own| of(own, "http.method").and_then(|value| text(&value)))),
        ("a_retry_count", Arc::new(spans.iter().map(|own| of(own, "retry_count")?.as_i64()).collect::<Int64Array>())),
        ("a_rest", texts(&|own| Some(attributes(&own.span, &["http.method", "retry_count"])))),
        ("r_rest", texts(&|own| Some(attributes(&own.resource, &[])))),
        ("s_rest", texts(&|own| Some(attributes(&own.scope, &[])))),
    ];
    let rows = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .expect("columns of one length");
    let promoted = |column: &str, key: &str| AttributeColumn {
        column: column.to_owned(),
        scope: AttributeScope::Span,
        key: key.to_owned(),
    };
    let promoted = [promoted("a_http_method", "http.method"), promoted("a_retry_count", "retry_count")];
    SpanBatch::new(&rows, &promoted).expect("a batch")
}

/// The spans in batches of whole traces.
fn batches(spans: &[Span]) -> Vec<SpanBatch> {
    let mut parts: Vec<Vec<&Span>> = vec![Vec::new(); 5];
    for own in spans {
        let part = bytes(&own.span["traceId"]).last().copied().unwrap_or(0) as usize % parts.len();
        parts[part].push(own);
    }
    parts.iter().map(|part| batch(part)).collect()
}

fn param<'c>(case: &'c Value, name: &str) -> Option<&'c str> {
    case["params"][name].as_str()
}

fn seconds_ns(text: &str) -> Result<i64, String> {
    let number: i64 = text.parse().map_err(|_| format!("bad time {text:?}"))?;
    Ok(if text.len() > 12 { number } else { number * 1_000_000_000 })
}

fn step_ns(text: &str) -> Result<i64, String> {
    let bad = || format!("bad step {text:?}");
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok((seconds * 1e9) as i64);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '-').ok_or_else(bad)?;
    let number: i64 = text[..digits].parse().map_err(|_| bad())?;
    let unit = match &text[digits..] {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(bad()),
    };
    Ok(number * unit)
}

fn answer(batches: &[SpanBatch], case: &Value) -> Result<Value, String> {
    let query = parse(case["query"].as_str().unwrap_or_default()).map_err(|error| error.to_string())?;
    let start_ns = seconds_ns(param(case, "start").unwrap_or("0"))?;
    let end_ns = seconds_ns(param(case, "end").unwrap_or("2000000000"))?;
    let whole = |name: &str, default: usize| {
        param(case, name).map_or(Ok(default), |text| text.parse::<usize>().map_err(|_| format!("bad {name}")))
    };
    if case["kind"] == "search" {
        let params =
            SearchParams { start_ns, end_ns, limit: whole("limit", 20)?, spans_per_spanset: whole("spss", 3)? };
        let mut run = SearchRun::new(&query, params).map_err(|error| error.to_string())?;
        for batch in batches {
            run.push(batch).map_err(|error| error.to_string())?;
        }
        let traces: Vec<Value> = run.finish().iter().map(|trace| trace.to_json()).collect();
        return Ok(json!({ "traces": traces }));
    }
    let step_ns = match (case["kind"] == "query", param(case, "step")) {
        (true, _) => None,
        (false, Some(step)) => Some(step_ns(step)?),
        (false, None) => Some(5_000_000_000),
    };
    let params = MetricsParams { start_ns, end_ns, step_ns };
    let run = |batches: &[SpanBatch]| -> Result<MetricsRun, String> {
        let mut run = MetricsRun::new(&query, params).map_err(|error| error.to_string())?;
        for batch in batches {
            run.push(batch).map_err(|error| error.to_string())?;
        }
        Ok(run)
    };
    // Two halves, of which one was sent over.
    let mut first = run(&batches[..2])?;
    let mut second = run(&batches[2..])?;
    let sent = serde_json::to_string(&second.take_partial()).expect("serializable");
    first.absorb(serde_json::from_str(&sent).expect("readable")).map_err(|error| error.to_string())?;
    let merged = first.finish().to_json();
    let whole = run(batches)?.finish().to_json();
    compare_metrics(&whole, &merged).map_err(|difference| format!("halves differ: {difference}"))?;
    Ok(whole)
}

/// The names or values of tags, as far as they are found in the data.
fn tags(batches: &[SpanBatch], case: &Value) -> Result<Value, String> {
    let (start_ns, end_ns) =
        (seconds_ns(param(case, "start").unwrap_or("0"))?, seconds_ns(param(case, "end").unwrap_or("2000000000"))?);
    let filter = case["query"].as_str().map(parse).transpose().map_err(|error| error.to_string())?;
    let path = case["path"].as_str().expect("a path");
    let is_v1 = !path.starts_with("/api/v2");
    if let Some(name) = path.split("/tag/").nth(1).and_then(|rest| rest.strip_suffix("/values")) {
        let attribute = if is_v1 {
            let named = || Attribute::Named(Scope::Any, name.to_owned());
            Intrinsic::by_name(name).map_or_else(named, Attribute::Intrinsic)
        } else {
            parse_attribute(name).map_err(|error| error.to_string())?
        };
        let mut run =
            TagValuesRun::new(attribute, filter.as_ref(), start_ns, end_ns).map_err(|error| error.to_string())?;
        for batch in batches {
            run.push(batch).map_err(|error| error.to_string())?;
        }
        let values = run.finish();
        return Ok(if is_v1 {
            json!(values.into_iter().map(|(_, value)| value).collect::<BTreeSet<_>>())
        } else {
            // As everywhere, what is empty is left out.
            let entry = |(kind, value): (&str, String)| match value.as_str() {
                "" => json!({ "type": kind }),
                value => json!({ "type": kind, "value": value }),
            };
            values.into_iter().map(entry).collect()
        });
    }
    let mut run = TagNamesRun::new(filter.as_ref(), start_ns, end_ns).map_err(|error| error.to_string())?;
    for batch in batches {
        run.push(batch).map_err(|error| error.to_string())?;
    }
    let wanted = param(case, "scope").filter(|scope| *scope != "none");
    let scopes = run.finish().into_iter().map(|(scope, names)| (scope.prefix().trim_end_matches('.'), names));
    let scopes: BTreeMap<_, _> = scopes.filter(|(scope, _)| wanted.is_none_or(|wanted| wanted == *scope)).collect();
    if wanted.is_some() && scopes.is_empty() {
        return Err("no such scope".to_owned());
    }
    Ok(if is_v1 { json!(scopes.into_values().flatten().collect::<BTreeSet<_>>()) } else { json!(scopes) })
}

/// The recorded names or values in the shape of [`tags`], without the intrinsics, which are no data.
fn recorded_tags(case: &Value) -> Value {
    let expect = &case["expect"];
    if let Some(values) = expect.get("tagValues").or(expect.get("tagNames")) {
        return values.clone();
    }
    let scopes = list(&expect["scopes"]).iter().filter(|scope| scope["name"] != "intrinsic");
    Value::Object(
        scopes.map(|scope| (scope["name"].as_str().expect("a name").to_owned(), scope["tags"].clone())).collect(),
    )
}

fn close(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => (left - right).abs() <= 1e-9 * left.abs().max(right.abs()).max(1e-300),
        _ => left == right,
    }
}

/// Whole numbers are one, whether they are written with a point or not.
fn normal(value: &Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => json!(float as i64),
            _ => value.clone(),
        },
        Value::Array(list) => list.iter().map(normal).collect(),
        Value::Object(map) => Value::Object(map.iter().map(|(key, value)| (key.clone(), normal(value))).collect()),
        other => other.clone(),
    }
}

fn sorted_text(value: &Value) -> String {
    let mut texts: Vec<String> = list(value).iter().map(|value| normal(value).to_string()).collect();
    texts.sort();
    texts.join(",")
}

fn compare_metrics(got: &Value, expected: &Value) -> Result<(), String> {
    let by_labels = |value: &Value| -> BTreeMap<String, Value> {
        list(&value["series"]).iter().map(|series| (sorted_text(&series["labels"]), series.clone())).collect()
    };
    let (got, wanted) = (by_labels(got), by_labels(expected));
    let missing: Vec<_> = wanted.keys().filter(|key| !got.contains_key(*key)).take(3).collect();
    let surplus: Vec<_> = got.keys().filter(|key| !wanted.contains_key(*key)).take(3).collect();
    if !missing.is_empty() || !surplus.is_empty() {
        return Err(format!("{} of {} series; missing {missing:#?}; surplus {surplus:#?}", got.len(), wanted.len()));
    }
    for (labels, wanted) in &wanted {
        let own = &got[labels];
        let value = |series: &Value| series.get("value").cloned().unwrap_or(json!(0));
        if !close(&value(own), &value(wanted)) {
            return Err(format!("{labels}: {}, expected {}", value(own), value(wanted)));
        }
        let (samples, wanted) = (list(&own["samples"]), list(&wanted["samples"]));
        if samples.len() != wanted.len() {
            return Err(format!("{labels}: {} samples, expected {}: {samples:?}", samples.len(), wanted.len()));
        }
        for (sample, wanted) in samples.iter().zip(wanted) {
            if sample["timestampMs"] != wanted["timestampMs"] || !close(&value(sample), &value(wanted)) {
                return Err(format!("{labels}: sample {sample}, expected {wanted}"));
            }
        }
    }
    Ok(())
}

/// A spanset as text, its spans sorted; only their number where the record has no more.
fn spanset_text(spanset: &Value, counts_only: bool, with_attributes: bool) -> String {
    let mut spans: Vec<String> = list(&spanset["spans"])
        .iter()
        .map(|span| {
            let mut span = span.clone();
            let attributes = sorted_text(&span["attributes"]);
            if let Some(object) = span.as_object_mut() {
                object.remove("attributes");
                if !with_attributes {
                    object.remove("name");
                }
            }
            if with_attributes { format!("{span}[{attributes}]") } else { span.to_string() }
        })
        .collect();
    spans.sort();
    let spans = if counts_only {
        spanset["spanCount"].as_u64().unwrap_or(spans.len() as u64).to_string()
    } else {
        spans.join(" ")
    };
    format!("matched {} {} {spans}", spanset["matched"], sorted_text(&spanset["attributes"]))
}

fn compare_search(got: &Value, expected: &Value, is_ordered: bool, with_attributes: bool) -> Result<(), String> {
    let (got, wanted) = (list(&got["traces"]), list(&expected["traces"]));
    let ids = |traces: &[Value]| -> Vec<String> {
        let mut ids: Vec<String> = traces.iter().map(|trace| trace["traceID"].to_string()).collect();
        if !is_ordered {
            ids.sort();
        }
        ids
    };
    if ids(got) != ids(wanted) {
        let only = |left: &[Value], right: &[Value]| {
            let right = ids(right);
            ids(left).into_iter().filter(|id| !right.contains(id)).take(3).collect::<Vec<_>>()
        };
        let (surplus, missing) = (only(got, wanted), only(wanted, got));
        return Err(format!("{} of {} traces; surplus {surplus:?}; missing {missing:?}", got.len(), wanted.len()));
    }
    for wanted in wanted {
        let own = got.iter().find(|trace| trace["traceID"] == wanted["traceID"]).expect("compared above");
        for key in ["rootServiceName", "rootTraceName", "startTimeUnixNano", "durationMs", "serviceStats"] {
            if own[key] != wanted[key] {
                return Err(format!("{}: {key} {}, expected {}", wanted["traceID"], own[key], wanted[key]));
            }
        }
        let counts_only = list(&wanted["spanSets"]).iter().any(|spanset| spanset.get("spanCount").is_some());
        let texts = |trace: &Value| {
            let spansets = list(&trace["spanSets"]).iter();
            let mut texts: Vec<_> =
                spansets.map(|spanset| spanset_text(spanset, counts_only, with_attributes)).collect();
            texts.sort();
            texts
        };
        if texts(own) != texts(wanted) {
            return Err(format!("{}: {:#?}, expected {:#?}", wanted["traceID"], texts(own), texts(wanted)));
        }
    }
    Ok(())
}

#[test]
fn traceql_answers_equal_the_recorded_ones() {
    let spans = spans();
    let batches = batches(&spans);
    let cases: Vec<Value> = serde_json::from_str(CASES).expect("the cases are JSON");
    let (mut failures, mut quirks, mut otherwise, mut compared) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for case in &cases {
        compared += 1;
        let is_refused = case["status"].as_u64().expect("a status") >= 400;
        let is_ordered = !case["unordered"].as_bool().unwrap_or(false);
        let is_tags = case["kind"].as_str().is_some_and(|kind| kind.starts_with("tag"));
        if is_tags && param(case, "scope") == Some("intrinsic") {
            continue;
        }
        let answered = if is_tags { tags(&batches, case) } else { answer(&batches, case) };
        let outcome = match answered {
            Err(_) if is_refused => Ok(()),
            Err(error) => Err(format!("refused: {error}")),
            Ok(_) if is_refused => Err("answered, but must be refused".to_owned()),
            Ok(got) if is_tags => match recorded_tags(case) {
                wanted if sorted_text(&wanted) == sorted_text(&got) && wanted.is_array() => Ok(()),
                wanted if wanted == got => Ok(()),
                wanted => Err(format!("{got}, expected {wanted}")),
            },
            Ok(got) if case["kind"] == "search" => {
                compare_search(&got, &case["expect"], is_ordered, false).and_then(|()| {
                    compare_search(&got, &case["expect"], is_ordered, true).map_err(|d| format!("shown: {d}"))
                })
            }
            Ok(got) => compare_metrics(&got, &case["expect"]).and_then(|()| {
                let shows = list(&got["series"]).iter().any(|series| series.get("exemplars").is_some());
                let wanted = case["expect"]["hasExemplars"].as_bool().unwrap_or(shows);
                if shows == wanted { Ok(()) } else { Err(format!("exemplars {shows}, expected {wanted}")) }
            }),
        };
        let id = case["id"].as_str().expect("an id");
        match outcome {
            Err(_) if case.get("quirk").is_some() => quirks.push(id),
            Err(_) if OTHERWISE.iter().any(|(own, _)| *own == id) => otherwise.push(id),
            Err(difference) => failures.push(format!("{id} {}\n    {difference}", case["query"])),
            Ok(()) => {}
        }
    }
    assert!(compared > 250, "{compared} cases");
    assert!(failures.is_empty(), "{} of {compared} failed:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(otherwise, OTHERWISE.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    assert_eq!(quirks, QUIRKS, "quirks of the server that we do not share");
}

#[test]
fn printed_traceql_reads_back_the_same() {
    let cases: Vec<Value> = serde_json::from_str(CASES).expect("the cases are JSON");
    let mut compared = 0;
    for query in cases.iter().filter_map(|case| case["query"].as_str()) {
        let Ok(tree) = parse(query) else { continue };
        let printed = print::print(&tree);
        let again = parse(&printed).unwrap_or_else(|error| panic!("{query} printed as {printed}: {error}"));
        assert_eq!(print::print(&again), printed, "{query}");
        assert_eq!(matches!(tree.kind, QueryKind::Search(_)), matches!(again.kind, QueryKind::Search(_)), "{query}");
        compared += 1;
    }
    assert!(compared > 180, "{compared} queries");
}
