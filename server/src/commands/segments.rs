//! `tidemill segments`: what the catalog knows.

use clap::{Args, Subcommand};
use tidemill_types::{SegmentId, SegmentMeta, Signal};

use crate::admin::SegmentsRequest;
use crate::cli::GlobalOptions;
use crate::client::Target;
use crate::commands::queue::redrive;
use crate::config::format_bytes;
use crate::error::Result;
use crate::output::{Output, Table, asked_rows, print, print_list};
use crate::present::when;

/// Which segments; without a subcommand they are listed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill segments --signal logs --limit 20
  tidemill segments show 5f0c1a2e-0000-0000-0000-000000000000
  tidemill segments redrive --all")]
pub struct SegmentsOptions {
    #[command(subcommand)]
    command: Option<SegmentsCommand>,
    /// Only this signal
    #[arg(long, global = true)]
    signal: Option<Signal>,
    /// Only this tier: 0 for raw rows, else a rollup's window in seconds
    #[arg(long, global = true)]
    tier: Option<u32>,
    /// At most this many
    #[arg(long, global = true)]
    limit: Option<usize>,
}

#[derive(Debug, Subcommand)]
enum SegmentsCommand {
    /// List live segments, the newest first
    List,
    /// Show all that the catalog knows of one
    Show {
        /// Its id
        id: SegmentId,
    },
    /// Make dead compactions, rollups and ingests runnable again: these work ids, or all
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
pub async fn run(global: &GlobalOptions, target: &Target, options: SegmentsOptions) -> Result<()> {
    let SegmentsOptions { command, signal, tier, limit } = options;
    match command {
        None | Some(SegmentsCommand::List) => {
            let request = SegmentsRequest { signal, tier, limit: asked_rows(limit) };
            print_list(global.output, target.segments(&request).await?, limit, table)
        }
        Some(SegmentsCommand::Show { id }) => print(Output::Json, &target.segment(id).await?, |_| Table::default()),
        Some(SegmentsCommand::Redrive { ids, all }) => redrive(global, target, ids, all).await,
    }
}

fn table(segments: &[SegmentMeta]) -> Table {
    let mut table = Table::new(&["ID", "SIGNAL", "TIER", "LEVEL", "DAY", "FROM", "TO", "ROWS", "SIZE", "OBJECT"]);
    for it in segments {
        table.row(vec![
            it.id.to_string(),
            it.signal.to_string(),
            if it.tier.0 == 0 { "raw".to_owned() } else { format!("{} s", it.tier.0) },
            format!("L{}", it.level.0),
            it.day.to_string(),
            when(it.time.start),
            when(it.time.end),
            it.rows.to_string(),
            format_bytes(it.bytes),
            format!("{}/{}", it.bucket, it.object_key),
        ]);
    }
    table
}
