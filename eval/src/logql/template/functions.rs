//! The functions of templates.

use std::cmp::Ordering;

use tidemill_lang::go_regex::compile_regex;

use super::TemplateContext;
use super::decimal::{DecimalOperation, calculate};
use super::printf::{print, printf, println};
use super::text::{letters, lossy, title, url_decode, url_encode};
use super::time::Moment;
use super::value::{IntType, Value};
use crate::logql::bytes_text::{parse_bytes, parse_duration_ns};

/// The longest text that a function may build, in bytes.
const TEXT_LIMIT_BYTES: usize = 1 << 20;

type Answer<'l> = Result<Value<'l>, String>;

/// The arguments of a call.
struct Arguments<'l>(Vec<Value<'l>>);

impl<'l> Arguments<'l> {
    fn at(&self, index: usize) -> Result<&Value<'l>, String> {
        self.0.get(index).ok_or_else(|| format!("wants more than {} arguments", self.0.len()))
    }

    fn bytes(&self, index: usize) -> Result<&[u8], String> {
        match self.at(index)? {
            Value::Text(text) => Ok(text),
            other => Err(format!("argument {} is {} and no text", index + 1, other.kind())),
        }
    }

    fn text(&self, index: usize) -> Result<String, String> {
        self.bytes(index).map(lossy)
    }

    fn int(&self, index: usize) -> Result<i64, String> {
        self.at(index).map(Value::to_int)
    }

    fn float(&self, index: usize) -> Result<f64, String> {
        self.at(index).map(Value::to_float)
    }

    /// A number of a text's bytes.
    fn size(&self, index: usize) -> Result<usize, String> {
        let value = self.int(index)?;
        usize::try_from(value)
            .ok()
            .filter(|value| *value <= TEXT_LIMIT_BYTES)
            .ok_or_else(|| format!("bad count {value}"))
    }

    fn exactly(&self, least: usize, most: usize) -> Result<(), String> {
        let count = self.0.len();
        if (least..=most).contains(&count) {
            return Ok(());
        }
        let wants = if least == most { least.to_string() } else { format!("at least {least}") };
        Err(format!("wrong number of args: want {wants} got {count}"))
    }
}

/// Refuses to make a text of so many bytes.
fn check_bytes(bytes: usize) -> Result<(), String> {
    if bytes <= TEXT_LIMIT_BYTES { Ok(()) } else { Err(format!("more than {TEXT_LIMIT_BYTES} bytes")) }
}

fn check_replaced(text: &str, times: usize, new: &str) -> Result<(), String> {
    check_bytes(text.len().saturating_add(times.saturating_mul(new.len())))
}

/// Calls the function.
///
/// # Errors
/// Why the function failed.
pub(super) fn call<'l>(name: &str, arguments: Vec<Value<'l>>, context: TemplateContext<'_>) -> Answer<'l> {
    let arguments = Arguments(arguments);
    let (least, most) = arity(name);
    arguments.exactly(least, most)?;
    let a = &arguments;
    match name {
        "__line__" => Ok(Value::text(context.line)),
        "__timestamp__" => Ok(Value::Moment(Moment::of_ns(context.time_ns))),
        "now" => Ok(Value::Moment(Moment::of_ns(context.now_ns))),
        "not" => Ok(Value::Bool(!a.at(0)?.is_true())),
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => compare(name, a),
        "len" => length(a.at(0)?),
        "index" => index(a),
        "slice" => slice(a),
        "print" => Ok(Value::Text(print(&a.0))),
        "println" => Ok(Value::Text(println(&a.0))),
        "printf" => printf(a.bytes(0)?, &a.0[1..]).map(Value::Text),
        "urlquery" => Ok(Value::text(url_encode(&print(&a.0)))),
        "html" => Ok(Value::text(html(&lossy(&print(&a.0))))),
        "js" => Ok(Value::text(javascript(&lossy(&print(&a.0))))),
        "default" => Ok(if a.0.len() > 1 && a.at(1)?.is_true() { a.at(1)?.clone() } else { a.at(0)?.clone() }),
        "fromJson" => Ok(serde_json::from_slice(a.bytes(0)?).map_or(Value::Nil, Value::of_json)),
        "date" | "toDate" | "toDateInZone" | "unixToTime" | "unixEpoch" | "unixEpochMillis" | "unixEpochNanos" => {
            time(name, a)
        }
        "int" | "float64" | "add" | "sub" | "mul" | "div" | "mod" | "max" | "min" | "addf" | "subf" | "mulf"
        | "divf" | "maxf" | "minf" | "ceil" | "floor" | "round" => number(name, a),
        "bytes" => {
            let text = a.text(0)?;
            parse_bytes(&text).map(Value::Float).ok_or_else(|| format!("{text:?} is no size"))
        }
        "duration" | "duration_seconds" => {
            let text = a.text(0)?;
            parse_duration_ns(&text).map(|ns| Value::Float(ns / 1e9)).ok_or_else(|| format!("{text:?} is no duration"))
        }
        _ => text(name, a),
    }
}

