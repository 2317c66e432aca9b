//! `query`, `query_range`, `format_query`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde_json::{Value, json};
use tidemill_eval::logql::{LogParams, MetricParams};
use tidemill_lang::logql::ast::Query;
use tidemill_lang::logql::{parse, print};
use tidemill_types::OrganizationId;

use super::answer::{Refusal, query_success, success};
use super::params::Params;
use super::queries;
use crate::http::ApiState;
use crate::http::caller::Member;
use crate::query::Queries;

/// The most instants of one answer; Prometheus's.
const MOST_INSTANTS: i64 = 11_000;

/// `GET /loki/api/v1/query`: numbers at one time.
pub(super) async fn instant(
    State(state): State<ApiState>,
    Member(organization): Member,
    params: Params,
) -> Result<Json<Value>, Refusal> {
    answer_instant(queries(&state)?, organization, &params).await.map(Json)
}

/// `GET /loki/api/v1/query_range`: lines, or numbers at each step.
pub(super) async fn range(
    State(state): State<ApiState>,
    Member(organization): Member,
    params: Params,
) -> Result<Json<Value>, Refusal> {
    answer_range(queries(&state)?, organization, &params).await.map(Json)
}

async fn answer_instant(queries: &Queries, organization: OrganizationId, params: &Params) -> Result<Value, Refusal> {
    params.limit()?;
    let time_ns = params.time("time")?.unwrap_or(params.now_ns);
    let Query::Metric(metric) = parse(params.query())? else {
        return Err(Refusal::invalid(
            "log queries are not supported as an instant query type, please change your query to a range query type",
        ));
    };
    let asked = MetricParams { start_ns: time_ns, end_ns: time_ns, step_ns: None, now_ns: params.now_ns };
    let (engine, limits) = queries.open_engine().await?;
    let answer = engine.logql_numbers(organization, &metric, asked, limits).await?;
    Ok(query_success(answer.answer.to_json(), answer.stats))
}

/// The body of an answer to `query_range`.
pub(super) async fn answer_range(
    queries: &Queries,
    organization: OrganizationId,
    params: &Params,
) -> Result<Value, Refusal> {
    let (start_ns, end_ns) = params.range()?;
    params.limit()?;
    let direction = params.direction()?;
    let step_ns = params.step(start_ns, end_ns)?;
    let interval_ns = params.duration("interval")?.unwrap_or(0);
    if interval_ns < 0 {
        return Err(Refusal::invalid("interval must be >= 0"));
    }
    let query = parse(params.query())?;
    let (engine, limits) = queries.open_engine().await?;
    match query {
        Query::Log(query) => {
            let limit = params.lines(queries.most_lines())?;
            let asked = LogParams { start_ns, end_ns, limit, direction, interval_ns, now_ns: params.now_ns };
            let answer = engine.logql_lines(organization, &query, asked, limits).await?;
            let categorizes = params.categorizes_labels;
            let streams: Vec<Value> = answer.streams.iter().map(|stream| stream.to_json(categorizes)).collect();
            let mut data = json!({ "resultType": "streams", "result": streams });
            if categorizes {
                data["encodingFlags"] = json!(["categorize-labels"]);
            }
            Ok(query_success(data, answer.stats))
        }
        Query::Metric(metric) => {
            if (end_ns - start_ns) / step_ns > MOST_INSTANTS {
                return Err(Refusal::invalid(
                    "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step parameter",
                ));
            }
            let asked = MetricParams { start_ns, end_ns, step_ns: Some(step_ns), now_ns: params.now_ns };
            let answer = engine.logql_numbers(organization, &metric, asked, limits).await?;
            Ok(query_success(answer.answer.to_json(), answer.stats))
        }
    }
}

/// `GET /loki/api/v1/format_query`: the query as it is printed.
pub(super) async fn format(Member(_): Member, params: Params) -> Response {
    match parse(params.query()) {
        Ok(query) => success(json!(print::print(&query))).into_response(),
        Err(error) => {
            let body = json!({ "status": "invalid-query", "error": format!("parse error at {error}") });
            (StatusCode::BAD_REQUEST, Json(body)).into_response()
        }
    }
}
