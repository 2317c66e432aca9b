//! The fleet's commands: kubectl's verbs over the HTTP API.

pub mod apply;
mod columns;
pub mod delete;
pub mod describe;
pub mod events;
pub mod explain;
pub mod get;
mod jsonpath;
pub mod logs;
mod manifest;
pub mod patch;
pub mod pause;
mod print;
pub mod scale;
pub mod top;
pub mod wait;
mod yaml;

use clap::Args;
use futures::StreamExt as _;
use http::Method;
use serde_json::Value;
use tidemill_fleet::objects::{Kind, find_kind};
use tidemill_types::ErrorKind;

use print::{print_object, print_objects, render};

use crate::cli::GlobalOptions;
use crate::client::{Remote, find_server, no_server};
use crate::error::{Error, Result};

/// In which namespace.
#[derive(Debug, Clone, Default, Args)]
pub struct NamespaceOptions {
    /// In this namespace [default: default]
    #[arg(long, short, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

impl NamespaceOptions {
    /// Its name.
    pub fn name(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }
}

/// In which namespace, or in all.
#[derive(Debug, Clone, Default, Args)]
pub struct Place {
    #[command(flatten)]
    namespace: NamespaceOptions,
    /// In all namespaces
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    all_namespaces: bool,
}

impl Place {
    fn name(&self) -> &str {
        self.namespace.name()
    }

    /// `None` for all.
    fn scope(&self) -> Option<&str> {
        (!self.all_namespaces).then(|| self.namespace.name())
    }
}

/// Runs `command` against the server that the flags name, or that runs on the data folder.
///
/// # Errors
/// `Unavailable` where there is none; the command's.
pub fn run(global: &GlobalOptions, command: impl AsyncFnOnce(Client) -> Result<()>) -> Result<()> {
    let config = global.load_config(Vec::new())?;
    super::block_on(async {
        let remote = find_server(global, &config)?.ok_or_else(no_server)?;
        command(Client { remote }).await
    })
}

/// The API of objects.
#[derive(Debug, Clone)]
pub struct Client {
    remote: Remote,
}

/// One thing that a command names.
#[derive(Debug, Clone)]
pub struct Named {
    /// Its kind.
    pub kind: &'static Kind,
    /// Its name; all of them without one.
    pub name: Option<String>,
}

/// `deploy`, `deploy/web`, `deploy web other`, `deploy,hpa`, `all`.
///
/// # Errors
/// `Invalid` for a word that is no kind.
pub fn named(words: &[String]) -> Result<Vec<Named>> {
    let Some((first, rest)) = words.split_first() else {
        return Err(Error::invalid("name a kind, as pods, deploy or all"));
    };
    if words.iter().any(|word| word.contains('/')) {
        let one = |word: &String| {
            let (kind, name) = word
                .split_once('/')
                .ok_or_else(|| Error::invalid(format!("{word:?}: with kind/name, all words are so")))?;
            Ok(Named { kind: kind_named(kind)?, name: Some(name.to_owned()) })
        };
        return words.iter().map(one).collect();
    }
    let mut kinds = Vec::new();
    for word in first.split(',') {
        if word == "all" {
            kinds.extend(tidemill_fleet::objects::KINDS.iter().filter(|kind| kind.is_in_all));
        } else {
            kinds.push(kind_named(word)?);
        }
    }
    if rest.is_empty() {
        return Ok(kinds.into_iter().map(|kind| Named { kind, name: None }).collect());
    }
    Ok(kinds.iter().flat_map(|kind| rest.iter().map(|name| Named { kind, name: Some(name.clone()) })).collect())
}

/// A kind by any word for it.
///
/// # Errors
/// `Invalid` with the kinds there are.
pub fn kind_named(word: &str) -> Result<&'static Kind> {
    find_kind(word).ok_or_else(|| {
        let known: Vec<&str> = tidemill_fleet::objects::KINDS.iter().map(|kind| kind.plural).collect();
        Error::invalid(format!("there are no objects of type {word:?}"))
            .with_hint(format!("these there are: {}", known.join(", ")))
    })
}

