//! `printf`, `print` and `println`: formats are read here, `verbs` writes the values.

use super::OUTPUT_LIMIT_BYTES;
use super::text::first_letter;
use super::value::Value;
use super::verbs::{Flags, write_argument};

/// The greatest width, precision and index of a format.
const NUMBER_LIMIT: usize = 1_000_000;

/// Formats the values as Go's `fmt.Sprintf`.
///
/// # Errors
/// The text grows too long.
pub(super) fn printf(format: &[u8], arguments: &[Value<'_>]) -> Result<Vec<u8>, String> {
    let reader = FormatReader {
        format,
        arguments,
        at: 0,
        argument: 0,
        is_reordered: false,
        is_index_right: true,
        output: Vec::new(),
    };
    reader.read()
}

struct FormatReader<'f, 'l> {
    format: &'f [u8],
    arguments: &'f [Value<'l>],
    /// The next byte of the format.
    at: usize,
    /// The next argument.
    argument: usize,
    /// Whether the format has told indexes of arguments.
    is_reordered: bool,
    /// Whether every index of this verb is one.
    is_index_right: bool,
    output: Vec<u8>,
}

impl FormatReader<'_, '_> {
    fn read(mut self) -> Result<Vec<u8>, String> {
        while let Some(rest) = self.format.get(self.at..).filter(|rest| !rest.is_empty()) {
            let plain = rest.iter().position(|byte| *byte == b'%').unwrap_or(rest.len());
            self.output.extend_from_slice(&rest[..plain]);
            self.at += plain;
            if self.takes(b'%') {
                self.verb();
            }
            if self.output.len() > OUTPUT_LIMIT_BYTES {
                return Err(format!("more than {OUTPUT_LIMIT_BYTES} bytes"));
            }
        }
        self.extra_arguments();
        Ok(self.output)
    }

    /// One verb, behind its `%`.
    fn verb(&mut self) {
        self.is_index_right = true;
        let mut flags = self.flags();
        let has_index = self.index();
        let has_index = self.width(&mut flags, has_index);
        let has_index = self.precision(&mut flags, has_index);
        if !has_index {
            self.index();
        }
        let Some((verb, length)) = first_letter(&self.format[self.at..]) else {
            self.output.extend_from_slice(b"%!(NOVERB)");
            return;
        };
        self.at += length;
        match self.arguments.get(self.argument) {
            _ if verb == '%' => self.output.push(b'%'),
            _ if !self.is_index_right => self.output.extend_from_slice(format!("%!{verb}(BADINDEX)").as_bytes()),
            None => self.output.extend_from_slice(format!("%!{verb}(MISSING)").as_bytes()),
            Some(value) => {
                self.argument += 1;
                write_argument(&mut self.output, flags.of_verb(verb), verb, value);
            }
        }
    }

    fn flags(&mut self) -> Flags {
        let mut flags = Flags::default();
        while let Some(flag) = self.format.get(self.at) {
            match flag {
                b'-' => flags.is_left = true,
                b'0' => flags.is_zero_padded = true,
                b'+' => flags.is_signed = true,
                b'#' => flags.is_alternate = true,
                b' ' => flags.is_spaced = true,
                _ => break,
            }
            self.at += 1;
        }
        flags
    }

    /// Reads the width; gives whether an index stands before the verb still.
    fn width(&mut self, flags: &mut Flags, has_index: bool) -> bool {
        if !self.takes(b'*') {
            flags.width = self.number();
            self.is_index_right &= !has_index || flags.width.is_none();
            return has_index;
        }
        match self.number_argument() {
            Some(number) => {
                flags.width = usize::try_from(number.unsigned_abs()).ok();
                if number < 0 {
                    flags.is_left = true;
                    flags.is_zero_padded = false;
                }
            }
            None => self.output.extend_from_slice(b"%!(BADWIDTH)"),
        }
        false
    }

    /// Reads the precision; gives whether an index stands before the verb still.
    fn precision(&mut self, flags: &mut Flags, has_index: bool) -> bool {
        if self.at + 1 >= self.format.len() || !self.takes(b'.') {
            return has_index;
        }
        self.is_index_right &= !has_index;
        let has_index = self.index();
        if !self.takes(b'*') {
            flags.precision = Some(self.number().unwrap_or(0));
            return has_index;
        }
        flags.precision = self.number_argument().and_then(|number| usize::try_from(number).ok());
        if flags.precision.is_none() {
            self.output.extend_from_slice(b"%!(BADPREC)");
        }
        false
    }

    /// Reads the index of the next argument; gives whether there is one.
    fn index(&mut self) -> bool {
        if self.format.get(self.at) != Some(&b'[') {
            return false;
        }
        self.is_reordered = true;
        let (index, length) = bracketed(&self.format[self.at..]);
        self.at += length;
        match index.filter(|index| (1..=self.arguments.len()).contains(index)) {
            Some(index) => self.argument = index - 1,
            None => self.is_index_right = false,
        }
        index.is_some()
    }

