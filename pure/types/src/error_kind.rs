//! The closed set of error kinds that decides HTTP status, retry, exit code and metric label.

use std::fmt;

/// What a failure means to the caller; each crate's `Error` maps to one of these by its `kind()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request or input is wrong and will be wrong again.
    Invalid,
    /// What was named does not exist.
    NotFound,
    /// Somebody else changed it first, or the lease was lost.
    Conflict,
    /// A bound was reached; the same call may succeed later.
    Busy,
    /// A dependency did not answer.
    Unavailable,
    /// Stored bytes are not what was written.
    Corrupt,
    /// The caller went away or the process is stopping.
    Cancelled,
    /// A broken promise of our own.
    Internal,
}

impl ErrorKind {
    /// The label used in metrics and JSON: lower case, stable.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Corrupt => "corrupt",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }

    /// Whether the same call may succeed later without being changed.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Busy | Self::Unavailable)
    }

    /// The HTTP status that tells this kind.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Busy => 429,
            Self::Unavailable => 503,
            Self::Cancelled => 499,
            Self::Corrupt | Self::Internal => 500,
        }
    }

    /// The process exit code that tells this kind (0 is success, 2 is clap's usage error).
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Invalid => 3,
            Self::NotFound => 4,
            Self::Conflict => 5,
            Self::Busy => 6,
            Self::Unavailable => 7,
            Self::Corrupt => 8,
            Self::Cancelled => 9,
            Self::Internal => 1,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
