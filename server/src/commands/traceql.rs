//! `tidemill traceql`: one query, its traces or numbers on stdout.

use clap::Args;
use http::Method;
use serde_json::{Value, json};
use tidemill_eval::traceql::MetricsParams;
use tidemill_lake::clock::{Clock as _, SystemClock};
use tidemill_lang::traceql::ast::QueryKind;
use tidemill_lang::traceql::parse;
use tidemill_query::QueryStats;
use tidemill_query::traceql::explain;
use tidemill_types::ErrorKind;

use crate::bootstrap::FIRST_ORGANIZATION;
use crate::cli::GlobalOptions;
use crate::client::{Remote, Target, find_server};
use crate::commands::load::acting_for_the_only_one;
use crate::commands::server_runtime;
use crate::commands::sql::tell;
use crate::config::{Config, parse_duration};
use crate::data_folder::DataFolder;
use crate::error::{Error, Result};
use crate::http::WARNING_HEADER;
use crate::http::tempo::{
    MAX_EXEMPLARS, MetricsRequest, STATS_HEADER, SearchRequest, TraceRequest, answer_metrics, answer_search,
    answer_trace, default_step_ns, trace_json,
};
use crate::output::{Output, Table, print, print_text, say};
use crate::query::Queries;
use crate::stack::Stack;

/// Columns of a chart.
const CHART_COLUMNS: usize = 60;

/// A query and how its answer is printed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill traceql '{ status = error }' --since 1h
  tidemill traceql '{ resource.service.name = \"checkout\" && duration > 1s }' --limit 5
  tidemill traceql '{ } | rate() by (resource.service.name)' --since 1h --step 1m --chart
  tidemill traceql '{ } >> { status = error }' --explain
  tidemill trace 5b8efff798038103d269b633813fc60c")]
pub struct TraceqlOptions {
    /// One query
    query: String,
    /// Only this recent time; metrics take the last hour unless told otherwise
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// At most so many traces, the newest
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: usize,
    /// At most so many spans of each trace; 0 for all
    #[arg(long, default_value_t = 3, value_name = "N")]
    spans: usize,
    /// Time between the numbers of a metrics query, as 1m
    #[arg(long, value_name = "DURATION")]
    step: Option<String>,
    /// Show a metrics query's series as charts
    #[arg(long)]
    chart: bool,
    /// Tell on stderr what was read and pruned
    #[arg(long)]
    stats: bool,
    /// Only tell what would be read
    #[arg(long)]
    explain: bool,
}

/// What is asked of a server, or of the installation itself.
#[derive(Debug)]
pub enum Asked {
    /// Traces.
    Search(SearchRequest),
    /// Numbers.
    Metrics(MetricsRequest),
    /// One trace.
    Trace(TraceRequest),
}

/// Runs it.
///
/// # Errors
/// Those of the query and of the installation.
pub fn run(global: &GlobalOptions, options: &TraceqlOptions) -> Result<()> {
    let query = parse(&options.query).map_err(|error| Error::invalid(error.to_string()))?;
    if options.explain {
        return print_text(&explain(&query));
    }
    let now_ns = SystemClock.now().0;
    let since_ns = duration_ns("--since", options.since.as_deref())?;
    let asked = match query.kind {
        QueryKind::Search(_) => Asked::Search(SearchRequest {
            query: options.query.clone(),
            start_ns: since_ns.map(|since_ns| now_ns.saturating_sub(since_ns)),
            end_ns: None,
            limit: options.limit,
            spans_per_spanset: options.spans,
        }),
        QueryKind::Metrics(_) => {
            let range_ns = since_ns.unwrap_or(3_600_000_000_000);
            let step_ns = duration_ns("--step", options.step.as_deref())?;
            let params = MetricsParams {
                start_ns: now_ns.saturating_sub(range_ns),
                end_ns: now_ns,
                step_ns: Some(step_ns.unwrap_or_else(|| default_step_ns(range_ns.saturating_mul(6)))),
            };
            Asked::Metrics(MetricsRequest { query: options.query.clone(), params, exemplars: MAX_EXEMPLARS })
        }
    };
    let answer = ask(global, &asked, options.stats)?;
    match asked {
        Asked::Metrics(_) if options.chart => print_text(&charts(&answer)),
        Asked::Metrics(_) => print(global.output, &answer, samples_table),
        _ => print(global.output, &answer, traces_table),
    }
}

