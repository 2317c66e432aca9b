//! JSON lines: everything, the values at some paths, or a packed line.
//!
//! The scanner reads values one after the other and no further than it must, so that a line that ends too early still gives what
//! stood before; an object or array counts only once its end was found.

use std::borrow::Cow;

use tidemill_lang::logql::json_path::PathStep;

use super::{Line, Required, sanitized};
use crate::logql::labels::RowLabels;

const ERROR: &str = "JSONParserErr";
const DEPTH_LIMIT: usize = 64;

/// A value, as text of the line.
enum Value<'t> {
    /// The inside of the quotes, escapes unresolved.
    Text(&'t str),
    Number(&'t str),
    Bool(&'t str),
    Null,
    Object(&'t str),
    Array(&'t str),
}

type Scan<T> = Result<T, &'static str>;

const MALFORMED: &str = "malformed JSON";
const NO_OBJECT: &str = "value is no object, or its closing '}' is missing";
const NO_ARRAY_END: &str = "value looks like an array, but its closing ']' is missing";
const NO_TEXT_END: &str = "value looks like a string, but its closing '\"' is missing";

/// Makes a label of every value in the object, nested names joined by `_`; arrays and nulls are left out.
pub(in crate::logql) fn parse_json<'a>(line: Line<'_, 'a>, labels: &mut RowLabels<'a>, required: &Required) {
    let mut visitor = Visitor { line, labels, required, found: 0 };
    match visitor.object(line.text(), "", 0) {
        Ok(_) => {}
        Err(why) => labels.set_error(ERROR, why),
    }
}

struct Visitor<'v, 'a> {
    line: Line<'v, 'a>,
    labels: &'v mut RowLabels<'a>,
    required: &'v Required,
    found: usize,
}

/// Whether a walk goes on.
#[derive(PartialEq, Eq)]
enum Walk {
    On,
    Enough,
}

impl<'a> Visitor<'_, 'a> {
    fn object(&mut self, text: &str, prefix: &str, depth: usize) -> Scan<Walk> {
        if depth > DEPTH_LIMIT {
            return Err("nested too deep");
        }
        let mut walk = Walk::On;
        each_member(text, |key, value| {
            let key = unescape(key)?;
            let name = if prefix.is_empty() {
                sanitized(part_of(self.line, key))
            } else {
                Cow::Owned(format!("{prefix}_{}", sanitized_tail(&key)))
            };
            walk = self.member(name, value, depth)?;
            Ok(walk == Walk::On)
        })?;
        Ok(walk)
    }

    fn member(&mut self, name: Cow<'a, str>, value: Value<'_>, depth: usize) -> Scan<Walk> {
        let value = match value {
            Value::Object(text) if self.required.needs_below(&name) => return self.object(text, &name, depth + 1),
            Value::Object(_) | Value::Array(_) | Value::Null => return Ok(Walk::On),
            _ if !self.required.needs(&name) => return Ok(Walk::On),
            Value::Text(text) => part_of(self.line, unescape(text).unwrap_or_default()),
            Value::Number(text) | Value::Bool(text) => self.line.part(text),
        };
        self.labels.add_parsed(name, value);
        self.found += 1;
        Ok(if self.found >= self.required.count() { Walk::Enough } else { Walk::On })
    }
}

fn part_of<'a>(line: Line<'_, 'a>, text: Cow<'_, str>) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(text) => line.part(text),
        Cow::Owned(text) => Cow::Owned(text),
    }
}

/// A nested key, where a digit may lead.
fn sanitized_tail(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// Labels with the paths that they take their values from.
pub(in crate::logql) type JsonPaths = Vec<(String, Vec<PathStep>)>;

/// Sets each label to the value at its path; to nothing where there is none.
pub(in crate::logql) fn parse_json_paths<'a>(
    line: Line<'_, 'a>,
    labels: &mut RowLabels<'a>,
    paths: &JsonPaths,
    required: &Required,
) {
    let starts = line.text().trim_start().starts_with(['{', '[', '"']);
    if !starts {
        labels.set_error(ERROR, NO_OBJECT);
        return;
    }
    for (label, path) in paths {
        if !required.needs(label) {
            continue;
        }
        let value = match at_path(line.text(), path) {
            Ok(Some(Value::Text(text))) => unescape(text).map(|text| part_of(line, text)).unwrap_or_default(),
            Ok(Some(Value::Number(text) | Value::Bool(text) | Value::Object(text) | Value::Array(text))) => {
                line.part(text)
            }
            Ok(Some(Value::Null) | None) => Cow::Borrowed(""),
            Err(why) => {
                labels.set_error(ERROR, why);
                Cow::Borrowed("")
            }
        };
        labels.add_parsed(Cow::Owned(label.clone()), value);
    }
}

