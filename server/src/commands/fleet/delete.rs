//! `tidemill delete`: objects go, and what they own with them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::{Value, json};
use tidemill_fleet::objects::{Kind, kind_of};
use tidemill_types::ErrorKind;

use super::{Client, NamespaceOptions, named, path_of, text};
use crate::error::{Error, Result};
use crate::output::print_text;

/// How long the end of what was deleted is waited for.
const LONGEST: Duration = Duration::from_secs(300);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Options of `delete`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill delete scaledjob/batch
  tidemill delete -f manifests/
  tidemill delete jobs -l team=mill
  tidemill delete deploy --all -n shop")]
pub struct DeleteOptions {
    /// A kind and names, or kind/name
    #[arg(value_name = "KIND [NAME] | KIND/NAME")]
    words: Vec<String>,
    /// What a manifest, a folder of them or - names; repeatable
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Those whose labels match
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,
    /// All of the kind in the namespace
    #[arg(long, conflicts_with = "selector")]
    all: bool,
    /// What becomes of what it owns
    #[arg(long, value_name = "background|foreground|orphan", value_parser = ["background", "foreground", "orphan"], default_value = "background")]
    cascade: String,
    /// Seconds that a replica has to end, in place of its own
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u64>,
    /// Wait until it is gone; =false does not
    #[arg(long, value_name = "true|false", default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    wait: bool,
    /// What is not there is no error
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    namespace: NamespaceOptions,
}

/// Runs it.
///
/// # Errors
/// `NotFound`; what could not be deleted, at once.
pub async fn run(client: Client, options: DeleteOptions) -> Result<()> {
    let mut problems = Vec::new();
    let mut deleted = Vec::new();
    let mut missing = None;
    for (kind, namespace, name) in targets(&client, &options).await? {
        match delete(&client, &options, kind, &namespace, &name).await {
            Ok(uid) => {
                print_text(&format!("{} \"{name}\" deleted\n", kind.qualified_singular()))?;
                deleted.push((kind, namespace, name, uid));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if !options.ignore_not_found {
                    missing.get_or_insert(ErrorKind::NotFound);
                    problems.push(error.full_message());
                }
            }
            Err(error) => problems.push(error.full_message()),
        }
    }
    if options.wait {
        for (kind, namespace, name, uid) in &deleted {
            gone(&client, kind, namespace, name, uid).await?;
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::new(missing.unwrap_or(ErrorKind::Invalid), problems.join("\n")))
    }
}

type Target = (&'static Kind, String, String);

async fn targets(client: &Client, options: &DeleteOptions) -> Result<Vec<Target>> {
    let mut found = Vec::new();
    if !options.files.is_empty() {
        for manifest in super::manifest::read(&options.files)? {
            let object = &manifest.object;
            let (version, kind) = (text(object, "/apiVersion"), text(object, "/kind"));
            let kind = kind_of(version, kind).ok_or_else(|| {
                Error::invalid(format!("{}: no matches for kind {kind:?} in version {version:?}", manifest.file))
            })?;
            let written = text(object, "/metadata/namespace");
            let namespace = if written.is_empty() { options.namespace.name() } else { written };
            found.push((kind, namespace.to_owned(), text(object, "/metadata/name").to_owned()));
        }
        return Ok(found);
    }
    for one in named(&options.words)? {
        let namespace = options.namespace.name();
        match &one.name {
            Some(name) => found.push((one.kind, namespace.to_owned(), name.clone())),
            None if options.all || options.selector.is_some() => {
                let listed = client.list(one.kind, Some(namespace), options.selector.as_deref()).await?;
                found.extend(
                    listed
                        .iter()
                        .map(|object| (one.kind, namespace.to_owned(), text(object, "/metadata/name").to_owned())),
                );
            }
            None => {
                return Err(Error::invalid(format!(
                    "which {}? name them, or say -l SELECTOR or --all",
                    one.kind.plural
                )));
            }
        }
    }
    Ok(found)
}

async fn delete(client: &Client, options: &DeleteOptions, kind: &Kind, namespace: &str, name: &str) -> Result<String> {
    let uid = text(&client.get(kind, namespace, name).await?, "/metadata/uid").to_owned();
    let policy = match options.cascade.as_str() {
        "orphan" => "Orphan",
        "foreground" => "Foreground",
        _ => "Background",
    };
    let mut asked = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
    if let Some(seconds) = options.grace_period {
        asked["gracePeriodSeconds"] = json!(seconds);
    }
    let path = path_of(kind, Some(namespace), Some(name));
    client.ask(Method::DELETE, &path, &[], Some(("application/json", &asked))).await?;
    Ok(uid)
}

async fn gone(client: &Client, kind: &Kind, namespace: &str, name: &str, uid: &str) -> Result<()> {
    // A namespace is there as long as something is in it, and `default` always is.
    if kind.kind == "Namespace" {
        return Ok(());
    }
    let is_there = |object: &Value| {
        let has_ended = kind.kind == "Pod" && matches!(text(object, "/status/phase"), "Succeeded" | "Failed");
        text(object, "/metadata/uid") == uid && !has_ended
    };
    let until = tokio::time::Instant::now() + LONGEST;
    while tokio::time::Instant::now() < until {
        match client.get(kind, namespace, name).await {
            Ok(object) if is_there(&object) => tokio::time::sleep(LOOK_EVERY).await,
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Err(Error::new(
        ErrorKind::Busy,
        format!("{} \"{name}\" is still there after {} s", kind.qualified_singular(), LONGEST.as_secs()),
    ))
}