fn duration_ns(flag: &str, text: Option<&str>) -> Result<Option<i64>> {
    let duration = text.map(parse_duration).transpose();
    let duration = duration.map_err(|problem| Error::invalid(format!("{flag}: {problem}")))?;
    Ok(duration.map(|duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)))
}

/// The answer as the API has it, from a running server or else from the installation itself.
///
/// # Errors
/// Those of the query and of the installation.
pub fn ask(global: &GlobalOptions, asked: &Asked, wants_stats: bool) -> Result<Value> {
    if global.output == Output::Html {
        return Err(Error::invalid("--output html: only `tidemill simulate` prints a page"));
    }
    let config = global.load_config(Vec::new())?;
    let runtime = server_runtime(&config)?;
    let outcome = runtime.block_on(async {
        let (answer, stats) = match find_server(global, &config)? {
            Some(remote) => ask_there(remote, asked).await?,
            None => ask_here(global, config, asked).await?,
        };
        if wants_stats {
            tell(&stats);
        }
        Ok(answer)
    });
    runtime.shutdown_background();
    outcome
}

async fn ask_there(remote: Remote, asked: &Asked) -> Result<(Value, Value)> {
    let remote = if remote.organization().is_some() { remote } else { acting_for_the_only_one(remote).await };
    let number = |name: &'static str, value: Option<i64>| value.map(|value| (name, value.to_string()));
    let (path, pairs): (String, Vec<(&str, String)>) = match asked {
        Asked::Search(request) => {
            let fixed = [
                ("q", request.query.clone()),
                ("limit", request.limit.to_string()),
                ("spss", request.spans_per_spanset.to_string()),
            ];
            let times = number("start", request.start_ns).into_iter().chain(number("end", request.end_ns));
            ("/api/search".to_owned(), fixed.into_iter().chain(times).collect())
        }
        Asked::Metrics(request) => {
            let params = request.params;
            let step = params.step_ns.map(|step_ns| ("step", format!("{step_ns}ns")));
            let fixed = [
                ("q", request.query.clone()),
                ("start", params.start_ns.to_string()),
                ("end", params.end_ns.to_string()),
            ];
            ("/api/metrics/query_range".to_owned(), fixed.into_iter().chain(step).collect())
        }
        Asked::Trace(request) => (format!("/api/v2/traces/{}", hex::encode(request.id)), Vec::new()),
    };
    let mut call = remote.call(Method::GET, &path);
    call.builder = call.builder.query(&pairs);
    let response = call.send_checked().await?;
    let warnings = response.headers().get_all(WARNING_HEADER).iter();
    warnings.for_each(|warning| say!("warning: {}", String::from_utf8_lossy(warning.as_bytes())));
    let stats = response.headers().get(STATS_HEADER).and_then(|text| serde_json::from_slice(text.as_bytes()).ok());
    let body = response
        .bytes()
        .await
        .map_err(|error| Error::caused(ErrorKind::Unavailable, "reading the server's answer", error))?;
    let mut answer: Value = serde_json::from_slice(&body)
        .map_err(|error| Error::caused(ErrorKind::Unavailable, "reading the server's answer", error))?;
    let answer = match asked {
        Asked::Search(_) => answer["traces"].take(),
        Asked::Metrics(_) => json!({ "series": answer["series"].take() }),
        Asked::Trace(_) => answer["trace"].take(),
    };
    Ok((answer, stats.unwrap_or_default()))
}

