//! The query languages: text becomes a checked tree, and a tree becomes text again.
//!
//! Every language has a module of its own over one [`Lexer`], one [`Span`] and one [`Error`]. What a language does not support is
//! refused here, with its place, so that evaluators only meet trees they can answer. Pure: no I/O, no clock, no data.
//! Start with the language's module, or with [`lexer`] to add a language.

mod error;
pub mod go_regex;
pub mod lexer;
pub mod logql;
pub mod promql;
mod span;
pub mod traceql;
mod whole;

pub use error::{Error, Reason, Result};
pub use lexer::{Dialect, Kind, Lexer, Nesting, Token};
pub use span::{Place, Span};
pub use whole::WholePattern;
