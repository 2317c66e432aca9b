//! The one error type of this crate.

use std::io;
use std::path::PathBuf;

use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use tidemill_types::ErrorKind;

/// What this crate answers.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation on segments failed. Bad input is not an error: it is counted and explained in the report of its input.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reader of an input failed; the same input may be read again.
    #[error("read input {label}: {source}")]
    ReadInput {
        /// The input's label.
        label: String,
        /// What the reader said.
        #[source]
        source: io::Error,
    },
    /// The spool folder refused a write or a read.
    #[error("spool file {}: {source}", path.display())]
    Spool {
        /// Which file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// Writing or reading Parquet failed.
    #[error("{operation}: {source}")]
    Parquet {
        /// What was being done.
        operation: &'static str,
        /// What the Parquet library said.
        #[source]
        source: ParquetError,
    },
    /// Building or converting a batch failed.
    #[error("{operation}: {source}")]
    Arrow {
        /// What was being done.
        operation: &'static str,
        /// What Arrow said.
        #[source]
        source: ArrowError,
    },
    /// A segment does not hold what its format promises.
    #[error("segment {subject}: {problem}")]
    Corrupt {
        /// Which part or file.
        subject: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The caller asked for something that cannot be done.
    #[error("{problem}")]
    Invalid {
        /// What and why.
        problem: String,
    },
}

impl Error {
    /// The kind that decides status, retry and exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::ReadInput { .. } | Self::Spool { .. } => ErrorKind::Unavailable,
            Self::Parquet { .. } | Self::Arrow { .. } => ErrorKind::Internal,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Invalid { .. } => ErrorKind::Invalid,
        }
    }

    /// For `map_err`: a Parquet error during `operation`.
    pub(crate) fn parquet(operation: &'static str) -> impl FnOnce(ParquetError) -> Self {
        move |source| Self::Parquet { operation, source }
    }

    /// For `map_err`: an Arrow error during `operation`.
    pub(crate) fn arrow(operation: &'static str) -> impl FnOnce(ArrowError) -> Self {
        move |source| Self::Arrow { operation, source }
    }
}
