//! `tidemill trace`: one trace as a tree, with bars where each span lies in time.

use std::collections::{HashMap, HashSet};
use std::io::IsTerminal as _;

use clap::Args;
use serde_json::Value;
use tidemill_types::ErrorKind;

use crate::cli::GlobalOptions;
use crate::commands::traceql::{Asked, ask};
use crate::error::{Error, Result};
use crate::http::tempo::TraceRequest;
use crate::output::{Output, Table, print, print_text};

/// Columns of a bar.
const BAR: usize = 32;
/// Columns of a span's name with its place in the tree.
const NAME: usize = 48;
/// Deeper spans are shown as deep as this.
const MAX_DEPTH: usize = 20;

/// Which trace.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill trace 5b8efff798038103d269b633813fc60c
  tidemill trace 5b8efff798038103d269b633813fc60c --output json")]
pub struct TraceOptions {
    /// Its id, in hexadecimal digits
    id: String,
    /// Tell on stderr what was read and pruned
    #[arg(long)]
    stats: bool,
    /// Show attributes of spans and events as well
    #[arg(long)]
    attributes: bool,
}

/// Runs it.
///
/// # Errors
/// `NotFound` where nothing of the trace is there; those of the installation.
pub fn run(global: &GlobalOptions, options: &TraceOptions) -> Result<()> {
    let trace = ask(global, &Asked::Trace(TraceRequest::new(&options.id)?), options.stats)?;
    let spans = read_spans(&trace);
    if spans.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, format!("trace {} is not there", options.id)));
    }
    match global.output {
        Output::Table => {
            let has_colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            print_text(&render(&spans, options.attributes, has_colours))
        }
        Output::Csv | Output::Json | Output::Html | Output::Object(_) => {
            print(global.output, &trace, |_| table(&spans))
        }
    }
}

