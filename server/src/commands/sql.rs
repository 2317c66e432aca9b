//! `tidemill sql`: one statement, its rows on stdout.

use std::io::Read as _;

use clap::Args;
use futures::StreamExt as _;
use http::{Method, header};
use serde_json::Value;
use tidemill_lake::clock::{Clock as _, SystemClock};
use tidemill_types::{ErrorKind, OrganizationId};

use crate::bootstrap::FIRST_ORGANIZATION;
use crate::cli::GlobalOptions;
use crate::client::{Remote, Target, error_of, find_server};
use crate::commands::load::acting_for_the_only_one;
use crate::commands::server_runtime;
use crate::config::{Config, format_bytes, parse_duration};
use crate::data_folder::DataFolder;
use crate::encode::{Answer, OutputFormat};
use crate::error::{Error, Result};
use crate::http::{Problem, QUERY_ID_HEADER, SqlRequest, WARNING_HEADER};
use crate::output::{Output, Reader, print_bytes, say};
use crate::query::{Queries, RequestedLimits};
use crate::stack::Stack;

/// A statement and how its rows are printed.
#[derive(Debug, Args)]
#[command(after_help = "Tables: logs, metrics, spans. An attribute is attr('key'), resource('key') or scope('key').

Examples:
  tidemill sql 'SELECT time, service_name, body FROM logs ORDER BY time DESC LIMIT 10'
  tidemill sql \"SELECT attr('http.route'), count(*) FROM spans GROUP BY 1\" --output csv
  tidemill sql --since 1h 'SELECT severity_text, count(*) FROM logs GROUP BY 1'
  tidemill sql 'DESCRIBE metrics'
  tidemill sql --stats \"SELECT count(*) FROM logs WHERE body LIKE '%timeout%'\"
  echo 'SHOW TABLES' | tidemill sql -")]
pub struct SqlOptions {
    /// One read-only statement, or - to read it from stdin
    query: String,
    /// Only rows of this recent time, as 1h
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// Tell on stderr what was read and pruned
    #[arg(long)]
    stats: bool,
    /// Stop after this long, as 30s [default: query.timeout]
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,
}

/// Runs it.
///
/// # Errors
/// Those of the statement and of the installation.
pub fn run(global: &GlobalOptions, options: SqlOptions) -> Result<()> {
    let config = global.load_config(Vec::new())?;
    let request = read_request(&options)?;
    let runtime = server_runtime(&config)?;
    let outcome = runtime.block_on(async {
        let stats = match find_server(global, &config)? {
            Some(remote) => ask(global.output, remote, &request, options.stats).await?,
            None => run_here(global, config, &request).await.map(Some)?,
        };
        if let (true, Some(stats)) = (options.stats, stats) {
            tell(&stats);
        }
        Ok(())
    });
    runtime.shutdown_background();
    outcome
}

fn read_request(options: &SqlOptions) -> Result<SqlRequest> {
    let mut query = options.query.clone();
    if query == "-" {
        query.clear();
        std::io::stdin()
            .lock()
            .take(1 << 20)
            .read_to_string(&mut query)
            .map_err(|error| Error::io("reading stdin", error))?;
    }
    let timeout = options.timeout.as_deref().map(parse_duration).transpose();
    let timeout = timeout.map_err(|problem| Error::invalid(format!("--timeout: {problem}")))?;
    let time_ms = timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let since = options.since.as_deref().map(parse_duration).transpose();
    let since = since.map_err(|problem| Error::invalid(format!("--since: {problem}")))?;
    let start_ns =
        since.map(|since| SystemClock.now().0.saturating_sub(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)));
    Ok(SqlRequest { query, limits: RequestedLimits { time_ms, start_ns, ..RequestedLimits::default() } })
}

async fn ask(output: Output, remote: Remote, request: &SqlRequest, wants_stats: bool) -> Result<Option<Value>> {
    let remote = if remote.organization().is_some() { remote } else { acting_for_the_only_one(remote).await };
    let format = format_of(output);
    let mut call = remote.request(Method::POST, "sql");
    call.builder = call.builder.header(header::ACCEPT, format.media_type()).json(request);
    let response = call.send_checked().await?;
    let id = response.headers().get(QUERY_ID_HEADER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let warnings = response.headers().get_all(WARNING_HEADER).iter();
    warnings.for_each(|warning| say!("warning: {}", String::from_utf8_lossy(warning.as_bytes())));
    let mut printer = Printer::new(output);
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => return Err(why_cut(&remote, id.as_deref(), error).await),
        };
        if printer.print(&chunk)? == Reader::Gone {
            return Ok(None);
        }
    }
    printer.finish()?;
    match id {
        Some(id) if wants_stats => remote.get(&format!("queries/{id}"), &()).await.map(Some),
        _ => Ok(None),
    }
}

