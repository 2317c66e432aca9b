//! `tidemill logs`: what replicas print.

use clap::Args;
use http::Method;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{Client, Lines, NamespaceOptions, kind_named, text};
use crate::error::{Error, Result};
use crate::output::{Reader, print_bytes, say};

/// Logs that are followed at a time.
const MAX_FOLLOWED: usize = 50;

/// Options of `logs`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill logs web-5d4f-x2x9p
  tidemill logs -f deploy/web --tail 20
  tidemill logs job/import --timestamps
  tidemill logs -l app=web --prefix")]
pub struct LogsOptions {
    /// A pod, or kind/name of what owns one
    #[arg(value_name = "POD | KIND/NAME", required_unless_present = "selector")]
    what: Option<String>,
    /// Of all pods whose labels match
    #[arg(long, short = 'l', value_name = "SELECTOR", conflicts_with = "what")]
    selector: Option<String>,
    /// Of this container
    #[arg(long, short = 'c', value_name = "NAME")]
    container: Option<String>,
    /// Go on as lines come
    #[arg(long, short = 'f')]
    follow: bool,
    /// Of the run before this one
    #[arg(long, short = 'p')]
    previous: bool,
    /// Only the last so many lines; -1 for all [default: all, 10 with -l]
    #[arg(long, value_name = "LINES", allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Only lines of the last while, as 10m
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// A time before each line
    #[arg(long)]
    timestamps: bool,
    /// The pod before each line
    #[arg(long)]
    prefix: bool,
    #[command(flatten)]
    namespace: NamespaceOptions,
}

/// Runs it.
///
/// # Errors
/// `NotFound`; `Invalid` where a container must be named.
pub async fn run(client: Client, options: LogsOptions) -> Result<()> {
    let pods = pods(&client, &options).await?;
    if !options.follow || pods.len() == 1 {
        for pod in &pods {
            let mut lines = open(&client, &options, pod).await?;
            while let Some(line) = lines.next().await? {
                if print_bytes(&prefixed(&options, pod, line))? == Reader::Gone {
                    return Ok(());
                }
            }
        }
        return Ok(());
    }
    if pods.len() > MAX_FOLLOWED {
        return Err(Error::invalid(format!("{} logs would be followed; at most {MAX_FOLLOWED} are", pods.len())));
    }
    let (sender, mut receiver) = mpsc::channel::<Result<Vec<u8>>>(256);
    for pod in pods {
        let mut lines = open(&client, &options, &pod).await?;
        let (sender, is_prefixed) = (sender.clone(), options.prefix);
        tokio::spawn(async move {
            loop {
                let line = match lines.next().await {
                    Ok(Some(line)) => Ok(with_prefix(is_prefixed, &pod, line)),
                    Ok(None) => return,
                    Err(error) => Err(error),
                };
                let is_end = line.is_err();
                if sender.send(line).await.is_err() || is_end {
                    return;
                }
            }
        });
    }
    drop(sender);
    while let Some(line) = receiver.recv().await {
        if print_bytes(&line?)? == Reader::Gone {
            return Ok(());
        }
    }
    Ok(())
}

fn prefixed(options: &LogsOptions, pod: &str, line: Vec<u8>) -> Vec<u8> {
    with_prefix(options.prefix, pod, line)
}

fn with_prefix(is_wanted: bool, pod: &str, line: Vec<u8>) -> Vec<u8> {
    if is_wanted { [format!("[pod/{pod}] ").into_bytes(), line].concat() } else { line }
}

/// Names of the pods whose logs are meant.
async fn pods(client: &Client, options: &LogsOptions) -> Result<Vec<String>> {
    let namespace = options.namespace.name();
    let kind = kind_named("pods")?;
    let name_of = |pod: &Value| text(pod, "/metadata/name").to_owned();
    if let Some(selector) = &options.selector {
        let found = client.list(kind, Some(namespace), Some(selector)).await?;
        if found.is_empty() {
            say!("No resources found in {namespace} namespace.");
        }
        return Ok(found.iter().map(name_of).collect());
    }
    let what = options.what.as_deref().unwrap_or_default();
    let Some((owner_kind, name)) = what.split_once('/') else { return Ok(vec![what.to_owned()]) };
    let owner_kind = kind_named(owner_kind)?;
    if owner_kind.kind == "Pod" {
        return Ok(vec![name.to_owned()]);
    }
    let uid = text(&client.get(owner_kind, namespace, name).await?, "/metadata/uid").to_owned();
    let mut owners = vec![uid.clone()];
    if owner_kind.kind == "ScaledJob" {
        let jobs = client.list(kind_named("jobs")?, Some(namespace), None).await?;
        owners.extend(
            jobs.iter()
                .filter(|job| text(job, "/metadata/ownerReferences/0/uid") == uid)
                .map(|job| text(job, "/metadata/uid").to_owned()),
        );
    }
    let mut found = client.list(kind, Some(namespace), None).await?;
    found.retain(|pod| owners.iter().any(|owner| owner == text(pod, "/metadata/ownerReferences/0/uid")));
    found
        .sort_by(|one, other| text(one, "/metadata/creationTimestamp").cmp(text(other, "/metadata/creationTimestamp")));
    let Some(newest) = found.last() else {
        return Err(Error::new(tidemill_types::ErrorKind::NotFound, format!("{what} has no pods")));
    };
    if found.len() > 1 {
        say!("Found {} pods, using pod/{}", found.len(), name_of(newest));
    }
    Ok(vec![name_of(newest)])
}

async fn open(client: &Client, options: &LogsOptions, pod: &str) -> Result<Lines> {
    let mut query = Vec::new();
    query.extend(options.container.clone().map(|container| ("container", container)));
    for (name, is_set) in
        [("follow", options.follow), ("previous", options.previous), ("timestamps", options.timestamps)]
    {
        if is_set {
            query.push((name, "true".to_owned()));
        }
    }
    let tail = options.tail.or(options.selector.is_some().then_some(10)).filter(|tail| *tail >= 0);
    query.extend(tail.map(|tail| ("tailLines", tail.to_string())));
    if let Some(since) = &options.since {
        query.push(("sinceSeconds", super::seconds("--since", since)?.ceil().to_string()));
    }
    let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/log", options.namespace.name());
    Ok(Lines::of(client.send(Method::GET, &path, &query, None).await?))
}