/// A span as it is shown.
#[derive(Debug, Default)]
struct Shown {
    id: String,
    parent: String,
    name: String,
    service: String,
    kind: String,
    start_ns: u64,
    end_ns: u64,
    is_error: bool,
    message: String,
    attributes: Vec<String>,
    events: Vec<(u64, String)>,
    links: usize,
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn time(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// `key=value` of each attribute.
fn attributes(owner: &Value) -> Vec<String> {
    let plain = |value: &Value| match value.as_object().and_then(|value| value.values().next()) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    list(&owner["attributes"]).iter().map(|own| format!("{}={}", text(&own["key"]), plain(&own["value"]))).collect()
}

/// All spans, the earliest first.
fn read_spans(trace: &Value) -> Vec<Shown> {
    let mut spans = Vec::new();
    for resource in list(&trace["resourceSpans"]) {
        let own = list(&resource["resource"]["attributes"]).iter().find(|own| own["key"] == "service.name");
        let service = own.map(|own| text(&own["value"]["stringValue"])).unwrap_or_default();
        for span in list(&resource["scopeSpans"]).iter().flat_map(|scope| list(&scope["spans"])) {
            let event = |own: &Value| {
                let mut line = text(&own["name"]);
                attributes(own).iter().for_each(|attribute| line.push_str(&format!(" {attribute}")));
                (time(&own["timeUnixNano"]), line)
            };
            spans.push(Shown {
                id: text(&span["spanId"]),
                parent: text(&span["parentSpanId"]),
                name: text(&span["name"]),
                service: service.clone(),
                kind: text(&span["kind"]).trim_start_matches("SPAN_KIND_").to_lowercase(),
                start_ns: time(&span["startTimeUnixNano"]),
                end_ns: time(&span["endTimeUnixNano"]),
                is_error: span["status"]["code"] == "STATUS_CODE_ERROR",
                message: text(&span["status"]["message"]),
                attributes: attributes(span),
                events: list(&span["events"]).iter().map(event).collect(),
                links: list(&span["links"]).len(),
            });
        }
    }
    spans.sort_by(|one, other| (one.start_ns, &one.id).cmp(&(other.start_ns, &other.id)));
    spans
}

/// The spans in the order of the tree, each with its depth. What hangs in no tree comes last, as if it were a root.
fn in_order(spans: &[Shown]) -> Vec<(usize, usize)> {
    let ids: HashMap<&str, usize> = spans.iter().enumerate().map(|(at, span)| (span.id.as_str(), at)).collect();
    let mut children: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut roots = Vec::new();
    for (at, span) in spans.iter().enumerate() {
        match ids.get(span.parent.as_str()).filter(|parent| !span.parent.is_empty() && **parent != at) {
            Some(parent) => children.entry(*parent).or_default().push(at),
            None => roots.push(at),
        }
    }
    let (mut order, mut seen) = (Vec::new(), HashSet::new());
    // Parents in a circle have no root among them.
    for root in roots.into_iter().chain(0..spans.len()) {
        let mut stack = vec![(root, 0)];
        while let Some((at, depth)) = stack.pop() {
            if seen.insert(at) {
                order.push((at, depth));
                stack.extend(children.get(&at).into_iter().flatten().rev().map(|child| (*child, depth + 1)));
            }
        }
    }
    order
}

fn duration_text(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

/// Control characters would move the cursor.
fn clean(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// A text of so many columns.
fn fitted(text: &str, columns: usize) -> String {
    let letters = text.chars().count();
    if letters > columns {
        return text.chars().take(columns.saturating_sub(1)).chain(['…']).collect();
    }
    format!("{text}{}", " ".repeat(columns - letters))
}

fn render(spans: &[Shown], shows_attributes: bool, has_colours: bool) -> String {
    let first = spans.iter().map(|span| span.start_ns).min().unwrap_or(0);
    let last = spans.iter().map(|span| span.end_ns.max(span.start_ns)).max().unwrap_or(0);
    let whole = (last - first).max(1);
    let services: HashSet<&str> = spans.iter().map(|span| span.service.as_str()).collect();
    let errors = spans.iter().filter(|span| span.is_error).count();
    let paint = |code: &str, text: &str| {
        if has_colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let mut tree = format!(
        "{} spans, {} services, {}, {errors} errors\n",
        spans.len(),
        services.len(),
        duration_text(last - first)
    );
    for (at, depth) in in_order(spans) {
        let span = &spans[at];
        let indent = "  ".repeat(depth.min(MAX_DEPTH));
        let name = clean(&format!("{indent}{}: {}", span.service, span.name));
        let column = |ns: u64| (u128::from(ns - first) * BAR as u128 / u128::from(whole)) as usize;
        let from = column(span.start_ns).min(BAR - 1);
        let until = column(span.end_ns.max(span.start_ns)).clamp(from + 1, BAR);
        let bar = format!("{}{}{}", " ".repeat(from), "█".repeat(until - from), " ".repeat(BAR - until));
        let bar = paint(if span.is_error { "31" } else { "36" }, &bar);
        let duration = duration_text(span.end_ns.saturating_sub(span.start_ns));
        let mut notes = String::new();
        if span.is_error {
            notes.push_str(&paint("31", &clean(format!("  ERROR {}", span.message).trim_end())));
        }
        if span.links > 0 {
            notes.push_str(&format!("  links: {}", span.links));
        }
        tree.push_str(&format!("{} |{bar}| {duration:>10}{notes}\n", fitted(&name, NAME)));
        if shows_attributes && !span.attributes.is_empty() {
            tree.push_str(&format!("{indent}    {}\n", clean(&span.attributes.join(" "))));
        }
        for (time, event) in &span.events {
            let event = if shows_attributes { event } else { event.split(' ').next().unwrap_or_default() };
            let after = duration_text(time.saturating_sub(span.start_ns));
            tree.push_str(&format!("{indent}  • +{after} {}\n", clean(event)));
        }
    }
    tree
}

fn table(spans: &[Shown]) -> Table {
    let mut table = Table::new(&["SPAN", "PARENT", "SERVICE", "NAME", "KIND", "START_NS", "DURATION_NS", "ERROR"]);
    for span in spans {
        table.row(vec![
            span.id.clone(),
            span.parent.clone(),
            span.service.clone(),
            span.name.clone(),
            span.kind.clone(),
            span.start_ns.to_string(),
            span.end_ns.saturating_sub(span.start_ns).to_string(),
            span.is_error.to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: &str, parent: &str, start_ns: u64, end_ns: u64) -> Shown {
        let name = format!("span {id}");
        let (id, parent) = (id.to_owned(), parent.to_owned());
        Shown { id, parent, name, service: "shop".to_owned(), start_ns, end_ns, ..Shown::default() }
    }

    #[test]
    fn a_trace_is_a_tree_whatever_its_parents_are() {
        let mut spans = vec![span("a", "", 0, 100), span("b", "a", 10, 60), span("c", "gone", 20, 30)];
        spans.extend([span("d", "e", 40, 50), span("e", "d", 41, 42), span("f", "b", 50, 100)]);
        spans[1].is_error = true;
        spans[1].message = "no\x1b[2J money".to_owned();
        let order: Vec<(usize, usize)> = in_order(&spans);
        assert_eq!(order, [(0, 0), (1, 1), (5, 2), (2, 0), (3, 0), (4, 1)]);
        let text = render(&spans, false, false);
        assert!(text.starts_with("6 spans, 1 services, 100 ns, 1 errors\n"), "{text}");
        assert!(text.contains("ERROR no [2J money") && !text.contains('\x1b'), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains(&format!("|{}|", "█".repeat(BAR))), "{text}");
        // Half of the time, in the second half.
        assert!(lines[3].contains(&format!("|{}{}|", " ".repeat(BAR / 2), "█".repeat(BAR / 2))), "{text}");
    }
}
