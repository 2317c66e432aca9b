//! `tidemill top`: what replicas use.

use clap::{Args, ValueEnum};
use http::Method;
use serde_json::Value;
use tidemill_scaling::quantity::{parse_milli, parse_units};

use super::{Client, Place, columns, text};
use crate::cli::GlobalOptions;
use crate::error::{Error, Result};
use crate::output::{Output, print_text, say};

/// Options of `top`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill top pods -A")]
pub struct TopOptions {
    /// Of what
    #[arg(value_enum)]
    what: What,
    /// One pod
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    place: Place,
    /// One line for each container
    #[arg(long)]
    containers: bool,
    /// The most first
    #[arg(long, value_enum, value_name = "cpu|memory")]
    sort_by: Option<SortBy>,
    /// Leave the head out
    #[arg(long)]
    no_headers: bool,
}

/// Of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Of pods
    #[value(aliases = ["pod", "po"])]
    Pods,
}

/// By what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SortBy {
    Cpu,
    Memory,
}

struct Line {
    cells: Vec<String>,
    milli: i64,
    bytes: i64,
}

/// Runs it.
///
/// # Errors
/// `NotFound` while nothing was measured; the server's.
pub async fn run(global: &GlobalOptions, client: Client, options: TopOptions) -> Result<()> {
    let What::Pods = options.what;
    let within = options.place.scope().map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
    let mut found = client.ask(Method::GET, &format!("/apis/metrics.k8s.io/v1beta1{within}/pods"), &[], None).await?;
    let Value::Array(mut items) = found["items"].take() else { return Err(super::strange()) };
    items.retain(|item| options.name.as_deref().is_none_or(|name| text(item, "/metadata/name") == name));
    if global.output == Output::Json {
        return print_text(&format!("{:#}\n", Value::Array(items)));
    }
    if items.is_empty() {
        if let Some(name) = &options.name {
            return Err(Error::new(
                tidemill_types::ErrorKind::NotFound,
                format!("nothing was measured of a pod {name:?}"),
            ));
        }
        say!("No resources found");
        return Ok(());
    }
    let mut lines: Vec<Line> = items.iter().flat_map(|item| lines_of(item, &options)).collect();
    match options.sort_by {
        Some(SortBy::Cpu) => lines.sort_by_key(|line| std::cmp::Reverse(line.milli)),
        Some(SortBy::Memory) => lines.sort_by_key(|line| std::cmp::Reverse(line.bytes)),
        None => {}
    }
    let mut head = vec!["CPU(cores)", "MEMORY(bytes)"];
    if options.containers {
        head.insert(0, "NAME");
        head.insert(0, "POD");
    } else {
        head.insert(0, "NAME");
    }
    if options.place.all_namespaces {
        head.insert(0, "NAMESPACE");
    }
    let rows: Vec<Vec<String>> = lines.into_iter().map(|line| line.cells).collect();
    print_text(&columns::align(&head, &rows, options.no_headers))
}

fn lines_of(item: &Value, options: &TopOptions) -> Vec<Line> {
    let containers = item.get("containers").and_then(Value::as_array).cloned().unwrap_or_default();
    let amounts = |container: &Value| {
        (
            parse_milli(text(container, "/usage/cpu")).unwrap_or_default(),
            parse_units(text(container, "/usage/memory")).unwrap_or_default(),
        )
    };
    let line = |names: Vec<&str>, (milli, bytes): (i64, i64)| {
        let namespace = options.place.all_namespaces.then(|| text(item, "/metadata/namespace"));
        let mut cells: Vec<String> = namespace.into_iter().chain(names).map(ToOwned::to_owned).collect();
        cells.extend([format!("{milli}m"), format!("{}Mi", bytes >> 20)]);
        Line { cells, milli, bytes }
    };
    let pod = text(item, "/metadata/name");
    if options.containers {
        return containers
            .iter()
            .map(|container| line(vec![pod, text(container, "/name")], amounts(container)))
            .collect();
    }
    let sum = containers.iter().map(amounts).fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1));
    vec![line(vec![pod], sum)]
}
