//! Reading and rewriting the JSON objects of overflow columns, member by member, without touching what stays.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::footer::ValueType;

/// The members of one object in their order, repetitions included; values as they are written.
#[derive(Debug)]
pub(crate) struct RestObject<'a> {
    pub(crate) members: Vec<(String, &'a RawValue)>,
}

impl<'de: 'a, 'a> Deserialize<'de> for RestObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = RestObject<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of attributes")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
                    members.push(member);
                }
                Ok(RestObject { members })
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A value of an overflow column that could have a column of its own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RestValue {
    String(String),
    Int(i64),
    Double(f64),
    Bool(bool),
}

/// What type the JSON text of a value shows; see `json.rs` for how types are told apart.
pub(crate) fn rest_type(json: &str) -> ValueType {
    match json.as_bytes().first() {
        Some(b'"') => ValueType::String,
        Some(b't' | b'f') => ValueType::Bool,
        Some(b'0'..=b'9' | b'-') if json.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) => ValueType::Double,
        Some(b'0'..=b'9' | b'-') => ValueType::Int,
        Some(b'{') if special_double(json).is_some() => ValueType::Double,
        _ => ValueType::Other,
    }
}

/// The value of a JSON text, when a column can hold it.
pub(crate) fn rest_value(json: &str) -> Option<RestValue> {
    match rest_type(json) {
        ValueType::String => serde_json::from_str(json).ok().map(RestValue::String),
        ValueType::Int => json.parse().ok().map(RestValue::Int),
        ValueType::Double => special_double(json).or_else(|| json.parse().ok()).map(RestValue::Double),
        ValueType::Bool => Some(RestValue::Bool(json == "true")),
        ValueType::Other => None,
    }
}

fn special_double(json: &str) -> Option<f64> {
    match json {
        r#"{"doubleValue":"NaN"}"# => Some(f64::NAN),
        r#"{"doubleValue":"Infinity"}"# => Some(f64::INFINITY),
        r#"{"doubleValue":"-Infinity"}"# => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_order_repetitions_and_text() {
        let json = r#"{"b":1,"a":{"bytesValue":"AA=="},"b":2.0,"c":"x\ny"}"#;
        let object: RestObject = serde_json::from_str(json).expect("an object");
        let found: Vec<(&str, &str)> = object.members.iter().map(|(key, value)| (key.as_str(), value.get())).collect();
        assert_eq!(found, [("b", "1"), ("a", r#"{"bytesValue":"AA=="}"#), ("b", "2.0"), ("c", r#""x\ny""#)]);
    }

    #[test]
    fn types_are_read_back() {
        assert_eq!(rest_value("-3"), Some(RestValue::Int(-3)));
        assert_eq!(rest_value("3.0"), Some(RestValue::Double(3.0)));
        assert_eq!(rest_value("1e300"), Some(RestValue::Double(1e300)));
        assert_eq!(rest_value(r#""x\n""#), Some(RestValue::String("x\n".to_owned())));
        assert_eq!(rest_value("true"), Some(RestValue::Bool(true)));
        assert_eq!(rest_value(r#"{"doubleValue":"-Infinity"}"#), Some(RestValue::Double(f64::NEG_INFINITY)));
        assert_eq!(rest_value("null"), None);
        assert_eq!(rest_value("[1]"), None);
    }
}