/// The least and most arguments of a function.
fn arity(name: &str) -> (usize, usize) {
    match name {
        "__line__" | "__timestamp__" | "now" => (0, 0),
        "print" | "println" | "urlquery" | "html" | "js" => (0, usize::MAX),
        "printf" | "index" | "slice" | "max" | "min" | "maxf" | "minf" | "addf" | "subf" | "mulf" | "divf" | "add"
        | "mul" => (1, usize::MAX),
        "eq" => (2, usize::MAX),
        "default" => (1, 2),
        "round" => (2, 3),
        "Replace" => (4, 4),
        "replace" | "substr" | "regexReplaceAll" | "regexReplaceAllLiteral" | "toDateInZone" => (3, 3),
        "ne" | "lt" | "le" | "gt" | "ge" | "sub" | "div" | "mod" | "date" | "toDate" | "count" | "alignLeft"
        | "alignRight" | "trunc" | "contains" | "hasPrefix" | "hasSuffix" | "indent" | "nindent" | "repeat"
        | "Trim" | "TrimLeft" | "TrimRight" | "TrimPrefix" | "TrimSuffix" | "trimAll" | "trimSuffix" | "trimPrefix" => {
            (2, 2)
        }
        _ => (1, 1),
    }
}

fn compare(name: &str, a: &Arguments<'_>) -> Answer<'static> {
    let left = a.at(0)?;
    if name == "eq" || name == "ne" {
        let mut is_equal = false;
        for right in &a.0[1..] {
            is_equal |= order(left, right)? == Some(Ordering::Equal);
        }
        return Ok(Value::Bool(is_equal == (name == "eq")));
    }
    let order = order(left, a.at(1)?)?;
    Ok(Value::Bool(match name {
        "lt" => order == Some(Ordering::Less),
        "le" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        "gt" => order == Some(Ordering::Greater),
        _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }))
}

fn order(left: &Value<'_>, right: &Value<'_>) -> Result<Option<Ordering>, String> {
    match (left, right) {
        (Value::Int(left, _), Value::Int(right, _)) => Ok(Some(left.cmp(right))),
        (Value::Float(left), Value::Float(right)) => Ok(left.partial_cmp(right)),
        (Value::Text(left), Value::Text(right)) => Ok(Some(left.cmp(right))),
        (Value::Bool(left), Value::Bool(right)) => Ok(Some(left.cmp(right))),
        (Value::Nil, Value::Nil) => Ok(Some(Ordering::Equal)),
        (Value::Nil, _) | (_, Value::Nil) => Ok(None),
        _ => Err(format!("incompatible types for comparison: {} and {}", left.kind(), right.kind())),
    }
}

fn length(value: &Value<'_>) -> Answer<'static> {
    match value {
        Value::Text(text) => Ok(Value::int(text.len() as i64)),
        Value::List(list) => Ok(Value::int(list.len() as i64)),
        Value::Map(map) => Ok(Value::int(map.len() as i64)),
        Value::Labels(labels) => Ok(Value::int(labels.to_set().iter().count() as i64)),
        other => Err(format!("len of {}", other.kind())),
    }
}

fn index<'l>(a: &Arguments<'l>) -> Answer<'l> {
    let mut value = a.at(0)?.clone();
    for key in &a.0[1..] {
        value = match (value, key) {
            (Value::Labels(labels), Value::Text(key)) => Value::text(labels.get(&lossy(key)).unwrap_or_default()),
            (Value::Map(map), Value::Text(key)) => {
                map.into_iter().find(|(own, _)| own.as_bytes() == key).map_or(Value::Nil, |(_, value)| value)
            }
            (Value::List(list), Value::Int(at, _)) => usize::try_from(*at)
                .ok()
                .and_then(|at| list.get(at).cloned())
                .ok_or_else(|| format!("index out of range: {at}"))?,
            (Value::Text(text), Value::Int(at, _)) => usize::try_from(*at)
                .ok()
                .and_then(|at| text.get(at).map(|byte| Value::Int(i64::from(*byte), IntType::Byte)))
                .ok_or_else(|| format!("index out of range: {at}"))?,
            (value, _) => return Err(format!("can't index {}", value.kind())),
        };
    }
    Ok(value)
}

