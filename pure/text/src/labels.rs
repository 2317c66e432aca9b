//! Label sets as canonical bytes: sorted by key, every part with its length and its type.
//!
//! Two sets have the same bytes when they hold the same keys with the same typed values, in whatever order they came. Nothing can be
//! confused: `{"a":"b=c"}` and `{"a=b":"c"}`, or the text `1` and the integer 1, differ.

/// A typed label value; maps keep their order until they are encoded.
#[derive(Debug, Clone, PartialEq)]
pub enum LabelValue<'a> {
    /// No value.
    Empty,
    /// Text.
    String(&'a str),
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A double; the bits count, so -0.0 and 0.0 differ.
    Double(f64),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A list; its order counts.
    Array(Vec<LabelValue<'a>>),
    /// A map; its order does not count.
    Map(Vec<(&'a str, LabelValue<'a>)>),
}

/// Appends the canonical bytes of `labels`: their number, then each key and value in the order of the keys' bytes. Repeated keys keep
/// their order among each other.
pub fn encode_labels(out: &mut Vec<u8>, labels: &[(&str, LabelValue<'_>)]) {
    push_length(out, labels.len());
    if labels.is_sorted_by(|left, right| left.0 <= right.0) {
        for (key, value) in labels {
            push_label(out, key, value);
        }
        return;
    }
    let mut order: Vec<&(&str, LabelValue<'_>)> = labels.iter().collect();
    order.sort_by_key(|(key, _)| *key);
    for (key, value) in order {
        push_label(out, key, value);
    }
}

/// Appends `text` with its length.
pub(crate) fn push_text(out: &mut Vec<u8>, text: &str) {
    push_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn push_label(out: &mut Vec<u8>, key: &str, value: &LabelValue<'_>) {
    push_text(out, key);
    push_value(out, value);
}

fn push_value(out: &mut Vec<u8>, value: &LabelValue<'_>) {
    match value {
        LabelValue::Empty => out.push(0),
        LabelValue::String(text) => {
            out.push(1);
            push_text(out, text);
        }
        LabelValue::Bool(flag) => out.extend_from_slice(&[2, u8::from(*flag)]),
        LabelValue::Int(number) => {
            out.push(3);
            out.extend_from_slice(&number.to_le_bytes());
        }
        LabelValue::Double(number) => {
            out.push(4);
            out.extend_from_slice(&number.to_bits().to_le_bytes());
        }
        LabelValue::Bytes(bytes) => {
            out.push(5);
            push_length(out, bytes.len());
            out.extend_from_slice(bytes);
        }
        LabelValue::Array(values) => {
            out.push(6);
            push_length(out, values.len());
            values.iter().for_each(|value| push_value(out, value));
        }
        LabelValue::Map(labels) => {
            out.push(7);
            encode_labels(out, labels);
        }
    }
}

/// Lengths are 32 bits, little endian; inputs are bounded far below.
fn push_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(labels: &[(&str, LabelValue<'_>)]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_labels(&mut out, labels);
        out
    }

    #[test]
    fn order_does_not_count_but_types_and_borders_do() {
        let one = ("a", LabelValue::String("1"));
        let two = ("b", LabelValue::Int(1));
        assert_eq!(encoded(&[one.clone(), two.clone()]), encoded(&[two, one.clone()]));
        assert_ne!(encoded(std::slice::from_ref(&one)), encoded(&[("a", LabelValue::Int(1))]));
        assert_ne!(encoded(&[("a", LabelValue::String("b=c"))]), encoded(&[("a=b", LabelValue::String("c"))]));
        assert_ne!(encoded(&[("a", LabelValue::Array(vec![LabelValue::Empty]))]), encoded(&[("a", LabelValue::Empty)]));
    }

    #[test]
    fn the_bytes_are_pinned() {
        let bytes = encoded(&[("k", LabelValue::String("v")), ("a", LabelValue::Bool(true))]);
        assert_eq!(bytes, b"\x02\0\0\0\x01\0\0\0a\x02\x01\x01\0\0\0k\x01\x01\0\0\0v");
    }
}
