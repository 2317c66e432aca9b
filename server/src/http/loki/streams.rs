//! `labels`, their values, `series`, `index/stats`, `index/volume`: what streams there are and how much they hold.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Map, Value, json};
use tidemill_eval::logql::StreamLabels;
use tidemill_lang::logql::ast::Matcher;
use tidemill_lang::logql::parse_matchers;
use tidemill_query::logql::{StreamTotal, StreamTotals, StreamsAnswer};
use tidemill_types::{OrganizationId, TimeRange};

use super::answer::{Refusal, success};
use super::params::Params;
use super::queries;
use crate::http::ApiState;
use crate::http::caller::Member;

/// Volumes in one answer where nothing is said.
const DEFAULT_VOLUMES: usize = 100;

/// The streams of a range that meet one of the selectors.
pub(super) async fn read(
    state: &ApiState,
    organization: OrganizationId,
    selectors: Vec<Vec<Matcher>>,
    time: TimeRange,
    totals: StreamTotals,
) -> Result<StreamsAnswer, Refusal> {
    let queries = queries(state)?;
    let (engine, limits) = queries.open_engine().await?;
    Ok(engine.logql_streams(organization, selectors, time, totals, limits).await?)
}

/// `GET /loki/api/v1/labels`
pub(super) async fn labels(
    State(state): State<ApiState>,
    Member(organization): Member,
    params: Params,
) -> Result<Json<Value>, Refusal> {
    let found =
        read(&state, organization, params.optional_selector()?, params.labels_range()?, StreamTotals::Unneeded).await?;
    let names = found.streams.iter().flat_map(|(labels, _)| labels.iter().map(|(name, _)| name));
    let names: BTreeSet<&str> = names.collect();
    Ok(listed(names))
}

/// `GET /loki/api/v1/label/<name>/values`
pub(super) async fn values(
    State(state): State<ApiState>,
    Member(organization): Member,
    Path(name): Path<String>,
    params: Params,
) -> Result<Json<Value>, Refusal> {
    let found =
        read(&state, organization, params.optional_selector()?, params.labels_range()?, StreamTotals::Unneeded).await?;
    let values = found.streams.iter().map(|(labels, _)| labels.get(&name)).filter(|value| !value.is_empty());
    Ok(listed(values.collect()))
}

/// A list; Loki leaves `data` out where there is nothing.
fn listed(texts: BTreeSet<&str>) -> Json<Value> {
    if texts.is_empty() { Json(json!({ "status": "success" })) } else { success(json!(texts)) }
}

/// `GET /loki/api/v1/series`
pub(super) async fn series(
    State(state): State<ApiState>,
    Member(organization): Member,
    params: Params,
) -> Result<Json<Value>, Refusal> {
    let given = params.all("match[]").chain(params.all("match"));
    let selectors: Vec<Vec<Matcher>> = given.map(parse_matchers).collect::<Result<_, _>>()?;
    let found = read(&state, organization, selectors, params.labels_range()?, StreamTotals::Unneeded).await?;
    let series: Vec<Value> = found.streams.iter().map(|(labels, _)| object(labels)).collect();
    Ok(success(json!(series)))
}

fn object(labels: &StreamLabels) -> Value {
    Value::Object(labels.iter().map(|(name, value)| (name.to_owned(), json!(value))).collect())
}

/// `GET /loki/api/v1/index/stats`
pub(super) async fn stats(
    State(state): State<ApiState>,
    Member(organization): Member,
    params: Params,
) -> Result<Json<Value>, Refusal> {
    let selector = params.selector()?;
    let found = read(&state, organization, vec![selector], params.labels_range()?, StreamTotals::Whole).await?;
    let mut total = StreamTotal::default();
    for own in found.streams.iter().flat_map(|(_, buckets)| buckets.values()) {
        total.lines += own.lines;
        total.bytes += own.bytes;
    }
    // What comes nearest to a chunk is the rows of one stream in a segment's slice; streams are counted exactly, so they stand here.
    let streams = found.streams.len();
    Ok(Json(json!({ "streams": streams, "chunks": streams, "bytes": total.bytes, "entries": total.lines })))
}

/// How volumes are grouped.
struct Grouping {
    /// By labels alone, whatever their values.
    by_names: bool,
    targets: Vec<String>,
    limit: usize,
}

impl Grouping {
    fn of(params: &Params, selector: &[Matcher]) -> Result<Self, Refusal> {
        let by_names = match params.get("aggregateBy") {
            None | Some("series") => false,
            Some("labels") => true,
            Some(other) => {
                return Err(Refusal::invalid(format!("invalid aggregation option {other:?}; series or labels")));
            }
        };
        let mut targets: Vec<String> =
            params.get("targetLabels").into_iter().flat_map(|names| names.split(',')).map(str::to_owned).collect();
        if targets.is_empty() && !by_names {
            targets = selector.iter().map(|matcher| matcher.name.clone()).collect();
        }
        let limit = match params.get("limit") {
            None => DEFAULT_VOLUMES,
            Some(text) => text.parse().map_err(|_| Refusal::invalid(format!("limit {text:?} is no number")))?,
        };
        Ok(Self { by_names, targets, limit })
    }

