//! Prometheus: its API, and a trigger of one instant query, KEDA's parameters and rules (`pkg/scalers/prometheus_scaler.go`'s documentation).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use crate::parameters::Parameters;
use crate::promql::{OWN, Promql, Sample, Series};
use crate::{Client, Observed, SourceError};

/// The largest answer that is read.
const MAX_BYTES: usize = 1 << 20;

/// A server of Prometheus's API.
#[derive(Debug)]
pub struct PrometheusServer {
    client: reqwest::Client,
    address: String,
    query: Vec<(String, String)>,
    headers: HeaderMap,
}

impl PrometheusServer {
    /// A server at an address, without a login but what stands in the address.
    ///
    /// # Errors
    /// An address that is none.
    pub fn at(address: &str) -> Result<Self, SourceError> {
        let mut parameters = Parameters::default();
        parameters.set("serverAddress", address);
        let _: reqwest::Url =
            address.parse().map_err(|error| SourceError::invalid(format!("{address:?} is no address: {error}")))?;
        Self::new(&parameters)
    }

    fn new(parameters: &Parameters) -> Result<Self, SourceError> {
        let mut query = Vec::new();
        query.extend(parameters.get("namespace").map(|namespace| ("namespace".to_owned(), namespace.to_owned())));
        query.extend(parameters.pairs("queryParameters")?);
        for unknown in ["awsRegion"] {
            if parameters.get(unknown).is_some() {
                return Err(SourceError::invalid(format!("{unknown}: signed requests to AWS are not supported here")));
            }
        }
        Ok(Self {
            client: client(parameters)?,
            address: format!("{}/api/v1", parameters.need("serverAddress")?.trim_end_matches('/')),
            query,
            headers: headers(parameters)?,
        })
    }

    async fn ask(&self, path: &str, query: &[(&str, String)]) -> Result<Data, SourceError> {
        let request = self.client.get(format!("{}/{path}", self.address)).query(query).query(&self.query);
        let response = request
            .headers(self.headers.clone())
            .send()
            .await
            .map_err(|error| SourceError::unavailable(format!("asking Prometheus: {}", cause(&error))))?;
        let status = response.status();
        let bytes = body(response).await?;
        let answer: Result<Answer, _> = serde_json::from_slice(&bytes);
        if !status.is_success() {
            let words = answer
                .map_or_else(|_| String::from_utf8_lossy(&bytes).chars().take(200).collect(), |answer| answer.error);
            return Err(SourceError::unavailable(format!("Prometheus answered {status}: {words}")));
        }
        let answer =
            answer.map_err(|error| SourceError::no_value(format!("the answer is none of Prometheus's: {error}")))?;
        answer
            .data
            .filter(|_| answer.status == "success")
            .ok_or_else(|| SourceError::unavailable(format!("Prometheus answered: {}", answer.error)))
    }
}

#[async_trait]
impl Promql for PrometheusServer {
    async fn instant(&self, query: &str, at: Timestamp) -> Result<Vec<Sample>, SourceError> {
        let data = self.ask("query", &[("query", query.to_owned()), ("time", at.to_string())]).await?;
        match (data.result_type.as_str(), &data.result) {
            ("scalar", sample) => {
                let (at, value) = point(sample)?;
                Ok(vec![Sample { labels: BTreeMap::new(), value, at }])
            }
            ("vector", Value::Array(items)) => items
                .iter()
                .map(|item| {
                    let (at, value) = point(item.get("value").unwrap_or(&Value::Null))?;
                    Ok(Sample { labels: labels(item), value, at })
                })
                .collect(),
            (other, _) => {
                Err(SourceError::no_value(format!("the query gave a {other}; a vector or a scalar is needed")))
            }
        }
    }

    async fn range(
        &self,
        query: &str,
        from: Timestamp,
        to: Timestamp,
        step: Duration,
    ) -> Result<Vec<Series>, SourceError> {
        let asked = [
            ("query", query.to_owned()),
            ("start", from.to_string()),
            ("end", to.to_string()),
            ("step", step.as_secs_f64().to_string()),
        ];
        let data = self.ask("query_range", &asked).await?;
        let items = data.result.as_array().map(Vec::as_slice).unwrap_or_default();
        items
            .iter()
            .map(|item| {
                let values = item.get("values").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let points: Result<Vec<_>, _> = values.iter().map(point).collect();
                Ok(Series { labels: labels(item), points: points? })
            })
            .collect()
    }
}

