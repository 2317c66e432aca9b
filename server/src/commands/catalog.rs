//! `tidemill catalog`: the catalog against the buckets.

use clap::Subcommand;
use tidemill_lake::catalog::{CatalogDeps, RebuildReport, VerifyReport, rebuild, verify};
use tidemill_types::ErrorKind;

use crate::cli::GlobalOptions;
use crate::commands::server_runtime;
use crate::config::Config;
use crate::data_folder::DataFolder;
use crate::error::{Error, Result};
use crate::intake::from_lake;
use crate::output::{Table, print};
use crate::stack::{Stack, no_data_folder};

/// What to do with the catalog. It is done by this process on the metastore and the buckets themselves.
#[derive(Debug, Clone, Copy, Subcommand)]
#[command(
    after_help = "After the database was lost: start with an empty one, then `tidemill catalog rebuild`. It may run beside a server.

Examples:
  tidemill catalog verify
  tidemill catalog rebuild --output json"
)]
pub enum CatalogCommand {
    /// Recreate the catalog from the objects in the buckets
    Rebuild,
    /// Check that every live segment is stored as the catalog says
    Verify,
}

/// Runs it.
///
/// # Errors
/// `Corrupt` when they disagree; those of the stores.
pub fn run(global: &GlobalOptions, command: CatalogCommand) -> Result<()> {
    let config = global.load_config(Vec::new())?;
    let runtime = server_runtime(&config)?;
    runtime.block_on(async {
        let folder = DataFolder::new(config.data_dir());
        check_is_there(&config, command)?;
        folder.create()?;
        let stack = Stack::open(config, folder.spool_of_process("catalog")).await?;
        let deps = CatalogDeps {
            metastore: stack.metastore.clone(),
            buckets: stack.buckets.clone(),
            placement: stack.placement(),
        };
        match command {
            CatalogCommand::Rebuild => {
                let report = rebuild(&deps).await.map_err(from_lake)?;
                print(global.output, &report, rebuilt)?;
                match report.unreadable.len() {
                    0 => Ok(()),
                    count => Err(Error::new(ErrorKind::Corrupt, format!("{count} objects are no readable segments"))),
                }
            }
            CatalogCommand::Verify => {
                let report = verify(&deps).await.map_err(from_lake)?;
                print(global.output, &report, verified)?;
                if report.is_sound() {
                    return Ok(());
                }
                Err(Error::new(ErrorKind::Corrupt, "the catalog and the buckets disagree")
                    .with_hint("tidemill catalog rebuild"))
            }
        }
    })
}

/// A mistyped folder is not made: to rebuild takes a bucket, to verify takes a catalog too.
fn check_is_there(config: &Config, command: CatalogCommand) -> Result<()> {
    let folder = DataFolder::new(config.data_dir());
    let is_bucket_there = config.optional("storage.url").is_some() || folder.objects().exists();
    let is_catalog_there = config.optional("metastore.url").is_some() || folder.metastore().exists();
    match command {
        CatalogCommand::Rebuild if is_bucket_there => Ok(()),
        CatalogCommand::Verify if is_bucket_there && is_catalog_there => Ok(()),
        _ => Err(no_data_folder(config)),
    }
}

fn rebuilt(report: &RebuildReport) -> Table {
    let mut table = Table::new(&["WHAT", "COUNT"]);
    for (what, count) in [
        ("segment objects read", report.objects),
        ("adopted", report.adopted),
        ("replaced by others", report.replaced),
        ("never published", report.unpublished),
        ("retired", report.retired),
        ("rollups to compute again", report.rollups),
        ("raw objects to ingest again", report.readmitted),
        ("organizations created", report.organizations.len() as u64),
        ("unreadable", report.unreadable.len() as u64),
    ] {
        table.row(vec![what.to_owned(), count.to_string()]);
    }
    for (object, reason) in &report.unreadable {
        table.row(vec![format!("unreadable {object}"), reason.clone()]);
    }
    table
}

fn verified(report: &VerifyReport) -> Table {
    let mut table = Table::new(&["RESULT", "OBJECT", "DIFFERENCE"]);
    table.row(vec!["checked".to_owned(), format!("{} live segments", report.segments), String::new()]);
    for object in &report.missing {
        table.row(vec!["MISSING".to_owned(), object.clone(), "the catalog has it, the bucket does not".to_owned()]);
    }
    for (object, difference) in &report.different {
        table.row(vec!["DIFFERENT".to_owned(), object.clone(), difference.clone()]);
    }
    for object in &report.unknown {
        table.row(vec!["unknown".to_owned(), object.clone(), "nothing refers to it; the sweeper's".to_owned()]);
    }
    if report.unlisted > 0 {
        table.row(vec!["and".to_owned(), format!("{} more differences", report.unlisted), String::new()]);
    }
    table
}
