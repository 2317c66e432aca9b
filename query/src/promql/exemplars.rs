//! Exemplars of series, and other texts of single rows.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use futures::StreamExt as _;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::RowSelection;
use serde_json::Value;
use tidemill_eval::{Labels, METRIC_NAME, Matcher, Result as EvalResult};
use tidemill_text::prometheus::label_name;
use tidemill_types::{OrganizationId, Tier};

use super::conditions::Conditions;
use super::select::{Reader, time_range};
use super::value_text::value_text;
use super::{PromqlLimits, failed, within};
use crate::scan::{OpenSegment, stored_rows};
use crate::{Error, QueryEngine, Result};

/// One exemplar.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// Its own labels, `trace_id` and `span_id` among them.
    pub labels: Labels,
    /// What was observed.
    pub value: f64,
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
}

/// The exemplars of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesExemplars {
    /// The series' labels.
    pub labels: Labels,
    /// By rising time.
    pub exemplars: Vec<Exemplar>,
}

impl QueryEngine {
    /// The exemplars of the series that meet one of `selectors`, from one time to another, in milliseconds, both inclusive.
    ///
    /// # Errors
    /// A limit was met, or the lake cannot be read.
    pub async fn promql_exemplars(
        &self,
        organization: OrganizationId,
        selectors: Vec<Vec<Matcher>>,
        (start_ms, end_ms): (i64, i64),
        limits: PromqlLimits,
    ) -> EvalResult<Vec<SeriesExemplars>> {
        let _turn = self.turns().take(organization, limits.concurrency)?;
        let reader = self.reader(organization, limits).await?;
        let reading = exemplars(&reader, &selectors, (start_ms, end_ms));
        within(reader.deadline, limits.time, reading).await?.map_err(failed)
    }
}

async fn exemplars(
    reader: &Reader,
    selectors: &[Vec<Matcher>],
    (start_ms, end_ms): (i64, i64),
) -> Result<Vec<SeriesExemplars>> {
    let mut all: BTreeMap<Labels, BTreeMap<(i64, Labels, u64), Exemplar>> = BTreeMap::new();
    for matchers in selectors {
        let conditions = Conditions::new(matchers);
        for meta in reader.segments(Tier::RAW, time_range(start_ms, end_ms)) {
            let (open, series) = reader.open(&meta).await?;
            let found = series.find(&conditions);
            let rows: Vec<(usize, u32)> = found
                .iter()
                .enumerate()
                .flat_map(|(place, found)| {
                    let rows = series.series[found.series as usize].rows.iter().cloned();
                    rows.flatten().map(move |row| (place, row))
                })
                .collect();
            let texts = texts_at(reader, &open, "exemplars", &rows).await?;
            for ((place, _), text) in rows.iter().zip(&texts).filter(|(_, text)| !text.is_empty()) {
                let found = &found[*place];
                let stored = &series.series[found.series as usize];
                let told: Vec<Value> =
                    serde_json::from_str(text).map_err(|error| Error::corrupt(&open.meta.object_key, error))?;
                for (_, name) in found.parts.iter().take(1) {
                    let mut labels = stored.labels.builder();
                    labels.set(METRIC_NAME, name);
                    let of_series = all.entry(labels.build()).or_default();
                    let read = told.iter().filter_map(exemplar_of);
                    for exemplar in read.filter(|one| (start_ms..=end_ms).contains(&one.time_ms)) {
                        let key = (exemplar.time_ms, exemplar.labels.clone(), exemplar.value.to_bits());
                        of_series.insert(key, exemplar);
                    }
                }
            }
        }
    }
    let told = all.into_iter().filter(|(_, exemplars)| !exemplars.is_empty());
    Ok(told.map(|(labels, all)| SeriesExemplars { labels, exemplars: all.into_values().collect() }).collect())
}

/// An exemplar as the column holds it, an object named as in OTLP/JSON.
fn exemplar_of(told: &Value) -> Option<Exemplar> {
    let object = told.as_object()?;
    let member = |names: &[&str]| names.iter().find_map(|name| object.get(*name));
    let number = |value: &Value| match value {
        Value::String(text) => text.parse().ok(),
        Value::Object(special) => special.get("doubleValue")?.as_str()?.replace("Infinity", "inf").parse().ok(),
        other => other.as_f64(),
    };
    let value = member(&["asDouble", "asInt", "value"]).and_then(number)?;
    let time_ns = match member(&["timeUnixNano", "time"])? {
        Value::String(text) => text.parse::<i64>().ok()?,
        other => other.as_i64()?,
    };
    let mut labels = Labels::default().builder();
    if let Some(Value::Object(attributes)) = member(&["filteredAttributes", "attributes"]) {
        for (key, value) in attributes {
            labels.set(&label_name(key), &value_text(&value.to_string()));
        }
    }
    for (name, keys) in [("trace_id", ["traceId", "trace_id"]), ("span_id", ["spanId", "span_id"])] {
        if let Some(id) = member(&keys).and_then(Value::as_str) {
            labels.set(name, id);
        }
    }
    Some(Exemplar { labels: labels.build(), value, time_ms: time_ns.div_euclid(1_000_000) })
}

/// The texts of a column in single rows, empty where they have none, in the order of `rows`; each comes with a number of the caller's.
pub(super) async fn texts_at(
    reader: &Reader,
    open: &Arc<OpenSegment>,
    name: &str,
    rows: &[(usize, u32)],
) -> Result<Vec<String>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|at| rows[*at].1);
    let mut texts = vec![String::new(); rows.len()];
    let mut next = 0;
    for group in 0..open.row_group_times.len() {
        let first = open.rows_before(group) as u32;
        let end = first.saturating_add(open.row_group_rows(group) as u32);
        let from = next;
        while next < order.len() && rows[order[next]].1 < end {
            next += 1;
        }
        let here = &order[from..next];
        if here.is_empty() {
            continue;
        }
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for at in here {
            let row = (rows[*at].1 - first) as usize;
            match ranges.last_mut() {
                Some(last) if last.end == row => last.end = row + 1,
                Some(last) if last.end > row => {}
                _ => ranges.push(row..row + 1),
            }
        }
        let mask = ProjectionMask::roots(open.reader.parquet_schema(), open.reader.schema().index_of(name));
        let wanted = RowSelection::from_consecutive_ranges(ranges.iter().cloned(), open.row_group_rows(group));
        let mut batches = stored_rows(&reader.parts.loader, open, &reader.stats, |stored| {
            stored.with_row_groups(vec![group]).with_projection(mask).with_row_selection(wanted)
        })?;
        let mut read: Vec<String> = Vec::new();
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let column = batch.column_by_name(name).and_then(|column| column.as_string_view_opt());
            let column = column.ok_or_else(|| Error::corrupt(&open.meta.object_key, format!("{name} is no text")))?;
            read.extend(
                (0..column.len()).map(|row| if column.is_valid(row) { column.value(row) } else { "" }.to_owned()),
            );
        }
        let places: BTreeMap<usize, usize> =
            ranges.into_iter().flatten().enumerate().map(|(at, row)| (row, at)).collect();
        for at in here {
            let row = (rows[*at].1 - first) as usize;
            if let Some(text) = places.get(&row).and_then(|place| read.get(*place)) {
                texts[*at].clone_from(text);
            }
        }
    }
    Ok(texts)
}
