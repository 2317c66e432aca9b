//! Inputs made to hurt: what is wrong is told with its place, what is good beside it is kept, and nothing grows beyond its bound.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, DictionaryArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
    TimestampMillisecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int32Type};
use parquet::arrow::ArrowWriter;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tidemill_segment::push::{PushEncoding, check_push};
use tidemill_types::Signal;

use crate::support::{encode, sorted_rows};

const RECORD_LIMIT: usize = 16 << 20;

fn logs_request(records: &[Value]) -> Vec<u8> {
    json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).to_string().into_bytes()
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!({"intValue": "1"}), |inner, _| json!({"arrayValue": {"values": [inner]}}))
}

/// Records left out for one reason must not move the places of those left out for another.
#[test]
fn places_in_json_count_every_record() {
    let good = json!({"body": {"stringValue": "kept"}});
    let deep = json!({"attributes": [{"key": "a", "value": {"stringValue": "x"}}, {"key": "b", "value": nested(33)}]});
    let records = [json!({"timeUnixNano": "soon"}), good.clone(), json!({"spanId": "1"}), deep, good];
    let check = check_push(Signal::Logs, PushEncoding::Json, &logs_request(&records)).expect("well-formed");
    assert_eq!((check.records, check.rejected), (2, 3));
    let paths: Vec<&str> = check.issues.iter().map(|issue| issue.path.as_str()).collect();
    let record = |place: usize, rest: &str| format!("resourceLogs[0].scopeLogs[0].logRecords[{place}].{rest}");
    let inside = format!("attributes[1].value{}", ".arrayValue.values[0]".repeat(33));
    assert_eq!(paths, [record(0, "timeUnixNano"), record(2, "spanId"), record(3, &inside)]);

    let point = |counts: Value| json!({"timeUnixNano": "1700000000000000000", "count": "1", "bucketCounts": counts, "explicitBounds": [1.0]});
    let points = [point(json!(["x"])), point(json!(["1"])), point(json!(["1", "0"]))];
    let request = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "h", "histogram": {"dataPoints": points}}]}]}]});
    let check = check_push(Signal::Metrics, PushEncoding::Json, request.to_string().as_bytes()).expect("well-formed");
    let told: Vec<String> = check.issues.iter().map(ToString::to_string).collect();
    let place = "resourceMetrics[0].scopeMetrics[0].metrics[0].histogram.dataPoints";
    assert_eq!(
        told,
        [
            format!("{place}[0].bucketCounts[0]: \"x\" is no integer"),
            format!("{place}[1].bucketCounts: 1 bucket counts for 1 bounds, expected one more than bounds"),
        ]
    );
    assert_eq!((check.records, check.rejected), (1, 2));
}

