//! `tidemill key`: API keys.

use clap::Subcommand;
use tidemill_store::metastore::{ApiKey, KeyRole};

use crate::cli::GlobalOptions;
use crate::client::Target;
use crate::error::{Error, Result};
use crate::output::{Output, Table, print, print_text, say};
use crate::present::when;

/// What to do with keys.
#[derive(Debug, Subcommand)]
#[command(after_help = "A key is shown once, when it is made. To rotate: create, deploy, revoke; no restart is needed.

Examples:
  tidemill key create --organization shop --label 'collector in eu-west-3'
  tidemill key create --operator
  tidemill key list
  tidemill key revoke tm_1a2b3c4d")]
pub enum KeyCommand {
    /// Make a key for --organization, or an operator's
    Create {
        /// An operator's key: administration, and notifications for any organization
        #[arg(long)]
        operator: bool,
        /// A note for people
        #[arg(long, default_value = "")]
        label: String,
    },
    /// List keys (never the keys themselves)
    List,
    /// Make a key stop working
    #[command(visible_alias = "delete")]
    Revoke {
        /// Its id, as `tidemill key list` shows it
        id: String,
    },
}

/// Runs it.
///
/// # Errors
/// Those of the installation.
pub async fn run(global: &GlobalOptions, target: &Target, command: KeyCommand) -> Result<()> {
    match command {
        KeyCommand::Create { operator, label } => {
            let organization = match (operator, &global.organization) {
                (true, None) => None,
                (true, Some(_)) => {
                    return Err(Error::invalid(
                        "a key is an organization's or an operator's: --organization or --operator",
                    ));
                }
                (false, Some(named)) => Some(named.clone()),
                (false, None) => Some(only_organization(target).await?),
            };
            let created = target.create_key(organization, &label).await?;
            match global.output {
                Output::Json | Output::Html | Output::Object(_) => print(global.output, &created, |_| Table::default()),
                Output::Table | Output::Csv => {
                    say!("key {} made; it is shown only now:", created.stored.id);
                    print_text(&format!("{}\n", created.key))
                }
            }
        }
        KeyCommand::List => print(global.output, &target.keys(global.organization.clone()).await?, |keys| table(keys)),
        KeyCommand::Revoke { id } => {
            target.revoke_key(&id).await?;
            say!("key {id} is revoked");
            Ok(())
        }
    }
}

async fn only_organization(target: &Target) -> Result<String> {
    let all = target.organizations().await?;
    match all.as_slice() {
        [only] => Ok(only.id.to_string()),
        [] => Err(Error::invalid("there is no organization").with_hint("tidemill org create <name>")),
        several => {
            let names: Vec<&str> = several.iter().map(|it| it.name.as_str()).collect();
            Err(Error::invalid("say whose key: --organization <id or name>, or --operator")
                .with_hint(format!("there are: {}", names.join(", "))))
        }
    }
}

fn table(keys: &[ApiKey]) -> Table {
    let mut table = Table::new(&["ID", "ROLE", "ORGANIZATION", "CREATED", "LABEL"]);
    for key in keys {
        let role = match key.role {
            KeyRole::Organization => "organization",
            KeyRole::Operator => "operator",
        };
        let organization = key.organization.map_or("-".to_owned(), |id| id.to_string());
        table.row(vec![key.id.clone(), role.to_owned(), organization, when(key.created_at), key.label.clone()]);
    }
    table
}
