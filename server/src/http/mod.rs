//! The HTTP API: SQL, administration, health, metrics.
//!
//! Owns: routes, who may call them, how answers and errors look. Never: what is answered (`Admin`, the query engine). Start with
//! [`router`].

mod administration;
mod arguments;
mod caller;
mod health;
mod load;
mod problem;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use tidemill_lake::auth::Authenticator;
use tidemill_lake::receive::Receiver;
use tidemill_lake::worker::WorkerHandle;

pub use administration::{KeysRequest, NewKeyRequest, NewOrganization, RedriveRequest, Redriven};
pub use health::Readiness;
pub use load::LoadState;
pub use problem::ProblemBody;

use crate::admin::Admin;
use crate::error::Error;

/// The largest body of an administrative request.
const MAX_BODY_BYTES: usize = 1 << 20;

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct ApiState {
    /// Administration over the metastore.
    pub admin: Admin,
    /// Who calls.
    pub authenticator: Arc<dyn Authenticator>,
    /// Whether this process is ready to serve.
    pub readiness: Readiness,
    /// The receiver's counts, where this process receives.
    pub receiver: Option<Receiver>,
    /// The worker's counts, where this process works.
    pub worker: Option<WorkerHandle>,
    /// What loading files stands on.
    pub load: LoadState,
}

/// Every route of the API that this process serves itself.
pub fn router(state: ApiState) -> Router {
    Router::new()
        .merge(administration::router())
        .merge(health::router())
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .merge(load::router())
        .with_state(state)
}

async fn not_found(uri: http::Uri) -> Error {
    Error::new(tidemill_types::ErrorKind::NotFound, format!("there is nothing at {}", uri.path()))
}
