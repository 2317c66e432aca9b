//! The command line: what can be typed, and what its help teaches.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands;
use crate::config::{Config, Sources};
use crate::error::{Error, Result};
use crate::output::Output;

const EXAMPLES: &str = "\
Examples:
  tidemill demo                          everything here, real telemetry flowing in
  tidemill up                            OTLP in on 4317 and 4318, SQL out on 8080
  tidemill load app.json.gz --signal logs
  tidemill sql 'SELECT service_name, count(*) FROM logs GROUP BY 1'
  tidemill status                        what waits, what is stored, how far behind

Exit codes: 0 success, 2 wrong usage, 3 invalid, 4 not found, 5 conflict, 6 busy, 7 unavailable, 8 corrupt, 9 cancelled, 1 internal.";

/// Telemetry in, a queryable lake out.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, about, after_help = EXAMPLES)]
pub struct Cli {
    /// Flags that every command takes.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes. Helps show them below the command's own.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct GlobalOptions {
    /// Configuration file (TOML) [default: ./tidemill.toml, if there is one; env: TIDEMILL_CONFIG]
    #[arg(long, global = true, env = "TIDEMILL_CONFIG", hide_env = true, value_name = "FILE", display_order = 1000)]
    pub config: Option<PathBuf>,
    /// Folder of embedded data [default: ./tidemill-data]
    #[arg(long, global = true, value_name = "FOLDER", display_order = 1001)]
    pub data_dir: Option<PathBuf>,
    /// Set any key of the configuration, as listen.api_port=9000; repeatable, `tidemill config show` lists them
    #[arg(long, global = true, value_name = "KEY=VALUE", display_order = 1002)]
    pub set: Vec<String>,
    /// A server's API, as http://127.0.0.1:8080 [default: the one that runs on the data folder, else the metastore itself;
    /// env: TIDEMILL_URL]
    #[arg(long, global = true, env = "TIDEMILL_URL", hide_env = true, display_order = 1003)]
    pub url: Option<String>,
    /// API key for --url [env: TIDEMILL_API_KEY]
    #[arg(long, global = true, env = "TIDEMILL_API_KEY", hide_env = true, value_name = "KEY", display_order = 1004)]
    pub api_key: Option<String>,
    /// Act for this organization (id or name)
    #[arg(long, global = true, value_name = "ORGANIZATION", display_order = 1005)]
    pub organization: Option<String>,
    /// How answers are printed: table, json or csv
    #[arg(
        long,
        short,
        global = true,
        value_parser = Output::parse,
        default_value_t,
        value_name = "FORMAT",
        display_order = 1006
    )]
    pub output: Output,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run every role in one place
    Up(commands::up::UpOptions),
    /// Run every role with real telemetry flowing in, and show what to ask
    Demo(commands::demo::DemoOptions),
    /// Run the receiver alone: OTLP over gRPC and HTTP
    Receive(commands::role::ReceiveOptions),
    /// Run notifications alone: webhooks, watched folders, SQS
    #[command(after_help = commands::role::NOTIFY_HELP)]
    Notify(commands::role::RoleOptions),
    /// Run a worker alone: ingest, compaction, rollups
    Worker(commands::role::WorkerOptions),
    /// Run queries alone: SQL over HTTP
    #[command(after_help = commands::role::QUERY_HELP)]
    Query(commands::role::RoleOptions),
    /// Run the sweeper alone: retention, replaced objects, orphans
    #[command(after_help = commands::role::SWEEPER_HELP)]
    Sweeper(commands::role::RoleOptions),
    /// Load files: OTLP, JSON lines, CSV, Parquet; plain, gzip or zstd
    Load(commands::load::LoadOptions),
    /// Run one SQL statement over logs, metrics and spans
    Sql(commands::sql::SqlOptions),
    /// Ask one query of PromQL over the metrics, or run its test scripts
    Promql(commands::promql::PromqlOptions),
    /// Check the text of a query in PromQL, LogQL or TraceQL
    Validate(commands::validate::ValidateOptions),
    /// Run one TraceQL query: traces, or numbers over time
    Traceql(commands::traceql::TraceqlOptions),
    /// Show one trace as a tree
    Trace(commands::trace::TraceOptions),
    /// Ask logs in LogQL: lines, or numbers over time
    Logql(commands::logql::LogqlOptions),
    /// Follow logs by a LogQL query, as they come
    Tail(commands::logql::tail::TailOptions),
    /// Attribute keys: types, how often, and whether they have columns of their own
    Attributes(commands::attributes::AttributesOptions),
    /// The catalog against the buckets
    #[command(subcommand)]
    Catalog(commands::catalog::CatalogCommand),
    /// Storage profiles and prefix mappings in the metastore
    #[command(subcommand)]
    Profiles(commands::profiles::ProfilesCommand),
    /// Show and check the configuration
    #[command(subcommand)]
    Config(commands::config::ConfigCommand),
    /// Organizations: whose data it is
    #[command(subcommand)]
    Org(commands::org::OrgCommand),
    /// API keys
    #[command(subcommand)]
    Key(commands::key::KeyCommand),
    /// What waits, what is stored, how far behind
    Status,
    /// Inputs: waiting, being read, refused
    Inbox(commands::inbox::InboxOptions),
    /// Work: runnable, delayed, leased, dead
    Queue(commands::queue::QueueOptions),
    /// Live segments
    Segments(commands::segments::SegmentsOptions),
    /// Set the size of workloads, or run case files of decisions about sizes
    Scale(commands::scale::ScaleOptions),
    /// Find what is a bad idea in manifests of autoscalers
    Lint(commands::lint::LintOptions),
    /// What policies would have done with a load
    Simulate(commands::simulate::SimulateOptions),
    /// Decide a recorded incident again, and run other policies over its load
    Replay(commands::replay::ReplayOptions),
    /// Make objects as manifests say: workloads, policies, secrets …
    Apply(commands::fleet::apply::ApplyOptions),
    /// Show objects: kinds, names, selectors; -o yaml|json|wide|name|jsonpath=…; -w watches
    Get(commands::fleet::get::GetOptions),
    /// Show objects in full, with what happened to them
    Describe(commands::fleet::describe::DescribeOptions),
    /// Why a size is what it is: the last decisions, their reasons, values and ages
    Explain(commands::fleet::explain::ExplainOptions),
    /// What replicas print
    Logs(commands::fleet::logs::LogsOptions),
    /// What happened to objects
    Events(commands::fleet::events::EventsOptions),
    /// What replicas use
    Top(commands::fleet::top::TopOptions),
    /// Change fields of an object
    Patch(commands::fleet::patch::PatchOptions),
    /// Wait until objects are as told
    Wait(commands::fleet::wait::WaitOptions),
    /// Delete objects, with what they own
    Delete(commands::fleet::delete::DeleteOptions),
    /// Pause an autoscaler: its target keeps its size
    Pause(commands::fleet::pause::PauseOptions),
    /// Let a paused autoscaler go on
    Resume(commands::fleet::pause::PauseOptions),
    /// Check database, bucket, clock, disk and ports, and say how to fix each
    Doctor,
}

