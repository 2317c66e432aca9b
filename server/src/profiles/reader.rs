//! A YAML node with its path, and what is expected of it.
//!
//! Nothing here stops at a problem: it is noted, and reading goes on, so that all are told at once.

use std::cell::RefCell;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use tidemill_types::OrganizationId;

use super::problems::{Problem, Problems};
use super::syntax::explain;

const MAX_DOCUMENT_BYTES: usize = 4 * 1024 * 1024;

/// Problems noted so far.
pub(crate) type Notes = RefCell<Vec<Problem>>;

/// Parses a text that holds one YAML document.
pub(crate) fn parse_document<'text>(label: &str, text: &'text str) -> Result<MarkedYaml<'text>, Problems> {
    let at_start = |message: String| Problems::one(label, Problem { line: 1, column: 1, path: String::new(), message });
    if text.len() > MAX_DOCUMENT_BYTES {
        return Err(at_start(format!("has {} bytes; at most {MAX_DOCUMENT_BYTES} are read", text.len())));
    }
    let mut documents = MarkedYaml::load_from_str(text).map_err(|error| Problems::one(label, explain(text, &error)))?;
    match documents.len() {
        0 => Err(at_start("is empty; an empty list is written []".to_owned())),
        1 => Ok(documents.remove(0)),
        count => Err(at_start(format!("holds {count} YAML documents; expected one"))),
    }
}

/// A node and where it is.
#[derive(Debug, Clone)]
pub(crate) struct Place<'a> {
    node: &'a MarkedYaml<'a>,
    line: usize,
    column: usize,
    path: String,
    notes: &'a Notes,
}

impl<'a> Place<'a> {
    pub(crate) fn root(node: &'a MarkedYaml<'a>, notes: &'a Notes) -> Self {
        let start = node.span.start;
        Self { node, line: start.line(), column: start.col() + 1, path: String::new(), notes }
    }

    fn inside(&self, node: &'a MarkedYaml<'a>, path: String) -> Self {
        let start = node.span.start;
        Self { node, line: start.line(), column: start.col() + 1, path, notes: self.notes }
    }

    pub(crate) fn line(&self) -> usize {
        self.line
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn note(&self, message: impl Into<String>) {
        let problem =
            Problem { line: self.line, column: self.column, path: self.path.clone(), message: message.into() };
        self.notes.borrow_mut().push(problem);
    }

    pub(crate) fn is_mapping(&self) -> bool {
        matches!(self.node.data, YamlData::Mapping(_))
    }

    fn is_null(&self) -> bool {
        matches!(self.node.data, YamlData::Value(Scalar::Null))
    }

    /// The field of a mapping, without checking the others.
    pub(crate) fn field(&self, name: &str) -> Option<Self> {
        let YamlData::Mapping(mapping) = &self.node.data else { return None };
        let (_, node) = mapping.iter().find(|(key, _)| text_of(key) == Some(name))?;
        Some(self.inside(node, self.join(name))).filter(|place| !place.is_null())
    }

    /// The items of a list; none, with a note, where it is no list.
    pub(crate) fn items(&self, what: &str) -> Vec<Self> {
        let YamlData::Sequence(items) = &self.node.data else {
            self.note(format!("expected a list of {what}, found {}", self.kind()));
            return Vec::new();
        };
        let place = |(index, node)| self.inside(node, format!("{}[{index}]", self.path));
        items.iter().enumerate().map(place).collect()
    }

    /// Notes fields that are not allowed; whether this is a mapping at all.
    pub(crate) fn allow_only(&self, allowed: &[&str]) -> bool {
        let YamlData::Mapping(mapping) = &self.node.data else {
            self.note(format!("expected the fields {}, found {}", allowed.join(", "), self.kind()));
            return false;
        };
        for (key, _) in mapping {
            let at = self.inside(key, self.path.clone());
            match text_of(key) {
                Some(name) if allowed.contains(&name) => {}
                Some(name) => {
                    let at = Self { path: self.join(name), ..at };
                    at.note(format!("unknown field; the fields are {}", allowed.join(", ")));
                }
                None => at.note(format!("a field's name is text, found {}", at.kind())),
            }
        }
        true
    }

    /// Text with something in it.
    pub(crate) fn text(&self) -> Option<&'a str> {
        let text = self.text_or_empty()?;
        if text.is_empty() {
            self.note("is empty");
        }
        Some(text).filter(|text| !text.is_empty())
    }