    fn number(&mut self) -> Option<usize> {
        let (number, length) = leading_number(&self.format[self.at..]);
        self.at += length;
        number
    }

    /// The next argument where it is a number for `*`.
    fn number_argument(&mut self) -> Option<i64> {
        let value = self.arguments.get(self.argument)?;
        self.argument += 1;
        match value {
            Value::Int(number, _) if number.unsigned_abs() <= NUMBER_LIMIT as u64 => Some(*number),
            _ => None,
        }
    }

    fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.format.get(self.at) == Some(&byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Tells which arguments the format has left.
    fn extra_arguments(&mut self) {
        let extra = self.arguments.get(self.argument..).unwrap_or_default();
        if self.is_reordered || extra.is_empty() {
            return;
        }
        self.output.extend_from_slice(b"%!(EXTRA ");
        for (at, value) in extra.iter().enumerate() {
            if at > 0 {
                self.output.extend_from_slice(b", ");
            }
            if !matches!(value, Value::Nil) {
                self.output.extend_from_slice(value.go_type().as_bytes());
                self.output.push(b'=');
            }
            self.output.extend(value.inner_text());
        }
        self.output.push(b')');
    }
}

/// The number in the brackets that `text` begins with, and how long they are.
fn bracketed(text: &[u8]) -> (Option<usize>, usize) {
    let closing = text.iter().position(|byte| *byte == b']').filter(|_| text.len() >= 3);
    let Some(closing) = closing else { return (None, 1) };
    let (number, length) = leading_number(&text[1..closing]);
    (number.filter(|_| length == closing - 1), closing + 1)
}

/// The number that `text` begins with, and its length; one that is too long takes all of the text, as in Go.
fn leading_number(text: &[u8]) -> (Option<usize>, usize) {
    let mut number = None;
    for (at, byte) in text.iter().enumerate() {
        let before = number.unwrap_or(0);
        if !byte.is_ascii_digit() {
            return (number, at);
        }
        if before > NUMBER_LIMIT {
            return (None, text.len());
        }
        number = Some(before * 10 + usize::from(byte - b'0'));
    }
    (number, text.len())
}

/// The values one after the other; a blank stands between two of which neither is a text.
pub(super) fn print(arguments: &[Value<'_>]) -> Vec<u8> {
    let mut output = Vec::new();
    for (at, value) in arguments.iter().enumerate() {
        let is_text = |value: &Value<'_>| matches!(value, Value::Text(_));
        if at > 0 && !is_text(value) && !is_text(&arguments[at - 1]) {
            output.push(b' ');
        }
        output.extend(value.inner_text());
    }
    output
}

/// The values with blanks between them, and the end of the line.
pub(super) fn println(arguments: &[Value<'_>]) -> Vec<u8> {
    let mut output = arguments.iter().map(Value::inner_text).collect::<Vec<_>>().join(&b' ');
    output.push(b'\n');
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logql::template::value::IntType;

    fn check(cases: &[(&str, &[Value<'_>], &str)]) {
        for (format, arguments, expected) in cases {
            let text = printf(format.as_bytes(), arguments).expect(format);
            assert_eq!(String::from_utf8_lossy(&text), *expected, "{format}");
        }
    }

    #[test]
    fn verbs_as_go_has_them() {
        let int = Value::int;
        check(&[
            ("%-6s|%6s|", &[Value::text("é"), Value::text("b")], "é     |     b|"),
            ("%05d %+d %x", &[int(-42), int(7), int(255)], "-0042 +7 ff"),
            ("%.2f %v %g", &[Value::Float(1.005), Value::Float(3.0), Value::Float(0.5)], "1.00 3 0.5"),
            ("%q 100%%", &[Value::text("a\"b")], "\"a\\\"b\" 100%"),
            ("%.2s", &[Value::text("日本語")], "日本"),
            ("%c|%-3c|%05c", &[int(65), int(66), int(120)], "A|B  |0000x"),
            ("%c", &[int(0x11_0000)], "\u{fffd}"),
            ("%q %q %+q", &[int(65), int(10), int(0x1_F600)], r"'A' '\n' '\U0001f600'"),
            ("%U %#U %08U", &[int(0x1_F600), int(233), int(10)], "U+1F600 U+00E9 'é'   U+000A"),
            ("%G %.3g", &[Value::Float(1e-7), Value::Float(1_234_567.0)], "1E-07 1.23e+06"),
            ("%e", &[Value::Float(0.5)], "5.000000e-01"),
            ("%#x %#X %#o %O %#b", &[int(255), int(-255), int(8), int(8), int(5)], "0xff -0XFF 010 0o10 0b101"),
            ("% d|% d|%x", &[int(5), int(-5), int(-255)], " 5|-5|-ff"),
            ("% x|%# x|%#X", &[Value::text("ab"), Value::text("ab"), Value::text("ab")], "61 62|0x61 0x62|0X6162"),
            ("%#08x|%08.3d|%-05d|%.0d|", &[int(255), int(5), int(3), int(0)], "0x000000ff|     005|3    ||"),
            ("%08.3f|%+08d|% 05d", &[Value::Float(-2.5), int(42), int(5)], "-002.500|+0000042| 0005"),
            ("%5t|%6v|%5v", &[Value::Bool(true), Value::Float(1.5), Value::Nil], " true|   1.5|<nil>"),
            ("%+q %#q", &[Value::text("é"), Value::text("ab")], "\"\\u00e9\" `ab`"),
            ("%#v", &[Value::text("a")], "\"a\""),
            ("%#v", &[Value::List(vec![int(1), Value::Nil])], "[]interface {}{1, interface {}(nil)}"),
        ]);
    }

    #[test]
    fn types_as_go_has_them() {
        let month = || Value::Int(6, IntType::Month);
        check(&[
            ("%T %T", &[Value::text(""), Value::int(1)], "string int"),
            ("%T %T", &[Value::Float(1.5), Value::Bool(true)], "float64 bool"),
            ("%T %T %5T", &[Value::int64(1), Value::Nil, Value::Int(97, IntType::Byte)], "int64 <nil> uint8"),
            ("%s %d %v", &[month(), month(), month()], "June 6 June"),
            ("%x %t", &[month(), month()], "4a756e65 %!t(time.Month=6)"),
            ("%s %s", &[Value::int(5), Value::int64(3)], "%!s(int=5) %!s(int64=3)"),
            ("%d %5d", &[Value::Float(1.5), Value::text("x")], "%!d(float64=1.5) %!d(string=    x)"),
            ("%z", &[Value::int(1)], "%!z(int=1)"),
            ("%s %d %v", &[Value::Nil, Value::Nil, Value::Nil], "%!s(<nil>) %!d(<nil>) <nil>"),
            ("%d", &[Value::List(vec![Value::int(1), Value::text("a")])], "[1 %!d(string=a)]"),
            ("%3v", &[Value::List(vec![Value::int(1)])], "[  1]"),
        ]);
        let map = || Value::Map(vec![("k".to_owned(), Value::text("x y")), ("l".to_owned(), Value::int(2))]);
        check(&[("%v %q", &[map(), map()], "map[k:x y l:2] map[\"k\":\"x y\" \"l\":'\\x02']")]);
    }

    #[test]
    fn indexes_and_stars() {
        let int = Value::int;
        check(&[
            ("%[2]s %[1]s", &[Value::text("a"), Value::text("b")], "b a"),
            ("%[1]d %d|%[2]*[1]d|", &[int(12), int(6)], "12 6|    12|"),
            ("%*d|%-*d|%*s|", &[int(5), int(42), int(5), int(42), int(-5), Value::text("ab")], "   42|42   |ab   |"),
            ("%.*f|%.*s", &[int(1), Value::Float(2.25), int(2), Value::text("abc")], "2.2|ab"),
            ("%[1]*.[2]*[3]f|", &[int(8), int(2), Value::Float(2.5)], "    2.50|"),
            ("%*d", &[Value::text("a"), int(4)], "%!(BADWIDTH)4"),
            ("%.*d|%.*d", &[Value::text("a"), int(4), int(-1), int(4)], "%!(BADPREC)4|%!(BADPREC)4"),
            ("%[3]d|%[x]d|%[]d|%[1]5d", &[int(1)], "%!d(BADINDEX)|%!d(BADINDEX)|%!d(BADINDEX)|%!d(BADINDEX)"),
        ]);
    }

    #[test]
    fn formats_that_do_not_fit() {
        let int = Value::int;
        check(&[
            ("%s", &[], "%!s(MISSING)"),
            ("a", &[int(1), Value::Float(2.5), Value::Nil], "a%!(EXTRA int=1, float64=2.5, <nil>)"),
            ("%[1]d", &[int(1), int(2)], "1"),
            ("%", &[], "%!(NOVERB)"),
            ("%d%", &[int(1)], "1%!(NOVERB)"),
            ("%é %5%", &[int(3)], "%!é(int=3) %"),
            ("%99999999d", &[int(1)], "%!(NOVERB)%!(EXTRA int=1)"),
        ]);
        assert!(printf(b"%1000000d%1000000d", &[int(1), int(1)]).is_err_and(|why| why.contains("more than")));
    }
}
