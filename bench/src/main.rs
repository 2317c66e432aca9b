//! The benchmarks' own process: makes telemetry, sends it, and measures the parts that have no door of their own.
//!
//! Its CPU time never counts: what is measured is the server's. It never judges; the drivers beside it (`bench/*.py`) run the
//! peers on the same records, compare the answers, and write `docs/bench/`. Start with [`Command`].

mod generate;
mod planning;
mod push;
mod queue;
mod records;
mod templates;

use std::io::Write;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Makes and sends the load of Tidemill's benchmarks")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write records as OTLP requests, and the same records as NDJSON for the peer.
    Generate(generate::Options),
    /// Send generated requests as fast as they are acknowledged.
    Push(push::Options),
    /// Plan one hour over many synthetic segments.
    Planning(planning::Options),
    /// Enqueue, claim and complete jobs that do nothing.
    Queue(queue::Options),
}

fn main() -> anyhow::Result<()> {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let report = match Arguments::parse().command {
        Command::Generate(options) => generate::run(&options)?,
        Command::Push(options) => runtime()?.block_on(push::run(&options))?,
        Command::Planning(options) => planning::run(&options),
        Command::Queue(options) => runtime()?.block_on(queue::run(&options))?,
    };
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}
