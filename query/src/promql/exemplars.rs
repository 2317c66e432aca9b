//! Exemplars of series, and other texts of single rows.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::Float64Type;
use futures::StreamExt as _;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::RowSelection;
use serde_json::Value;
use tidemill_eval::{Labels, METRIC_NAME, Matcher, Result as EvalResult, format_number};
use tidemill_types::{OrganizationId, Tier};

use super::conditions::Conditions;
use super::select::{Reader, time_range};
use super::series::{Found, Role, SegmentSeries, StoredSeries};
use super::value_text::value_text;
use super::{PromqlLimits, failed, within};
use crate::scan::{OpenSegment, stored_rows};
use crate::{Error, QueryEngine, Result};

/// How far apart the times of an exemplar and its point may be: longer than what is between two exports.
const APART_MS: i64 = 300_000;

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
        let _turn = self.turn(organization, limits)?;
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
    let mut all = Collected::default();
    for matchers in selectors {
        let conditions = Conditions::new(matchers);
        // Segments know the times of points, and an exemplar may be some time apart from its point.
        let around = time_range(start_ms.saturating_sub(APART_MS), end_ms.saturating_add(APART_MS));
        for meta in reader.segments(Tier::RAW, around) {
            let (open, series) = reader.open(&meta).await?;
            let carriers: Vec<Carrier<'_>> =
                series.find(&conditions).iter().filter_map(|found| Carrier::of(&series, found)).collect();
            for told in told_by(reader, &open, &carriers).await? {
                let in_time = told.exemplars.into_iter().filter(|one| (start_ms..=end_ms).contains(&one.time_ms));
                in_time.for_each(|one| all.add(&carriers[told.carrier], &told.bounds, &conditions, one));
            }
        }
    }
    Ok(all.finish())
}

/// What one row tells.
struct Told {
    /// The place of its series.
    carrier: usize,
    /// The upper bounds of its buckets, where exemplars belong to them.
    bounds: Vec<f64>,
    exemplars: Vec<Exemplar>,
}

/// What the rows of series tell that have exemplars.
async fn told_by(reader: &Reader, open: &Arc<OpenSegment>, carriers: &[Carrier<'_>]) -> Result<Vec<Told>> {
    let mut rows: Vec<(usize, u32)> = Vec::new();
    for (place, carrier) in carriers.iter().enumerate() {
        rows.extend(carrier.stored.rows.iter().cloned().flatten().map(|row| (place, row)));
    }
    let texts = texts_at(reader, open, "exemplars", &rows).await?;
    let told: Vec<((usize, u32), String)> = rows.into_iter().zip(texts).filter(|(_, text)| !text.is_empty()).collect();
    let of_buckets: Vec<(usize, u32)> =
        told.iter().map(|(row, _)| *row).filter(|(place, _)| carriers[*place].has_buckets).collect();
    let mut bounds = values_at(reader, open, "explicit_bounds", &of_buckets, lists).await?.into_iter();
    let mut all = Vec::with_capacity(told.len());
    for ((carrier, _), text) in told {
        let own = if carriers[carrier].has_buckets { bounds.next() } else { None };
        let read: Vec<Value> =
            serde_json::from_str(&text).map_err(|error| Error::corrupt(&open.meta.object_key, error))?;
        let exemplars = read.iter().filter_map(exemplar_of).collect();
        all.push(Told { carrier, bounds: own.unwrap_or_default(), exemplars });
    }
    Ok(all)
}

/// A series that may have exemplars, under the name that has them.
struct Carrier<'a> {
    stored: &'a StoredSeries,
    name: Arc<str>,
    /// Whether each exemplar belongs to the series of a bucket.
    has_buckets: bool,
}