/// The value at the path. A document that breaks off before it has none there; a value that breaks off itself is an error.
fn at_path<'t>(text: &'t str, path: &[PathStep]) -> Scan<Option<Value<'t>>> {
    let Ok((mut value, _)) = value_at(text, skip_blanks(text, 0)).or_else(|_| open_value(text)) else {
        return Ok(None);
    };
    for step in path {
        let mut next = None;
        let walked = match (step, &value) {
            (PathStep::Field(name), Value::Object(inner)) => each_member(inner, |key, member| {
                let is_wanted = unescape(key)? == name.as_str();
                if is_wanted {
                    next = Some(member);
                }
                Ok(!is_wanted)
            }),
            (PathStep::Index(index), Value::Array(inner)) => {
                let mut number = 0;
                each_element(inner, |element| {
                    let is_wanted = number == *index;
                    if is_wanted {
                        next = Some(element);
                    }
                    number += 1;
                    Ok(!is_wanted)
                })
            }
            _ => Ok(()),
        };
        match (next, walked) {
            (Some(found), _) => value = found,
            (None, Err(why)) if path.len() == 1 && breaks_in_value(text, step) => return Err(why),
            (None, _) => return Ok(None),
        }
    }
    Ok(Some(value))
}

/// An object or array whose end is missing, as far as it goes.
fn open_value(text: &str) -> Scan<(Value<'_>, usize)> {
    let start = skip_blanks(text, 0);
    match text.as_bytes().get(start) {
        Some(b'{') => Ok((Value::Object(&text[start..]), text.len())),
        Some(b'[') => Ok((Value::Array(&text[start..]), text.len())),
        _ => Err(MALFORMED),
    }
}

/// Whether the last member that a document begins has the wanted key.
fn breaks_in_value(text: &str, step: &PathStep) -> bool {
    let PathStep::Field(name) = step else { return false };
    let key = format!("\"{name}\"");
    text.rfind(&key).is_some_and(|at| text[at + key.len()..].trim_start().starts_with(':'))
}

/// Makes labels of the texts in a packed line; returns the line that was packed.
pub(in crate::logql) fn unpack<'a>(
    line: Line<'_, 'a>,
    labels: &mut RowLabels<'a>,
    required: &Required,
) -> Option<Cow<'a, str>> {
    if !line.text().trim_start().starts_with('{') {
        labels.set_error(ERROR, "expected a JSON object");
        return None;
    }
    let mut found = Vec::new();
    let mut entry = None;
    let walked = each_member(line.text(), |key, value| {
        let (Value::Text(text), key) = (value, unescape(key)?) else { return Ok(true) };
        let text = part_of(line, unescape(text).unwrap_or_default());
        if key == "_entry" {
            entry = Some(text);
        } else if required.needs(&key) {
            found.push((sanitized(part_of(line, key)), text));
        }
        Ok(true)
    });
    if let Err(why) = walked {
        labels.set_error(ERROR, why);
        return None;
    }
    // A line without the entry was not packed.
    if entry.is_some() {
        for (name, value) in found {
            labels.add_parsed(name, value);
        }
    }
    entry
}

