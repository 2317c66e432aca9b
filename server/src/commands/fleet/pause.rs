//! `tidemill pause` and `tidemill resume`: an autoscaler rests, by KEDA's own annotation.

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::{Client, NamespaceOptions, named, path_of, reference};
use crate::error::{Error, Result};
use crate::output::print_text;

/// The annotation.
const PAUSED: &str = "autoscaling.keda.sh/paused";

/// Options of `pause` and `resume`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill pause scaledjob/postgres-batch
  tidemill resume scaledjob/postgres-batch")]
pub struct PauseOptions {
    /// ScaledObjects and ScaledJobs, as so/web
    #[arg(required = true, value_name = "KIND NAME | KIND/NAME")]
    words: Vec<String>,
    #[command(flatten)]
    namespace: NamespaceOptions,
}

/// Runs it.
///
/// # Errors
/// `Invalid` for a kind that cannot be paused; `NotFound`.
pub async fn run(client: Client, options: PauseOptions, is_paused: bool) -> Result<()> {
    for one in named(&options.words)? {
        if !matches!(one.kind.kind, "ScaledObject" | "ScaledJob") {
            return Err(Error::invalid(format!(
                "a {} cannot be paused; ScaledObjects and ScaledJobs can",
                one.kind.kind
            )));
        }
        let Some(name) = &one.name else { return Err(Error::invalid(format!("which {}? name one", one.kind.plural))) };
        let value = if is_paused { json!("true") } else { Value::Null };
        let patch = json!({"metadata": {"annotations": {PAUSED: value}}});
        let path = path_of(one.kind, Some(options.namespace.name()), Some(name));
        client.ask(Method::PATCH, &path, &[], Some(("application/merge-patch+json", &patch))).await?;
        print_text(&format!("{} {}\n", reference(one.kind, name), if is_paused { "paused" } else { "resumed" }))?;
    }
    Ok(())
}
