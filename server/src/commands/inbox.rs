//! `tidemill inbox`: inputs that wait, are being read, or were refused, with the reason.

use clap::{Args, Subcommand};
use tidemill_store::metastore::InboxEntry;
use tidemill_types::WorkId;

use crate::admin::InboxRequest;
use crate::cli::GlobalOptions;
use crate::client::Target;
use crate::commands::queue::redrive;
use crate::config::format_bytes;
use crate::error::{Error, Result};
use crate::output::{Table, asked_rows, print, print_list, print_text};
use crate::present::{first_line, when};

/// Which inputs; without a subcommand they are listed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill inbox --state refused
  tidemill inbox show 1234
  tidemill inbox redrive 1234")]
pub struct InboxOptions {
    #[command(subcommand)]
    command: Option<InboxCommand>,
    /// Only these: waiting, leased, dead or refused
    #[arg(long, global = true)]
    state: Option<String>,
    /// At most this many
    #[arg(long, global = true)]
    limit: Option<usize>,
}

#[derive(Debug, Subcommand)]
enum InboxCommand {
    /// List inputs, the newest first
    List,
    /// Show one input with its whole reason
    Show {
        /// Its work id
        id: i64,
    },
    /// Make dead letters runnable again: these, or all
    Redrive {
        /// Work ids
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
pub async fn run(global: &GlobalOptions, target: &Target, options: InboxOptions) -> Result<()> {
    match options.command {
        None | Some(InboxCommand::List) => {
            let request =
                InboxRequest { state: options.state, limit: asked_rows(options.limit), ..InboxRequest::default() };
            print_list(global.output, target.inbox(&request).await?, options.limit, table)
        }
        Some(InboxCommand::Show { id }) => {
            let request = InboxRequest { work: Some(WorkId(id)), ..InboxRequest::default() };
            let entry = target.inbox(&request).await?.into_iter().next().ok_or_else(|| {
                Error::new(
                    tidemill_types::ErrorKind::NotFound,
                    format!("no input {id} waits, is being read, or is dead"),
                )
            })?;
            let reason = entry.reason.clone().unwrap_or_default();
            print(global.output, &entry, |entry| table(std::slice::from_ref(entry)))?;
            if global.output == crate::output::Output::Table { print_text(&format!("{reason}\n")) } else { Ok(()) }
        }
        Some(InboxCommand::Redrive { ids, all }) => redrive(global, target, ids, all).await,
    }
}

fn table(entries: &[InboxEntry]) -> Table {
    let mut table = Table::new(&["ID", "STATE", "SIGNAL", "AT", "SIZE", "FAILED", "CRASHED", "OBJECT", "REASON"]);
    for entry in entries {
        table.row(vec![
            entry.work.map_or("-".to_owned(), |id| id.to_string()),
            entry.state.clone(),
            entry.signal.map_or("-".to_owned(), |signal| signal.to_string()),
            when(entry.at),
            format_bytes(entry.size_bytes),
            entry.failures.to_string(),
            entry.crashes.to_string(),
            format!("{}/{}", entry.bucket, entry.object_key),
            first_line(entry.reason.as_deref().unwrap_or(""), 100),
        ]);
    }
    table
}