/// Hands each member of the object to `visit`, with its key, until one says no.
fn each_member<'t>(text: &'t str, mut visit: impl FnMut(&'t str, Value<'t>) -> Scan<bool>) -> Scan<()> {
    let bytes = text.as_bytes();
    let mut at = skip_blanks(text, 0);
    if bytes.get(at) != Some(&b'{') {
        return Err(NO_OBJECT);
    }
    at = skip_blanks(text, at + 1);
    if bytes.get(at) == Some(&b'}') {
        return Ok(());
    }
    loop {
        if bytes.get(at) != Some(&b'"') {
            return Err(MALFORMED);
        }
        let (key, end) = quoted(text, at).map_err(|_| MALFORMED)?;
        at = skip_blanks(text, end);
        if bytes.get(at) != Some(&b':') {
            return Err(MALFORMED);
        }
        let (value, end) = value_at(text, skip_blanks(text, at + 1))?;
        if !visit(key, value)? {
            return Ok(());
        }
        at = skip_blanks(text, end);
        match bytes.get(at) {
            Some(b',') => at = skip_blanks(text, at + 1),
            Some(b'}') => return Ok(()),
            _ => return Err(MALFORMED),
        }
    }
}

fn each_element<'t>(text: &'t str, mut visit: impl FnMut(Value<'t>) -> Scan<bool>) -> Scan<()> {
    let bytes = text.as_bytes();
    let mut at = skip_blanks(text, 1);
    if bytes.get(at) == Some(&b']') {
        return Ok(());
    }
    loop {
        let (value, end) = value_at(text, at)?;
        if !visit(value)? {
            return Ok(());
        }
        at = skip_blanks(text, end);
        match bytes.get(at) {
            Some(b',') => at = skip_blanks(text, at + 1),
            Some(b']') => return Ok(()),
            _ => return Err(MALFORMED),
        }
    }
}

/// The value that begins at byte `at`, and where it ends.
fn value_at(text: &str, at: usize) -> Scan<(Value<'_>, usize)> {
    let bytes = text.as_bytes();
    match bytes.get(at) {
        Some(b'"') => quoted(text, at).map(|(inner, end)| (Value::Text(inner), end)),
        Some(b'{') => {
            let end = block_end(text, at, b'{', b'}').ok_or(NO_OBJECT)?;
            Ok((Value::Object(&text[at..end]), end))
        }
        Some(b'[') => {
            let end = block_end(text, at, b'[', b']').ok_or(NO_ARRAY_END)?;
            Ok((Value::Array(&text[at..end]), end))
        }
        Some(_) => {
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            let end = bytes[at..].iter().position(ends).map(|length| at + length).ok_or(MALFORMED)?;
            let token = &text[at..end];
            let value = match token {
                "true" | "false" => Value::Bool(token),
                "null" => Value::Null,
                _ if is_number(token) => Value::Number(token),
                _ => return Err(MALFORMED),
            };
            Ok((value, end))
        }
        None => Err(MALFORMED),
    }
}

fn is_number(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_digit() || c == '-')
        && token.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E'))
}

fn skip_blanks(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + (rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len())
}

/// The inside of the quotes that begin at byte `at`, and where they end.
fn quoted(text: &str, at: usize) -> Scan<(&str, usize)> {
    let bytes = text.as_bytes();
    let mut end = at + 1;
    loop {
        match memchr::memchr2(b'"', b'\\', bytes.get(end..).unwrap_or_default()) {
            None => return Err(NO_TEXT_END),
            Some(length) if bytes[end + length] == b'"' => {
                return Ok((&text[at + 1..end + length], end + length + 1));
            }
            Some(length) => end += length + 2,
        }
    }
}

/// One past the bracket that closes the one at byte `at`.
fn block_end(text: &str, at: usize, opening: u8, closing: u8) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut end = at;
    while end < bytes.len() {
        match bytes[end] {
            b'"' => {
                end = quoted(text, end).ok()?.1;
                continue;
            }
            byte if byte == opening => depth += 1,
            byte if byte == closing => {
                depth -= 1;
                if depth == 0 {
                    return Some(end + 1);
                }
            }
            _ => {}
        }
        end += 1;
    }
    None
}

