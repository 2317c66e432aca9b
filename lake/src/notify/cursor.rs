//! A JSON value together with its path, so that every complaint names its place.

use serde_json::Value;
use tidemill_types::TimestampNs;

use super::event::Malformed;

/// A place in a JSON document.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Cursor<'a> {
    /// The whole document; `path` is empty, or tells in which field of another document it was wrapped.
    pub(super) fn root(value: &'a Value, path: impl Into<String>) -> Self {
        Self { value, path: path.into() }
    }

    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    pub(super) fn path(&self) -> &str {
        if self.path.is_empty() { "$" } else { &self.path }
    }

    pub(super) fn malformed(&self, reason: impl Into<String>) -> Malformed {
        Malformed { path: self.path().to_owned(), reason: reason.into() }
    }

    fn expected(&self, what: &str) -> Malformed {
        self.malformed(format!("expected {what}, found {}", kind_of(self.value)))
    }

    /// Whether this is an object with the field.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value.get(name).is_some_and(|value| !value.is_null())
    }

    /// The field's place and value, where it exists and is not null.
    pub(super) fn find(&self, name: &str) -> Option<Self> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Some(Self { value, path })
    }

    pub(super) fn field(&self, name: &str) -> Result<Self, Malformed> {
        if !self.value.is_object() {
            return Err(self.expected("an object"));
        }
        self.find(name).ok_or_else(|| self.malformed(format!("the field {name:?} is missing")))
    }

    /// The value at a dotted path.
    pub(super) fn at(&self, path: &str) -> Result<Self, Malformed> {
        path.split('.').try_fold(self.clone(), |cursor, name| cursor.field(name))
    }

    pub(super) fn items(&self) -> Result<Vec<Self>, Malformed> {
        let items = self.value.as_array().ok_or_else(|| self.expected("an array"))?;
        let place = |index: usize| format!("{}[{index}]", self.path);
        Ok(items.iter().enumerate().map(|(index, value)| Self { value, path: place(index) }).collect())
    }

    pub(super) fn text(&self) -> Result<&'a str, Malformed> {
        self.value.as_str().ok_or_else(|| self.expected("a string"))
    }

    /// A string with something in it.
    pub(super) fn filled_text(&self) -> Result<&'a str, Malformed> {
        let text = self.text()?;
        if text.is_empty() { Err(self.malformed("is empty")) } else { Ok(text) }
    }

    /// A size: a whole number, or one written as a string as Google does.
    pub(super) fn size(&self) -> Result<u64, Malformed> {
        let number = self.value.as_u64().or_else(|| self.value.as_str()?.parse().ok());
        number.ok_or_else(|| match self.value {
            Value::Number(_) | Value::String(_) => {
                self.malformed(format!("expected a size in bytes, found {}", excerpt(&self.value.to_string())))
            }
            _ => self.expected("a size in bytes"),
        })
    }

    pub(super) fn time(&self) -> Result<TimestampNs, Malformed> {
        let text = self.text()?;
        let parsed = text.parse::<jiff::Timestamp>().ok().and_then(|time| i64::try_from(time.as_nanosecond()).ok());
        parsed.map(TimestampNs).ok_or_else(|| {
            self.malformed(format!("expected a time such as 2026-01-31T10:00:00Z, found {:?}", excerpt(text)))
        })
    }
}

/// The first characters of something a sender wrote, for a message.
pub(super) fn excerpt(text: &str) -> String {
    const LIMIT: usize = 120;
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
