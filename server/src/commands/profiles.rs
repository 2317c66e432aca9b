//! `tidemill profiles`: storage profiles and prefix mappings in the metastore.

use std::path::PathBuf;

use clap::Subcommand;

use crate::client::Target;
use crate::error::{Error, Result};
use crate::output::{print_text, say};
use crate::profiles::{MAPPINGS_DOCUMENT, PROFILES_DOCUMENT, load_text};

/// What to do with profiles.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "A list of profiles as YAML, as it is or inside a chart's values. Running servers use a change within seconds.

Examples:
  tidemill profiles import profiles.yaml
  tidemill profiles import --mappings mappings.yaml
  tidemill profiles show"
)]
pub enum ProfilesCommand {
    /// Check a document and store it, in place of the one that is stored
    Import {
        /// A file, or env:NAME
        source: PathBuf,
        /// It holds prefix mappings instead of profiles
        #[arg(long)]
        mappings: bool,
    },
    /// Print the stored document
    Show {
        /// The prefix mappings instead of the profiles
        #[arg(long)]
        mappings: bool,
    },
}

/// Runs it.
///
/// # Errors
/// `Invalid` with every problem of the document; those of the installation.
pub async fn run(target: &Target, command: ProfilesCommand) -> Result<()> {
    let name = |mappings: bool| if mappings { MAPPINGS_DOCUMENT } else { PROFILES_DOCUMENT };
    match command {
        ProfilesCommand::Import { source, mappings } => {
            let text = load_text(&source.to_string_lossy()).map_err(|error| Error::invalid(error.to_string()))?;
            target.store_document(name(mappings), &source.to_string_lossy(), &text).await?;
            say!("{} imported", name(mappings));
            Ok(())
        }
        ProfilesCommand::Show { mappings } => match target.document(name(mappings)).await? {
            Some(text) => print_text(&text),
            None => {
                say!("no {} are stored", name(mappings));
                Ok(())
            }
        },
    }
}
