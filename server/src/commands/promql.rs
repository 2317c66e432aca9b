//! `tidemill promql`: one query, its values on stdout; and the language's test scripts.

mod present;
mod script;
mod segments;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;
use tidemill_eval::promql::json::{Extras, encode_answer_with};
use tidemill_lake::clock::{Clock as _, SystemClock};
use tidemill_query::promql::{PromqlRequest, explain};
use tidemill_types::ErrorKind;

use crate::bootstrap::FIRST_ORGANIZATION;
use crate::cli::GlobalOptions;
use crate::client::{Remote, Target, find_server};
use crate::commands::load::acting_for_the_only_one;
use crate::commands::server_runtime;
use crate::config::{Config, parse_duration};
use crate::data_folder::DataFolder;
use crate::error::{Error, Result};
use crate::output::{print_text, say};
use crate::query::Queries;
use crate::stack::Stack;

use script::TestOptions;

/// Of a range without `--step` so many steps are shown.
const STEPS: i64 = 60;

/// A query and how its values are printed.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Without --since or --start the query is asked for now.

Examples:
  tidemill promql 'sum by (job) (rate(http_server_requests_total[5m]))'
  tidemill promql 'rate(http_server_requests_total[5m])' --since 1h --chart
  tidemill promql up --start 2024-05-01T00:00:00Z --end 2024-05-01T06:00:00Z --step 5m --output csv
  tidemill promql '{\"http.server.duration_bucket\"}' --stats
  tidemill promql test operators.test --store segments"
)]
pub struct PromqlOptions {
    #[command(subcommand)]
    command: Option<PromqlCommand>,
    /// One query
    #[arg(required = true)]
    query: Option<String>,
    /// The range of time up to now, as 1h
    #[arg(long, value_name = "DURATION", conflicts_with = "start")]
    since: Option<String>,
    /// The first time, as 2024-05-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// The last time [default: now]
    #[arg(long, value_name = "TIME")]
    end: Option<String>,
    /// From one time of a range to the next, as 1m [default: a sixtieth of the range]
    #[arg(long, value_name = "DURATION")]
    step: Option<String>,
    /// Draw series as charts
    #[arg(long)]
    chart: bool,
    /// Tell on stderr what was read and pruned
    #[arg(long)]
    stats: bool,
    /// Tell what would be read and how the query is divided, and ask nothing
    #[arg(long)]
    explain: bool,
}

/// What else there is to do with PromQL.
#[derive(Debug, Subcommand)]
pub enum PromqlCommand {
    /// Run test scripts in Prometheus's format, and tell what passed
    #[command(after_help = "Example:\n  tidemill promql test operators.test functions.test --partitions 4")]
    Test(TestOptions),
}

/// Runs it.
///
/// # Errors
/// Those of the query, the installation, or the scripts.
pub fn run(global: &GlobalOptions, options: &PromqlOptions) -> Result<()> {
    if let Some(PromqlCommand::Test(options)) = &options.command {
        return script::run(global, options);
    }
    let request = read_request(options)?;
    if options.explain {
        return print_text(&explain(&request).map_err(of_evaluation)?);
    }
    let config = global.load_config(Vec::new())?;
    let runtime = server_runtime(&config)?;
    let outcome = runtime.block_on(async {
        match find_server(global, &config)? {
            Some(remote) => ask(remote, &request).await,
            None => ask_here(global, config, request).await,
        }
    });
    runtime.shutdown_background();
    let answer = outcome?;
    for severity in ["warnings", "infos"] {
        let texts = answer[severity].as_array().into_iter().flatten().filter_map(Value::as_str);
        texts.for_each(|text| say!("{text}"));
    }
    if options.stats {
        let stats = &answer["data"]["stats"];
        say!("{}", serde_json::to_string_pretty(stats).unwrap_or_default());
    }
    present::print_value(&answer["data"], global.output, options.chart)
}

