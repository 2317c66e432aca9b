//! Query strings and JSON bodies, refused in the API's own way when they are wrong.

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::MAX_BODY_BYTES;
use crate::error::{Error, Result};

/// The query string as `T`.
#[derive(Debug)]
pub struct Query<T>(pub T);

/// A body as it is.
#[derive(Debug)]
pub struct RawBody(pub Bytes);

/// A JSON body as `T`; an empty body is `{}`.
#[derive(Debug)]
pub struct Body<T>(pub T);

/// The names and values of a query string or a form, in their order; what is not encoded is taken as it is.
pub fn form_pairs(text: &str) -> Vec<(String, String)> {
    let decoded = |part: &str| {
        let spaced = part.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    let parts = text.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let query: std::result::Result<axum::extract::Query<T>, QueryRejection> =
            axum::extract::Query::from_request_parts(parts, state).await;
        // The layers between say what they are; the last says what is wrong.
        query.map(|query| Self(query.0)).map_err(|error| {
            let text = error.body_text();
            let problem = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            Error::invalid(format!("the query string: {problem}"))
        })
    }
}

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        Bytes::from_request(request, state).await.map(Self).map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Error::invalid(format!("the body has more than {MAX_BODY_BYTES} bytes")),
            _ => Error::invalid(format!("the body: {}", error.body_text())),
        })
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let RawBody(bytes) = RawBody::from_request(request, state).await?;
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(bytes).map(Self).map_err(|error| Error::invalid(format!("the body: {error}")))
    }
}
