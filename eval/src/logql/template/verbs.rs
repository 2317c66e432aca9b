//! How the verbs of `printf` write values, as Go's `fmt` does.

use super::OUTPUT_LIMIT_BYTES;
use super::numbers::{digits, float, with_point};
use super::quoted::{can_backquote, is_printable, quoted};
use super::text::{first_letter, letters};
use super::value::Value;

/// The flags, width and precision of a verb.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flags {
    /// `-`
    pub is_left: bool,
    /// `0`
    pub is_zero_padded: bool,
    /// `+`
    pub is_signed: bool,
    /// `#`
    pub is_alternate: bool,
    /// A blank.
    pub is_spaced: bool,
    /// `%#v`: as Go source.
    pub is_source: bool,
    pub width: Option<usize>,
    pub precision: Option<usize>,
}

impl Flags {
    /// The flags as a verb takes them: `%#v` and `%+v` have meanings of their own.
    pub fn of_verb(self, verb: char) -> Self {
        if verb == 'v' {
            Self { is_source: self.is_alternate, is_alternate: false, is_signed: false, ..self }
        } else {
            self
        }
    }

    fn with_blanks(self) -> Self {
        Self { is_zero_padded: false, ..self }
    }

    fn pad(self, output: &mut Vec<u8>, text: &[u8]) {
        let missing = self.width.unwrap_or(0).saturating_sub(letters(text));
        if self.is_left {
            output.extend_from_slice(text);
            output.extend(std::iter::repeat_n(b' ', missing));
        } else {
            output.extend(std::iter::repeat_n(if self.is_zero_padded { b'0' } else { b' ' }, missing));
            output.extend_from_slice(text);
        }
    }

    /// The sign before a number.
    fn sign(self, is_negative: bool) -> &'static str {
        match (is_negative, self.is_signed, self.is_spaced) {
            (true, ..) => "-",
            (false, true, _) => "+",
            (false, false, true) => " ",
            (false, false, false) => "",
        }
    }
}

/// Writes an argument of a format.
pub(super) fn write_argument(output: &mut Vec<u8>, flags: Flags, verb: char, value: &Value<'_>) {
    match (verb, value) {
        ('T', value) => write_text(output, flags, 's', value.go_type().as_bytes(), value),
        ('v', Value::Nil) => flags.pad(output, b"<nil>"),
        (verb, Value::Nil) => output.extend_from_slice(format!("%!{verb}(<nil>)").as_bytes()),
        (verb, value) => write_value(output, flags, verb, value),
    }
}

