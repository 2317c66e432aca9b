//! Names and values of attributes: `/api/search/tags`, `/api/search/tag/{name}/values` and their second versions.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};
use tidemill_lang::traceql::ast::{Attribute, Intrinsic, Query as TraceQuery, Scope};
use tidemill_lang::traceql::{parse_attribute, parse_incomplete};
use tidemill_types::OrganizationId;

use super::params::Params;
use super::{TempoError, TempoResult, Told, json_answer, metrics_json, queries, with_stats};
use crate::http::ApiState;
use crate::http::arguments::Query;
use crate::http::caller::Member;

/// The longest name of an attribute that is asked for.
const MAX_NAME_BYTES: usize = 4_096;

/// What every span has, by all names.
const INTRINSICS: [&str; 25] = [
    "duration",
    "event:name",
    "event:timeSinceStart",
    "instrumentation:name",
    "instrumentation:version",
    "kind",
    "link:spanID",
    "link:traceID",
    "name",
    "rootName",
    "rootServiceName",
    "span:duration",
    "span:id",
    "span:kind",
    "span:name",
    "span:parentID",
    "span:status",
    "span:statusMessage",
    "status",
    "statusMessage",
    "trace:duration",
    "trace:id",
    "trace:rootName",
    "trace:rootService",
    "traceDuration",
];

/// Names by scope.
type Names = BTreeMap<&'static str, BTreeSet<String>>;

pub(super) async fn names_v1(
    State(state): State<ApiState>,
    Member(organization): Member,
    Query(pairs): Query<Vec<(String, String)>>,
) -> TempoResult<Response> {
    let told = names(&state, organization, &Params::new(pairs)).await?;
    let all: BTreeSet<String> = told.answer.into_values().flatten().collect();
    let body = json!({ "tagNames": all, "metrics": metrics_json(&told.stats) });
    Ok(with_stats(json_answer(&body), &told.stats))
}

pub(super) async fn names_v2(
    State(state): State<ApiState>,
    Member(organization): Member,
    Query(pairs): Query<Vec<(String, String)>>,
) -> TempoResult<Response> {
    let params = Params::new(pairs);
    let mut told = names(&state, organization, &params).await?;
    if wanted_scope(&params).is_none() {
        told.answer.insert("intrinsic", INTRINSICS.into_iter().map(str::to_owned).collect());
    }
    let scopes: Vec<Value> = told.answer.iter().map(|(scope, names)| json!({ "name": scope, "tags": names })).collect();
    let body = json!({ "scopes": scopes, "metrics": metrics_json(&told.stats) });
    Ok(with_stats(json_answer(&body), &told.stats))
}

/// The scope asked for; nothing for all of them.
fn wanted_scope(params: &Params) -> Option<&str> {
    params.text("scope").filter(|scope| *scope != "none")
}

async fn names(state: &ApiState, organization: OrganizationId, params: &Params) -> TempoResult<Told<Names>> {
    let scope = wanted_scope(params);
    let scopes = [Scope::Span, Scope::Resource, Scope::Event, Scope::Link, Scope::Instrumentation];
    let name_of = |scope: Scope| scope.prefix().trim_end_matches('.');
    if scope == Some("intrinsic") {
        let names = INTRINSICS.into_iter().map(str::to_owned).collect();
        return Ok(Told { answer: Names::from([("intrinsic", names)]), stats: Default::default() });
    }
    if let Some(wanted) = scope.filter(|wanted| !scopes.iter().any(|scope| name_of(*scope) == *wanted)) {
        return Err(TempoError::invalid(format!("invalid scope: {wanted}")));
    }
    let (filter, range) = filter(params)?;
    let most = most(params)?;
    let found = queries(state)?.trace_tag_names(organization, filter, range).await?;
    let named = found.answer.into_iter().map(|(scope, names)| (name_of(scope), names));
    let named = named.filter(|(own, names)| scope.is_none_or(|wanted| wanted == *own) && !names.is_empty());
    let answer = named.map(|(own, names)| (own, names.into_iter().take(most).collect())).collect();
    Ok(Told { answer, stats: found.stats })
}

/// How many names or values are asked for: of names in each scope; 0 for all of them.
fn most(params: &Params) -> TempoResult<usize> {
    Ok(params.count("limit")?.filter(|limit| *limit > 0).unwrap_or(usize::MAX))
}

/// The query that spans must match, and the range of time. It comes from somebody who is still writing it: what of it is no condition
/// yet is left out.
fn filter(params: &Params) -> TempoResult<(Option<TraceQuery>, (i64, i64))> {
    let (start, end) = params.range_ns()?;
    let filter = params.text("q").and_then(parse_incomplete);
    Ok((filter, (start.unwrap_or(i64::MIN), end.unwrap_or(i64::MAX))))
}

pub(super) async fn values_v1(
    State(state): State<ApiState>,
    Member(organization): Member,
    Path(name): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> TempoResult<Response> {
    check_name(&name)?;
    let named = || Attribute::Named(Scope::Any, name.clone());
    let attribute = Intrinsic::by_name(&name).map_or_else(named, Attribute::Intrinsic);
    let told = values(&state, organization, attribute, &Params::new(pairs)).await?;
    let values: BTreeSet<&String> = told.answer.iter().map(|(_, value)| value).collect();
    let body = json!({ "tagValues": values, "metrics": metrics_json(&told.stats) });
    Ok(with_stats(json_answer(&body), &told.stats))
}

pub(super) async fn values_v2(
    State(state): State<ApiState>,
    Member(organization): Member,
    Path(name): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> TempoResult<Response> {
    check_name(&name)?;
    let attribute = parse_attribute(&name)
        .map_err(|error| TempoError::invalid(format!("please provide a valid tagName: {error}")))?;
    let told = values(&state, organization, attribute, &Params::new(pairs)).await?;
    let entry = |(kind, value): &(&str, String)| match value.as_str() {
        "" => json!({ "type": kind }),
        value => json!({ "type": kind, "value": value }),
    };
    let values: Vec<Value> = told.answer.iter().map(entry).collect();
    let body = json!({ "tagValues": values, "metrics": metrics_json(&told.stats) });
    Ok(with_stats(json_answer(&body), &told.stats))
}

fn check_name(name: &str) -> TempoResult<()> {
    if name.len() > MAX_NAME_BYTES {
        return Err(TempoError::invalid(format!("the name of an attribute has at most {MAX_NAME_BYTES} bytes")));
    }
    Ok(())
}

async fn values(
    state: &ApiState,
    organization: OrganizationId,
    attribute: Attribute,
    params: &Params,
) -> TempoResult<Told<Vec<(&'static str, String)>>> {
    let (filter, range) = filter(params)?;
    let most = most(params)?;
    let mut found = queries(state)?.trace_tag_values(organization, attribute, filter, range).await?;
    found.answer.truncate(most);
    Ok(Told { answer: found.answer, stats: found.stats })
}
