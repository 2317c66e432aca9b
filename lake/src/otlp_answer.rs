//! The few OTLP and gRPC answers, encoded by hand: export responses with partial success, and `google.rpc.Status`.
//!
//! Formats: opentelemetry-proto 1.x `collector/*/v1`, `google/rpc/status.proto`, `google/rpc/error_details.proto`.

use std::time::Duration;

use tidemill_segment::ingest::Issue;
use tidemill_types::Signal;

use crate::receive::PushOutcome;

/// `partialSuccess.errorMessage` names at most this many records.
const ISSUES_NAMED: usize = 5;

/// The message of a partial success: how many records were refused and why, with their places. `None` when all were accepted.
pub(crate) fn partial_message(outcome: &PushOutcome) -> Option<String> {
    if outcome.rejected == 0 {
        return None;
    }
    let mut message = format!("{} of {} records refused", outcome.rejected, outcome.rejected + outcome.accepted);
    for Issue { path, reason } in outcome.issues.iter().take(ISSUES_NAMED) {
        message.push_str(&format!("; {path}: {reason}"));
    }
    let unnamed = outcome.rejected.saturating_sub(outcome.issues.len().min(ISSUES_NAMED) as u64);
    if unnamed > 0 {
        message.push_str(&format!("; and {unnamed} more"));
    }
    Some(message)
}

/// `Export…ServiceResponse` as protobuf.
pub(crate) fn encode_protobuf(outcome: &PushOutcome) -> Vec<u8> {
    let mut response = Vec::new();
    if let Some(message) = partial_message(outcome) {
        let mut partial = Vec::new();
        put_varint_field(&mut partial, 1, outcome.rejected);
        put_bytes_field(&mut partial, 2, message.as_bytes());
        put_bytes_field(&mut response, 1, &partial);
    }
    response
}

/// `Export…ServiceResponse` as OTLP JSON.
pub(crate) fn encode_json(signal: Signal, outcome: &PushOutcome) -> String {
    let Some(message) = partial_message(outcome) else { return "{}".to_owned() };
    let rejected = match signal {
        Signal::Logs => "rejectedLogRecords",
        Signal::Metrics => "rejectedDataPoints",
        Signal::Traces => "rejectedSpans",
    };
    // 64-bit integers are strings in protobuf's JSON.
    serde_json::json!({ "partialSuccess": { rejected: outcome.rejected.to_string(), "errorMessage": message } })
        .to_string()
}

/// `google.rpc.Status` as protobuf; `retry_after` becomes a `RetryInfo` detail, without which OTLP clients do not repeat a
/// request that was answered RESOURCE_EXHAUSTED.
pub(crate) fn encode_status(code: u32, message: &str, retry_after: Option<Duration>) -> Vec<u8> {
    let mut status = Vec::new();
    put_varint_field(&mut status, 1, u64::from(code));
    put_bytes_field(&mut status, 2, message.as_bytes());
    if let Some(delay) = retry_after {
        let mut duration = Vec::new();
        put_varint_field(&mut duration, 1, delay.as_secs().max(1));
        let mut retry_info = Vec::new();
        put_bytes_field(&mut retry_info, 1, &duration);
        let mut any = Vec::new();
        put_bytes_field(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
        put_bytes_field(&mut any, 2, &retry_info);
        put_bytes_field(&mut status, 3, &any);
    }
    status
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_varint_field(out: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, value);
}

fn put_bytes_field(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
    use prost::Message;

    use super::*;

    fn outcome(rejected: u64) -> PushOutcome {
        let path = "resourceLogs[3].scopeLogs[0].logRecords[17].timeUnixNano".to_owned();
        let issue = Issue { path, reason: "expected a number".to_owned() };
        PushOutcome { accepted: 300, rejected, issues: vec![issue] }
    }

    #[test]
    fn a_partial_success_is_read_by_the_generated_code() {
        let decoded = ExportLogsServiceResponse::decode(&encode_protobuf(&outcome(200))[..]).expect("valid protobuf");
        let partial = decoded.partial_success.expect("is partial");
        assert_eq!(partial.rejected_log_records, 200);
        assert!(
            partial
                .error_message
                .contains("resourceLogs[3].scopeLogs[0].logRecords[17].timeUnixNano: expected a number")
        );
        assert!(partial.error_message.ends_with("and 199 more"), "{}", partial.error_message);
    }

    #[test]
    fn a_full_success_is_empty() {
        assert_eq!(encode_protobuf(&outcome(0)), Vec::<u8>::new());
        assert_eq!(encode_json(Signal::Logs, &outcome(0)), "{}");
    }

    #[test]
    fn json_names_the_signals_records() {
        let text = encode_json(Signal::Traces, &outcome(1));
        let value: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
        assert_eq!(value["partialSuccess"]["rejectedSpans"], "1");
    }
}
