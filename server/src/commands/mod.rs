//! The commands, one file each. A command reads its options, asks or builds, prints; it decides nothing else.

pub mod attributes;
pub mod catalog;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod fleet;
pub mod inbox;
pub mod key;
pub mod lint;
pub mod load;
pub mod logql;
pub mod org;
pub mod profiles;
pub mod promql;
pub mod queue;
pub mod replay;
pub mod role;
pub mod scale;
pub mod segments;
pub mod simulate;
pub mod sql;
pub mod status;
pub mod trace;
pub mod traceql;
pub mod up;
pub mod validate;

use std::future::Future;

use tidemill_types::ErrorKind;

use crate::cli::{Cli, Command, GlobalOptions};
use crate::client::Target;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::roles::Roles;

/// Runs what was typed.
///
/// # Errors
/// The command's; its kind is the exit code.
pub fn run(cli: Cli) -> Result<()> {
    let Cli { global, command } = cli;
    if global.output == Output::Html && !matches!(command, Command::Simulate(_) | Command::Replay(_)) {
        return Err(Error::invalid("--output html: only `tidemill simulate` and `tidemill replay` print a page"));
    }
    match command {
        Command::Up(options) => up::run(&global, &options),
        Command::Demo(options) => demo::run(&global, &options),
        Command::Receive(options) => role::run_receive(&global, &options),
        Command::Notify(options) => role::run_role(&global, &options, Roles { notify: true, ..Roles::default() }),
        Command::Worker(options) => role::run_worker(&global, &options),
        Command::Query(options) => role::run_role(&global, &options, Roles { query: true, ..Roles::default() }),
        Command::Sweeper(options) => role::run_role(&global, &options, Roles { sweep: true, ..Roles::default() }),
        Command::Load(options) => load::run(&global, options),
        Command::Sql(options) => sql::run(&global, options),
        Command::Promql(options) => promql::run(&global, &options),
        Command::Validate(options) => validate::run(&global, &options),
        Command::Traceql(options) => traceql::run(&global, &options),
        Command::Trace(options) => trace::run(&global, &options),
        Command::Logql(options) => logql::run(&global, &options),
        Command::Tail(options) => logql::tail::run(&global, &options),
        Command::Attributes(options) => attributes::run(&global, &options),
        Command::Catalog(command) => catalog::run(&global, command),
        Command::Profiles(command) => ask(&global, async |target| profiles::run(&target, command).await),
        Command::Config(command) => config::run(&global, &command),
        Command::Org(command) => ask(&global, async |target| org::run(&global, &target, command).await),
        Command::Key(command) => ask(&global, async |target| key::run(&global, &target, command).await),
        Command::Status => ask(&global, async |target| status::run(&global, &target).await),
        Command::Inbox(options) => ask(&global, async |target| inbox::run(&global, &target, options).await),
        Command::Queue(options) => ask(&global, async |target| queue::run(&global, &target, options).await),
        Command::Segments(options) => ask(&global, async |target| segments::run(&global, &target, options).await),
        Command::Scale(options) => scale::run(&global, options),
        Command::Lint(options) => lint::run(&global, &options),
        Command::Simulate(options) => simulate::run(&global, &options),
        Command::Replay(options) => replay::run(&global, &options),
        Command::Apply(options) => {
            fleet::run(&global, async |client| fleet::apply::run(&global, client, options).await)
        }
        Command::Get(options) => fleet::run(&global, async |client| fleet::get::run(&global, client, options).await),
        Command::Describe(options) => fleet::run(&global, async |client| fleet::describe::run(client, options).await),
        Command::Explain(options) => {
            fleet::run(&global, async |client| fleet::explain::run(&global, client, options).await)
        }
        Command::Logs(options) => fleet::run(&global, async |client| fleet::logs::run(client, options).await),
        Command::Events(options) => {
            fleet::run(&global, async |client| fleet::events::run(&global, client, options).await)
        }
        Command::Top(options) => fleet::run(&global, async |client| fleet::top::run(&global, client, options).await),
        Command::Patch(options) => {
            fleet::run(&global, async |client| fleet::patch::run(&global, client, options).await)
        }
        Command::Wait(options) => fleet::run(&global, async |client| fleet::wait::run(client, options).await),
        Command::Delete(options) => fleet::run(&global, async |client| fleet::delete::run(client, options).await),
        Command::Pause(options) => fleet::run(&global, async |client| fleet::pause::run(client, options, true).await),
        Command::Resume(options) => fleet::run(&global, async |client| fleet::pause::run(client, options, false).await),
        Command::Doctor => doctor::run(&global),
    }
}

/// Runs `command` against the installation that the flags name.
fn ask(global: &GlobalOptions, command: impl AsyncFnOnce(Target) -> Result<()>) -> Result<()> {
    let config = global.load_config(Vec::new())?;
    block_on(async {
        let target = Target::find(global, &config).await?;
        command(target).await
    })
}

/// Runs a short command to its end on this thread.
///
/// # Errors
/// The command's.
pub fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::caused(ErrorKind::Internal, "starting the runtime", error))?
        .block_on(future)
}

/// The runtime of a role: threads for the network, few for blocking work, so that an idle process stays small.
///
/// # Errors
/// When the system gives no threads.
pub fn server_runtime(config: &Config) -> Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let threads = match config.count("runtime.threads") {
        0 => cores.min(8),
        chosen => chosen,
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(4 * cores + 8)
        .thread_keep_alive(std::time::Duration::from_secs(5))
        .thread_name("tidemill")
        .enable_all()
        .build()
        .map_err(|error| Error::caused(ErrorKind::Internal, "starting the runtime", error))
}
