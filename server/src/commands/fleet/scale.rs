//! `tidemill scale KIND/NAME --replicas N`: a size by hand.

use clap::Args;
use http::Method;
use serde_json::json;

use super::{Client, NamespaceOptions, named, path_of, reference};
use crate::error::{Error, Result};
use crate::output::{print_text, say};

/// What is scaled, and to what.
#[derive(Debug, Args)]
pub struct SizeOptions {
    /// Workloads, as deploy/web
    #[arg(value_name = "KIND NAME | KIND/NAME")]
    words: Vec<String>,
    /// Their size
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..=100_000))]
    replicas: Option<i32>,
    /// Only from this size
    #[arg(long, value_name = "NUMBER")]
    current_replicas: Option<i64>,
    #[command(flatten)]
    namespace: NamespaceOptions,
}

/// Runs it.
///
/// # Errors
/// `NotFound`; `Invalid` for what has no size; `Conflict` where the present size is another than the one named.
pub async fn run(client: Client, options: SizeOptions) -> Result<()> {
    let Some(replicas) = options.replicas else {
        return Err(Error::invalid("to which size? say --replicas NUMBER")
            .with_hint("`tidemill scale check FILE…` runs case files of decisions"));
    };
    let namespace = options.namespace.name();
    for one in named(&options.words)? {
        let Some(name) = &one.name else { return Err(Error::invalid(format!("which {}? name one", one.kind.plural))) };
        if !matches!(one.kind.kind, "Deployment" | "StatefulSet") {
            return Err(Error::invalid(format!(
                "a {} has no size; Deployments and StatefulSets have one",
                one.kind.kind
            )));
        }
        let path = format!("{}/scale", path_of(one.kind, Some(namespace), Some(name)));
        let now = client.ask(Method::GET, &path, &[], None).await?["spec"]["replicas"].as_i64().unwrap_or_default();
        if options.current_replicas.is_some_and(|expected| expected != now) {
            let message = format!(
                "{} has {now} replicas and not {}",
                reference(one.kind, name),
                options.current_replicas.unwrap_or_default()
            );
            return Err(Error::new(tidemill_types::ErrorKind::Conflict, message));
        }
        let asked = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": name, "namespace": namespace}, "spec": {"replicas": replicas}});
        client.ask(Method::PUT, &path, &[], Some(("application/json", &asked))).await?;
        print_text(&format!("{} scaled\n", reference(one.kind, name)))?;
        for kind in ["scaledobjects", "horizontalpodautoscalers"] {
            let kind = super::kind_named(kind)?;
            for object in client.list(kind, Some(namespace), None).await? {
                if object["spec"]["scaleTargetRef"]["name"] == *name.as_str() {
                    say!(
                        "{} decides about its size and may set another",
                        reference(kind, super::text(&object, "/metadata/name"))
                    );
                }
            }
        }
    }
    Ok(())
}