fn labels(item: &Value) -> BTreeMap<String, String> {
    let found = item.get("metric").and_then(Value::as_object);
    found
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// `[seconds, "value"]`
fn point(sample: &Value) -> Result<(Timestamp, f64), SourceError> {
    let text = sample.get(1).and_then(Value::as_str).unwrap_or_default();
    let value =
        text.parse().map_err(|_| SourceError::no_value(format!("the query gave {text:?}, which is no number")))?;
    let at = sample.get(0).and_then(Value::as_f64);
    let at = at.and_then(|at| Timestamp::from_millisecond((at * 1000.0).round() as i64).ok());
    let at = at.ok_or_else(|| SourceError::no_value("the query gave a value without a time"))?;
    Ok((at, value))
}

/// The trigger: one query that gives one value.
#[derive(Debug)]
pub(crate) struct Prometheus {
    server: Arc<dyn Promql>,
    query: String,
    is_gap_zero: bool,
}

impl Prometheus {
    /// A trigger; `own` answers where the address is [`OWN`].
    pub(crate) fn new(parameters: &Parameters, own: Option<Arc<dyn Promql>>) -> Result<Self, SourceError> {
        let server: Arc<dyn Promql> = match own {
            _ if parameters.need("serverAddress")? != OWN => Arc::new(PrometheusServer::new(parameters)?),
            Some(own) => own,
            None => return Err(SourceError::invalid(format!("serverAddress: {OWN:?} needs a lake in this process"))),
        };
        Ok(Self {
            server,
            query: parameters.need("query")?.to_owned(),
            is_gap_zero: parameters.flag("ignoreNullValues", true)?,
        })
    }

    fn gap(&self, what: &str, now: Timestamp) -> Result<Observed, SourceError> {
        if self.is_gap_zero {
            return Ok(Observed::new(0.0, now));
        }
        Err(SourceError::no_value(format!("{what}, and ignoreNullValues is false")))
    }
}

/// A client for one address.
pub(crate) fn client(parameters: &Parameters) -> Result<reqwest::Client, SourceError> {
    let builder = reqwest::Client::builder()
        .danger_accept_invalid_certs(parameters.flag("unsafeSsl", false)?)
        .pool_idle_timeout(Duration::from_secs(90))
        .user_agent("tidemill");
    builder.build().map_err(|error| SourceError::invalid(error.to_string()))
}

/// `customHeaders` and what `authModes` asks for.
pub(crate) fn headers(parameters: &Parameters) -> Result<HeaderMap, SourceError> {
    use std::fmt::Display;
    fn wrong(name: &str) -> impl Fn(&dyn Display) -> SourceError + '_ {
        move |error| SourceError::invalid(format!("{name}: {error}"))
    }
    let mut headers = HeaderMap::new();
    let mut set = |from: &str, name: &str, value: &str| {
        let name = HeaderName::try_from(name).map_err(|error| wrong(from)(&error))?;
        let mut value = HeaderValue::try_from(value).map_err(|error| wrong(from)(&error))?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(())
    };
    for (name, value) in parameters.pairs("customHeaders")? {
        set("customHeaders", &name, &value)?;
    }
    if let Some(organization) = parameters.get("cortexOrgID") {
        set("cortexOrgID", "X-Scope-OrgID", organization)?;
    }
    let modes = parameters.get("authModes").or_else(|| parameters.get("authMode")).unwrap_or_default();
    for mode in modes.split(',').map(str::trim).filter(|mode| !mode.is_empty()) {
        match mode {
            "bearer" => set("bearerToken", "Authorization", &format!("Bearer {}", parameters.need("bearerToken")?))?,
            "basic" => {
                let request = reqwest::Client::new()
                    .get("http://localhost")
                    .basic_auth(parameters.need("username")?, parameters.get("password"))
                    .build()
                    .map_err(|error| wrong("username")(&error))?;
                let value =
                    request.headers().get("Authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
                set("username", "Authorization", value)?;
            }
            "custom" => {
                set("customAuthHeader", parameters.need("customAuthHeader")?, parameters.need("customAuthValue")?)?
            }
            "apiKey" => {
                set("apiKey", parameters.get("keyParamName").unwrap_or("X-API-KEY"), parameters.need("apiKey")?)?
            }
            other => {
                return Err(SourceError::invalid(format!(
                    "authModes: {other:?} is none of apiKey, basic, bearer, custom"
                )));
            }
        }
    }
    Ok(headers)
}

/// The body of an answer, up to a bound.
pub(crate) async fn body(response: reqwest::Response) -> Result<Vec<u8>, SourceError> {
    use futures::StreamExt as _;
    let mut bytes = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.map_err(|error| SourceError::unavailable(cause(&error)))?);
        if bytes.len() > MAX_BYTES {
            return Err(SourceError::no_value(format!("the answer has more than {MAX_BYTES} bytes")));
        }
    }
    Ok(bytes)
}

/// The client's error with what lies below it, which is what a person can mend.
pub(crate) fn cause(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(next) = last.source() {
        last = next;
    }
    if std::ptr::addr_eq(last, error) { error.to_string() } else { format!("{error}: {last}") }
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Value,
}

#[async_trait]
impl Client for Prometheus {
    async fn observe(&self, now: Timestamp) -> Result<Observed, SourceError> {
        let samples = self.server.instant(&self.query, now).await?;
        match samples.as_slice() {
            [] => self.gap("the query gave no series", now),
            [sample] if sample.value.is_finite() => Ok(Observed::new(sample.value, sample.at)),
            [sample] => self.gap(&format!("the query gave {}", sample.value), now),
            many => {
                Err(SourceError::no_value(format!("the query gave {} series; one is needed, as by sum(…)", many.len())))
            }
        }
    }
}
