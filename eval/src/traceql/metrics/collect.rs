//! What one metrics function gathers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_lang::traceql::ast::{Attribute, Intrinsic, MetricsFunction, Pipeline, Spansets, Stage};

use super::Instants;
use crate::error::{Error, Result};
use crate::traceql::attributes::{Attributes, Wanted, hex_text};
use crate::traceql::batch::SpanBatch;
use crate::traceql::compare::{Comparison, compare_series};
use crate::traceql::condition::{View, attribute_value};
use crate::traceql::series::{Exemplar, LabelValue, Labels, MetricsSeries, NAME};
use crate::traceql::spanset::Stages;
use crate::traceql::structure::Trace;
use crate::traceql::value::Value;

/// The most series that one function gathers.
const SERIES_LIMIT: usize = 100_000;
/// The most values that one function gathers: series by instants, and by the quantiles of each.
const VALUE_LIMIT: usize = 1_000_000;
/// The most exemplars of one series.
const EXEMPLAR_LIMIT: usize = 20;

/// What is known of the spans of one window.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Summary {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    /// How many values lie in `(2^(k-1), 2^k]`, by k.
    buckets: BTreeMap<i32, u64>,
}

impl Summary {
    fn add(&mut self, value: f64) {
        self.merge(&Self { count: 1, sum: value, min: value, max: value, buckets: BTreeMap::new() });
    }

    fn merge(&mut self, other: &Self) {
        if other.count > 0 {
            let is_first = self.count == 0;
            self.min = if is_first { other.min } else { self.min.min(other.min) };
            self.max = if is_first { other.max } else { self.max.max(other.max) };
            self.sum += other.sum;
            self.count += other.count;
        }
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
    }

    /// The quantile within the buckets, between their bounds on a logarithmic scale.
    fn quantile(&self, rank: f64) -> f64 {
        let total: u64 = self.buckets.values().sum();
        let wanted = ((rank * total as f64).ceil() as u64).max(1);
        let (mut before, mut below) = (0, None);
        for (&bucket, &count) in &self.buckets {
            if before + count >= wanted {
                let from = f64::from(below.unwrap_or(bucket - 1));
                let share = (wanted - before) as f64 / count as f64;
                return (from + (f64::from(bucket) - from) * share).exp2();
            }
            before += count;
            below = Some(bucket);
        }
        0.0
    }
}

/// A series with its windows.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Gathered {
    windows: Vec<Summary>,
    exemplars: Vec<Exemplar>,
}

/// What was gathered.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Collected {
    series: Vec<(Labels, Gathered)>,
    compared: Vec<(Comparison, Vec<u64>)>,
    /// Whether any span lay in a window.
    saw_spans: bool,
    #[serde(skip)]
    by_labels: BTreeMap<Labels, usize>,
    #[serde(skip)]
    by_comparison: BTreeMap<Comparison, usize>,
}

/// One metrics function.
#[derive(Debug)]
pub(super) struct Leaf {
    stages: Stages,
    function: MetricsFunction,
    selection: Option<Stages>,
    by: Vec<Attribute>,
    wanted: Wanted,
    instants: Instants,
    shows_exemplars: bool,
    pub collected: Collected,
}

/// Refuses more values than a function may gather.
fn check_values(series: usize, instants: Instants, function: &MetricsFunction) -> Result<()> {
    let each = match function {
        MetricsFunction::QuantileOverTime(_, quantiles) => quantiles.len().max(1),
        _ => 1,
    };
    if series.saturating_mul(instants.count).saturating_mul(each) <= VALUE_LIMIT {
        return Ok(());
    }
    let message = format!("more than {VALUE_LIMIT} values: take a longer step or group by fewer attributes");
    Err(Error::Limit(message))
}

impl Leaf {
    pub fn new(
        spans: &Pipeline,
        function: &MetricsFunction,
        by: &[Attribute],
        instants: Instants,
        shows_exemplars: bool,
    ) -> Result<Self> {
        let mut wanted = Wanted::default();
        wanted.add_pipeline(spans);
        by.iter().chain(function.of()).for_each(|attribute| wanted.add(attribute));
        let mut selection = None;
        if let MetricsFunction::Compare { selection: condition, .. } = function {
            wanted.all = true;
            let filter = Stage::Spansets(Spansets::Filter(condition.as_ref().clone()));
            let pipeline = Pipeline { stages: vec![filter] };
            wanted.add_pipeline(&pipeline);
            selection = Some(Stages::new(&pipeline)?);
        }
        wanted.add_root();
        Ok(Self {
            stages: Stages::new(spans)?,
            function: function.clone(),
            selection,
            by: by.to_vec(),
            wanted,
            instants,
            shows_exemplars,
            collected: Collected::default(),
        })
    }

