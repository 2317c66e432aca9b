//! Every input format other than OTLP protobuf, plain and compressed, recognized and read.

use std::io::Write;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tidemill_segment::push::{PushEncoding, check_push};
use tidemill_types::Signal;

use crate::support::{ARRIVAL, encode, samples, sorted_rows};

fn example(name: &str) -> Vec<u8> {
    std::fs::read(samples("otlp-json").join(name)).expect("the sample is there")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn the_official_json_examples_become_the_same_protobuf() {
    let check = |signal, name: &str| {
        check_push(signal, PushEncoding::Json, &example(name))
            .expect("well-formed")
            .protobuf
            .expect("JSON becomes protobuf")
    };
    let logs = ExportLogsServiceRequest::decode(check(Signal::Logs, "logs.json")).expect("protobuf");
    let log = &logs.resource_logs[0].scope_logs[0].log_records[0];
    assert_eq!(log.time_unix_nano, 1_544_712_660_300_000_000);
    assert_eq!((log.severity_number, log.severity_text.as_str()), (10, "Information"));
    assert_eq!(hex::encode(&log.trace_id), "5b8efff798038103d269b633813fc60c");
    assert_eq!(hex::encode(&log.span_id), "eee19b7ec3c1b174");
    assert_eq!(log.attributes.len(), 6);
    let metrics = ExportMetricsServiceRequest::decode(check(Signal::Metrics, "metrics.json")).expect("protobuf");
    assert_eq!(metrics.resource_metrics[0].scope_metrics[0].metrics.len(), 4);
    let traces = ExportTraceServiceRequest::decode(check(Signal::Traces, "trace.json")).expect("protobuf");
    let span = &traces.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!((span.name.as_str(), span.kind), ("I'm a server span", 2));
}

#[test]
fn json_members_are_read_in_every_spelling() {
    let request = json!({"resource_logs": [{"scope_logs": [{"log_records": [
        {"time_unix_nano": "1700000000000000000", "severityNumber": "SEVERITY_NUMBER_WARN", "trace_id": "5B8EFFF798038103D269B633813FC60C",
         "body": {"doubleValue": "NaN"}, "unknown": {"ignored": [1]}, "attributes": [
            {"key": "i", "value": {"intValue": "-9223372036854775808"}}, {"key": "b", "value": {"bytesValue": "AP8"}},
            {"key": "n", "value": null}]}]}]}]});
    let check = check_push(Signal::Logs, PushEncoding::Json, request.to_string().as_bytes()).expect("well-formed");
    assert_eq!((check.records, check.rejected), (1, 0), "{:?}", check.issues);
    let (_, drafts) = encode(Signal::Logs, "logs", &check.protobuf.expect("JSON becomes protobuf"));
    let row = sorted_rows(&drafts).remove(0);
    assert_eq!(row["severity_number"], 13);
    assert_eq!(row["trace_id"], "5b8efff798038103d269b633813fc60c");
    assert_eq!(row["body"], r#"{"doubleValue":"NaN"}"#);
    assert_eq!(row["attributes"], json!({"i": i64::MIN, "b": {"bytesValue": "AP8="}, "n": null}));
}

#[test]
fn a_wrong_record_in_json_is_refused_alone() {
    let request = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [
        {"timeUnixNano": "soon"}, {"timeUnixNano": "1700000000000000000"}, {"traceId": "abc"}, {"body": {"intValue": 1.5}}]}]}]});
    let check = check_push(Signal::Logs, PushEncoding::Json, request.to_string().as_bytes()).expect("well-formed");
    assert_eq!((check.records, check.rejected), (1, 3));
    let paths: Vec<&str> = check.issues.iter().map(|issue| issue.path.as_str()).collect();
    let record = |place: usize, field: &str| format!("resourceLogs[0].scopeLogs[0].logRecords[{place}].{field}");
    assert_eq!(paths, [record(0, "timeUnixNano"), record(2, "traceId"), record(3, "body.intValue")]);
    assert_eq!(check.issues[0].reason, "\"soon\" is no integer");
}

#[test]
fn json_that_is_no_request_is_malformed_as_a_whole() {
    for (body, path) in [
        ("{\"resourceLogs\": 5}", "resourceLogs"),
        ("[]", ""),
        ("{\"resourceLogs\": [{]}", "resourceLogs[0]"),
        ("", ""),
    ] {
        let issue = check_push(Signal::Logs, PushEncoding::Json, body.as_bytes()).expect_err("is malformed");
        assert_eq!(issue.path, path, "{body}: {issue}");
    }
}

#[test]
fn no_json_panics() {
    let examples = [(Signal::Logs, "logs.json"), (Signal::Metrics, "metrics.json"), (Signal::Traces, "trace.json")];
    for seed in 0..300_u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let (signal, name) = examples[seed as usize % 3];
        let mut text = example(name);
        for _ in 0..random.random_range(1..8) {
            let place = random.random_range(0..text.len());
            match random.random_range(0..4) {
                0 => text[place] = random.random(),
                1 => text[place] = b"{}[]\",:0"[random.random_range(0..8)],
                2 => drop(text.remove(place)),
                _ => text.insert(place, b"{}[]\",:-"[random.random_range(0..8)]),
            }
        }
        let checked = check_push(signal, PushEncoding::Json, &text);
        for label in ["x.json", "x.jsonl", "x.csv", "x.parquet"] {
            let (report, drafts) = encode(signal, label, &text);
            let rows: u64 = drafts.iter().map(|draft| draft.rows).sum();
            assert_eq!(rows, report.accepted, "seed {seed}");
        }
        if let Ok(check) = checked {
            let (report, _) = encode(signal, "push", &check.protobuf.expect("JSON becomes protobuf"));
            assert_eq!(report.accepted, check.records, "seed {seed}");
        }
    }
}

