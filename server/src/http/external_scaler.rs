//! KEDA's external scaler over gRPC: the backlog of this installation's own queue, and the metrics that its fleet publishes, for a KEDA that is already there.
//!
//! KEDA sends no header, so where keys are needed the trigger's metadata has one (`apiKey`, or `apiKeyFromEnv` with the name of a variable of the workload).
//! A value that fails or is too old is an error and never inactive; what is measured, and its target, is metadata alone and so never fails with its source.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response};
use axum::routing::post;
use futures::{Stream, StreamExt as _};
use tidemill_fleet::Fleet;
use tidemill_fleet::objects::LabelSelector;
use tidemill_lake::auth::Authenticator as _;
use tidemill_scaling::keda::TriggerReading;
use tidemill_source::external::wire::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec, MetricValue, SERVICE,
    ScaledObjectRef,
};
use tidemill_source::{Spec, resolve};
use tidemill_store::metastore::KeyRole;
use tonic::Status;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;

use super::ApiState;

/// A longer message is refused.
const MAX_MESSAGE: usize = 64 * 1024;
/// A pushed answer is told again after this long, so that a connection that is dead is noticed.
const REPEAT: Duration = Duration::from_secs(10);
/// A value that is older is none, unless the trigger says another `maxAge`.
const MAX_AGE_S: f64 = 60.0;

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The five calls.
pub fn router() -> Router<ApiState> {
    let path = |method: &str| format!("/{SERVICE}/{method}");
    Router::new()
        .route(&path("IsActive"), post(is_active))
        .route(&path("GetMetricSpec"), post(metric_spec))
        .route(&path("GetMetrics"), post(metrics))
        .route(&path("StreamIsActive"), post(stream_is_active))
        .route(&path("StreamMetricSpec"), post(stream_metric_spec))
}

/// What a trigger asks for.
#[derive(Debug, Clone, PartialEq)]
struct Asked {
    what: What,
    target: f64,
    activation: f64,
    max_age_s: f64,
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    /// A queue of this installation: `ingest`, `logs/ingest` …
    Queue(String),
    /// A published metric.
    Published { namespace: String, name: String, labels: String },
}

impl Asked {
    fn read(reference: &ScaledObjectRef) -> Result<Self, Status> {
        let metadata = &reference.scaler_metadata;
        let text = |name: &str| metadata.get(name).map(|text| text.trim()).filter(|text| !text.is_empty());
        let number = |name: &str, default: f64, is_good: fn(f64) -> bool| match text(name) {
            None => Ok(default),
            Some(found) => {
                found.parse().ok().filter(|number: &f64| number.is_finite() && is_good(*number)).ok_or_else(|| {
                    Status::invalid_argument(format!("{name}: {found:?} is no number that may stand here"))
                })
            }
        };
        let what = match (text("queue"), text("metric")) {
            (Some(queue), None) => What::Queue(queue.to_owned()),
            (None, Some(name)) => What::Published {
                namespace: text("namespace").unwrap_or(&reference.namespace).to_owned(),
                name: name.to_owned(),
                labels: text("labels").unwrap_or_default().to_owned(),
            },
            _ => {
                return Err(Status::invalid_argument(
                    "the trigger's metadata needs either queue, as logs/ingest, or metric, as an ExternalMetric publishes it",
                ));
            }
        };
        Ok(Self {
            what,
            target: number("itemsPerReplica", 1.0, |target| target > 0.0)?,
            activation: number("activationItems", 0.0, |_| true)?,
            max_age_s: number("maxAge", MAX_AGE_S, |age| age > 0.0)?,
        })
    }

    fn metric_name(&self) -> String {
        let name = match &self.what {
            What::Queue(queue) => format!("tidemill-{queue}"),
            What::Published { name, .. } => name.clone(),
        };
        name.replace(['/', '.', ':', '%', '(', ')'], "-")
    }

