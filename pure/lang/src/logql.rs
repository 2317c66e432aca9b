//! LogQL, the language of Loki: text becomes a checked tree ([`parse`]), and a tree becomes text again ([`print`](print::print)).
//!
//! What the language documents is read; what it does not is refused with its place. Templates, patterns, paths, addresses and regular
//! expressions inside a query are read here too, so that an evaluator meets none that is broken. Start with [`ast`].

mod address;
pub mod ast;
mod check;
mod dialect;
pub mod json_path;
mod names;
mod parse;
mod parse_pipeline;
mod parse_range;
pub mod pattern;
pub mod print;
pub mod template;

pub use address::AddressRange;
pub use parse::{parse, parse_matchers};
