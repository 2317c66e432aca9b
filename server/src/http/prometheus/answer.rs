//! How Prometheus's API tells what it found, and what is wrong.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tidemill_eval::Error as EvalError;
use tidemill_types::ErrorKind;

/// A question that has no answer.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

pub(super) type Answer = Result<Response, Refusal>;

impl Refusal {
    /// A parameter is wrong.
    pub(super) fn parameter(name: &str, problem: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter \"{name}\": {problem}"))
    }

    /// The question is wrong.
    pub(super) fn bad_data(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, kind: "bad_data", message: message.into() }
    }

    /// This process does not do that.
    pub(super) fn not_here(role: &str) -> Self {
        let message = format!("this process does not play the {role} role; ask one that does");
        Self { status: StatusCode::NOT_FOUND, kind: "not_found", message }
    }
}

impl From<EvalError> for Refusal {
    fn from(error: EvalError) -> Self {
        let told = |status, kind, message| Self { status, kind, message };
        match error {
            EvalError::Query(refusal) => {
                let text = refusal.to_string();
                let message = text
                    .split_once(": ")
                    .map_or_else(|| text.clone(), |(at, rest)| format!("{at}: parse error: {rest}"));
                Self::parameter("query", message)
            }
            EvalError::Data(message) if message.starts_with("invalid expression type") => {
                Self::parameter("query", message)
            }
            EvalError::Data(message) | EvalError::Limit(message) => {
                told(StatusCode::UNPROCESSABLE_ENTITY, "execution", message)
            }
            EvalError::Cancelled(message) => told(StatusCode::SERVICE_UNAVAILABLE, "canceled", message),
            EvalError::Source { kind, source, .. } => {
                let message = source.to_string();
                match source.downcast_ref::<tidemill_query::Error>() {
                    Some(tidemill_query::Error::TimeLimit { .. }) => {
                        told(StatusCode::SERVICE_UNAVAILABLE, "timeout", message)
                    }
                    Some(tidemill_query::Error::TooManyQueries { .. }) => {
                        told(StatusCode::TOO_MANY_REQUESTS, "unavailable", message)
                    }
                    _ if kind == ErrorKind::Cancelled => told(StatusCode::SERVICE_UNAVAILABLE, "canceled", message),
                    _ if kind.is_retryable() => told(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message),
                    _ => told(StatusCode::INTERNAL_SERVER_ERROR, "internal", message),
                }
            }
        }
    }
}

impl From<crate::error::Error> for Refusal {
    fn from(error: crate::error::Error) -> Self {
        let status = StatusCode::from_u16(error.kind().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = match status.as_u16() {
            400 => "bad_data",
            404 => "not_found",
            429 | 503 => "unavailable",
            _ => "internal",
        };
        Self { status, kind, message: error.full_message() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(error = %self.message, "a question in PromQL failed");
        }
        let body = json!({ "status": "error", "errorType": self.kind, "error": self.message });
        let mut response = (self.status, axum::Json(body)).into_response();
        if matches!(self.status.as_u16(), 429 | 503) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// An answer of which `data` is the value.
pub(super) fn success(data: Value, warnings: &[String]) -> Response {
    let mut body = json!({ "status": "success", "data": data });
    if !warnings.is_empty() {
        body["warnings"] = json!(warnings);
    }
    axum::Json(body).into_response()
}

/// An answer that is written already.
pub(super) fn written(body: String) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}
