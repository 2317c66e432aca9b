//! `tidemill queue`: work that is runnable, delayed, leased, dead.

use clap::{Args, Subcommand};
use serde_json::json;
use tidemill_store::metastore::QueueEntry;
use tidemill_types::{Action, ErrorKind, Signal, WorkId};

use crate::admin::QueueRequest;
use crate::cli::GlobalOptions;
use crate::client::Target;
use crate::error::{Error, Result};
use crate::output::{Output, Table, asked_rows, print, print_list, say};
use crate::present::{first_line, when};

/// Which work; without a subcommand it is listed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill queue --signal logs --action ingest
  tidemill queue --dead
  tidemill queue redrive --all")]
pub struct QueueOptions {
    #[command(subcommand)]
    command: Option<QueueCommand>,
    /// Only this signal
    #[arg(long, global = true)]
    signal: Option<Signal>,
    /// Only this action
    #[arg(long, global = true)]
    action: Option<Action>,
    /// Only dead letters
    #[arg(long, global = true)]
    dead: bool,
    /// At most this many
    #[arg(long, global = true)]
    limit: Option<usize>,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// List work, the oldest first
    List,
    /// Show one item with its payload and last error
    Show {
        /// Its id
        id: i64,
    },
    /// Make dead letters runnable again: these, or all
    Redrive {
        /// Ids
        ids: Vec<i64>,
        /// All dead letters
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
}

/// Runs it.
///
/// # Errors
/// Those of the installation.
pub async fn run(global: &GlobalOptions, target: &Target, options: QueueOptions) -> Result<()> {
    let QueueOptions { command, signal, action, dead, limit } = options;
    match command {
        None | Some(QueueCommand::List) => {
            let request = QueueRequest { signal, action, dead, limit: asked_rows(limit), ..QueueRequest::default() };
            print_list(global.output, target.queue(&request).await?, limit, table)
        }
        Some(QueueCommand::Show { id }) => {
            let request = QueueRequest { work: Some(WorkId(id)), ..QueueRequest::default() };
            let entry = target.queue(&request).await?.into_iter().next();
            let entry = entry.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no work {id} in the queue")))?;
            print(Output::Json, &entry, |_| Table::default())
        }
        Some(QueueCommand::Redrive { ids, all }) => redrive(global, target, ids, all).await,
    }
}

/// Makes dead letters runnable again.
///
/// # Errors
/// `Invalid` when neither ids nor `--all` are given; those of the installation.
pub async fn redrive(global: &GlobalOptions, target: &Target, ids: Vec<i64>, all: bool) -> Result<()> {
    if ids.is_empty() && !all {
        return Err(Error::invalid("say which dead letters: their ids, or --all"));
    }
    let asked = ids.len() as u64;
    let ids = if all { None } else { Some(ids.into_iter().map(WorkId).collect()) };
    let redriven = target.redrive(ids).await?;
    if !all && redriven == 0 {
        return Err(
            Error::new(ErrorKind::NotFound, "none of these is a dead letter").with_hint("tidemill queue --dead")
        );
    }
    if !all && redriven < asked {
        say!("{} of these are no dead letters", asked - redriven);
    }
    print(global.output, &json!({ "redriven": redriven }), |_| {
        let mut table = Table::new(&["REDRIVEN"]);
        table.row(vec![redriven.to_string()]);
        table
    })
}

fn table(entries: &[QueueEntry]) -> Table {
    let mut table =
        Table::new(&["ID", "QUEUE", "STATE", "CREATED", "RUNNABLE", "FAILED", "CRASHED", "WORKER", "LAST ERROR"]);
    for entry in entries {
        table.row(vec![
            entry.id.to_string(),
            format!("{} {}", entry.queue.action, entry.queue.signal),
            entry.state.clone(),
            when(entry.created_at),
            when(entry.runnable_at),
            entry.failures.to_string(),
            entry.crashes.to_string(),
            entry.worker.clone().unwrap_or_else(|| "-".to_owned()),
            first_line(entry.last_error.as_deref().unwrap_or(""), 100),
        ]);
    }
    table
}
