//! `tidemill replay`: a recorded incident decided again, and what other policies would have done with it.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tidemill_sim::replay::{Again, Asked, Incident, Recorded};
use tidemill_sim::{Contender, Outcome, html, simulate};

use super::simulate::policies::{self, PolicyOptions};
use super::simulate::world::WorldOptions;
use super::simulate::{table, tell_notes};
use crate::cli::GlobalOptions;
use crate::error::{Error, Result};
use crate::output::{Output, print, print_text, say};

/// The largest file that is read.
const MAX_BYTES: u64 = 1 << 30;
/// Differences that are told on stderr.
const TOLD: usize = 20;

/// Options of `replay`.
#[derive(Debug, Args)]
#[command(
    after_help = "The file holds records as tidemill explain -o json prints them, or lines of {\"now\", \"observation\"}. Every decision is made \
again from its record; the exit code is 3 when one comes out differently. The recorded policy, and those of -f and --compare, run over the load that the \
records show: what was there more, and what the working replicas did meanwhile at the --service time.

Examples:
  tidemill explain scaledobject/worker -o json > incident.jsonl
  tidemill replay incident.jsonl --service 5
  tidemill replay incident.jsonl -f policies/ --compare --output html > incident.html"
)]
pub struct ReplayOptions {
    /// Records of one object
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    policies: PolicyOptions,
    #[command(flatten)]
    world: WorldOptions,
}

#[derive(Serialize)]
struct Report {
    file: String,
    again: Again,
    recorded: Recorded,
    /// Other policies asked about the same observations, one by one.
    asked: Vec<Asked>,
    /// The recorded policy and the others over the load that the records show.
    outcomes: Vec<Outcome>,
}

/// Runs it.
///
/// # Errors
/// `Invalid` for a file, a manifest or a number that cannot be used, and when a decision is not reproduced.
pub fn run(global: &GlobalOptions, options: &ReplayOptions) -> Result<()> {
    let file = options.file.display().to_string();
    let size = std::fs::metadata(&options.file).map_err(|error| Error::io(file.clone(), error))?.len();
    if size > MAX_BYTES {
        return Err(Error::invalid(format!("{file}: has {size} bytes; at most {MAX_BYTES} are read")));
    }
    let text = std::fs::read_to_string(&options.file).map_err(|error| Error::io(file.clone(), error))?;
    let refused = |error: tidemill_sim::LoadError| Error::invalid(error.to_string());
    let incident = Incident::read(&file, &text).map_err(refused)?;
    let setup = options.world.setup()?;
    let again = incident.again();
    let recorded_policy = incident.policy().cloned();
    let others: Vec<Contender> = policies::workloads(&options.policies, setup.startup_ms)?
        .into_iter()
        .flat_map(|(_, contenders)| contenders)
        .collect();
    let asked = others.iter().filter_map(|other| incident.ask(&other.name, &other.policy)).collect();
    let contenders: Vec<Contender> =
        recorded_policy.map(|policy| Contender::by_profile("as recorded", policy)).into_iter().chain(others).collect();
    let load = incident.load(&setup).map_err(refused)?;
    let outcomes: Vec<Outcome> = contenders.iter().map(|contender| simulate(&setup, &load, contender)).collect();
    let report = Report { file: file.clone(), again, recorded: incident.recorded(&setup), asked, outcomes };
    if global.output == Output::Html {
        let (outcomes, recorded) = (report.outcomes.as_slice(), Some(&report.recorded));
        print_text(&html::page(&setup, &[html::Section { workload: &file, load: &load, outcomes, recorded }]))?;
    } else {
        print(global.output, &report, |report| table(&report.outcomes))?;
    }
    tell(&report);
    let missed = report.again.decisions - report.again.reproduced;
    if missed > 0 {
        return Err(Error::invalid(format!("{missed} of {} decisions were not reproduced", report.again.decisions)));
    }
    Ok(())
}

fn tell(report: &Report) {
    tell_notes(&report.outcomes);
    let Again { decisions, reproduced, differences } = &report.again;
    say!("{reproduced} of {decisions} decisions reproduced");
    for difference in differences.iter().take(TOLD) {
        say!("entry {} at {} ms: {}", difference.place, difference.at.0, difference.what.join("; "));
    }
    let recorded = &report.recorded;
    say!("recorded: {:.2} replica-hours, {} changes", recorded.replica_hours, recorded.changes);
    for asked in &report.asked {
        say!(
            "{}: asked about the same {} observations, it decides {} of them differently",
            asked.policy,
            asked.observations,
            asked.different
        );
    }
}