fn slice<'l>(a: &Arguments<'l>) -> Answer<'l> {
    let bounds = |length: usize| -> Result<(usize, usize), String> {
        let start = if a.0.len() > 1 { a.int(1)? } else { 0 };
        let end = if a.0.len() > 2 { a.int(2)? } else { length as i64 };
        match (usize::try_from(start), usize::try_from(end)) {
            (Ok(start), Ok(end)) if start <= end && end <= length => Ok((start, end)),
            _ => Err(format!("slice {start}:{end} out of range")),
        }
    };
    match a.at(0)? {
        Value::Text(text) => bounds(text.len()).map(|(start, end)| Value::Text(text[start..end].to_vec())),
        Value::List(list) => bounds(list.len()).map(|(start, end)| Value::List(list[start..end].to_vec())),
        other => Err(format!("can't slice {}", other.kind())),
    }
}

fn number(name: &str, a: &Arguments<'_>) -> Answer<'static> {
    let ints = || a.0.iter().map(Value::to_int);
    let floats = || a.0.iter().map(Value::to_float);
    let decimal = |operation| {
        let rest: Vec<f64> = floats().skip(1).collect();
        calculate(operation, a.float(0)?, &rest).map(Value::Float)
    };
    match name {
        "int" => Ok(Value::int(a.int(0)?)),
        "float64" => Ok(Value::Float(a.float(0)?)),
        "add" => Ok(Value::int64(ints().fold(0, i64::wrapping_add))),
        "sub" => Ok(Value::int64(a.int(0)?.wrapping_sub(a.int(1)?))),
        "mul" => Ok(Value::int64(ints().fold(1, i64::wrapping_mul))),
        "div" => a.int(0)?.checked_div(a.int(1)?).map(Value::int64).ok_or_else(|| "integer divide by zero".to_owned()),
        "mod" => a.int(0)?.checked_rem(a.int(1)?).map(Value::int64).ok_or_else(|| "integer divide by zero".to_owned()),
        "max" => Ok(Value::int64(ints().max().unwrap_or(0))),
        "min" => Ok(Value::int64(ints().min().unwrap_or(0))),
        "maxf" => Ok(Value::Float(floats().fold(f64::NEG_INFINITY, f64::max))),
        "minf" => Ok(Value::Float(floats().fold(f64::INFINITY, f64::min))),
        "addf" => decimal(DecimalOperation::Add),
        "subf" => decimal(DecimalOperation::Subtract),
        "mulf" => decimal(DecimalOperation::Multiply),
        "divf" => decimal(DecimalOperation::Divide),
        "ceil" => Ok(Value::Float(a.float(0)?.ceil())),
        "floor" => Ok(Value::Float(a.float(0)?.floor())),
        _ => {
            let threshold = if a.0.len() > 2 { a.float(2)? } else { 0.5 };
            let scale = 10f64.powf(a.float(1)?);
            let scaled = a.float(0)? * scale;
            let rounded = if scaled.fract() >= threshold { scaled.ceil() } else { scaled.floor() };
            Ok(Value::Float(rounded / scale))
        }
    }
}

fn time(name: &str, a: &Arguments<'_>) -> Answer<'static> {
    let moment = |index: usize| -> Result<Moment, String> {
        match a.at(index)? {
            Value::Moment(moment) => Ok(moment.clone()),
            Value::Int(seconds, _) => Moment::of_seconds(*seconds, 0).ok_or_else(|| "time out of range".to_owned()),
            other => Err(format!("{} is no time", other.kind())),
        }
    };
    match name {
        "date" => Ok(Value::text(moment(1)?.format(&a.text(0)?))),
        "toDate" => {
            let read = Moment::parse(&a.text(0)?, &a.text(1)?, chrono_tz::Tz::UTC);
            Ok(Value::Moment(read.unwrap_or_else(|_| Moment::zero())))
        }
        "toDateInZone" => {
            let zone = Moment::zone(&a.text(1)?).unwrap_or(chrono_tz::Tz::UTC);
            let read = Moment::parse(&a.text(0)?, &a.text(2)?, zone);
            Ok(Value::Moment(read.unwrap_or_else(|_| Moment::zero())))
        }
        "unixToTime" => {
            let text = a.text(0)?;
            let value: i64 = text.parse().map_err(|_| format!("unable to parse time {text:?}"))?;
            let moment = match text.len() {
                5 => Moment::of_seconds(value * 86_400, 0),
                10 => Moment::of_seconds(value, 0),
                13 => Some(Moment::of_ns(value.wrapping_mul(1_000_000))),
                16 => Some(Moment::of_ns(value.wrapping_mul(1_000))),
                19 => Some(Moment::of_ns(value)),
                _ => None,
            };
            moment.map(Value::Moment).ok_or_else(|| format!("unable to parse time {text:?}"))
        }
        "unixEpoch" => Ok(Value::text(moment(0)?.seconds().to_string())),
        "unixEpochMillis" => Ok(Value::text(moment(0)?.milliseconds().to_string())),
        _ => Ok(Value::text(moment(0)?.nanoseconds().to_string())),
    }
}

fn text(name: &str, a: &Arguments<'_>) -> Answer<'static> {
    let set = |text: String| Ok(Value::Text(text.into_bytes()));
    match name {
        "ToLower" | "lower" => set(a.text(0)?.to_lowercase()),
        "ToUpper" | "upper" => set(a.text(0)?.to_uppercase()),
        "title" => set(title(&a.text(0)?)),
        "trim" | "TrimSpace" => set(a.text(0)?.trim().to_owned()),
        "Trim" => set(trimmed(&a.text(0)?, &a.text(1)?, true, true)),
        "TrimLeft" => set(trimmed(&a.text(0)?, &a.text(1)?, true, false)),
        "TrimRight" => set(trimmed(&a.text(0)?, &a.text(1)?, false, true)),
        "trimAll" => set(trimmed(&a.text(1)?, &a.text(0)?, true, true)),
        "TrimPrefix" => set(without_prefix(&a.text(0)?, &a.text(1)?)),
        "trimPrefix" => set(without_prefix(&a.text(1)?, &a.text(0)?)),
        "TrimSuffix" => set(without_suffix(&a.text(0)?, &a.text(1)?)),
        "trimSuffix" => set(without_suffix(&a.text(1)?, &a.text(0)?)),
        "Replace" => {
            let (text, old, new) = (a.text(0)?, a.text(1)?, a.text(2)?);
            check_replaced(&text, text.matches(&*old).count(), &new)?;
            match usize::try_from(a.int(3)?) {
                Ok(count) => set(text.replacen(&*old, &new, count)),
                Err(_) => set(text.replace(&*old, &new)),
            }
        }
        "replace" => {
            let (old, new, text) = (a.text(0)?, a.text(1)?, a.text(2)?);
            check_replaced(&text, text.matches(&*old).count(), &new)?;
            set(text.replace(&*old, &new))
        }
        "contains" => Ok(Value::Bool(a.text(1)?.contains(&a.text(0)?))),
        "hasPrefix" => Ok(Value::Bool(a.bytes(1)?.starts_with(a.bytes(0)?))),
        "hasSuffix" => Ok(Value::Bool(a.bytes(1)?.ends_with(a.bytes(0)?))),
        "repeat" => {
            let (count, text) = (a.size(0)?, a.bytes(1)?);
            check_bytes(count.saturating_mul(text.len()))?;
            Ok(Value::Text(text.repeat(count)))
        }
        "indent" | "nindent" => {
            let pad = " ".repeat(a.size(0)?);
            let text = a.text(1)?;
            check_bytes(text.matches('\n').count().saturating_mul(pad.len()))?;
            let start = if name == "nindent" { "\n" } else { "" };
            set(format!("{start}{pad}{}", text.replace('\n', &format!("\n{pad}"))))
        }
        "trunc" => {
            let (count, text) = (a.int(0)?, a.bytes(1)?);
            let length = text.len() as i64;
            Ok(Value::Text(if count >= 0 && length > count {
                text[..count as usize].to_vec()
            } else if count < 0 && length + count > 0 {
                text[(length + count) as usize..].to_vec()
            } else {
                text.to_vec()
            }))
        }
        "substr" => {
            let (start, end, text) = (a.int(0)?, a.int(1)?, a.bytes(2)?);
            let length = text.len() as i64;
            let (from, to) = match (start, end) {
                (start, end) if start < 0 => (0, end.clamp(0, length)),
                (start, end) if end < 0 || end > length => (start.min(length), length),
                (start, end) => (start.min(end), end),
            };
            Ok(Value::Text(text[from as usize..to as usize].to_vec()))
        }
        "alignLeft" | "alignRight" => align(name == "alignLeft", a.size(0)?, a.bytes(1)?),
        "count" => {
            let regex = compile_regex(&a.text(0)?)?;
            Ok(Value::int(regex.find_iter(&a.text(1)?).count() as i64))
        }
        "regexReplaceAll" => {
            let (regex, text, new) = (compile_regex(&a.text(0)?)?, a.text(1)?, a.text(2)?);
            // All that one reference stands for is no longer than the text.
            let referenced = new.matches('$').count().saturating_mul(text.len());
            check_bytes(referenced)?;
            check_replaced(&text, regex.find_iter(&text).count(), &new)?;
            set(regex.replace_all(&text, &*new).into_owned())
        }
        "regexReplaceAllLiteral" => {
            let (regex, text, new) = (compile_regex(&a.text(0)?)?, a.text(1)?, a.text(2)?);
            check_replaced(&text, regex.find_iter(&text).count(), &new)?;
            set(regex.replace_all(&text, regex::NoExpand(&new)).into_owned())
        }
        "urlencode" => set(url_encode(a.bytes(0)?)),
        "urldecode" => url_decode(a.bytes(0)?).map(Value::Text),
        "b64enc" => {
            use base64::Engine;
            set(base64::engine::general_purpose::STANDARD.encode(a.bytes(0)?))
        }
        "b64dec" => Ok(Value::Text(decode_base64(a.bytes(0)?))),
        other => Err(format!("function {other:?} not defined")),
    }
}

/// The bytes that the text stands for; the words of the refusal where it is no base64, as the template function has it.
fn decode_base64(text: &[u8]) -> Vec<u8> {
    use base64::Engine;
    let plain: Vec<u8> = text.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    base64::engine::general_purpose::STANDARD.decode(&plain).unwrap_or_else(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _) => at,
            base64::DecodeError::InvalidLastSymbol(at, _) => at,
            base64::DecodeError::InvalidLength(length) => length / 4 * 4,
            base64::DecodeError::InvalidPadding => plain.len(),
        };
        format!("illegal base64 data at input byte {at}").into_bytes()
    })
}

