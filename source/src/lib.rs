//! What a trigger names, observed: a value with its age, or an error and since when.
//!
//! Owns: resolving a trigger's parameters, one client for each thing that is observed (shared by all who name the same), a limit of time on every look.
//! Never: deciding anything, or reading a failure as zero. Start with [`Sources::reading`].

mod aws_sqs;
mod cron;
mod error;
pub mod external;
mod kafka;
mod metrics_api;
mod parameters;
mod postgresql;
mod prometheus;
pub mod promql;
mod pushed;
mod redis;
mod sources;
mod sqlite;
mod tls;

pub use error::SourceError;
pub use parameters::{Parameters, ResolveError, resolve};
pub use prometheus::PrometheusServer;
pub use pushed::{Pushed, PushedValue};
pub use sources::{Sources, SourcesOptions, Spec, TYPES};

use async_trait::async_trait;

/// What one look found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    /// The value.
    pub value: f64,
    /// Items that are claimed and not finished, of the same snapshot; then `value` counts unclaimed items only.
    pub in_flight: Option<f64>,
    /// Whether the source says itself that it is active.
    pub is_active: Option<bool>,
    /// When the source had it.
    pub at: jiff::Timestamp,
}

impl Observed {
    /// A value that was had at `at`.
    pub fn new(value: f64, at: jiff::Timestamp) -> Self {
        Self { value, in_flight: None, is_active: None, at }
    }
}

/// A client of one source.
#[async_trait]
pub(crate) trait Client: Send + Sync + std::fmt::Debug {
    /// Looks once. Whoever calls it limits its time.
    async fn observe(&self, now: jiff::Timestamp) -> Result<Observed, SourceError>;
}
