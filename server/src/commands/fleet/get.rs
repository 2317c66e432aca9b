//! `tidemill get`: objects in the forms that kubectl prints.

use clap::Args;
use serde_json::Value;
use tidemill_fleet::objects::Kind;
use tidemill_types::ErrorKind;

use super::jsonpath::Template;
use super::{Client, Named, Next, Place, columns, named, print_object, print_objects, reference, text};
use crate::cli::GlobalOptions;
use crate::error::{Error, Result};
use crate::output::{Output, Reader, print_bytes, print_text, say};

/// Options of `get`.
#[derive(Debug, Args)]
#[command(
    after_help = "Kinds go by every word kubectl knows for them (pods, po, deploy, hpa, so, sj …), several by commas, all for the usual ones.

Examples:
  tidemill get deploy,pods
  tidemill get scaledjob/batch -o yaml
  tidemill get pods -A -l app=web -w
  tidemill get jobs -o jsonpath='{range .items[*]}{.metadata.name}{\"\\n\"}{end}'"
)]
pub struct GetOptions {
    /// A kind and names, or kind/name
    #[arg(required = true, value_name = "KIND [NAME] | KIND/NAME")]
    words: Vec<String>,
    #[command(flatten)]
    place: Place,
    /// Those whose labels match, as app=web,tier!=db
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,
    /// Those whose fields match, as metadata.name=web
    #[arg(long, value_name = "SELECTOR")]
    field_selector: Option<String>,
    /// Go on with changes as they come
    #[arg(long, short = 'w')]
    watch: bool,
    /// Show labels in a column
    #[arg(long)]
    show_labels: bool,
    /// Leave the head out
    #[arg(long)]
    no_headers: bool,
    /// Order by the values of a JSONPath
    #[arg(long, value_name = "JSONPATH")]
    sort_by: Option<String>,
    /// What is not there is no error
    #[arg(long)]
    ignore_not_found: bool,
}

/// Runs it.
///
/// # Errors
/// `NotFound` for names; `Invalid` for a template that cannot be read.
pub async fn run(global: &GlobalOptions, client: Client, options: GetOptions) -> Result<()> {
    let wanted = named(&options.words)?;
    let sort_by = options.sort_by.as_deref().map(template).transpose()?;
    let is_single = wanted.len() == 1 && wanted[0].name.is_some();
    let mut groups: Vec<(&'static Kind, Vec<Value>)> = Vec::new();
    for one in &wanted {
        let found = fetch(&client, one, &options).await?;
        match groups.iter_mut().find(|(kind, _)| *kind == one.kind) {
            Some((_, objects)) => objects.extend(found),
            None => groups.push((one.kind, found)),
        }
    }
    if let Some(template) = &sort_by {
        groups.iter_mut().for_each(|(_, objects)| sort(objects, template));
    }
    match global.output {
        Output::Table | Output::Object("wide") => print_tables(global.output, &groups, &options, wanted.len() > 1)?,
        output if is_single => {
            for (kind, objects) in &groups {
                objects.iter().try_for_each(|object| print_object(output, kind, object))?;
            }
        }
        output => print_objects(output, groups.clone())?,
    }
    if !options.watch {
        return Ok(());
    }
    match wanted.as_slice() {
        [one] => {
            let listed: Vec<Value> = groups.into_iter().flat_map(|(_, objects)| objects).collect();
            watch(global.output, &client, one, &options, &listed).await
        }
        _ => Err(Error::invalid("-w watches one kind")),
    }
}

async fn fetch(client: &Client, one: &Named, options: &GetOptions) -> Result<Vec<Value>> {
    match &one.name {
        Some(name) => match client.get(one.kind, options.place.name(), name).await {
            Ok(object) => Ok(vec![object]),
            Err(error) if options.ignore_not_found && error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        },
        None => client.list_by(one.kind, options.place.scope(), &query(options, None)).await,
    }
}

fn query<'a>(options: &'a GetOptions, name: Option<&'a str>) -> Vec<(&'static str, String)> {
    let mut query = Vec::new();
    query.extend(options.selector.clone().map(|selector| ("labelSelector", selector)));
    let fields: Vec<String> =
        options.field_selector.clone().into_iter().chain(name.map(|name| format!("metadata.name={name}"))).collect();
    if !fields.is_empty() {
        query.push(("fieldSelector", fields.join(",")));
    }
    query
}