fn trimmed(text: &str, letters: &str, at_start: bool, at_end: bool) -> String {
    let is_trimmed = |letter: char| letters.contains(letter);
    let text = if at_start { text.trim_start_matches(is_trimmed) } else { text };
    let text = if at_end { text.trim_end_matches(is_trimmed) } else { text };
    text.to_owned()
}

fn without_prefix(text: &str, prefix: &str) -> String {
    text.strip_prefix(prefix).unwrap_or(text).to_owned()
}

fn without_suffix(text: &str, suffix: &str) -> String {
    text.strip_suffix(suffix).unwrap_or(text).to_owned()
}

/// The text in so many letters: cut, or padded with blanks.
fn align(is_left: bool, width: usize, bytes: &[u8]) -> Answer<'static> {
    let text = lossy(bytes);
    let count = letters(bytes);
    let pad = " ".repeat(width.saturating_sub(count));
    let aligned = match (is_left, count > width) {
        (true, true) => text.chars().take(width).collect(),
        (false, true) => text.chars().skip(count - width).collect(),
        (true, false) => format!("{text}{pad}"),
        (false, false) => format!("{pad}{text}"),
    };
    Ok(Value::text(aligned))
}

fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            '\0' => escaped.push(char::REPLACEMENT_CHARACTER),
            plain => escaped.push(plain),
        }
    }
    escaped
}

fn javascript(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => escaped.push_str("\\\\"),
            '\'' => escaped.push_str("\\'"),
            '"' => escaped.push_str("\\\""),
            '<' | '>' | '&' | '=' => escaped.push_str(&format!("\\u{:04X}", u32::from(letter))),
            control if control < ' ' => escaped.push_str(&format!("\\u{:04X}", u32::from(control))),
            plain => escaped.push(plain),
        }
    }
    escaped
}