impl<'a> Carrier<'a> {
    /// Of a classic histogram the buckets alone have exemplars, as Prometheus's OTLP receiver writes them; of all else
    /// the first name has.
    fn of(series: &'a SegmentSeries, found: &Found) -> Option<Self> {
        let stored = &series.series[found.series as usize];
        let parts = &series.metrics[stored.metric as usize].parts;
        let has_buckets = parts.iter().any(|part| part.role == Role::Bucket);
        let name = found.parts.iter().find(|(role, _)| !has_buckets || *role == Role::Bucket);
        name.map(|(_, name)| Self { stored, name: Arc::clone(name), has_buckets })
    }
}

/// The exemplars of series, each once.
#[derive(Debug, Default)]
struct Collected(BTreeMap<Labels, BTreeMap<(i64, Labels, u64), Exemplar>>);

impl Collected {
    /// Adds an exemplar of a series; where that has buckets, up to `bounds`, to its bucket if it meets the conditions.
    fn add(&mut self, carrier: &Carrier<'_>, bounds: &[f64], conditions: &Conditions, exemplar: Exemplar) {
        let mut labels = carrier.stored.labels.builder();
        labels.set(METRIC_NAME, &carrier.name);
        if carrier.has_buckets {
            let le = bucket_of(exemplar.value, bounds);
            if !conditions.of("le").all(|matcher| matcher.meets(&le)) {
                return;
            }
            labels.set("le", &le);
        }
        let key = (exemplar.time_ms, exemplar.labels.clone(), exemplar.value.to_bits());
        self.0.entry(labels.build()).or_default().insert(key, exemplar);
    }

    fn finish(self) -> Vec<SeriesExemplars> {
        let told = self.0.into_iter();
        told.map(|(labels, all)| SeriesExemplars { labels, exemplars: all.into_values().collect() }).collect()
    }
}

/// The label `le` of the bucket that a value falls in: the first bound that is not less.
fn bucket_of(value: f64, bounds: &[f64]) -> String {
    format_number(bounds.iter().copied().find(|bound| value <= *bound).unwrap_or(f64::INFINITY))
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
            labels.set(key, &value_text(&value.to_string()));
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
    values_at(reader, open, name, rows, texts).await
}

fn texts(column: &ArrayRef) -> Option<Vec<String>> {
    let texts = column.as_string_view_opt()?;
    let text = |row| if texts.is_valid(row) { texts.value(row) } else { "" };
    Some((0..texts.len()).map(|row| text(row).to_owned()).collect())
}

fn lists(column: &ArrayRef) -> Option<Vec<Vec<f64>>> {
    let lists = column.as_list_opt::<i32>()?;
    let list = |row: usize| {
        let items = lists.value(row);
        items.as_primitive_opt::<Float64Type>().map(|items| items.values().to_vec())
    };
    (0..lists.len()).map(|row| if lists.is_valid(row) { list(row) } else { Some(Vec::new()) }).collect()
}

/// The values of a column in single rows, as `values` reads them from a batch, in the order of `rows`.
async fn values_at<T: Clone + Default>(
    reader: &Reader,
    open: &Arc<OpenSegment>,
    name: &str,
    rows: &[(usize, u32)],
    values: fn(&ArrayRef) -> Option<Vec<T>>,
) -> Result<Vec<T>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|at| rows[*at].1);
    let mut found = vec![T::default(); rows.len()];
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
        let ranges = ranges_of(here.iter().map(|at| (rows[*at].1 - first) as usize));
        let mask = ProjectionMask::roots(open.reader.parquet_schema(), open.reader.schema().index_of(name));
        let wanted = RowSelection::from_consecutive_ranges(ranges.iter().cloned(), open.row_group_rows(group));
        let mut batches = stored_rows(&reader.parts.loader, open, &reader.stats, |stored| {
            stored.with_row_groups(vec![group]).with_projection(mask).with_row_selection(wanted)
        })?;
        let mut read: Vec<T> = Vec::new();
        while let Some(batch) = batches.next().await {
            let of_batch = batch?.column_by_name(name).and_then(values);
            let mistyped = || Error::corrupt(&open.meta.object_key, format!("{name} is not of its type"));
            read.extend(of_batch.ok_or_else(mistyped)?);
        }
        let places: BTreeMap<usize, usize> =
            ranges.into_iter().flatten().enumerate().map(|(at, row)| (row, at)).collect();
        for at in here {
            let row = (rows[*at].1 - first) as usize;
            if let Some(value) = places.get(&row).and_then(|place| read.get(*place)) {
                found[*at].clone_from(value);
            }
        }
    }
    Ok(found)
}