    /// The volumes that a stream counts for.
    fn keys(&self, labels: &StreamLabels) -> Vec<BTreeMap<String, String>> {
        let is_target = |name: &str| self.targets.is_empty() || self.targets.iter().any(|own| own == name);
        let own = labels.iter().filter(|(name, _)| is_target(name));
        if self.by_names {
            return own.map(|(name, _)| BTreeMap::from([(name.to_owned(), String::new())])).collect();
        }
        let key: BTreeMap<String, String> = own.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        if key.is_empty() { Vec::new() } else { vec![key] }
    }
}

/// One volume: its labels, and bytes by bucket.
type Volume = (BTreeMap<String, String>, BTreeMap<i64, u64>);

/// The largest volumes.
fn volumes(found: &StreamsAnswer, grouping: &Grouping) -> Vec<Volume> {
    let mut by_key: BTreeMap<BTreeMap<String, String>, BTreeMap<i64, u64>> = BTreeMap::new();
    for (labels, buckets) in &found.streams {
        for key in grouping.keys(labels) {
            let own = by_key.entry(key).or_default();
            for (bucket, total) in buckets {
                *own.entry(*bucket).or_default() += total.bytes;
            }
        }
    }
    let mut all: Vec<Volume> = by_key.into_iter().collect();
    all.sort_by_key(|(_, buckets)| std::cmp::Reverse(buckets.values().sum::<u64>()));
    all.truncate(grouping.limit);
    all
}

fn metric(key: &BTreeMap<String, String>) -> Value {
    Value::Object(key.iter().map(|(name, value)| (name.clone(), json!(value))).collect::<Map<_, _>>())
}

/// `GET /loki/api/v1/index/volume`
pub(super) async fn volume(
    State(state): State<ApiState>,
    Member(organization): Member,
    params: Params,
) -> Result<Json<Value>, Refusal> {
    let selector = params.selector()?;
    let grouping = Grouping::of(&params, &selector)?;
    let time = params.labels_range()?;
    let found = read(&state, organization, vec![selector], time, StreamTotals::Whole).await?;
    let end = seconds(time.end.0 - 1);
    let result = volumes(&found, &grouping).into_iter().map(
        |(key, buckets)| json!({ "metric": metric(&key), "value": [end, buckets.values().sum::<u64>().to_string()] }),
    );
    Ok(success(json!({ "resultType": "vector", "result": result.collect::<Vec<_>>() })))
}

/// `GET /loki/api/v1/index/volume_range`
pub(super) async fn volume_range(
    State(state): State<ApiState>,
    Member(organization): Member,
    params: Params,
) -> Result<Json<Value>, Refusal> {
    let selector = params.selector()?;
    let grouping = Grouping::of(&params, &selector)?;
    let time = params.labels_range()?;
    let end = time.end.0 - 1;
    let step = params.step(time.start.0, end)?;
    if (end - time.start.0) / step > 11_000 {
        return Err(Refusal::invalid("more than 11,000 points: narrow the range of time or widen the step"));
    }
    let found = read(&state, organization, vec![selector], time, StreamTotals::Every(step)).await?;
    // A bucket is labelled by its last millisecond, the last one by the end.
    let label = |bucket: i64| {
        let until = time.start.0 + (bucket + 1) * step;
        seconds(if until >= end { end } else { until - 1_000_000 })
    };
    let result = volumes(&found, &grouping).into_iter().map(|(key, buckets)| {
        let mut merged: Vec<(Value, u64)> = Vec::new();
        for (bucket, bytes) in buckets {
            let at = label(bucket);
            match merged.last_mut().filter(|(last, _)| *last == at) {
                Some((_, own)) => *own += bytes,
                None => merged.push((at, bytes)),
            }
        }
        let values: Vec<Value> = merged.into_iter().map(|(at, bytes)| json!([at, bytes.to_string()])).collect();
        json!({ "metric": metric(&key), "values": values })
    });
    Ok(success(json!({ "resultType": "matrix", "result": result.collect::<Vec<_>>() })))
}

/// Seconds with milliseconds where there are some.
fn seconds(time_ns: i64) -> Value {
    let milliseconds = time_ns.div_euclid(1_000_000);
    if milliseconds % 1000 == 0 { json!(milliseconds / 1000) } else { json!(milliseconds as f64 / 1000.0) }
}
