//! A formula's text as words with their places.

use super::FormulaError;

/// A word of a formula.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Number(f64),
    Name(String),
    Symbol(&'static str),
}

/// Longer symbols stand before their beginnings.
const SYMBOLS: &[&str] = &[
    "**", "??", "||", "&&", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "^", "<", ">", "!", "?", ":", "(", ")",
    "[", "]", "{", "}", ",", "#",
];

/// Splits `text` into words, each with its first byte.
pub(super) fn split(text: &str) -> Result<Vec<(usize, Token)>, FormulaError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(character) = text[at..].chars().next() {
        let rest = &text[at..];
        if character.is_whitespace() {
            at += character.len_utf8();
        } else if character.is_ascii_digit()
            || (character == '.' && rest[1..].starts_with(|next: char| next.is_ascii_digit()))
        {
            let length = number_length(rest);
            let number = rest[..length].replace('_', "");
            let value =
                number.parse().map_err(|_| FormulaError { offset: at, message: format!("{number} is no number") })?;
            tokens.push((at, Token::Number(value)));
            at += length;
        } else if character.is_alphabetic() || character == '_' || character == '$' {
            let length = rest.find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(rest.len());
            let name = &rest[..length.max(character.len_utf8())];
            tokens.push((at, Token::Name(name.to_owned())));
            at += name.len();
        } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            tokens.push((at, Token::Symbol(symbol)));
            at += symbol.len();
        } else {
            return Err(FormulaError {
                offset: at,
                message: format!("{character:?} is not used in formulas over numbers"),
            });
        }
    }
    Ok(tokens)
}

fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits =
        |from: usize| from + bytes[from..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'_').count();
    let mut end = digits(0);
    if bytes.get(end) == Some(&b'.') {
        end = digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
            end = digits(end + 1 + sign);
        }
    }
    end
}
