//! The fleet's objects, by the routes and shapes of Kubernetes's API, so that clients people have keep working.
//!
//! Owns: routes, selectors, watches, `Status` and `List` documents. Never: what an object means (`tidemill-fleet`).

mod answer;
mod discovery;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Json};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tidemill_fleet::objects::{KINDS, Kind, LabelSelector, Object, ObjectKey};
use tidemill_fleet::runtime::LogOptions;
use tidemill_fleet::{Applied, Fleet, PatchKind, Propagation};
use tidemill_scaling::TimeMs;

use super::ApiState;
use super::arguments::Query;
use super::caller::Operator;
use answer::{Refusal, list, success};

/// The largest object that is sent here.
const MAX_OBJECT_BYTES: usize = 1 << 20;
/// Says whether an application changed anything.
pub const APPLIED_HEADER: &str = "x-tidemill-applied";

type Answer = Result<Response, Refusal>;
/// Fields with whether they must have, or must not have, a value.
type FieldTests = Vec<(String, bool, String)>;

/// The routes of every kind.
pub fn router() -> Router<ApiState> {
    let mut routes = Router::new()
        .route("/version", get(discovery::version))
        .route("/api", get(discovery::core_versions))
        .route("/apis", get(discovery::groups))
        .route("/api/v1", get(discovery::core_resources))
        .route("/apis/{group}/{version}", get(discovery::resources))
        .route("/apis/metrics.k8s.io/v1beta1/pods", get(all_usage))
        .route("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods", get(usage))
        .route("/apis/tidemill.dev/v1/decisions/{plural}/{namespace}/{name}", get(decisions))
        .route("/apis/tidemill.dev/v1/missing", axum::routing::post(missing))
        .route("/api/v1/namespaces/{namespace}/pods/{name}/log", get(logs));
    for kind in KINDS {
        routes = routes.merge(of_kind(kind));
    }
    routes.layer(axum::extract::DefaultBodyLimit::max(MAX_OBJECT_BYTES))
}

fn of_kind(kind: &'static Kind) -> Router<ApiState> {
    let prefix = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let plural = kind.plural;
    let many = get(list_objects).post(create_object);
    let one = get(get_object).put(replace_object).patch(patch_object).delete(delete_object);
    let routes = if kind.is_namespaced {
        Router::new()
            .route(&format!("{prefix}/{plural}"), get(list_objects))
            .route(&format!("{prefix}/namespaces/{{namespace}}/{plural}"), many)
            .route(&format!("{prefix}/namespaces/{{namespace}}/{plural}/{{name}}"), one)
            .route(&format!("{prefix}/namespaces/{{namespace}}/{plural}/{{name}}/status"), get(get_object))
            .route(
                &format!("{prefix}/namespaces/{{namespace}}/{plural}/{{name}}/scale"),
                get(get_scale).put(put_scale).patch(put_scale),
            )
    } else if kind.kind == "Namespace" {
        // Named as the others' namespace is, because routes may not name one place twice.
        Router::new().route(&format!("{prefix}/{plural}"), many).route(&format!("{prefix}/{plural}/{{namespace}}"), one)
    } else {
        Router::new().route(&format!("{prefix}/{plural}"), many).route(&format!("{prefix}/{plural}/{{name}}"), one)
    };
    routes.layer(Extension(kind))
}

/// Where an object is, by the path.
#[derive(Debug, Default, Deserialize)]
struct Place {
    namespace: Option<String>,
    name: Option<String>,
}

impl Place {
    fn key(&self, kind: &Kind) -> ObjectKey {
        if kind.is_namespaced {
            ObjectKey::new(
                kind.kind,
                self.namespace.as_deref().unwrap_or_default(),
                self.name.as_deref().unwrap_or_default(),
            )
        } else {
            ObjectKey::new(kind.kind, "", self.name.as_deref().or(self.namespace.as_deref()).unwrap_or_default())
        }
    }
}

/// Options that requests of objects may have; those that mean nothing here are let pass, as Kubernetes does.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Options {
    #[serde(default)]
    label_selector: String,
    #[serde(default)]
    field_selector: String,
    watch: Option<String>,
    timeout_seconds: Option<u64>,
    dry_run: Option<String>,
    propagation_policy: Option<String>,
    grace_period_seconds: Option<u64>,
}

