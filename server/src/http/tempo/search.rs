//! `/api/search`: traces by a query, or by the tags and durations of older clients.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};
use tidemill_eval::traceql::SearchParams;
use tidemill_lang::go_regex::escape_regex;
use tidemill_lang::traceql::ast::Query as TraceQuery;
use tidemill_types::OrganizationId;

use super::params::Params;
use super::{TempoError, TempoResult, Told, json_answer, metrics_json, parse_query, queries, with_stats};
use crate::error::{Error, Result};
use crate::http::ApiState;
use crate::http::arguments::Query;
use crate::http::caller::Member;
use crate::query::Queries;

/// Traces unless told otherwise.
const DEFAULT_LIMIT: usize = 20;
/// The most traces of one answer.
const MAX_LIMIT: usize = 10_000;
/// Spans of each spanset unless told otherwise.
const DEFAULT_SPANS: usize = 3;

/// A search.
#[derive(Debug)]
pub struct SearchRequest {
    /// The query.
    pub query: String,
    /// The first nanosecond, else everything that is kept.
    pub start_ns: Option<i64>,
    /// The last nanosecond.
    pub end_ns: Option<i64>,
    /// At most so many traces.
    pub limit: usize,
    /// At most so many spans of each spanset; 0 for all.
    pub spans_per_spanset: usize,
}

/// The traces as JSON, newest first.
///
/// # Errors
/// `Invalid` for a query or limit that may not be; those of the engine.
pub async fn answer_search(
    queries: &Queries,
    organization: OrganizationId,
    request: &SearchRequest,
) -> Result<Told<Vec<Value>>> {
    if request.limit == 0 || request.limit > MAX_LIMIT {
        return Err(Error::invalid(format!("limit: {}; from 1 to {MAX_LIMIT}", request.limit)));
    }
    let query: TraceQuery = parse_query(&request.query)?;
    let params = SearchParams {
        start_ns: request.start_ns.unwrap_or(i64::MIN),
        end_ns: request.end_ns.unwrap_or(i64::MAX),
        limit: request.limit,
        spans_per_spanset: request.spans_per_spanset,
    };
    let found = queries.search_traces(organization, query, params).await?;
    let traces = found.answer.iter().map(|trace| {
        let mut trace = trace.to_json();
        // What older clients read.
        trace["spanSet"] = trace["spanSets"][0].clone();
        trace
    });
    Ok(Told { answer: traces.collect(), stats: found.stats })
}

pub(super) async fn search(
    State(state): State<ApiState>,
    Member(organization): Member,
    Query(pairs): Query<Vec<(String, String)>>,
) -> TempoResult<Response> {
    let params = Params::new(pairs);
    let (start_ns, end_ns) = params.range_ns()?;
    let legacy = legacy_query(&params)?;
    let is_legacy = params.text("q").is_none();
    let request = SearchRequest {
        query: params.text("q").map_or(legacy, str::to_owned),
        start_ns,
        end_ns,
        limit: params.count("limit")?.unwrap_or(DEFAULT_LIMIT),
        spans_per_spanset: params.count("spss")?.unwrap_or(DEFAULT_SPANS),
    };
    let mut told = answer_search(queries(&state)?, organization, &request).await?;
    if is_legacy {
        for trace in told.answer.iter_mut().filter_map(Value::as_object_mut) {
            ["spanSet", "spanSets", "serviceStats"].iter().for_each(|name| drop(trace.remove(*name)));
        }
    }
    let body = json!({ "traces": told.answer, "metrics": metrics_json(&told.stats) });
    Ok(with_stats(json_answer(&body), &told.stats))
}

