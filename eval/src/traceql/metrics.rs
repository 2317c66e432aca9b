//! Queries for numbers over time.
//!
//! A sample at time t covers the spans that start in `(t - step, t]`. Instants are multiples of the step, from the one at or before the
//! start to the one at or behind the end.

mod collect;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use tidemill_lang::traceql::ast::{Metrics, Query, QueryKind, Static};

use super::batch::SpanBatch;
use super::series::{MetricsSeries, apply, combine, combine_number, number};
use crate::error::{Error, Result};
use collect::{Collected, Leaf};

/// The most instants of one answer.
const INSTANT_LIMIT: i64 = 10_000;

/// What is asked beside the query.
#[derive(Debug, Clone, Copy)]
pub struct MetricsParams {
    /// The start, in nanoseconds.
    pub start_ns: i64,
    /// The end, in nanoseconds.
    pub end_ns: i64,
    /// Nanoseconds between instants; `None` asks for one value over the whole range.
    pub step_ns: Option<i64>,
}

/// The instants of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Instants {
    /// The first.
    first_ns: i64,
    step_ns: i64,
    count: usize,
}

impl Instants {
    fn new(params: MetricsParams) -> Result<Self> {
        if params.end_ns <= params.start_ns {
            return Err(Error::Data("the end must lie behind the start".to_owned()));
        }
        let Some(step_ns) = params.step_ns else {
            return Ok(Self { first_ns: params.end_ns, step_ns: params.end_ns - params.start_ns, count: 1 });
        };
        if step_ns <= 0 {
            return Err(Error::Data("the step must be above 0".to_owned()));
        }
        let first = params.start_ns.div_euclid(step_ns);
        let last = params.end_ns.div_euclid(step_ns) + i64::from(params.end_ns.rem_euclid(step_ns) > 0);
        if last - first > INSTANT_LIMIT {
            let least = (params.end_ns - params.start_ns) / INSTANT_LIMIT;
            let message = format!(
                "a step of {step_ns} ns gives {} instants; at most {INSTANT_LIMIT}: it must be {least} ns or more",
                last - first + 1
            );
            return Err(Error::Limit(message));
        }
        Ok(Self { first_ns: first * step_ns, step_ns, count: (last - first + 1) as usize })
    }

    /// The instant whose window holds the time.
    fn index(&self, time_ns: i64) -> Option<usize> {
        let behind = time_ns - self.first_ns;
        if behind <= -self.step_ns {
            return None;
        }
        let index = behind.div_euclid(self.step_ns) + i64::from(behind.rem_euclid(self.step_ns) > 0);
        usize::try_from(index).ok().filter(|index| *index < self.count)
    }

    fn times_ns(&self) -> Vec<i64> {
        (0..self.count as i64).map(|index| self.first_ns + index * self.step_ns).collect()
    }
}

/// A query for numbers while it runs.
#[derive(Debug)]
pub struct MetricsRun {
    metrics: Metrics,
    instants: Instants,
    is_instant: bool,
    leaves: Vec<Leaf>,
}

/// What a run has gathered, to be sent to another run of the same query.
#[derive(Debug, Serialize, Deserialize)]
pub struct MetricsPartial(Vec<Collected>);

/// The answer of a query for numbers.
#[derive(Debug, Clone)]
pub struct MetricsAnswer {
    /// The series, sorted by their labels.
    pub series: Vec<MetricsSeries>,
    /// The instants, in nanoseconds.
    pub times_ns: Vec<i64>,
    is_instant: bool,
}

impl MetricsAnswer {
    /// Keeps no more than `most` exemplars, of each series about as many.
    pub fn limit_exemplars(&mut self, most: usize) {
        let mut left = most;
        let mut kept = vec![0; self.series.len()];
        let mut has_more = true;
        while left > 0 && has_more {
            has_more = false;
            for (series, kept) in
                self.series.iter().zip(&mut kept).filter(|(series, kept)| **kept < series.exemplars.len())
            {
                if left == 0 {
                    break;
                }
                *kept += 1;
                left -= 1;
                has_more |= *kept < series.exemplars.len();
            }
        }
        self.series.iter_mut().zip(kept).for_each(|(series, kept)| series.exemplars.truncate(kept));
    }
}

impl MetricsRun {
    /// A run of `query`.
    ///
    /// # Errors
    /// The query asks for traces, the range or step is none, there would be too many instants, or a pattern is too large.
    pub fn new(query: &Query, params: MetricsParams) -> Result<Self> {
        let QueryKind::Metrics(metrics) = &query.kind else {
            return Err(Error::Data("not a metrics query".to_owned()));
        };
        let shows_exemplars =
            !query.hints.iter().any(|hint| hint.name == "exemplars" && hint.value == Static::Bool(false));
        let instants = Instants::new(params)?;
        let mut leaves = Vec::new();
        add_leaves(metrics, instants, shows_exemplars && params.step_ns.is_some(), &mut leaves)?;
        Ok(Self { metrics: metrics.clone(), instants, is_instant: params.step_ns.is_none(), leaves })
    }