impl Options {
    fn is_dry(&self) -> Result<bool, Refusal> {
        match self.dry_run.as_deref() {
            None | Some("") => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(Refusal::bad_request(format!("dryRun: {other:?} is not All"))),
        }
    }

    fn selectors(&self) -> Result<(LabelSelector, FieldTests), Refusal> {
        let labels =
            LabelSelector::parse(&self.label_selector).map_err(|error| Refusal::bad_request(error.to_string()))?;
        let mut fields = Vec::new();
        for part in self.field_selector.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, is_equal, value) = if let Some((name, value)) = part.split_once("!=") {
                (name, false, value)
            } else if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (name, true, value)
            } else {
                return Err(Refusal::bad_request(format!("fieldSelector: {part:?} is no name=value")));
            };
            fields.push((name.to_owned(), is_equal, value.to_owned()));
        }
        Ok((labels, fields))
    }
}

/// What a list or a watch shows.
#[derive(Debug, Clone)]
struct Shown {
    fleet: Fleet,
    kind: &'static Kind,
    namespace: Option<String>,
    labels: LabelSelector,
    fields: FieldTests,
}

impl Shown {
    fn objects(&self) -> (Vec<Arc<Object>>, u64) {
        let listed = self.fleet.list(self.kind, self.namespace.as_deref(), &self.labels);
        let mut objects = listed.objects;
        objects.retain(|object| {
            self.fields.iter().all(|(name, is_equal, value)| (field(object, name) == *value) == *is_equal)
        });
        (objects, listed.version)
    }
}

fn field(object: &Object, name: &str) -> String {
    match name {
        "metadata.name" => object.metadata.name.clone(),
        "metadata.namespace" => object.metadata.namespace.clone(),
        path => object
            .at(&path.replace('.', "/"))
            .map(|value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned))
            .unwrap_or_default(),
    }
}

fn fleet_of(state: &ApiState) -> Result<&Fleet, Refusal> {
    state.fleet.as_ref().ok_or_else(|| {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            "this process runs no fleet; `tidemill up` does",
        )
    })
}

async fn list_objects(
    State(state): State<ApiState>,
    Extension(kind): Extension<&'static Kind>,
    _: Operator,
    Path(place): Path<Place>,
    Query(options): Query<Options>,
) -> Answer {
    let (labels, fields) = options.selectors()?;
    let namespace = place.namespace.filter(|_| kind.is_namespaced);
    let shown = Shown { fleet: fleet_of(&state)?.clone(), kind, namespace, labels, fields };
    if options.watch.as_deref().is_some_and(|watch| matches!(watch, "1" | "true" | "True")) {
        return Ok(watch::stream(shown, options.timeout_seconds.map(Duration::from_secs)));
    }
    let (objects, version) = shown.objects();
    Ok(list(kind, &objects, version))
}

async fn get_object(
    State(state): State<ApiState>,
    Extension(kind): Extension<&'static Kind>,
    _: Operator,
    Path(place): Path<Place>,
) -> Answer {
    Ok(Json(&*fleet_of(&state)?.get(&place.key(kind))?).into_response())
}

fn object_of(body: &Bytes, kind: &Kind, place: &Place) -> Result<Object, Refusal> {
    let mut object: Object = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("the body is no object: {error}")))?;
    if object.kind.is_empty() {
        kind.kind.clone_into(&mut object.kind);
    }
    if object.api_version.is_empty() {
        object.api_version = kind.api_version();
    }
    if kind.is_namespaced && object.metadata.namespace.is_empty() {
        object.metadata.namespace = place.namespace.clone().unwrap_or_default();
    }
    let is_here = object.kind == kind.kind
        && (!kind.is_namespaced || place.namespace.as_ref() == Some(&object.metadata.namespace));
    if !is_here {
        return Err(Refusal::bad_request(format!(
            "a {} of namespace {:?} is sent to where a {} of {:?} belongs",
            object.kind, object.metadata.namespace, kind.kind, place.namespace
        )));
    }
    Ok(object)
}

