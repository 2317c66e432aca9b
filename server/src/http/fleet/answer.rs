//! Documents around objects: lists, and `Status` for what went wrong or is done.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tidemill_fleet::Error;
use tidemill_fleet::objects::{Kind, Object, ObjectKey};

/// A request that is turned down.
#[derive(Debug)]
pub(super) struct Refusal(Box<Response>);

impl Refusal {
    pub(super) fn new(code: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        Self(Box::new(status(code, reason, &message.into(), None)))
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (reason, code) = error.status();
        let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if code.is_server_error() {
            tracing::warn!(%error, "a request about objects failed");
        }
        let details = match &error {
            Error::Invalid(key, problems) => {
                let cause = |problem: &tidemill_fleet::objects::FieldProblem| json!({"reason": "FieldValueInvalid", "field": problem.field, "message": problem.message});
                Some(
                    json!({"name": key.name, "kind": key.kind, "causes": problems.iter().map(cause).collect::<Vec<_>>()}),
                )
            }
            Error::NotFound(key) | Error::AlreadyExists(key) | Error::Conflict(key) => {
                Some(json!({"name": key.name, "kind": key.kind}))
            }
            _ => None,
        };
        Self(Box::new(status(code, reason, &error.to_string(), details)))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        *self.0
    }
}

/// A `Status` that tells a failure.
pub(super) fn status(code: StatusCode, reason: &str, message: &str, details: Option<Value>) -> Response {
    let mut body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code.as_u16(),
    });
    if let Some(details) = details {
        body["details"] = details;
    }
    (code, Json(body)).into_response()
}

/// A `Status` that tells success.
pub(super) fn success(key: &ObjectKey, kind: &Kind) -> Response {
    let details = json!({"name": key.name, "group": kind.group, "kind": kind.plural});
    Json(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}))
        .into_response()
}

/// A list of objects.
pub(super) fn list(kind: &Kind, objects: &[Arc<Object>], version: u64) -> Response {
    let items: Vec<&Object> = objects.iter().map(AsRef::as_ref).collect();
    Json(json!({
        "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
        "metadata": {"resourceVersion": version.to_string()}, "items": items,
    }))
    .into_response()
}
