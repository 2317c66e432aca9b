//! All sources of a process: built once for all who name the same, looked at under a limit of time.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tidemill_scaling::TimeMs;
use tidemill_scaling::keda::{Failing, TriggerReading, TriggerValue};

use crate::parameters::Parameters;
use crate::promql::Promql;
use crate::{
    Client, Observed, SourceError, aws_sqs, cron, external, kafka, metrics_api, postgresql, prometheus, pushed, redis,
    sqlite,
};

/// Types of triggers that can be observed.
pub const TYPES: [&str; 12] = [
    "aws-sqs-queue",
    "cron",
    "external",
    "external-push",
    "kafka",
    "metrics-api",
    "postgresql",
    "prometheus",
    "redis",
    "redis-streams",
    "sqlite",
    "tidemill",
];

/// What is observed: a type of KEDA's, and its resolved parameters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spec {
    /// `postgresql` …
    pub scaler: String,
    /// Its parameters.
    pub parameters: Parameters,
}

/// How sources are looked at.
#[derive(Debug, Clone, Copy)]
pub struct SourcesOptions {
    /// A look that takes longer has failed; `timeout` of a trigger's metadata replaces it.
    pub timeout: Duration,
    /// Connections to one database server.
    pub connections: usize,
}

impl Default for SourcesOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(3), connections: 4 }
    }
}

/// All sources of a process.
#[derive(Debug, Default)]
pub struct Sources {
    options: SourcesOptions,
    known: Mutex<BTreeMap<Spec, Arc<Known>>>,
    pools: Arc<postgresql::Pools>,
    pushed: pushed::Pushed,
    /// This process's own lake.
    own: OnceLock<Arc<dyn Promql>>,
    /// Who answers for metrics.
    metrics: OnceLock<Arc<dyn Promql>>,
}

#[derive(Debug)]
struct Known {
    client: Result<Box<dyn Client>, SourceError>,
    timeout: Duration,
    /// Since when every look failed.
    failing_since: Mutex<Option<Timestamp>>,
    /// One look at a time: when the last one began, and what it found. Who waited takes it if it began after they asked, and never an older one: what was read
    /// before the jobs that it is compared with makes too many, and what is pushed is news.
    looking: tokio::sync::Mutex<Option<(Timestamp, Result<Observed, SourceError>)>>,
}

impl Sources {
    /// No source yet.
    pub fn new(options: SourcesOptions) -> Self {
        Self {
            options,
            known: Mutex::default(),
            pools: Arc::new(postgresql::Pools::new(options.connections)),
            pushed: pushed::Pushed::default(),
            own: OnceLock::new(),
            metrics: OnceLock::new(),
        }
    }

    /// The values that are pushed into this process, of the type `tidemill`.
    pub fn pushed(&self) -> &pushed::Pushed {
        &self.pushed
    }

    /// Lets this process's own lake answer triggers of type `prometheus` whose address is [`crate::promql::OWN`]; the first one told stays.
    pub fn set_own(&self, lake: Arc<dyn Promql>) {
        let _ = self.own.set(lake);
    }

    /// Lets this server answer for metrics of pods, of objects and from outside, and for what replicas used; the first one told stays.
    pub fn set_metrics(&self, server: Arc<dyn Promql>) {
        let _ = self.metrics.set(server);
    }

    /// Who answers for metrics.
    pub fn metrics(&self) -> Option<Arc<dyn Promql>> {
        self.metrics.get().cloned()
    }

    /// How long a look may take that names no time of its own.
    pub fn timeout(&self) -> Duration {
        self.options.timeout
    }

    /// Looks at a source once. A failure says since when; it never delays another source.
    pub async fn reading(&self, spec: &Spec) -> TriggerReading {
        let known = self.known(spec);
        match self.look(&known).await {
            Ok(observed) => TriggerReading::Value(TriggerValue {
                value: observed.value,
                in_flight: observed.in_flight,
                is_active: observed.is_active,
                observed_at: TimeMs(observed.at.as_millisecond()),
            }),
            Err(error) => {
                let since = known.failing_since.lock().unwrap_or_else(Timestamp::now);
                TriggerReading::Failed(Failing { error: error.to_string(), since: TimeMs(since.as_millisecond()) })
            }
        }
    }

    /// Forgets the sources that `is_used` does not name, with their connections.
    pub fn retain(&self, is_used: impl Fn(&Spec) -> bool) {
        self.known.lock().retain(|spec, _| is_used(spec));
    }

    async fn look(&self, known: &Known) -> Result<Observed, SourceError> {
        let asked = Timestamp::now();
        let mut last = known.looking.lock().await;
        if let Some((at, found)) = last.as_ref()
            && *at >= asked
        {
            return found.clone();
        }
        let began = Timestamp::now();
        let found = match &known.client {
            Ok(client) => match tokio::time::timeout(known.timeout, client.observe(began)).await {
                Ok(found) => found,
                Err(_) => Err(SourceError::unavailable(format!("no answer within {} ms", known.timeout.as_millis()))),
            },
            Err(error) => Err(error.clone()),
        };
        let mut failing = known.failing_since.lock();
        match &found {
            Ok(_) => *failing = None,
            Err(_) => {
                failing.get_or_insert(asked);
            }
        }
        drop(failing);
        *last = Some((began, found.clone()));
        found
    }

    fn known(&self, spec: &Spec) -> Arc<Known> {
        let mut known = self.known.lock();
        if let Some(found) = known.get(spec) {
            return found.clone();
        }
        let timeout = spec.parameters.duration("timeout").ok().flatten().unwrap_or(self.options.timeout);
        let built = Arc::new(Known {
            client: self.build(spec, timeout),
            timeout,
            failing_since: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        });
        known.insert(spec.clone(), built.clone());
        built
    }

    fn build(&self, spec: &Spec, timeout: Duration) -> Result<Box<dyn Client>, SourceError> {
        let parameters = &spec.parameters;
        Ok(match spec.scaler.as_str() {
            "postgresql" => Box::new(postgresql::Postgresql::new(parameters, self.pools.clone(), timeout)?),
            "sqlite" => Box::new(sqlite::Sqlite::new(parameters, timeout)?),
            "prometheus" => Box::new(prometheus::Prometheus::new(parameters, self.own.get().cloned())?),
            "metrics-api" => Box::new(metrics_api::MetricsApi::new(parameters)?),
            "cron" => Box::new(cron::Cron::new(parameters)?),
            "redis" => Box::new(redis::Redis::list(parameters)?),
            "redis-streams" => Box::new(redis::Redis::stream(parameters)?),
            "kafka" => Box::new(kafka::Kafka::new(parameters)?),
            "aws-sqs-queue" => Box::new(aws_sqs::AwsSqs::new(parameters)?),
            "external" => Box::new(external::External::new(parameters, None)?),
            "external-push" => Box::new(external::External::new(parameters, Some(self.pushed.wake()))?),
            "tidemill" => Box::new(self.pushed.client(parameters.need("queue")?)),
            other => {
                return Err(SourceError::invalid(format!(
                    "triggers of type {other:?} cannot be observed here; these can: {}",
                    TYPES.join(", ")
                )));
            }
        })
    }
}
