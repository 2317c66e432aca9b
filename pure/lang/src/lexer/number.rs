//! Numbers, durations and sizes.

use super::dialect::{Dialect, Unit};
use super::token::Kind;
use crate::error::{Error, Result};
use crate::span::Span;

/// Reads the number, duration or size that begins at byte `start`; returns its value and where it ends.
pub(super) fn number(source: &str, start: usize, dialect: &Dialect) -> Result<(Kind, usize)> {
    let rest = &source[start..];
    let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
    if let Some((kind, length)) = with_units(source, start, dialect)? {
        return Ok((kind, start + length));
    }
    let length = plain_length(rest);
    let text = &rest[..length];
    let ends = !rest[length..].starts_with(is_word);
    match plain_value(text, dialect).filter(|_| ends) {
        Some(value) => Ok((Kind::Number(value), start + length)),
        None => {
            let end = start + word.max(length);
            let message = format!("bad number or duration syntax: {:?}", &source[start..end]);
            Err(Error::syntax(message, Span::new(start, end), source))
        }
    }
}

/// Reads `text` as a duration of the dialect, all of it, in nanoseconds.
///
/// # Errors
/// Why it is none, in words.
pub fn duration(text: &str, dialect: &Dialect) -> std::result::Result<i64, String> {
    match with_units(text, 0, dialect) {
        Ok(Some((Kind::Duration(nanoseconds), length))) if length == text.len() => Ok(nanoseconds),
        Ok(_) => Err(format!("not a valid duration: {text:?}")),
        Err(error) => Err(error.message),
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == 'µ' || c == 'μ'
}

/// A run of numbers with units: a duration, or one size. `None` where no unit of the dialect follows the first number.
fn with_units(source: &str, start: usize, dialect: &Dialect) -> Result<Option<(Kind, usize)>> {
    let rest = &source[start..];
    let (mut at, mut total, mut last) = (0, 0i128, i64::MAX);
    loop {
        let digits = rest[at..].find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len() - at);
        let unit_at = at + digits;
        let unit_length =
            rest[unit_at..].find(|c: char| !is_word(c) || c.is_ascii_digit()).unwrap_or(rest.len() - unit_at);
        let name = &rest[unit_at..unit_at + unit_length];
        let end = unit_at + unit_length;
        let span = Span::new(start, start + end);
        let Some(unit) = dialect.durations.iter().find(|unit| unit.name == name && digits > 0) else {
            if at > 0 {
                return Err(Error::syntax(format!("bad duration syntax: {:?}", &rest[..end]), span, source));
            }
            return Ok(size(&rest[..digits], name, dialect).map(|bytes| (Kind::Bytes(bytes), end)));
        };
        if dialect.strict_durations && (unit.factor >= last || rest[at..unit_at].contains('.')) {
            return Err(Error::syntax(format!("not a valid duration: {:?}", &rest[..end]), span, source));
        }
        last = unit.factor;
        let Some(part) = scaled(&rest[at..unit_at], unit) else {
            return Err(Error::syntax("duration out of range", span, source));
        };
        total += part;
        at = end;
        if !rest[at..].starts_with(|c: char| c.is_ascii_digit()) {
            let nanoseconds = i64::try_from(total).map_err(|_| Error::syntax("duration out of range", span, source))?;
            return Ok(Some((Kind::Duration(nanoseconds), at)));
        }
    }
}

/// `digits` (with at most one point) times the unit.
fn scaled(digits: &str, unit: &Unit) -> Option<i128> {
    if let Ok(whole) = digits.parse::<i64>() {
        return Some(i128::from(whole) * i128::from(unit.factor));
    }
    let value = digits.parse::<f64>().ok()? * unit.factor as f64;
    (value.is_finite() && value < i64::MAX as f64).then_some(value as i128)
}

fn size(digits: &str, name: &str, dialect: &Dialect) -> Option<f64> {
    let unit = dialect.sizes.iter().find(|unit| unit.name.eq_ignore_ascii_case(name))?;
    Some(digits.parse::<f64>().ok()? * unit.factor as f64)
}

/// How far a number without a unit reaches: digits of any radix, points, underscores, exponents with their sign.
fn plain_length(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let is_hexadecimal = rest.len() > 1 && bytes[0] == b'0' && matches!(bytes[1], b'x' | b'X');
    let mut at = if is_hexadecimal { 2 } else { 0 };
    while let Some(&byte) = bytes.get(at) {
        let is_exponent = !is_hexadecimal && matches!(byte, b'e' | b'E');
        let is_signed = is_exponent && matches!(bytes.get(at + 1), Some(b'+' | b'-'));
        let belongs = byte.is_ascii_digit()
            || byte == b'_'
            || byte == b'.' && !is_hexadecimal
            || is_exponent
            || is_hexadecimal && byte.is_ascii_hexdigit();
        if !belongs {
            break;
        }
        at += if is_signed { 2 } else { 1 };
    }
    at
}

fn plain_value(text: &str, dialect: &Dialect) -> Option<f64> {
    if !dialect.radix_prefixes {
        return (!text.contains('_')).then(|| text.parse().ok()).flatten();
    }
    if text.ends_with('_') || text.contains("__") || text.contains("_.") || text.contains("._") {
        return None;
    }
    let digits = text.replace('_', "");
    if let Some(hexadecimal) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return u64::from_str_radix(hexadecimal, 16).ok().map(|value| value as f64);
    }
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7')) {
        return u64::from_str_radix(&digits, 8).ok().map(|value| value as f64);
    }
    digits.parse().ok()
}
