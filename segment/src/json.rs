//! JSON text of attribute values, as the overflow columns, structured bodies, events, links and exemplars hold it.
//!
//! Integers are bare, doubles always have a point or an exponent, bytes are `{"bytesValue":"<base64>"}` and doubles that JSON cannot
//! say are `{"doubleValue":"NaN"}`, so that a value's type can be read back from its text.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::otlp::value::{AnyRef, Attribute, decode_any, decode_attribute, each_element};

/// Appends `value` as JSON.
pub(crate) fn write_value(out: &mut Vec<u8>, value: AnyRef<'_>) {
    match value {
        AnyRef::Empty => out.extend_from_slice(b"null"),
        AnyRef::String(text) => write_string(out, text),
        AnyRef::Bool(true) => out.extend_from_slice(b"true"),
        AnyRef::Bool(false) => out.extend_from_slice(b"false"),
        AnyRef::Int(number) => write_display(out, number),
        AnyRef::Double(number) => write_double(out, number),
        AnyRef::Bytes(bytes) => {
            out.extend_from_slice(b"{\"bytesValue\":\"");
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.extend_from_slice(b"\"}");
        }
        AnyRef::Array(list) => {
            write_elements(out, b"[]", list, |out, element| {
                // Decoding checked the nesting and every element already; depth 0 cannot exceed the limit again.
                write_value(out, decode_any(element, 0).unwrap_or(AnyRef::Empty));
            });
        }
        AnyRef::Map(list) => {
            write_elements(out, b"{}", list, |out, pair| {
                let (key, value) = decode_attribute(pair, 0).unwrap_or(("", AnyRef::Empty));
                write_member(out, key, value);
            });
        }
    }
}

/// Appends `"key":value`.
pub(crate) fn write_member(out: &mut Vec<u8>, key: &str, value: AnyRef<'_>) {
    write_string(out, key);
    out.push(b':');
    write_value(out, value);
}

/// Appends the attributes as one JSON object.
pub(crate) fn write_attributes(out: &mut Vec<u8>, attributes: &[Attribute<'_>]) {
    out.push(b'{');
    for (place, (key, value)) in attributes.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write_member(out, key, *value);
    }
    out.push(b'}');
}

/// Appends a double that JSON numbers can say with a point or exponent, others as an object.
pub(crate) fn write_double(out: &mut Vec<u8>, number: f64) {
    if number.is_finite() {
        // Debug, unlike Display, always writes a point or an exponent, and the shortest text that reads back the same.
        write!(out, "{number:?}").expect("writing to a Vec succeeds");
    } else {
        let name = if number.is_nan() {
            "NaN"
        } else if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        };
        write!(out, "{{\"doubleValue\":\"{name}\"}}").expect("writing to a Vec succeeds");
    }
}

/// Appends anything whose `Display` is JSON.
pub(crate) fn write_display(out: &mut Vec<u8>, number: impl std::fmt::Display) {
    write!(out, "{number}").expect("writing to a Vec succeeds");
}

/// Appends `text` as a JSON string.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    for (place, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[plain_from..place]);
        plain_from = place + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => write!(out, "\\u{control:04x}").expect("writing to a Vec succeeds"),
        }
    }
    out.extend_from_slice(&bytes[plain_from..]);
    out.push(b'"');
}

fn write_elements(out: &mut Vec<u8>, brackets: &[u8; 2], list: &[u8], mut write: impl FnMut(&mut Vec<u8>, &[u8])) {
    out.push(brackets[0]);
    let walked = each_element(list, |index, element| {
        if index > 0 {
            out.push(b',');
        }
        write(out, element);
        Ok(())
    });
    debug_assert!(walked.is_ok(), "the list was checked when it was decoded");
    out.push(brackets[1]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: AnyRef<'_>) -> String {
        let mut out = Vec::new();
        write_value(&mut out, value);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn a_value_shows_its_type() {
        assert_eq!(text(AnyRef::Int(-3)), "-3");
        assert_eq!(text(AnyRef::Double(3.0)), "3.0");
        assert_eq!(text(AnyRef::Double(1e300)), "1e300");
        assert_eq!(text(AnyRef::Double(f64::NEG_INFINITY)), r#"{"doubleValue":"-Infinity"}"#);
        assert_eq!(text(AnyRef::Bytes(&[0, 255])), r#"{"bytesValue":"AP8="}"#);
        assert_eq!(text(AnyRef::Empty), "null");
    }

    #[test]
    fn strings_are_escaped() {
        let written = text(AnyRef::String("a\"\\\n\u{1}é"));
        assert_eq!(written, "\"a\\\"\\\\\\n\\u0001é\"");
        assert_eq!(serde_json::from_str::<String>(&written).expect("is JSON"), "a\"\\\n\u{1}é");
    }
}
