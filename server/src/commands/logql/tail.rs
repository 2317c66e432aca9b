//! `tidemill tail`: lines of a running server as they come.
//!
//! It asks again and again over the HTTP API, always from a little before the newest line seen, so that no line is missed that is published
//! late; what was printed is not printed again.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::Value;
use tidemill_lake::clock::{Clock as _, SystemClock};
use tidemill_lang::logql::ast::Query;
use tidemill_lang::logql::parse;
use tidemill_types::ErrorKind;

use super::lines::{Colours, Order, of_streams, text_of};
use crate::cli::GlobalOptions;
use crate::client::{Remote, find_server, no_server};
use crate::commands::load::acting_for_the_only_one;
use crate::commands::server_runtime;
use crate::error::{Error, Result};
use crate::output::{Output, Reader, print_bytes, say};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(700);
/// How late a line may be published and still be printed.
const LATE_NS: i64 = 60_000_000_000;
/// Lines of one look.
const LINES: usize = 5_000;

/// What is followed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill tail '{service_name=\"checkout\"}'
  tidemill tail -f '{service_name=~\".+\"} |= \"timeout\"' --lines 50
  tidemill tail '{service_name=\"api\"}' --output json")]
pub struct TailOptions {
    /// A query in LogQL that asks for lines
    query: String,
    /// Go on as lines come; without it the newest lines are printed and that is all
    #[arg(long, short)]
    follow: bool,
    /// Lines to begin with
    #[arg(long, short = 'n', value_name = "LINES", default_value_t = 10)]
    lines: usize,
}

/// Runs it.
///
/// # Errors
/// Those of the query; `Unavailable` where no server runs.
pub fn run(global: &GlobalOptions, options: &TailOptions) -> Result<()> {
    let query = parse(&options.query).map_err(|error| Error::invalid(format!("the query: {error}")))?;
    if matches!(query, Query::Metric(_)) {
        return Err(Error::invalid("only lines can be followed; `tidemill logql` asks for numbers"));
    }
    let config = global.load_config(Vec::new())?;
    let runtime = server_runtime(&config)?;
    let outcome = runtime.block_on(async {
        let remote = find_server(global, &config)?.ok_or_else(no_server)?;
        let remote = if remote.organization().is_some() { remote } else { acting_for_the_only_one(remote).await };
        follow(&remote, global.output, options).await
    });
    runtime.shutdown_background();
    outcome
}

async fn follow(remote: &Remote, output: Output, options: &TailOptions) -> Result<()> {
    let now = SystemClock.now().0;
    let mut seen: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    let mut cursor = now - 3_600_000_000_000;
    let first = ask(remote, options, (cursor, now), options.lines.clamp(1, LINES), "backward").await?;
    if print_new(&first, &mut seen, output)? == Reader::Gone || !options.follow {
        return Ok(());
    }
    cursor = now - LATE_NS;
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            () = tokio::time::sleep(EVERY) => {}
        }
        let until = SystemClock.now().0;
        let streams = match ask(remote, options, (cursor, until), LINES, "forward").await {
            Ok(streams) => streams,
            Err(error) if error.kind().is_retryable() => {
                say!("{}; trying again", error.full_message());
                continue;
            }
            Err(error) => return Err(error),
        };
        let lines = of_streams(&streams, Order::OldestFirst);
        let (count, last) = (lines.len(), lines.last().map(|line| line.time_ns));
        if print_new(&streams, &mut seen, output)? == Reader::Gone {
            return Ok(());
        }
        cursor = match last {
            // More wait behind it. Where one time alone fills a look, its next nanosecond goes on.
            Some(last) if count == LINES => {
                if last == cursor {
                    last + 1
                } else {
                    last
                }
            }
            _ => cursor.max(until - LATE_NS),
        };
        seen = seen.split_off(&cursor);
    }
}

async fn ask(
    remote: &Remote,
    options: &TailOptions,
    (start, end): (i64, i64),
    limit: usize,
    direction: &str,
) -> Result<Vec<Value>> {
    let mut call = remote.call(Method::GET, "/loki/api/v1/query_range");
    let params = [
        ("query", options.query.clone()),
        ("start", start.to_string()),
        ("end", end.to_string()),
        ("limit", limit.to_string()),
        ("direction", direction.to_owned()),
    ];
    call.builder = call.builder.query(&params);
    let reading = |error| Error::caused(ErrorKind::Unavailable, "reading the server's answer", error);
    let mut answer: Value = call.send_checked().await?.json().await.map_err(reading)?;
    match answer["data"]["result"].take() {
        Value::Array(streams) => Ok(streams),
        _ => Err(Error::new(ErrorKind::Unavailable, "the server's answer has no streams")),
    }
}

/// Prints the lines that were not printed before, oldest first.
fn print_new(streams: &[Value], seen: &mut BTreeMap<i64, Vec<String>>, output: Output) -> Result<Reader> {
    let mut lines = of_streams(streams, Order::OldestFirst);
    let mut met: BTreeMap<(i64, String), usize> = BTreeMap::new();
    lines.retain(|line| {
        let key = format!("{} {}", line.labels, line.text);
        let times = met.entry((line.time_ns, key.clone())).or_default();
        *times += 1;
        let known = seen.entry(line.time_ns).or_default();
        let is_new = known.iter().filter(|own| **own == key).count() < *times;
        if is_new {
            known.push(key);
        }
        is_new
    });
    let text = match output {
        Output::Json => lines
            .iter()
            .map(|line| {
                let time = line.time_ns.to_string();
                format!("{}\n", serde_json::json!({ "time_ns": time, "labels": line.labels, "line": line.text }))
            })
            .collect(),
        _ => text_of(&lines, Colours::of_stdout()),
    };
    print_bytes(text.as_bytes())
}
