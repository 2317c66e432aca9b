//! `POST /api/v1/sql`: a statement in, rows out as they come; `GET /api/v1/queries/{id}`: what a recent query did;
//! `GET /api/v1/attributes`.

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::stream;
use http::{HeaderMap, HeaderValue, header};
use serde::{Deserialize, Serialize};
use tidemill_query::AttributeInfo;
use tidemill_types::{ErrorKind, Signal, TimeRange, TimestampNs};

use super::ApiState;
use super::arguments::{Query, RawBody};
use super::caller::{Member, Reader};
use crate::encode::{Answer, OutputFormat};
use crate::error::{Error, Result};
use crate::query::{Queries, QueryReport, RequestedLimits};

/// The header by which an answer names its query.
pub const QUERY_ID_HEADER: &str = "x-tidemill-query-id";

/// The header by which an answer tells what its reader has to know; once for each warning.
pub const WARNING_HEADER: &str = "x-tidemill-warning";

/// The body of `POST /api/v1/sql`; a body that is not JSON is the statement itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlRequest {
    /// One read-only statement.
    pub query: String,
    /// Limits below those of the server.
    #[serde(default)]
    pub limits: RequestedLimits,
}

/// Which attributes are listed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttributesRequest {
    /// Whose.
    pub signal: Signal,
    /// Nanoseconds since 1970 of the earliest rows looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ns: Option<i64>,
    /// Nanoseconds since 1970 after the latest rows looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_ns: Option<i64>,
}

impl AttributesRequest {
    /// The range of time.
    pub fn time(&self) -> TimeRange {
        let start = self.start_ns.map_or(TimeRange::ALL.start, TimestampNs);
        let end = self.end_ns.map_or(TimeRange::ALL.end, TimestampNs);
        TimeRange { start, end }
    }
}

/// The routes.
pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/api/v1/sql", post(sql))
        .route("/api/v1/queries/{id}", get(stats))
        .route("/api/v1/attributes", get(attributes))
}

async fn sql(
    State(state): State<ApiState>,
    Member(organization): Member,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> Result<Response> {
    let request = read_request(&headers, &body)?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = OutputFormat::from_accept(accept).map_err(Error::invalid)?;
    let queries = queries(&state)?.clone();
    let query = queries.sql(organization, &request.query, &request.limits).await?;
    let id = query.id;
    // All warnings are known once the first rows are.
    let warnings = query.rows.stats().read().warnings;
    let answer = Answer::new(format, query)?;
    // Whoever goes away drops the body, and with it the query.
    let chunks = stream::try_unfold((answer, queries), move |(mut answer, queries)| async move {
        match answer.next_chunk().await {
            Ok(Some(chunk)) => Ok(Some((chunk, (answer, queries)))),
            Ok(None) => Ok(None),
            // The head is long sent: the connection is cut, so that no reader takes a part for the whole.
            Err(error) => {
                tracing::warn!(error = %error.full_message(), "a query failed after its first rows");
                queries.note_failure(id, &error);
                Err(error)
            }
        }
    });
    let mut response = Body::from_stream(chunks).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(QUERY_ID_HEADER, id);
    }
    for warning in warnings {
        // A header takes any bytes but control characters.
        let warning = warning.replace(char::is_control, " ");
        if let Ok(warning) = HeaderValue::from_bytes(warning.as_bytes()) {
            response.headers_mut().append(WARNING_HEADER, warning);
        }
    }
    Ok(response)
}

fn read_request(headers: &HeaderMap, body: &Bytes) -> Result<SqlRequest> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if content_type.starts_with("application/json") {
        return serde_json::from_slice(body).map_err(|error| Error::invalid(format!("the body: {error}")));
    }
    let query = std::str::from_utf8(body).map_err(|_| Error::invalid("the body is neither JSON nor UTF-8 text"))?;
    Ok(SqlRequest { query: query.to_owned(), limits: RequestedLimits::default() })
}

async fn stats(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    Path(id): Path<String>,
) -> Result<Json<QueryReport>> {
    let id = id.parse().map_err(|_| Error::invalid(format!("{id:?} is no query id (a UUID)")))?;
    Ok(Json(queries(&state)?.report(scope, id)?))
}

async fn attributes(
    State(state): State<ApiState>,
    Member(organization): Member,
    Query(request): Query<AttributesRequest>,
) -> Result<Json<Vec<AttributeInfo>>> {
    Ok(Json(queries(&state)?.attributes(organization, request.signal, request.time()).await?))
}

fn queries(state: &ApiState) -> Result<&Queries> {
    let missing =
        || Error::new(ErrorKind::NotFound, "this process does not play the query role").with_hint("ask one that does");
    state.queries.as_ref().ok_or_else(missing)
}
