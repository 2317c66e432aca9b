//! `tidemill logql`: one query, its lines or numbers on stdout.

pub mod chart;
pub mod lines;
pub mod tail;

use clap::Args;
use http::Method;
use serde_json::Value;
use tidemill_lake::clock::{Clock as _, SystemClock};
use tidemill_lang::logql::parse;
use tidemill_types::{ErrorKind, OrganizationId};

use self::lines::Order;
use crate::bootstrap::FIRST_ORGANIZATION;
use crate::cli::GlobalOptions;
use crate::client::{Remote, Target, find_server};
use crate::commands::load::acting_for_the_only_one;
use crate::commands::server_runtime;
use crate::config::{Config, format_bytes, parse_duration};
use crate::data_folder::DataFolder;
use crate::error::{Error, Result};
use crate::http::loki_query_range;
use crate::output::{Output, Table, print_bytes, print_text, say};
use crate::query::Queries;
use crate::stack::Stack;

/// A query and how its answer is printed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill logql '{service_name=\"checkout\"} |= \"timeout\"' --since 2h
  tidemill logql '{service_name=~\".+\"} | detected_level=\"error\"' --limit 20 --forward
  tidemill logql 'sum by (service_name) (rate({service_name=~\".+\"}[5m]))' --chart
  tidemill logql '{service_name=\"api\"} | json | status >= 500' --output json --stats
  tidemill logql 'rate({service_name=\"api\"} |= \"x\" [5m])' --explain")]
pub struct LogqlOptions {
    /// A query in LogQL
    query: String,
    /// How far back from now, as 30m
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    since: String,
    /// At most so many lines, 1 to 5000
    #[arg(long, value_name = "LINES", default_value_t = 100)]
    limit: usize,
    /// Oldest lines first, from the beginning of the time asked for
    #[arg(long)]
    forward: bool,
    /// Between two numbers, as 1m [default: about 250 of them]
    #[arg(long, value_name = "DURATION")]
    step: Option<String>,
    /// Draw numbers as a chart
    #[arg(long)]
    chart: bool,
    /// Tell on stderr what was read and pruned
    #[arg(long)]
    stats: bool,
    /// Tell what would be read, and do not read it
    #[arg(long)]
    explain: bool,
}

/// Runs it.
///
/// # Errors
/// Those of the query and of the installation.
pub fn run(global: &GlobalOptions, options: &LogqlOptions) -> Result<()> {
    // Here already, so that a mistake is told without a server.
    let query = parse(&options.query).map_err(|error| Error::invalid(format!("the query: {error}")))?;
    if options.explain {
        return print_text(&tidemill_query::logql::explain(&query));
    }
    let config = global.load_config(Vec::new())?;
    let params = params(options)?;
    let runtime = server_runtime(&config)?;
    let outcome = runtime.block_on(async {
        let answer = match find_server(global, &config)? {
            Some(remote) => ask(remote, &params).await?,
            None => ask_here(global, config, params).await?,
        };
        for warning in answer["warnings"].as_array().into_iter().flatten() {
            say!("warning: {}", warning.as_str().unwrap_or_default());
        }
        print(global.output, options, &answer["data"])?;
        if options.stats {
            tell(&answer["data"]["stats"]);
        }
        Ok(())
    });
    runtime.shutdown_background();
    outcome
}