/// Whatever is nested how deep, on the small stack of a worker's thread.
#[test]
fn no_depth_overflows_the_stack() {
    let deepest = 100_000;
    let bodies = [
        format!("{{\"resourceLogs\":{}{}}}", "[".repeat(deepest), "]".repeat(deepest)),
        format!(
            "{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"body\":{}{}}},{{}}]}}]}}]}}",
            "{\"arrayValue\":{\"values\":[".repeat(deepest),
            "]}}".repeat(deepest)
        ),
        format!(
            "{{\"resourceLogs\":[{{\"resource\":{{\"attributes\":[{{\"key\":\"a\",\"value\":{}{}}}]}}}}]}}",
            "{\"kvlistValue\":{\"values\":[{\"key\":\"a\",\"value\":".repeat(deepest),
            "}]}}".repeat(deepest)
        ),
    ];
    let work = move || {
        for body in &bodies {
            let checked = check_push(Signal::Logs, PushEncoding::Json, body.as_bytes());
            assert!(checked.as_ref().map_or(true, |check| check.rejected > 0), "{checked:?}");
            encode(Signal::Logs, "logs.json", body.as_bytes());
            encode(Signal::Logs, "logs.jsonl", format!("{{\"a\":{}1\n", "[".repeat(deepest)).as_bytes());
        }
        let wrap = |inner: Vec<u8>, tag: u8| {
            let mut outer = vec![tag];
            prost::encoding::encode_varint(inner.len() as u64, &mut outer);
            outer.extend(inner);
            outer
        };
        // `arrayValue` and `values`, then `body`, `logRecords`, `scopeLogs`, `resourceLogs`.
        let value = (0..5_000).fold(vec![0x18, 1], |inner, _| wrap(wrap(inner, 0x0a), 0x2a));
        let wrapped = [0x2a, 0x12, 0x12, 0x0a].into_iter().fold(value, wrap);
        let (report, _) = encode(Signal::Logs, "logs", &wrapped);
        assert_eq!((report.accepted, report.rejected), (0, 1), "{report:?}");
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(work).expect("a thread");
    thread.join().expect("neither panics nor overflows");
}

#[test]
fn requests_around_a_broken_line_are_kept() {
    let request =
        |body: &str| String::from_utf8(logs_request(&[json!({"body": {"stringValue": body}})])).expect("text");
    let (one, two, three) = (request("one"), request("two"), request("three"));
    let text = format!("{one}\n{}\nnot JSON at all\n{two}\n\u{1}\n{{\"resourceLogs\": 7}}\n{three}", &one[..40]);
    let (report, drafts) = encode(Signal::Logs, "logs_1.json", text.as_bytes());
    let mut bodies: Vec<Value> = sorted_rows(&drafts).iter().map(|row| row["body"].clone()).collect();
    bodies.sort_by_key(Value::to_string);
    assert_eq!(bodies, ["one", "three", "two"]);
    let places: Vec<&str> = report.issues.iter().map(|issue| issue.path.as_str()).collect();
    assert_eq!(places, ["request[1]", "request[3]", "request[4].resourceLogs"], "{report:?}");
    assert_eq!((report.rejected, report.failure), (3, None));
}

#[test]
fn what_is_of_another_signal_or_no_request_is_told() {
    let spans = "{\"resourceSpans\":[{}]}";
    let issue = check_push(Signal::Logs, PushEncoding::Json, spans.as_bytes()).expect_err("is of traces");
    assert!(issue.reason.starts_with("resourceSpans is not of the signal that was named"), "{issue}");
    let logs = String::from_utf8(logs_request(&[json!({})])).expect("text");
    let text = format!(
        "{logs}\n{spans}\n{{\"message\":\"m\"}}\n{{}}\n{{\"resourceLogs\":[]}}\n{{\"more\":1,\"resource_logs\":[]}}\n"
    );
    let (report, _) = encode(Signal::Logs, "logs_1.json", text.as_bytes());
    assert_eq!((report.accepted, report.rejected), (1, 2), "{report:?}");
    assert!(report.issues[0].to_string().starts_with("request[1]: resourceSpans is not of the signal"), "{report:?}");
    assert_eq!(report.issues[1].to_string(), "request[2]: no export request of logs");
}

#[test]
fn invalid_utf_8_costs_its_own_record_only() {
    let mut lines = b"{\"message\":\"one\"}\n{\"message\":\"\xff\xfe\"}\n{\"message\":\"two\"}\n".to_vec();
    let (report, _) = encode(Signal::Logs, "a.jsonl", &lines);
    assert_eq!((report.accepted, report.rejected), (2, 1), "{report:?}");
    assert_eq!(report.issues[0].path, "line[2]");
    lines = b"time,data\n1700000000,one\n1700000000,\xff\xfe\n1700000000,two\n".to_vec();
    let (report, _) = encode(Signal::Logs, "a.csv", &lines);
    assert_eq!((report.accepted, report.rejected), (2, 1), "{report:?}");
    assert_eq!(report.issues[0].to_string(), "line[3]: data: invalid UTF-8 from byte 0");
}

#[test]
fn absurd_numbers_and_times_are_told_or_kept_exactly() {
    let lines = concat!(
        "{\"time\":-1,\"n\":9223372036854775807,\"m\":-9223372036854775808}\n",
        "{\"time\":1e300,\"n\":1e400}\n",
        "{\"time\":9223372036854775808,\"n\":18446744073709551615}\n",
        "{\"time\":\"0000-00-00\",\"n\":1e308}\n",
    );
    let (report, drafts) = encode(Signal::Logs, "a.jsonl", lines.as_bytes());
    assert_eq!((report.accepted, report.rejected), (3, 1), "{report:?}");
    assert_eq!(report.issues[0].path, "line[2]");
    let rows = sorted_rows(&drafts);
    assert!(
        rows.iter().any(|row| row["attributes"]["n"] == json!(i64::MAX) && row["attributes"]["m"] == json!(i64::MIN))
    );
    assert!(rows.iter().all(|row| row["time"] == 1_700_000_000_000_000_000_i64), "{rows:?}");

    let records: Vec<Value> = ["-1", "18446744073709551616", "1.5", "9223372036854775808", "18446744073709551615"]
        .into_iter()
        .map(|time| json!({"timeUnixNano": time}))
        .chain([
            json!({"timeUnixNano": -1}),
            json!({"timeUnixNano": 1e300}),
            json!({"severityNumber": 3_000_000_000_u32}),
        ])
        .collect();
    let check = check_push(Signal::Logs, PushEncoding::Json, &logs_request(&records)).expect("well-formed");
    assert_eq!((check.records, check.rejected), (2, 6), "{:?}", check.issues);
    let (report, _) = encode(Signal::Logs, "push", &check.protobuf.expect("JSON becomes protobuf"));
    assert_eq!((report.accepted, report.times_replaced), (2, 2));
}

/// A record of 16 MiB is taken; one byte more is refused alone, whatever it came in.
#[test]
fn the_largest_record_is_taken_and_a_larger_one_refused_alone() {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    let request = |bytes: usize| {
        let records = [json!({"body": {"stringValue": "x".repeat(bytes)}}), json!({"body": {"stringValue": "kept"}})];
        logs_request(&records)
    };
    // Tags and lengths of the body and of its text take ten bytes.
    for (bytes, refused) in [(RECORD_LIMIT - 10, 0), (RECORD_LIMIT - 9, 1)] {
        let json = request(bytes);
        let check = check_push(Signal::Logs, PushEncoding::Json, &json).expect("well-formed");
        assert_eq!(check.rejected, refused, "{:?}", check.issues);
        let (report, drafts) = encode(Signal::Logs, "logs.json", &json);
        assert_eq!((report.rejected, drafts[0].rows), (refused, 2 - refused));
        let text = |text: String| Some(AnyValue { value: Some(any_value::Value::StringValue(text)) });
        let log_records =
            ["x".repeat(bytes), "kept".to_owned()].map(|body| LogRecord { body: text(body), ..LogRecord::default() });
        let scope = ScopeLogs { log_records: log_records.into(), ..ScopeLogs::default() };
        let resource = ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() };
        let protobuf = prost::Message::encode_to_vec(&ExportLogsServiceRequest { resource_logs: vec![resource] });
        let check = check_push(Signal::Logs, PushEncoding::Protobuf, &protobuf).expect("well-formed");
        assert_eq!(check.rejected, refused, "{:?}", check.issues);
        for issue in check.issues {
            assert_eq!(issue.path, "resourceLogs[0].scopeLogs[0].logRecords[0]");
            assert!(issue.reason.ends_with("a record may have 16777216"), "{issue}");
        }
    }
}

