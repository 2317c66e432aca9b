//! Reading the overflow columns: one JSON object a row, without building values that nobody asked for.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// All of a row's overflow, sorted by key.
pub(super) type Overflow<'a> = Vec<(String, &'a RawValue)>;

/// One overflow value. Arrays, maps and bytes are their JSON.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum OverflowValue {
    Text(String),
    Int(i64),
    Double(f64),
    Bool(bool),
}

impl OverflowValue {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Int(value) => value.to_string(),
            Self::Double(value) => format!("{value:?}"),
            Self::Bool(value) => value.to_string(),
        }
    }
}

/// All entries of a row's overflow, sorted by key.
pub(super) fn read_object(text: &str) -> serde_json::Result<Overflow<'_>> {
    let mut entries = serde_json::Deserializer::from_str(text).deserialize_map(Entries)?;
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(entries)
}

/// The value of one key; `None` when the row does not have it or it is null.
pub(super) fn read_key(text: &str, key: &str) -> serde_json::Result<Option<OverflowValue>> {
    let raw = serde_json::Deserializer::from_str(text).deserialize_map(Entry(key))?;
    raw.map_or(Ok(None), read_value)
}

fn read_value(raw: &RawValue) -> serde_json::Result<Option<OverflowValue>> {
    let text = raw.get();
    let value = match text.as_bytes().first() {
        Some(b'"') => OverflowValue::Text(serde_json::from_str(text)?),
        Some(b't') => OverflowValue::Bool(true),
        Some(b'f') => OverflowValue::Bool(false),
        Some(b'n') => return Ok(None),
        Some(b'{') => special_double(text).map_or_else(|| OverflowValue::Text(text.to_owned()), OverflowValue::Double),
        Some(b'[') => OverflowValue::Text(text.to_owned()),
        // Doubles always carry a point or an exponent, so what has neither is an integer.
        _ if text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit()) => {
            OverflowValue::Int(serde_json::from_str(text)?)
        }
        _ => OverflowValue::Double(serde_json::from_str(text)?),
    };
    Ok(Some(value))
}

/// `{"doubleValue":"NaN"}` and its like.
fn special_double(text: &str) -> Option<f64> {
    let name = text.strip_prefix("{\"doubleValue\":\"")?.strip_suffix("\"}")?;
    match name {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Overflow<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of attributes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry::<String, &'de RawValue>()? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

struct Entry<'k>(&'k str);

impl<'de> Visitor<'de> for Entry<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of attributes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_wanted) = map.next_key_seed(IsKey(self.0))? {
            if is_wanted && found.is_none() {
                found = Some(map.next_value::<&'de RawValue>()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

struct IsKey<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for IsKey<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsKey<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<bool, E> {
        Ok(text == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_types() {
        let text = r#"{"a":"x\n","b":-7,"c":7.0,"d":true,"e":[1],"f":{"doubleValue":"NaN"},"g":{"bytesValue":"AA=="},"h":null}"#;
        let read = |key| read_key(text, key).expect("it is JSON");
        assert_eq!(read("a"), Some(OverflowValue::Text("x\n".to_owned())));
        assert_eq!(read("b"), Some(OverflowValue::Int(-7)));
        assert_eq!(read("c"), Some(OverflowValue::Double(7.0)));
        assert_eq!(read("d"), Some(OverflowValue::Bool(true)));
        assert_eq!(read("e"), Some(OverflowValue::Text("[1]".to_owned())));
        assert!(matches!(read("f"), Some(OverflowValue::Double(value)) if value.is_nan()));
        assert_eq!(read("g"), Some(OverflowValue::Text("{\"bytesValue\":\"AA==\"}".to_owned())));
        assert_eq!(read("h"), None);
        assert_eq!(read("i"), None);
        assert!(read_key("[]", "a").is_err());
    }

    #[test]
    fn objects_are_sorted() {
        let entries = read_object(r#"{"b":1,"a":"x"}"#).expect("it is JSON");
        let names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(entries[0].1.get(), "\"x\"");
    }
}
