//! What can go wrong in a store.

use std::io;

use tidemill_types::ErrorKind;

/// A store operation that failed; names the operation and the key it failed on.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {key}: {source}")]
pub struct Error {
    /// What was attempted: `put`, `claim`, `publish` …
    pub operation: &'static str,
    /// On what: an object key, a table, a token.
    pub key: String,
    kind: ErrorKind,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// The result of a store operation.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Wraps `source`, classified as `kind`.
    pub fn new(
        operation: &'static str,
        key: impl Into<String>,
        kind: ErrorKind,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { operation, key: key.into(), kind, source: source.into() }
    }

    /// Wraps an I/O error: a full disk is `Busy`, a missing file `NotFound`, an existing one `Conflict`, all else `Unavailable`.
    pub fn from_io(operation: &'static str, key: impl Into<String>, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => ErrorKind::NotFound,
            io::ErrorKind::AlreadyExists => ErrorKind::Conflict,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Busy,
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => ErrorKind::Invalid,
            _ => ErrorKind::Unavailable,
        };
        Self::new(operation, key, kind, source)
    }

    /// The same failure, for another caller whom it also concerns.
    pub(crate) fn again(&self) -> Self {
        Self::new(self.operation, &self.key, self.kind, self.source.to_string())
    }

    /// What the failure means to the caller.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}
