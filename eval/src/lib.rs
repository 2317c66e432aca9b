//! The query languages' evaluators, over columns of samples and records in memory.
//!
//! Evaluation takes a checked tree of [`tidemill_lang`] and a source of data behind a small trait, and gives series, records or the
//! reason why not; it never guesses. It knows no catalog, no object store and no DataFusion: whoever owns the data implements the trait.
//! Shared by the languages: [`Labels`], [`Matcher`], [`format_number`] and [`Error`].

mod bits;
mod error;
mod labels;
pub mod logql;
mod matcher;
mod number;
pub mod promql;
pub mod traceql;

pub use error::{Error, Result};
pub use labels::{Label, Labels, LabelsBuilder, METRIC_NAME};
pub use matcher::Matcher;
pub use number::format_number;