#[test]
fn an_open_quote_fills_no_memory() {
    let mut text = b"time,data\n1700000000,one\n1700000000,\"two\n".to_vec();
    text.resize(RECORD_LIMIT * 3, b'x');
    let (report, drafts) = encode(Signal::Logs, "a.csv", &text);
    assert_eq!((report.accepted, drafts.len()), (1, 1));
    let failure = report.failure.expect("the rest cannot be read");
    assert_eq!(failure, "line[3]: a row has more than 16777216 bytes; a quote may be left open");
}

#[test]
fn ragged_rows_and_repeated_columns_are_refused_alone() {
    let text = "time,data,x,x\n1700000000,one,1,\n1700000000,two\n1700000000,three,1,2\n1700000000,four,,2\n1700000000,five,,,\n";
    let (report, drafts) = encode(Signal::Logs, "a.csv", text.as_bytes());
    let bodies: Vec<Value> = sorted_rows(&drafts).iter().map(|row| row["body"].clone()).collect();
    assert_eq!(bodies.len(), 2, "{bodies:?}");
    let told: Vec<String> = report.issues.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "line[3]: 2 cells, the header has 4",
            "line[4]: x: two columns have this name, and both have a value here",
            "line[6]: 5 cells, the header has 4",
        ]
    );
}

fn parquet(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).expect("a schema");
    writer.write(&batch).expect("memory");
    writer.into_inner().expect("memory")
}

/// Every type that people put into logs, nested ones too.
fn odd_file() -> Vec<u8> {
    let times = TimestampMillisecondArray::from(vec![1_699_999_999_000, 1_699_999_998_000]);
    let inner: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None]));
    let tag: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let nested = StructArray::from(vec![
        (Arc::new(Field::new("n", DataType::Int64, true)), inner),
        (Arc::new(Field::new("tag", DataType::Utf8, false)), tag),
    ]);
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
    parquet(vec![
        ("timestamp", Arc::new(times)),
        ("message", Arc::new(StringArray::from(vec!["one", "two"]))),
        ("double", Arc::new(Float64Array::from(vec![f64::NAN, f64::NEG_INFINITY]))),
        ("large", Arc::new(UInt64Array::from(vec![u64::MAX, 1]))),
        ("bytes", Arc::new(BinaryArray::from_vec(vec![b"\xff\x00", b""]))),
        ("nested", Arc::new(nested)),
        ("list", Arc::new(lists)),
    ])
}

