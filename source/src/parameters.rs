//! Parameters of a trigger: its metadata, the environment of what it scales, and its authentication.
//!
//! KEDA's rules (`pkg/scalers/scalersconfig/typed_config.go`): the first that is not blank wins, metadata before `<name>FromEnv` before authentication. Differs on
//! purpose: a variable that the container does not set is an error, because a password that is silently empty fails later and elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::SourceError;

/// Resolved parameters, by the names of KEDA's metadata.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Parameters {
    values: BTreeMap<String, String>,
}

/// Everything that is wrong with the parameters of one trigger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct ResolveError(pub Vec<String>);

/// Resolves metadata against an environment and an authentication.
///
/// # Errors
/// Every variable that is named and not set.
pub fn resolve(
    metadata: &BTreeMap<String, String>,
    env: &BTreeMap<String, String>,
    authentication: &BTreeMap<String, String>,
) -> Result<Parameters, ResolveError> {
    let mut values = authentication.clone();
    let mut problems = Vec::new();
    for (key, variable) in metadata {
        if let Some(name) = key.strip_suffix("FromEnv") {
            match env.get(variable) {
                Some(value) => {
                    values.insert(name.to_owned(), value.clone());
                }
                None if authentication.contains_key(name) => {}
                None => problems.push(format!("{key}: the container sets no variable {variable}")),
            }
        }
    }
    for (key, value) in metadata {
        if !key.ends_with("FromEnv") && !value.trim().is_empty() {
            values.insert(key.clone(), value.clone());
        }
    }
    if problems.is_empty() { Ok(Parameters { values }) } else { Err(ResolveError(problems)) }
}

impl Parameters {
    /// A parameter that is not blank.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.trim().is_empty())
    }

    /// Replaces the text of every value, as host names are mapped.
    pub fn map(mut self, change: impl Fn(&str) -> String) -> Self {
        self.values.values_mut().for_each(|value| *value = change(value));
        self
    }

    /// Every parameter.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Sets one.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.values.insert(name.to_owned(), value.into());
    }

    pub(crate) fn need(&self, name: &str) -> Result<&str, SourceError> {
        self.get(name).ok_or_else(|| {
            SourceError::invalid(format!(
                "missing required parameter {name:?} (in metadata, as {name}FromEnv, or by authentication)"
            ))
        })
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<f64>, SourceError> {
        let parse = |text: &str| {
            text.parse::<f64>()
                .ok()
                .filter(|number| number.is_finite())
                .ok_or_else(|| SourceError::invalid(format!("{name}: {text:?} is no number")))
        };
        self.get(name).map(parse).transpose()
    }

    /// Go's `ParseBool`.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, SourceError> {
        match self.get(name) {
            None => Ok(default),
            Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
            Some(other) => Err(SourceError::invalid(format!("{name}: {other:?} is neither true nor false"))),
        }
    }

    /// A Go duration, or whole milliseconds.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<Duration>, SourceError> {
        let parse = |text: &str| {
            if let Ok(ms) = text.parse::<u64>() {
                return Ok(Duration::from_millis(ms));
            }
            go_duration(text)
                .ok_or_else(|| SourceError::invalid(format!("{name}: {text:?} is no duration like 1m30s or 1500")))
        };
        self.get(name).map(parse).transpose()
    }

    /// `k=v,k=v`
    pub(crate) fn pairs(&self, name: &str) -> Result<Vec<(String, String)>, SourceError> {
        let Some(text) = self.get(name) else { return Ok(Vec::new()) };
        let pair = |part: &str| {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| SourceError::invalid(format!("{name}: {part:?} is no key=value")))?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        };
        text.split(',').map(pair).collect()
    }
}

/// `1h2m3.5s`, `300ms`
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number * seconds;
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn metadata_comes_before_the_environment_before_authentication() {
        let metadata = map(&[("host", "a"), ("passwordFromEnv", "PW"), ("userName", " ")]);
        let found = resolve(
            &metadata,
            &map(&[("PW", "secret")]),
            &map(&[("userName", "u"), ("password", "other"), ("host", "b")]),
        );
        let found = found.expect("resolved");
        assert_eq!(
            (found.get("host"), found.get("password"), found.get("userName")),
            (Some("a"), Some("secret"), Some("u"))
        );
    }

    #[test]
    fn every_variable_that_is_not_set_is_told() {
        let problems = resolve(&map(&[("aFromEnv", "A"), ("bFromEnv", "B")]), &BTreeMap::new(), &BTreeMap::new())
            .expect_err("two");
        assert_eq!(problems.0.len(), 2);
    }

    #[test]
    fn values_are_read_as_go_reads_them() {
        let parameters = resolve(
            &map(&[("a", "1m1.5s"), ("b", "250"), ("c", "T"), ("d", "yes"), ("e", "x=1, y=2"), ("f", "5 apples")]),
            &BTreeMap::new(),
            &BTreeMap::new(),
        )
        .expect("resolved");
        assert_eq!(parameters.duration("a"), Ok(Some(Duration::from_millis(61_500))));
        assert_eq!(parameters.duration("b"), Ok(Some(Duration::from_millis(250))));
        assert!(
            parameters.duration("f").is_err()
                && parameters.flag("d", false).is_err()
                && parameters.number("d").is_err()
        );
        assert_eq!(parameters.flag("c", false), Ok(true));
        assert_eq!(parameters.pairs("e"), Ok(vec![("x".to_owned(), "1".to_owned()), ("y".to_owned(), "2".to_owned())]));
    }
}
