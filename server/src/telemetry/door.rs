//! How an export leaves: over the network, or straight into this process's own OTLP routes.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use http_body_util::BodyExt as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use parking_lot::Mutex;
use tidemill_lake::auth::{AuthError, Authenticator, Caller};
use tidemill_lake::otlp_http;
use tidemill_lake::receive::Receiver;
use tidemill_lake::worker::OWN_COLLECTOR;
use tidemill_store::metastore::KeyRole;
use tidemill_types::OrganizationId;
use tokio::runtime::Handle;
use tower::ServiceExt as _;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

/// Says that the caller is not sampled, so that a server that exports to itself does not trace its own exports.
const UNSAMPLED: &str = "00-00000000000000000000000000000001-0000000000000001-00";

/// Over the network. The exporters' threads have no runtime, so the request runs on the server's.
#[derive(Debug, Clone)]
pub struct NetworkDoor {
    client: reqwest::Client,
    runtime: Handle,
}

impl NetworkDoor {
    /// A door on `runtime`.
    pub fn new(client: reqwest::Client, runtime: Handle) -> Self {
        Self { client, runtime }
    }
}

#[async_trait]
impl HttpClient for NetworkDoor {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sending = async move {
            let mut request = reqwest::Request::try_from(request.map(reqwest::Body::from))?;
            request.headers_mut().insert("traceparent", http::HeaderValue::from_static(UNSAMPLED));
            request.headers_mut().insert("x-tidemill-collector", http::HeaderValue::from_static(OWN_COLLECTOR));
            let answer = client.execute(request).await?;
            let status = answer.status();
            let body = answer.bytes().await?;
            let mut response = Response::new(body);
            *response.status_mut() = status;
            Ok::<_, HttpError>(response)
        };
        self.runtime.spawn(sending.with_subscriber(NoSubscriber::default())).await?
    }
}

/// Into this process's own OTLP routes, for one organization; closed until they are there. Never traced.
#[derive(Clone)]
pub struct OwnDoor {
    routes: Arc<Mutex<Option<Router>>>,
    runtime: Handle,
}

impl fmt::Debug for OwnDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnDoor").field("is_open", &self.routes.lock().is_some()).finish_non_exhaustive()
    }
}

impl OwnDoor {
    /// A closed door.
    pub fn new(runtime: Handle) -> Self {
        Self { routes: Arc::default(), runtime }
    }

    /// What comes through it is `organization`'s from now on.
    pub fn open(&self, receiver: Receiver, organization: OrganizationId) {
        *self.routes.lock() = Some(otlp_http::router(receiver, Arc::new(FixedCaller(organization))));
    }

    /// Delivers a request, as a part of the trace that it is sent in.
    ///
    /// # Errors
    /// While the door is closed.
    pub async fn deliver(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let routes = self.routes.lock().clone().ok_or("the door is closed")?;
        let answer = routes.oneshot(request.map(axum::body::Body::from)).await?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }

    /// Lets the receiver go, so that it can end.
    pub fn close(&self) {
        *self.routes.lock() = None;
    }
}

#[async_trait]
impl HttpClient for OwnDoor {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let door = self.clone();
        let sending = async move { door.deliver(request).await };
        self.runtime.spawn(sending.with_subscriber(NoSubscriber::default())).await?
    }
}

/// Everyone who comes through the door is this organization.
#[derive(Debug)]
struct FixedCaller(OrganizationId);

#[async_trait]
impl Authenticator for FixedCaller {
    async fn authenticate(&self, _: &http::HeaderMap) -> Result<Caller, AuthError> {
        Ok(Caller { organization: Some(self.0), role: KeyRole::Organization })
    }
}
