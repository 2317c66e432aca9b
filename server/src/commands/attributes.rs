//! `tidemill attributes`: keys, types, how often, and whether they have columns of their own.

use clap::Args;
use serde_json::Value;
use tidemill_lake::clock::{Clock as _, SystemClock};
use tidemill_types::{ErrorKind, Signal};

use crate::bootstrap::FIRST_ORGANIZATION;
use crate::cli::GlobalOptions;
use crate::client::{Target, find_server};
use crate::commands::load::acting_for_the_only_one;
use crate::commands::server_runtime;
use crate::config::{Config, parse_duration};
use crate::data_folder::DataFolder;
use crate::error::{Error, Result};
use crate::http::AttributesRequest;
use crate::output::{Table, print};
use crate::query::Queries;
use crate::stack::Stack;

/// Which attributes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill attributes
  tidemill attributes --signal traces --since 1h")]
pub struct AttributesOptions {
    /// Only this signal
    #[arg(long)]
    signal: Option<Signal>,
    /// Only what arrived in segments of this recent time, as 1h
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
}

/// Runs it.
///
/// # Errors
/// Those of the installation.
pub fn run(global: &GlobalOptions, options: &AttributesOptions) -> Result<()> {
    let config = global.load_config(Vec::new())?;
    let since = options.since.as_deref().map(parse_duration).transpose();
    let since = since.map_err(|problem| Error::invalid(format!("--since: {problem}")))?;
    let start_ns =
        since.map(|since| SystemClock.now().0.saturating_sub(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)));
    let signals = options.signal.map_or(Signal::ALL.to_vec(), |signal| vec![signal]);
    let requests: Vec<AttributesRequest> =
        signals.into_iter().map(|signal| AttributesRequest { signal, start_ns, end_ns: None }).collect();
    let runtime = server_runtime(&config)?;
    let outcome = runtime.block_on(ask(global, config, &requests));
    runtime.shutdown_background();
    print(global.output, &outcome?, |rows| table(rows))
}

async fn ask(global: &GlobalOptions, config: Config, requests: &[AttributesRequest]) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    if let Some(remote) = find_server(global, &config)? {
        let remote = if remote.organization().is_some() { remote } else { acting_for_the_only_one(remote).await };
        for request in requests {
            let rows: Vec<Value> = remote.get("attributes", request).await?;
            all.extend(rows.into_iter().map(|row| with_signal(row, request.signal)));
        }
        return Ok(all);
    }
    let Target::Local(admin, scope) = Target::find(global, &config).await? else {
        return Err(
            Error::new(ErrorKind::Conflict, "a server started on the data folder just now").with_hint("try again")
        );
    };
    let organization = match scope {
        Some(organization) => organization,
        None => admin.organization(FIRST_ORGANIZATION).await?.id,
    };
    let spool = DataFolder::new(config.data_dir()).spool_of_process("attributes");
    let stack = Stack::open(config, spool.clone()).await?;
    let queries = Queries::new(&stack);
    for request in requests {
        for info in queries.attributes(organization, request.signal, request.time()).await? {
            let row = serde_json::to_value(info)
                .map_err(|error| Error::caused(ErrorKind::Internal, "an attribute", error))?;
            all.push(with_signal(row, request.signal));
        }
    }
    if let Err(error) = std::fs::remove_dir_all(&spool) {
        tracing::debug!(%error, "the spool folder");
    }
    Ok(all)
}

fn with_signal(mut row: Value, signal: Signal) -> Value {
    if let Value::Object(fields) = &mut row {
        fields.insert("signal".to_owned(), Value::from(signal.as_str()));
    }
    row
}

fn table(rows: &[Value]) -> Table {
    let mut table = Table::new(&["SIGNAL", "ATTRIBUTE", "TYPE", "ROWS", "OWN COLUMN IN", "OVERFLOW IN", "DISTINCT"]);
    for row in rows {
        let cell = |name: &str| match &row[name] {
            Value::String(text) => text.clone(),
            Value::Null => "-".to_owned(),
            other => other.to_string(),
        };
        let distinct = match &row["cardinality"] {
            Value::Object(fields) => match fields.iter().next() {
                Some((bound, count)) => format!("{} {count}", bound.replace('_', " ")),
                None => "-".to_owned(),
            },
            Value::String(text) => text.clone(),
            _ => "-".to_owned(),
        };
        table.row(vec![
            cell("signal"),
            cell("expression"),
            cell("kind"),
            cell("rows"),
            cell("promoted_in"),
            cell("overflow_in"),
            distinct,
        ]);
    }
    table
}
