//! `tidemill receive|notify|worker|query|sweeper`: one role, for a cluster over PostgreSQL, or beside an `up` on one host.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use tidemill_types::{Action, Signal};

use crate::cli::GlobalOptions;
use crate::commands::server_runtime;
use crate::data_folder::DataFolder;
use crate::error::{Error, Result};
use crate::output::say;
use crate::roles::{OwnTelemetry, Roles};
use crate::serve::{Outcome, RUNTIME_END, serve};
use crate::stack::Stack;
use crate::telemetry::{Telemetry, destination};

/// What the help of each role teaches below its flags.
pub const NOTIFY_HELP: &str =
    "Which sources it has is configuration (docs/notifications.md); the webhook is always there.

Examples:
  tidemill notify --set notify.watch=/var/spool/telemetry
  tidemill notify --config production.toml --set notify.sqs_queue_url=https://sqs.eu-west-3.amazonaws.com/1234/events";
pub const QUERY_HELP: &str = "Examples:
  tidemill query --config production.toml --listen 0.0.0.0
  curl -H 'x-api-key: KEY' -H 'accept: text/csv' http://127.0.0.1:8080/api/v1/sql -d 'SELECT count(*) FROM logs'";
pub const SWEEPER_HELP: &str = "One is enough for an installation; several do no harm.

Examples:
  tidemill sweeper --config production.toml
  tidemill sweeper --set sweep.interval=5m --api-port 8081";

/// Flags of a single role.
#[derive(Debug, Clone, Default, Args)]
pub struct RoleOptions {
    /// Bind this address [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Health, metrics and this role's API [default: 8080; 0: any free port]
    #[arg(long, value_name = "PORT")]
    api_port: Option<String>,
}

/// Flags of the receiver.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "Examples:
  tidemill receive --config production.toml --listen 0.0.0.0
  tidemill receive --set metastore.url=postgres://tidemill@db/tidemill --set storage.url=s3://telemetry")]
pub struct ReceiveOptions {
    #[command(flatten)]
    role: RoleOptions,
    /// OTLP over gRPC [default: 4317; 0: any free port]
    #[arg(long, value_name = "PORT")]
    grpc_port: Option<String>,
    /// OTLP over HTTP [default: 4318; 0: any free port]
    #[arg(long, value_name = "PORT")]
    http_port: Option<String>,
}

/// Flags of a worker.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "Examples:
  tidemill worker
  tidemill worker --signal logs --action ingest --action compact")]
pub struct WorkerOptions {
    #[command(flatten)]
    role: RoleOptions,
    /// Serve only this signal (repeatable)
    #[arg(long)]
    signal: Vec<Signal>,
    /// Perform only this action (repeatable)
    #[arg(long)]
    action: Vec<Action>,
    /// How long a claim lasts unless extended [default: 60s]
    #[arg(long, value_name = "DURATION")]
    worker_lease: Option<String>,
}

type Setting = (&'static str, &'static str, Option<String>);

impl RoleOptions {
    fn settings(&self) -> Vec<Setting> {
        vec![
            ("listen.address", "--listen", self.listen.clone()),
            ("listen.api_port", "--api-port", self.api_port.clone()),
        ]
    }
}

/// Runs the receiver.
///
/// # Errors
/// Those of starting; so for all below.
pub fn run_receive(global: &GlobalOptions, options: &ReceiveOptions) -> Result<()> {
    let mut settings = options.role.settings();
    settings.push(("listen.grpc_port", "--grpc-port", options.grpc_port.clone()));
    settings.push(("listen.http_port", "--http-port", options.http_port.clone()));
    run(global, settings, Roles { receive: true, ..Roles::default() })
}

/// Runs a worker.
pub fn run_worker(global: &GlobalOptions, options: &WorkerOptions) -> Result<()> {
    let join = |items: Vec<&str>| Some(items.join(",")).filter(|text| !text.is_empty());
    let mut settings = options.role.settings();
    settings.push(("worker.signals", "--signal", join(options.signal.iter().map(|it| it.as_str()).collect())));
    settings.push(("worker.actions", "--action", join(options.action.iter().map(|it| it.as_str()).collect())));
    settings.push(("worker.lease", "--worker-lease", options.worker_lease.clone()));
    run(global, settings, Roles { work: true, ..Roles::default() })
}

/// Runs another role.
pub fn run_role(global: &GlobalOptions, options: &RoleOptions, roles: Roles) -> Result<()> {
    run(global, options.settings(), roles)
}

fn run(global: &GlobalOptions, settings: Vec<Setting>, roles: Roles) -> Result<()> {
    let started = Instant::now();
    let flags = settings.into_iter().filter_map(|(key, flag, value)| Some((key.to_owned(), flag.to_owned(), value?)));
    let config = global.load_config(flags.collect())?;
    let runtime = server_runtime(&config)?;
    let telemetry = Telemetry::start(&config, &destination(&config), runtime.handle())?;
    let own = OwnTelemetry { telemetry, ..OwnTelemetry::default() };
    let outcome = runtime.block_on(async {
        let folder = DataFolder::new(config.data_dir());
        folder.create()?;
        let spool = Spool::create(folder.spool_of_process(roles.name()))?;
        let stack = Stack::open(config, spool.0.clone()).await?;
        serve(stack, roles, own, async move |running| {
            say!(
                "tidemill is ready after {} ms; health and metrics at {}",
                started.elapsed().as_millis(),
                running.ports.url(running.ports.api)
            );
            Ok(Outcome::GoOn)
        })
        .await
    });
    runtime.shutdown_timeout(RUNTIME_END);
    outcome
}

/// The spool folder of this process, deleted with it.
struct Spool(PathBuf);

impl Spool {
    fn create(path: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&path).map_err(|error| Error::io(format!("creating {}", path.display()), error))?;
        Ok(Self(path))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "the spool folder");
        }
    }
}
