//! The values of templates.

use super::text::{format_float, labels_text};
use super::time::{DAYS, MONTHS, Moment};
use crate::logql::labels::RowLabels;

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Value<'l> {
    Nil,
    Bool(bool),
    Int(i64, IntType),
    Float(f64),
    /// Bytes, since a function may cut a letter in two.
    Text(Vec<u8>),
    Moment(Moment),
    List(Vec<Value<'l>>),
    /// Sorted by key.
    Map(Vec<(String, Value<'l>)>),
    /// The labels of the line: a map of texts.
    Labels(&'l RowLabels<'l>),
}

/// The types that whole numbers have in Go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IntType {
    Int,
    Int64,
    Byte,
    /// From 1, printed by its name.
    Month,
    /// From 0 for Sunday, printed by its name.
    Weekday,
}

/// Keys and elements that a range visits.
pub(super) type Elements<'l> = Box<dyn Iterator<Item = (Value<'l>, Value<'l>)> + 'l>;

impl IntType {
    /// The name of a month or a day of the week.
    pub fn name_of(self, value: i64) -> Option<&'static str> {
        let value = usize::try_from(value).ok()?;
        match self {
            Self::Month => MONTHS.get(value.checked_sub(1)?).copied(),
            Self::Weekday => DAYS.get(value).copied(),
            Self::Int | Self::Int64 | Self::Byte => None,
        }
    }
}

impl<'l> Value<'l> {
    /// How many bytes its texts have.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::List(list) => list.iter().map(Self::bytes).sum(),
            Self::Map(map) => map.iter().map(|(key, value)| key.len() + value.bytes()).sum(),
            Self::Nil | Self::Bool(_) | Self::Int(..) | Self::Float(_) | Self::Moment(_) | Self::Labels(_) => 0,
        }
    }

    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into().into_bytes())
    }

    pub fn int(value: i64) -> Self {
        Self::Int(value, IntType::Int)
    }

    pub fn int64(value: i64) -> Self {
        Self::Int(value, IntType::Int64)
    }

    /// Whether `if` holds for it.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value, _) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::Moment(_) => true,
            Self::List(list) => !list.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Labels(labels) => labels.iter().next().is_some() || labels.error_labels().next().is_some(),
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "a boolean",
            Self::Int(..) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::Moment(_) => "a time",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Labels(_) => "the labels",
        }
    }

    /// Its type in Go.
    pub fn go_type(&self) -> &'static str {
        match self {
            Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_, IntType::Int) => "int",
            Self::Int(_, IntType::Int64) => "int64",
            Self::Int(_, IntType::Byte) => "uint8",
            Self::Int(_, IntType::Month) => "time.Month",
            Self::Int(_, IntType::Weekday) => "time.Weekday",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Moment(_) => "time.Time",
            Self::List(_) => "[]interface {}",
            Self::Map(_) => "map[string]interface {}",
            Self::Labels(_) => "map[string]string",
        }
    }

    /// What a range over it visits; the numbers below it where it is one.
    ///
    /// # Errors
    /// It has no elements.
    pub fn into_elements(self) -> Result<Elements<'l>, String> {
        let elements: Elements<'l> = match self {
            Self::Nil => Box::new(std::iter::empty()),
            Self::Int(count, kind) => Box::new((0..count).map(move |at| (Value::Nil, Value::Int(at, kind)))),
            Self::List(list) => Box::new((0..).map(Value::int).zip(list)),
            Self::Map(map) => Box::new(map.into_iter().map(|(key, own)| (Value::text(key), own))),
            Self::Labels(labels) => {
                let labels = labels.to_set();
                let pairs: Vec<_> =
                    labels.iter().map(|(name, value)| (Value::text(name), Value::text(value))).collect();
                Box::new(pairs.into_iter())
            }
            other => return Err(format!("range can't iterate over {}", String::from_utf8_lossy(&other.to_text()))),
        };
        Ok(elements)
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
            Self::Int(value, kind) => {
                kind.name_of(*value).map_or_else(|| value.to_string(), str::to_owned).into_bytes()
            }
            Self::Float(value) => format_float(*value).into_bytes(),
            Self::Text(text) => text.clone(),
            Self::Moment(moment) => moment.text().into_bytes(),
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
            Self::Labels(labels) => labels_text(labels),
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
            Self::Int(value, _) => *value,
            Self::Float(value) => *value as i64,
            Self::Bool(value) => i64::from(*value),
            Self::Text(text) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0),
            _ => 0,
        }
    }

    /// As a number; 0 where it is none.
    pub fn to_float(&self) -> f64 {
        match self {
            Self::Int(value, _) => *value as f64,
            Self::Float(value) => *value,
            Self::Bool(value) => f64::from(u8::from(*value)),
            Self::Text(text) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0.0),
            _ => 0.0,
        }
    }
}
