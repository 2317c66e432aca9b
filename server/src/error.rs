//! What the binary reports: one message, its causes, a kind that decides exit code and HTTP status, and how to go on.

use std::fmt;

use tidemill_types::ErrorKind;

/// A failure as its reader sees it.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of a command or a request.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure of `kind`, told by `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// The request, flag or file is wrong and will be wrong again.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// A failure of `kind` with its cause.
    pub fn caused(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), hint: None, source: Some(source.into()) }
    }

    /// An I/O failure while doing `what`.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::AddrInUse => ErrorKind::Busy,
            std::io::ErrorKind::PermissionDenied
            | std::io::ErrorKind::InvalidInput
            | std::io::ErrorKind::AddrNotAvailable => ErrorKind::Invalid,
            _ => ErrorKind::Unavailable,
        };
        Self::caused(kind, what, source)
    }

    /// Adds what the reader can do about it.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What the failure means.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The message followed by its causes, each once.
    pub fn full_message(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let next = error.to_string();
            if !text.contains(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl From<tidemill_store::Error> for Error {
    fn from(error: tidemill_store::Error) -> Self {
        let kind = error.kind();
        Self { kind, message: error.to_string(), hint: None, source: Some(Box::new(error)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let inner = Error::invalid("port 70000 is above 65535");
        let outer = Error::caused(ErrorKind::Invalid, "config", inner);
        assert_eq!(outer.full_message(), "config: port 70000 is above 65535");
        let again = Error::caused(ErrorKind::Invalid, "config: bad", std::io::Error::other("bad"));
        assert_eq!(again.full_message(), "config: bad");
    }
}
