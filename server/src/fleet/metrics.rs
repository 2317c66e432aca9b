//! PromQL for the fleet: over this process's own lake, or by the server that the configuration names.

use std::collections::BTreeMap;
use std::result::Result;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tidemill_eval::Labels;
use tidemill_eval::promql::{Sample as EvalSample, Value};
use tidemill_fleet::Fleet;
use tidemill_query::promql::PromqlRequest;
use tidemill_source::promql::{Promql, Sample, Series};
use tidemill_source::{PrometheusServer, SourceError};
use tidemill_types::OrganizationId;
use tokio::sync::OnceCell;

use crate::admin::Admin;
use crate::config::Config;
use crate::error::Error;
use crate::query::Queries;

/// Lets this process's lake, or the server that the configuration names, answer PromQL for the fleet.
///
/// # Errors
/// An address that is none.
pub fn answer_metrics(config: &Config, fleet: &Fleet, queries: Option<Queries>, admin: Admin) -> Result<(), Error> {
    let name = config.optional("fleet.organization").unwrap_or_default().to_owned();
    let own = queries.map(|queries| Arc::new(OwnMetrics { queries, admin, name, organization: OnceCell::new() }));
    if let Some(own) = &own {
        fleet.sources().set_own(own.clone());
    }
    match config.optional("fleet.prometheus_url") {
        Some(url) => {
            let server = PrometheusServer::at(url);
            fleet.sources().set_metrics(Arc::new(server.map_err(|error| Error::invalid(error.to_string()))?));
        }
        None => own.into_iter().for_each(|own| fleet.sources().set_metrics(own)),
    }
    Ok(())
}

/// PromQL over this process's own lake, as the organization of the fleet's replicas.
#[derive(Debug)]
struct OwnMetrics {
    queries: Queries,
    admin: Admin,
    name: String,
    organization: OnceCell<OrganizationId>,
}

impl OwnMetrics {
    async fn ask(&self, query: &str, times: (Timestamp, Timestamp), step: Duration) -> Result<Value, SourceError> {
        let organization = self.organization.get_or_try_init(async || {
            let all = self.admin.organizations().await;
            let all = all.map_err(|error| SourceError::Unavailable(error.to_string()))?;
            let found = all.into_iter().find(|organization| organization.name == self.name);
            found.map(|organization| organization.id).ok_or_else(|| {
                let name = &self.name;
                SourceError::Unavailable(format!("there is no organization {name:?} (fleet.organization)"))
            })
        });
        let request = PromqlRequest {
            query: query.to_owned(),
            start_ms: times.0.as_millisecond(),
            end_ms: times.1.as_millisecond(),
            step_ms: i64::try_from(step.as_millis()).unwrap_or(i64::MAX),
            lookback_ms: None,
        };
        let answer = self.queries.promql(*organization.await?, request, None).await;
        answer.map(|answer| answer.value).map_err(|error| SourceError::Unavailable(error.to_string()))
    }
}

fn texts(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|label| (label.name.to_string(), label.value.to_string())).collect()
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or_default()
}

#[async_trait]
impl Promql for OwnMetrics {
    async fn instant(&self, query: &str, at: Timestamp) -> Result<Vec<Sample>, SourceError> {
        match self.ask(query, (at, at), Duration::ZERO).await? {
            Value::Scalar(at, value) => Ok(vec![Sample { labels: BTreeMap::new(), value, at: time(at) }]),
            Value::Vector(all) => {
                let one = |(labels, at, sample): &(Labels, i64, EvalSample)| match sample {
                    EvalSample::Float(value) => Some(Sample { labels: texts(labels), value: *value, at: time(*at) }),
                    EvalSample::Histogram(_) => None,
                };
                Ok(all.iter().filter_map(one).collect())
            }
            Value::Text(..) | Value::Matrix(_) => {
                Err(SourceError::NoValue("the query gave neither a vector nor a scalar".to_owned()))
            }
        }
    }

    async fn range(
        &self,
        query: &str,
        from: Timestamp,
        to: Timestamp,
        step: Duration,
    ) -> Result<Vec<Series>, SourceError> {
        let Value::Matrix(all) = self.ask(query, (from, to), step).await? else {
            return Err(SourceError::NoValue("the query gave no matrix".to_owned()));
        };
        let points = |floats: &[(i64, f64)]| floats.iter().map(|(at, value)| (time(*at), *value)).collect();
        Ok(all.iter().map(|one| Series { labels: texts(&one.labels), points: points(&one.floats) }).collect())
    }
}
