//! `tidemill simulate`: what policies would have done with a load.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use tidemill_scaling::manifest::{Body, Object};
use tidemill_scaling::record::Policy;
use tidemill_sim::load::GENERATORS;
use tidemill_sim::{Contender, Counts, Load, Outcome, Setup, html, simulate};

use super::lint::read_all;
use crate::cli::GlobalOptions;
use crate::error::{Error, Result};
use crate::output::{Output, Table, print, print_text};

/// Options of `simulate`.
#[derive(Debug, Args)]
#[command(
    after_help = "One queue of items, replicas or jobs that take one at a time, and the same decisions that production makes. Policies of files run \
with the clocks that KEDA and Kubernetes have; --native gives them one clock and wakes them by what arrives. The same seed gives the same bytes.

Examples:
  tidemill simulate --compare --load burst:0.2,8,3600,120
  tidemill simulate -f policies/ --load trace.csv --factor 0.01 --output json
  tidemill simulate --compare --load sine:1,0.9,86400 --output html > day.html"
)]
pub struct SimulateOptions {
    /// A manifest, or a folder of them, with policies; repeatable
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A trace (CSV of time and count, or of times) or a generator, as poisson:0.5
    #[arg(long, value_name = "TRACE|GENERATOR")]
    load: String,
    /// Also run a CPU HPA, KEDA with its defaults and at its best, exact jobs, backlog, and backlog with a forecast
    #[arg(long)]
    compare: bool,
    /// Run the policies of files the native way
    #[arg(long)]
    native: bool,
    /// How long a generator lasts, in seconds
    #[arg(long, default_value_t = 86_400, value_name = "SECONDS")]
    duration: u32,
    /// Multiplies the counts of a trace
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    factor: f64,
    /// How long one item takes on average, in seconds
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    service: f64,
    /// How long a replica takes to start on average, in seconds
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    startup: f64,
    /// The chance that an item takes its replica down, 0 to 1
    #[arg(long, default_value_t = 0.0, value_name = "CHANCE")]
    failure: f64,
    /// The wait that should not be passed, in seconds
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    objective: f64,
    /// What the queue's number counts
    #[arg(long, value_enum, default_value_t = Counted::Unfinished)]
    counts: Counted,
    /// The largest size of the policies of --compare
    #[arg(long, default_value_t = 50, value_name = "REPLICAS", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    max_replicas: i32,
    /// The seed of chance
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What a queue's number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Counted {
    /// Items that wait
    Unclaimed,
    /// Items that wait or are worked on
    Unfinished,
}

/// Runs it.
///
/// # Errors
/// `Invalid` for a load, a manifest or a number that cannot be used.
pub fn run(global: &GlobalOptions, options: &SimulateOptions) -> Result<()> {
    let setup = setup(options)?;
    let load = load(options)?;
    let mut contenders = contenders(options)?;
    if options.compare {
        contenders.extend(Contender::comparison(options.max_replicas, setup.startup_ms));
    }
    if contenders.is_empty() {
        return Err(
            Error::invalid("there is no policy to simulate").with_hint("name manifests with -f, or say --compare")
        );
    }
    let outcomes: Vec<Outcome> = contenders.iter().map(|contender| simulate(&setup, &load, contender)).collect();
    if global.output == Output::Html {
        return print_text(&html::page(&setup, &load, &outcomes));
    }
    print(global.output, &outcomes, |outcomes| table(outcomes))
}

fn setup(options: &SimulateOptions) -> Result<Setup> {
    let ms = |name: &str, seconds: f64| {
        if seconds.is_finite() && (0.0..=86_400.0).contains(&seconds) {
            return Ok((seconds * 1000.0) as i64);
        }
        Err(Error::invalid(format!("--{name} {seconds}: expected seconds from 0 to 86400")))
    };
    if !(0.0..=0.9).contains(&options.failure) {
        return Err(Error::invalid(format!("--failure {}: expected a chance from 0 to 0.9", options.failure)));
    }
    Ok(Setup {
        seed: options.seed,
        service_ms: ms("service", options.service)?,
        startup_ms: ms("startup", options.startup)?,
        failure: options.failure,
        objective_ms: ms("objective", options.objective)?,
        counts: match options.counts {
            Counted::Unclaimed => Counts::Unclaimed,
            Counted::Unfinished => Counts::Unfinished,
        },
    })
}

fn load(options: &SimulateOptions) -> Result<Load> {
    let text = &options.load;
    if text.starts_with("lake:") {
        let message = "loads from the lake are not read yet";
        return Err(Error::invalid(message).with_hint("export the counts as CSV with tidemill sql, and name that file"));
    }
    let path = Path::new(text);
    let loaded = if path.exists() {
        let content = std::fs::read_to_string(path).map_err(|error| Error::io(text.clone(), error))?;
        let name = path.file_name().map_or(text.clone(), |name| name.to_string_lossy().into_owned());
        Load::trace(&name, &content, options.factor, options.seed)
    } else if text.contains(':') {
        Load::generate(text, i64::from(options.duration) * 1000, options.seed)
    } else {
        let hint = format!("the generators are {GENERATORS}");
        return Err(Error::invalid(format!("--load {text}: no such file, and no generator")).with_hint(hint));
    };
    loaded.map_err(|error| Error::invalid(error.to_string()))
}

fn contenders(options: &SimulateOptions) -> Result<Vec<Contender>> {
    let (objects, problems) = read_all(&options.files)?;
    if !problems.is_empty() {
        let lines: Vec<String> = problems
            .iter()
            .map(|problem| format!("{}:{}: {}: {}", problem.file, problem.line, problem.path, problem.message))
            .collect();
        return Err(Error::invalid(lines.join("\n")));
    }
    let contender = |object: &Object| {
        let policy = match &object.body {
            Body::ScaledObject { policy, .. } => Policy::ScaledObject(policy.clone()),
            Body::ScaledJob { policy, .. } => Policy::ScaledJob((**policy).clone()),
            Body::Horizontal { policy, .. } => Policy::HorizontalPodAutoscaler((**policy).clone()),
            _ => return None,
        };
        let name = format!("{} {}", object.kind, object.name);
        Some(if options.native { Contender::native(&name, policy) } else { Contender::upstream(&name, policy) })
    };
    Ok(objects.iter().filter_map(contender).collect())
}

fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new(&[
        "POLICY",
        "P50 WAIT",
        "P99 WAIT",
        "MAX WAIT",
        "OVER OBJECTIVE",
        "REPLICA-HOURS",
        "STARTS",
        "IN VAIN",
        "FLAPS",
        "UNFINISHED",
    ]);
    for outcome in outcomes {
        table.row(vec![
            outcome.policy.clone(),
            format!("{:.1} s", outcome.p50_wait_s),
            format!("{:.1} s", outcome.p99_wait_s),
            format!("{:.1} s", outcome.max_wait_s),
            format!("{} s", outcome.over_objective_s),
            format!("{:.2}", outcome.replica_hours),
            outcome.starts.to_string(),
            outcome.wasted.to_string(),
            outcome.flaps.to_string(),
            outcome.unfinished.to_string(),
        ]);
    }
    table
}