fn params(options: &LogqlOptions) -> Result<Vec<(String, String)>> {
    let since = parse_duration(&options.since).map_err(|problem| Error::invalid(format!("--since: {problem}")))?;
    let now = SystemClock.now().0;
    let start = now.saturating_sub(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
    let direction = if options.forward { "forward" } else { "backward" };
    let mut params = vec![
        ("query", options.query.clone()),
        ("start", start.to_string()),
        ("end", now.to_string()),
        ("limit", options.limit.to_string()),
        ("direction", direction.to_owned()),
    ];
    if let Some(step) = &options.step {
        let step = parse_duration(step).map_err(|problem| Error::invalid(format!("--step: {problem}")))?;
        params.push(("step", step.as_secs_f64().to_string()));
    }
    Ok(params.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

async fn ask(remote: Remote, params: &[(String, String)]) -> Result<Value> {
    let remote = if remote.organization().is_some() { remote } else { acting_for_the_only_one(remote).await };
    let mut call = remote.call(Method::GET, "/loki/api/v1/query_range");
    call.builder = call.builder.query(params).header("x-loki-response-encoding-flags", "categorize-labels");
    let response = call.send_checked().await?;
    let reading = |error| Error::caused(ErrorKind::Unavailable, "reading the server's answer", error);
    response.json().await.map_err(reading)
}

async fn ask_here(global: &GlobalOptions, config: Config, params: Vec<(String, String)>) -> Result<Value> {
    let Target::Local(admin, scope) = Target::find(global, &config).await? else {
        return Err(
            Error::new(ErrorKind::Conflict, "a server started on the data folder just now").with_hint("try again")
        );
    };
    let organization: OrganizationId = match scope {
        Some(organization) => organization,
        None => admin.organization(FIRST_ORGANIZATION).await?.id,
    };
    let spool = DataFolder::new(config.data_dir()).spool_of_process("logql");
    let stack = Stack::open(config, spool.clone()).await?;
    let outcome = loki_query_range(&Queries::new(&stack), organization, params).await;
    if let Err(error) = std::fs::remove_dir_all(&spool) {
        tracing::debug!(%error, "the spool folder");
    }
    outcome
}

fn print(output: Output, options: &LogqlOptions, data: &Value) -> Result<()> {
    let is_lines = data["resultType"] == "streams";
    let order = if options.forward { Order::OldestFirst } else { Order::NewestFirst };
    match output {
        Output::Json => {
            let text = serde_json::to_string_pretty(&data["result"])
                .map_err(|error| Error::caused(ErrorKind::Internal, "the answer", error))?;
            print_text(&format!("{text}\n"))
        }
        Output::Csv => print_bytes(csv(data, order).as_bytes()).map(drop),
        // A page is refused before any command but `simulate` begins.
        Output::Table | Output::Html | Output::Object(_) if is_lines => {
            print_text(&lines::render(data, order, lines::Colours::of_stdout()))
        }
        Output::Table | Output::Html | Output::Object(_) if options.chart => print_text(&chart::render(data)),
        Output::Table | Output::Html | Output::Object(_) => print_text(&table(data).render()),
    }
}

/// Numbers: one row for each time and series.
fn points(data: &Value) -> impl Iterator<Item = (String, f64, &str)> {
    data["result"].as_array().into_iter().flatten().flat_map(|series| {
        let labels = lines::labels_text(&series["metric"]);
        let values = series["values"].as_array().into_iter().flatten();
        values.map(move |value| {
            (labels.clone(), value[0].as_f64().unwrap_or(f64::NAN), value[1].as_str().unwrap_or_default())
        })
    })
}

fn table(data: &Value) -> Table {
    let mut table = Table::new(&["time", "labels", "value"]);
    for (labels, at, value) in points(data) {
        table.row(vec![lines::time_text((at * 1e3) as i64 * 1_000_000), labels, value.to_owned()]);
    }
    table
}

fn csv(data: &Value, order: Order) -> String {
    let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let mut text = String::new();
    if data["resultType"] == "streams" {
        text.push_str("time,labels,line\n");
        for line in lines::entries(data, order) {
            text.push_str(&format!(
                "{},{},{}\n",
                lines::time_text(line.time_ns),
                quote(&line.labels),
                quote(line.text)
            ));
        }
        return text;
    }
    text.push_str("time,labels,value\n");
    for (labels, at, value) in points(data) {
        text.push_str(&format!("{},{},{value}\n", lines::time_text((at * 1e3) as i64 * 1_000_000), quote(&labels)));
    }
    text
}

fn tell(stats: &Value) {
    let own = &stats["tidemill"];
    let count = |name: &str| own[name].as_u64().unwrap_or(0);
    let summary = |name: &str| stats["summary"][name].as_u64().unwrap_or(0);
    say!("segments considered {}, pruned {}", count("segmentsConsidered"), count("segmentsPruned"));
    let [considered, pruned, read] = ["rowGroupsConsidered", "rowGroupsPruned", "rowGroupsRead"].map(count);
    say!("row groups considered {considered}, pruned {pruned}, read {read}");
    let bytes = summary("totalBytesProcessed");
    say!(
        "requests {}, bytes read {bytes} ({} of {}), cache hits {}",
        count("requests"),
        format_bytes(bytes),
        format_bytes(count("bytesConsidered")),
        count("cacheHits")
    );
    say!("rows scanned {}, matched {}", summary("totalLinesProcessed"), summary("totalPostFilterLines"));
    say!("together {:.1} ms", stats["summary"]["execTime"].as_f64().unwrap_or(0.0) * 1e3);
}
