//! Objects in the forms of `-o`: JSON, YAML, names, JSONPath, columns.

use serde_json::{Value, json};
use tidemill_fleet::objects::Kind;

use super::jsonpath::Template;
use super::{columns, reference, text, yaml};
use crate::error::{Error, Result};
use crate::output::{Output, print_text};

/// Prints one object.
///
/// # Errors
/// A template that cannot be read; a form that objects do not have.
pub fn print_object(output: Output, kind: &Kind, object: &Value) -> Result<()> {
    print_text(&render(output, kind, object)?)
}

/// Prints objects of several kinds: a list, or one line each.
///
/// # Errors
/// As [`print_object`].
pub fn print_objects(output: Output, groups: Vec<(&'static Kind, Vec<Value>)>) -> Result<()> {
    if output == Output::Object("name") {
        let lines: Vec<String> = groups
            .iter()
            .flat_map(|(kind, objects)| {
                objects.iter().map(|object| reference(kind, text(object, "/metadata/name")) + "\n")
            })
            .collect();
        return print_text(&lines.concat());
    }
    let items: Vec<Value> = groups.into_iter().flat_map(|(_, objects)| objects).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items});
    print_text(&document(output, &list)?)
}

/// One object's text, with its end of line where the form has one.
///
/// # Errors
/// As [`print_object`].
pub fn render(output: Output, kind: &Kind, object: &Value) -> Result<String> {
    match output {
        Output::Object("name") => Ok(reference(kind, text(object, "/metadata/name")) + "\n"),
        Output::Table | Output::Object("wide") => {
            let is_wide = output == Output::Object("wide");
            Ok(columns::align(&columns::head(kind.kind, is_wide), &[columns::cells(kind.kind, object, is_wide)], false))
        }
        output => document(output, object),
    }
}

fn document(output: Output, value: &Value) -> Result<String> {
    match output {
        Output::Json => Ok(format!("{value:#}\n")),
        Output::Object("yaml") => Ok(yaml::emit(value)),
        Output::Object(form) => {
            if let Some(template) = form.strip_prefix("jsonpath=") {
                return Ok(read(template)?.render(value));
            }
            match form.strip_prefix("custom-columns=") {
                Some(columns) => custom_columns(columns, value),
                None => Err(Error::invalid(format!("--output {form}: objects have no such form"))),
            }
        }
        output => Err(Error::invalid(format!(
            "--output {output}: objects are printed as table, wide, name, json, yaml, jsonpath=… or custom-columns=…"
        ))),
    }
}

fn read(template: &str) -> Result<Template> {
    Template::parse(template).map_err(|problem| Error::invalid(format!("--output jsonpath={template}: {problem}")))
}

/// `NAME:.metadata.name,IMAGE:.spec…`
fn custom_columns(text: &str, value: &Value) -> Result<String> {
    let mut heads = Vec::new();
    let mut paths = Vec::new();
    for column in text.split(',') {
        let (head, path) = column
            .split_once(':')
            .filter(|(head, path)| !head.is_empty() && !path.is_empty())
            .ok_or_else(|| Error::invalid(format!("--output custom-columns={text}: {column:?} is no HEAD:PATH")))?;
        heads.push(head);
        paths.push(read(path)?);
    }
    let objects: Vec<&Value> = match value.get("items").and_then(Value::as_array) {
        Some(items) if value.get("kind").and_then(Value::as_str) == Some("List") => items.iter().collect(),
        _ => vec![value],
    };
    let cell = |object: &Value, path: &Template| {
        let found: Vec<String> = path
            .find(object)
            .into_iter()
            .map(|value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned))
            .collect();
        if found.is_empty() { "<none>".to_owned() } else { found.join(",") }
    };
    let rows: Vec<Vec<String>> =
        objects.iter().map(|object| paths.iter().map(|path| cell(object, path)).collect()).collect();
    Ok(columns::align(&heads, &rows, false))
}
