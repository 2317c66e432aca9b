//! What the queries of manifests select, and what a Prometheus knows of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use tidemill_lang::promql::{BinaryOp, Call, Expr, ExprKind, LabelMatcher, MatchOp, Selector, When, parse};
use tidemill_scaling::lint::{MetricType, Queries, QueryFacts, Selected};
use tidemill_scaling::manifest::{Body, Object};
use tidemill_types::ErrorKind;

use crate::error::{Error, Result};

/// How long one answer may take, how large it may be, and how many selectors are asked about.
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_BYTES: usize = 16 * 1024 * 1024;
const MAX_SELECTORS: usize = 1_000;

/// Facts of queries, and what a server answered about their selectors.
#[derive(Debug, Default)]
pub struct Known {
    has_series: BTreeMap<String, bool>,
    types: BTreeMap<String, MetricType>,
}

impl Queries for Known {
    fn facts(&self, query: &str) -> Option<std::result::Result<QueryFacts, String>> {
        Some(facts(query))
    }

    fn has_series(&self, selector: &str) -> Option<bool> {
        self.has_series.get(selector).copied()
    }

    fn type_of(&self, metric: &str) -> Option<MetricType> {
        self.types.get(metric).copied()
    }
}

impl Known {
    /// Of these objects; with `url` the server there is asked.
    ///
    /// # Errors
    /// `Invalid` for a URL that is none and for too many selectors; `Unavailable` when the server does not answer as Prometheus does.
    pub fn of(objects: &[Object], url: Option<&str>) -> Result<Self> {
        let Some(url) = url else { return Ok(Self::default()) };
        let selected: Vec<Selected> =
            queries(objects).filter_map(|query| facts(query).ok()).flat_map(|all| all.selectors).collect();
        let texts: BTreeSet<&str> = selected.iter().map(|one| one.text.as_str()).collect();
        let metrics: BTreeSet<&str> = selected.iter().filter_map(|one| one.metric.as_deref()).collect();
        if texts.len() > MAX_SELECTORS {
            return Err(Error::invalid(format!(
                "the queries have {} selectors; at most {MAX_SELECTORS} are asked about",
                texts.len()
            )));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::caused(ErrorKind::Internal, "the runtime", error))?;
        runtime.block_on(async {
            let server = Server::new(url)?;
            let mut known = Self::default();
            for text in texts {
                let series: Vec<serde_json::Value> = server.get("series", &[("match[]", text), ("limit", "1")]).await?;
                known.has_series.insert(text.to_owned(), !series.is_empty());
            }
            for metric in metrics {
                let told: BTreeMap<String, Vec<Metadata>> = server.get("metadata", &[("metric", metric)]).await?;
                if let Some(first) = told.get(metric).and_then(|all| all.first()) {
                    known.types.insert(metric.to_owned(), first.metric_type());
                }
            }
            Ok(known)
        })
    }
}

fn queries(objects: &[Object]) -> impl Iterator<Item = &str> {
    let specs = objects.iter().filter_map(|object| match &object.body {
        Body::ScaledObject { spec, .. } | Body::ScaledJob { spec, .. } => Some(spec),
        _ => None,
    });
    specs
        .flat_map(|spec| &spec.triggers)
        .filter(|trigger| trigger.scaler == "prometheus")
        .filter_map(|trigger| trigger.metadata.get("query").map(String::as_str))
}

fn facts(query: &str) -> std::result::Result<QueryFacts, String> {
    let expr = parse(query).map_err(|error| error.to_string())?;
    let mut facts = QueryFacts::default();
    collect(&expr, None, &mut facts);
    Ok(facts)
}

