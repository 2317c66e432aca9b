//! `tidemill scale`: a size by hand, and the deciders alone, over files of cases.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use tidemill_scaling::cases::{self, CaseResult};

use crate::cli::GlobalOptions;
use crate::error::{Error, Result};
use crate::output::{Output, Table, print};

/// A size by hand, or what to do with decisions.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  tidemill scale deploy/web --replicas 3
  tidemill scale check cases/*.json"
)]
pub struct ScaleOptions {
    #[command(subcommand)]
    command: Option<ScaleCommand>,
    #[command(flatten)]
    size: super::fleet::scale::SizeOptions,
}

/// What to do with decisions.
#[derive(Debug, Subcommand)]
pub enum ScaleCommand {
    /// Run case files through the decision functions alone
    Check(CheckOptions),
}

/// Options of `scale check`.
#[derive(Debug, Args)]
#[command(
    after_help = "A case file is JSON: {\"cases\": [{\"id\", \"kind\", \"input\", \"expect\"}]}, or a list of cases under the name of their kind. A kind \
or an expectation that is not known fails. The kinds are told in docs/scaling.md.

Examples:
  tidemill scale check pure/scaling/tests/cases/hpa.json
  tidemill scale check cases/*.json --output json"
)]
pub struct CheckOptions {
    /// Case files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Checked {
    file: String,
    passed: usize,
    failed: usize,
    cases: Vec<CaseResult>,
}

/// Runs it.
///
/// # Errors
/// `Invalid` when a file cannot be read or a case fails.
pub fn run(global: &GlobalOptions, options: ScaleOptions) -> Result<()> {
    match options.command {
        Some(ScaleCommand::Check(check)) => run_check(global, &check),
        None => super::fleet::run(global, async |client| super::fleet::scale::run(client, options.size).await),
    }
}

fn run_check(global: &GlobalOptions, options: &CheckOptions) -> Result<()> {
    let mut checked = Vec::new();
    for path in &options.files {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| Error::io(file.clone(), error))?;
        let document = serde_json::from_str(&text).map_err(|error| Error::invalid(format!("{file}: {error}")))?;
        let cases = cases::run(&document).map_err(|error| Error::invalid(format!("{file}: {error}")))?;
        let passed = cases.iter().filter(|case| case.is_passed()).count();
        checked.push(Checked { file, passed, failed: cases.len() - passed, cases });
    }
    print(global.output, &checked, |checked| table(checked))?;
    let failed: usize = checked.iter().map(|file| file.failed).sum();
    let passed: usize = checked.iter().map(|file| file.passed).sum();
    if global.output == Output::Table {
        eprintln!("{passed} passed, {failed} failed");
    }
    if failed > 0 {
        return Err(Error::invalid(format!("{failed} of {} cases failed", failed + passed)));
    }
    Ok(())
}

/// Every failed case, and a line for each file and kind.
fn table(checked: &[Checked]) -> Table {
    let mut table = Table::new(&["FILE", "KIND", "CASE", "PASSED", "FAILED", "PROBLEM"]);
    for file in checked {
        let mut kinds: Vec<&str> = file.cases.iter().map(|case| case.kind.as_str()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let of_kind = || file.cases.iter().filter(|case| case.kind == kind);
            let passed = of_kind().filter(|case| case.is_passed()).count();
            let failed = of_kind().count() - passed;
            let cells = [file.file.as_str(), kind, "", &passed.to_string(), &failed.to_string(), ""];
            table.row(cells.map(str::to_owned).to_vec());
            for case in of_kind().filter(|case| !case.is_passed()) {
                let name = format!("{} {}", case.id, case.name);
                let cells = [file.file.as_str(), kind, &name, "", "", &case.problems.join("; ")];
                table.row(cells.map(str::to_owned).to_vec());
            }
        }
    }
    table
}
