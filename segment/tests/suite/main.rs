//! The tests of this crate that go through its public API, in one binary.

mod merge;
mod formats;
mod frozen;
mod nezha;
mod otlp;
mod rollup;
mod support;
