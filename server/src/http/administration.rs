//! `/api/v1/{status,inbox,queue,segments,organizations,keys}`.

use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, patch, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tidemill_store::metastore::{ApiKey, Organization};
use tidemill_types::{OrganizationId, SegmentId, SegmentMeta, WorkId};

use super::ApiState;
use super::arguments::{Body, Query};
use super::caller::{Operator, Reader};
use crate::admin::{CreatedKey, InboxRequest, Listed, OrganizationChange, QueueRequest, SegmentsRequest, Status};
use crate::error::{Error, Result};

/// Present on a list that has more rows than `limit`, which is 100 where it is not given.
pub const MORE_HEADER: &str = "x-tidemill-more";

/// The body of `POST /api/v1/organizations`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOrganization {
    /// Unique display name.
    pub name: String,
    /// Its id, where it must be a given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<OrganizationId>,
}

/// The body of `POST /api/v1/keys`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKeyRequest {
    /// Whose key, by id or name; absent for an operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// A note for people.
    #[serde(default)]
    pub label: String,
}

/// The body of `PUT /api/v1/documents/{name}`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDocument {
    /// What names it in problems: its file.
    pub label: String,
    /// The YAML.
    pub text: String,
}

/// Which keys are listed.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysRequest {
    /// Only this organization's, by id or name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
}

/// The body of `POST /api/v1/queue/redrive`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedriveRequest {
    /// These dead letters; absent for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<WorkId>>,
}

/// The answer of `POST /api/v1/queue/redrive`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Redriven {
    /// How many are runnable again.
    pub redriven: u64,
}

/// The routes.
pub fn router() -> Router<ApiState> {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/inbox", get(inbox))
        .route("/api/v1/queue", get(queue))
        .route("/api/v1/queue/redrive", post(redrive))
        .route("/api/v1/segments", get(segments))
        .route("/api/v1/segments/{id}", get(segment))
        .route("/api/v1/organizations", get(organizations).post(create_organization))
        .route("/api/v1/organizations/{name}", patch(change_organization).delete(delete_organization))
        .route("/api/v1/keys", get(keys).post(create_key))
        .route("/api/v1/keys/{id}", delete(revoke_key))
        .route("/api/v1/documents/{name}", get(document).put(store_document))
}

/// A list as a JSON array; [`MORE_HEADER`] tells that it was cut.
fn list<T: Serialize>(listed: Listed<T>) -> Response {
    let mut response = Json(listed.rows).into_response();
    if listed.has_more {
        response.headers_mut().insert(MORE_HEADER, HeaderValue::from_static("true"));
    }
    response
}

async fn status(State(state): State<ApiState>, _: Operator) -> Result<Json<Status>> {
    let mut status = state.admin.status().await?;
    status.arrival_to_queryable = state.numbers.recent_lag().map(Into::into);
    Ok(Json(status))
}

async fn inbox(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    Query(request): Query<InboxRequest>,
) -> Result<Response> {
    Ok(list(state.admin.inbox(scope, &request).await?))
}

async fn queue(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    Query(request): Query<QueueRequest>,
) -> Result<Response> {
    Ok(list(state.admin.queue(scope, &request).await?))
}

async fn redrive(
    State(state): State<ApiState>,
    _: Operator,
    Body(request): Body<RedriveRequest>,
) -> Result<Json<Redriven>> {
    Ok(Json(Redriven { redriven: state.admin.redrive(request.ids.as_deref()).await? }))
}

async fn segments(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    Query(request): Query<SegmentsRequest>,
) -> Result<Response> {
    Ok(list(state.admin.segments(scope, &request).await?))
}

async fn segment(
    State(state): State<ApiState>,
    Reader(scope): Reader,
    Path(id): Path<String>,
) -> Result<Json<SegmentMeta>> {
    let id: SegmentId = id.parse().map_err(|_| Error::invalid(format!("{id:?} is no segment id (a UUID)")))?;
    Ok(Json(state.admin.segment(scope, id).await?))
}

async fn organizations(State(state): State<ApiState>, _: Operator) -> Result<Json<Vec<Organization>>> {
    Ok(Json(state.admin.organizations().await?))
}

async fn create_organization(
    State(state): State<ApiState>,
    _: Operator,
    Body(request): Body<NewOrganization>,
) -> Result<(StatusCode, Json<Organization>)> {
    let organization = state.admin.create_organization(&request.name, request.id).await?;
    state.authenticator.forget();
    Ok((StatusCode::CREATED, Json(organization)))
}

async fn change_organization(
    State(state): State<ApiState>,
    _: Operator,
    Path(name): Path<String>,
    Body(change): Body<OrganizationChange>,
) -> Result<Json<Organization>> {
    Ok(Json(state.admin.change_organization(&name, &change).await?))
}

async fn delete_organization(
    State(state): State<ApiState>,
    _: Operator,
    Path(name): Path<String>,
) -> Result<Json<Organization>> {
    let organization = state.admin.delete_organization(&name).await?;
    state.authenticator.forget();
    Ok(Json(organization))
}

async fn keys(
    State(state): State<ApiState>,
    _: Operator,
    Query(request): Query<KeysRequest>,
) -> Result<Json<Vec<ApiKey>>> {
    Ok(Json(state.admin.keys(request.organization.as_deref()).await?))
}

async fn create_key(
    State(state): State<ApiState>,
    _: Operator,
    Body(request): Body<NewKeyRequest>,
) -> Result<(StatusCode, Json<CreatedKey>)> {
    let key = state.admin.create_key(request.organization.as_deref(), &request.label).await?;
    state.authenticator.forget();
    Ok((StatusCode::CREATED, Json(key)))
}

async fn revoke_key(State(state): State<ApiState>, _: Operator, Path(id): Path<String>) -> Result<StatusCode> {
    state.admin.revoke_key(&id).await?;
    state.authenticator.forget();
    Ok(StatusCode::NO_CONTENT)
}

async fn document(
    State(state): State<ApiState>,
    _: Operator,
    Path(name): Path<String>,
) -> Result<Json<Option<String>>> {
    Ok(Json(state.admin.document(&name).await?))
}

async fn store_document(
    State(state): State<ApiState>,
    _: Operator,
    Path(name): Path<String>,
    Body(document): Body<NewDocument>,
) -> Result<Json<()>> {
    Ok(Json(state.admin.store_document(&name, &document.label, &document.text).await?))
}