/// Where a kind's objects are.
fn path_of(kind: &Kind, namespace: Option<&str>, name: Option<&str>) -> String {
    let prefix = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let within = namespace
        .filter(|_| kind.is_namespaced)
        .map(|namespace| format!("/namespaces/{namespace}"))
        .unwrap_or_default();
    let name = name.map(|name| format!("/{name}")).unwrap_or_default();
    format!("{prefix}{within}/{}{name}", kind.plural)
}

impl Client {
    /// Objects of a kind as the server lists them.
    ///
    /// # Errors
    /// The server's.
    pub async fn list(&self, kind: &Kind, namespace: Option<&str>, selector: Option<&str>) -> Result<Vec<Value>> {
        let query: Vec<(&str, String)> =
            selector.map(|selector| ("labelSelector", selector.to_owned())).into_iter().collect();
        self.list_by(kind, namespace, &query).await
    }

    /// Objects of a kind by the options that lists have.
    ///
    /// # Errors
    /// The server's.
    async fn list_by(&self, kind: &Kind, namespace: Option<&str>, query: &[(&str, String)]) -> Result<Vec<Value>> {
        let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut listed = self.ask(Method::GET, &path_of(kind, namespace, None), &query, None).await?;
        let Value::Array(mut items) = listed["items"].take() else { return Err(strange()) };
        for item in &mut items {
            item["kind"] = kind.kind.into();
            item["apiVersion"] = kind.api_version().into();
        }
        Ok(items)
    }

    /// One object.
    ///
    /// # Errors
    /// `NotFound`; the server's.
    pub async fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Value> {
        self.ask(Method::GET, &path_of(kind, Some(namespace), Some(name)), &[], None).await
    }

    /// Stores images and hosts beside those that are mapped already.
    ///
    /// # Errors
    /// The server's.
    async fn merge_mapping(&self, mapping: &Value) -> Result<()> {
        let kind = kind_named("mappings")?;
        let path = path_of(kind, None, Some(text(mapping, "/metadata/name")));
        let merged = self.ask(Method::PATCH, &path, &[], Some(("application/merge-patch+json", mapping))).await;
        match merged {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let path = path_of(kind, None, None);
                self.ask(Method::POST, &path, &[], Some(("application/json", mapping))).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// Asks, with a JSON body where there is one.
    ///
    /// # Errors
    /// The server's.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<(&str, &Value)>,
    ) -> Result<Value> {
        self.send(method, path, query, body)
            .await?
            .json()
            .await
            .map_err(|error| Error::caused(ErrorKind::Unavailable, "reading the server's answer", error))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<(&str, &Value)>,
    ) -> Result<reqwest::Response> {
        let mut call = self.remote.request_to(method, path);
        call.builder = call.builder.query(query);
        if let Some((content_type, body)) = body {
            call.builder = call.builder.header("content-type", content_type).body(body.to_string());
        }
        call.send_checked().await
    }

    /// Changes of a kind's objects: the word and the object, until `each` says that it is enough.
    ///
    /// # Errors
    /// The server's, and those of `each`.
    pub async fn watch(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        query: &[(&str, &str)],
        mut each: impl FnMut(&str, &Value) -> Result<Next>,
    ) -> Result<()> {
        let mut query = query.to_vec();
        query.push(("watch", "1"));
        let response = self.send(Method::GET, &path_of(kind, namespace, None), &query, None).await?;
        let mut lines = Lines::of(response);
        while let Some(line) = lines.next().await? {
            let event: Value = serde_json::from_slice(&line).map_err(|_| strange())?;
            if each(event["type"].as_str().unwrap_or_default(), &event["object"])? == Next::Enough {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Whether a watch goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It does.
    More,
    /// It does not.
    Enough,
}

/// Lines of an answer as they come.
struct Lines {
    body: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    kept: Vec<u8>,
}

impl Lines {
    fn of(response: reqwest::Response) -> Self {
        Self { body: response.bytes_stream().boxed(), kept: Vec::new() }
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.kept.iter().position(|byte| *byte == b'\n') {
                let rest = self.kept.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.kept, rest)));
            }
            match self.body.next().await {
                Some(Ok(bytes)) => self.kept.extend_from_slice(&bytes),
                Some(Err(error)) => {
                    return Err(Error::caused(ErrorKind::Unavailable, "the server's answer broke off", error));
                }
                None if self.kept.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.kept))),
            }
        }
    }
}

