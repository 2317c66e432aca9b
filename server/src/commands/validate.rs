//! `tidemill validate`: whether a text is a query of its language, and where not.

use std::io::Read as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::GlobalOptions;
use crate::error::{Error, Result};
use crate::output::print_text;

/// The largest text that is read.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// Which language, and the text.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill validate promql 'sum by (job) (rate(http_server_requests_total[5m]))'
  tidemill validate promql -f query.txt
  echo 'up == 0' | tidemill validate promql -f -

A query of PromQL is printed as it is understood. A text that is none ends with its line and column, and exit code 3.")]
pub struct ValidateOptions {
    /// The language
    #[arg(value_enum)]
    language: Language,
    /// The query
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    query: Option<String>,
    /// Read the query from a file, or - for stdin
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// The languages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// PromQL.
    Promql,
    /// LogQL.
    Logql,
    /// TraceQL.
    Traceql,
}

/// Runs it.
///
/// # Errors
/// `Invalid` with the place in the text; a file cannot be read.
pub fn run(_: &GlobalOptions, options: &ValidateOptions) -> Result<()> {
    let text = match (&options.query, &options.file) {
        (Some(query), _) => query.clone(),
        (None, Some(file)) => read(file)?,
        (None, None) => return Err(Error::invalid("a query or --file is needed")),
    };
    let text = text.trim_end();
    let told = match options.language {
        Language::Promql => {
            // Regular expressions are read only where a query is evaluated.
            tidemill_eval::promql::selectors_in(text).map_err(|error| Error::invalid(error.to_string()))?;
            tidemill_lang::promql::parse(text).map(|tree| tree.to_string())
        }
        Language::Logql => tidemill_lang::logql::parse(text).map(|_| text.to_owned()),
        Language::Traceql => tidemill_lang::traceql::parse(text).map(|_| text.to_owned()),
    };
    let told = told.map_err(|refusal| Error::invalid(refusal.to_string()))?;
    print_text(&format!("{told}\n"))
}

fn read(file: &PathBuf) -> Result<String> {
    let failed = |error| Error::io(format!("reading {}", file.display()), error);
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_TEXT_BYTES).read_to_string(&mut text).map_err(failed)?;
    } else {
        let opened = std::fs::File::open(file).map_err(failed)?;
        opened.take(MAX_TEXT_BYTES).read_to_string(&mut text).map_err(failed)?;
    }
    Ok(text)
}