fn read_request(options: &PromqlOptions) -> Result<PromqlRequest> {
    let query = options.query.clone().unwrap_or_default();
    let time = |name: &str, text: &Option<String>| {
        let parsed = text.as_deref().map(|text| {
            let time: std::result::Result<jiff::Timestamp, _> = text.parse();
            time.map(|time| time.as_millisecond())
        });
        parsed.transpose().map_err(|error| Error::invalid(format!("--{name}: {error}")))
    };
    let length = |name: &str, text: &Option<String>| -> Result<Option<i64>> {
        let parsed = text.as_deref().map(parse_duration).transpose();
        let parsed = parsed.map_err(|problem| Error::invalid(format!("--{name}: {problem}")))?;
        Ok(parsed.map(|length| i64::try_from(length.as_millis()).unwrap_or(i64::MAX)))
    };
    let now = SystemClock.now().0.div_euclid(1_000_000);
    let end_ms = time("end", &options.end)?.unwrap_or(now);
    let since = length("since", &options.since)?.map(|since| end_ms.saturating_sub(since));
    let step = length("step", &options.step)?;
    let Some(start_ms) = time("start", &options.start)?.or(since) else {
        if step.is_some() {
            return Err(Error::invalid("--step: a range needs --since or --start"));
        }
        return Ok(PromqlRequest { query, start_ms: end_ms, end_ms, step_ms: 0, lookback_ms: None });
    };
    if start_ms > end_ms {
        return Err(Error::invalid("--start is after --end"));
    }
    let step_ms = step.unwrap_or_else(|| ((end_ms - start_ms) / STEPS).max(1_000));
    Ok(PromqlRequest { query, start_ms, end_ms, step_ms: step_ms.max(1), lookback_ms: None })
}

async fn ask(remote: Remote, request: &PromqlRequest) -> Result<Value> {
    let remote = if remote.organization().is_some() { remote } else { acting_for_the_only_one(remote).await };
    let seconds =
        |milliseconds: i64| format!("{}.{:03}", milliseconds.div_euclid(1_000), milliseconds.rem_euclid(1_000));
    let mut parameters = vec![("query", request.query.clone()), ("stats", "all".to_owned())];
    let path = if request.step_ms == 0 {
        parameters.push(("time", seconds(request.start_ms)));
        "query"
    } else {
        parameters.push(("start", seconds(request.start_ms)));
        parameters.push(("end", seconds(request.end_ms)));
        parameters.push(("step", seconds(request.step_ms)));
        "query_range"
    };
    let call = remote.request(Method::GET, path).builder.query(&parameters);
    let lost = |error: reqwest::Error| Error::caused(ErrorKind::Unavailable, "asking the server", error);
    let response = call.send().await.map_err(lost)?;
    let status = response.status();
    let answer: Value = response.json().await.map_err(lost)?;
    if status.is_success() {
        return Ok(answer);
    }
    let message = answer["error"].as_str().or(answer["error"]["message"].as_str()).unwrap_or("the query failed");
    let kind = match status.as_u16() {
        404 => ErrorKind::NotFound,
        429 => ErrorKind::Busy,
        503 => ErrorKind::Unavailable,
        400..=499 => ErrorKind::Invalid,
        _ => ErrorKind::Internal,
    };
    Err(Error::new(kind, message))
}

async fn ask_here(global: &GlobalOptions, config: Config, request: PromqlRequest) -> Result<Value> {
    let Target::Local(admin, scope) = Target::find(global, &config).await? else {
        return Err(
            Error::new(ErrorKind::Conflict, "a server started on the data folder just now").with_hint("try again")
        );
    };
    let organization = match scope {
        Some(organization) => organization,
        None => admin.organization(FIRST_ORGANIZATION).await?.id,
    };
    let spool = DataFolder::new(config.data_dir()).spool_of_process("promql");
    let stack = Stack::open(config, spool.clone()).await?;
    let query = request.query.clone();
    let outcome = Queries::new(&stack).promql(organization, request, None).await;
    if let Err(error) = std::fs::remove_dir_all(&spool) {
        tracing::debug!(%error, "the spool folder");
    }
    let answer = outcome.map_err(of_evaluation)?;
    let stats = serde_json::json!({ "tidemill": answer.stats }).to_string();
    let extras = Extras { warnings: answer.stats.warnings.clone(), stats: Some(stats) };
    let text = encode_answer_with(&answer.value, &answer.notes, &query, &extras);
    serde_json::from_str(&text).map_err(|error| Error::caused(ErrorKind::Internal, "the answer", error))
}

/// An error of an evaluation as the binary tells it.
pub(super) fn of_evaluation(error: tidemill_eval::Error) -> Error {
    match error {
        tidemill_eval::Error::Source { kind, source, .. } => Error::new(kind, source.to_string()),
        other => Error::new(other.kind(), other.to_string()),
    }
}
