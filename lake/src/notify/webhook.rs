//! The webhook that receives notifications: `POST /` and `POST /api/v1/notifications`.
//!
//! A sender proves itself by an API key (in a header, as the password of the address, or as `?key=`) or, for Pub/Sub, by Google's
//! token. Success is answered only after the inbox rows are committed.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tidemill_store::metastore::KeyRole;
use tidemill_types::ErrorKind;

use super::admit::{Admitted, Admitter, Authority, Denied};
use super::event::{Content, Malformed, Notification, Source, reasons};
use super::parse::{MAX_BODY_BYTES, parse};
use super::push_token::{PushTokenVerifier, TokenError};
use super::sns::{ConfirmError, Confirmer};
use crate::auth::{AuthError, Authenticator};

/// A body comes within this time, or not at all.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Refusals listed in an answer; all are in the inbox.
const REFUSALS_ANSWERED: usize = 20;

/// What the webhook works with.
#[derive(Debug, Clone)]
pub struct WebhookDeps {
    /// Admits objects.
    pub admitter: Admitter,
    /// Knows API keys.
    pub authenticator: Arc<dyn Authenticator>,
    /// Confirms subscriptions of SNS.
    pub confirmer: Confirmer,
    /// Verifies Pub/Sub's tokens, where an operator configured them; then a Pub/Sub message without one is refused.
    pub push_tokens: Option<Arc<PushTokenVerifier>>,
}

/// The webhook's routes.
pub fn router(deps: WebhookDeps) -> Router {
    let methods = || post(receive).options(shake_hands);
    Router::new().route("/", methods()).route("/api/v1/notifications", methods()).with_state(Arc::new(deps))
}

/// What the request proved about its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Proof {
    authority: Authority,
    has_push_token: bool,
    /// The token is all there is: it speaks for Pub/Sub messages only.
    is_token_only: bool,
}

async fn receive(State(deps): State<Arc<WebhookDeps>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let proof = match authenticate(&deps, &parts.headers, &parts.uri).await {
        Ok(proof) => proof,
        Err(answer) => return answer,
    };
    let reading = tokio::time::timeout(BODY_TIME, Limited::new(body, MAX_BODY_BYTES).collect());
    let Ok(read) = reading.await else {
        let reason = format!("the body did not come within {} s", BODY_TIME.as_secs());
        return problem(StatusCode::REQUEST_TIMEOUT, reason);
    };
    let body = match read {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return problem(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {MAX_BODY_BYTES} bytes"));
        }
        Err(error) => return problem(StatusCode::BAD_REQUEST, format!("the body could not be read: {error}")),
    };
    let notification = match parse(&parts.headers, &body) {
        Ok(notification) => notification,
        Err(malformed) => {
            let answer = json!({"error": malformed.reason, "path": malformed.path});
            return refuse(&deps, &proof, parts.uri.path(), malformed.to_string(), answer).await;
        }
    };
    if notification.source == Source::PubSub && deps.push_tokens.is_some() && !proof.has_push_token {
        return problem(
            StatusCode::UNAUTHORIZED,
            "a Pub/Sub message needs the subscription's token (Authorization: Bearer)",
        );
    }
    if notification.source != Source::PubSub && proof.is_token_only {
        return problem(StatusCode::FORBIDDEN, "a Pub/Sub token speaks for Pub/Sub messages only");
    }
    take(&deps, &proof, parts.uri.path(), notification).await
}

