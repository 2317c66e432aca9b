//! The tests of this crate that go through its public API, in one binary.

mod formats;
mod frozen;
mod hostile;
mod merge;
mod nezha;
mod otlp;
mod rollup;
mod support;
mod trace_column;
