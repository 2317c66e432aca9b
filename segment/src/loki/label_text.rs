//! A stream's labels as text: `{name="value", …}`, values quoted as Go quotes them.

use std::fmt::Write as _;

use super::Labels;

/// Reads labels.
///
/// # Errors
/// Why the text is none, with its byte.
pub(super) fn parse(text: &str) -> Result<Labels, String> {
    let mut reader = Reader { text, at: 0 };
    let mut labels = Labels::new();
    reader.expect('{')?;
    while !reader.skip('}') {
        let name = reader.name()?;
        reader.expect('=')?;
        let value = reader.quoted()?;
        labels.insert(name, value);
        if !reader.skip(',') {
            reader.expect('}')?;
            break;
        }
    }
    reader.space();
    if reader.at < text.len() { Err(reader.wrong("the end")) } else { Ok(labels) }
}

/// Labels as [`parse`] reads them.
pub(super) fn print(labels: &Labels) -> String {
    let mut text = String::from("{");
    for (place, (name, value)) in labels.iter().enumerate() {
        let comma = if place == 0 { "" } else { ", " };
        // Writing to a text cannot fail.
        let _ = write!(text, "{comma}{name}={value:?}");
    }
    text.push('}');
    // It is only told, so it may be cut.
    if let Some((at, _)) = text.char_indices().nth(400) {
        text.truncate(at);
        text.push('…');
    }
    text
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn wrong(&self, expected: &str) -> String {
        format!("the labels: expected {expected} at byte {}", self.at)
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn skip(&mut self, letter: char) -> bool {
        self.space();
        let is_there = self.rest().starts_with(letter);
        if is_there {
            self.at += letter.len_utf8();
        }
        is_there
    }

    fn expect(&mut self, letter: char) -> Result<(), String> {
        if self.skip(letter) { Ok(()) } else { Err(self.wrong(&format!("{letter:?}"))) }
    }

    fn name(&mut self) -> Result<String, String> {
        self.space();
        let is_inside = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let length = self.rest().find(|letter| !is_inside(letter)).unwrap_or(self.rest().len());
        if length == 0 {
            return Err(self.wrong("a label name"));
        }
        let name = self.rest()[..length].to_owned();
        self.at += length;
        Ok(name)
    }

    fn quoted(&mut self) -> Result<String, String> {
        if self.skip('`') {
            let length = self.rest().find('`').ok_or_else(|| self.wrong("a closing quote"))?;
            let value = self.rest()[..length].to_owned();
            self.at += length + 1;
            return Ok(value);
        }
        self.expect('"')?;
        let mut bytes: Vec<u8> = Vec::new();
        loop {
            let letter = self.rest().chars().next().ok_or_else(|| self.wrong("a closing quote"))?;
            self.at += letter.len_utf8();
            match letter {
                '"' => break,
                '\\' => self.escape(&mut bytes)?,
                other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        String::from_utf8(bytes).map_err(|_| self.wrong("valid UTF-8"))
    }

    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), String> {
        let letter = self.rest().chars().next().ok_or_else(|| self.wrong("an escape"))?;
        self.at += letter.len_utf8();
        let plain = match letter {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' | '"' | '\'' => letter as u8,
            'x' => u8::try_from(self.digits(2, 16)?).map_err(|_| self.wrong("an escape"))?,
            'u' | 'U' => {
                let code = self.digits(if letter == 'u' { 4 } else { 8 }, 16)?;
                let letter = char::from_u32(code).ok_or_else(|| self.wrong("an escape of a character"))?;
                bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            '0'..='7' => {
                self.at -= 1;
                u8::try_from(self.digits(3, 8)?).map_err(|_| self.wrong("an escape"))?
            }
            _ => return Err(self.wrong("an escape")),
        };
        bytes.push(plain);
        Ok(())
    }

    fn digits(&mut self, count: usize, radix: u32) -> Result<u32, String> {
        let digits = self.rest().get(..count).ok_or_else(|| self.wrong("digits"))?;
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = u32::from_str_radix(digits, radix).ok().filter(|_| is_plain);
        let value = value.ok_or_else(|| self.wrong("digits"))?;
        self.at += count;
        Ok(value)
    }
}
