//! What can go wrong in a store.

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

    /// What the failure means to the caller.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}