impl GlobalOptions {
    /// The configuration that these flags, with `more`, ask for.
    ///
    /// # Errors
    /// `Invalid` with every problem at once.
    pub fn load_config(&self, more: Vec<(String, String, String)>) -> Result<Config> {
        let mut flags = Vec::new();
        for assignment in &self.set {
            let Some((key, value)) = assignment.split_once('=') else {
                return Err(Error::invalid(format!("--set {assignment}: expected KEY=VALUE")));
            };
            flags.push((key.trim().to_owned(), "--set".to_owned(), value.trim().to_owned()));
        }
        if let Some(folder) = &self.data_dir {
            flags.push(("data_dir".to_owned(), "--data-dir".to_owned(), folder.display().to_string()));
        }
        flags.extend(more);
        Config::load(&Sources { file: self.config.clone(), flags })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// The words of a line of shell: quotes taken off, nothing else that a shell does.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote, mut is_word) = (Vec::new(), String::new(), None, false);
        for character in line.chars() {
            match (quote, character) {
                (Some(open), close) if open == close => quote = None,
                (None, '\'' | '"') => (quote, is_word) = (Some(character), true),
                (None, ' ') if is_word => {
                    words.push(std::mem::take(&mut word));
                    is_word = false;
                }
                (None, ' ') => {}
                _ => {
                    word.push(character);
                    is_word = true;
                }
            }
        }
        if is_word {
            words.push(word);
        }
        words
    }

    /// The commands of ours that the examples of `help` type.
    fn examples(help: &str) -> Vec<Vec<String>> {
        let lines = help.lines().filter(|line| line.starts_with("  "));
        // What stands far to the right says what the command does.
        let typed = lines.map(|line| line.trim_start().split("   ").next().unwrap_or_default());
        let ours = typed.filter_map(|line| line.find("tidemill ").map(|at| &line[at..]));
        // What is behind a `>` is the shell's.
        let ours = ours.map(|line| line.split(" > ").next().unwrap_or_default());
        ours.map(words).collect()
    }

    fn walk(command: &clap::Command, is_taught: bool, wrong: &mut Vec<String>) {
        let name = command.get_name().to_owned();
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let typed = examples(&help);
        for example in &typed {
            if let Err(error) = Cli::try_parse_from(example) {
                wrong.push(format!("{name}: {}: {error}", example.join(" ")));
            }
        }
        // One page of examples serves the commands below it.
        let is_taught = is_taught || !typed.is_empty() || ["status", "doctor"].contains(&name.as_str());
        if !is_taught && !command.has_subcommands() {
            wrong.push(format!("{name}: its help shows no example"));
        }
        if command.get_about().is_none() {
            wrong.push(format!("{name}: its help does not say what it does"));
        }
        // `help` is clap's own.
        let below = command.get_subcommands().filter(|below| below.get_name() != "help");
        below.for_each(|below| walk(below, is_taught && name != "tidemill", wrong));
    }

    #[test]
    fn help_teaches_by_examples_that_can_be_typed() {
        let mut wrong = Vec::new();
        walk(&Cli::command(), false, &mut wrong);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
