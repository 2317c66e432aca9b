//! Pushes in both encodings, and hostile ones.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message as _;

use super::*;

const LATEST: TimestampNs = TimestampNs(1_800_000_000_000_000_000);

fn convert(body: &str) -> Result<LokiPush, Issue> {
    convert_loki_push(LokiEncoding::Json, body.as_bytes(), LATEST)
}

fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes_field(&mut out, number, bytes);
    out
}

fn text(value: Option<&opentelemetry_proto::tonic::common::v1::AnyValue>) -> &str {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{other:?} is no text"),
    }
}

#[test]
fn json_and_protobuf_give_the_same_request() {
    let json = convert(
        r#"{"streams":[{"values":[["1700000000000000001","a \"b\"",{"trace_id":"7"},"more"],["1700000000000000002",""]],
            "stream":{"service_name":"api","env":"prod"}}], "other": [1]}"#,
    )
    .expect("a push");
    let mut time = vec![1 << 3];
    crate::otlp::writer::put_varint(&mut time, 1_700_000_000);
    let entry = |nanos: u8, line: &str, metadata: Vec<u8>| {
        let time = [time.clone(), vec![2 << 3, nanos]].concat();
        field(2, &[field(1, &time), field(2, line.as_bytes()), metadata].concat())
    };
    let pair = field(3, &[field(1, b"trace_id"), field(2, b"7")].concat());
    let labels = field(1, br#"{service_name="api", env="\u0070rod"}"#);
    let stream = field(1, &[labels, entry(1, "a \"b\"", pair), entry(2, "", Vec::new())].concat());
    let protobuf = convert_loki_push(LokiEncoding::Protobuf, &stream, LATEST).expect("a push");
    assert_eq!((json.entries, json.rejected, protobuf.entries), (2, 0, 2));
    assert_eq!(json.otlp, protobuf.otlp);

    let request = ExportLogsServiceRequest::decode(json.otlp.as_slice()).expect("OTLP");
    let resource = &request.resource_logs[0];
    let attributes = &resource.resource.as_ref().expect("a resource").attributes;
    let named: Vec<(&str, &str)> = attributes.iter().map(|own| (own.key.as_str(), text(own.value.as_ref()))).collect();
    assert_eq!(named, [("env", "prod"), ("service.name", "api")]);
    let scope = &resource.scope_logs[0];
    assert_eq!(scope.scope.as_ref().expect("a scope").name, PUSH_SCOPE);
    assert_eq!(scope.log_records[0].time_unix_nano, 1_700_000_000_000_000_001);
    assert_eq!(text(scope.log_records[0].body.as_ref()), "a \"b\"");
    assert_eq!(scope.log_records[0].attributes[0].key, "trace_id");
}

#[test]
fn what_is_wrong_is_told_and_the_rest_kept() {
    let push = convert(
        r#"{"streams":[{"stream":{"a":"b"},"values":[["1700000000000000001","x"],["1900000000000000000","new"],["1","old"]]},
            {"stream":{"a-b":"x"},"values":[["1700000000000000001","x"]]},{"stream":{"a":""},"values":[]}]}"#,
    )
    .expect("a push");
    assert_eq!((push.streams, push.entries, push.rejected), (3, 1, 3));
    let reasons: Vec<String> = push.issues.iter().map(|issue| format!("{}: {}", issue.path, issue.reason)).collect();
    assert!(reasons[0].contains("streams[0]") && reasons[0].contains("too new"), "{reasons:?}");
    assert!(reasons[1].contains("too old") && reasons[2].contains("\"a-b\" is no label name"), "{reasons:?}");
    assert!(reasons[3].contains("at least one label pair"), "{reasons:?}");
}

#[test]
fn malformed_pushes_are_refused_as_a_whole() {
    for body in [
        "",
        "{bad",
        "[]",
        r#"{"streams":{}}"#,
        r#"{"streams":[{"stream":{"a":"b"},"values":[[123,"x"]]}]}"#,
        r#"{"streams":[{"stream":{"a":"b"},"values":[["1.5","x"]]}]}"#,
        r#"{"streams":[{"stream":{"a":"b"},"values":[["99999999999999999999","x"]]}]}"#,
        r#"{"streams":[{"stream":{"a":"b"},"values":[["1700000000000000001"]]}]}"#,
        r#"{"streams":[{"stream":{"a":"b"},"values":[["1700000000000000001","x",{"a":1}]]}]}"#,
        r#"{"streams":[]} x"#,
    ] {
        let issue = convert(body).map(|push| push.entries).expect_err(body);
        assert!(!issue.reason.is_empty());
    }
    let deep = format!("{{\"streams\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    convert(&deep).map(|push| push.entries).expect_err("deep");
    for body in
        [&b"\x0a"[..], b"\x0a\x03\x0a\x01{", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"{\"streams\":[]}"]
    {
        let wrong = convert_loki_push(LokiEncoding::Protobuf, body, LATEST);
        wrong.map(|push| push.entries).expect_err("no protobuf");
    }
}

#[test]
fn labels_are_read_as_go_quotes_them() {
    let labels = label_text::parse(r#" { a = "x\"\\\n\x41\101ü" , b=`\n`, } "#).expect("labels");
    assert_eq!((labels["a"].as_str(), labels["b"].as_str()), ("x\"\\\nAAü", "\\n"));
    for wrong in
        ["", "{", "{a}", r#"{a="b"#, r#"{a="\q"}"#, r#"{a="b"} x"#, r#"{a="\xff"}"#, r#"{="b"}"#, r#"{a="\u12"}"#]
    {
        label_text::parse(wrong).expect_err(wrong);
    }
}
