//! `tidemill lint`: manifests that can be read and are still a bad idea.

mod promql;

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use tidemill_scaling::lint::{Finding, Severity, lint_with};
use tidemill_scaling::manifest::{Object, Problem, read};

use crate::cli::GlobalOptions;
use crate::error::{Error, Result};
use crate::output::{Output, Table, print};

/// Files that one call reads at most.
const MAX_FILES: usize = 10_000;

/// Options of `lint`.
#[derive(Debug, Args)]
#[command(
    after_help = "The objects of all files are looked at together. The exit code is 3 when anything is found; --allow-warnings lets \
warnings pass. The rules are told in docs/scaling.md.

Examples:
  tidemill lint -f manifests/
  tidemill lint -f hpa.yaml -f vpa.yaml --output json
  tidemill lint -f manifests/ --prometheus http://127.0.0.1:9090"
)]
pub struct LintOptions {
    /// A manifest, or a folder of them; repeatable
    #[arg(short = 'f', long = "file", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Ask this Prometheus, or what speaks its API, whether the series of queries exist and of which type they are
    #[arg(long, value_name = "URL")]
    prometheus: Option<String>,
    /// Warnings alone do not fail
    #[arg(long)]
    allow_warnings: bool,
}

#[derive(Serialize)]
struct Report {
    problems: Vec<Problem>,
    findings: Vec<Finding>,
}

/// Runs it.
///
/// # Errors
/// `Invalid` when a manifest cannot be read or something is found.
pub fn run(global: &GlobalOptions, options: &LintOptions) -> Result<()> {
    let (objects, problems) = read_all(&options.files)?;
    let queries = promql::Known::of(&objects, options.prometheus.as_deref())?;
    let report = Report { findings: lint_with(&objects, &queries), problems };
    print(global.output, &report, table)?;
    let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let warnings = report.findings.len() - errors;
    if global.output == Output::Table {
        eprintln!(
            "{} objects, {} that cannot be read, {errors} errors, {warnings} warnings",
            objects.len(),
            report.problems.len()
        );
    }
    if !report.problems.is_empty() || errors > 0 || (warnings > 0 && !options.allow_warnings) {
        return Err(Error::invalid("the manifests have findings"));
    }
    Ok(())
}

/// The objects of files and folders, and what could not be read in them.
///
/// # Errors
/// A file or folder that is not there, or too many of them.
pub fn read_all(paths: &[PathBuf]) -> Result<(Vec<Object>, Vec<Problem>)> {
    let mut files = Vec::new();
    for path in paths {
        collect(path, &mut files, true)?;
    }
    let (mut objects, mut problems) = (Vec::new(), Vec::new());
    for path in files {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).map_err(|error| Error::io(name.clone(), error))?;
        match read(&name, &text) {
            Ok(found) => objects.extend(found),
            Err(found) => problems.extend(found),
        }
    }
    Ok((objects, problems))
}

/// A file that is named, or the YAML files of a folder and its folders, by name.
fn collect(path: &Path, files: &mut Vec<PathBuf>, is_named: bool) -> Result<()> {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|error| Error::io(path.display().to_string(), error))?;
        let mut inside: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        inside.sort();
        return inside.iter().try_for_each(|path| collect(path, files, false));
    }
    let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    if is_named || is_yaml {
        if files.len() == MAX_FILES {
            return Err(Error::invalid(format!("more than {MAX_FILES} files")));
        }
        files.push(path.to_owned());
    }
    Ok(())
}

fn table(report: &Report) -> Table {
    let mut table = Table::new(&["PLACE", "RULE", "OBJECT", "WHY", "FIX"]);
    for problem in &report.problems {
        let place = format!("{}:{}", problem.file, problem.line);
        table.row(vec![place, "unreadable".to_owned(), problem.path.clone(), problem.message.clone(), String::new()]);
    }
    for finding in &report.findings {
        let place = format!("{}:{}", finding.file, finding.line);
        let object = format!("{} {}", finding.object, finding.path);
        table.row(vec![place, finding.rule.clone(), object, finding.why.clone(), finding.fix.clone()]);
    }
    table
}
