//! What a query's answer has to say beside its values.
//!
//! Texts are Prometheus's, so that clients that look for them find them; each ends with the place in the query.

use std::collections::BTreeMap;

use tidemill_lang::Span;

use super::prepare::utc;
use crate::labels::quote;
use crate::number::format_short;

/// How grave an annotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Something that may be meant so.
    Info,
    /// Something that makes the answer doubtful.
    Warning,
}

/// One thing to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotation {
    /// How grave it is.
    pub severity: Severity,
    /// What it is, without the severity and the place.
    pub text: String,
    /// The part of the query that it concerns.
    pub span: Span,
    fixes: Option<Fixes>,
}

/// How often and how far bucket counts were raised.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Fixes {
    times: (i64, i64),
    bounds: (f64, f64),
    difference: f64,
    count: usize,
}

/// Annotations, each text and place once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Annotations {
    all: BTreeMap<(Severity, String, Span), Annotation>,
}

impl Annotations {
    /// Adds `annotation` unless it is there.
    pub fn add(&mut self, annotation: Annotation) {
        let key = (annotation.severity, annotation.text.clone(), annotation.span);
        match self.all.get_mut(&key) {
            Some(known) => known.merge(&annotation),
            None => drop(self.all.insert(key, annotation)),
        }
    }

    /// Adds a warning.
    pub(crate) fn warn(&mut self, text: impl Into<String>, span: Span) {
        self.add(Annotation { severity: Severity::Warning, text: text.into(), span, fixes: None });
    }

    /// Adds an information.
    pub(crate) fn info(&mut self, text: impl Into<String>, span: Span) {
        self.add(Annotation { severity: Severity::Info, text: text.into(), span, fixes: None });
    }

    /// Adds all of `others`.
    pub fn merge(&mut self, others: Self) {
        others.all.into_values().for_each(|annotation| self.add(annotation));
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The texts of one severity, with their places in `query`.
    pub fn texts(&self, severity: Severity, query: &str) -> Vec<String> {
        self.all.values().filter(|annotation| annotation.severity == severity).map(|a| a.told(query)).collect()
    }

    pub(crate) fn bad_quantile(&mut self, quantile: f64, span: Span) {
        let text = format!("quantile value should be between 0 and 1, got {}", format_short(quantile));
        self.warn(text, span);
    }

    pub(crate) fn mixed_samples(&mut self, metric: &str, span: Span) {
        self.warn(format!("encountered a mix of histograms and floats for metric name {}", quote(metric)), span);
    }

    pub(crate) fn mixed_schemas(&mut self, metric: &str, span: Span) {
        let text = "vector contains a mix of histograms with exponential and custom buckets schemas for metric name";
        self.warn(format!("{text} {}", quote(metric)), span);
    }

    pub(crate) fn not_counter(&mut self, metric: &str, span: Span) {
        self.warn(format!("this native histogram metric is not a counter: {}", quote(metric)), span);
    }

    pub(crate) fn not_gauge(&mut self, metric: &str, span: Span) {
        self.warn(format!("this native histogram metric is not a gauge: {}", quote(metric)), span);
    }

    pub(crate) fn delta_values(&mut self, metric: &str, span: Span) {
        let text = "each sample of this metric counts only what was added since the one before (delta temporality), rate and \
                    increase add them up:";
        self.info(format!("{text} {}", quote(metric)), span);
    }

    pub(crate) fn ignored_in_range(&mut self, metric: &str, span: Span) {
        let text = "ignored histograms in a range containing both floats and histograms for metric name";
        self.info(format!("{text} {}", quote(metric)), span);
    }

    pub(crate) fn hint_collision(&mut self, operation: &str, span: Span) {
        self.warn(format!("conflicting counter resets during histogram {operation}"), span);
    }

    pub(crate) fn reconciled_bounds(&mut self, operation: &str, span: Span) {
        self.info(format!("mismatched custom buckets were reconciled during {operation}"), span);
    }

    /// Tells that the buckets of a classic histogram had to be raised at `time` so that they do not fall.
    pub(super) fn raised_buckets(&mut self, metric: &str, span: Span, time: i64, raised: super::quantile::Raised) {
        let text = named(
            "input to histogram_quantile needed to be fixed for monotonicity (see \
             https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)",
            metric,
        );
        let fixes =
            Fixes { times: (time, time), bounds: (raised.first, raised.last), difference: raised.difference, count: 1 };
        self.add(Annotation { severity: Severity::Info, text, span, fixes: Some(fixes) });
    }
}

impl Annotation {
    fn merge(&mut self, other: &Self) {
        if let (Some(own), Some(theirs)) = (&mut self.fixes, other.fixes) {
            own.times = (own.times.0.min(theirs.times.0), own.times.1.max(theirs.times.1));
            own.bounds = (own.bounds.0.min(theirs.bounds.0), own.bounds.1.max(theirs.bounds.1));
            own.difference = own.difference.max(theirs.difference);
            own.count += theirs.count;
        }
    }

    fn told(&self, query: &str) -> String {
        let severity = match self.severity {
            Severity::Info => "PromQL info",
            Severity::Warning => "PromQL warning",
        };
        let fixes = self.fixes.map_or_else(String::new, |fixes| {
            format!(
                ", from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
                format_short(fixes.bounds.0),
                format_short(fixes.bounds.1),
                two_digits(fixes.difference),
                fixes.count,
                utc(fixes.times.0),
                utc(fixes.times.1)
            )
        });
        format!("{severity}: {}{fixes} ({})", self.text, self.span.place(query))
    }
}

/// `text`, with the metric's name where it is known.
pub(crate) fn named(text: &str, metric: &str) -> String {
    if metric.is_empty() { text.to_owned() } else { format!("{text} for metric name {}", quote(metric)) }
}

/// `value` with two significant digits.
fn two_digits(value: f64) -> String {
    let rounded: f64 = format!("{value:.1e}").parse().unwrap_or(value);
    let is_large = rounded.abs() >= 100.0;
    if !is_large {
        return format_short(rounded);
    }
    let scientific = format!("{rounded:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    format!("{digits}e+{exponent:0>2}")
}