async fn create_object(
    State(state): State<ApiState>,
    Extension(kind): Extension<&'static Kind>,
    _: Operator,
    Path(place): Path<Place>,
    Query(options): Query<Options>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    // A page in a browser may send any form without asking first; JSON it may not.
    if !headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"))
    {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            "send it as application/json",
        ));
    }
    let object = object_of(&body, kind, &place)?;
    let created = fleet_of(&state)?.create(object, options.is_dry()?).await?;
    Ok((StatusCode::CREATED, Json(&*created)).into_response())
}

async fn replace_object(
    State(state): State<ApiState>,
    Extension(kind): Extension<&'static Kind>,
    _: Operator,
    Path(place): Path<Place>,
    Query(options): Query<Options>,
    body: Bytes,
) -> Answer {
    let object = object_of(&body, kind, &place)?;
    if object.key() != place.key(kind) {
        return Err(Refusal::bad_request("the body names another object than the path"));
    }
    Ok(Json(&*fleet_of(&state)?.replace(object, options.is_dry()?).await?).into_response())
}

async fn patch_object(
    State(state): State<ApiState>,
    Extension(kind): Extension<&'static Kind>,
    _: Operator,
    Path(place): Path<Place>,
    Query(options): Query<Options>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let fleet = fleet_of(&state)?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim();
    let patch_kind = match content_type {
        "application/merge-patch+json" => PatchKind::Merge,
        "application/json-patch+json" => PatchKind::Json,
        "application/strategic-merge-patch+json" | "application/json" | "" => PatchKind::Strategic,
        "application/apply-patch+yaml" => {
            let object = object_of(&body, kind, &place)?;
            let (applied, what) = fleet.apply(object, options.is_dry()?).await?;
            let (code, word) = match what {
                Applied::Created => (StatusCode::CREATED, "created"),
                Applied::Configured => (StatusCode::OK, "configured"),
                Applied::Unchanged => (StatusCode::OK, "unchanged"),
            };
            return Ok((code, [(APPLIED_HEADER, word)], Json(&*applied)).into_response());
        }
        other => {
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UnsupportedMediaType",
                format!("a patch of type {other:?} is not known"),
            ));
        }
    };
    let patch: Value = serde_json::from_slice(&body)
        .map_err(|error| Refusal::bad_request(format!("the patch is no JSON: {error}")))?;
    Ok(Json(&*fleet.patch(&place.key(kind), patch_kind, &patch, options.is_dry()?).await?).into_response())
}

async fn delete_object(
    State(state): State<ApiState>,
    Extension(kind): Extension<&'static Kind>,
    _: Operator,
    Path(place): Path<Place>,
    Query(options): Query<Options>,
    body: Bytes,
) -> Answer {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Asked {
        propagation_policy: Option<String>,
        grace_period_seconds: Option<u64>,
    }
    let asked: Asked = if body.is_empty() {
        Asked::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| Refusal::bad_request(error.to_string()))?
    };
    let propagation = match asked.propagation_policy.or(options.propagation_policy).as_deref() {
        None | Some("Background" | "Foreground") => Propagation::Cascade,
        Some("Orphan") => Propagation::Orphan,
        Some(other) => {
            return Err(Refusal::bad_request(format!(
                "propagationPolicy: {other:?} is none of Background, Foreground, Orphan"
            )));
        }
    };
    let grace = asked.grace_period_seconds.or(options.grace_period_seconds).map(Duration::from_secs);
    let key = place.key(kind);
    if kind.kind == "Event" {
        return Err(Refusal::bad_request("events go by themselves"));
    }
    fleet_of(&state)?.delete(&key, propagation, grace).await?;
    Ok(success(&key, kind))
}

async fn get_scale(
    State(state): State<ApiState>,
    Extension(kind): Extension<&'static Kind>,
    _: Operator,
    Path(place): Path<Place>,
) -> Answer {
    let object = fleet_of(&state)?.get(&place.key(kind))?;
    Ok(Json(scale_of(&object)).into_response())
}

