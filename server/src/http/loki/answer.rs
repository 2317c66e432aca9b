//! Answers as Loki gives them: `{"status": "success", "data": …}`, errors as plain text.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tidemill_query::QueryStats;
use tidemill_query::logql;
use tidemill_types::ErrorKind;

use crate::error::Error;

/// The version of Loki whose API this is.
const API_VERSION: &str = "3.0.0";

/// A request that is not answered: status and plain text.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    kind: ErrorKind,
    message: String,
}

impl Refusal {
    /// The request is wrong and will be wrong again.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, kind: ErrorKind::Invalid, message: message.into() }
    }

    /// As the API tells `error`.
    pub(super) fn of(error: &Error) -> Self {
        let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
        Self::by_kind(error.kind(), format!("{}{hint}", error.full_message()))
    }

    fn by_kind(kind: ErrorKind, message: String) -> Self {
        let status = StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(error = message, "a LogQL request failed");
        }
        Self { status, kind, message }
    }

    /// As the command line tells it.
    pub(super) fn into_error(self) -> Error {
        Error::new(self.kind, self.message)
    }

    /// Whether it may be asked again.
    pub(super) fn is_busy(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS
    }

    /// What it says.
    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

impl From<logql::Error> for Refusal {
    fn from(error: logql::Error) -> Self {
        Self::by_kind(error.kind(), error.to_string())
    }
}

impl From<tidemill_lang::Error> for Refusal {
    fn from(error: tidemill_lang::Error) -> Self {
        Self::invalid(format!("parse error at {error}"))
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::of(&error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        let mut response = (self.status, format!("{}\n", self.message)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// `{"status": "success", "data": …}`.
pub(super) fn success(data: Value) -> Json<Value> {
    Json(json!({ "status": "success", "data": data }))
}

/// The same of a query, with what was done for it and what its reader has to know.
pub(super) fn query_success(mut data: Value, stats: QueryStats) -> Value {
    data["stats"] = statistics(&stats);
    let mut answer = json!({ "status": "success", "data": data });
    if !stats.warnings.is_empty() {
        answer["warnings"] = json!(stats.warnings);
    }
    answer
}

/// Statistics in Loki's words; what has no meaning here is 0.
fn statistics(stats: &QueryStats) -> Value {
    let seconds = stats.wall_ms / 1e3;
    let rate = |amount: u64| if seconds > 0.0 { (amount as f64 / seconds) as u64 } else { 0 };
    let store = json!({
        "totalChunksRef": stats.segments_considered,
        "totalChunksDownloaded": stats.row_groups_read,
        "chunksDownloadTime": 0,
        "chunk": {
            "headChunkBytes": 0,
            "headChunkLines": 0,
            "decompressedBytes": stats.bytes_read,
            "decompressedLines": stats.rows_scanned,
            "compressedBytes": stats.bytes_read,
            "totalDuplicates": 0,
        },
    });
    json!({
        "summary": {
            "bytesProcessedPerSecond": rate(stats.bytes_read),
            "linesProcessedPerSecond": rate(stats.rows_scanned),
            "totalBytesProcessed": stats.bytes_read,
            "totalLinesProcessed": stats.rows_scanned,
            "execTime": seconds,
            "queueTime": 0,
            "subqueries": 0,
            "totalEntriesReturned": stats.rows_matched,
            "splits": 0,
            "shards": 0,
            "totalPostFilterLines": stats.rows_matched,
            "totalStructuredMetadataBytesProcessed": 0,
        },
        "querier": { "store": store },
        "ingester": {
            "totalReached": 0,
            "totalChunksMatched": 0,
            "totalBatches": 0,
            "totalLinesSent": 0,
            "store": {
                "totalChunksRef": 0,
                "totalChunksDownloaded": 0,
                "chunksDownloadTime": 0,
                "chunk": {
                    "headChunkBytes": 0,
                    "headChunkLines": 0,
                    "decompressedBytes": 0,
                    "decompressedLines": 0,
                    "compressedBytes": 0,
                    "totalDuplicates": 0,
                },
            },
        },
        "tidemill": {
            "segmentsConsidered": stats.segments_considered,
            "segmentsPruned": stats.segments_pruned,
            "rowGroupsConsidered": stats.row_groups_considered,
            "rowGroupsPruned": stats.row_groups_pruned,
            "rowGroupsRead": stats.row_groups_read,
            "requests": stats.requests,
            "bytesConsidered": stats.bytes_considered,
            "cacheHits": stats.cache_hits,
        },
    })
}

/// `GET /loki/api/v1/status/buildinfo`: which of Loki's APIs this is, and that it is not Loki.
pub(super) async fn build_info() -> Json<Value> {
    Json(json!({
        "version": API_VERSION,
        "revision": concat!("tidemill-", env!("CARGO_PKG_VERSION")),
        "branch": "tidemill",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }))
}
