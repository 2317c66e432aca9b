//! `external` and `external-push`: a scaler of its own, asked over gRPC as KEDA asks it.
//!
//! A server says value and target; what is observed is how often the target goes into the value, so that the trigger's own target is 1. With several metrics
//! the largest counts, as with a horizontal autoscaler. Differs on purpose: every call has a limit of time, and a specification that cannot be had is an
//! error and not an empty one.

pub mod wire;

use std::collections::HashMap;

use async_trait::async_trait;
use http::Uri;
use http::uri::PathAndQuery;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use crate::parameters::Parameters;
use crate::tls::{self, Pem};
use crate::{Client, Observed, SourceError};
use wire::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue, SERVICE,
    ScaledObjectRef,
};

/// A longer message is refused.
const MAX_MESSAGE: usize = 1 << 20;
/// Until a stream that ended is opened again.
const REOPEN_AFTER: std::time::Duration = std::time::Duration::from_secs(5);

/// Who asks, for the server.
pub(crate) const NAME: &str = "tidemill.dev/name";
/// In which namespace.
pub(crate) const NAMESPACE: &str = "tidemill.dev/namespace";

#[derive(Debug)]
pub(crate) struct External {
    calls: Calls,
    /// Ends the stream of pushes with the client.
    _pushes: Option<DropGuard>,
}

#[derive(Debug, Clone)]
struct Calls {
    client: HttpClient<HttpsConnector<HttpConnector>, Body>,
    origin: Uri,
    reference: ScaledObjectRef,
}

impl External {
    /// A client; with `woken` it also listens to what the server pushes.
    pub(crate) fn new(parameters: &Parameters, woken: Option<watch::Sender<u64>>) -> Result<Self, SourceError> {
        let address = parameters.need("scalerAddress")?;
        if parameters.flag("unsafeSsl", false)? {
            return Err(SourceError::invalid(
                "unsafeSsl: certificates are always verified here; give `caCert` instead",
            ));
        }
        let own = parameters.get("tlsClientCert").zip(parameters.get("tlsClientKey"));
        let authority = parameters.get("caCert");
        let is_tls = parameters.flag("enableTLS", false)? || own.is_some() || authority.is_some();
        let config = tls::config(Pem { authority, own })?;
        let scheme = if is_tls { "https" } else { "http" };
        let origin: Uri = format!("{scheme}://{address}")
            .parse()
            .map_err(|error| SourceError::invalid(format!("scalerAddress: {address:?}: {error}")))?;
        let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
        let client = HttpClient::builder(TokioExecutor::new()).http2_only(true).build(connector.enable_http2().build());
        let secrets = ["caCert", "tlsClientCert", "tlsClientKey", NAME, NAMESPACE];
        let scaler_metadata: HashMap<String, String> = parameters
            .iter()
            .filter(|(name, value)| !secrets.contains(name) && !value.is_empty())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let text = |name: &str| parameters.get(name).unwrap_or_default().to_owned();
        let reference = ScaledObjectRef { name: text(NAME), namespace: text(NAMESPACE), scaler_metadata };
        let calls = Calls { client, origin, reference };
        let pushes = woken.map(|woken| {
            let stop = CancellationToken::new();
            tokio::spawn(stop.clone().run_until_cancelled_owned(listen(calls.clone(), woken)));
            stop.drop_guard()
        });
        Ok(Self { calls, _pushes: pushes })
    }
}

/// Wakes whoever scales by it whenever the server says something.
async fn listen(calls: Calls, woken: watch::Sender<u64>) {
    loop {
        if let Err(error) = calls.pushes(&woken).await {
            tracing::debug!(origin = %calls.origin, %error, "no pushes of an external scaler");
        }
        tokio::time::sleep(REOPEN_AFTER).await;
    }
}

impl Calls {
    fn grpc(&self) -> Grpc<HttpClient<HttpsConnector<HttpConnector>, Body>> {
        Grpc::with_origin(self.client.clone(), self.origin.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    async fn call<Request, Answer>(&self, method: &'static str, request: Request) -> Result<Answer, SourceError>
    where
        Request: prost::Message + Send + Sync + 'static,
        Answer: prost::Message + Default + Send + Sync + 'static,
    {
        let failed = |what: &dyn std::fmt::Display| {
            SourceError::unavailable(format!("external scaler at {}: {method}: {what}", self.origin))
        };
        let mut grpc = self.grpc();
        grpc.ready().await.map_err(|error| failed(&error))?;
        let answer = grpc.unary(tonic::Request::new(request), path(method), ProstCodec::default()).await;
        answer.map(tonic::Response::into_inner).map_err(|status| {
            let source = std::error::Error::source(&status).map(ToString::to_string).unwrap_or_default();
            failed(&format!("{}: {} {source}", status.code(), status.message()))
        })
    }

    async fn pushes(&self, woken: &watch::Sender<u64>) -> Result<(), tonic::Status> {
        let mut grpc = self.grpc();
        grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let codec: ProstCodec<ScaledObjectRef, IsActiveResponse> = ProstCodec::default();
        let request = tonic::Request::new(self.reference.clone());
        let mut stream = grpc.server_streaming(request, path("StreamIsActive"), codec).await?.into_inner();
        while stream.message().await?.is_some() {
            woken.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    async fn times_of_target(&self, spec: &MetricSpec) -> Result<f64, SourceError> {
        let target = float_or(spec.target_size_float, spec.target_size);
        if !(target.is_finite() && target > 0.0) {
            let name = &spec.metric_name;
            return Err(SourceError::no_value(format!("the external scaler's target of {name} is {target}")));
        }
        let metric_name = spec.metric_name.clone();
        let request = GetMetricsRequest { scaled_object_ref: Some(self.reference.clone()), metric_name };
        let answer: GetMetricsResponse = self.call("GetMetrics", request).await?;
        let value = answer
            .metric_values
            .first()
            .map(|value: &MetricValue| float_or(value.metric_value_float, value.metric_value));
        match value {
            Some(value) if value.is_finite() => Ok(value / target),
            _ => Err(SourceError::no_value(format!("the external scaler gave no value of {}", spec.metric_name))),
        }
    }
}

fn path(method: &str) -> PathAndQuery {
    PathAndQuery::try_from(format!("/{SERVICE}/{method}")).unwrap_or_else(|_| PathAndQuery::from_static("/"))
}

/// The float where it is set, as KEDA reads it.
fn float_or(float: f64, whole: i64) -> f64 {
    if float > 0.0 { float } else { whole as f64 }
}

#[async_trait]
impl Client for External {
    async fn observe(&self, now: Timestamp) -> Result<Observed, SourceError> {
        let calls = &self.calls;
        let specs: GetMetricSpecResponse = calls.call("GetMetricSpec", calls.reference.clone()).await?;
        if specs.metric_specs.is_empty() {
            return Err(SourceError::no_value("the external scaler names no metric"));
        }
        let mut most = 0.0_f64;
        for spec in &specs.metric_specs {
            most = most.max(calls.times_of_target(spec).await?);
        }
        let active: IsActiveResponse = calls.call("IsActive", calls.reference.clone()).await?;
        Ok(Observed { is_active: Some(active.result), ..Observed::new(most, now) })
    }
}