/// Resolves escapes; what is no escape is an error.
fn unescape(text: &str) -> Scan<Cow<'_, str>> {
    if !text.contains('\\') {
        return Ok(Cow::Borrowed(text));
    }
    let mut resolved = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        resolved.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        let (letter, length) = match escape.as_bytes().first().ok_or(MALFORMED)? {
            b'n' => ('\n', 1),
            b't' => ('\t', 1),
            b'r' => ('\r', 1),
            b'b' => ('\u{8}', 1),
            b'f' => ('\u{c}', 1),
            b'"' => ('"', 1),
            b'\\' => ('\\', 1),
            b'/' => ('/', 1),
            b'u' => unicode(escape)?,
            _ => return Err(MALFORMED),
        };
        resolved.push(letter);
        rest = &escape[length..];
    }
    resolved.push_str(rest);
    Ok(Cow::Owned(resolved))
}

/// The letter of `uXXXX`, of two of them where the first is half of a pair.
fn unicode(escape: &str) -> Scan<(char, usize)> {
    let code = |text: &str| text.get(1..5).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let first = code(escape).ok_or(MALFORMED)?;
    if (0xD800..0xDC00).contains(&first) {
        let second = escape.get(5..).and_then(|rest| rest.strip_prefix('\\')).and_then(code).unwrap_or(0);
        if (0xDC00..0xE000).contains(&second) {
            let joined = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            return Ok((char::from_u32(joined).unwrap_or(char::REPLACEMENT_CHARACTER), 11));
        }
    }
    Ok((char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 5))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(line: &str) -> (Vec<String>, Option<&'static str>) {
        let mut labels = RowLabels::default();
        parse_json(line.into(), &mut labels, &Required::All);
        (labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect(), labels.error())
    }

    #[test]
    fn what_stands_before_the_break_counts() {
        assert_eq!(
            all(r#"{"a":"x\n\u00e9\ud83d\ude80","b":{"c-d":1.50,"e":[1]},"1f":true,"n":null}"#).0,
            ["a=x\né🚀", "b_c_d=1.50", "_1f=true"]
        );
        assert_eq!(all(r#"{"a":1,"b":{"c":2"#), (vec!["a=1".to_owned()], Some(ERROR)));
        assert_eq!(all(r#"{"a":1,"b":12"#), (vec!["a=1".to_owned()], Some(ERROR)));
        assert_eq!(all("[1]"), (vec![], Some(ERROR)));
        // Loki takes what is no escape, as nginx writes them, for an empty text, and goes on.
        let odd = [r"Moz \x22x", r"it\'s", r"\u12", r"\q"];
        for odd in odd {
            let line = format!(r#"{{"a":"{odd}","status":"200"}}"#);
            assert_eq!(all(&line), (vec!["a=".to_owned(), "status=200".to_owned()], None), "{line}");
        }
        assert_eq!(all(r#"{"\q":1}"#).1, Some(ERROR));
        assert_eq!(all("{}"), (vec![], None));
        assert_eq!(all(&format!("{}1{}", "{\"a\":".repeat(99), "}".repeat(99))).1, Some(ERROR));
    }

    #[test]
    fn paths_into_broken_documents() {
        let at = |line: &str, path: &str| {
            let path = tidemill_lang::logql::json_path::parse_path(path).expect("a path");
            let mut labels = RowLabels::default();
            parse_json_paths(line.into(), &mut labels, &vec![("x".to_owned(), path)], &Required::All);
            (labels.get("x").map(str::to_owned), labels.error().is_some())
        };
        let found = |value: &str| Some(value.to_owned());
        assert_eq!(at(r#"{"a":{"b":[1,{"c":"y"}]}}"#, "a.b[1].c"), (found("y"), false));
        assert_eq!(at(r#"{"a":1,"b":{"c":2"#, "a"), (found("1"), false));
        assert_eq!(at(r#"{"a":1,"b":{"c":2"#, "z"), (found(""), false));
        assert_eq!(at(r#"{"a":1,"b":"brok"#, "b"), (found(""), true));
        assert_eq!(at("no json", "a"), (None, true));
        assert_eq!(at(r#""text""#, "a"), (found(""), false));
    }

    #[test]
    fn needed_labels_end_the_walk() {
        let mut labels = RowLabels::default();
        let required = Required::Some(vec!["b_c".to_owned()]);
        parse_json(r#"{"a":1,"b":{"x":1,"c":2},"broken"#.into(), &mut labels, &required);
        assert_eq!((labels.get("b_c"), labels.get("a"), labels.error()), (Some("2"), None, None));
    }
}