    pub fn push(&mut self, batch: &SpanBatch) -> Result<()> {
        let attributes = Attributes::decode(batch, &self.wanted)?;
        for rows in batch.traces() {
            let trace = Trace::new(batch, &attributes, rows);
            let in_window = |row: &usize| self.instants.index(batch.start_ns(*row)).is_some();
            if !trace.rows.iter().any(in_window) {
                continue;
            }
            self.collected.saw_spans = true;
            let selected: Vec<usize> = self.selection.as_ref().map_or(Vec::new(), |selection| {
                selection.run(&trace).iter().flat_map(|own| own.spans.iter().map(|view| view.span)).collect()
            });
            for view in self.stages.run(&trace).into_iter().flat_map(|own| own.spans) {
                let start_ns = batch.start_ns(trace.rows[view.span]);
                let Some(window) = self.instants.index(start_ns) else { continue };
                if self.selection.is_some() {
                    self.compare(&trace, view, window, &selected)?;
                } else {
                    self.add(&trace, view, window)?;
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, trace: &Trace<'_>, view: View, window: usize) -> Result<()> {
        let value = match self.function.of() {
            None => None,
            Some(of) => match attribute_value(of, trace, view) {
                Value::Duration(value) => Some((value as f64 / 1e9, value as f64, 1e9)),
                value => match value.as_number() {
                    Some(value) => Some((value, value, 1.0)),
                    None => return Ok(()),
                },
            },
        };
        let keeps_buckets =
            matches!(self.function, MetricsFunction::HistogramOverTime(_) | MetricsFunction::QuantileOverTime(..));
        let (shown, raw, _) = value.unwrap_or((1.0, 1.0, 1.0));
        // Values below 2 have no bucket.
        if keeps_buckets && raw < 2.0 {
            return Ok(());
        }
        let labels = self.labels(trace, view);
        let exemplar = Exemplar {
            trace_id: hex_text(trace.batch.trace_id.value(trace.rows[0])),
            time_ns: trace.batch.start_ns(trace.rows[view.span]),
            value: shown,
        };
        let shows_exemplars = self.shows_exemplars;
        let gathered = self.series(labels)?;
        if keeps_buckets {
            *gathered.windows[window].buckets.entry(bucket_of(raw)).or_default() += 1;
        } else {
            gathered.windows[window].add(shown);
        }
        if shows_exemplars && gathered.exemplars.len() < EXEMPLAR_LIMIT {
            gathered.exemplars.push(exemplar);
        }
        Ok(())
    }

    /// The labels of a span's series. Of several attributes those without a value are left out, unless none has one.
    fn labels(&self, trace: &Trace<'_>, view: View) -> Labels {
        let values: Vec<Value> = self.by.iter().map(|attribute| attribute_value(attribute, trace, view)).collect();
        let has_some = values.iter().any(|value| *value != Value::Nil);
        let labels = self.by.iter().zip(values).filter(|(_, value)| !has_some || *value != Value::Nil);
        labels.map(|(attribute, value)| (attribute.text(), LabelValue::of(&value))).collect()
    }

    fn series(&mut self, labels: Labels) -> Result<&mut Gathered> {
        let collected = &mut self.collected;
        let at = match collected.by_labels.get(&labels) {
            Some(at) => *at,
            None => {
                if collected.series.len() == SERIES_LIMIT {
                    let message = format!("more than {SERIES_LIMIT} series: group by fewer attributes");
                    return Err(Error::Limit(message));
                }
                check_values(collected.series.len() + 1, self.instants, &self.function)?;
                let windows = vec![Summary::default(); self.instants.count];
                collected.series.push((labels.clone(), Gathered { windows, exemplars: Vec::new() }));
                collected.by_labels.insert(labels, collected.series.len() - 1);
                collected.series.len() - 1
            }
        };
        Ok(&mut collected.series[at].1)
    }

    fn compare(&mut self, trace: &Trace<'_>, view: View, window: usize, selected: &[usize]) -> Result<()> {
        let start_ns = trace.batch.start_ns(trace.rows[view.span]);
        let in_time = match &self.function {
            MetricsFunction::Compare { window_ns: Some((start, end)), .. } => (*start..=*end).contains(&start_ns),
            _ => true,
        };
        let is_selected = in_time && selected.contains(&view.span);
        for comparison in Comparison::of_span(trace, view, is_selected) {
            self.count(comparison, window, 1)?;
        }
        Ok(())
    }

    fn count(&mut self, comparison: Comparison, window: usize, count: u64) -> Result<()> {
        let collected = &mut self.collected;
        let at = match collected.by_comparison.get(&comparison) {
            Some(at) => *at,
            None => {
                if collected.compared.len() == SERIES_LIMIT {
                    let message = format!("compare meets more than {SERIES_LIMIT} values: narrow the spans");
                    return Err(Error::Limit(message));
                }
                check_values(collected.compared.len() + 1, self.instants, &self.function)?;
                collected.compared.push((comparison.clone(), vec![0; self.instants.count]));
                collected.by_comparison.insert(comparison, collected.compared.len() - 1);
                collected.compared.len() - 1
            }
        };
        collected.compared[at].1[window] += count;
        Ok(())
    }

    pub fn absorb(&mut self, other: Collected) -> Result<()> {
        self.collected.saw_spans |= other.saw_spans;
        for (labels, gathered) in other.series {
            let own = self.series(labels)?;
            for (window, more) in own.windows.iter_mut().zip(&gathered.windows) {
                window.merge(more);
            }
            own.exemplars.extend(gathered.exemplars);
            own.exemplars.truncate(EXEMPLAR_LIMIT);
        }
        for (comparison, counts) in other.compared {
            for (window, count) in counts.into_iter().enumerate().take(self.instants.count) {
                self.count(comparison.clone(), window, count)?;
            }
        }
        Ok(())
    }

    pub fn finish(self) -> Vec<MetricsSeries> {
        if let MetricsFunction::Compare { top, .. } = &self.function {
            return compare_series(self.collected.compared, *top);
        }
        let counts = matches!(self.function, MetricsFunction::Rate | MetricsFunction::CountOverTime);
        let mut series = self.collected.series;
        if series.is_empty() && counts && self.by.is_empty() && self.collected.saw_spans {
            let windows = vec![Summary::default(); self.instants.count];
            series.push((Vec::new(), Gathered { windows, exemplars: Vec::new() }));
        }
        let is_duration = matches!(
            self.function.of(),
            Some(Attribute::Intrinsic(Intrinsic::Duration | Intrinsic::TraceDuration | Intrinsic::EventTimeSinceStart))
        );
        let unit = if is_duration { 1e9 } else { 1.0 };
        let step_seconds = self.instants.step_ns as f64 / 1e9;
        series
            .into_iter()
            .flat_map(|(labels, gathered)| series_of(&self.function, labels, gathered, step_seconds, unit))
            .collect()
    }
}

/// The k of the bucket `(2^(k-1), 2^k]` that holds a value above 1.
fn bucket_of(value: f64) -> i32 {
    let bucket = value.log2().ceil() as i32;
    // The logarithm may be off by a hair at a power of two.
    if f64::from(bucket - 1).exp2() >= value {
        bucket - 1
    } else if f64::from(bucket).exp2() < value {
        bucket + 1
    } else {
        bucket
    }
}

fn series_of(
    function: &MetricsFunction,
    labels: Labels,
    gathered: Gathered,
    step_seconds: f64,
    unit: f64,
) -> Vec<MetricsSeries> {
    let Gathered { windows, exemplars } = gathered;
    let labelled = |more: Option<(&str, f64)>| {
        let mut labels = labels.clone();
        if let Some((key, value)) = more {
            labels.push((key.to_owned(), LabelValue::Float(value)));
        } else if labels.is_empty() {
            labels.push((NAME.to_owned(), LabelValue::Text(function.name().to_owned())));
        }
        labels.sort();
        labels
    };
    let values = |read: &dyn Fn(&Summary) -> Option<f64>| windows.iter().map(read).collect::<Vec<_>>();
    match function {
        MetricsFunction::QuantileOverTime(_, ranks) => ranks
            .iter()
            .map(|rank| MetricsSeries {
                labels: labelled(Some(("p", *rank))),
                values: values(&|own| {
                    Some(own.quantile(*rank) / unit).filter(|_| !own.buckets.is_empty()).or(Some(0.0))
                }),
                exemplars: exemplars.clone(),
            })
            .collect(),
        MetricsFunction::HistogramOverTime(_) => {
            let buckets: std::collections::BTreeSet<i32> =
                windows.iter().flat_map(|own| own.buckets.keys().copied()).collect();
            buckets
                .into_iter()
                .map(|bucket| {
                    let fits = |exemplar: &&Exemplar| bucket_of(exemplar.value * unit) == bucket;
                    MetricsSeries {
                        labels: labelled(Some(("__bucket", f64::from(bucket).exp2() / unit))),
                        values: values(&|own| Some(own.buckets.get(&bucket).copied().unwrap_or(0) as f64)),
                        exemplars: exemplars.iter().filter(fits).cloned().collect(),
                    }
                })
                .collect()
        }
        _ => {
            let present = |own: &Summary, value: f64| (own.count > 0).then_some(value);
            let values = values(&|own| match function {
                MetricsFunction::Rate => Some(own.count as f64 * (1.0 / step_seconds)),
                MetricsFunction::MinOverTime(_) => present(own, own.min),
                MetricsFunction::MaxOverTime(_) => present(own, own.max),
                MetricsFunction::AvgOverTime(_) => present(own, own.sum / own.count as f64),
                MetricsFunction::SumOverTime(_) => present(own, own.sum),
                _ => Some(own.count as f64),
            });
            vec![MetricsSeries { labels: labelled(None), values, exemplars }]
        }
    }
}
