//! The text of an attribute's value as a label has it.

use tidemill_eval::format_number;

/// The text of a value that is stored as JSON: text as it is, numbers as OpenTelemetry shows them, lists and maps as JSON.
pub(super) fn value_text(json: &str) -> String {
    match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str(json).unwrap_or_else(|_| json.to_owned()),
        Some(b'n') => String::new(),
        Some(b'-' | b'0'..=b'9') if json.contains(['.', 'e', 'E']) => {
            json.parse::<f64>().map_or_else(|_| json.to_owned(), format_number)
        }
        Some(b'{') => single_member(json).unwrap_or_else(|| json.to_owned()),
        _ => json.to_owned(),
    }
}

/// Bytes and doubles that JSON cannot write stand in objects of one member.
fn single_member(json: &str) -> Option<String> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).ok()?;
    let (key, value) = object.iter().next().filter(|_| object.len() == 1)?;
    let text = value.as_str()?;
    match key.as_str() {
        "bytesValue" => Some(text.to_owned()),
        "doubleValue" => Some(text.replace("Infinity", "Inf")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_opentelemetry_shows_them() {
        for (json, expected) in [
            ("\"a\\\"b\"", "a\"b"),
            ("3", "3"),
            ("3.0", "3"),
            ("0.5", "0.5"),
            ("true", "true"),
            ("null", ""),
            ("[1,2]", "[1,2]"),
            ("{\"bytesValue\":\"AP8=\"}", "AP8="),
            ("{\"doubleValue\":\"NaN\"}", "NaN"),
            ("{\"a\":\"b\"}", "{\"a\":\"b\"}"),
        ] {
            assert_eq!(value_text(json), expected, "{json}");
        }
    }
}
