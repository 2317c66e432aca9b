//! Texts and characters in quotes, as Go's `strconv` writes them.

use super::text::first_letter;

/// `text` in the quotes, escaped; with `is_ascii` every letter beyond ASCII too.
pub(super) fn quoted(text: &[u8], quote: char, is_ascii: bool) -> String {
    let mut written = String::with_capacity(text.len() + 2);
    written.push(quote);
    let mut rest = text;
    while let Some((letter, length)) = first_letter(rest) {
        if length == 1 && letter == char::REPLACEMENT_CHARACTER {
            written.push_str(&format!("\\x{:02x}", rest[0]));
        } else {
            push_letter(&mut written, letter, quote, is_ascii);
        }
        rest = &rest[length..];
    }
    written.push(quote);
    written
}

/// Whether `text` can stand in backquotes as it is.
pub(super) fn can_backquote(text: &[u8]) -> bool {
    let is_plain = |letter: char| !matches!(letter, '\0'..='\u{8}' | '\n'..='\u{1f}' | '`' | '\u{7f}' | '\u{feff}');
    std::str::from_utf8(text).is_ok_and(|text| text.chars().all(is_plain))
}

/// Whether Go prints the letter as it is.
pub(super) fn is_printable(letter: char) -> bool {
    // Behind another letter, what only combines with it is printable too.
    let behind = format!("a{letter}");
    matches!(letter, '"' | '\'' | '\\') || behind.escape_debug().eq(behind.chars())
}

fn push_letter(written: &mut String, letter: char, quote: char, is_ascii: bool) {
    match letter {
        '\\' => written.push_str("\\\\"),
        '\u{7}' => written.push_str("\\a"),
        '\u{8}' => written.push_str("\\b"),
        '\u{c}' => written.push_str("\\f"),
        '\n' => written.push_str("\\n"),
        '\r' => written.push_str("\\r"),
        '\t' => written.push_str("\\t"),
        '\u{b}' => written.push_str("\\v"),
        same if same == quote => written.extend(['\\', same]),
        ' '..='~' => written.push(letter),
        other if !is_ascii && !other.is_ascii() && is_printable(other) => written.push(other),
        other => written.push_str(&match u32::from(other) {
            code @ ..0x80 => format!("\\x{code:02x}"),
            code @ 0x80..0x1_0000 => format!("\\u{code:04x}"),
            code => format!("\\U{code:08x}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_writes_them() {
        let text = "\u{1}é\u{200b}\u{a0}a\"'\t\u{7}";
        assert_eq!(quoted(text.as_bytes(), '"', false), r#""\x01é\u200b\u00a0a\"'\t\a""#);
        assert_eq!(quoted("é😀'".as_bytes(), '\'', true), r"'\u00e9\U0001f600\''");
        assert_eq!(quoted(b"a\xff", '"', false), r#""a\xff""#);
        assert!(can_backquote(b"a\tb") && !can_backquote(b"a`b") && !can_backquote(b"\n") && !can_backquote(b"\xff"));
        assert!(is_printable('é') && is_printable('\u{301}') && is_printable('"') && !is_printable('\u{7f}'));
    }
}