fn scale_of(object: &Object) -> Value {
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": object.metadata.name, "namespace": object.metadata.namespace, "resourceVersion": object.metadata.resource_version},
        "spec": {"replicas": object.replicas()},
        "status": {"replicas": object.whole("/status/replicas").unwrap_or_default()},
    })
}

async fn put_scale(
    State(state): State<ApiState>,
    Extension(kind): Extension<&'static Kind>,
    _: Operator,
    Path(place): Path<Place>,
    body: Bytes,
) -> Answer {
    let asked: Value = serde_json::from_slice(&body).map_err(|error| Refusal::bad_request(error.to_string()))?;
    let replicas =
        asked.pointer("/spec/replicas").and_then(Value::as_i64).and_then(|replicas| i32::try_from(replicas).ok());
    let replicas = replicas.ok_or_else(|| Refusal::bad_request("spec.replicas is no whole number"))?;
    let scaled = fleet_of(&state)?.scale(&place.key(kind), replicas).await?;
    Ok(Json(scale_of(&scaled)).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogsAsked {
    container: Option<String>,
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    previous: bool,
    #[serde(default)]
    timestamps: bool,
    tail_lines: Option<usize>,
    since_seconds: Option<i64>,
    since_time: Option<String>,
}

async fn logs(
    State(state): State<ApiState>,
    _: Operator,
    Path(place): Path<Place>,
    Query(asked): Query<LogsAsked>,
) -> Answer {
    let now = jiff::Timestamp::now().as_millisecond();
    let since_time = match &asked.since_time {
        Some(text) => {
            Some(text.parse::<jiff::Timestamp>().map_err(|error| Refusal::bad_request(format!("sinceTime: {error}")))?)
        }
        None => None,
    };
    let since = since_time
        .map(|at| at.as_millisecond())
        .or_else(|| asked.since_seconds.map(|seconds| now - seconds.saturating_mul(1000)));
    let options = LogOptions {
        container: asked.container,
        follow: asked.follow,
        previous: asked.previous,
        tail: asked.tail_lines,
        since: since.map(TimeMs),
        timestamps: asked.timestamps,
    };
    let (namespace, name) = (place.namespace.unwrap_or_default(), place.name.unwrap_or_default());
    let lines = fleet_of(&state)?.logs(&namespace, &name, options).await?;
    let body = Body::from_stream(lines.map(|line| line.map_err(std::io::Error::other)));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

async fn usage(State(state): State<ApiState>, _: Operator, Path(place): Path<Place>) -> Answer {
    usage_list(fleet_of(&state)?, place.namespace.as_deref())
}

async fn all_usage(State(state): State<ApiState>, _: Operator) -> Answer {
    usage_list(fleet_of(&state)?, None)
}

fn usage_list(fleet: &Fleet, namespace: Option<&str>) -> Answer {
    let items = fleet.usage(namespace);
    Ok(Json(json!({"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": items}))
        .into_response())
}

#[derive(Debug, Deserialize)]
struct DecisionsAsked {
    limit: Option<usize>,
}

async fn decisions(
    State(state): State<ApiState>,
    _: Operator,
    Path((plural, namespace, name)): Path<(String, String, String)>,
    Query(asked): Query<DecisionsAsked>,
) -> Answer {
    let kind = tidemill_fleet::objects::find_kind(&plural)
        .ok_or_else(|| Refusal::bad_request(format!("{plural} is no kind")))?;
    let key = ObjectKey::new(kind.kind, &namespace, &name);
    let fleet = fleet_of(&state)?.clone();
    let limit = asked.limit.unwrap_or(10);
    let records = tokio::task::spawn_blocking(move || fleet.decisions(&key, limit)).await;
    let records = records
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", error.to_string()))??;
    Ok(Json(records).into_response())
}

/// What the replicas of an object would miss.
async fn missing(State(state): State<ApiState>, _: Operator, body: Bytes) -> Answer {
    let object: Object = serde_json::from_slice(&body).map_err(|error| Refusal::bad_request(error.to_string()))?;
    let missing: Vec<String> = fleet_of(&state)?.missing(&object).into_iter().map(|missing| missing.what).collect();
    Ok(Json(missing).into_response())
}
