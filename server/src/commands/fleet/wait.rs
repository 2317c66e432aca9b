//! `tidemill wait`: until objects are as told.

use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tidemill_types::ErrorKind;

use super::jsonpath::Template;
use super::{Client, NamespaceOptions, columns, named, reference, text};
use crate::error::{Error, Result};
use crate::output::print_text;

/// How often an object is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Options of `wait`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill wait --for=condition=complete job/import --timeout=5m
  tidemill wait --for=condition=Ready=False so/web
  tidemill wait --for=jsonpath='{.status.readyReplicas}'=3 deploy/web
  tidemill wait --for=delete pod/web-1")]
pub struct WaitOptions {
    /// A kind and names, or kind/name
    #[arg(required = true, value_name = "KIND [NAME] | KIND/NAME")]
    words: Vec<String>,
    /// What is waited for: condition=NAME[=STATUS], jsonpath=PATH=VALUE, create or delete
    #[arg(long = "for", value_name = "WHAT")]
    what: String,
    /// How long; 0s looks once
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    timeout: String,
    /// Those whose labels match
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,
    #[command(flatten)]
    namespace: NamespaceOptions,
}

enum What {
    Condition(String, String),
    Path(Template, Option<String>),
    Create,
    Delete,
}

/// Runs it.
///
/// # Errors
/// `Invalid` for what cannot be waited for; `NotFound`; an error with exit code 1 when the time is over.
pub async fn run(client: Client, options: WaitOptions) -> Result<()> {
    let what = read(&options.what)?;
    let until = tokio::time::Instant::now() + Duration::from_secs_f64(super::seconds("--timeout", &options.timeout)?);
    let namespace = options.namespace.name();
    let mut all = Vec::new();
    for one in named(&options.words)? {
        match one.name {
            Some(name) => all.push((one.kind, name)),
            None => {
                let listed = client.list(one.kind, Some(namespace), options.selector.as_deref()).await?;
                all.extend(listed.iter().map(|object| (one.kind, text(object, "/metadata/name").to_owned())));
            }
        }
    }
    if all.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, "no matching resources found"));
    }
    for (kind, name) in all {
        loop {
            let found = match client.get(kind, namespace, &name).await {
                Ok(object) => Some(object),
                Err(error) if error.kind() == ErrorKind::NotFound && matches!(what, What::Delete | What::Create) => {
                    None
                }
                Err(error) => return Err(error),
            };
            if holds(&what, found.as_ref()) {
                let done = if matches!(what, What::Delete) { "deleted" } else { "condition met" };
                print_text(&format!("{} {done}\n", reference(kind, &name)))?;
                break;
            }
            if tokio::time::Instant::now() >= until {
                let message = format!("timed out waiting for {} on {}", options.what, reference(kind, &name));
                // kubectl's exit code, by which scripts tell it from success.
                return Err(Error::new(ErrorKind::Internal, message));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

fn read(text: &str) -> Result<What> {
    let refuse = |why: &str| {
        Error::invalid(format!("--for={text}: {why}"))
            .with_hint("expected condition=NAME[=STATUS], jsonpath=PATH[=VALUE], create or delete")
    };
    if let Some(condition) = text.strip_prefix("condition=") {
        let (name, status) = condition.split_once('=').unwrap_or((condition, "True"));
        return if name.is_empty() {
            Err(refuse("it names no condition"))
        } else {
            Ok(What::Condition(name.to_owned(), status.to_owned()))
        };
    }
    if let Some(rest) = text.strip_prefix("jsonpath=") {
        let rest = rest.trim_matches('\'');
        // The value follows the braces; a filter may have a = of its own.
        let (path, value) = match rest.rfind('}') {
            Some(end) => (&rest[..=end], rest[end + 1..].strip_prefix('=')),
            None => rest.split_once('=').map_or((rest, None), |(path, value)| (path, Some(value))),
        };
        let template = Template::parse(path).map_err(|problem| refuse(&problem))?;
        return Ok(What::Path(template, value.map(|value| value.trim_matches(['\'', '"']).to_owned())));
    }
    match text {
        "delete" => Ok(What::Delete),
        "create" => Ok(What::Create),
        _ => Err(refuse("it is none of what can be waited for")),
    }
}

fn holds(what: &What, object: Option<&Value>) -> bool {
    match (what, object) {
        (What::Delete, None) => true,
        // A pod that has ended is kept for its logs.
        (What::Delete, Some(object)) => {
            text(object, "/kind") == "Pod" && matches!(text(object, "/status/phase"), "Succeeded" | "Failed")
        }
        (What::Create, found) => found.is_some(),
        (_, None) => false,
        (What::Condition(name, status), Some(object)) => {
            let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
            let found =
                conditions.into_iter().flatten().find(|condition| text(condition, "/type").eq_ignore_ascii_case(name));
            found.is_some_and(|condition| {
                columns::condition(object, text(condition, "/type")).eq_ignore_ascii_case(status)
            })
        }
        (What::Path(template, wanted), Some(object)) => {
            let found = template.find(object);
            let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            match wanted {
                Some(wanted) => found.iter().any(|value| shown(value) == *wanted),
                None => !found.is_empty(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_waited_for_is_read_as_kubectl_reads_it() {
        let job =
            json!({"kind": "Job", "status": {"succeeded": 2, "conditions": [{"type": "Complete", "status": "True"}]}});
        let is = |text: &str| holds(&read(text).expect("it can be waited for"), Some(&job));
        assert!(
            is("condition=complete")
                && is("condition=Complete=true")
                && !is("condition=Failed")
                && !is("condition=Complete=False")
        );
        assert!(
            is("jsonpath={.status.succeeded}=2")
                && is("jsonpath='{.status.conditions[?(@.type==\"Complete\")].status}'=True")
        );
        assert!(
            is("jsonpath={.status.succeeded}") && !is("jsonpath={.status.failed}") && is("create") && !is("delete")
        );
        for text in ["condition=", "complete", "jsonpath={.a"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