async fn ask_here(global: &GlobalOptions, config: Config, asked: &Asked) -> Result<(Value, Value)> {
    let Target::Local(admin, scope) = Target::find(global, &config).await? else {
        return Err(
            Error::new(ErrorKind::Conflict, "a server started on the data folder just now").with_hint("try again")
        );
    };
    let organization = match scope {
        Some(organization) => organization,
        None => admin.organization(FIRST_ORGANIZATION).await?.id,
    };
    let spool = DataFolder::new(config.data_dir()).spool_of_process("traceql");
    let stack = Stack::open(config, spool.clone()).await?;
    let queries = Queries::new(&stack);
    let answered: Result<(Value, QueryStats)> = async {
        Ok(match asked {
            Asked::Search(request) => {
                let told = answer_search(&queries, organization, request).await?;
                (Value::Array(told.answer), told.stats)
            }
            Asked::Metrics(request) => {
                let told = answer_metrics(&queries, organization, request).await?;
                (told.answer, told.stats)
            }
            Asked::Trace(request) => {
                let told = answer_trace(&queries, organization, *request).await?;
                (told.answer.as_ref().map_or_else(|| json!({}), trace_json), told.stats)
            }
        })
    }
    .await;
    if let Err(error) = std::fs::remove_dir_all(&spool) {
        tracing::debug!(%error, "the spool folder");
    }
    let (answer, stats) = answered?;
    stats.warnings.iter().for_each(|warning| say!("warning: {warning}"));
    let stats = serde_json::to_value(stats);
    Ok((answer, stats.map_err(|error| Error::caused(ErrorKind::Internal, "statistics", error))?))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| if value.is_null() { "-".to_owned() } else { value.to_string() }, str::to_owned)
}

/// A time of nanoseconds as people write it.
fn time_text(ns: &Value) -> String {
    let time = ns.as_str().and_then(|ns| ns.parse::<i128>().ok());
    let time = time.and_then(|ns| jiff::Timestamp::from_nanosecond(ns).ok());
    time.map_or_else(|| "-".to_owned(), |time| format!("{time:.3}"))
}

fn traces_table(traces: &Value) -> Table {
    let mut table = Table::new(&["TRACE", "START", "SERVICE", "NAME", "MS", "SPANS", "MATCHED"]);
    for trace in list(traces) {
        let spans: u64 = trace["serviceStats"]
            .as_object()
            .map_or(0, |services| services.values().filter_map(|own| own["spanCount"].as_u64()).sum());
        let matched: u64 = list(&trace["spanSets"]).iter().filter_map(|own| own["matched"].as_u64()).sum();
        table.row(vec![
            text(&trace["traceID"]),
            time_text(&trace["startTimeUnixNano"]),
            text(&trace["rootServiceName"]),
            text(&trace["rootTraceName"]),
            trace["durationMs"].as_u64().unwrap_or(0).to_string(),
            spans.to_string(),
            matched.to_string(),
        ]);
    }
    table
}

/// The labels of a series as a query writes them.
fn labels_text(series: &Value) -> String {
    let labels = list(&series["labels"]).iter().map(|label| {
        let value = label["value"].as_object().and_then(|value| value.values().next()).cloned().unwrap_or_default();
        format!("{}={}", text(&label["key"]), text(&value))
    });
    format!("{{{}}}", labels.collect::<Vec<_>>().join(", "))
}

fn sample_value(sample: &Value) -> f64 {
    sample["value"].as_f64().unwrap_or(0.0)
}

fn samples_table(answer: &Value) -> Table {
    let mut table = Table::new(&["SERIES", "TIME", "VALUE"]);
    for series in list(&answer["series"]) {
        for sample in list(&series["samples"]) {
            let ns = sample["timestampMs"].as_str().map(|ms| format!("{ms}000000"));
            table.row(vec![labels_text(series), time_text(&json!(ns)), sample_value(sample).to_string()]);
        }
    }
    table
}

/// Each series as a line of blocks, scaled to its largest value.
fn charts(answer: &Value) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let mut chart = String::new();
    for series in list(&answer["series"]) {
        let values: Vec<f64> = list(&series["samples"]).iter().map(sample_value).collect();
        let most = values.iter().copied().fold(0.0, f64::max);
        let together = values.len().div_ceil(CHART_COLUMNS).max(1);
        let line: String = values
            .chunks(together)
            .map(|some| {
                let value = some.iter().copied().fold(0.0, f64::max);
                if value > 0.0 { BLOCKS[((value / most * 7.0).round() as usize).min(7)] } else { ' ' }
            })
            .collect();
        chart.push_str(&format!("{}\n  |{line}| 0 to {most}\n", labels_text(series)));
    }
    chart
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_charts_of_blocks() {
        let sample = |value: f64| json!({ "timestampMs": "0", "value": value });
        let series = json!({ "labels": [{ "key": "a", "value": { "stringValue": "b" } }],
            "samples": [sample(0.0), sample(1.0), sample(8.0)] });
        assert_eq!(charts(&json!({ "series": [series] })), "{a=b}\n  | ▂█| 0 to 8\n");
    }
}
