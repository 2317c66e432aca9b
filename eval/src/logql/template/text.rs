//! Texts of templates: bytes to text, numbers as Go prints them, letters of words.

use crate::logql::labels::RowLabels;

/// `bytes` as text; each byte that is no part of a letter becomes a replacement character.
pub(super) fn lossy(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

/// How many letters `bytes` have; a byte that is no part of a letter counts as one.
pub(super) fn letters(bytes: &[u8]) -> usize {
    bytes.utf8_chunks().map(|chunk| chunk.valid().chars().count() + chunk.invalid().len()).sum()
}

/// The letter that `bytes` begin with, and how many bytes it has; a replacement character where a byte is no part of a
/// letter.
pub(super) fn first_letter(bytes: &[u8]) -> Option<(char, usize)> {
    let chunk = bytes.get(..4).unwrap_or(bytes).utf8_chunks().next()?;
    Some(chunk.valid().chars().next().map_or((char::REPLACEMENT_CHARACTER, 1), |letter| (letter, letter.len_utf8())))
}

/// A number as Go's `%v` prints it.
pub(super) fn format_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    value.to_string()
}

/// Every word's first letter in upper case.
pub(super) fn title(text: &str) -> String {
    let mut begins = true;
    let mut titled = String::with_capacity(text.len());
    for letter in text.chars() {
        if begins {
            titled.extend(letter.to_uppercase());
        } else {
            titled.push(letter);
        }
        begins = !(letter.is_alphanumeric() || letter == '_' || letter == '\'');
    }
    titled
}

/// The labels as Go prints a map.
pub(super) fn labels_text(labels: &RowLabels<'_>) -> Vec<u8> {
    let set = labels.to_set();
    let pairs: Vec<String> = set.iter().map(|(name, value)| format!("{name}:{value}")).collect();
    format!("map[{}]", pairs.join(" ")).into_bytes()
}

/// `text` for a query part of an address.
pub(super) fn url_encode(bytes: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(byte as char),
            b' ' => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The text of a query part of an address.
pub(super) fn url_decode(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'+' => decoded.push(b' '),
            b'%' => {
                let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                decoded.push(byte.ok_or_else(|| "invalid URL escape".to_owned())?);
                at += 2;
            }
            byte => decoded.push(byte),
        }
        at += 1;
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_go_prints_them() {
        let cases = [(3.0, "3"), (0.6, "0.6"), (4_718_592.0, "4.718592e+06"), (1e21, "1e+21"), (1e-5, "1e-05")];
        for (value, text) in cases {
            assert_eq!(format_float(value), text);
        }
        assert_eq!(lossy(b"na\xc3\xafve-\xe2\x98"), "naïve-\u{fffd}\u{fffd}");
        assert_eq!(first_letter("éab".as_bytes()), Some(('é', 2)));
        assert_eq!(first_letter(b"\xffa"), Some((char::REPLACEMENT_CHARACTER, 1)));
        assert_eq!(first_letter(b""), None);
        assert_eq!(title("naïve item_x o'neill"), "Naïve Item_x O'neill");
        assert_eq!(url_decode(b"a%20b%2Bc+d").as_deref(), Ok(b"a b+c d".as_slice()));
    }
}
