//! Which format an input has, by its name and its first bytes.

use crate::ingest::InputFormat;

/// Members that only an OTLP/JSON request starts with.
const REQUEST_MEMBERS: [&str; 6] =
    ["resourceLogs", "resourceSpans", "resourceMetrics", "resource_logs", "resource_spans", "resource_metrics"];

/// The format of the decompressed bytes that start with `first`.
///
/// Bytes that can be only one thing decide; then the name; then what is left. JSON is told from protobuf by its brace: as a protobuf
/// tag it would start a group, which OTLP has none of.
pub(crate) fn recognize(label: &str, first: &[u8]) -> InputFormat {
    if first.starts_with(b"PAR1") {
        return InputFormat::Parquet;
    }
    let first = without_mark(first);
    let text = first.trim_ascii_start();
    let name = label.rsplit('/').next().unwrap_or(label).to_ascii_lowercase();
    let name =
        [".gz", ".gzip", ".zst", ".zstd"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name).to_owned();
    let ends = |endings: &[&str]| endings.iter().any(|end| name.ends_with(end));
    if ends(&[".binpb", ".pb", ".otlp", ".bin", ".proto"]) {
        return InputFormat::OtlpProtobuf;
    }
    if ends(&[".csv"]) {
        return InputFormat::Csv;
    }
    if ends(&[".parquet"]) {
        return InputFormat::Parquet;
    }
    if ends(&[".json", ".jsonl", ".ndjson"]) || first.starts_with(b"{") {
        return if is_request(text) { InputFormat::OtlpJson } else { InputFormat::JsonLines };
    }
    let line = first.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_text = line.iter().all(|byte| *byte >= 0x20 || matches!(byte, b'\t' | b'\r'));
    if is_text && line.contains(&b',') && std::str::from_utf8(line).is_ok() {
        return InputFormat::Csv;
    }
    InputFormat::OtlpProtobuf
}

/// The bytes behind the byte order mark that some programs put before UTF-8.
pub(super) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Whether the first member of the object at the start of `text` is one of an OTLP request; an empty object is an empty request.
pub(super) fn is_request(text: &[u8]) -> bool {
    let Some(inside) = text.strip_prefix(b"{") else { return false };
    let inside = inside.trim_ascii_start();
    if inside.starts_with(b"}") {
        return true;
    }
    let Some(name) = inside.strip_prefix(b"\"") else { return false };
    REQUEST_MEMBERS
        .iter()
        .any(|member| name.strip_prefix(member.as_bytes()).is_some_and(|rest| rest.starts_with(b"\"")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use InputFormat::{Csv, JsonLines, OtlpJson, OtlpProtobuf, Parquet};

    #[test]
    fn content_and_name_decide() {
        let cases: [(&str, &[u8], InputFormat); 14] = [
            ("a/logs_1.binpb.gz", b"\x0a\x05", OtlpProtobuf),
            ("logs_1", b"\x0a\x7b\x22", OtlpProtobuf),
            ("logs_1.json", b"{\"resourceLogs\": []}", OtlpJson),
            ("logs_1.json.gz", b"\n {\n\"resource_logs\": []}", OtlpJson),
            ("logs_1", b"{\"resourceSpans\":[]}", OtlpJson),
            ("logs_1", b"{\"message\":\"m\"}", JsonLines),
            ("logs_1.jsonl.zst", b"{\"resourceLogsX\":1}", JsonLines),
            ("logs_1.CSV", b"data\nx", Csv),
            ("logs_1", b"time,data\n1,x", Csv),
            ("logs_1", b"PAR1", Parquet),
            ("logs_1.binpb", b"PAR1", Parquet),
            ("logs_1", b"", OtlpProtobuf),
            ("logs_1.json", b"\xef\xbb\xbf{\"resourceLogs\": []}", OtlpJson),
            ("logs_1", b"\xef\xbb\xbf{\"message\": \"m\"}", JsonLines),
        ];
        for (label, first, format) in cases {
            assert_eq!(recognize(label, first), format, "{label} {first:?}");
        }
    }
}