/// Writes a value, of a list or map its elements one by one.
fn write_value(output: &mut Vec<u8>, flags: Flags, verb: char, value: &Value<'_>) {
    if output.len() > OUTPUT_LIMIT_BYTES {
        return;
    }
    let is_texted = matches!(verb, 'v' | 's' | 'x' | 'X' | 'q');
    match value {
        Value::Nil if flags.is_source => output.extend_from_slice(b"interface {}(nil)"),
        Value::Nil => output.extend_from_slice(b"<nil>"),
        Value::Bool(own) if matches!(verb, 't' | 'v') => flags.pad(output, own.to_string().as_bytes()),
        Value::Int(own, kind) => match kind.name_of(*own) {
            Some(name) if is_texted && !flags.is_source => write_text(output, flags, verb, name.as_bytes(), value),
            _ => write_int(output, flags, verb, *own, value),
        },
        Value::Float(own) => write_float(output, flags, verb, *own, value),
        Value::Text(text) => write_text(output, flags, verb, text, value),
        Value::Moment(moment) if is_texted => {
            write_text(output, Flags { is_source: false, ..flags }, verb, moment.text().as_bytes(), value);
        }
        Value::Bool(_) | Value::Moment(_) => write_refusal(output, flags, verb, value),
        Value::List(list) => {
            let elements = list.iter().map(|element| (None, element));
            write_elements(output, flags, verb, value, elements);
        }
        Value::Map(map) => {
            let elements = map.iter().map(|(key, element)| (Some(key.as_str()), element));
            write_elements(output, flags, verb, value, elements);
        }
        Value::Labels(labels) => {
            let set = labels.to_set();
            let pairs: Vec<(&str, Value<'_>)> = set.iter().map(|(name, own)| (name, Value::text(own))).collect();
            write_elements(output, flags, verb, value, pairs.iter().map(|(name, own)| (Some(*name), own)));
        }
    }
}

fn write_elements<'v, 'l: 'v>(
    output: &mut Vec<u8>,
    flags: Flags,
    verb: char,
    value: &Value<'_>,
    elements: impl Iterator<Item = (Option<&'v str>, &'v Value<'l>)>,
) {
    let (opening, separator, closing) = match value {
        _ if flags.is_source => (format!("{}{{", value.go_type()), ", ", b'}'),
        Value::List(_) => ("[".to_owned(), " ", b']'),
        _ => ("map[".to_owned(), " ", b']'),
    };
    output.extend_from_slice(opening.as_bytes());
    for (at, (key, element)) in elements.enumerate() {
        if at > 0 {
            output.extend_from_slice(separator.as_bytes());
        }
        if let Some(key) = key {
            write_text(output, flags, verb, key.as_bytes(), &Value::text(key));
            output.push(b':');
        }
        write_value(output, flags, verb, element);
    }
    output.push(closing);
}

/// Tells that a verb does not write values of this type.
fn write_refusal(output: &mut Vec<u8>, flags: Flags, verb: char, value: &Value<'_>) {
    output.extend_from_slice(format!("%!{verb}({}=", value.go_type()).as_bytes());
    match value {
        Value::Int(own, _) => write_int(output, flags, 'v', *own, value),
        other => write_value(output, flags, 'v', other),
    }
    output.push(b')');
}

/// Writes a text that stands for the value.
fn write_text(output: &mut Vec<u8>, flags: Flags, verb: char, text: &[u8], value: &Value<'_>) {
    match verb {
        'v' if flags.is_source => write_quoted(output, flags, text),
        'v' | 's' => flags.pad(output, truncated(flags, text)),
        'x' | 'X' => flags.pad(output, hexadecimal(flags, text, verb == 'X').as_bytes()),
        'q' => write_quoted(output, flags, text),
        _ => write_refusal(output, flags, verb, value),
    }
}

fn write_quoted(output: &mut Vec<u8>, flags: Flags, text: &[u8]) {
    let text = truncated(flags, text);
    if flags.is_alternate && can_backquote(text) {
        flags.pad(output, &[b"`".as_slice(), text, b"`".as_slice()].concat());
    } else {
        flags.pad(output, quoted(text, '"', flags.is_signed).as_bytes());
    }
}

/// The letters of `text` that the precision leaves.
fn truncated(flags: Flags, text: &[u8]) -> &[u8] {
    let Some(precision) = flags.precision else { return text };
    let mut end = 0;
    for _ in 0..precision {
        match first_letter(&text[end..]) {
            Some((_, length)) => end += length,
            None => break,
        }
    }
    &text[..end]
}

/// The bytes of `text` in hexadecimal digits.
fn hexadecimal(flags: Flags, text: &[u8], is_upper: bool) -> String {
    let prefix = match (flags.is_alternate, is_upper) {
        (false, _) => "",
        (true, false) => "0x",
        (true, true) => "0X",
    };
    let mut written = String::new();
    for (at, byte) in text.iter().take(flags.precision.unwrap_or(text.len())).enumerate() {
        if at > 0 && flags.is_spaced {
            written.push(' ');
        }
        if at == 0 || flags.is_spaced {
            written.push_str(prefix);
        }
        written.push_str(&if is_upper { format!("{byte:02X}") } else { format!("{byte:02x}") });
    }
    written
}

fn write_int(output: &mut Vec<u8>, flags: Flags, verb: char, number: i64, value: &Value<'_>) {
    let letter = u32::try_from(number).ok().and_then(char::from_u32);
    let shown = letter.unwrap_or(char::REPLACEMENT_CHARACTER).to_string();
    let base = match verb {
        'v' | 'd' => 10,
        'b' => 2,
        'o' | 'O' => 8,
        'x' | 'X' => 16,
        'c' => return flags.pad(output, shown.as_bytes()),
        'q' => return flags.pad(output, quoted(shown.as_bytes(), '\'', flags.is_signed).as_bytes()),
        'U' => return flags.with_blanks().pad(output, unicode(flags, number, letter).as_bytes()),
        _ => return write_refusal(output, flags, verb, value),
    };
    if flags.precision == Some(0) && number == 0 {
        return flags.with_blanks().pad(output, b"");
    }
    let sign = flags.sign(number < 0);
    let least = match (flags.precision, flags.width) {
        (Some(precision), _) => precision,
        (None, Some(width)) if flags.is_zero_padded && !flags.is_left => width.saturating_sub(sign.len()),
        _ => 0,
    };
    let plain = digits(number.unsigned_abs(), base, verb == 'X');
    let plain = format!("{}{plain}", "0".repeat(least.saturating_sub(plain.len())));
    let prefix = match (flags.is_alternate, verb) {
        (true, 'b') => "0b",
        (true, 'o') if !plain.starts_with('0') => "0",
        (true, 'x') => "0x",
        (true, 'X') => "0X",
        (true, 'O') if !plain.starts_with('0') => "0o0",
        (_, 'O') => "0o",
        _ => "",
    };
    flags.with_blanks().pad(output, format!("{sign}{prefix}{plain}").as_bytes());
}

/// A number as the code of a letter: `U+0041`, and the letter where the flags ask for it.
fn unicode(flags: Flags, number: i64, letter: Option<char>) -> String {
    let code = format!("{number:X}");
    let zeros = "0".repeat(flags.precision.unwrap_or(4).max(4).saturating_sub(code.len()));
    match letter.filter(|letter| flags.is_alternate && is_printable(*letter)) {
        Some(letter) => format!("U+{zeros}{code} '{letter}'"),
        None => format!("U+{zeros}{code}"),
    }
}

fn write_float(output: &mut Vec<u8>, flags: Flags, verb: char, number: f64, value: &Value<'_>) {
    let Some(plain) = float(if number.is_finite() { number.abs() } else { 0.0 }, verb, flags.precision) else {
        return write_refusal(output, flags, verb, value);
    };
    let sign = flags.sign(number.is_sign_negative() && !number.is_nan());
    if !number.is_finite() {
        let text = match (number.is_nan(), sign) {
            (true, _) => format!("{sign}NaN"),
            (false, "") => "+Inf".to_owned(),
            (false, _) => format!("{sign}Inf"),
        };
        return flags.with_blanks().pad(output, text.as_bytes());
    }
    let plain = if flags.is_alternate && verb != 'b' { with_point(&plain, verb, flags.precision) } else { plain };
    if flags.is_zero_padded && !flags.is_left {
        let missing = flags.width.unwrap_or(0).saturating_sub(sign.len() + plain.len());
        output.extend_from_slice(format!("{sign}{}{plain}", "0".repeat(missing)).as_bytes());
    } else {
        flags.pad(output, format!("{sign}{plain}").as_bytes());
    }
}