#[test]
fn parquet_of_any_shape_becomes_logs() {
    let (report, drafts) = encode(Signal::Logs, "logs_1.parquet", &odd_file());
    assert_eq!((report.accepted, report.rejected, &report.failure), (2, 0, &None), "{report:?}");
    let rows = sorted_rows(&drafts);
    let one = rows.iter().find(|row| row["body"] == "one").expect("the first row");
    assert_eq!(one["time"], 1_699_999_999_000_000_000_i64);
    assert_eq!(
        one["attributes"],
        json!({"double": "NaN", "large": 18446744073709551615.0, "bytes": "ff00", "nested.n": 7, "nested.tag": "a", "list": [1, null]})
    );
    let two = rows.iter().find(|row| row["body"] == "two").expect("the second row");
    assert_eq!((&two["attributes"]["double"], &two["attributes"]["nested.tag"]), (&json!("-Infinity"), &json!("b")));
}

#[test]
fn rows_of_a_collectors_file_are_refused_alone() {
    let bytes = parquet(vec![
        ("_cardinalhq.timestamp", Arc::new(Int64Array::from(vec![1_699_999_999_000, -5, 1_699_999_999_000]))),
        ("_cardinalhq.name", Arc::new(StringArray::from(vec!["m", "m", "m"]))),
        ("_cardinalhq.metric_type", Arc::new(StringArray::from(vec!["gauge", "gauge", "gauge"]))),
        ("rollup_avg", Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(1.0), None]))),
    ]);
    let (report, drafts) = encode(Signal::Metrics, "m.parquet", &bytes);
    let told: Vec<String> = report.issues.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "row[1]: _cardinalhq.timestamp is -5, expected milliseconds",
            "row[2]: neither rollup_avg nor _cardinalhq.value holds a number",
        ]
    );
    assert_eq!(sorted_rows(&drafts)[0]["value"], json!({"doubleValue": "NaN"}));
    let (report, _) = encode(Signal::Traces, "t.parquet", &bytes);
    assert!(report.failure.expect("is told").contains("send OTLP"));
    let text = parquet(vec![("_cardinalhq.timestamp", Arc::new(StringArray::from(vec!["soon"])))]);
    let (report, _) = encode(Signal::Logs, "l.parquet", &text);
    assert_eq!(report.issues[0].to_string(), "row[0]: _cardinalhq.timestamp is \"soon\", expected milliseconds");
}

/// One value of four MiB, a thousand times, in a file of some kilobytes.
#[test]
fn what_a_dictionary_repeats_is_read_row_by_row() {
    let value = "x".repeat(4 << 20);
    let columns = |count: usize| {
        let keys = arrow::array::Int32Array::from(vec![0; 10]);
        let values: ArrayRef = Arc::new(StringArray::from(vec![value.as_str()]));
        let column: ArrayRef = Arc::new(DictionaryArray::new(keys, values));
        (0..count).map(|place| (["a", "b", "c", "d", "e"][place], Arc::clone(&column))).collect::<Vec<_>>()
    };
    let (report, _) = encode(Signal::Logs, "l.parquet", &parquet(columns(5)));
    assert_eq!((report.accepted, report.rejected), (0, 10));
    assert_eq!(report.issues[0].to_string(), "row[0]: d: a record may have 16777216 bytes");
    let (report, _) = encode(Signal::Logs, "l.parquet", &parquet(columns(1)));
    assert_eq!((report.accepted, report.rejected), (10, 0));
}

#[test]
fn a_cut_parquet_file_says_so() {
    let whole = odd_file();
    for end in [0, 3, 4, 8, whole.len() / 2, whole.len() - 9, whole.len() - 4, whole.len() - 1] {
        let (report, drafts) = encode(Signal::Logs, "logs_1.parquet", &whole[..end]);
        assert!(drafts.is_empty(), "{end}");
        assert!(report.failure.is_some(), "{end}: {report:?}");
    }
}

#[test]
fn what_is_empty_once_decompressed_is_told() {
    let zstd = zstd::encode_all(&b""[..], 1).expect("memory");
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0";
    for (label, bytes) in [("logs_1.json", &b""[..]), ("logs_1.csv.gz", &gzip[..]), ("logs_1.binpb.zst", &zstd)] {
        let (report, drafts) = encode(Signal::Logs, label, bytes);
        assert!(drafts.is_empty());
        assert_eq!(report.failure.as_deref(), Some("the object is empty"), "{label}");
    }
}

