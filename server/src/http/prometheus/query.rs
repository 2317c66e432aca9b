//! `query`, `query_range`, `query_exemplars`, `format_query`, `parse_query`.

use axum::extract::State;
use serde_json::{Value as Json, json};
use tidemill_eval::Labels;
use tidemill_eval::promql::json::{Extras, encode_answer_with};
use tidemill_eval::promql::{Value, selectors_in};
use tidemill_query::promql::{PromqlAnswer, PromqlRequest};
use tidemill_types::OrganizationId;

use super::super::ApiState;
use super::super::caller::Member;
use super::answer::{Answer, Refusal, success, written};
use super::parameters::{Parameters, now_ms};
use crate::query::Queries;

/// More points than this of one series are refused, as in Prometheus.
const MAX_POINTS: i64 = 11_000;

pub(super) fn queries(state: &ApiState) -> Result<&Queries, Refusal> {
    state.queries.as_ref().ok_or_else(|| Refusal::not_here("query"))
}

pub(super) async fn instant(
    State(state): State<ApiState>,
    Member(organization): Member,
    parameters: Parameters,
) -> Answer {
    let at = parameters.time("time")?.unwrap_or_else(now_ms);
    ask(&state, organization, &parameters, (at, at, 0)).await
}

pub(super) async fn range(
    State(state): State<ApiState>,
    Member(organization): Member,
    parameters: Parameters,
) -> Answer {
    let missing = |name: &str| Refusal::parameter(name, "cannot parse \"\" to a valid timestamp");
    let start = parameters.time("start")?.ok_or_else(|| missing("start"))?;
    let end = parameters.time("end")?.ok_or_else(|| missing("end"))?;
    if end < start {
        return Err(Refusal::parameter("end", "end timestamp must not be before start time"));
    }
    let step = parameters
        .duration("step")?
        .ok_or_else(|| Refusal::parameter("step", "cannot parse \"\" to a valid duration"))?;
    if step <= 0 {
        let problem = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(Refusal::parameter("step", problem));
    }
    if (end - start) / step > MAX_POINTS {
        let message = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)";
        return Err(Refusal::bad_data(message));
    }
    ask(&state, organization, &parameters, (start, end, step)).await
}

async fn ask(
    state: &ApiState,
    organization: OrganizationId,
    parameters: &Parameters,
    (start_ms, end_ms, step_ms): (i64, i64, i64),
) -> Answer {
    let query = parameters.query()?;
    let limit = parameters.limit()?;
    let lookback_ms = parameters.duration("lookback_delta")?.filter(|lookback| *lookback > 0);
    let timeout_ms = parameters.duration("timeout")?;
    if timeout_ms.is_some_and(|timeout| timeout <= 0) {
        return Err(Refusal::parameter("timeout", "the time of a query must be above 0"));
    }
    let request = PromqlRequest { query: query.to_owned(), start_ms, end_ms, step_ms, lookback_ms };
    let answer = queries(state)?.promql(organization, request, timeout_ms).await?;
    let stats = parameters.get("stats").map(|_| stats_of(&answer).to_string());
    let mut value = answer.value;
    let mut warnings = answer.stats.warnings;
    if cut(&mut value, limit) {
        warnings.push("results truncated due to limit".to_owned());
    }
    Ok(written(encode_answer_with(&value, &answer.notes, query, &Extras { warnings, stats })))
}

/// Keeps `limit` series, 0 for all; tells whether there were more.
fn cut(value: &mut Value, limit: usize) -> bool {
    let length = match value {
        Value::Vector(samples) => samples.len(),
        Value::Matrix(series) => series.len(),
        Value::Scalar(..) | Value::Text(..) => 0,
    };
    if limit == 0 || length <= limit {
        return false;
    }
    match value {
        Value::Vector(samples) => samples.truncate(limit),
        Value::Matrix(series) => series.truncate(limit),
        Value::Scalar(..) | Value::Text(..) => {}
    }
    true
}

/// What was read, under Prometheus's names where it has them.
fn stats_of(answer: &PromqlAnswer) -> Json {
    let stats = &answer.stats;
    let seconds = |milliseconds: f64| milliseconds / 1e3;
    json!({
        "timings": {
            "evalTotalTime": seconds(stats.wall_ms - stats.planning_ms),
            "resultSortTime": 0.0,
            "queryPreparationTime": seconds(stats.planning_ms),
            "innerEvalTime": seconds(stats.wall_ms - stats.planning_ms),
            "execQueueTime": 0.0,
            "execTotalTime": seconds(stats.wall_ms),
        },
        "samples": { "totalQueryableSamples": stats.rows_matched, "peakSamples": stats.rows_matched },
        "tidemill": stats,
    })
}

pub(super) async fn exemplars(
    State(state): State<ApiState>,
    Member(organization): Member,
    parameters: Parameters,
) -> Answer {
    let selectors = selectors_in(parameters.query()?)?;
    let times = parameters.times()?;
    let found = queries(&state)?.promql_exemplars(organization, selectors, times).await?;
    let told: Vec<Json> = found
        .iter()
        .map(|series| {
            let exemplars: Vec<Json> = series
                .exemplars
                .iter()
                .map(|one| {
                    let value = tidemill_eval::format_number(one.value);
                    json!({ "labels": labels_json(&one.labels), "value": value, "timestamp": one.time_ms as f64 / 1e3 })
                })
                .collect();
            json!({ "seriesLabels": labels_json(&series.labels), "exemplars": exemplars })
        })
        .collect();
    Ok(success(Json::Array(told), &[]))
}

pub(super) fn labels_json(labels: &Labels) -> Json {
    Json::Object(labels.iter().map(|label| (label.name.to_string(), Json::from(&*label.value))).collect())
}

pub(super) async fn format(Member(_): Member, parameters: Parameters) -> Answer {
    let tree = tidemill_lang::promql::parse(parameters.query()?).map_err(tidemill_eval::Error::from)?;
    Ok(success(Json::from(tidemill_lang::promql::pretty(&tree)), &[]))
}

pub(super) async fn parse(Member(_): Member, parameters: Parameters) -> Answer {
    let tree = tidemill_lang::promql::parse(parameters.query()?).map_err(tidemill_eval::Error::from)?;
    Ok(success(super::status::tree_json(&tree), &[]))
}