    /// The value now.
    async fn value(&self, fleet: &Fleet) -> Result<f64, Status> {
        let (value, at_ms) = match &self.what {
            What::Queue(queue) => {
                let metadata = [("queue".to_owned(), queue.clone())].into();
                let parameters = resolve(&metadata, &Default::default(), &Default::default());
                let parameters = parameters.map_err(|error| Status::invalid_argument(error.to_string()))?;
                match fleet.sources().reading(&Spec { scaler: "tidemill".to_owned(), parameters }).await {
                    // KEDA counts what is claimed too: a replica that works is not taken away.
                    TriggerReading::Value(value) => {
                        (value.value + value.in_flight.unwrap_or_default(), value.observed_at.0)
                    }
                    TriggerReading::Failed(failing) => return Err(Status::unavailable(failing.error)),
                    TriggerReading::Usage(_) | TriggerReading::NotAsked => return Err(Status::internal("no value")),
                }
            }
            What::Published { namespace, name, labels } => {
                let selector = LabelSelector::parse(labels);
                let selector = selector.map_err(|error| Status::invalid_argument(error.to_string()))?;
                let values = fleet.published(namespace, name, &selector).await.map_err(Status::unavailable)?;
                let at = values.iter().map(|(_, at)| at.0).min().unwrap_or_default();
                (values.iter().map(|(value, _)| value).sum(), at)
            }
        };
        let age_s = (jiff::Timestamp::now().as_millisecond() - at_ms) as f64 / 1000.0;
        if age_s > self.max_age_s {
            return Err(Status::unavailable(format!(
                "the last value of {} is {age_s:.0} s old; maxAge is {} s",
                self.metric_name(),
                self.max_age_s
            )));
        }
        Ok(value)
    }
}

/// The fleet, for whoever may ask it.
async fn admit(state: &ApiState, headers: &HeaderMap, metadata: &HashMap<String, String>) -> Result<Fleet, Status> {
    let mut headers = headers.clone();
    if let Some(key) = metadata.get("apiKey").or_else(|| metadata.get("apiKeyFromEnv")) {
        let key = key.parse().map_err(|_| Status::unauthenticated("apiKey: no key looks so"))?;
        headers.insert("x-api-key", key);
    }
    let caller = state.authenticator.authenticate(&headers).await;
    match caller.map_err(|error| Status::unauthenticated(error.to_string()))?.role {
        KeyRole::Operator => {}
        KeyRole::Organization => return Err(Status::permission_denied("this needs an operator's key")),
    }
    state.fleet.clone().ok_or_else(|| Status::unavailable("this process runs no fleet; ask `tidemill up`"))
}

/// Answers one call.
async fn unary<Asks, Answers, Work>(
    state: ApiState,
    request: Request,
    work: impl Fn(ApiState, HeaderMap, Asks) -> Work + Send + Sync + 'static,
) -> Response<Body>
where
    Asks: prost::Message + Default + Send + 'static,
    Answers: prost::Message + Default + Send + 'static,
    Work: Future<Output = Result<Answers, Status>> + Send + 'static,
{
    let headers = request.headers().clone();
    let service = tower::service_fn(move |request: tonic::Request<Asks>| {
        let answer = work(state.clone(), headers.clone(), request.into_inner());
        async move { answer.await.map(tonic::Response::new) }
    });
    let codec: ProstCodec<Answers, Asks> = ProstCodec::default();
    let answer = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE).unary(service, request).await;
    answer.map(Body::new)
}

/// Answers one call with a stream.
async fn streaming<Answers, Work>(
    state: ApiState,
    request: Request,
    work: impl Fn(ApiState, HeaderMap, ScaledObjectRef) -> Work + Send + Sync + 'static,
) -> Response<Body>
where
    Answers: prost::Message + Default + Send + 'static,
    Work: Future<Output = Result<Messages<Answers>, Status>> + Send + 'static,
{
    let headers = request.headers().clone();
    let service = tower::service_fn(move |request: tonic::Request<ScaledObjectRef>| {
        let answer = work(state.clone(), headers.clone(), request.into_inner());
        async move { answer.await.map(tonic::Response::new) }
    });
    let codec: ProstCodec<Answers, ScaledObjectRef> = ProstCodec::default();
    let answer = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE).server_streaming(service, request).await;
    answer.map(Body::new)
}

async fn is_active(State(state): State<ApiState>, request: Request) -> Response<Body> {
    unary(state, request, async |state, headers, reference: ScaledObjectRef| {
        let fleet = admit(&state, &headers, &reference.scaler_metadata).await?;
        let asked = Asked::read(&reference)?;
        Ok(IsActiveResponse { result: asked.value(&fleet).await? > asked.activation })
    })
    .await
}

