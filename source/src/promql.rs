//! Who answers PromQL: a server of Prometheus's API, or this process's own lake.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::SourceError;

/// The address that means this process's own lake.
pub const OWN: &str = "tidemill";

/// A value of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its labels; none of a scalar.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
    /// When.
    pub at: Timestamp,
}

/// Values of one series by time.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Times and values, in their order.
    pub points: Vec<(Timestamp, f64)>,
}

/// Answers queries in PromQL.
#[async_trait]
pub trait Promql: Send + Sync + std::fmt::Debug {
    /// The value of each series of a vector, or one of a scalar. Whoever calls it limits its time.
    async fn instant(&self, query: &str, at: Timestamp) -> Result<Vec<Sample>, SourceError>;

    /// Values between two times.
    async fn range(
        &self,
        query: &str,
        from: Timestamp,
        to: Timestamp,
        step: Duration,
    ) -> Result<Vec<Series>, SourceError>;
}
