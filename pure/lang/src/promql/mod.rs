//! PromQL, as of Prometheus 3 with its experimental functions, durations, range modifiers and fill modifiers.
//!
//! [`parse`] gives a checked tree, or the first thing that is wrong with its place; printing a tree gives a text that parses to the
//! same tree. [`parse_selector`] reads what `match[]` parameters hold.

mod ast;
mod check;
mod dialect;
mod functions;
mod parse;
mod pretty;
mod print;

pub use ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Cardinality, Expr, ExprKind, Extension, LabelMatcher, Length,
    LengthKind, MatchOp, Matching, Matrix, Number, Selector, Subquery, Text, ValueType, When,
};
pub use dialect::{DIALECT, parse_duration};
pub use functions::{Arity, FUNCTIONS, Function};
pub use parse::{parse, parse_selector, parse_series};
pub use pretty::pretty;
pub use print::{format_duration, quote};

#[cfg(test)]
mod tests;
