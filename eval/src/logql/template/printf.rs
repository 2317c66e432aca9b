//! `printf`, `print` and `println`.

use super::text::letters;
use super::value::Value;

/// The widest that a value is padded to.
const WIDTH_LIMIT: usize = 10_000;

/// One verb with its flags.
#[derive(Default)]
struct Verb {
    is_left: bool,
    is_zero_padded: bool,
    is_signed: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Formats the values as Go's `fmt.Sprintf`.
pub(super) fn printf(format: &[u8], arguments: &[Value]) -> Vec<u8> {
    let mut output = Vec::new();
    let mut arguments = arguments.iter();
    let mut at = 0;
    while at < format.len() {
        if format[at] != b'%' {
            output.push(format[at]);
            at += 1;
            continue;
        }
        at += 1;
        let mut verb = Verb::default();
        while let Some(flag) = format.get(at) {
            match flag {
                b'-' => verb.is_left = true,
                b'0' => verb.is_zero_padded = true,
                b'+' => verb.is_signed = true,
                b'#' | b' ' => {}
                _ => break,
            }
            at += 1;
        }
        verb.width = number(format, &mut at);
        if format.get(at) == Some(&b'.') {
            at += 1;
            verb.precision = Some(number(format, &mut at).unwrap_or(0));
        }
        let Some(&name) = format.get(at) else {
            output.extend_from_slice(b"%!(NOVERB)");
            break;
        };
        at += 1;
        if name == b'%' {
            output.push(b'%');
            continue;
        }
        match arguments.next() {
            Some(value) => pad(&mut output, &verb, written(&verb, name, value)),
            None => output.extend_from_slice(format!("%!{}(MISSING)", name as char).as_bytes()),
        }
    }
    let extra: Vec<String> =
        arguments.map(|value| format!("{}={}", go_kind(value), String::from_utf8_lossy(&value.inner_text()))).collect();
    if !extra.is_empty() {
        output.extend_from_slice(format!("%!(EXTRA {})", extra.join(", ")).as_bytes());
    }
    output
}

fn number(format: &[u8], at: &mut usize) -> Option<usize> {
    let start = *at;
    while format.get(*at).is_some_and(u8::is_ascii_digit) {
        *at += 1;
    }
    std::str::from_utf8(&format[start..*at]).ok()?.parse::<usize>().ok().map(|value| value.min(WIDTH_LIMIT))
}

fn written(verb: &Verb, name: u8, value: &Value) -> Vec<u8> {
    let signed = |text: String| if verb.is_signed && !text.starts_with('-') { format!("+{text}") } else { text };
    match (name, value) {
        (b'v', value) => value.inner_text(),
        (b's', Value::Text(text)) => match verb.precision {
            Some(precision) => String::from_utf8_lossy(text).chars().take(precision).collect::<String>().into_bytes(),
            None => text.clone(),
        },
        (b's', Value::List(_) | Value::Map(_) | Value::Moment(_)) => value.inner_text(),
        (b'q', Value::Text(text)) => tidemill_lang::logql::print::quote(&String::from_utf8_lossy(text)).into_bytes(),
        (b'd', Value::Int(value)) => signed(value.to_string()).into_bytes(),
        (b'x', Value::Int(value)) => format!("{value:x}").into_bytes(),
        (b'X', Value::Int(value)) => format!("{value:X}").into_bytes(),
        (b'x', Value::Text(text)) => text.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes(),
        (b'o', Value::Int(value)) => format!("{value:o}").into_bytes(),
        (b'b', Value::Int(value)) => format!("{value:b}").into_bytes(),
        (b'f' | b'F', Value::Float(value)) => signed(format!("{value:.*}", verb.precision.unwrap_or(6))).into_bytes(),
        (b'e', Value::Float(value)) => {
            let text = format!("{value:.*e}", verb.precision.unwrap_or(6));
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let exponent: i32 = exponent.parse().unwrap_or(0);
            let sign = if exponent < 0 { '-' } else { '+' };
            signed(format!("{mantissa}e{sign}{:02}", exponent.abs())).into_bytes()
        }
        (b'g', Value::Float(_)) => value.inner_text(),
        (b't', Value::Bool(value)) => value.to_string().into_bytes(),
        (name, value) => {
            let text = String::from_utf8_lossy(&value.inner_text()).into_owned();
            format!("%!{}({}={text})", name as char, go_kind(value)).into_bytes()
        }
    }
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "<nil>",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Float(_) => "float64",
        Value::Text(_) => "string",
        Value::Moment(_) => "time.Time",
        Value::List(_) => "[]interface {}",
        Value::Map(_) | Value::Labels => "map[string]interface {}",
    }
}

fn pad(output: &mut Vec<u8>, verb: &Verb, text: Vec<u8>) {
    let missing = verb.width.unwrap_or(0).saturating_sub(letters(&text));
    if verb.is_left {
        output.extend_from_slice(&text);
        output.extend(std::iter::repeat_n(b' ', missing));
    } else if verb.is_zero_padded {
        let signs = usize::from(text.first().is_some_and(|byte| matches!(byte, b'-' | b'+')));
        output.extend_from_slice(&text[..signs]);
        output.extend(std::iter::repeat_n(b'0', missing));
        output.extend_from_slice(&text[signs..]);
    } else {
        output.extend(std::iter::repeat_n(b' ', missing));
        output.extend_from_slice(&text);
    }
}

/// The values one after the other; a blank stands between two of which neither is a text.
pub(super) fn print(arguments: &[Value]) -> Vec<u8> {
    let mut output = Vec::new();
    for (at, value) in arguments.iter().enumerate() {
        let is_text = |value: &Value| matches!(value, Value::Text(_));
        if at > 0 && !is_text(value) && !is_text(&arguments[at - 1]) {
            output.push(b' ');
        }
        output.extend(value.inner_text());
    }
    output
}

/// The values with blanks between them, and the end of the line.
pub(super) fn println(arguments: &[Value]) -> Vec<u8> {
    let mut output = arguments.iter().map(Value::inner_text).collect::<Vec<_>>().join(&b' ');
    output.push(b'\n');
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_as_go_has_them() {
        let cases: [(&str, Vec<Value>, &str); 8] = [
            ("%-6s|%6s|", vec![Value::text("é"), Value::text("b")], "é     |     b|"),
            ("%05d %+d %x", vec![Value::Int(-42), Value::Int(7), Value::Int(255)], "-0042 +7 ff"),
            ("%.2f %v %g", vec![Value::Float(1.005), Value::Float(3.0), Value::Float(0.5)], "1.00 3 0.5"),
            ("%q 100%%", vec![Value::text("a\"b")], "\"a\\\"b\" 100%"),
            ("%d", vec![Value::text("x")], "%!d(string=x)"),
            ("%s", vec![], "%!s(MISSING)"),
            ("a", vec![Value::Int(1)], "a%!(EXTRA int64=1)"),
            ("%.2s", vec![Value::text("日本語")], "日本"),
        ];
        for (format, arguments, expected) in cases {
            assert_eq!(String::from_utf8_lossy(&printf(format.as_bytes(), &arguments)), expected);
        }
    }
}