#[test]
fn no_parquet_panics() {
    std::panic::set_hook(Box::new(|_| {}));
    let files = [
        odd_file(),
        parquet(vec![
            ("_cardinalhq.timestamp", Arc::new(Int64Array::from(vec![1_699_999_999_000; 50]))),
            ("_cardinalhq.message", Arc::new(StringArray::from(vec!["m"; 50]))),
        ]),
    ];
    for seed in 0..2_000_u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = files[seed as usize % 2].clone();
        for _ in 0..random.random_range(1..6) {
            let place = random.random_range(0..bytes.len());
            match random.random_range(0..4) {
                0 => bytes[place] = random.random(),
                1 => bytes[place] ^= 1 << random.random_range(0..8),
                2 => drop(bytes.remove(place)),
                _ => bytes.insert(place, random.random()),
            }
        }
        let (report, drafts) = encode(Signal::Logs, "x.parquet", &bytes);
        assert_eq!(drafts.iter().map(|draft| draft.rows).sum::<u64>(), report.accepted, "seed {seed}");
    }
    drop(std::panic::take_hook());
}

#[test]
fn no_text_and_no_compression_panics() {
    let jsonl = "{\"ts\":\"2023-11-14T22:13:19Z\",\"level\":\"warn\",\"msg\":\"slow\",\"user\":{\"id\":7},\"tags\":[1,\"a\"],\"trace_id\":\"5b8efff798038103d269b633813fc60c\"}\n".repeat(3);
    let csv = "timestamp,data,host,level\n1699999999,\"a, \"\"b\"\"\",h1,warn\n2023-11-14 22:13:19,c,,\n";
    let plain = [jsonl.into_bytes(), csv.as_bytes().to_vec(), logs_request(&[json!({"body": {"stringValue": "x"}})])];
    for seed in 0..3_000_u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bytes = plain[seed as usize % 3].clone();
        let is_packed = seed % 4 == 0;
        if is_packed {
            bytes = zstd::encode_all(&bytes[..], 1).expect("memory");
        }
        for _ in 0..random.random_range(1..8) {
            let place = random.random_range(0..bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match random.random_range(0..5) {
                _ if bytes.is_empty() => bytes.push(b'"'),
                0 => bytes[place] = random.random(),
                1 => bytes[place] = b"{}[]\",:0\n\\"[random.random_range(0..10)],
                2 => drop(bytes.remove(place)),
                3 => bytes.truncate(place),
                _ => bytes.insert(place, b"{}[]\",:-\n\r"[random.random_range(0..10)]),
            }
        }
        for label in ["x.jsonl", "x.csv", "x.json", "x"] {
            let (report, drafts) = encode(Signal::Logs, label, &bytes);
            assert_eq!(drafts.iter().map(|draft| draft.rows).sum::<u64>(), report.accepted, "seed {seed} {label}");
            assert!((report.rejected == 0) == report.issues.is_empty(), "seed {seed} {label}: {report:?}");
        }
    }
}

/// One segment a row would be the end of any machine.
#[test]
fn an_input_that_jumps_between_days_makes_few_segments() {
    let line =
        |day: u64, number: usize| format!("{{\"time\":{},\"message\":\"{number}\"}}\n", 1_500_000_000 + day * 86_400);
    let mut random = StdRng::seed_from_u64(5);
    let days: Vec<u64> = (0..6_000).map(|_| random.random_range(0..400)).collect();
    let mut sorted = days.clone();
    sorted.sort_unstable();
    for (order, most) in [(days, 400 + 128), (sorted, 400)] {
        let text: String = order.iter().enumerate().map(|(number, day)| line(*day, number)).collect();
        let bad = format!("{text}no JSON\n");
        let (report, drafts) = encode(Signal::Logs, "a.jsonl", bad.as_bytes());
        assert_eq!((report.accepted, report.rejected, report.issues.len()), (6_000, 1, 1), "{report:?}");
        assert!(drafts.len() <= most, "{} segments", drafts.len());
        let bodies: std::collections::BTreeSet<String> =
            sorted_rows(&drafts).iter().map(|row| row["body"].to_string()).collect();
        assert_eq!(bodies.len(), 6_000, "each row is there once");
        assert_eq!(drafts.iter().map(|draft| draft.rows).sum::<u64>(), 6_000);
    }
}
