//! `tidemill org`: organizations.

use clap::Subcommand;
use tidemill_store::metastore::Organization;
use tidemill_types::{OrganizationId, Signal};

use crate::admin::OrganizationChange;
use crate::cli::GlobalOptions;
use crate::client::Target;
use crate::config::{format_bytes, parse_bytes};
use crate::error::{Error, Result};
use crate::output::{Table, print, say};
use crate::present::when;

/// What to do with organizations.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  tidemill org create shop
  tidemill org set-retention shop --logs 30 --metrics 400 --traces 7
  tidemill org set-rate shop 20MiB
  tidemill org delete shop --yes")]
pub enum OrgCommand {
    /// Create an organization
    Create {
        /// Unique name
        name: String,
        /// Give it this id (a UUID) instead of a new one
        #[arg(long)]
        id: Option<OrganizationId>,
    },
    /// List organizations
    List,
    /// Set how many days are kept; 0 keeps for ever
    SetRetention {
        /// Id or name
        #[arg(id = "named", value_name = "ORGANIZATION")]
        organization: String,
        /// Days of logs
        #[arg(long)]
        logs: Option<u32>,
        /// Days of metrics
        #[arg(long)]
        metrics: Option<u32>,
        /// Days of traces
        #[arg(long)]
        traces: Option<u32>,
    },
    /// Limit what is accepted a second, as 20MiB; 0 for no limit
    SetRate {
        /// Id or name
        #[arg(id = "named", value_name = "ORGANIZATION")]
        organization: String,
        /// Bytes a second over all inputs
        rate: String,
    },
    /// Delete an organization with its keys and all its data
    Delete {
        /// Id or name
        #[arg(id = "named", value_name = "ORGANIZATION")]
        organization: String,
        /// It is meant: nothing of it can be brought back
        #[arg(long)]
        yes: bool,
    },
}

/// Runs it.
///
/// # Errors
/// Those of the installation.
pub async fn run(global: &GlobalOptions, target: &Target, command: OrgCommand) -> Result<()> {
    match command {
        OrgCommand::List => print(global.output, &target.organizations().await?, |all| table(all)),
        OrgCommand::Create { name, id } => show(global, target.create_organization(&name, id).await?),
        OrgCommand::SetRetention { organization, logs, metrics, traces } => {
            let days = [(Signal::Logs, logs), (Signal::Metrics, metrics), (Signal::Traces, traces)];
            let retention_days: std::collections::BTreeMap<Signal, u32> =
                days.into_iter().filter_map(|(signal, days)| Some((signal, days?))).collect();
            if retention_days.is_empty() {
                return Err(Error::invalid(
                    "say for which signal: --logs, --metrics or --traces with a number of days",
                ));
            }
            let change = OrganizationChange { retention_days, ..OrganizationChange::default() };
            show(global, target.change_organization(&organization, &change).await?)
        }
        OrgCommand::SetRate { organization, rate } => {
            let rate = parse_bytes(&rate).map_err(|problem| Error::invalid(format!("rate: {problem}")))?;
            let change = OrganizationChange { ingest_bytes_per_second: Some(rate), ..OrganizationChange::default() };
            show(global, target.change_organization(&organization, &change).await?)
        }
        OrgCommand::Delete { organization, yes } => {
            if !yes {
                return Err(Error::invalid(format!("deleting {organization} deletes its keys and all its data"))
                    .with_hint("repeat with --yes"));
            }
            show(global, target.delete_organization(&organization).await?)?;
            say!("its keys stopped working; a sweeper deletes its objects, then it is gone");
            Ok(())
        }
    }
}

fn show(global: &GlobalOptions, organization: Organization) -> Result<()> {
    print(global.output, &organization, |one| table(std::slice::from_ref(one)))
}

fn table(all: &[Organization]) -> Table {
    let mut table = Table::new(&["ID", "NAME", "CREATED", "LOGS", "METRICS", "TRACES", "RATE", "STATE"]);
    for it in all {
        let [logs, metrics, traces] =
            it.retention_days.map(|days| days.map_or("for ever".to_owned(), |days| format!("{days} d")));
        let rate = it.ingest_bytes_per_second.map_or("-".to_owned(), |rate| format!("{}/s", format_bytes(rate)));
        let state = if it.deleting { "deleting" } else { "live" };
        table.row(vec![
            it.id.to_string(),
            it.name.clone(),
            when(it.created_at),
            logs,
            metrics,
            traces,
            rate,
            state.to_owned(),
        ]);
    }
    table
}