/// The query that tags and durations stand for.
fn legacy_query(params: &Params) -> TempoResult<String> {
    let (least, most) = (params.duration_ns("minDuration")?, params.duration_ns("maxDuration")?);
    if let (Some(least), Some(most)) = (least, most)
        && most <= least
    {
        return Err(TempoError::invalid("invalid maxDuration: must be greater than minDuration"));
    }
    let mut conditions = Vec::new();
    for (key, value) in read_tags(params.text("tags").unwrap_or_default())? {
        // Part of the value, in capitals or not.
        let part = quote(&format!("(?is).*{}.*", escape_regex(&value)));
        match key.as_str() {
            "name" => conditions.push(format!("name =~ {part}")),
            "root.name" => conditions.push(format!("rootName =~ {part}")),
            "root.service.name" => conditions.push(format!("rootServiceName =~ {part}")),
            "status.code" => conditions.push(format!("status = {value}")),
            "error" if value == "true" => conditions.push("status = error".to_owned()),
            _ if value.parse::<f64>().is_ok_and(f64::is_finite) || value == "true" || value == "false" => {
                conditions.push(format!(".{0} =~ {part} || .{0} = {value}", quote(&key)));
            }
            _ => conditions.push(format!(".{} =~ {part}", quote(&key))),
        }
    }
    conditions.extend(least.map(|least| format!("traceDuration >= {least}ns")));
    conditions.extend(most.map(|most| format!("traceDuration <= {most}ns")));
    let conditions: Vec<String> = conditions.into_iter().map(|condition| format!("({condition})")).collect();
    Ok(format!("{{ {} }}", conditions.join(" && ")))
}

fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// Tags in logfmt: `a=b c="d e"`.
fn read_tags(text: &str) -> TempoResult<Vec<(String, String)>> {
    let mut tags = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, behind) = rest.split_at(end);
        let Some(behind) = behind.strip_prefix('=').filter(|_| !key.is_empty()) else {
            return Err(TempoError::invalid(format!("invalid tags: {key:?} is no key=value")));
        };
        let (value, behind) = match behind.strip_prefix('"') {
            None => {
                let end = behind.find(char::is_whitespace).unwrap_or(behind.len());
                (behind[..end].to_owned(), &behind[end..])
            }
            Some(quoted) => {
                let mut value = String::new();
                let mut letters = quoted.char_indices();
                let end = loop {
                    match letters.next() {
                        None => return Err(TempoError::invalid("invalid tags: unterminated quoted value")),
                        Some((at, '"')) => break at + 1,
                        Some((_, '\\')) => value.extend(letters.next().map(|(_, letter)| letter)),
                        Some((_, letter)) => value.push(letter),
                    }
                };
                (value, &quoted[end..])
            }
        };
        tags.push((key.to_owned(), value));
        rest = behind.trim_start();
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(pairs: &[(&str, &str)]) -> TempoResult<String> {
        legacy_query(&Params::new(
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ))
    }

    #[test]
    fn tags_are_a_query() {
        for (tags, expected) in [
            ("", "{  }"),
            ("service.name=mailer", r#"{ (."service.name" =~ "(?is).*mailer.*") }"#),
            (r#"name="fixed root" status.code=error"#, r#"{ (name =~ "(?is).*fixed root.*") && (status = error) }"#),
            ("status=a error=true", r#"{ (."status" =~ "(?is).*a.*") && (status = error) }"#),
            ("code=200", r#"{ (."code" =~ "(?is).*200.*" || ."code" = 200) }"#),
            (r#"a="b\"c""#, r#"{ (."a" =~ "(?is).*b\"c.*") }"#),
        ] {
            let query = query(&[("tags", tags)]).expect("tags");
            assert_eq!(query, expected);
            assert!(parse_query(&query).is_ok(), "{query}");
        }
        let both = query(&[("minDuration", "100ms"), ("maxDuration", "1s")]).expect("durations");
        assert!(parse_query(&both).is_ok(), "{both}");
        for wrong in ["a=\"b", "a", "=b", "a=b c"] {
            assert!(query(&[("tags", wrong)]).is_err(), "{wrong}");
        }
        assert!(query(&[("minDuration", "10s"), ("maxDuration", "1s")]).is_err());
    }
}
