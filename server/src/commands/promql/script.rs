//! `tidemill promql test`: scripts in Prometheus's format.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;
use tidemill_eval::promql::script::{MemoryPartitions, Report, run as run_script};

use super::segments::SegmentStore;
use crate::cli::GlobalOptions;
use crate::error::{Error, Result};
use crate::output::{Table, print};

/// Which scripts, and where their data goes.
#[derive(Debug, Args)]
pub struct TestOptions {
    /// Scripts: `load`, `clear`, `eval instant|range` with what is expected
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where the data of the scripts goes: memory, or segments that are late, overlapping, repeated and partly compacted
    #[arg(long, value_enum, default_value_t)]
    store: ScriptStore,
    /// Over how many partitions the series are spread in memory
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    partitions: usize,
    /// Decides how samples are spread over segments
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    seed: u64,
}

/// Where the data of scripts goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ScriptStore {
    /// Memory.
    #[default]
    Memory,
    /// Segments of a lake.
    Segments,
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

/// Runs them.
///
/// # Errors
/// A file cannot be read, or a query did not give what its script expects.
pub fn run(global: &GlobalOptions, options: &TestOptions) -> Result<()> {
    let TestOptions { files, store, partitions, seed } = options;
    if !(1..=MAX_PARTITIONS).contains(partitions) {
        return Err(Error::invalid(format!("--partitions {partitions}: from 1 to {MAX_PARTITIONS}")));
    }
    if *store == ScriptStore::Segments && *partitions > 1 {
        return Err(Error::invalid("--partitions is of --store memory; how segments are cut is decided by --seed"));
    }
    let mut lines = Vec::new();
    for path in files {
        let file = path.display().to_string();
        let script = std::fs::read_to_string(path).map_err(|error| Error::io(format!("reading {file}"), error))?;
        let report = match store {
            ScriptStore::Memory => run_script(&script, &mut MemoryPartitions::new(*partitions)),
            ScriptStore::Segments => run_script(&script, &mut SegmentStore::new(*seed)?),
        };
        lines.push(line(file, report));
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
