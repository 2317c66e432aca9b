//! `tidemill up`: every role in one place.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use crate::admin::Admin;
use crate::bootstrap::{FirstStart, create_first_organization, ensure_operator_key, exporter_lines, note_told};
use crate::cli::GlobalOptions;
use crate::commands::server_runtime;
use crate::config::Config;
use crate::data_folder::{DataFolder, Ports};
use crate::error::Result;
use crate::invocation::Invocation;
use crate::output::{print_text, say};
use crate::roles::{OwnTelemetry, Roles};
use crate::serve::{Outcome, RUNTIME_END, serve};
use crate::stack::Stack;
use crate::telemetry::{Telemetry, destination};

/// Flags of `up`; each sets a configuration key.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "Examples:
  tidemill up
  tidemill up --api-port 0 --grpc-port 0 --http-port 0      any free ports, written to tidemill-data/ports.json
  tidemill up --config production.toml --listen 0.0.0.0
  tidemill up --autoscaling native                          workers start when something waits, and end when nothing does
  tidemill up --set metastore.url=postgres://tidemill@db/tidemill --set storage.url=s3://telemetry")]
pub struct UpOptions {
    /// Bind this address [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// OTLP over gRPC [default: 4317; 0: any free port]
    #[arg(long, value_name = "PORT")]
    grpc_port: Option<String>,
    /// OTLP over HTTP [default: 4318; 0: any free port]
    #[arg(long, value_name = "PORT")]
    http_port: Option<String>,
    /// The query APIs, administration, health, metrics [default: 8080; 0: any free port]
    #[arg(long, value_name = "PORT")]
    api_port: Option<String>,
    /// Ask for no key; only on a loopback address
    #[arg(long)]
    no_auth: bool,
    /// Watch this folder for files named like object keys
    #[arg(long, value_name = "FOLDER")]
    watch: Option<PathBuf>,
    /// Send this process's own traces, logs and metrics to this OTLP/HTTP base URL
    #[arg(long, value_name = "URL")]
    otlp_export: Option<String>,
    /// Run workers as workloads of the fleet, scaled as these values of Lakerunner's chart say
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,
    /// Run workers as workloads of the fleet, scaled so: hpa, keda, disabled or native
    #[arg(long, value_name = "MODE")]
    autoscaling: Option<String>,
    /// How long a claim lasts unless extended [default: 60s]
    #[arg(long, value_name = "DURATION")]
    worker_lease: Option<String>,
}

impl UpOptions {
    /// The flags as configuration: key, flag as typed, value.
    pub fn settings(&self) -> Vec<(String, String, String)> {
        let watch = self.watch.as_ref().map(|folder| folder.display().to_string());
        let no_auth = self.no_auth.then(|| "false".to_owned());
        let flags = [
            ("listen.address", "--listen", self.listen.clone()),
            ("listen.grpc_port", "--grpc-port", self.grpc_port.clone()),
            ("listen.http_port", "--http-port", self.http_port.clone()),
            ("listen.api_port", "--api-port", self.api_port.clone()),
            ("auth.enabled", "--no-auth", no_auth),
            ("notify.watch", "--watch", watch),
            ("telemetry.otlp_export", "--otlp-export", self.otlp_export.clone()),
            ("roles.values", "--values", self.values.as_ref().map(|file| file.display().to_string())),
            ("roles.autoscaling", "--autoscaling", self.autoscaling.clone()),
            ("worker.lease", "--worker-lease", self.worker_lease.clone()),
        ];
        flags.into_iter().filter_map(|(key, flag, value)| Some((key.to_owned(), flag.to_owned(), value?))).collect()
    }
}

/// Runs it.
///
/// # Errors
/// Those of starting.
pub fn run(global: &GlobalOptions, options: &UpOptions) -> Result<()> {
    let started = Instant::now();
    let config = global.load_config(options.settings())?;
    let runtime = server_runtime(&config)?;
    let typed = Invocation::new(&config);
    let telemetry = Telemetry::start(&config, &destination(&config), runtime.handle())?;
    let own = OwnTelemetry { telemetry, ..OwnTelemetry::default() };
    let outcome = runtime.block_on(async {
        let (stack, _lock, first) = prepare(config).await?;
        let is_open = !stack.config.flag("auth.enabled");
        let admin = Admin { metastore: stack.metastore.clone() };
        let roles = if crate::fleet::roles::read(&stack.config)?.is_some() { Roles::FRONT } else { Roles::ALL };
        serve(stack, roles, own, async move |running| {
            announce(&running.ports, first.as_ref(), is_open, started.elapsed(), &typed)?;
            if first.is_some() {
                note_told(&admin).await?;
            }
            Ok(Outcome::GoOn)
        })
        .await
    });
    // Whatever still blocks a thread has had its grace.
    runtime.shutdown_timeout(RUNTIME_END);
    outcome
}

/// Opens the data folder for a whole server: locked, its spool emptied, its first organization and keys made.
///
/// # Errors
/// `Conflict` while another server runs on it; those of the stores.
pub async fn prepare(config: Config) -> Result<(Stack, tidemill_store::lock::DataFolderLock, Option<FirstStart>)> {
    let folder = DataFolder::new(config.data_dir());
    folder.create()?;
    let lock = folder.lock()?;
    folder.clear_spool()?;
    let stack = Stack::open(config, folder.spool()).await?;
    let admin = Admin { metastore: stack.metastore.clone() };
    let first = create_first_organization(&admin).await?;
    ensure_operator_key(&admin, &folder).await?;
    Ok((stack, lock, first))
}

/// Tells where everything is: what to paste on stdout, the rest on stderr.
///
/// # Errors
/// When stdout cannot be written.
pub fn announce(
    ports: &Ports,
    first: Option<&FirstStart>,
    is_open: bool,
    elapsed: Duration,
    typed: &Invocation,
) -> Result<()> {
    say!("tidemill is ready after {} ms", elapsed.as_millis());
    if let (Some(grpc), Some(http)) = (ports.grpc, ports.http) {
        say!("  OTLP    gRPC {}   HTTP {}", ports.url(grpc), ports.url(http));
    }
    say!("  API     {}", ports.url(ports.api));
    match first {
        Some(first) => {
            say!("  made    organization default ({}) and this key, shown only now:", first.organization)
        }
        None if is_open => say!("  no key is asked for (--no-auth)"),
        None => say!("  keys    {}; a new one: {}", typed.command("key list"), typed.command("key create")),
    }
    say!("Point an OpenTelemetry SDK or collector here:");
    print_text(&exporter_lines(ports, first.map(|first| first.key.as_str())))
}
