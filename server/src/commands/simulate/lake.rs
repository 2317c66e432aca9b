//! A load out of the lake: counts over time by a query of the running server.

use http::{Method, header};
use tidemill_lake::clock::{Clock as _, SystemClock};

use crate::cli::GlobalOptions;
use crate::client::{find_server, no_server};
use crate::commands::load::acting_for_the_only_one;
use crate::commands::server_runtime;
use crate::config::parse_duration;
use crate::encode::OutputFormat;
use crate::error::{Error, Result};
use crate::http::SqlRequest;
use crate::query::RequestedLimits;

/// Bytes of rows that are read at most.
const MAX_BYTES: usize = 256 * 1024 * 1024;
const EXAMPLE: &str =
    "as --query \"SELECT date_trunc('minute', time) AS time, count(*) AS value FROM logs GROUP BY 1\"";

/// The rows of `query` over the last `since`, as CSV of time and count.
///
/// # Errors
/// `Invalid` for a duration or a query that cannot be used, and for one that gives no row; `Unavailable` without a server; the server's own.
pub fn rows(global: &GlobalOptions, since: &str, query: Option<&str>) -> Result<String> {
    let length = parse_duration(since)
        .map_err(|problem| Error::invalid(format!("--load lake:{since}: {problem}")).with_hint("as lake:7d"))?;
    let query = query.ok_or_else(|| {
        Error::invalid(format!("--load lake:{since} needs the query that counts the load")).with_hint(EXAMPLE)
    })?;
    let length_ns = i64::try_from(length.as_nanos()).unwrap_or(i64::MAX);
    let start_ns = SystemClock.now().0.saturating_sub(length_ns);
    let limits = RequestedLimits { start_ns: Some(start_ns), ..RequestedLimits::default() };
    // A load is told in the order of time, whatever order the query leaves.
    let query = format!("SELECT * FROM ({}) ORDER BY 1", query.trim().trim_end_matches(';'));
    let request = SqlRequest { query, limits };
    let config = global.load_config(Vec::new())?;
    let runtime = server_runtime(&config)?;
    let text = runtime.block_on(async {
        let remote = find_server(global, &config)?.ok_or_else(no_server)?;
        let remote = if remote.organization().is_some() { remote } else { acting_for_the_only_one(remote).await };
        let mut call = remote.request(Method::POST, "sql");
        call.builder = call.builder.header(header::ACCEPT, OutputFormat::Csv.media_type()).json(&request);
        let mut response = call.send_checked().await?;
        let mut text = Vec::new();
        let cut = |error| Error::caused(tidemill_types::ErrorKind::Unavailable, "reading the load", error);
        while let Some(chunk) = response.chunk().await.map_err(cut)? {
            if text.len() + chunk.len() > MAX_BYTES {
                return Err(Error::invalid(format!("the query gives more than {MAX_BYTES} bytes"))
                    .with_hint("count by minute or by second"));
            }
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).map_err(|_| Error::invalid("the rows of the query are no text"))
    });
    runtime.shutdown_background();
    as_counts(&text?, since)
}

/// The same rows with a header that says what they are.
fn as_counts(text: &str, since: &str) -> Result<String> {
    let (header, rows) = text.split_once('\n').unwrap_or((text, ""));
    let columns = header.split(',').count();
    if columns != 2 {
        let message = format!("the query gives {columns} columns ({}), expected time and count", header.trim());
        return Err(Error::invalid(message).with_hint(EXAMPLE));
    }
    if rows.trim().is_empty() {
        return Err(Error::invalid(format!("the query gives no row over the last {since}: there is no load to run"))
            .with_hint("is there data of that time? tidemill sql --since 7d runs the same query"));
    }
    Ok(format!("time,count\n{rows}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_counts_or_say_what_is_missing() {
        assert_eq!(as_counts("t,n\n1,2\n", "7d").expect("rows"), "time,count\n1,2\n");
        for (text, part) in [("t,n\n", "no row over the last 7d"), ("", "1 columns"), ("a,b,c\n1,2,3\n", "3 columns")] {
            let error = as_counts(text, "7d").expect_err(text);
            assert!(error.to_string().contains(part), "{text:?}: {error}");
        }
    }
}
