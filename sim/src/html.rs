//! One page that holds everything: for each workload a table, charts of backlog, waits, replicas, reasons and cost, and the decisions. No
//! script, no address of anything else.

mod chart;

use std::fmt::Write as _;

use crate::outcome::{Change, Outcome};
use crate::replay::Recorded;
use crate::{Load, Setup};
use chart::{Line, chart, reasons_chart};

/// Decisions that are listed for each policy.
const LISTED: usize = 200;
const COLOURS: [&str; 8] = ["#1b6ca8", "#c0392b", "#1e8449", "#8e44ad", "#b9770e", "#117a65", "#5d6d7e", "#d4418e"];

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#d5d8dc;--faint:#566573;--paper:#fbfcfc}\
@media(prefers-color-scheme:dark){:root{--line:#34495e;--faint:#aeb6bf;--paper:#1c2833}body{background:#17202a;color:#eaecee}}\
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1080px;padding:0 1rem}\
h1{margin-bottom:0}h2{margin-top:2.5rem;border-bottom:2px solid var(--line)}h3{margin:1.4rem 0 .3rem;font-size:1rem}\
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;white-space:nowrap;font-size:.9rem}\
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:right}th{color:var(--faint);font-weight:600}\
th:first-child,td:first-child{text-align:left}td.best{font-weight:700}\
svg{width:100%;height:auto;background:var(--paper);border:1px solid var(--line);border-radius:4px;display:block}\
svg text{font:11px system-ui,sans-serif;fill:var(--faint)}svg .grid{stroke:var(--line);stroke-width:1}\
.keys{position:sticky;top:0;background:inherit;padding:.3rem 0}.key{display:inline-block;margin-right:1.2rem}\
.key b{display:inline-block;width:1.6rem;height:.3rem;vertical-align:middle;margin-right:.4rem;border-radius:2px}\
summary{cursor:pointer;padding:.2rem 0}li{margin:.2rem 0}.why,.note{color:var(--faint)}";

/// One workload of a page.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    /// Its name; empty where there is only one.
    pub workload: &'a str,
    /// What arrived.
    pub load: &'a Load,
    /// What came of it, by policy.
    pub outcomes: &'a [Outcome],
    /// What was recorded of it, where it is an incident.
    pub recorded: Option<&'a Recorded>,
}

