//! The one binary: reads the command line, runs the command, tells its outcome by message and exit code.

mod admin;
mod api_keys;
mod auth;
mod bootstrap;
mod cli;
mod client;
mod commands;
mod config;
mod data_folder;
mod demo;
mod encode;
mod error;
mod fleet;
mod http;
mod intake;
mod invocation;
mod listener;
mod metrics;
mod notifications;
mod open_bucket;
mod output;
mod preface;
mod present;
mod profiles;
mod progress;
mod query;
mod roles;
mod routing;
mod serve;
mod stack;
mod telemetry;
mod tls;
mod tls_pinned;

use std::process::ExitCode;

use clap::Parser as _;

use cli::Cli;
use error::Error;
use output::say;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The small parent of a replica's container: it stays small by being nothing else.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == tidemill_fleet::local::shim::COMMAND) {
        return ExitCode::from(tidemill_fleet::local::shim::main(arguments));
    }
    let cli = Cli::parse();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn report(error: &Error) {
    say!("error: {}", error.full_message());
    if let Some(hint) = error.hint() {
        say!("  how to go on: {hint}");
    }
}
