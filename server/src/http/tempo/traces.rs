//! `/api/traces/{id}` and `/api/v2/traces/{id}`: a trace as OTLP, in protobuf where the caller takes it, else in JSON.

use std::collections::HashSet;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use opentelemetry_proto::tonic::trace::v1::TracesData;
use prost::Message;
use serde_json::{Value, json};
use tidemill_types::{OrganizationId, TimeRange, TimestampNs};

use super::otlp_json::resource_spans;
use super::params::Params;
use super::{TempoError, TempoResult, Told, json_answer, parse_query, queries, with_stats};
use crate::error::{Error, Result};
use crate::http::ApiState;
use crate::http::arguments::Query;
use crate::http::caller::Member;
use crate::query::Queries;

/// How far from a hint's times spans of the trace may still start.
const HINT_MARGIN_NS: i64 = 3_600_000_000_000;

/// Tempo's answer in its second version.
#[derive(Clone, PartialEq, Message)]
struct TraceByIdResponse {
    #[prost(message, optional, tag = "1")]
    trace: Option<TracesData>,
    /// 0 for all of the trace, 1 for a part.
    #[prost(int32, tag = "3")]
    status: i32,
    #[prost(string, tag = "4")]
    message: String,
}

/// A trace asked for.
#[derive(Debug, Clone, Copy)]
pub struct TraceRequest {
    /// Its id.
    pub id: [u8; 16],
    /// Where it lies, which only spares work.
    pub time: TimeRange,
}

impl TraceRequest {
    /// The trace of an id in hexadecimal digits; without its leading zeros, as 64 bits have none, it is the same.
    ///
    /// # Errors
    /// `Invalid` for anything else.
    pub fn new(text: &str) -> Result<Self> {
        if let Some((at, wrong)) = text.char_indices().find(|(_, digit)| !digit.is_ascii_hexdigit()) {
            let place = at + 1;
            return Err(Error::invalid(format!(
                "trace IDs can only contain hex characters: invalid character {wrong:?} at position {place}"
            )));
        }
        if text.is_empty() || text.len() > 32 {
            return Err(Error::invalid("trace IDs can't be larger than 128 bits, nor empty"));
        }
        let mut id = [0; 16];
        hex::decode_to_slice(format!("{text:0>32}"), &mut id)
            .map_err(|error| Error::invalid(format!("trace ID {text:?}: {error}")))?;
        Ok(Self { id, time: TimeRange::ALL })
    }
}

/// The trace, `None` where nothing of it is there.
///
/// # Errors
/// Those of the engine.
pub async fn answer_trace(
    queries: &Queries,
    organization: OrganizationId,
    request: TraceRequest,
) -> Result<Told<Option<TracesData>>> {
    let found = queries.trace(organization, request.id, request.time).await?;
    Ok(Told { answer: found.answer, stats: found.stats })
}

/// A trace as JSON, its resources under `resourceSpans`.
pub fn trace_json(trace: &TracesData) -> Value {
    json!({ "resourceSpans": resource_spans(trace) })
}

pub(super) async fn trace_v1(
    State(state): State<ApiState>,
    Member(organization): Member,
    Path(id): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> TempoResult<Response> {
    let request = read_request(&id, &Params::new(pairs))?;
    let told = answer_trace(queries(&state)?, organization, request).await?;
    let Some(trace) = told.answer else {
        let missing = TempoError::new(StatusCode::NOT_FOUND, format!("trace {id} is not there"));
        return Ok(with_stats(missing.into_response(), &told.stats));
    };
    let response = if wants_protobuf(&headers) {
        protobuf(trace.encode_to_vec())
    } else {
        json_answer(&json!({ "batches": resource_spans(&trace) }))
    };
    Ok(with_stats(response, &told.stats))
}

pub(super) async fn trace_v2(
    State(state): State<ApiState>,
    Member(organization): Member,
    Path(id): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> TempoResult<Response> {
    let params = Params::new(pairs);
    let request = read_request(&id, &params)?;
    let filter = params.text("q").map(parse_query).transpose()?;
    let depth = params.count("match_depth")?.unwrap_or(0);
    let queries = queries(&state)?;
    let mut told = answer_trace(queries, organization, request).await?;
    let mut answer = TraceByIdResponse::default();
    if let (Some(filter), Some(trace)) = (filter, &mut told.answer) {
        let matching = queries.trace_spans(organization, request.id, request.time, filter).await?;
        keep_spans(trace, matching.answer.into_iter().collect(), depth);
        answer.status = 1;
        answer.message = "Trace filtered, only a subset of spans matching the filter is returned".to_owned();
    }
    answer.trace = Some(told.answer.unwrap_or_default());
    let response = if wants_protobuf(&headers) { protobuf(answer.encode_to_vec()) } else { v2_json(&answer) };
    Ok(with_stats(response, &told.stats))
}

fn v2_json(answer: &TraceByIdResponse) -> Response {
    let trace = answer.trace.as_ref().filter(|trace| !trace.resource_spans.is_empty()).map(trace_json);
    let mut body = json!({ "trace": trace.unwrap_or_else(|| json!({})) });
    if answer.status != 0 {
        body["status"] = json!("PARTIAL");
        body["message"] = json!(answer.message);
    }
    json_answer(&body)
}

fn read_request(id: &str, params: &Params) -> TempoResult<TraceRequest> {
    let mut request = TraceRequest::new(id)?;
    let (start, end) = params.range_ns()?;
    if let Some(start) = start {
        request.time.start = TimestampNs(start.saturating_sub(HINT_MARGIN_NS));
    }
    if let Some(end) = end {
        request.time.end = TimestampNs(end.saturating_add(HINT_MARGIN_NS));
    }
    Ok(request)
}

/// Keeps these spans and, to a depth, what lies below them.
fn keep_spans(trace: &mut TracesData, matching: HashSet<Vec<u8>>, depth: usize) {
    let mut kept = matching;
    for _ in 0..depth {
        let scopes = trace.resource_spans.iter().flat_map(|own| &own.scope_spans);
        let below: Vec<Vec<u8>> = scopes
            .flat_map(|own| &own.spans)
            .filter(|span| kept.contains(&span.parent_span_id) && !kept.contains(&span.span_id))
            .map(|span| span.span_id.clone())
            .collect();
        if below.is_empty() {
            break;
        }
        kept.extend(below);
    }
    for resource in &mut trace.resource_spans {
        for scope in &mut resource.scope_spans {
            scope.spans.retain(|span| kept.contains(&span.span_id));
        }
        resource.scope_spans.retain(|scope| !scope.spans.is_empty());
    }
    trace.resource_spans.retain(|resource| !resource.scope_spans.is_empty());
}

fn wants_protobuf(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|kind| kind.trim().starts_with("application/protobuf"))
}

fn protobuf(bytes: Vec<u8>) -> Response {
    let content = HeaderValue::from_static("application/protobuf");
    ([(header::CONTENT_TYPE, content)], bytes).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_up_to_128_bits_in_hexadecimal() {
        let short = TraceRequest::new("abc1").expect("an id");
        assert_eq!(short.id, TraceRequest::new("0000000000000000000000000000ABC1").expect("an id").id);
        for wrong in
            ["", "xyz", "1111111111111111111111111111111111", "4bf92f35 77b34da6", "ünder", &"f".repeat(100_000)]
        {
            assert!(TraceRequest::new(wrong).is_err(), "{wrong:.40}");
        }
    }
}