    /// The first nanosecond of spans that can matter, and the one behind the last.
    pub fn time_range_ns(&self) -> (i64, i64) {
        let last = self.instants.first_ns + self.instants.step_ns * (self.instants.count as i64 - 1);
        (self.instants.first_ns - self.instants.step_ns + 1, last + 1)
    }

    /// Takes spans; every trace of the batch must be there as a whole, also with spans outside of the time range.
    ///
    /// # Errors
    /// The attributes of a span cannot be read, or there are too many series.
    pub fn push(&mut self, batch: &SpanBatch) -> Result<()> {
        self.leaves.iter_mut().try_for_each(|leaf| leaf.push(batch))
    }

    /// What was gathered so far; the run is empty afterwards.
    pub fn take_partial(&mut self) -> MetricsPartial {
        MetricsPartial(self.leaves.iter_mut().map(|leaf| std::mem::take(&mut leaf.collected)).collect())
    }

    /// Adds what another run of the same query has gathered.
    ///
    /// # Errors
    /// It is of another query, or there are too many series.
    pub fn absorb(&mut self, partial: MetricsPartial) -> Result<()> {
        if partial.0.len() != self.leaves.len() {
            return Err(Error::Data("a partial answer of another query".to_owned()));
        }
        self.leaves.iter_mut().zip(partial.0).try_for_each(|(leaf, collected)| leaf.absorb(collected))
    }

    /// The answer.
    pub fn finish(self) -> MetricsAnswer {
        let mut leaves = self.leaves.into_iter();
        let mut series = match evaluate(&self.metrics, &mut leaves) {
            Evaluated::Series(series) => series,
            Evaluated::Number(_) => Vec::new(),
        };
        series.sort_by(|left, right| left.labels.cmp(&right.labels));
        MetricsAnswer { series, times_ns: self.instants.times_ns(), is_instant: self.is_instant }
    }
}

fn add_leaves(metrics: &Metrics, instants: Instants, shows_exemplars: bool, leaves: &mut Vec<Leaf>) -> Result<()> {
    match metrics {
        Metrics::Number(_) => {}
        Metrics::Operation { left, right, .. } => {
            add_leaves(left, instants, false, leaves)?;
            add_leaves(right, instants, false, leaves)?;
        }
        Metrics::Pipeline { spans, function, by, .. } => {
            leaves.push(Leaf::new(spans, function, by, instants, shows_exemplars)?);
        }
    }
    Ok(())
}

enum Evaluated {
    Number(f64),
    Series(Vec<MetricsSeries>),
}

fn evaluate(metrics: &Metrics, leaves: &mut impl Iterator<Item = Leaf>) -> Evaluated {
    match metrics {
        Metrics::Number(value) => Evaluated::Number(*value),
        Metrics::Pipeline { seconds, .. } => {
            Evaluated::Series(apply(seconds, leaves.next().map(Leaf::finish).unwrap_or_default()))
        }
        Metrics::Operation { operator, left, right, seconds } => {
            let (left, right) = (evaluate(left, leaves), evaluate(right, leaves));
            let series = match (left, right) {
                (Evaluated::Number(left), Evaluated::Number(right)) => {
                    return Evaluated::Number(number(*operator, left, right).unwrap_or(f64::NAN));
                }
                (Evaluated::Series(series), Evaluated::Number(right)) => {
                    combine_number(series, |left| number(*operator, left, right))
                }
                (Evaluated::Number(left), Evaluated::Series(series)) => {
                    combine_number(series, |right| number(*operator, left, right))
                }
                (Evaluated::Series(left), Evaluated::Series(right)) => combine(*operator, left, right),
            };
            Evaluated::Series(apply(seconds, series))
        }
    }
}

impl MetricsAnswer {
    /// As Tempo's API has it.
    pub fn to_json(&self) -> Json {
        let series = self.series.iter().map(|own| own.to_json(&self.times_ns, self.is_instant));
        json!({ "series": series.collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_end_at_their_instant() {
        let of = |start_ns, end_ns, step_ns| Instants::new(MetricsParams { start_ns, end_ns, step_ns });
        let instants = of(105, 195, Some(10)).expect("instants");
        assert_eq!((instants.times_ns().first(), instants.times_ns().last()), (Some(&100), Some(&200)));
        let index = |time| instants.index(time);
        assert_eq!((index(90), index(91), index(100), index(101)), (None, Some(0), Some(0), Some(1)));
        assert_eq!((index(200), index(201)), (Some(10), None));
        let whole = of(100, 200, None).expect("an instant");
        assert_eq!(
            (whole.index(100), whole.index(101), whole.index(200), whole.index(201)),
            (None, Some(0), Some(0), None)
        );
        assert!(of(200, 100, Some(1)).is_err() && of(0, 100, Some(-1)).is_err() && of(0, 1_000_000, Some(1)).is_err());
    }
}
