//! The values of templates.

use super::text::format_float;
use super::time::Moment;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Bytes, since a function may cut a letter in two.
    Text(Vec<u8>),
    Moment(Moment),
    List(Vec<Value>),
    /// Sorted by key.
    Map(Vec<(String, Value)>),
    /// The labels of the line.
    Labels,
}

impl Value {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into().into_bytes())
    }

    /// Whether `if` holds for it.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::Moment(_) | Self::Labels => true,
            Self::List(list) => !list.is_empty(),
            Self::Map(map) => !map.is_empty(),
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::Moment(_) => "a time",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Labels => "the labels",
        }
    }

    /// As an action writes it.
    pub fn to_text(&self) -> Vec<u8> {
        match self {
            Self::Nil => b"<no value>".to_vec(),
            other => other.inner_text(),
        }
    }

    /// As it stands inside lists and formats.
    pub fn inner_text(&self) -> Vec<u8> {
        match self {
            Self::Nil => b"<nil>".to_vec(),
            Self::Bool(value) => value.to_string().into_bytes(),
            Self::Int(value) => value.to_string().into_bytes(),
            Self::Float(value) => format_float(*value).into_bytes(),
            Self::Text(text) => text.clone(),
            Self::Moment(moment) => moment.format("2006-01-02 15:04:05.999999999 -0700 MST").into_bytes(),
            Self::List(list) => {
                let mut text = b"[".to_vec();
                for (at, element) in list.iter().enumerate() {
                    if at > 0 {
                        text.push(b' ');
                    }
                    text.extend(element.inner_text());
                }
                text.push(b']');
                text
            }
            Self::Map(map) => {
                let mut text = b"map[".to_vec();
                for (at, (key, element)) in map.iter().enumerate() {
                    if at > 0 {
                        text.push(b' ');
                    }
                    text.extend_from_slice(key.as_bytes());
                    text.push(b':');
                    text.extend(element.inner_text());
                }
                text.push(b']');
                text
            }
            Self::Labels => b"map[]".to_vec(),
        }
    }

    /// The value of a JSON document.
    pub fn of_json(json: serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Nil,
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::Number(number) => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(text) => Self::text(text),
            serde_json::Value::Array(list) => Self::List(list.into_iter().map(Self::of_json).collect()),
            serde_json::Value::Object(map) => {
                let mut map: Vec<_> = map.into_iter().map(|(key, value)| (key, Self::of_json(value))).collect();
                map.sort_by(|left, right| left.0.cmp(&right.0));
                Self::Map(map)
            }
        }
    }

    /// As a whole number; 0 where it is none.
    pub fn to_int(&self) -> i64 {
        match self {
            Self::Int(value) => *value,
            Self::Float(value) => *value as i64,
            Self::Bool(value) => i64::from(*value),
            Self::Text(text) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0),
            _ => 0,
        }
    }

    /// As a number; 0 where it is none.
    pub fn to_float(&self) -> f64 {
        match self {
            Self::Int(value) => *value as f64,
            Self::Float(value) => *value,
            Self::Bool(value) => f64::from(u8::from(*value)),
            Self::Text(text) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0.0),
            _ => 0.0,
        }
    }
}
