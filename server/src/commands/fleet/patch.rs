//! `tidemill patch`: fields of an object become others.

use std::path::PathBuf;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::{Client, NamespaceOptions, named, path_of, print_object, reference, text, yaml};
use crate::cli::GlobalOptions;
use crate::error::{Error, Result};
use crate::output::{Output, print_text};

/// Options of `patch`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill patch scaledjob batch -p '{\"spec\": {\"pollingInterval\": 5}}'
  tidemill patch deploy/web --type json -p '[{\"op\": \"replace\", \"path\": \"/spec/replicas\", \"value\": 3}]'")]
pub struct PatchOptions {
    /// A kind and names, or kind/name
    #[arg(required = true, value_name = "KIND NAME | KIND/NAME")]
    words: Vec<String>,
    /// The patch, as JSON or YAML
    #[arg(long, short = 'p', value_name = "PATCH", required_unless_present = "patch_file", allow_hyphen_values = true)]
    patch: Option<String>,
    /// A file with the patch
    #[arg(long, value_name = "FILE", conflicts_with = "patch")]
    patch_file: Option<PathBuf>,
    /// How it is merged; kinds that Kubernetes itself does not have take merge where strategic is not said
    #[arg(long = "type", value_name = "strategic|merge|json", value_parser = ["strategic", "merge", "json"])]
    kind: Option<String>,
    #[command(flatten)]
    namespace: NamespaceOptions,
}

/// Runs it.
///
/// # Errors
/// `Invalid` for a patch that cannot be read or done; `NotFound`.
pub async fn run(global: &GlobalOptions, client: Client, options: PatchOptions) -> Result<()> {
    let patch = read(&options)?;
    for one in named(&options.words)? {
        let Some(name) = &one.name else { return Err(Error::invalid(format!("which {}? name one", one.kind.plural))) };
        let is_built_in = !one.kind.group.contains('.')
            || one.kind.group.ends_with(".k8s.io") && one.kind.group != "autoscaling.k8s.io";
        let content_type = match options.kind.as_deref() {
            Some("json") => "application/json-patch+json",
            Some("strategic") => "application/strategic-merge-patch+json",
            None if is_built_in => "application/strategic-merge-patch+json",
            _ => "application/merge-patch+json",
        };
        let namespace = options.namespace.name();
        let before = client.get(one.kind, namespace, name).await?;
        let path = path_of(one.kind, Some(namespace), Some(name));
        let after = client.ask(Method::PATCH, &path, &[], Some((content_type, &patch))).await?;
        if global.output == Output::Table {
            // What others write in between is no change of this patch.
            let shown = |object: &Value| {
                [object.get("spec"), object.get("data"), object.get("metadata")]
                    .map(|part| part.cloned().map(without_version))
            };
            let is_same = shown(&before) == shown(&after) && text(&before, "/kind") == text(&after, "/kind");
            let end = if is_same { " (no change)" } else { "" };
            print_text(&format!("{} patched{end}\n", reference(one.kind, name)))?;
        } else {
            print_object(global.output, one.kind, &after)?;
        }
    }
    Ok(())
}

fn without_version(mut part: Value) -> Value {
    if let Some(members) = part.as_object_mut() {
        members.remove("resourceVersion");
    }
    part
}

fn read(options: &PatchOptions) -> Result<Value> {
    let text = match (&options.patch, &options.patch_file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => {
            std::fs::read_to_string(path).map_err(|error| Error::io(path.display().to_string(), error))?
        }
        (None, None) => return Err(Error::invalid("name a patch with -p")),
    };
    let documents =
        yaml::documents(&text).map_err(|problem| Error::invalid(format!("the patch cannot be read: {problem}")))?;
    match documents.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(Error::invalid("the patch is no single document")),
    }
}
