//! `tidemill explain`: why a size is what it is, by the decisions that were made about it.

use clap::Args;
use http::Method;
use serde_json::Value;
use tidemill_scaling::Record;
use tidemill_scaling::decision::{Action, Fact, Reason};

use super::{Client, NamespaceOptions, named, short_duration};
use crate::cli::GlobalOptions;
use crate::error::{Error, Result};
use crate::output::{Output, print_text, say};

/// Options of `explain`.
#[derive(Debug, Args)]
#[command(
    after_help = "A decision is told with its reasons, the values it saw and how old they were. -o json prints records: policy, state, what was seen, \
what was decided; deciding again from a record gives the same, which --check does here. The last thousand of each policy are kept.

Examples:
  tidemill explain so/web
  tidemill explain scaledjob batch --last 20 --check
  tidemill explain hpa/web --last 1000 -o json > decisions.json"
)]
pub struct ExplainOptions {
    /// An autoscaler, or a workload that has one
    #[arg(required = true, value_name = "KIND NAME | KIND/NAME")]
    words: Vec<String>,
    /// So many decisions, the newest last
    #[arg(long, default_value_t = 1, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1000))]
    last: u32,
    /// Only decisions that changed something
    #[arg(long)]
    changes: bool,
    /// Decide each of them again, and say whether the same comes out
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    namespace: NamespaceOptions,
}

/// Runs it.
///
/// # Errors
/// `NotFound`; `Invalid` for what nothing decides about, and where `--check` finds a decision that does not come out again.
pub async fn run(global: &GlobalOptions, client: Client, options: ExplainOptions) -> Result<()> {
    let namespace = options.namespace.name();
    let mut policies = Vec::new();
    for one in named(&options.words)? {
        let Some(name) = one.name.clone() else {
            return Err(Error::invalid(format!("which {}? name one", one.kind.plural)));
        };
        match one.kind.kind {
            "ScaledObject" | "ScaledJob" | "HorizontalPodAutoscaler" | "VerticalPodAutoscaler" => {
                policies.push((one.kind, name))
            }
            "Deployment" | "StatefulSet" => {
                policies.extend(policies_of(&client, namespace, one.kind.kind, &name).await?)
            }
            other => return Err(Error::invalid(format!("nothing decides about the size of a {other}"))),
        }
    }
    let mut all = Vec::new();
    for (kind, name) in &policies {
        // Changes are rarer than looks.
        let limit = if options.changes { "1000".to_owned() } else { options.last.to_string() };
        let path = format!("/apis/tidemill.dev/v1/decisions/{}/{namespace}/{name}", kind.plural);
        let found = client.ask(Method::GET, &path, &[("limit", limit.as_str())], None).await?;
        let Value::Array(mut records) = found else { return Err(super::strange()) };
        if options.changes {
            records.retain(|record| record["actions"].as_array().is_some_and(|actions| !actions.is_empty()));
            let surplus = records.len().saturating_sub(options.last as usize);
            records.drain(..surplus);
        }
        all.push((format!("{} {namespace}/{name}", kind.kind), records));
    }
    match global.output {
        Output::Json => {
            print_text(&format!("{:#}\n", Value::Array(all.iter().flat_map(|(_, records)| records.clone()).collect())))?
        }
        Output::Table => all.iter().try_for_each(|(title, records)| tell(title, records))?,
        other => return Err(Error::invalid(format!("--output {other}: decisions are told as table or json"))),
    }
    if options.check { check(global.output, &all) } else { Ok(()) }
}

