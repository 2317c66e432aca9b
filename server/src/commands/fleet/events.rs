//! `tidemill events`: what happened to objects, oldest first.

use clap::Args;
use serde_json::Value;

use super::{Client, Next, Place, columns, kind_named, print_objects, text};
use crate::cli::GlobalOptions;
use crate::error::{Error, Result};
use crate::output::{Output, Reader, print_bytes, print_text, say};

/// Options of `events`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill events -A
  tidemill events --for deploy/web")]
pub struct EventsOptions {
    #[command(flatten)]
    place: Place,
    /// About one object, as deploy/web
    #[arg(long = "for", value_name = "KIND/NAME")]
    about: Option<String>,
    /// Of these types, as Warning
    #[arg(long, value_name = "TYPE,…", value_delimiter = ',')]
    types: Vec<String>,
    /// Go on as they come
    #[arg(long, short = 'w')]
    watch: bool,
    /// Leave the head out
    #[arg(long)]
    no_headers: bool,
}

/// Runs it.
///
/// # Errors
/// `Invalid` for what is no object; the server's.
pub async fn run(global: &GlobalOptions, client: Client, options: EventsOptions) -> Result<()> {
    let kind = kind_named("events")?;
    let mut query = Vec::new();
    if let Some(about) = &options.about {
        let (about_kind, name) =
            about.split_once('/').ok_or_else(|| Error::invalid(format!("--for {about:?}: expected KIND/NAME")))?;
        query.push((
            "fieldSelector",
            format!("involvedObject.kind={},involvedObject.name={name}", kind_named(about_kind)?.kind),
        ));
    }
    let is_wanted =
        |event: &Value| options.types.is_empty() || options.types.iter().any(|wanted| wanted == text(event, "/type"));
    let mut events = client.list_by(kind, options.place.scope(), &query).await?;
    events.retain(is_wanted);
    sort(&mut events);
    let head = |is_all: bool| {
        let mut head = columns::head("Event", false);
        if is_all {
            head.insert(0, "NAMESPACE");
        }
        head
    };
    let row = |event: &Value| {
        let mut cells = columns::cells("Event", event, false);
        if options.place.all_namespaces {
            cells.insert(0, text(event, "/metadata/namespace").to_owned());
        }
        cells
    };
    if global.output != Output::Table {
        return print_objects(global.output, vec![(kind, events)]);
    }
    if events.is_empty() && !options.watch {
        say!(
            "No events found{}.",
            options.place.scope().map(|namespace| format!(" in {namespace} namespace")).unwrap_or_default()
        );
        return Ok(());
    }
    let rows: Vec<Vec<String>> = events.iter().map(row).collect();
    print_text(&columns::align(&head(options.place.all_namespaces), &rows, options.no_headers))?;
    if !options.watch {
        return Ok(());
    }
    let mut known: std::collections::BTreeSet<String> = events.iter().map(version).collect();
    let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    client
        .watch(kind, options.place.scope(), &query, |word, event| {
            if word == "DELETED" || !is_wanted(event) || !known.insert(version(event)) {
                return Ok(Next::More);
            }
            let line = columns::align(&head(options.place.all_namespaces), &[row(event)], true);
            Ok(if print_bytes(line.as_bytes())? == Reader::Gone { Next::Enough } else { Next::More })
        })
        .await
}

fn version(event: &Value) -> String {
    format!("{}/{}", text(event, "/metadata/uid"), text(event, "/metadata/resourceVersion"))
}

/// Oldest first, by when each was last told.
pub(super) fn sort(events: &mut [Value]) {
    events.sort_by(|one, other| text(one, "/lastTimestamp").cmp(text(other, "/lastTimestamp")));
}