fn template(text: &str) -> Result<Template> {
    Template::parse(text).map_err(|problem| Error::invalid(format!("JSONPath {text:?}: {problem}")))
}

fn sort(objects: &mut [Value], template: &Template) {
    let key = |object: &Value| template.find(object).first().map(|value| (*value).clone()).unwrap_or_default();
    objects.sort_by(|one, other| match (key(one), key(other)) {
        (Value::Number(one), Value::Number(other)) => {
            one.as_f64().unwrap_or_default().total_cmp(&other.as_f64().unwrap_or_default())
        }
        (one, other) => show(&one).cmp(&show(&other)),
    });
}

fn show(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn print_tables(
    output: Output,
    groups: &[(&'static Kind, Vec<Value>)],
    options: &GetOptions,
    is_mixed: bool,
) -> Result<()> {
    let shown: Vec<&(&Kind, Vec<Value>)> = groups.iter().filter(|(_, objects)| !objects.is_empty()).collect();
    if shown.is_empty() && !options.watch {
        if !options.ignore_not_found {
            match options.place.scope() {
                Some(namespace) => say!("No resources found in {namespace} namespace."),
                None => say!("No resources found"),
            }
        }
        return Ok(());
    }
    let is_mixed = is_mixed && groups.len() > 1;
    for (index, (kind, objects)) in shown.into_iter().enumerate() {
        if index > 0 {
            print_text("\n")?;
        }
        let rows: Vec<Vec<String>> =
            objects.iter().map(|object| row(output, kind, object, options, is_mixed)).collect();
        print_text(&columns::align(&head(output, kind, options), &rows, options.no_headers))?;
    }
    Ok(())
}

fn head(output: Output, kind: &Kind, options: &GetOptions) -> Vec<&'static str> {
    let mut head = columns::head(kind.kind, output == Output::Object("wide"));
    if options.place.all_namespaces && kind.is_namespaced {
        head.insert(0, "NAMESPACE");
    }
    if options.show_labels {
        head.push("LABELS");
    }
    head
}

fn row(output: Output, kind: &Kind, object: &Value, options: &GetOptions, is_mixed: bool) -> Vec<String> {
    let mut cells = columns::cells(kind.kind, object, output == Output::Object("wide"));
    if is_mixed && kind.kind != "Event" {
        cells[0] = reference(kind, text(object, "/metadata/name"));
    }
    if options.place.all_namespaces && kind.is_namespaced {
        cells.insert(0, text(object, "/metadata/namespace").to_owned());
    }
    if options.show_labels {
        let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
        let pairs: Vec<String> =
            labels.into_iter().flatten().map(|(key, value)| format!("{key}={}", show(value))).collect();
        cells.push(if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") });
    }
    cells
}

/// Rows for what changes after what was `listed`; the columns are as wide as their heads and first rows want.
async fn watch(output: Output, client: &Client, one: &Named, options: &GetOptions, listed: &[Value]) -> Result<()> {
    let name = one.name.as_deref();
    let mut versions: std::collections::BTreeMap<String, String> = listed
        .iter()
        .map(|object| (text(object, "/metadata/uid").to_owned(), text(object, "/metadata/resourceVersion").to_owned()))
        .collect();
    let mut has_head = !listed.is_empty() || options.no_headers;
    let query = query(options, name);
    let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    client
        .watch(one.kind, options.place.scope(), &query, |word, object| {
            let (uid, version) =
                (text(object, "/metadata/uid").to_owned(), text(object, "/metadata/resourceVersion").to_owned());
            if versions.insert(uid, version.clone()).as_ref() == Some(&version) && word != "DELETED" {
                return Ok(Next::More);
            }
            let shown = match output {
                Output::Table | Output::Object("wide") => {
                    let rows = [row(output, one.kind, object, options, false)];
                    let text = columns::align(&head(output, one.kind, options), &rows, has_head);
                    has_head = true;
                    text
                }
                output => super::render(output, one.kind, object)?,
            };
            Ok(if print_bytes(shown.as_bytes())? == Reader::Gone { Next::Enough } else { Next::More })
        })
        .await
}
