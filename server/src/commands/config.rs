//! `tidemill config`: the merged configuration with where each value comes from.

use clap::Subcommand;
use serde::Serialize;

use crate::cli::GlobalOptions;
use crate::config::{KEYS, mask, render_document};
use crate::error::Result;
use crate::output::{Table, print, print_text};

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  tidemill config show --set listen.api_port=9000 --output json
  tidemill config show --changed
  tidemill config document > config.md")]
pub enum ConfigCommand {
    /// Print every value and where it comes from, secrets masked
    Show {
        /// Only what is not a default
        #[arg(long)]
        changed: bool,
    },
    /// Print the documentation of every key (docs/config.md)
    Document,
}

#[derive(Serialize)]
struct Line {
    key: &'static str,
    value: String,
    origin: String,
}

/// Runs it.
///
/// # Errors
/// `Invalid` with every problem of the configuration.
pub fn run(global: &GlobalOptions, command: &ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Document => print_text(&render_document()),
        ConfigCommand::Show { changed } => {
            let config = global.load_config(Vec::new())?;
            let lines = KEYS.iter().map(|key| {
                let setting = config.settings.get(key.name);
                Line { key: key.name, value: mask(key.kind, &setting.text), origin: setting.origin.to_string() }
            });
            let lines: Vec<Line> = lines.filter(|line| !changed || line.origin != "default").collect();
            print(global.output, &lines, |lines| {
                let mut table = Table::new(&["KEY", "VALUE", "FROM"]);
                for line in lines {
                    table.row(vec![line.key.to_owned(), line.value.clone(), line.origin.clone()]);
                }
                table
            })
        }
    }
}
