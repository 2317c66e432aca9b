//! What can go wrong in the lake.

use std::time::Duration;

use tidemill_types::ErrorKind;

/// A failed lake operation; names the operation and what it failed on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong and will be wrong again.
    #[error("{operation}: {reason}")]
    Invalid {
        /// What was attempted.
        operation: &'static str,
        /// What is wrong, with its place.
        reason: String,
    },
    /// A bound was reached; the caller may come again after `retry_after`.
    #[error("{reason}; retry after {} s", retry_after.as_secs().max(1))]
    Busy {
        /// Which bound, and who can raise it.
        reason: String,
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// A request is larger than any that is accepted.
    #[error("{what} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit_bytes: u64,
    },
    /// A group of pushed requests could not be stored; the senders keep what they sent.
    #[error("the pushed data could not be stored: {reason}")]
    NotStored {
        /// What the failure means.
        kind: ErrorKind,
        /// What the store said.
        reason: String,
    },
    /// A store failed.
    #[error(transparent)]
    Store(#[from] tidemill_store::Error),
    /// A segment could not be read or written.
    #[error("{operation}: {source}")]
    Segment {
        /// What was attempted.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: tidemill_segment::Error,
    },
    /// A local file could not be read or written.
    #[error("{operation} {path}: {source}")]
    File {
        /// What was attempted.
        operation: &'static str,
        /// On which file.
        path: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The process is stopping, or the component has stopped.
    #[error("{0} is stopping")]
    Stopping(&'static str),
    /// A promise of our own is broken.
    #[error("{0}")]
    Internal(String),
}

/// The result of a lake operation.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What the failure means to the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } | Self::TooLarge { .. } => ErrorKind::Invalid,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::NotStored { kind, .. } => *kind,
            Self::Store(source) => source.kind(),
            Self::Segment { source, .. } => source.kind(),
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => ErrorKind::Busy,
            Self::File { .. } => ErrorKind::Unavailable,
            Self::Stopping(_) => ErrorKind::Unavailable,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// When it is worth trying again, for errors that pass by themselves.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => Some(*retry_after),
            _ if self.kind().is_retryable() => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Wraps a failure of the segment crate.
    pub(crate) fn segment(operation: &'static str) -> impl FnOnce(tidemill_segment::Error) -> Self {
        move |source| Self::Segment { operation, source }
    }

    /// Wraps a failure of a local file.
    pub(crate) fn file(operation: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::File { operation, path, source }
    }
}