/// What the server remembers of the reason why it cut an answer.
async fn why_cut(remote: &Remote, id: Option<&str>, error: reqwest::Error) -> Error {
    const WHAT: &str = "the answer ended early, so it is not complete";
    let report: Result<Value> = match id {
        Some(id) => remote.get(&format!("queries/{id}"), &()).await,
        None => Ok(Value::Null),
    };
    match report.map(|mut report| serde_json::from_value::<Problem>(report["error"].take())) {
        Ok(Ok(problem)) => {
            let told = error_of(problem);
            let hint = told.hint().map(str::to_owned);
            let error = Error::caused(told.kind(), WHAT, told);
            if let Some(hint) = hint { error.with_hint(hint) } else { error }
        }
        _ => Error::caused(ErrorKind::Unavailable, WHAT, error).with_hint("the server's log says why"),
    }
}

async fn run_here(global: &GlobalOptions, config: Config, request: &SqlRequest) -> Result<Value> {
    let Target::Local(admin, scope) = Target::find(global, &config).await? else {
        return Err(
            Error::new(ErrorKind::Conflict, "a server started on the data folder just now").with_hint("try again")
        );
    };
    let organization: OrganizationId = match scope {
        Some(organization) => organization,
        None => admin.organization(FIRST_ORGANIZATION).await?.id,
    };
    let spool = DataFolder::new(config.data_dir()).spool_of_process("sql");
    let stack = Stack::open(config, spool.clone()).await?;
    let outcome = print_here(&stack, organization, request, global.output).await;
    if let Err(error) = std::fs::remove_dir_all(&spool) {
        tracing::debug!(%error, "the spool folder");
    }
    outcome
}

async fn print_here(
    stack: &Stack,
    organization: OrganizationId,
    request: &SqlRequest,
    output: Output,
) -> Result<Value> {
    let query = Queries::new(stack).sql(organization, &request.query, &request.limits).await?;
    let stats = query.rows.stats();
    stats.read().warnings.iter().for_each(|warning| say!("warning: {warning}"));
    let mut answer = Answer::new(format_of(output), query)?;
    let mut printer = Printer::new(output);
    while let Some(chunk) = answer.next_chunk().await? {
        if printer.print(&chunk)? == Reader::Gone {
            break;
        }
    }
    printer.finish()?;
    serde_json::to_value(stats.read()).map_err(|error| Error::caused(ErrorKind::Internal, "statistics", error))
}

fn format_of(output: Output) -> OutputFormat {
    match output {
        // A page is refused before any command but `simulate` begins.
        Output::Table | Output::Html | Output::Object(_) => OutputFormat::Table,
        Output::Json => OutputFormat::JsonLines,
        Output::Csv => OutputFormat::Csv,
    }
}

/// Says on stderr what a query did.
pub fn tell(stats: &Value) {
    let count = |name: &str| stats[name].as_u64().unwrap_or(0);
    let ms = |name: &str| stats[name].as_f64().unwrap_or(0.0);
    say!("segments considered {}, pruned {}", count("segments_considered"), count("segments_pruned"));
    let [considered, pruned, read] = ["row_groups_considered", "row_groups_pruned", "row_groups_read"].map(count);
    say!("row groups considered {considered}, pruned {pruned}, read {read}");
    let [bytes, of] = ["bytes_read", "bytes_considered"].map(count);
    let hits = count("cache_hits");
    say!(
        "requests {}, bytes read {bytes} ({} of {}), cache hits {hits}",
        count("requests"),
        format_bytes(bytes),
        format_bytes(of)
    );
    say!("rows scanned {}, matched {}", count("rows_scanned"), count("rows_matched"));
    say!("planning {:.1} ms, together {:.1} ms", ms("planning_ms"), ms("wall_ms"));
}

/// Prints an answer as it comes; JSON lines become one array.
struct Printer {
    is_array: bool,
    has_rows: bool,
    rest: Vec<u8>,
}

impl Printer {
    fn new(output: Output) -> Self {
        Self { is_array: output == Output::Json, has_rows: false, rest: Vec::new() }
    }

    fn print(&mut self, chunk: &[u8]) -> Result<Reader> {
        if !self.is_array {
            return print_bytes(chunk);
        }
        self.rest.extend_from_slice(chunk);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(Reader::Listening);
        };
        let lines: Vec<u8> = self.rest.drain(..=end).collect();
        let mut text = Vec::with_capacity(lines.len() + 16);
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            text.extend_from_slice(if self.has_rows { b",\n" } else { b"[\n" });
            text.extend_from_slice(line);
            self.has_rows = true;
        }
        print_bytes(&text)
    }

    fn finish(mut self) -> Result<()> {
        if !self.is_array {
            return Ok(());
        }
        if !self.rest.is_empty() {
            self.print(b"\n")?;
        }
        print_bytes(if self.has_rows { b"\n]\n" } else { b"[]\n" }).map(drop)
    }
}