fn strange() -> Error {
    Error::new(ErrorKind::Unavailable, "the server's answer is none of this API")
        .with_hint("is it tidemill that listens there?")
}

/// A duration as it is typed (`90s`, `5m`, `1h30m`, a bare number of seconds), in seconds.
fn seconds(flag: &str, text: &str) -> Result<f64> {
    let refuse = || Error::invalid(format!("{flag} {text:?}: expected a duration, as 30s, 5m or 1h30m"));
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(f64::from(seconds));
    }
    let (mut all, mut digits, mut units) = (0.0, String::new(), String::new());
    let mut add = |digits: &mut String, units: &mut String| {
        let factor = match units.as_str() {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(refuse()),
        };
        all += digits.parse::<f64>().map_err(|_| refuse())? * factor;
        digits.clear();
        units.clear();
        Ok(())
    };
    for c in text.chars() {
        if c.is_ascii_digit() || c == '.' {
            if !units.is_empty() {
                add(&mut digits, &mut units)?;
            }
            digits.push(c);
        } else {
            units.push(c);
        }
    }
    add(&mut digits, &mut units)?;
    // A year is longer than anything here is waited for or kept.
    Ok(all.min(31_536_000.0))
}

/// The text at a pointer; empty where there is none.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The whole number at a pointer; 0 where there is none.
fn whole(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// An age as kubectl writes it: `5s`, `3m20s`, `2h`, `4d3h`.
fn age_of(since: &str) -> String {
    let Ok(since) = since.parse::<jiff::Timestamp>() else { return "<unknown>".to_owned() };
    short_duration(jiff::Timestamp::now().as_second() - since.as_second())
}

/// kubectl's rule (`k8s.io/apimachinery/pkg/util/duration`): two units while the larger one is small.
fn short_duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, name: &str, small: i64, small_name: &str| {
        if small == 0 { format!("{large}{name}") } else { format!("{large}{name}{small}{small_name}") }
    };
    match seconds {
        ..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ => two(days / 365, "y", days % 365, "d"),
    }
}

/// `deployment.apps/web`
fn reference(kind: &Kind, name: &str) -> String {
    format!("{}/{name}", kind.qualified_singular())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let shown: Vec<String> =
            [0, 119, 125, 600, 10_799, 10_860, 28_800, 180_000, 800_000].into_iter().map(short_duration).collect();
        assert_eq!(shown, ["0s", "119s", "2m5s", "10m", "179m", "3h1m", "8h", "2d2h", "9d"]);
    }

    #[test]
    fn durations_are_read_as_they_are_typed() {
        for (text, wanted) in [("30", 30.0), ("1h30m", 5400.0), ("250ms", 0.25), ("1.5m", 90.0), ("0s", 0.0)] {
            assert_eq!(seconds("--timeout", text).expect("a duration"), wanted, "{text}");
        }
        for text in ["", "m", "5x", "5m5", "-1s"] {
            assert!(seconds("--timeout", text).is_err(), "{text}");
        }
    }

    #[test]
    fn things_are_named_as_kubectl_names_them() {
        let shown = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            named(&words).map(|named| {
                named.into_iter().map(|named| format!("{} {:?}", named.kind.kind, named.name)).collect::<Vec<_>>()
            })
        };
        assert_eq!(shown(&["deploy,hpa"]).expect("named"), ["Deployment None", "HorizontalPodAutoscaler None"]);
        assert_eq!(shown(&["po", "a", "b"]).expect("named"), ["Pod Some(\"a\")", "Pod Some(\"b\")"]);
        assert_eq!(shown(&["sj/x", "svc/y"]).expect("named"), ["ScaledJob Some(\"x\")", "Service Some(\"y\")"]);
        assert!(shown(&["nothing"]).is_err() && shown(&["sj/x", "y"]).is_err() && shown(&[]).is_err());
    }
}
