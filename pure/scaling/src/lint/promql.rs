//! Rules about PromQL. This crate does not read the language: whoever does tells what a query selects, and perhaps which series exist.

use super::Report;
use crate::manifest::{Body, Object};

/// What is known of a query's text.
pub trait Queries {
    /// What a query selects; none where nobody can tell.
    ///
    /// # Errors
    /// What is wrong with a query that cannot be read, with its place.
    fn facts(&self, query: &str) -> Option<Result<QueryFacts, String>>;

    /// Whether a selector finds a series; none where no server was asked.
    fn has_series(&self, selector: &str) -> Option<bool>;

    /// The type that a server knows of a metric.
    fn type_of(&self, metric: &str) -> Option<MetricType>;
}

/// Nobody who could tell.
#[derive(Debug, Clone, Copy)]
pub struct NoQueries;

impl Queries for NoQueries {
    fn facts(&self, _query: &str) -> Option<Result<QueryFacts, String>> {
        None
    }

    fn has_series(&self, _selector: &str) -> Option<bool> {
        None
    }

    fn type_of(&self, _metric: &str) -> Option<MetricType> {
        None
    }
}

/// What a query selects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueryFacts {
    /// Its selectors, in order.
    pub selectors: Vec<Selected>,
    /// Whether it fills a gap with a value: `or vector(…)`.
    pub fills_gaps: bool,
}

/// One selector of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The metric's name, where it is written.
    pub metric: Option<String>,
    /// The selector as text.
    pub text: String,
    /// The function that takes it directly, such as `rate`.
    pub function: Option<String>,
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricType {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Anything else.
    Other,
}

/// Functions over counters.
const OF_COUNTERS: [&str; 3] = ["rate", "irate", "increase"];
/// Endings that Prometheus conventions give to counters, and to gauges.
const COUNTER_ENDINGS: [&str; 4] = ["_total", "_count", "_sum", "_bucket"];
const GAUGE_ENDINGS: [&str; 9] =
    ["_bytes", "_ratio", "_depth", "_celsius", "_current", "_available", "_size", "_percent", "_usage"];

pub(super) fn check(object: &Object, queries: &dyn Queries, report: &mut Report) {
    let (Body::ScaledObject { spec, .. } | Body::ScaledJob { spec, .. }) = &object.body else { return };
    for trigger in spec.triggers.iter().filter(|trigger| trigger.scaler == "prometheus") {
        let Some(query) = trigger.metadata.get("query") else { continue };
        let path = format!("{}.metadata.query", trigger.path);
        match queries.facts(query) {
            None => by_words(object, &path, query, report),
            Some(Err(error)) => {
                report.error(
                    "unreadable-query",
                    object,
                    &path,
                    format!("this is no PromQL: {error}"),
                    "mend the query",
                );
            }
            Some(Ok(facts)) => by_facts(object, &path, &facts, queries, report),
        }
    }
}

fn by_facts(object: &Object, path: &str, facts: &QueryFacts, queries: &dyn Queries, report: &mut Report) {
    if facts.fills_gaps {
        let why = "or vector(…) turns a gap, or a series that is gone, into a number: no error, no fallback, and it scales in";
        report.warn("gap-reads-as-zero", object, path, why, "leave it out, and write a fallback");
    }
    for selected in &facts.selectors {
        if queries.has_series(&selected.text) == Some(false) {
            let why = format!("{} matches no series", selected.text);
            report.error("missing-series", object, path, why, "mend the metric's name or its labels");
        }
        let Some(metric) = &selected.metric else { continue };
        let known = queries.type_of(metric);
        match &selected.function {
            Some(function) if OF_COUNTERS.contains(&function.as_str()) => {
                is_gauge(object, path, function, metric, known, report);
            }
            None if known == Some(MetricType::Counter) || (known.is_none() && metric.ends_with("_total")) => {
                let why = format!(
                    "{metric} counts since its process began: alone it only grows, and falls when that restarts"
                );
                report.warn("counter-without-rate", object, path, why, format!("write rate({metric}[2m])"));
            }
            _ => {}
        }
    }
}

fn is_gauge(object: &Object, path: &str, function: &str, metric: &str, known: Option<MetricType>, report: &mut Report) {
    let is_counter_by_name = COUNTER_ENDINGS.iter().any(|ending| metric.ends_with(ending));
    let is_gauge_by_name = GAUGE_ENDINGS.iter().any(|ending| metric.ends_with(ending));
    let why = match known {
        Some(MetricType::Gauge) => format!("{function}(…) is for counters, and {metric} is a gauge"),
        None if is_gauge_by_name => format!("{function}(…) is for counters, and {metric} is named like a gauge"),
        // A recorded rule has its own way to be named.
        None if !is_counter_by_name && !metric.contains(':') => {
            format!("{function}(…) is for counters, and {metric} is not named like one (_total, _count, _sum, _bucket)")
        }
        _ => return,
    };
    report.warn("rate-of-gauge", object, path, why, "use deriv() or avg_over_time() for a gauge");
}

/// Without a reader: the name that follows the function.
fn by_words(object: &Object, path: &str, query: &str, report: &mut Report) {
    for function in OF_COUNTERS {
        for (index, _) in query.match_indices(&format!("{function}(")) {
            let is_longer = query[..index].ends_with(|before: char| before.is_alphanumeric() || before == '_');
            let inside = query[index + function.len() + 1..].trim_start();
            let name: String =
                inside.chars().take_while(|next| next.is_alphanumeric() || matches!(next, '_' | ':')).collect();
            if !is_longer && GAUGE_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
                is_gauge(object, path, function, &name, None, report);
            }
        }
    }
}
