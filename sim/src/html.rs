//! One page that holds everything: a table, charts of backlog, replicas and cost, and the reasons. No script, no address of anything else.

use std::fmt::Write as _;

use crate::outcome::{Minute, Outcome};
use crate::{Load, Setup};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 180.0;
/// Points of one line; more could not be told apart.
const MAX_POINTS: usize = 960;
/// Decisions that are listed for each policy.
const LISTED: usize = 200;
const COLOURS: [&str; 8] = ["#1b6ca8", "#c0392b", "#1e8449", "#8e44ad", "#b9770e", "#117a65", "#5d6d7e", "#a93226"];

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1040px;padding:0 1rem;color:#1c2833}\
table{border-collapse:collapse;width:100%}th,td{padding:.3rem .6rem;border-bottom:1px solid #d5d8dc;text-align:right}\
th:first-child,td:first-child{text-align:left}svg{width:100%;height:auto;background:#fbfcfc;border:1px solid #d5d8dc}\
.key{display:inline-block;margin-right:1.2rem}.key b{display:inline-block;width:1.6rem;height:.3rem;vertical-align:middle;margin-right:.4rem}\
summary{cursor:pointer}li{margin:.2rem 0}.why{color:#566573}@media(prefers-color-scheme:dark){body{background:#17202a;color:#eaecee}\
svg{background:#1c2833}.why{color:#aeb6bf}}";

/// The page.
pub fn page(setup: &Setup, load: &Load, outcomes: &[Outcome]) -> String {
    let mut page =
        String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Simulation</title>");
    let _ = write!(page, "<meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>");
    let _ = write!(
        page,
        "<h1>Simulation</h1><p>{} items over {:.1} h from <code>{}</code>; an item takes {:.1} s, a replica {:.1} s to start, {:.2} % of \
         items take their replica down; the objective is a wait of {:.0} s; seed {}.</p>",
        load.arrivals_ms.len(),
        load.duration_ms as f64 / 3_600_000.0,
        escape(&load.name),
        setup.service_ms as f64 / 1000.0,
        setup.startup_ms as f64 / 1000.0,
        setup.failure * 100.0,
        setup.objective_ms as f64 / 1000.0,
        setup.seed,
    );
    table(&mut page, outcomes);
    page.push_str("<p>");
    for (index, outcome) in outcomes.iter().enumerate() {
        let _ = write!(
            page,
            "<span class=\"key\"><b style=\"background:{}\"></b>{}</span>",
            colour(index),
            escape(&outcome.policy)
        );
    }
    page.push_str("</p>");
    chart(&mut page, "Backlog (items that wait)", outcomes, |minute| minute.backlog as f64);
    chart(&mut page, "Oldest wait (seconds)", outcomes, |minute| minute.oldest_s as f64);
    chart(&mut page, "Replicas", outcomes, |minute| minute.replicas as f64);
    chart(&mut page, "Cost (replica-hours so far)", outcomes, |minute| minute.cost_hours);
    reasons(&mut page, outcomes);
    page.push_str("</body></html>\n");
    page
}

fn table(page: &mut String, outcomes: &[Outcome]) {
    page.push_str(
        "<table><tr><th>policy</th><th>p50 wait</th><th>p99 wait</th><th>max wait</th><th>over objective</th><th>replica-hours</th>\
         <th>starts</th><th>in vain</th><th>flaps</th><th>unfinished</th></tr>",
    );
    for outcome in outcomes {
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{:.1} s</td><td>{:.1} s</td><td>{:.1} s</td><td>{} s</td><td>{:.2}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td></tr>",
            escape(&outcome.policy),
            outcome.p50_wait_s,
            outcome.p99_wait_s,
            outcome.max_wait_s,
            outcome.over_objective_s,
            outcome.replica_hours,
            outcome.starts,
            outcome.wasted,
            outcome.flaps,
            outcome.unfinished,
        );
    }
    page.push_str("</table>");
}

fn chart(page: &mut String, title: &str, outcomes: &[Outcome], value: impl Fn(&Minute) -> f64) {
    let highest = outcomes.iter().flat_map(|outcome| &outcome.minutes).map(&value).fold(1.0, f64::max);
    let minutes = outcomes.iter().map(|outcome| outcome.minutes.len()).max().unwrap_or(1).max(2);
    let _ = write!(page, "<h2>{title}</h2><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
    for (index, outcome) in outcomes.iter().enumerate() {
        let stride = outcome.minutes.len().div_ceil(MAX_POINTS).max(1);
        let _ = write!(page, "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\" points=\"", colour(index));
        for (place, part) in outcome.minutes.chunks(stride).enumerate() {
            let x = (place * stride) as f64 / (minutes - 1) as f64 * WIDTH;
            let y = HEIGHT - 4.0 - part.iter().map(&value).fold(0.0, f64::max) / highest * (HEIGHT - 20.0);
            let _ = write!(page, "{x:.1},{y:.1} ");
        }
        page.push_str("\"/>");
    }
    let _ = write!(
        page,
        "<text x=\"4\" y=\"13\" font-size=\"12\" fill=\"currentColor\">{highest:.0}</text><text x=\"{}\" y=\"{}\" font-size=\"12\" \
         text-anchor=\"end\" fill=\"currentColor\">{} min</text></svg>",
        WIDTH - 4.0,
        HEIGHT - 6.0,
        minutes
    );
}

fn reasons(page: &mut String, outcomes: &[Outcome]) {
    page.push_str("<h2>Reasons</h2>");
    for outcome in outcomes {
        let _ = write!(
            page,
            "<details><summary>{}: {} decisions that changed something</summary><ol>",
            escape(&outcome.policy),
            outcome.decisions
        );
        for change in outcome.changes.iter().take(LISTED) {
            let _ = write!(
                page,
                "<li>{:02}:{:02}:{:02} <b>{}</b> <span class=\"why\">{}</span></li>",
                change.at_s / 3600,
                change.at_s / 60 % 60,
                change.at_s % 60,
                escape(&change.action),
                escape(&change.reasons.join(" · "))
            );
        }
        page.push_str("</ol>");
        if outcome.decisions as usize > LISTED {
            let _ = write!(page, "<p>The first {LISTED} are listed.</p>");
        }
        page.push_str("</details>");
    }
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