async fn metric_spec(State(state): State<ApiState>, request: Request) -> Response<Body> {
    unary(state, request, async |state, headers, reference: ScaledObjectRef| {
        admit(&state, &headers, &reference.scaler_metadata).await?;
        Ok(spec(&Asked::read(&reference)?))
    })
    .await
}

fn spec(asked: &Asked) -> GetMetricSpecResponse {
    let target_size = (asked.target.ceil() as i64).max(1);
    let metric = MetricSpec { metric_name: asked.metric_name(), target_size, target_size_float: asked.target };
    GetMetricSpecResponse { metric_specs: vec![metric] }
}

async fn metrics(State(state): State<ApiState>, request: Request) -> Response<Body> {
    unary(state, request, async |state, headers, request: GetMetricsRequest| {
        let reference = request.scaled_object_ref.unwrap_or_default();
        let fleet = admit(&state, &headers, &reference.scaler_metadata).await?;
        let asked = Asked::read(&reference)?;
        let name = asked.metric_name();
        if !request.metric_name.is_empty() && request.metric_name != name {
            let message = format!("there is no metric {:?} of this trigger; it is {name:?}", request.metric_name);
            return Err(Status::not_found(message));
        }
        let value = asked.value(&fleet).await?;
        let metric = MetricValue { metric_name: name, metric_value: value.ceil() as i64, metric_value_float: value };
        Ok(GetMetricsResponse { metric_values: vec![metric] })
    })
    .await
}

/// Says whether it is active, at once, when it changes, and again and again; ends with the error when it cannot be known.
async fn stream_is_active(State(state): State<ApiState>, request: Request) -> Response<Body> {
    streaming(state, request, async |state, headers, reference| {
        let fleet = admit(&state, &headers, &reference.scaler_metadata).await?;
        let asked = Asked::read(&reference)?;
        let changes = fleet.sources().pushed().changes();
        let begin = (fleet, asked, changes, None::<bool>, tokio::time::Instant::now());
        let messages = futures::stream::unfold(Some(begin), async |begin| {
            let (fleet, asked, mut changes, mut told, mut due) = begin?;
            loop {
                changes.borrow_and_update();
                let is_active = match asked.value(&fleet).await {
                    Ok(value) => value > asked.activation,
                    Err(status) => return Some((Err(status), None)),
                };
                let now = tokio::time::Instant::now();
                if told != Some(is_active) || now >= due {
                    (told, due) = (Some(is_active), now + REPEAT);
                    let next = (fleet, asked, changes, told, due);
                    return Some((Ok(IsActiveResponse { result: is_active }), Some(next)));
                }
                tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    changed = changes.changed() => if changed.is_err() { return None },
                }
            }
        });
        Ok(Box::pin(messages) as Messages<IsActiveResponse>)
    })
    .await
}

/// Says it once, because metadata does not change while a stream lives.
async fn stream_metric_spec(State(state): State<ApiState>, request: Request) -> Response<Body> {
    streaming(state, request, async |state, headers, reference| {
        admit(&state, &headers, &reference.scaler_metadata).await?;
        let spec = spec(&Asked::read(&reference)?);
        let once = futures::stream::once(async { Ok(spec) }).chain(futures::stream::pending());
        Ok(Box::pin(once) as Messages<GetMetricSpecResponse>)
    })
    .await
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn asked(metadata: &[(&str, &str)]) -> Result<Asked, Status> {
        let scaler_metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Asked::read(&ScaledObjectRef { name: "web".to_owned(), namespace: "shop".to_owned(), scaler_metadata })
    }

    #[test]
    fn metadata_says_what_is_measured_and_its_target() {
        let queue = asked(&[("queue", "logs/ingest"), ("itemsPerReplica", "2.5")]).expect("a queue");
        let metric = &spec(&queue).metric_specs[0];
        assert_eq!((metric.metric_name.as_str(), metric.target_size_float), ("tidemill-logs-ingest", 2.5));
        let published = asked(&[("metric", "depth"), ("labels", "queue=default")]).expect("a metric");
        assert!(matches!(published.what, What::Published { ref namespace, .. } if namespace == "shop"));
        for wrong in [&[][..], &[("queue", "a"), ("metric", "b")], &[("queue", "a"), ("itemsPerReplica", "0")]] {
            assert_eq!(asked(wrong).map_err(|status| status.code()), Err(Code::InvalidArgument));
        }
    }
}
