//! `tidemill demo`: everything here, real telemetry flowing in.

use std::time::Instant;

use clap::Args;

use crate::admin::Admin;
use crate::bootstrap::note_told;
use crate::cli::GlobalOptions;
use crate::commands::server_runtime;
use crate::commands::up::{UpOptions, announce, prepare};
use crate::config::Config;
use crate::demo::Demo;
use crate::error::Result;
use crate::invocation::Invocation;
use crate::output::say;
use crate::roles::{OwnTelemetry, Roles};
use crate::serve::{Outcome, RUNTIME_END, serve};
use crate::telemetry::{Destination, OwnDoor, Telemetry};

/// The share of its own traces that a demo keeps unless told otherwise: there are few, and they are to be seen.
const SAMPLE: &str = "0.5";

/// Flags of `demo`.
#[derive(Debug, Clone, Default, Args)]
#[command(
    after_help = "Three sources fill the lake: sixteen minutes of a small shop, recorded under real OpenTelemetry SDKs and moved
to end now; this machine's metrics; and what this process tells of itself (organization `tidemill`, kept a day).

Examples:
  tidemill demo
  tidemill demo --data-dir /tmp/mill --api-port 0 --grpc-port 0 --http-port 0"
)]
pub struct DemoOptions {
    #[command(flatten)]
    up: UpOptions,
    /// End as soon as the capture is loaded and the queries are shown
    #[arg(long)]
    exit_after_load: bool,
}

/// Runs it.
///
/// # Errors
/// Those of starting, loading and querying.
pub fn run(global: &GlobalOptions, options: &DemoOptions) -> Result<()> {
    let started = Instant::now();
    let config = load_config(global, options)?;
    let runtime = server_runtime(&config)?;
    let typed = Invocation::new(&config);
    let data_dir = config.data_dir();
    let (own, host) = (OwnDoor::new(runtime.handle().clone()), OwnDoor::new(runtime.handle().clone()));
    let destination = Destination::Here { own: own.clone(), host: host.clone() };
    let telemetry = Telemetry::start(&config, &destination, runtime.handle())?;
    let exit_after_load = options.exit_after_load;
    let outcome = runtime.block_on(async {
        let (stack, _lock, first) = prepare(config).await?;
        let admin = Admin { metastore: stack.metastore.clone() };
        let demo = Demo::prepare(&admin).await?;
        let doors = OwnTelemetry {
            telemetry,
            doors: vec![(own, demo.own), (host.clone(), demo.shown)],
            organization: Some(demo.own),
        };
        let is_open = !stack.config.flag("auth.enabled");
        serve(stack, Roles::ALL, doors, async move |running| {
            announce(&running.ports, first.as_ref(), is_open, started.elapsed(), &typed)?;
            if first.is_some() {
                note_told(&admin).await?;
            }
            demo.load_capture(&admin, &host).await?;
            if let Some(queries) = &running.queries {
                demo.show(queries, &typed).await?;
            }
            if exit_after_load {
                return Ok(Outcome::Stop);
            }
            say!("\nEverything goes on flowing in until ctrl-c. The data stays in {}.", data_dir.display());
            Ok(Outcome::GoOn)
        })
        .await
    });
    runtime.shutdown_timeout(RUNTIME_END);
    outcome
}

fn load_config(global: &GlobalOptions, options: &DemoOptions) -> Result<Config> {
    let config = global.load_config(options.up.settings())?;
    if config.settings.get("telemetry.sample").origin != crate::config::Origin::Default {
        return Ok(config);
    }
    let mut settings = options.up.settings();
    settings.push(("telemetry.sample".to_owned(), "demo".to_owned(), SAMPLE.to_owned()));
    global.load_config(settings)
}
