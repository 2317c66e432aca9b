//! What can go wrong with objects, as Kubernetes names it.

use tidemill_types::ErrorKind;

use crate::objects::{FieldProblem, ObjectKey};

/// Why a request about objects failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such object.
    #[error("{} \"{}\" not found", plural(.0), .0.name)]
    NotFound(ObjectKey),
    /// There is one already.
    #[error("{} \"{}\" already exists", plural(.0), .0.name)]
    AlreadyExists(ObjectKey),
    /// It changed in between.
    #[error("{} \"{}\": the object has been modified; read it again and apply the change to that", plural(.0), .0.name)]
    Conflict(ObjectKey),
    /// It may not be as it is.
    #[error("{}", invalid(.0, .1))]
    Invalid(ObjectKey, Vec<FieldProblem>),
    /// The request itself makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// A watch asked for changes that are no longer kept.
    #[error("changes since {0} are no longer kept; list again")]
    Gone(u64),
    /// The fleet's database.
    #[error("the fleet's database: {what}")]
    Storage {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: rusqlite::Error,
    },
    /// What runs replicas.
    #[error(transparent)]
    Runtime(#[from] crate::runtime::RuntimeError),
    /// A promise was broken.
    #[error("{0}")]
    Internal(String),
}

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn plural(key: &ObjectKey) -> String {
    crate::objects::find_kind(&key.kind).map_or_else(|| key.kind.clone(), crate::objects::Kind::qualified_plural)
}

fn invalid(key: &ObjectKey, problems: &[FieldProblem]) -> String {
    let mut text = format!("{} \"{}\" is invalid:", key.kind, key.name);
    for problem in problems {
        text.push_str(&if problem.field.is_empty() {
            format!("\n* {}", problem.message)
        } else {
            format!("\n* {}: {}", problem.field, problem.message)
        });
    }
    text
}

impl Error {
    /// Of what kind it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) | Self::Runtime(crate::runtime::RuntimeError::NotFound(_)) => ErrorKind::NotFound,
            Self::AlreadyExists(_) | Self::Conflict(_) => ErrorKind::Conflict,
            Self::Invalid(..)
            | Self::BadRequest(_)
            | Self::Gone(_)
            | Self::Runtime(crate::runtime::RuntimeError::Invalid(_)) => ErrorKind::Invalid,
            Self::Storage { .. } => ErrorKind::Unavailable,
            Self::Runtime(crate::runtime::RuntimeError::Io { .. }) | Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// The reason word of a Kubernetes `Status`, and its HTTP code.
    pub fn status(&self) -> (&'static str, u16) {
        match self {
            Self::NotFound(_) | Self::Runtime(crate::runtime::RuntimeError::NotFound(_)) => ("NotFound", 404),
            Self::AlreadyExists(_) => ("AlreadyExists", 409),
            Self::Conflict(_) => ("Conflict", 409),
            Self::Invalid(..) => ("Invalid", 422),
            Self::BadRequest(_) | Self::Runtime(crate::runtime::RuntimeError::Invalid(_)) => ("BadRequest", 400),
            Self::Gone(_) => ("Expired", 410),
            Self::Storage { .. } => ("ServiceUnavailable", 503),
            Self::Runtime(crate::runtime::RuntimeError::Io { .. }) | Self::Internal(_) => ("InternalError", 500),
        }
    }
}
