//! Queries to paste, with their first results.

use tidemill_types::OrganizationId;

use super::OWN_ORGANIZATION;
use crate::encode::{Answer, OutputFormat};
use crate::error::Result;
use crate::invocation::Invocation;
use crate::output::{Reader, print_bytes, print_text};
use crate::query::{Queries, RequestedLimits};

struct Stop {
    question: &'static str,
    query: &'static str,
}

const TOUR: &[Stop] = &[
    Stop {
        question: "Who logs how much, and how loudly?",
        query: "SELECT service_name, severity_text, count(*) AS records FROM logs GROUP BY 1, 2 ORDER BY records DESC LIMIT 6",
    },
    Stop {
        question: "What went wrong last?",
        query: "SELECT time, service_name, split_part(body, chr(10), 1) AS body FROM logs WHERE severity_number >= 17 ORDER BY time DESC LIMIT 3",
    },
    Stop {
        question: "Which requests are slow?",
        query: "SELECT service_name, name, count(*) AS spans, round(avg(duration_ns) / 1e6, 1) AS average_ms, \
                round(max(duration_ns) / 1e6, 1) AS slowest_ms FROM spans WHERE kind = 'server' GROUP BY 1, 2 ORDER BY slowest_ms DESC LIMIT 5",
    },
    Stop {
        question: "Which metrics are there?",
        query: "SELECT name, unit, kind, count(*) AS points FROM metrics GROUP BY 1, 2, 3 ORDER BY points DESC LIMIT 6",
    },
];

/// Runs and prints them.
///
/// # Errors
/// Those of the queries.
pub async fn show(queries: &Queries, organization: OrganizationId, typed: &Invocation) -> Result<()> {
    for stop in TOUR {
        print_text(&format!("\n# {}\n{} \"{}\"\n", stop.question, typed.command("sql"), stop.query))?;
        let query = queries.sql(organization, stop.query, &RequestedLimits::default()).await?;
        let mut answer = Answer::new(OutputFormat::Table, query)?;
        while let Some(chunk) = answer.next_chunk().await? {
            if print_bytes(&chunk)? == Reader::Gone {
                return Ok(());
            }
        }
    }
    print_text(&format!(
        "\n# What this process tells of itself\n\
         {} --organization {OWN_ORGANIZATION} \"SELECT name, count(*) FROM spans GROUP BY 1\"\n\
         \n# Which attributes are there?\n\
         {} --signal traces\n\
         \n# What waits, what is stored, how far behind\n\
         {}\n",
        typed.command("sql"),
        typed.command("attributes"),
        typed.command("status"),
    ))
}