/// Rows as ranges; they rise, and may repeat.
fn ranges_of(rows: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for row in rows {
        match ranges.last_mut() {
            Some(last) if last.end == row => last.end = row + 1,
            Some(last) if last.end > row => {}
            _ => ranges.push(row..row + 1),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use tidemill_segment::index::SeriesFrame;

    use super::super::series::{Promotion, SeriesBuilder};
    use super::*;

    /// Under which series the exemplars of a metric `m` are told, by their times: of the values 0.5, 1 and 7, where
    /// buckets go up to 1 and to 5.
    fn told(kind: &str, selector: &str) -> Vec<(String, Vec<i64>)> {
        let promotion = Promotion::default();
        let mut builder = SeriesBuilder::new(&promotion);
        let frame = SeriesFrame { name: "m".to_owned(), kind: kind.to_owned(), ..SeriesFrame::default() };
        builder.add(&frame, &[], std::iter::once(0..1).collect());
        let series = builder.finish();
        let matchers = tidemill_eval::promql::selector_of(selector).expect("a selector");
        let conditions = Conditions::new(&matchers);
        let mut all = Collected::default();
        for carrier in series.find(&conditions).iter().filter_map(|found| Carrier::of(&series, found)) {
            for (time_ms, value) in [(1, 0.5), (2, 1.0), (3, 7.0)] {
                all.add(&carrier, &[1.0, 5.0], &conditions, Exemplar { labels: Labels::default(), value, time_ms });
            }
        }
        let times = |series: &SeriesExemplars| series.exemplars.iter().map(|one| one.time_ms).collect();
        all.finish().iter().map(|series| (series.labels.to_string(), times(series))).collect()
    }

    #[test]
    fn exemplars_of_classic_histograms_belong_to_their_buckets() {
        let bucket = |le: &str, times: &[i64]| {
            let labels = Labels::of([(METRIC_NAME, "m_bucket"), ("le", le)]);
            (labels.to_string(), times.to_vec())
        };
        let all = [bucket("+Inf", &[3]), bucket("1", &[1, 2])];
        assert_eq!(told("histogram", "{__name__=~\"m.*\"}"), all);
        assert_eq!(told("histogram", "m_bucket"), all);
        assert_eq!(told("histogram", "m_bucket{le=\"1\"}"), all[1..]);
        assert!(told("histogram", "{__name__=~\"m_(count|sum)\"}").is_empty());
        let whole = (Labels::of([(METRIC_NAME, "m")]).to_string(), vec![1, 2, 3]);
        assert_eq!(told("exponential_histogram", "m"), std::slice::from_ref(&whole));
        assert_eq!(told("gauge", "m"), [whole]);
    }

    #[test]
    fn a_bucket_holds_what_is_not_above_its_bound() {
        for (value, le) in [(-1.0, "0.5"), (0.5, "0.5"), (0.6, "2"), (2.1, "+Inf"), (f64::NAN, "+Inf")] {
            assert_eq!(bucket_of(value, &[0.5, 2.0]), le, "{value}");
        }
        assert_eq!(bucket_of(1.0, &[]), "+Inf");
    }

    #[test]
    fn rows_in_a_row_are_one_range() {
        assert_eq!(ranges_of([0, 1, 1, 2, 5, 7, 8].into_iter()), [0..3, 5..6, 7..9]);
    }
}
