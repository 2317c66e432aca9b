//! `tidemill simulate`: what policies would have done with a load.

mod lake;
pub mod policies;
pub mod world;

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use tidemill_sim::load::GENERATORS;
use tidemill_sim::{Load, Outcome, html, simulate};

use self::policies::PolicyOptions;
use self::world::WorldOptions;
use crate::cli::GlobalOptions;
use crate::error::{Error, Result};
use crate::output::{Output, Table, print, print_text, say};

/// Options of `simulate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Each workload is one queue of items, replicas or jobs that take one at a time, and the same decisions that production makes. \
Policies of files run with the clocks that KEDA and Kubernetes have; --native gives them one clock and wakes them by what arrives. Several policies \
of one workload are compared; a VerticalPodAutoscaler joins the HPA of its workload where that is stable. The same seed gives the same bytes.

Examples:
  tidemill simulate --compare --load burst:0.2,8,3600,120
  tidemill simulate -f policies/ --load trace.csv --factor 0.01 --output json
  tidemill simulate -f manifests/ --load api=sine:1,0.9,86400 --load worker=trace.csv --output html > day.html
  tidemill simulate --compare --load lake:7d --query \"SELECT date_trunc('minute', time) AS time, count(*) AS value FROM logs GROUP BY 1 ORDER BY 1\""
)]
pub struct SimulateOptions {
    #[command(flatten)]
    policies: PolicyOptions,
    /// A trace (CSV of time and count, or of times), a generator as poisson:0.5, or lake:7d with --query; NAME=LOAD is for one workload; repeatable
    #[arg(long = "load", required = true, value_name = "[NAME=]LOAD")]
    loads: Vec<String>,
    /// With lake:, the SQL whose rows are time and count, in order of time
    #[arg(long, value_name = "SQL")]
    query: Option<String>,
    /// How long a generator lasts, in seconds
    #[arg(long, default_value_t = 86_400, value_name = "SECONDS")]
    duration: u32,
    /// Multiplies the counts of a trace
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    factor: f64,
    #[command(flatten)]
    world: WorldOptions,
}

/// Runs it.
///
/// # Errors
/// `Invalid` for a load, a manifest or a number that cannot be used.
pub fn run(global: &GlobalOptions, options: &SimulateOptions) -> Result<()> {
    let setup = options.world.setup()?;
    let workloads = policies::workloads(&options.policies, setup.startup_ms)?;
    if workloads.is_empty() {
        return Err(
            Error::invalid("there is no policy to simulate").with_hint("name manifests with -f, or say --compare")
        );
    }
    let loads = Loads::read(global, options)?;
    let runs: Vec<(String, &Load, Vec<Outcome>)> = workloads
        .into_iter()
        .map(|(name, contenders)| {
            let load = loads.of(&name)?;
            let outcomes = contenders.iter().map(|contender| simulate(&setup, load, contender)).collect();
            Ok((name, load, outcomes))
        })
        .collect::<Result<_>>()?;
    loads.check_all_used(runs.iter().map(|(name, ..)| name.as_str()))?;
    if global.output == Output::Html {
        let sections: Vec<html::Section<'_>> = runs
            .iter()
            .map(|(workload, load, outcomes)| html::Section { workload, load, outcomes, recorded: None })
            .collect();
        return print_text(&html::page(&setup, &sections));
    }
    let outcomes: Vec<Outcome> = runs.into_iter().flat_map(|(.., outcomes)| outcomes).collect();
    tell_notes(&outcomes);
    print(global.output, &outcomes, |outcomes| table(outcomes))
}

/// What was left out is said, whatever is printed.
pub fn tell_notes(outcomes: &[Outcome]) {
    outcomes.iter().flat_map(|outcome| &outcome.notes).for_each(|note| say!("note: {note}"));
}

/// Loads by workload; one without a name is for all that have none of their own.
struct Loads {
    named: BTreeMap<String, Load>,
    common: Option<Load>,
}

impl Loads {
    fn read(global: &GlobalOptions, options: &SimulateOptions) -> Result<Self> {
        let mut loads = Self { named: BTreeMap::new(), common: None };
        for text in &options.loads {
            match text.split_once('=').filter(|(name, _)| !name.contains([':', '/', '.'])) {
                Some((name, text)) => {
                    let load = read_load(global, options, text)?;
                    if loads.named.insert(name.to_owned(), load).is_some() {
                        return Err(Error::invalid(format!("--load {name}=…: is given twice")));
                    }
                }
                None if loads.common.is_some() => {
                    let hint = "name the workloads: --load api=… --load worker=…";
                    return Err(Error::invalid(format!("--load {text}: there is a load without a name already"))
                        .with_hint(hint));
                }
                None => loads.common = Some(read_load(global, options, text)?),
            }
        }
        Ok(loads)
    }

    fn of(&self, workload: &str) -> Result<&Load> {
        self.named.get(workload).or(self.common.as_ref()).ok_or_else(|| {
            let hint = format!("give it one: --load {workload}=…, or one without a name for all others");
            Error::invalid(format!("the workload {workload} has no load")).with_hint(hint)
        })
    }

    fn check_all_used<'a>(&self, workloads: impl Iterator<Item = &'a str>) -> Result<()> {
        let known: Vec<&str> = workloads.collect();
        match self.named.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Error::invalid(format!("--load {name}=…: there is no such workload"))
                .with_hint(format!("the workloads are {}", known.join(", ")))),
            None => Ok(()),
        }
    }
}

fn read_load(global: &GlobalOptions, options: &SimulateOptions, text: &str) -> Result<Load> {
    let seed = options.world.seed;
    let path = Path::new(text);
    let loaded = if let Some(since) = text.strip_prefix("lake:") {
        let rows = lake::rows(global, since, options.query.as_deref())?;
        Load::trace(text, &rows, options.factor, seed)
    } else if path.exists() {
        let content = std::fs::read_to_string(path).map_err(|error| Error::io(text.to_owned(), error))?;
        let name = path.file_name().map_or(text.to_owned(), |name| name.to_string_lossy().into_owned());
        Load::trace(&name, &content, options.factor, seed)
    } else if text.contains(':') {
        Load::generate(text, i64::from(options.duration) * 1000, seed)
    } else {
        let hint = format!("the generators are {GENERATORS}");
        return Err(Error::invalid(format!("--load {text}: no such file, and no generator")).with_hint(hint));
    };
    loaded.map_err(|error| Error::invalid(error.to_string()))
}

/// A row for each policy.
pub fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new(&[
        "WORKLOAD",
        "POLICY",
        "P50 WAIT",
        "P99 WAIT",
        "MAX WAIT",
        "OVER OBJECTIVE",
        "REPLICA-HOURS",
        "CORE-HOURS",
        "STARTS",
        "IN VAIN",
        "FLAPS",
        "EVICTED",
        "OOM",
        "UNFINISHED",
    ]);
    for outcome in outcomes {
        table.row(vec![
            outcome.workload.clone(),
            outcome.policy.clone(),
            format!("{:.1} s", outcome.p50_wait_s),
            format!("{:.1} s", outcome.p99_wait_s),
            format!("{:.1} s", outcome.max_wait_s),
            format!("{} s", outcome.over_objective_s),
            format!("{:.2}", outcome.replica_hours),
            format!("{:.2}", outcome.core_hours),
            outcome.starts.to_string(),
            outcome.wasted.to_string(),
            outcome.flaps.to_string(),
            outcome.evictions.to_string(),
            outcome.ooms.to_string(),
            outcome.unfinished.to_string(),
        ]);
    }
    table
}
