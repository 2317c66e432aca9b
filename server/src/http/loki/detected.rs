//! `detected_labels`, `detected_fields` and their values: what Grafana's Logs Drilldown offers to filter by.
//!
//! Fields are looked for in the newest lines only, as the request says (`line_limit`); they are suggestions, not an answer to a query.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use tidemill_eval::logql::{Direction, LogParams};
use tidemill_lang::logql::ast::{LogQuery, Query};
use tidemill_lang::logql::{parse, print};
use tidemill_query::logql::StreamTotals;
use tidemill_types::OrganizationId;

use super::answer::Refusal;
use super::params::Params;
use super::{queries, streams};
use crate::http::ApiState;
use crate::http::caller::Member;

/// Lines looked at where nothing is said.
const DEFAULT_LINES: usize = 1_000;
/// Fields in one answer where nothing is said.
const DEFAULT_FIELDS: usize = 1_000;

/// `GET /loki/api/v1/detected_labels`
pub(super) async fn labels(
    State(state): State<ApiState>,
    Member(organization): Member,
    params: Params,
) -> Result<Json<Value>, Refusal> {
    let found = streams::read(
        &state,
        organization,
        params.optional_selector()?,
        params.labels_range()?,
        StreamTotals::Unneeded,
    )
    .await?;
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in found.streams.iter().flat_map(|(labels, _)| labels.iter()) {
        values.entry(name).or_default().insert(value);
    }
    if values.is_empty() {
        return Ok(Json(json!({})));
    }
    let labels = values.iter().map(|(name, values)| json!({ "label": name, "cardinality": values.len() }));
    Ok(Json(json!({ "detectedLabels": labels.collect::<Vec<_>>() })))
}

/// What is known of a field.
#[derive(Default)]
struct Field {
    values: BTreeSet<String>,
    parsers: BTreeSet<&'static str>,
}

/// `GET /loki/api/v1/detected_fields`
pub(super) async fn fields(
    State(state): State<ApiState>,
    Member(organization): Member,
    params: Params,
) -> Result<Json<Value>, Refusal> {
    let limit = limit(&params)?;
    let fields = detect(&state, organization, &params).await?;
    let listed = fields.iter().take(limit).map(|(name, field)| {
        let parsers = if field.parsers.is_empty() { Value::Null } else { json!(field.parsers) };
        json!({
            "label": name,
            "type": type_of(&field.values),
            "cardinality": field.values.len(),
            "parsers": parsers,
        })
    });
    let listed: Vec<Value> = listed.collect();
    Ok(Json(if listed.is_empty() { json!({}) } else { json!({ "fields": listed, "limit": limit }) }))
}

/// `GET /loki/api/v1/detected_field/<name>/values`
pub(super) async fn values(
    State(state): State<ApiState>,
    Member(organization): Member,
    Path(name): Path<String>,
    params: Params,
) -> Result<Json<Value>, Refusal> {
    let limit = limit(&params)?;
    let mut fields = detect(&state, organization, &params).await?;
    let values: Vec<String> = fields.remove(&name).unwrap_or_default().values.into_iter().take(limit).collect();
    Ok(Json(json!({ "values": values, "limit": limit })))
}

fn limit(params: &Params) -> Result<usize, Refusal> {
    Ok(params.limit()?.unwrap_or(DEFAULT_FIELDS))
}

/// The fields of the newest lines that the query takes: structured metadata, and what `json` or `logfmt` finds in them.
async fn detect(
    state: &ApiState,
    organization: OrganizationId,
    params: &Params,
) -> Result<BTreeMap<String, Field>, Refusal> {
    let (start_ns, end_ns) = params.range()?;
    let Query::Log(query) = parse(params.query())? else {
        return Err(Refusal::invalid("fields are detected in lines: a query of numbers has none"));
    };
    let most = queries(state)?.most_lines();
    let lines = match params.get("line_limit") {
        None => DEFAULT_LINES.min(most),
        Some(text) => {
            let wrong = || Refusal::invalid(format!("line_limit {text:?} is no number of lines"));
            text.parse().ok().filter(|lines| *lines > 0).map(|lines: usize| lines.min(most)).ok_or_else(wrong)?
        }
    };
    let asked = LogParams {
        start_ns,
        end_ns,
        limit: lines,
        direction: Direction::Backward,
        interval_ns: 0,
        now_ns: params.now_ns,
    };
    let queries = queries(state)?;
    let (engine, limits) = queries.open_engine().await?;
    let mut fields: BTreeMap<String, Field> = BTreeMap::new();
    for parser in ["json", "logfmt"] {
        let answer = engine.logql_lines(organization, &parsed(&query, parser)?, asked, limits).await?;
        for entry in answer.streams.iter().flat_map(|stream| &stream.entries) {
            for (name, value) in entry.metadata.iter() {
                fields.entry(name.to_owned()).or_default().values.insert(value.to_owned());
            }
            // `logfmt` finds words in what is JSON, too.
            let is_json = entry.line.trim_start().starts_with('{');
            if entry.parsed.get("__error__").is_some() || (parser == "logfmt" && is_json) {
                continue;
            }
            for (name, value) in entry.parsed.iter().filter(|(name, _)| !name.starts_with("__")) {
                let field = fields.entry(name.to_owned()).or_default();
                field.values.insert(value.to_owned());
                field.parsers.insert(parser);
            }
        }
    }
    Ok(fields)
}

/// The query with a parser behind it.
fn parsed(query: &LogQuery, parser: &str) -> Result<LogQuery, Refusal> {
    match parse(&format!("{} | {parser}", print::print_log(query)))? {
        Query::Log(query) => Ok(query),
        Query::Metric(_) => Err(Refusal::invalid("fields are detected in lines")),
    }
}

/// The type that all values are of.
fn type_of(values: &BTreeSet<String>) -> &'static str {
    let all = |test: &dyn Fn(&str) -> bool| values.iter().all(|value| test(value));
    let unit = |value: &str, units: &[&str]| {
        let end = value.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(0);
        end > 0 && units.contains(&value[end..].trim().to_ascii_lowercase().as_str())
    };
    if all(&|value| value.parse::<i64>().is_ok()) {
        "int"
    } else if all(&|value| value.parse::<f64>().is_ok()) {
        "float"
    } else if all(&|value| value == "true" || value == "false") {
        "boolean"
    } else if all(&|value| unit(value, &["ns", "us", "µs", "ms", "s", "m", "h"])) {
        "duration"
    } else if all(&|value| unit(value, &["b", "kb", "mb", "gb", "tb", "kib", "mib", "gib", "tib"])) {
        "bytes"
    } else {
        "string"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_those_of_all_values() {
        let of = |values: &[&str]| type_of(&values.iter().map(|value| (*value).to_owned()).collect());
        assert_eq!([of(&["1", "2"]), of(&["1", "2.5"]), of(&["1ms", "2s"])], ["int", "float", "duration"]);
        assert_eq!([of(&["1kB", "2 MiB"]), of(&["true"]), of(&["1", "x"])], ["bytes", "boolean", "string"]);
    }
}