/// The page.
pub fn page(setup: &Setup, sections: &[Section<'_>]) -> String {
    let mut page =
        String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Simulation</title>");
    let _ = write!(page, "<meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>");
    let _ = write!(
        page,
        "<h1>Simulation</h1><p class=\"note\">An item takes {:.1} s, a replica {:.1} s to start; {:.2} % of items take their replica down; the \
         objective is a wait of {:.0} s; seed {}.</p>",
        setup.service_ms as f64 / 1000.0,
        setup.startup_ms as f64 / 1000.0,
        setup.failure * 100.0,
        setup.objective_ms as f64 / 1000.0,
        setup.seed,
    );
    sections.iter().for_each(|section| add_section(&mut page, setup, section));
    page.push_str("</body></html>\n");
    page
}

fn add_section(page: &mut String, setup: &Setup, section: &Section<'_>) {
    let title = if section.workload.is_empty() { "Workload" } else { section.workload };
    let (load, outcomes) = (section.load, section.outcomes);
    let hours = load.duration_ms as f64 / 3_600_000.0;
    let work = load.arrivals_ms.len() as f64 * setup.service_ms as f64 / 3_600_000.0;
    let _ = write!(
        page,
        "<h2>{}</h2><p>{} items over {hours:.1} h from <code>{}</code>; the work alone is {work:.2} replica-hours.</p>",
        escape(title),
        load.arrivals_ms.len(),
        escape(&load.name),
    );
    if let Some(recorded) = section.recorded {
        let _ = write!(
            page,
            "<p>Recorded (dashed): {:.2} replica-hours, {} changes, at most {:.0} items waiting.</p>",
            recorded.replica_hours, recorded.changes, recorded.highest_backlog
        );
    }
    table(page, outcomes);
    for note in outcomes.iter().flat_map(|outcome| &outcome.notes) {
        let _ = write!(page, "<p class=\"note\">{}</p>", escape(note));
    }
    page.push_str("<p class=\"keys\">");
    for (index, outcome) in outcomes.iter().enumerate() {
        let _ = write!(
            page,
            "<span class=\"key\"><b style=\"background:{}\"></b>{}</span>",
            colour(index),
            escape(&outcome.policy)
        );
    }
    page.push_str("</p>");
    let lines = |value: fn(&crate::outcome::Minute) -> f64| -> Vec<Line> {
        let of = |(index, outcome): (usize, &Outcome)| Line {
            colour: colour(index),
            is_dashed: false,
            values: outcome.minutes.iter().map(value).collect(),
        };
        let recorded = section.recorded.map(|recorded| Line {
            colour: "currentColor",
            is_dashed: true,
            values: recorded.minutes.iter().map(value).collect(),
        });
        outcomes.iter().enumerate().map(of).chain(recorded).collect()
    };
    chart(page, "Backlog", "items that wait", &lines(|minute| minute.backlog as f64));
    let mut waits = lines(|minute| minute.oldest_s as f64);
    waits.truncate(outcomes.len());
    chart(page, "Oldest wait", "seconds", &waits);
    chart(page, "Replicas", "highest of each minute", &lines(|minute| minute.replicas as f64));
    reasons_chart(page, outcomes);
    chart(page, "Cost", "replica-hours so far", &lines(|minute| minute.cost_hours));
    let has_vertical = outcomes.iter().any(|outcome| outcome.evictions + outcome.resizes + outcome.ooms > 0);
    if has_vertical {
        let mut requested = lines(|minute| minute.requested_milli as f64 / 1000.0);
        requested.truncate(outcomes.len());
        chart(page, "Requested CPU", "cores", &requested);
        let mut cores = lines(|minute| minute.core_hours);
        cores.truncate(outcomes.len());
        chart(page, "Cost in requested CPU", "core-hours so far", &cores);
    }
    decisions(page, outcomes);
}

fn table(page: &mut String, outcomes: &[Outcome]) {
    let has_vertical = outcomes.iter().any(|outcome| outcome.evictions + outcome.resizes + outcome.ooms > 0);
    page.push_str(
        "<div class=\"scroll\"><table><tr><th>policy</th><th>p50 wait</th><th>p99 wait</th><th>max wait</th><th>over objective</th>\
         <th>replica-hours</th><th>core-hours</th><th>starts</th><th>in vain</th><th>flaps</th><th>unfinished</th>",
    );
    page.push_str(if has_vertical { "<th>evicted</th><th>resized</th><th>OOM</th></tr>" } else { "</tr>" });
    let least = |value: fn(&Outcome) -> f64| outcomes.iter().map(value).fold(f64::INFINITY, f64::min);
    let (wait, hours) = (least(|one| one.p99_wait_s), least(|one| one.replica_hours));
    for outcome in outcomes {
        let best = |value: f64, best: f64| if outcomes.len() > 1 && value <= best { " class=\"best\"" } else { "" };
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{:.1} s</td><td{}>{:.1} s</td><td>{:.1} s</td><td>{} s</td><td{}>{:.2}</td><td>{:.2}</td><td>{}</td>\
             <td>{}</td><td>{}</td><td>{}</td>",
            escape(&outcome.policy),
            outcome.p50_wait_s,
            best(outcome.p99_wait_s, wait),
            outcome.p99_wait_s,
            outcome.max_wait_s,
            outcome.over_objective_s,
            best(outcome.replica_hours, hours),
            outcome.replica_hours,
            outcome.core_hours,
            outcome.starts,
            outcome.wasted,
            outcome.flaps,
            outcome.unfinished,
        );
        if has_vertical {
            let _ = write!(page, "<td>{}</td><td>{}</td><td>{}</td>", outcome.evictions, outcome.resizes, outcome.ooms);
        }
        page.push_str("</tr>");
    }
    page.push_str("</table></div>");
}

fn decisions(page: &mut String, outcomes: &[Outcome]) {
    page.push_str("<h3>Decisions</h3>");
    for outcome in outcomes {
        let _ = write!(
            page,
            "<details><summary>{}: {} decisions that changed something</summary><ol>",
            escape(&outcome.policy),
            outcome.decisions
        );
        for Change { at_s, action, reasons } in outcome.changes.iter().take(LISTED) {
            let _ = write!(
                page,
                "<li>{:02}:{:02}:{:02} <b>{}</b> <span class=\"why\">{}</span></li>",
                at_s / 3600,
                at_s / 60 % 60,
                at_s % 60,
                escape(action),
                escape(&reasons.join(" · "))
            );
        }
        page.push_str("</ol>");
        if outcome.decisions as usize > LISTED {
            let _ = write!(page, "<p class=\"note\">The first {LISTED} are listed.</p>");
        }
        page.push_str("</details>");
    }
}

pub(crate) fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
