//! TraceQL, the language of Tempo: text becomes a checked tree ([`parse`]), and a tree becomes text again ([`print`]).
//!
//! What the language documents is read; what it does not is refused with its place. Types are checked as far as a query tells them:
//! attributes have any type. Start with [`ast`].

pub mod ast;
mod check;
mod dialect;
mod incomplete;
mod names;
mod parse;
mod parse_field;
mod parse_metrics;
pub mod print;

pub use incomplete::parse_incomplete;
pub use parse::{parse, parse_attribute};
