//! A YAML node with its path, and what is expected of it. Nothing stops at a problem: it is noted, and reading goes on.

use std::cell::RefCell;
use std::collections::BTreeMap;

use saphyr::{MarkedYaml, Scalar, YamlData};
use serde::Serialize;

use crate::quantity::{parse_milli, parse_units};

/// One thing that is wrong with a manifest, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The path inside the document: `spec.triggers[0].metadata.query`.
    pub path: String,
    /// What is wrong and what is expected.
    pub message: String,
}

/// Problems noted so far, and the file they are in.
pub(super) struct Notes {
    pub file: String,
    pub problems: RefCell<Vec<Problem>>,
}

/// A node and where it is.
#[derive(Clone)]
pub(super) struct Place<'a> {
    yaml: &'a MarkedYaml<'a>,
    pub path: String,
    pub line: usize,
    notes: &'a Notes,
}

impl<'a> Place<'a> {
    pub fn root(yaml: &'a MarkedYaml<'a>, notes: &'a Notes) -> Self {
        Self { yaml, path: String::new(), line: yaml.span.start.line(), notes }
    }

    fn inside(&self, yaml: &'a MarkedYaml<'a>, path: String) -> Self {
        Self { yaml, path, line: yaml.span.start.line(), notes: self.notes }
    }

    pub fn note(&self, message: impl Into<String>) {
        self.note_at(&self.path, message);
    }

    pub fn note_at(&self, path: &str, message: impl Into<String>) {
        let file = self.notes.file.clone();
        let problem = Problem { file, line: self.line, path: path.to_owned(), message: message.into() };
        self.notes.problems.borrow_mut().push(problem);
    }

