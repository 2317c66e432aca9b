//! Why a source gave no value.

/// Why a source gave no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Its parameters make no sense: says which and what may stand there.
    #[error("{0}")]
    Invalid(String),
    /// It does not answer, or answers with an error.
    #[error("{0}")]
    Unavailable(String),
    /// It answered with something that is no value.
    #[error("{0}")]
    NoValue(String),
}

impl SourceError {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable(message.into())
    }

    pub(crate) fn no_value(message: impl Into<String>) -> Self {
        Self::NoValue(message.into())
    }
}
