//! Where a document comes from.

use std::path::Path;

/// Why a document could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The environment has no such variable.
    #[error("env:{0}: the environment variable {0} is not set")]
    NotSet(String),
    /// The environment variable holds something else than text.
    #[error("env:{0}: the environment variable {0} is not UTF-8")]
    NotText(String),
    /// The file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Reads the text behind `source`, a path or `env:NAME`.
///
/// # Errors
/// A variable that is not set, a file that cannot be read, or something that is not UTF-8.
pub fn load_text(source: &str) -> Result<String, SourceError> {
    if let Some(name) = source.strip_prefix("env:") {
        return std::env::var(name).map_err(|error| match error {
            std::env::VarError::NotPresent => SourceError::NotSet(name.to_owned()),
            std::env::VarError::NotUnicode(_) => SourceError::NotText(name.to_owned()),
        });
    }
    std::fs::read_to_string(Path::new(source))
        .map_err(|error| SourceError::File { path: source.to_owned(), source: error })
}
