//! Why an evaluation gave no answer.

use tidemill_types::ErrorKind;

/// An evaluation that gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The query is not of its language, or asks what is not supported.
    #[error("{0}")]
    Query(#[from] tidemill_lang::Error),
    /// The query met data for which it has no answer.
    #[error("{0}")]
    Data(String),
    /// The answer would pass a bound; says which.
    #[error("{0}")]
    Limit(String),
    /// The source of the data failed.
    #[error("reading {what}")]
    Source {
        /// What was read.
        what: String,
        /// What the source said means to the caller.
        kind: ErrorKind,
        /// What the source said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The caller went away, or the deadline passed.
    #[error("the query was cancelled: {0}")]
    Cancelled(String),
}

/// The result of an evaluation.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What the failure means to the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Query(_) | Self::Data(_) | Self::Limit(_) => ErrorKind::Invalid,
            Self::Source { kind, .. } => *kind,
            Self::Cancelled(_) => ErrorKind::Cancelled,
        }
    }
}
