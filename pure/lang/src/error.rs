//! Why a query was refused.

use std::fmt;

use tidemill_types::ErrorKind;

use crate::span::{Place, Span};

/// A refused query: what is wrong, where, and what would be allowed there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Why, as a class.
    pub reason: Reason,
    /// What is wrong, in words, without the place.
    pub message: String,
    /// Which bytes of the query it concerns.
    pub span: Span,
    /// Line and column of the first of them.
    pub place: Place,
    /// What could stand there instead; empty where that is no list.
    pub allowed: Vec<String>,
}

/// The classes of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The text is not of the language.
    Syntax,
    /// The text is of the language, but its parts do not fit together.
    Type,
    /// The language has it, Tidemill does not.
    Unsupported,
}

/// The result of reading a query.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A refusal of class `reason` at `span` of `source`.
    pub fn new(reason: Reason, message: impl Into<String>, span: Span, source: &str) -> Self {
        Self { reason, message: message.into(), span, place: span.place(source), allowed: Vec::new() }
    }

    /// A text that is not of the language.
    pub fn syntax(message: impl Into<String>, span: Span, source: &str) -> Self {
        Self::new(Reason::Syntax, message, span, source)
    }

    /// Parts that do not fit together.
    pub fn of_type(message: impl Into<String>, span: Span, source: &str) -> Self {
        Self::new(Reason::Type, message, span, source)
    }

    /// What the language has and Tidemill does not.
    pub fn unsupported(message: impl Into<String>, span: Span, source: &str) -> Self {
        Self::new(Reason::Unsupported, message, span, source)
    }

    /// The same refusal, telling what could stand there.
    #[must_use]
    pub fn allowing<T: Into<String>>(mut self, allowed: impl IntoIterator<Item = T>) -> Self {
        self.allowed = allowed.into_iter().map(Into::into).collect();
        self
    }

    /// What the failure means to the caller: the query will be wrong again.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.message)?;
        match self.allowed.as_slice() {
            [] => Ok(()),
            [one] => write!(formatter, "; expected {one}"),
            [rest @ .., last] => write!(formatter, "; expected {} or {last}", rest.join(", ")),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_place_and_what_is_allowed() {
        let source = "a\n+ ?";
        let error = Error::syntax("unexpected `?`", Span::new(4, 5), source);
        assert_eq!(error.to_string(), "2:3: unexpected `?`");
        assert_eq!(error.clone().allowing(["`(`"]).to_string(), "2:3: unexpected `?`; expected `(`");
        assert_eq!(error.allowing(["a", "b", "c"]).to_string(), "2:3: unexpected `?`; expected a, b or c");
    }
}
