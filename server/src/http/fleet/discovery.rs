//! What there is to ask for: groups, versions, kinds, as clients of Kubernetes look it up.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tidemill_fleet::objects::{KINDS, Kind};

use super::Answer;
use super::answer::status;
use crate::http::caller::Operator;

pub(super) async fn version(_: Operator) -> Response {
    let version = env!("CARGO_PKG_VERSION");
    Json(json!({"major": "1", "minor": "34", "gitVersion": format!("v1.34.0+tidemill.{version}"), "platform": "linux/amd64"})).into_response()
}

pub(super) async fn core_versions(_: Operator) -> Response {
    Json(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})).into_response()
}

pub(super) async fn groups(_: Operator) -> Response {
    let mut names: Vec<(&str, &str)> =
        KINDS.iter().filter(|kind| !kind.group.is_empty()).map(|kind| (kind.group, kind.version)).collect();
    names.push(("metrics.k8s.io", "v1beta1"));
    names.sort_unstable();
    names.dedup();
    let one = |(group, version): &(&str, &str)| {
        let version = json!({"groupVersion": format!("{group}/{version}"), "version": version});
        json!({"name": group, "versions": [version], "preferredVersion": version})
    };
    Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": names.iter().map(one).collect::<Vec<_>>()}))
        .into_response()
}

pub(super) async fn core_resources(_: Operator) -> Response {
    resources_of("", "v1")
}

pub(super) async fn resources(_: Operator, Path((group, version)): Path<(String, String)>) -> Answer {
    if group == "metrics.k8s.io" && version == "v1beta1" {
        let pods = json!({"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": ["get", "list"]});
        let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "metrics.k8s.io/v1beta1", "resources": [pods]});
        return Ok(Json(list).into_response());
    }
    if !KINDS.iter().any(|kind| kind.group == group && kind.version == version) {
        return Ok(status(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource", None));
    }
    Ok(resources_of(&group, &version))
}

fn resources_of(group: &str, version: &str) -> Response {
    let one = |kind: &Kind| {
        let verbs: &[&str] = if kind.is_writable {
            &["create", "delete", "get", "list", "patch", "update", "watch"]
        } else {
            &["get", "list", "watch"]
        };
        json!({"name": kind.plural, "singularName": kind.singular, "namespaced": kind.is_namespaced, "kind": kind.kind, "verbs": verbs, "shortNames": kind.short})
    };
    let list: Vec<Value> =
        KINDS.iter().filter(|kind| kind.group == group && kind.version == version).map(one).collect();
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Json(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list}))
        .into_response()
}
