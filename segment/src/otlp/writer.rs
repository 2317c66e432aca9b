//! Writes protobuf fields; what other formats become before they are walked.

/// Appends an unsigned varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint field.
pub(crate) fn put_varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

/// Appends a `fixed64`, `sfixed64` or `double` field by its bits.
pub(crate) fn put_fixed64_field(out: &mut Vec<u8>, number: u32, bits: u64) {
    put_varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&bits.to_le_bytes());
}

/// Appends a `fixed32` field.
pub(crate) fn put_fixed32_field(out: &mut Vec<u8>, number: u32, value: u32) {
    put_varint(out, u64::from(number) << 3 | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a `string` or `bytes` field.
pub(crate) fn put_bytes_field(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a message field whose fields `write` appends; answers what `write` answers.
pub(crate) fn put_message_field<T>(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let field = open_message(out, number);
    let answer = write(out);
    close_message(out, field);
    answer
}

/// Starts a message field; answers what [`close_message`] needs.
pub(crate) fn open_message(out: &mut Vec<u8>, number: u32) -> usize {
    put_varint(out, u64::from(number) << 3 | 2);
    // One byte is enough for the length of most messages.
    out.push(0);
    out.len()
}

/// Ends the message whose body starts at `start`.
pub(crate) fn close_message(out: &mut Vec<u8>, start: usize) {
    let length = out.len() - start;
    let mut prefix = Vec::with_capacity(5);
    put_varint(&mut prefix, length as u64);
    out[start - 1] = prefix[0];
    if prefix.len() > 1 {
        let more = prefix.len() - 1;
        out.extend_from_slice(&prefix[1..]);
        out[start..].rotate_right(more);
    }
}

/// Appends an attribute whose `AnyValue` fields `write` appends.
pub(crate) fn put_attribute(out: &mut Vec<u8>, number: u32, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
    put_message_field(out, number, |out| {
        put_bytes_field(out, 1, key.as_bytes());
        put_message_field(out, 2, write);
    });
}

/// Appends the fields of an `AnyValue` that says what `value` says.
pub(crate) fn put_json_value(out: &mut Vec<u8>, value: &serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::Null => {}
        Value::Bool(flag) => put_varint_field(out, 2, u64::from(*flag)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => {
                put_varint(out, 3 << 3);
                put_varint(out, integer as u64);
            }
            (None, double) => put_fixed64_field(out, 4, double.unwrap_or(f64::NAN).to_bits()),
        },
        Value::String(text) => put_bytes_field(out, 1, text.as_bytes()),
        Value::Array(values) => put_message_field(out, 5, |out| {
            for value in values {
                put_message_field(out, 1, |out| put_json_value(out, value));
            }
        }),
        Value::Object(members) => put_message_field(out, 6, |out| {
            for (key, value) in members {
                put_attribute(out, 1, key, |out| put_json_value(out, value));
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::wire::{Fields, Wire};

    #[test]
    fn messages_of_every_length_read_back() {
        for length in [0, 1, 127, 128, 20_000] {
            let mut out = Vec::new();
            put_message_field(&mut out, 3, |out| out.extend((0..length).map(|byte| byte as u8)));
            let expected: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            assert_eq!(Fields::of(&out).next(), Ok(Some((3, Wire::Bytes(&expected)))));
        }
    }
}