async fn take(deps: &WebhookDeps, proof: &Proof, place: &str, notification: Notification) -> Response {
    let source = notification.source.as_str();
    match notification.content {
        Content::ValidateSubscription { code } => json_answer(StatusCode::OK, &json!({"validationResponse": code})),
        Content::ConfirmSubscription { topic, url } => match deps.confirmer.confirm(&url).await {
            Ok(()) => {
                tracing::info!(topic, "subscription confirmed");
                json_answer(StatusCode::OK, &json!({"source": source, "confirmed": topic}))
            }
            Err(ConfirmError::Refused(reason)) => {
                let answer = json!({"error": reason, "path": "SubscribeURL"});
                refuse(deps, proof, place, reason, answer).await
            }
            Err(error @ ConfirmError::Unavailable(_)) => problem(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        },
        Content::Objects { events, skipped, malformed } => {
            let admitted = match deps.admitter.admit(&events, proof.authority).await {
                Ok(admitted) => admitted,
                Err(denied) => return deny(deps, proof, place, &denied).await,
            };
            if !malformed.is_empty()
                && let Err(error) = deps.admitter.refuse(proof.authority, place, reasons(&malformed)).await
            {
                return store_problem(&error);
            }
            json_answer(StatusCode::OK, &summary(source, skipped, &malformed, &admitted))
        }
    }
}

fn summary(source: &str, skipped: usize, malformed: &[Malformed], admitted: &Admitted) -> Value {
    let objects = admitted.refused.iter();
    let objects = objects.map(|it| json!({"bucket": it.bucket, "key": it.object_key, "reason": it.reason}));
    let events = malformed.iter().map(|it| json!({"path": it.path, "reason": it.reason}));
    let refused: Vec<Value> = objects.chain(events).take(REFUSALS_ANSWERED).collect();
    json!({
        "source": source,
        "admitted": admitted.admitted,
        "known": admitted.known,
        "ignored": admitted.ignored + skipped,
        "refused": admitted.refused.len() + malformed.len(),
        "refusals": refused,
    })
}

async fn deny(deps: &WebhookDeps, proof: &Proof, place: &str, denied: &Denied) -> Response {
    match denied {
        Denied::Forbidden { .. } => {
            let recorded = deps.admitter.refuse(proof.authority, place, denied.to_string()).await;
            if let Err(error) = recorded {
                return store_problem(&error);
            }
            problem(StatusCode::FORBIDDEN, denied.to_string())
        }
        Denied::Closed(_) => problem(StatusCode::TOO_MANY_REQUESTS, denied.to_string()),
        Denied::Store(error) => store_problem(error),
    }
}

/// Records a refusal, then answers 400: the same request will be wrong again.
async fn refuse(deps: &WebhookDeps, proof: &Proof, place: &str, reason: String, answer: Value) -> Response {
    match deps.admitter.refuse(proof.authority, place, reason).await {
        Ok(()) => json_answer(StatusCode::BAD_REQUEST, &answer),
        Err(error) => store_problem(&error),
    }
}

/// The CloudEvents validation of a webhook ("HTTP 1.1 Web Hooks for Event Delivery", section 4): the sender asks by OPTIONS.
async fn shake_hands(State(deps): State<Arc<WebhookDeps>>, headers: HeaderMap, uri: Uri) -> Response {
    if let Err(answer) = authenticate(&deps, &headers, &uri).await {
        return answer;
    }
    let Some(origin) = headers.get("webhook-request-origin").cloned() else {
        return problem(StatusCode::BAD_REQUEST, "the header WebHook-Request-Origin is missing");
    };
    let mut answer = StatusCode::OK.into_response();
    answer.headers_mut().insert("webhook-allowed-origin", origin);
    answer.headers_mut().insert("webhook-allowed-rate", HeaderValue::from_static("*"));
    answer
}

async fn authenticate(deps: &WebhookDeps, headers: &HeaderMap, uri: &Uri) -> Result<Proof, Response> {
    let token = bearer(headers).filter(|text| text.split('.').count() == 3);
    let by_query = key_in_query(uri);
    let has_push_token = match (&deps.push_tokens, token) {
        (Some(verifier), Some(token)) => match verifier.verify(token).await {
            Ok(()) => true,
            // A key may look like a token; then it is for the authenticator to judge.
            Err(TokenError::Refused(reason)) if by_query.is_none() => {
                return authenticate_key(deps, headers).await.map_err(|error| refuse_token(&error, &reason));
            }
            Err(TokenError::Refused(reason)) => return Err(problem(StatusCode::UNAUTHORIZED, reason)),
            Err(error @ TokenError::Unavailable(_)) => {
                return Err(problem(StatusCode::SERVICE_UNAVAILABLE, error.to_string()));
            }
        },
        _ => false,
    };
    if let Some(key) = by_query {
        let proof = authenticate_key(deps, &key).await.map_err(|error| auth_problem(&error))?;
        return Ok(Proof { has_push_token, ..proof });
    }
    if has_push_token {
        return Ok(Proof { authority: Authority::Operator, has_push_token, is_token_only: true });
    }
    authenticate_key(deps, headers).await.map_err(|error| auth_problem(&error))
}

async fn authenticate_key(deps: &WebhookDeps, headers: &HeaderMap) -> Result<Proof, AuthError> {
    let caller = deps.authenticator.authenticate(headers).await?;
    let authority = match (caller.role, caller.organization) {
        (KeyRole::Operator, _) => Authority::Operator,
        (KeyRole::Organization, Some(organization)) => Authority::Organization(organization),
        (KeyRole::Organization, None) => {
            return Err(AuthError::Forbidden("the key belongs to no organization".to_owned()));
        }
    };
    Ok(Proof { authority, has_push_token: false, is_token_only: false })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// `?key=` of the address, as the header in which the authenticator looks: SNS, Pub/Sub and Event Grid send to a plain address.
fn key_in_query(uri: &Uri) -> Option<HeaderMap> {
    let value = uri.query()?.split('&').find_map(|pair| pair.strip_prefix("key="))?;
    let decoded = percent_decode_str(value).decode_utf8().ok()?;
    let mut headers = HeaderMap::new();
    headers.insert("api-key", HeaderValue::from_str(&decoded).ok()?);
    Some(headers)
}

fn refuse_token(error: &AuthError, reason: &str) -> Response {
    let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::UNAUTHORIZED);
    problem(status, format!("{error}, and as a Pub/Sub token it is refused: {reason}"))
}

fn auth_problem(error: &AuthError) -> Response {
    let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::UNAUTHORIZED);
    problem(status, error.to_string())
}

fn store_problem(error: &tidemill_store::Error) -> Response {
    // Whatever failed, the sender must keep the notification; most give up on other statuses than 5xx and 429.
    let status = match error.kind() {
        ErrorKind::Busy => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    problem(status, error.to_string())
}

fn problem(status: StatusCode, reason: impl Into<String>) -> Response {
    json_answer(status, &json!({"error": reason.into()}))
}

fn json_answer(status: StatusCode, body: &Value) -> Response {
    let mut answer = (status, axum::Json(body)).into_response();
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        answer.headers_mut().insert("retry-after", HeaderValue::from_static("1"));
    }
    answer
}