    fn join(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A field that is there and not null.
    pub fn get(&self, name: &str) -> Option<Self> {
        let YamlData::Mapping(mapping) = &self.yaml.data else { return None };
        let (_, node) = mapping.iter().find(|(key, _)| text_of(key).as_deref() == Some(name))?;
        let place = self.inside(node, self.join(name));
        (!matches!(node.data, YamlData::Value(Scalar::Null))).then_some(place)
    }

    /// A field that must be there.
    pub fn need(&self, name: &str) -> Option<Self> {
        let found = self.get(name);
        if found.is_none() {
            self.note(format!("the field {name} is missing"));
        }
        found
    }

    /// The fields of a mapping.
    pub fn entries(&self) -> Vec<(String, Self)> {
        let YamlData::Mapping(mapping) = &self.yaml.data else {
            self.note(format!("expected fields, found {}", self.kind()));
            return Vec::new();
        };
        let field = |(key, node)| {
            let name = text_of(key)?;
            let path = self.join(&name);
            Some((name, self.inside(node, path)))
        };
        mapping.iter().filter_map(field).collect()
    }

    /// Notes fields that are not among `allowed`.
    pub fn only(&self, allowed: &[&str]) {
        for (name, place) in self.entries() {
            if !allowed.contains(&name.as_str()) {
                place.note(format!("unknown field; the fields are {}", allowed.join(", ")));
            }
        }
    }

    /// The items of a list.
    pub fn items(&self) -> Vec<Self> {
        let YamlData::Sequence(items) = &self.yaml.data else {
            self.note(format!("expected a list, found {}", self.kind()));
            return Vec::new();
        };
        items.iter().enumerate().map(|(index, node)| self.inside(node, format!("{}[{index}]", self.path))).collect()
    }

    /// Text; a number or a truth value must be quoted.
    pub fn text(&self) -> Option<String> {
        if let YamlData::Value(Scalar::String(text)) = &self.yaml.data {
            return Some(text.to_string());
        }
        let hint = if matches!(self.yaml.data, YamlData::Value(_)) { "; write it in quotes" } else { "" };
        self.note(format!("expected text, found {}{hint}", self.kind()));
        None
    }

    pub fn text_at(&self, name: &str) -> Option<String> {
        self.get(name)?.text()
    }

    /// One of these words.
    pub fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.note(format!("expected one of {}, found {text:?}", known.join(", ")));
        }
        found.map(|(_, value)| *value)
    }

    /// A whole number from `least`.
    pub fn whole(&self, least: i32) -> Option<i32> {
        if let YamlData::Value(Scalar::Integer(number)) = self.yaml.data
            && let Ok(number) = i32::try_from(number)
            && number >= least
        {
            return Some(number);
        }
        self.note(format!("expected a whole number from {least}, found {}", self.kind()));
        None
    }

    pub fn whole_at(&self, name: &str, least: i32) -> Option<i32> {
        self.get(name)?.whole(least)
    }

    /// Seconds as milliseconds.
    pub fn seconds_at(&self, name: &str, least: i32) -> Option<i64> {
        self.whole_at(name, least).map(|seconds| i64::from(seconds) * 1000)
    }

    pub fn flag_at(&self, name: &str) -> Option<bool> {
        let place = self.get(name)?;
        if let YamlData::Value(Scalar::Boolean(flag)) = place.yaml.data {
            return Some(flag);
        }
        place.note(format!("expected true or false, found {}", place.kind()));
        None
    }

    /// A quantity in milli-units, written as text or as a number.
    pub fn milli(&self) -> Option<i64> {
        self.quantity(parse_milli)
    }

    /// A quantity in whole units.
    pub fn units(&self) -> Option<i64> {
        self.quantity(parse_units)
    }

    fn quantity(&self, read: impl Fn(&str) -> Result<i64, crate::quantity::QuantityError>) -> Option<i64> {
        let Some(text) = text_of(self.yaml) else {
            self.note(format!("expected a quantity, found {}", self.kind()));
            return None;
        };
        read(&text).map_err(|error| self.note(error.to_string())).ok()
    }

    /// Texts by name, such as labels.
    pub fn texts(&self) -> BTreeMap<String, String> {
        self.entries().into_iter().filter_map(|(name, place)| Some((name, place.text()?))).collect()
    }

    pub fn texts_at(&self, name: &str) -> BTreeMap<String, String> {
        self.get(name).map(|place| place.texts()).unwrap_or_default()
    }

    /// Every reference to a secret that is not optional, wherever it stands.
    pub fn secrets(&self, found: &mut Vec<(String, String)>, lines: &mut BTreeMap<String, usize>) {
        match &self.yaml.data {
            YamlData::Sequence(_) => self.items().iter().for_each(|item| item.secrets(found, lines)),
            YamlData::Mapping(_) => {
                for (name, place) in self.entries() {
                    let references = match (name.as_str(), &place.yaml.data) {
                        ("secretKeyRef" | "secretRef" | "secret", YamlData::Mapping(_)) => vec![place.clone()],
                        ("secretTargetRef", YamlData::Sequence(_)) => place.items(),
                        _ => Vec::new(),
                    };
                    for reference in &references {
                        let key = if name == "secret" { "secretName" } else { "name" };
                        let is_optional =
                            reference.get("optional").is_some_and(|flag| text_of(flag.yaml).as_deref() == Some("true"));
                        if let Some(secret) = reference.get(key).and_then(|name| text_of(name.yaml))
                            && !is_optional
                        {
                            lines.insert(reference.path.clone(), reference.line);
                            found.push((reference.path.clone(), secret));
                        }
                    }
                    place.secrets(found, lines);
                }
            }
            _ => {}
        }
    }

    fn kind(&self) -> String {
        match &self.yaml.data {
            YamlData::Mapping(_) => "a mapping".to_owned(),
            YamlData::Sequence(_) => "a list".to_owned(),
            YamlData::Value(Scalar::Null) => "nothing".to_owned(),
            _ => match text_of(self.yaml) {
                Some(text) if text.chars().count() <= 60 => format!("{text:?}"),
                _ => "a text".to_owned(),
            },
        }
    }
}

/// The text of a scalar, numbers and truth values included.
fn text_of(yaml: &MarkedYaml<'_>) -> Option<String> {
    match &yaml.data {
        YamlData::Value(Scalar::String(text)) => Some(text.to_string()),
        YamlData::Value(Scalar::Integer(number)) => Some(number.to_string()),
        YamlData::Value(Scalar::FloatingPoint(number)) => Some(number.to_string()),
        YamlData::Value(Scalar::Boolean(flag)) => Some(flag.to_string()),
        _ => None,
    }
}

impl Place<'_> {
    pub fn notes_file(&self) -> String {
        self.notes.file.clone()
    }
}
