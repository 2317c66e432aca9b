//! How the API tells errors: the kind's HTTP status and `{"error": {"kind", "message", "hint"}}`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use tidemill_lake::auth::AuthError;

use crate::error::Error;

/// The body of an error.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProblemBody {
    /// What happened.
    pub error: Problem,
}

/// What happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Problem {
    /// One of the closed set of kinds.
    pub kind: String,
    /// The message with its causes.
    pub message: String,
    /// What the caller can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// As the API tells `error`.
    pub fn of(error: &Error) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self { kind: error.kind().as_str().to_owned(), message: error.full_message(), hint }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.kind().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(error = %self.full_message(), "a request failed");
        }
        let mut response = (status, Json(ProblemBody { error: Problem::of(&self) })).into_response();
        if self.kind().is_retryable() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The answer to a caller that is turned away.
pub fn refuse_caller(error: &AuthError) -> Response {
    let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::UNAUTHORIZED);
    let kind = match status {
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::UNAUTHORIZED => "unauthenticated",
        _ => "unavailable",
    };
    let mut response = answer(status, kind, error.to_string(), None);
    if status == StatusCode::UNAUTHORIZED {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer, Basic realm=\"tidemill\""));
    }
    response
}

/// An answer that tells what is wrong.
pub fn answer(status: StatusCode, kind: &str, message: String, hint: Option<String>) -> Response {
    (status, Json(ProblemBody { error: Problem { kind: kind.to_owned(), message, hint } })).into_response()
}
