//! `tidemill promql`: the query language by itself, without a lake.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use tidemill_eval::promql::script::{MemoryPartitions, Report, run as run_script};

use crate::cli::GlobalOptions;
use crate::error::{Error, Result};
use crate::output::{Table, print};

/// What to do with PromQL.
#[derive(Debug, Subcommand)]
pub enum PromqlCommand {
    /// Run test scripts in Prometheus's format, and tell what passed
    #[command(after_help = "Example:\n  tidemill promql test operators.test functions.test --partitions 4")]
    Test {
        /// Scripts: `load`, `clear`, `eval instant|range` with what is expected
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Where the data of the scripts goes
        #[arg(long, value_enum, default_value_t)]
        store: ScriptStore,
        /// Over how many partitions the series are spread
        #[arg(long, default_value_t = 1, value_name = "NUMBER")]
        partitions: usize,
    },
}

/// Where the data of scripts goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ScriptStore {
    /// Memory.
    #[default]
    Memory,
}

#[derive(Serialize)]
struct Line {
    file: String,
    passed: usize,
    failed: usize,
    failures: Vec<Told>,
}

#[derive(Serialize)]
struct Told {
    line: usize,
    query: String,
    message: String,
}

/// How many partitions a script may ask for.
const MAX_PARTITIONS: usize = 1024;

/// Runs it.
///
/// # Errors
/// A file cannot be read, or a query did not give what its script expects.
pub fn run(global: &GlobalOptions, command: &PromqlCommand) -> Result<()> {
    let PromqlCommand::Test { files, store: ScriptStore::Memory, partitions } = command;
    if !(1..=MAX_PARTITIONS).contains(partitions) {
        return Err(Error::invalid(format!("--partitions {partitions}: from 1 to {MAX_PARTITIONS}")));
    }
    let mut lines = Vec::new();
    for path in files {
        let file = path.display().to_string();
        let script = std::fs::read_to_string(path).map_err(|error| Error::io(format!("reading {file}"), error))?;
        lines.push(line(file, run_script(&script, &mut MemoryPartitions::new(*partitions))));
    }
    for line in &lines {
        for told in &line.failures {
            eprintln!("{}:{}: {}\n    {}", line.file, told.line, told.query, told.message);
        }
    }
    print(global.output, &lines, |lines| {
        let mut table = Table::new(&["FILE", "PASSED", "FAILED"]);
        for line in lines {
            table.row(vec![line.file.clone(), line.passed.to_string(), line.failed.to_string()]);
        }
        table
    })?;
    let (failed, all): (usize, usize) =
        lines.iter().fold((0, 0), |(failed, all), line| (failed + line.failed, all + line.failed + line.passed));
    if failed == 0 { Ok(()) } else { Err(Error::invalid(format!("{failed} of {all} queries failed"))) }
}

fn line(file: String, report: Report) -> Line {
    let failures = report
        .failed
        .into_iter()
        .map(|failure| Told { line: failure.line, query: failure.what, message: failure.message })
        .collect::<Vec<_>>();
    Line { file, passed: report.passed, failed: failures.len(), failures }
}
