//! `tidemill segments`: what the catalog knows.

use clap::{Args, Subcommand};
use tidemill_types::{SegmentId, SegmentMeta, ServiceSet, Signal, Tier};

use crate::admin::SegmentsRequest;
use crate::cli::GlobalOptions;
use crate::client::Target;
use crate::commands::queue::redrive;
use crate::config::format_bytes;
use crate::error::Result;
use crate::output::{Table, asked_rows, print, print_list};
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
        #[arg(value_parser = read_id)]
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
        Some(SegmentsCommand::Show { id }) => print(global.output, &target.segment(id).await?, details),
        Some(SegmentsCommand::Redrive { ids, all }) => redrive(global, target, ids, all).await,
    }
}

fn read_id(text: &str) -> std::result::Result<SegmentId, String> {
    text.parse().map_err(|_| "is no segment id (a UUID), as `tidemill segments` lists them".to_owned())
}

fn tier_name(tier: Tier) -> String {
    if tier.0 == 0 { "raw".to_owned() } else { format!("{} s", tier.0) }
}

/// One segment, a field a row.
fn details(it: &SegmentMeta) -> Table {
    let services = match &it.services {
        ServiceSet::Names(names) | ServiceSet::OfEveryRow(names) => names.join(", "),
        ServiceSet::Bloom(_) => "more than are listed; a bloom filter stands for them".to_owned(),
    };
    let mut table = Table::new(&["FIELD", "VALUE"]);
    for (field, value) in [
        ("id", it.id.to_string()),
        ("organization", it.organization.to_string()),
        ("signal", it.signal.to_string()),
        ("tier", tier_name(it.tier)),
        ("level", format!("L{}", it.level.0)),
        ("day", it.day.to_string()),
        ("from", when(it.time.start)),
        ("to", when(it.time.end)),
        ("ingested until", it.ingest_day.to_string()),
        ("rows", it.rows.to_string()),
        ("size", format!("{} ({} bytes)", format_bytes(it.bytes), it.bytes)),
        ("services", services),
        ("object", format!("{}/{}", it.bucket, it.object_key)),
        ("etag", it.etag.clone().unwrap_or_else(|| "-".to_owned())),
        ("instance", it.instance_num.to_string()),
        ("footer", format!("{} at {}", format_bytes(it.footer.len), it.footer.offset)),
        ("footer hash", hex::encode(it.footer_hash)),
        ("index", format!("{} at {}", format_bytes(it.index.len), it.index.offset)),
    ] {
        table.row(vec![field.to_owned(), value]);
    }
    table
}

fn table(segments: &[SegmentMeta]) -> Table {
    let mut table = Table::new(&["ID", "SIGNAL", "TIER", "LEVEL", "DAY", "FROM", "TO", "ROWS", "SIZE", "OBJECT"]);
    for it in segments {
        table.row(vec![
            it.id.to_string(),
            it.signal.to_string(),
            tier_name(it.tier),
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
