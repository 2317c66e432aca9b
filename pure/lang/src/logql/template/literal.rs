//! Literals of templates as Go writes them: numbers, characters and texts.

use std::str::Chars;

use super::Operand;
use super::parse::Refusal;

/// One past the closing quote of the text or character that begins at `start`.
pub(super) fn quoted_end(text: &str, start: usize) -> Result<usize, Refusal> {
    let bytes = text.as_bytes();
    let quote = bytes[start];
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return Ok(at + 1),
            _ => at += 1,
        }
    }
    let what = if quote == b'\'' { "character constant" } else { "quoted string" };
    Err((start, format!("unterminated {what}")))
}

/// The number that a token writes: whole in the bases 2, 8, 10 and 16, or decimal with a point or an exponent.
pub(super) fn number(token: &str, place: usize) -> Result<Operand, Refusal> {
    let refusal = || (place, format!("bad number {token:?}"));
    let unsigned = token.strip_prefix(['+', '-']).unwrap_or(token);
    let (radix, digits) = split_radix(unsigned);
    if !has_right_underscores(digits, radix, digits.len() < unsigned.len()) {
        return Err(refusal());
    }
    let sign = if token.starts_with('-') { "-" } else { "" };
    let plain = format!("{sign}{}", digits.replace('_', ""));
    let is_whole = plain[sign.len()..].bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_whole && let Ok(value) = i64::from_str_radix(&plain, radix) {
        return Ok(Operand::Int(value));
    }
    let is_decimal = digits.len() == unsigned.len() || digits.len() + 1 == unsigned.len();
    let text = format!("{sign}{}", unsigned.replace('_', ""));
    match text.parse::<f64>() {
        Ok(value) if is_decimal && unsigned.contains(['.', 'e', 'E']) && value.is_finite() => Ok(Operand::Float(value)),
        _ => Err(refusal()),
    }
}

/// The text between a token's quotes.
pub(super) fn text(token: &str, place: usize) -> Result<Operand, Refusal> {
    let mut letters = token[1..token.len() - 1].chars();
    let mut text = String::new();
    while !letters.as_str().is_empty() {
        text.push(letter(&mut letters, '"').ok_or_else(|| (place, format!("bad string {token}")))?);
    }
    Ok(Operand::Text(text))
}

/// The number of the character between a token's quotes.
pub(super) fn character(token: &str, place: usize) -> Result<Operand, Refusal> {
    let mut letters = token[1..token.len() - 1].chars();
    let value = letter(&mut letters, '\'').filter(|_| letters.as_str().is_empty());
    let value = value.ok_or_else(|| (place, format!("malformed character constant: {token}")))?;
    Ok(Operand::Int(i64::from(u32::from(value))))
}

/// The base of a number, and its digits behind the prefix that tells it.
fn split_radix(unsigned: &str) -> (u32, &str) {
    match unsigned.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &unsigned[2..]),
        [b'0', b'o' | b'O', ..] => (8, &unsigned[2..]),
        [b'0', b'b' | b'B', ..] => (2, &unsigned[2..]),
        [b'0', b'0'..=b'9' | b'_', ..] => (8, &unsigned[1..]),
        _ => (10, unsigned),
    }
}

/// Whether every underscore stands between digits, or between a prefix and a digit.
fn has_right_underscores(digits: &str, radix: u32, is_prefixed: bool) -> bool {
    let mut is_behind_digit = is_prefixed;
    let mut is_behind_underscore = false;
    for letter in digits.chars() {
        let is_digit = letter.is_digit(radix.max(10));
        let is_underscore = letter == '_';
        if (is_underscore && !is_behind_digit) || (is_behind_underscore && !is_digit) {
            return false;
        }
        is_behind_digit = is_digit;
        is_behind_underscore = is_underscore;
    }
    !is_behind_underscore
}

/// The next letter, with its escape resolved.
fn letter(letters: &mut Chars<'_>, quote: char) -> Option<char> {
    match letters.next()? {
        '\\' => escaped(letters, quote),
        plain => Some(plain),
    }
}

/// The letter that an escape stands for.
fn escaped(letters: &mut Chars<'_>, quote: char) -> Option<char> {
    match letters.next()? {
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        'a' => Some('\u{7}'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        'v' => Some('\u{b}'),
        'x' => coded("", letters, 2, 16),
        'u' => coded("", letters, 4, 16),
        'U' => coded("", letters, 8, 16),
        first @ '0'..='7' => coded(&first.to_string(), letters, 2, 8).filter(|letter| u32::from(*letter) < 256),
        same if same == quote || same == '\\' => Some(same),
        _ => None,
    }
}

/// The letter of a code whose digits are `first` and the next so many.
fn coded(first: &str, letters: &mut Chars<'_>, count: usize, radix: u32) -> Option<char> {
    let code: String = first.chars().chain(letters.by_ref().take(count)).collect();
    let is_complete = code.chars().count() == first.len() + count && code.chars().all(|digit| digit.is_digit(radix));
    let code = u32::from_str_radix(&code, radix).ok().filter(|_| is_complete)?;
    char::from_u32(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_base() {
        let cases = [
            ("0x10", 16),
            ("-0X1f", -31),
            ("0x_10", 16),
            ("1_000", 1_000),
            ("010", 8),
            ("0_7", 7),
            ("0o17", 15),
            ("0b11", 3),
            ("+5", 5),
            ("0", 0),
            ("-9223372036854775808", i64::MIN),
        ];
        for (text, value) in cases {
            assert_eq!(number(text, 0), Ok(Operand::Int(value)), "{text}");
        }
        let floats = [("1e3", 1e3), (".5", 0.5), ("5.", 5.0), ("1_0.5", 10.5), ("-1.5e-3", -1.5e-3), ("00.5", 0.5)];
        for (text, value) in floats {
            assert_eq!(number(text, 0), Ok(Operand::Float(value)), "{text}");
        }
        let refused = "08 1__0 1_000_ 0x 0x+5 99999999999999999999 0xffffffffffffffff 3-1 3abc - +inf 0x1p4";
        for text in refused.split(' ') {
            assert_eq!(number(text, 7), Err((7, format!("bad number {text:?}"))));
        }
    }

    #[test]
    fn characters_are_numbers() {
        let cases = [
            ("'a'", 97),
            (r"'\n'", 10),
            (r"'\''", 39),
            ("'\"'", 34),
            (r"'\x41'", 65),
            (r"'\101'", 65),
            ("'é'", 233),
            (r"'\u00e9'", 233),
        ];
        for (token, value) in cases {
            assert_eq!(character(token, 0), Ok(Operand::Int(value)), "{token}");
        }
        for token in ["''", "'ab'", r#"'\"'"#, r"'\400'", r"'\x4'"] {
            assert!(character(token, 0).is_err(), "{token}");
        }
        assert_eq!(text(r#""a\tb\"\u00e9""#, 0), Ok(Operand::Text("a\tb\"é".to_owned())));
        assert!(text(r#""\q""#, 0).is_err() && text(r#""\x+1""#, 0).is_err());
    }
}