/// The autoscalers of a workload.
async fn policies_of(
    client: &Client,
    namespace: &str,
    kind: &str,
    name: &str,
) -> Result<Vec<(&'static tidemill_fleet::objects::Kind, String)>> {
    let mut found = Vec::new();
    for (policy, section) in [
        ("scaledobjects", "scaleTargetRef"),
        ("horizontalpodautoscalers", "scaleTargetRef"),
        ("verticalpodautoscalers", "targetRef"),
    ] {
        let policy = super::kind_named(policy)?;
        for object in client.list(policy, Some(namespace), None).await? {
            let target = &object["spec"][section];
            let is_kind = target["kind"].as_str().unwrap_or("Deployment") == kind;
            if is_kind && target["name"] == name {
                found.push((policy, super::text(&object, "/metadata/name").to_owned()));
            }
        }
    }
    if found.is_empty() {
        return Err(Error::invalid(format!("nothing decides about the size of {kind} {name}: it has no autoscaler")));
    }
    Ok(found)
}

fn read(record: &Value) -> Result<Record> {
    serde_json::from_value(record.clone())
        .map_err(|error| Error::invalid(format!("a decision cannot be read: {error}")))
}

fn tell(title: &str, records: &[Value]) -> Result<()> {
    let mut out = format!("{title}\n");
    if records.is_empty() {
        out.push_str("  nothing was decided yet\n");
    }
    for record in records {
        let record = read(record)?;
        let at = jiff::Timestamp::from_millisecond(record.now.0).unwrap_or_default();
        let age = short_duration(jiff::Timestamp::now().as_second() - at.as_second());
        let done: Vec<String> = record.actions.iter().map(action).collect();
        let done = if done.is_empty() { "no change".to_owned() } else { done.join(", ") };
        out.push_str(&format!("\n{at:.3} ({age} ago): {done}\n"));
        let width = record.reasons.iter().map(|reason| reason.code.len()).max().unwrap_or_default();
        for reason in &record.reasons {
            out.push_str(&told(reason, width));
        }
    }
    print_text(&out)
}

fn told(reason: &Reason, width: usize) -> String {
    let about = if reason.subject.is_empty() || reason.message.contains(&reason.subject) {
        String::new()
    } else {
        format!("{}: ", reason.subject)
    };
    let mut line = format!("  {:width$}  {about}{}", reason.code, reason.message);
    let facts: Vec<String> = reason.facts.iter().map(fact).collect();
    if !facts.is_empty() {
        line.push_str(&format!("\n  {:width$}    {}", "", facts.join(", ")));
    }
    line.push('\n');
    line
}

fn fact(fact: &Fact) -> String {
    let value = serde_json::to_value(&fact.value).unwrap_or_default();
    let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    match fact.age_ms {
        Some(age) if age < 1000 => format!("{} = {value} ({age} ms old)", fact.name),
        Some(age) => format!("{} = {value} ({:.1} s old)", fact.name, age as f64 / 1000.0),
        None => format!("{} = {value}", fact.name),
    }
}

fn action(action: &Action) -> String {
    match action {
        Action::Scale { from, to, .. } => format!("size {from} → {to}"),
        Action::CreateJobs { count } => format!("{count} jobs created"),
        Action::DeleteJobs { names, .. } => format!("{} jobs deleted", names.len()),
        Action::Recommend { containers } => format!("resources recommended for {} containers", containers.len()),
        Action::UpdateReplica { replica, .. } => format!("{replica} gets what is recommended"),
    }
}

/// Decides every record again.
fn check(output: Output, all: &[(String, Vec<Value>)]) -> Result<()> {
    let mut others = Vec::new();
    let mut count = 0;
    for (title, records) in all {
        for record in records {
            let record = read(record)?;
            count += 1;
            if !record.is_reproduced() {
                others.push(format!("{title} at {}", record.now.0));
            }
        }
    }
    if !others.is_empty() {
        return Err(Error::invalid(format!(
            "{} of {count} decisions come out differently: {}",
            others.len(),
            others.join(", ")
        )));
    }
    let line = format!("\n{count} of {count} decisions reproduced\n");
    // JSON stays one document.
    if output == Output::Table {
        return print_text(&line);
    }
    say!("{}", line.trim());
    Ok(())
}
