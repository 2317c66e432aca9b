//! What can go wrong in a query.

use std::sync::Arc;
use std::time::Duration;

use datafusion::common::DataFusionError;
use tidemill_segment::read::AttributeType;
use tidemill_types::{ErrorKind, Signal};

use crate::attributes::AttributeKey;

/// A query that failed. Cheap to clone, as one failure may end several streams.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The statement is not one that may run here.
    #[error("{problem}")]
    Statement {
        /// What is wrong, where, and what is allowed.
        problem: String,
    },
    /// The query took longer than it may.
    #[error("the query ran longer than its limit of {} s; narrow its time range or raise the limit", limit.as_secs_f64())]
    TimeLimit {
        /// The limit.
        limit: Duration,
    },
    /// The query needs more than its limits allow.
    #[error("{problem}")]
    QueryLimit {
        /// Which limit, and what to narrow.
        problem: String,
    },
    /// Too many queries run already.
    #[error("{running} queries are running already, as many as may; try again")]
    TooManyQueries {
        /// How many run.
        running: usize,
    },
    /// The metastore or a bucket failed.
    #[error(transparent)]
    Store(Arc<tidemill_store::Error>),
    /// A live segment's object is not there.
    #[error(
        "segment {object_key} of bucket {bucket} is in the catalog but its object is missing: the answer would be incomplete"
    )]
    SegmentMissing {
        /// The bucket.
        bucket: String,
        /// The object.
        object_key: String,
    },
    /// A segment's bytes are not what the catalog says.
    #[error("segment {object_key}: {problem}")]
    SegmentCorrupt {
        /// The object.
        object_key: String,
        /// What does not fit.
        problem: String,
    },
    /// The data says that attributes have other types than the plan assumed.
    #[error("{}", describe_types(types))]
    AttributeTypes {
        /// The signal whose attributes they are.
        signal: Signal,
        /// The types to plan with.
        types: Vec<(AttributeKey, AttributeType)>,
    },
    /// Planning or executing failed.
    #[error("{}", root_message(.0))]
    Engine(Arc<DataFusionError>),
    /// The process is stopping or the caller went away.
    #[error("the query was cancelled")]
    Cancelled,
}

/// The result of a query operation.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What the failure means to the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Statement { .. } | Self::QueryLimit { .. } => ErrorKind::Invalid,
            Self::TimeLimit { .. } | Self::TooManyQueries { .. } | Self::AttributeTypes { .. } => ErrorKind::Busy,
            Self::Store(error) => error.kind(),
            Self::SegmentMissing { .. } | Self::SegmentCorrupt { .. } => ErrorKind::Corrupt,
            Self::Engine(error) => engine_kind(error),
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    pub(crate) fn statement(problem: impl Into<String>) -> Self {
        Self::Statement { problem: problem.into() }
    }

    pub(crate) fn corrupt(object_key: &str, problem: impl std::fmt::Display) -> Self {
        Self::SegmentCorrupt { object_key: object_key.to_owned(), problem: problem.to_string() }
    }
}

impl From<tidemill_store::Error> for Error {
    fn from(error: tidemill_store::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<DataFusionError> for Error {
    /// Gives back an error of ours that travelled through DataFusion.
    fn from(error: DataFusionError) -> Self {
        ours(&error).cloned().unwrap_or_else(|| Self::Engine(Arc::new(error)))
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

fn ours(error: &DataFusionError) -> Option<&Error> {
    match error {
        DataFusionError::External(source) => match source.downcast_ref::<Error>() {
            Some(error) => Some(error),
            None => source.downcast_ref::<DataFusionError>().and_then(ours),
        },
        DataFusionError::ArrowError(source, _) => match source.as_ref() {
            arrow::error::ArrowError::ExternalError(inner) => inner.downcast_ref::<Error>(),
            _ => None,
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => ours(inner),
        DataFusionError::Shared(inner) => ours(inner),
        DataFusionError::Collection(errors) => errors.iter().find_map(ours),
        _ => None,
    }
}

/// What of its limits a query met, in the engine's words; `None` when it met none.
fn met_limit(error: &DataFusionError) -> Option<String> {
    match error.find_root() {
        // Below the first line are the largest consumers by names that mean nothing outside of the engine.
        DataFusionError::ResourcesExhausted(text) => {
            let text = text.lines().next().unwrap_or_default();
            Some(text.split(" with top memory consumers").next().unwrap_or_default().to_owned())
        }
        // How the limit of spilled bytes is told.
        root if root.to_string().contains("used disk space during the spilling process") => {
            Some("what it spills to disk is more than it may".to_owned())
        }
        _ => None,
    }
}

fn engine_kind(error: &DataFusionError) -> ErrorKind {
    if met_limit(error).is_some() {
        return ErrorKind::Busy;
    }
    match error.find_root() {
        DataFusionError::SQL(..)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::Execution(_)
        | DataFusionError::ArrowError(..) => ErrorKind::Invalid,
        // Found out only where a pattern is applied.
        root if ["Regular expression did not compile", "regex parse error"]
            .iter()
            .any(|problem| root.to_string().contains(problem)) =>
        {
            ErrorKind::Invalid
        }
        DataFusionError::IoError(_) => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

fn root_message(error: &DataFusionError) -> String {
    match met_limit(error) {
        Some(limit) => format!("the query needs more than its limits allow: {limit}; narrow it, or raise query.memory"),
        // Without the request to report it elsewhere.
        None => {
            let text = error.find_root().strip_backtrace();
            text.split("\nThis issue was likely").next().unwrap_or_default().to_owned()
        }
    }
}

fn describe_types(types: &[(AttributeKey, AttributeType)]) -> String {
    let names: Vec<String> =
        types.iter().map(|(key, kind)| format!("{} is {}", key.column_name(), kind_name(*kind))).collect();
    format!("the data turned out to hold other types than planned ({}); run the query again", names.join(", "))
}

fn kind_name(kind: AttributeType) -> &'static str {
    crate::attributes::type_name(kind)
}
