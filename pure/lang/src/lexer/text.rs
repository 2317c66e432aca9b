//! Quoted texts and their escapes, as Go has them.

use super::dialect::Dialect;
use crate::error::{Error, Result};
use crate::span::Span;

/// A quoted text: its bytes, and where the closing quote ends.
pub(super) struct Quoted {
    pub bytes: Vec<u8>,
    pub end: usize,
}

/// Reads the quoted text that begins at byte `start`.
pub(super) fn quoted(source: &str, start: usize, _dialect: &Dialect) -> Result<Quoted> {
    let quote = source[start..].chars().next().expect("the caller saw a quote");
    let mut bytes = Vec::new();
    let mut at = start + 1;
    loop {
        let Some(next) = source[at..].chars().next() else {
            return Err(Error::syntax("unterminated quoted string", Span::new(start, at), source));
        };
        let end = at + next.len_utf8();
        match next {
            _ if next == quote => return Ok(Quoted { bytes, end }),
            '\n' if quote != '`' => {
                return Err(Error::syntax("unterminated quoted string", Span::new(start, at), source));
            }
            '\\' if quote != '`' => at = escape(source, at, quote, &mut bytes)?,
            _ => {
                bytes.extend_from_slice(&source.as_bytes()[at..end]);
                at = end;
            }
        }
    }
}

/// Resolves the escape whose backslash stands at byte `start`; returns where it ends.
fn escape(source: &str, start: usize, quote: char, bytes: &mut Vec<u8>) -> Result<usize> {
    let Some(name) = source[start + 1..].chars().next() else {
        return Err(Error::syntax("escape sequence not terminated", Span::new(start, start + 1), source));
    };
    let after = start + 1 + name.len_utf8();
    let simple = match name {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        _ if name == quote => name as u8,
        '0'..='7' => return coded(source, start, (after - 1, 3, 8), bytes),
        'x' => return coded(source, start, (after, 2, 16), bytes),
        'u' => return coded(source, start, (after, 4, 16), bytes),
        'U' => return coded(source, start, (after, 8, 16), bytes),
        _ => {
            let message = format!("unknown escape sequence `\\{name}`");
            return Err(Error::syntax(message, Span::new(start, after), source));
        }
    };
    bytes.push(simple);
    Ok(after)
}

/// Resolves an escape of `count` digits in base `radix` from byte `digits` on. Three octal and two hexadecimal digits name a byte,
/// the longer ones a character.
fn coded(
    source: &str,
    start: usize,
    (digits, count, radix): (usize, usize, u32),
    bytes: &mut Vec<u8>,
) -> Result<usize> {
    let end = digits + count;
    let text = source.get(digits..end).filter(|text| text.chars().all(|c| c.is_digit(radix)));
    let Some(code) = text.and_then(|text| u32::from_str_radix(text, radix).ok()) else {
        let message = format!("an escape sequence of this kind has {count} digits in base {radix}");
        let stop = source[digits..].find(|c: char| !c.is_digit(radix)).map_or(source.len(), |length| digits + length);
        return Err(Error::syntax(message, Span::new(start, stop.min(end)), source));
    };
    let invalid = |message: &str| Error::syntax(message, Span::new(start, end), source);
    if count <= 3 {
        bytes.push(u8::try_from(code).map_err(|_| invalid("an escaped byte is at most \\377"))?);
    } else {
        let character = char::from_u32(code).ok_or_else(|| invalid("escape sequence is no Unicode character"))?;
        bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(end)
}
