//! `tidemill status`: what waits, what is stored, how far behind.

use tidemill_types::Action;

use crate::admin::Status;
use crate::cli::GlobalOptions;
use crate::client::Target;
use crate::config::format_bytes;
use crate::error::Result;
use crate::output::{Output, Table, print, print_text};
use crate::present::age;

/// Runs it.
///
/// # Errors
/// Those of the installation.
pub async fn run(global: &GlobalOptions, target: &Target) -> Result<()> {
    let status = target.status().await?;
    match global.output {
        Output::Json | Output::Html | Output::Object(_) => print(global.output, &status, |_| Table::default()),
        Output::Csv => print(global.output, &status, queues),
        Output::Table => {
            let lag = match status.ingest_lag_ms {
                0 => "everything that arrived is queryable".to_owned(),
                ms => format!("the oldest input has been waiting for {}", age(ms)),
            };
            let mut head = format!("tidemill {} on {}; {lag}", status.version, status.metastore);
            if let Some(it) = &status.arrival_to_queryable {
                head.push_str(&format!(
                    "\nfrom arrival to queryable in the last {}: p50 {:.0} ms, p99 {:.0} ms ({} inputs)",
                    age(i64::try_from(it.window_s * 1000).unwrap_or(i64::MAX)),
                    it.p50_ms,
                    it.p99_ms,
                    it.inputs
                ));
            }
            print_text(&format!("{head}\n\n{}\n{}", queues(&status).render(), segments(&status).render()))
        }
    }
}

fn queues(status: &Status) -> Table {
    let mut table = Table::new(&["QUEUE", "RUNNABLE", "BYTES", "OLDEST", "DELAYED", "LEASED", "DEAD"]);
    for it in &status.queues {
        let backlog = &it.backlog;
        let is_used = backlog.runnable + backlog.delayed + backlog.leased + backlog.dead > 0;
        // Jobs are submitted by programs; most installations have none.
        if backlog.queue.action == Action::Job && !is_used {
            continue;
        }
        table.row(vec![
            format!("{} {}", backlog.queue.action, backlog.queue.signal),
            backlog.runnable.to_string(),
            format_bytes(backlog.runnable_bytes),
            backlog.oldest.map_or("-".to_owned(), |_| age(it.oldest_age_ms)),
            backlog.delayed.to_string(),
            backlog.leased.to_string(),
            backlog.dead.to_string(),
        ]);
    }
    table
}

fn segments(status: &Status) -> Table {
    let mut table = Table::new(&["SIGNAL", "TIER", "LEVEL", "SEGMENTS", "ROWS", "SIZE"]);
    for it in &status.segments {
        let tier = if it.tier.0 == 0 { "raw".to_owned() } else { format!("{} s", it.tier.0) };
        let level = format!("L{}", it.level.0);
        table.row(vec![
            it.signal.to_string(),
            tier,
            level,
            it.segments.to_string(),
            it.rows.to_string(),
            format_bytes(it.bytes),
        ]);
    }
    table
}