    pub(crate) fn text_or_empty(&self) -> Option<&'a str> {
        match text_of(self.node) {
            Some(text) => return Some(text),
            None if matches!(
                self.node.data,
                YamlData::Value(Scalar::Integer(_) | Scalar::FloatingPoint(_) | Scalar::Boolean(_))
            ) =>
            {
                self.note(format!("expected text, found {}; write it in quotes", self.kind()));
            }
            None => self.note(format!("expected text, found {}", self.kind())),
        }
        None
    }

    /// Text with something in it that no problem may repeat: a secret.
    pub(crate) fn text_without_value(&self) -> Option<&'a str> {
        let text = text_of(self.node).filter(|text| !text.is_empty());
        if text.is_none() {
            self.note("expected text in quotes, with something in it");
        }
        text
    }

    pub(crate) fn flag(&self) -> Option<bool> {
        if let YamlData::Value(Scalar::Boolean(flag)) = self.node.data {
            return Some(flag);
        }
        self.note(format!("expected true or false, found {}", self.kind()));
        None
    }

    /// A whole number from 1.
    pub(crate) fn positive(&self) -> Option<i32> {
        if let YamlData::Value(Scalar::Integer(number)) = self.node.data
            && let Ok(number) = i32::try_from(number)
            && number >= 1
        {
            return Some(number);
        }
        self.note(format!("expected a whole number from 1 to {}, found {}", i32::MAX, self.kind()));
        None
    }

    pub(crate) fn organization(&self) -> Option<OrganizationId> {
        let text = self.text()?;
        let parsed = text.parse();
        if parsed.is_err() {
            self.note(format!("{text:?} is no UUID, such as dddddddd-aaaa-4ff9-ae8f-365873c552f0"));
        }
        parsed.ok()
    }

    /// A field that must be there.
    pub(crate) fn required(&self, name: &str) -> Option<Self> {
        let found = self.field(name);
        if found.is_none() {
            self.note(format!("the field {name} is missing"));
        }
        found
    }

    fn join(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// What this is, with its value where that is short.
    fn kind(&self) -> String {
        match &self.node.data {
            YamlData::Value(Scalar::Null) => "nothing".to_owned(),
            YamlData::Value(Scalar::Boolean(flag)) => format!("{flag}"),
            YamlData::Value(Scalar::Integer(number)) => format!("the number {number}"),
            YamlData::Value(Scalar::FloatingPoint(number)) => format!("the number {number}"),
            YamlData::Value(Scalar::String(text)) if text.chars().count() <= 60 => format!("the text {text:?}"),
            YamlData::Value(Scalar::String(_)) | YamlData::Representation(..) => "a text".to_owned(),
            YamlData::Sequence(_) => "a list".to_owned(),
            YamlData::Mapping(_) => "a mapping".to_owned(),
            YamlData::Tagged(..) => "a tagged value (tags are not used here)".to_owned(),
            YamlData::Alias(_) | YamlData::BadValue => "a value that YAML does not allow here".to_owned(),
        }
    }
}

fn text_of<'a>(node: &'a MarkedYaml<'_>) -> Option<&'a str> {
    match &node.data {
        YamlData::Value(Scalar::String(text)) => Some(text),
        _ => None,
    }
}

/// The list itself, or where it is inside a chart's values file: `<section>.yaml`.
pub(crate) fn list_or_chart_section<'a>(root: Place<'a>, section: &str, what: &str) -> Vec<Place<'a>> {
    if !root.is_mapping() {
        return root.items(what);
    }
    let Some(found) = root.field(section) else {
        root.note(format!("expected a list of {what}, or a chart's values with {section}.yaml"));
        return Vec::new();
    };
    found.required("yaml").map(|list| list.items(what)).unwrap_or_default()
}