#[test]
fn json_files_hold_any_number_of_requests() {
    let one = example("logs.json");
    let compact = serde_json::from_slice::<Value>(&one).expect("JSON").to_string();
    let many = format!("{compact}\n{{\"resourceLogs\":1}}\n{compact}\n").into_bytes();
    for (label, bytes, accepted, rejected) in [
        ("logs_1.json", one.clone(), 1, 0),
        ("logs_1.json.gz", gzip(&one), 1, 0),
        ("logs_1.jsonl.zst", zstd::encode_all(&many[..], 1).expect("memory"), 2, 1),
        ("logs_1", many, 2, 1),
    ] {
        let (report, _) = encode(Signal::Logs, label, &bytes);
        assert_eq!(
            (report.accepted, report.rejected, &report.failure),
            (accepted, rejected, &None),
            "{label}: {report:?}"
        );
        if rejected > 0 {
            assert_eq!(report.issues[0].path, "request[1].resourceLogs");
        }
    }
}

#[test]
fn json_lines_become_logs() {
    let lines = concat!(
        "{\"ts\":\"2023-11-14T22:13:19Z\",\"level\":\"warn\",\"msg\":\"slow\",\"service\":\"shop\",\"user\":{\"id\":7},\"tags\":[1,\"a\"]}\n",
        "\n",
        "no json\n",
        "{\"message\":{\"nested\":true},\"trace_id\":\"5b8efff798038103d269b633813fc60c\",\"trace_id2\":\"x\",\"time\":\"later\"}\n",
    );
    let (report, drafts) = encode(Signal::Logs, "app.ndjson", lines.as_bytes());
    assert_eq!((report.accepted, report.rejected), (2, 1));
    assert_eq!(report.issues[0].path, "line[3]");
    let rows = sorted_rows(&drafts);
    let first = rows.iter().find(|row| row["body"] == "slow").expect("the first line");
    assert_eq!(first["time"], 1_699_999_999_000_000_000_i64);
    assert_eq!((&first["severity_text"], &first["severity_number"]), (&json!("warn"), &json!(13)));
    assert_eq!(first["service_name"], "shop");
    assert_eq!(first["attributes"], json!({"user.id": 7, "tags": [1, "a"]}));
    let second = rows.iter().find(|row| row["body_type"] == "json").expect("the last line");
    assert_eq!(second["time"], ARRIVAL.0);
    assert_eq!(second["trace_id"], "5b8efff798038103d269b633813fc60c");
    assert_eq!(second["attributes"], json!({"trace_id2": "x", "time": "later"}));
}

#[test]
fn csv_becomes_logs() {
    let text = "timestamp,data,host,service_name\n1699999999,\"a, \"\"b\"\"\",h1,\n1699999999000,c,,shop\nshort,row\n";
    let (report, drafts) = encode(Signal::Logs, "logs_1.csv.gz", &gzip(text.as_bytes()));
    assert_eq!((report.accepted, report.rejected), (2, 1), "{report:?}");
    assert_eq!(report.issues[0].to_string(), "line[4]: 2 cells, the header has 4");
    let rows = sorted_rows(&drafts);
    let first = rows.iter().find(|row| row["body"] == "a, \"b\"").expect("the first row");
    assert_eq!((&first["service_name"], &first["attributes"]), (&json!("csv-import"), &json!({"host": "h1"})));
    let second = rows.iter().find(|row| row["body"] == "c").expect("the second row");
    assert_eq!((&second["service_name"], &second["time"]), (&json!("shop"), &json!(1_699_999_999_000_000_000_i64)));
}

#[test]
fn formats_that_hold_only_logs_say_so() {
    for label in ["m.csv", "m.jsonl"] {
        let (report, drafts) = encode(Signal::Metrics, label, b"{\"a\":1}\n");
        let failure = report.failure.expect("is refused");
        assert!(failure.contains("logs only"), "{failure}");
        assert!(drafts.is_empty());
    }
}

#[test]
fn files_of_the_lakerunner_collector_are_read() {
    let (mut logs, mut points) = (0, 0);
    for entry in std::fs::read_dir(samples("lakerunner-v0.0.4")).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if !name.ends_with(".parquet") {
            continue;
        }
        let signal = if name.starts_with("logs_") { Signal::Logs } else { Signal::Metrics };
        let bytes = std::fs::read(&path).expect("a readable sample");
        let (report, drafts) = encode(signal, &name, &bytes);
        assert_eq!((report.rejected, &report.failure), (0, &None), "{name}: {:?}", report.issues);
        let rows = sorted_rows(&drafts);
        match signal {
            Signal::Logs => logs += rows.len(),
            _ => points += rows.len(),
        }
        for row in &rows {
            assert!(row["service_name"].is_string() || row["resource"].get("service.name").is_none(), "{row}");
            if signal == Signal::Metrics {
                let has_number = row.get("value").is_some() || row.get("quantiles").is_some();
                assert!(has_number, "{row}");
            } else {
                assert!(row["body"].is_string() && row["severity_text"].is_string(), "{row}");
            }
        }
    }
    // Counted by DuckDB over the same files.
    assert_eq!((logs, points), (150, 2_566));
}