fn collect(expr: &Expr, function: Option<&str>, facts: &mut QueryFacts) {
    match &expr.kind {
        ExprKind::Vector(selector) => facts.selectors.push(selected(expr, selector, function)),
        ExprKind::Matrix(matrix) => facts.selectors.push(selected(expr, &matrix.selector, function)),
        ExprKind::Call(call) => call.args.iter().for_each(|arg| collect(arg, Some(call.function.name), facts)),
        // What a function takes, it takes through these too.
        ExprKind::Paren(_) | ExprKind::Subquery(_) => {
            expr.children().into_iter().for_each(|child| collect(child, function, facts));
        }
        ExprKind::Binary(binary) => {
            let is_vector =
                |side: &Expr| matches!(&side.kind, ExprKind::Call(Call { function, .. }) if function.name == "vector");
            facts.fills_gaps |= binary.op == BinaryOp::Or && is_vector(&binary.right);
            expr.children().into_iter().for_each(|child| collect(child, None, facts));
        }
        _ => expr.children().into_iter().for_each(|child| collect(child, None, facts)),
    }
}

/// The selector without its time.
fn selected(expr: &Expr, selector: &Selector, function: Option<&str>) -> Selected {
    let series = Selector { when: When::default(), extension: None, ..selector.clone() };
    let named = |matcher: &LabelMatcher| {
        (matcher.name == "__name__" && matcher.op == MatchOp::Equal).then(|| matcher.value.clone())
    };
    Selected {
        metric: selector.name.clone().or_else(|| selector.matchers.iter().find_map(named)),
        text: Expr { kind: ExprKind::Vector(series), span: expr.span }.to_string(),
        function: function.map(str::to_owned),
    }
}

/// A server that speaks Prometheus's API.
struct Server {
    client: reqwest::Client,
    base: String,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: Option<T>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "type")]
    name: String,
}

impl Metadata {
    fn metric_type(&self) -> MetricType {
        match self.name.as_str() {
            "counter" => MetricType::Counter,
            "gauge" => MetricType::Gauge,
            _ => MetricType::Other,
        }
    }
}

impl Server {
    fn new(url: &str) -> Result<Self> {
        let parsed = reqwest::Url::parse(url)
            .map_err(|error| Error::caused(ErrorKind::Invalid, format!("--prometheus {url:?}"), error))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(Error::invalid(format!("--prometheus {url:?}: expected http:// or https://")));
        }
        let builder = reqwest::Client::builder().timeout(TIMEOUT).tls_built_in_root_certs(parsed.scheme() == "https");
        let client = builder.build().map_err(|error| Error::caused(ErrorKind::Internal, "the HTTP client", error))?;
        Ok(Self { client, base: url.trim_end_matches('/').to_owned() })
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T> {
        let url = format!("{}/api/v1/{path}", self.base);
        let failed = |error| Error::caused(ErrorKind::Unavailable, format!("asking {url}"), error);
        let mut response = self.client.get(&url).query(query).send().await.map_err(failed)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("{url}: the answer has more than {MAX_BYTES} bytes"),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        let answer: Answer<T> = serde_json::from_slice(&body).map_err(|error| {
            Error::caused(ErrorKind::Unavailable, format!("{url}: this is no answer of Prometheus's API"), error)
        })?;
        answer.data.ok_or_else(|| {
            Error::new(
                ErrorKind::Unavailable,
                format!("{url}: {}", answer.error.unwrap_or_else(|| "no data".to_owned())),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_found_with_the_function_that_takes_them() {
        let all = facts("sum(rate(jobs_total{queue=\"a\"}[2m] offset 1h)) or vector(0)").expect("PromQL");
        assert!(all.fills_gaps);
        assert_eq!(all.selectors.len(), 1);
        let one = &all.selectors[0];
        assert_eq!((one.metric.as_deref(), one.function.as_deref()), (Some("jobs_total"), Some("rate")));
        assert_eq!(one.text, "jobs_total{queue=\"a\"}");
        let plain = facts("max by (queue) (depth) > 3").expect("PromQL");
        assert_eq!((plain.selectors[0].function.as_deref(), plain.fills_gaps), (None, false));
        assert!(facts("sum(").expect_err("no PromQL").contains("1:"), "the place is told");
    }
}
