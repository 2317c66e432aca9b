//! Each kind of token, well and badly written.

use super::*;

const SECOND: i64 = 1_000_000_000;

const PLAIN: Dialect = Dialect {
    operators: &["{", "}", "[", "]", "(", ")", ",", "=", "==", "=~", "-", ":"],
    begins_name: |c, nesting| c.is_ascii_alphabetic() || c == '_' || (c == ':' && nesting.brackets == 0),
    continues_name: |c, nesting| c.is_ascii_alphanumeric() || c == '_' || (c == ':' && nesting.brackets == 0),
    quotes: Quotes::All,
    comments: Comments::Hash,
    dot_begins_number: true,
    radix_prefixes: true,
    durations: &[
        Unit { name: "ms", factor: SECOND / 1000 },
        Unit { name: "s", factor: SECOND },
        Unit { name: "m", factor: 60 * SECOND },
    ],
    strict_durations: true,
    sizes: &[Unit { name: "KB", factor: 1000 }],
};

fn kinds(source: &str) -> Vec<Kind> {
    let mut tokens = Lexer::tokens(source, &PLAIN).unwrap_or_else(|error| panic!("{source}: {error}"));
    assert_eq!(tokens.pop().map(|token| token.kind), Some(Kind::End));
    tokens.into_iter().map(|token| token.kind).collect()
}

fn refusal(source: &str) -> String {
    Lexer::tokens(source, &PLAIN).expect_err(source).to_string()
}

#[test]
fn names_depend_on_the_brackets_around() {
    let texts = |source| {
        let tokens = Lexer::tokens(source, &PLAIN).expect("tokens");
        tokens.iter().map(|token| token.text.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(texts("a:b[c:d]"), ["a:b", "[", "c", ":", "d", "]", ""]);
}

#[test]
fn the_longest_operator_is_taken() {
    assert_eq!(kinds("= == =~"), [Kind::Operator("="), Kind::Operator("=="), Kind::Operator("=~")]);
}

#[test]
fn numbers_in_every_radix() {
    let number = |source| match kinds(source).as_slice() {
        [Kind::Number(value)] => *value,
        other => panic!("{source}: {other:?}"),
    };
    let expected =
        [("12", 12.0), ("1.", 1.0), (".5", 0.5), ("1e3", 1e3), ("1E-3", 1e-3), ("0x1F", 31.0), ("017", 15.0)];
    for (source, value) in expected.into_iter().chain([("1_000.5", 1000.5), ("0", 0.0), ("09", 9.0)]) {
        assert_eq!(number(source), value, "{source}");
    }
    for bad in ["1_", "1__0", "1..2", "1e", "0x", "12abc", "0xfg", "1._5"] {
        assert!(refusal(bad).starts_with("1:1: bad number"), "{bad}: {}", refusal(bad));
    }
}

#[test]
fn durations_and_sizes() {
    assert_eq!(
        kinds("5m 1m30s 15ms"),
        [Kind::Duration(300 * SECOND), Kind::Duration(90 * SECOND), Kind::Duration(SECOND * 15 / 1000)]
    );
    assert_eq!(kinds("1.5kb"), [Kind::Bytes(1500.0)]);
    assert_eq!(refusal("1s1m"), "1:1: not a valid duration: \"1s1m\"");
    assert_eq!(refusal("1.5s"), "1:1: not a valid duration: \"1.5s\"");
    assert_eq!(refusal("999999999999999m"), "1:1: duration out of range");
    assert_eq!(refusal("1m30"), "1:1: bad duration syntax: \"1m30\"");
}

#[test]
fn texts_and_escapes() {
    let text = |source| match kinds(source).as_slice() {
        [Kind::Text(bytes)] => bytes.clone(),
        other => panic!("{source}: {other:?}"),
    };
    assert_eq!(text(r#""a\n\"\x41\101\u00e9\U0001F600""#), "a\n\"AAé😀".as_bytes());
    assert_eq!(text(r#"'it\'s'"#), b"it's");
    assert_eq!(text("`a\\n\n`"), b"a\\n\n");
    assert_eq!(text(r#""\xff""#), [0xff]);
    assert_eq!(refusal("x\"abc"), "1:2: unterminated quoted string");
    assert_eq!(refusal("\"a\nb\""), "1:1: unterminated quoted string");
    assert_eq!(refusal(r#""\q""#), "1:2: unknown escape sequence `\\q`");
    assert_eq!(refusal(r#""\'""#), "1:2: unknown escape sequence `\\'`");
    assert_eq!(refusal(r#""\ud800""#), "1:2: escape sequence is no Unicode character");
    assert_eq!(refusal(r#""\x4""#), "1:2: an escape sequence of this kind has 2 digits in base 16");
}

#[test]
fn comments_and_unknown_characters() {
    assert_eq!(kinds("a # b \"c\n, # d"), [Kind::Name, Kind::Operator(",")]);
    assert_eq!(refusal("a ü"), "1:3: unexpected character 'ü'");
}
