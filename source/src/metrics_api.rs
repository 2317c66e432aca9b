//! `metrics-api`: a number in the answer of an HTTP service.

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::header::HeaderMap;
use serde_json::Value;
use tidemill_scaling::quantity::parse_milli;

use crate::parameters::Parameters;
use crate::prometheus::{body, cause, client, headers};
use crate::{Client, Observed, SourceError};

#[derive(Debug)]
pub(crate) struct MetricsApi {
    client: reqwest::Client,
    url: String,
    headers: HeaderMap,
    location: Location,
}

#[derive(Debug)]
enum Location {
    /// Names and indices of a JSON document.
    Json(Vec<String>),
    /// A sample of the text format of Prometheus.
    Prometheus(String),
}

impl MetricsApi {
    pub(crate) fn new(parameters: &Parameters) -> Result<Self, SourceError> {
        let text = parameters.need("valueLocation")?;
        let location = match parameters.get("format").unwrap_or("json") {
            "json" => Location::Json(path(text)?),
            "prometheus" => Location::Prometheus(text.to_owned()),
            other => {
                return Err(SourceError::invalid(format!(
                    "format: {other:?} cannot be read here; json and prometheus can"
                )));
            }
        };
        if parameters.flag("aggregateFromKubeServiceEndpoints", false)? {
            return Err(SourceError::invalid("aggregateFromKubeServiceEndpoints: there are no cluster endpoints here"));
        }
        Ok(Self {
            client: client(parameters)?,
            url: parameters.need("url")?.to_owned(),
            headers: headers(parameters)?,
            location,
        })
    }
}

/// The part of GJSON's paths that names one value: names and indices by dots, `\.` for a dot in a name.
fn path(text: &str) -> Result<Vec<String>, SourceError> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => parts.last_mut().into_iter().for_each(|part| part.extend(characters.next())),
            '.' => parts.push(String::new()),
            '*' | '?' | '|' | '@' | '#' | '[' | '{' => {
                return Err(SourceError::invalid(format!(
                    "valueLocation: {text:?} has {c:?}; only names and indices by dots are read here"
                )));
            }
            other => parts.last_mut().into_iter().for_each(|part| part.push(other)),
        }
    }
    Ok(parts)
}

#[async_trait]
impl Client for MetricsApi {
    async fn observe(&self, now: Timestamp) -> Result<Observed, SourceError> {
        let response = self.client.get(&self.url).headers(self.headers.clone()).send().await;
        let response =
            response.map_err(|error| SourceError::unavailable(format!("asking {}: {}", self.url, cause(&error))))?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(SourceError::unavailable(format!(
                "{} answered {}; only 200 has a value",
                self.url,
                response.status()
            )));
        }
        let bytes = body(response).await?;
        let value = match &self.location {
            Location::Json(path) => json_value(&bytes, path)?,
            Location::Prometheus(sample) => prometheus_value(&String::from_utf8_lossy(&bytes), sample)?,
        };
        Ok(Observed::new(value, now))
    }
}

fn json_value(bytes: &[u8], path: &[String]) -> Result<f64, SourceError> {
    let document: Value = serde_json::from_slice(bytes)
        .map_err(|error| SourceError::no_value(format!("the answer is no JSON: {error}")))?;
    let mut value = &document;
    for name in path {
        let next = match value {
            Value::Array(items) => name.parse::<usize>().ok().and_then(|index| items.get(index)),
            other => other.get(name),
        };
        value = next.ok_or_else(|| SourceError::no_value(format!("the answer has nothing at {:?}", path.join("."))))?;
    }
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok().or_else(|| parse_milli(text).ok().map(|milli| milli as f64 / 1000.0)),
        _ => None,
    };
    number.ok_or_else(|| {
        SourceError::no_value(format!(
            "at {:?} stands {value}, which is neither a number nor a quantity",
            path.join(".")
        ))
    })
}

fn prometheus_value(text: &str, sample: &str) -> Result<f64, SourceError> {
    let found = text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let rest = line.strip_prefix(sample)?;
        let rest = if sample.contains('{') {
            rest
        } else {
            rest.find('}').map_or(rest, |end| if rest.starts_with('{') { &rest[end + 1..] } else { rest })
        };
        rest.starts_with(' ').then(|| rest.split_whitespace().next())?
    });
    let found = found.ok_or_else(|| SourceError::no_value(format!("the answer has no sample {sample:?}")))?;
    found.parse().map_err(|_| SourceError::no_value(format!("{sample}: {found:?} is no number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_path() {
        let found = |text: &str, location: &str| json_value(text.as_bytes(), &path(location).expect("a path"));
        assert_eq!(found(r#"{"a":[{"b.c":3},{"b.c":"1500m"}]}"#, r"a.1.b\.c"), Ok(1.5));
        assert!(found(r#"{"a":{}}"#, "a").is_err() && found("{}", "a.b").is_err() && found("<", "a").is_err());
        assert!(path("a.#").is_err());
    }

    #[test]
    fn a_sample_is_found_with_and_without_labels() {
        let text = "# HELP x\nxy 9\nx{a=\"b\"} 3 1700000000\ny 4\n";
        assert_eq!(prometheus_value(text, "x"), Ok(3.0));
        assert_eq!(prometheus_value(text, "x{a=\"b\"}"), Ok(3.0));
        assert_eq!(prometheus_value(text, "y"), Ok(4.0));
        assert!(prometheus_value(text, "z").is_err());
    }
}
