//! `series`, `labels`, `label/<name>/values`, `metadata`.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, State};
use serde_json::{Value as Json, json};
use tidemill_eval::Labels;
use tidemill_query::promql::LabelSelect;
use tidemill_types::OrganizationId;

use super::super::ApiState;
use super::super::caller::Member;
use super::answer::{Answer, Refusal, success};
use super::parameters::{Parameters, now_ms};
use super::query::{labels_json, queries};

/// Metrics of this recent time have metadata.
const METADATA_MS: i64 = 24 * 3_600_000;
const TRUNCATED: &str = "results truncated due to limit";

async fn found(
    state: &ApiState,
    organization: OrganizationId,
    parameters: &Parameters,
) -> Result<(BTreeSet<Labels>, Vec<String>), Refusal> {
    let (start_ms, end_ms) = parameters.times()?;
    let select = LabelSelect { selectors: parameters.selectors()?, start_ms, end_ms };
    Ok(queries(state)?.promql_series(organization, select).await?)
}

/// At most `limit` of `items`, 0 for all; says so where there were more.
fn limited<T>(items: impl ExactSizeIterator<Item = T>, limit: usize, warnings: &mut Vec<String>) -> Vec<T> {
    if limit > 0 && items.len() > limit {
        warnings.push(TRUNCATED.to_owned());
        return items.take(limit).collect();
    }
    items.collect()
}

pub(super) async fn series(
    State(state): State<ApiState>,
    Member(organization): Member,
    parameters: Parameters,
) -> Answer {
    if parameters.selectors()?.is_empty() {
        return Err(Refusal::bad_data("no match[] parameter provided"));
    }
    let (all, mut warnings) = found(&state, organization, &parameters).await?;
    let kept = limited(all.iter(), parameters.limit()?, &mut warnings);
    Ok(success(kept.into_iter().map(labels_json).collect(), &warnings))
}

pub(super) async fn names(
    State(state): State<ApiState>,
    Member(organization): Member,
    parameters: Parameters,
) -> Answer {
    let (all, mut warnings) = found(&state, organization, &parameters).await?;
    let names: BTreeSet<&str> = all.iter().flat_map(|labels| labels.iter().map(|label| &*label.name)).collect();
    let kept = limited(names.into_iter(), parameters.limit()?, &mut warnings);
    Ok(success(json!(kept), &warnings))
}

pub(super) async fn values(
    State(state): State<ApiState>,
    Member(organization): Member,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Answer {
    let name = unescaped(&name);
    if name.is_empty() {
        return Err(Refusal::bad_data("invalid label name: \"\""));
    }
    let (all, mut warnings) = found(&state, organization, &parameters).await?;
    let values: BTreeSet<&str> = all.iter().map(|labels| labels.get(&name)).filter(|value| !value.is_empty()).collect();
    let kept = limited(values.into_iter(), parameters.limit()?, &mut warnings);
    Ok(success(json!(kept), &warnings))
}

/// A name in a path may be escaped as `U__…`: `_2e_` is a dot, `__` an underscore.
fn unescaped(name: &str) -> String {
    let Some(mut rest) = name.strip_prefix("U__") else { return name.to_owned() };
    let mut plain = String::new();
    while let Some(at) = rest.find('_') {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('_') {
            plain.push('_');
            rest = after;
            continue;
        }
        let code = rest.find('_').and_then(|end| Some((u32::from_str_radix(&rest[..end], 16).ok()?, end)));
        let Some((letter, end)) = code.and_then(|(code, end)| Some((char::from_u32(code)?, end))) else {
            return name.to_owned();
        };
        plain.push(letter);
        rest = &rest[end + 1..];
    }
    plain + rest
}

pub(super) async fn metadata(
    State(state): State<ApiState>,
    Member(organization): Member,
    parameters: Parameters,
) -> Answer {
    let limit = metadata_limit("limit", parameters.get("limit"))?.unwrap_or(usize::MAX);
    let of_metric = metadata_limit("limit_per_metric", parameters.get("limit_per_metric"))?;
    let of_metric = of_metric.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let metric = parameters.get("metric").map(str::to_owned);
    let now = now_ms();
    let all = queries(&state)?.promql_metadata(organization, metric, (now - METADATA_MS, now)).await?;
    let told: BTreeMap<&String, Json> = all
        .iter()
        .take(limit)
        .map(|(name, entries)| {
            let entries = entries.iter().take(of_metric);
            let told = entries.map(|one| json!({ "type": one.kind, "help": one.help, "unit": one.unit }));
            (name, told.collect())
        })
        .collect();
    Ok(success(json!(told), &[]))
}

/// A limit on metadata as Prometheus reads it there: a negative one is none, and 0 is one.
fn metadata_limit(name: &str, text: Option<&str>) -> Result<Option<usize>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    let limit: i64 = text.parse().map_err(|_| Refusal::bad_data(format!("{name} must be a number")))?;
    Ok(usize::try_from(limit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_paths_may_be_escaped() {
        for (name, plain) in
            [("job", "job"), ("U__http_2e_method", "http.method"), ("U__a__b", "a_b"), ("U__a_zz_", "U__a_zz_")]
        {
            assert_eq!(unescaped(name), plain);
        }
        let mut warnings = Vec::new();
        assert_eq!(limited([1, 2, 3].into_iter(), 2, &mut warnings), [1, 2]);
        assert_eq!(warnings, [TRUNCATED]);
    }

    #[test]
    fn no_metadata_may_be_asked_for() {
        for (text, limit) in
            [(None, Some(None)), (Some("-1"), Some(None)), (Some("0"), Some(Some(0))), (Some("3"), Some(Some(3)))]
        {
            assert_eq!(metadata_limit("limit", text).ok(), limit, "{text:?}");
        }
        let refusal = metadata_limit("limit", Some("x")).expect_err("no number");
        assert!(format!("{refusal:?}").contains("limit must be a number"), "{refusal:?}");
    }
}
