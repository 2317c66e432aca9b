//! Patterns of texts and captures: `<method> <path> <_>`.

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The pattern as written.
    pub text: String,
    /// Its parts; no two captures stand side by side.
    pub parts: Vec<PatternPart>,
}

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatternPart {
    /// This text.
    Literal(String),
    /// Any text up to the next part; kept under the name where it has one.
    Capture(Option<String>),
}

/// Reads the pattern of the stage `pattern`: at least one named capture, no name twice.
///
/// # Errors
/// Why it is none.
pub fn parse_parser_pattern(text: &str) -> Result<Pattern, String> {
    let pattern = parse(text)?;
    let mut names: Vec<&str> = Vec::new();
    for part in &pattern.parts {
        let PatternPart::Capture(Some(name)) = part else { continue };
        if names.contains(&name.as_str()) {
            return Err(format!("duplicate capture name ({name}) in {text:?}"));
        }
        names.push(name);
    }
    if names.is_empty() { Err("at least one named capture is required".to_owned()) } else { Ok(pattern) }
}

/// Reads the pattern of a line filter: no named captures.
///
/// # Errors
/// Why it is none.
pub fn parse_line_pattern(text: &str) -> Result<Pattern, String> {
    let pattern = parse(text)?;
    match pattern.parts.iter().find_map(|part| match part {
        PatternPart::Capture(Some(name)) => Some(name),
        _ => None,
    }) {
        Some(name) => Err(format!("named captures are not allowed in a line filter: <{name}>")),
        None => Ok(pattern),
    }
}

fn parse(text: &str) -> Result<Pattern, String> {
    let mut parts: Vec<PatternPart> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if let Some((name, length)) = capture(&text[at..]) {
            if matches!(parts.last(), Some(PatternPart::Capture(_))) {
                return Err(format!("consecutive captures in {text:?}"));
            }
            parts.push(PatternPart::Capture((name != "_").then(|| name.to_owned())));
            at += length;
        } else {
            let next = text[at..].chars().next().expect("at lies before the end");
            match parts.last_mut() {
                Some(PatternPart::Literal(literal)) => literal.push(next),
                _ => parts.push(PatternPart::Literal(next.to_string())),
            }
            at += next.len_utf8();
        }
    }
    Ok(Pattern { text: text.to_owned(), parts })
}

/// The name of the capture that `rest` begins with, and the capture's length.
fn capture(rest: &str) -> Option<(&str, usize)> {
    let end = rest.strip_prefix('<')?.find('>')?;
    let name = &rest[1..=end];
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then_some((name, end + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angle_brackets_without_a_name_are_text() {
        let pattern = parse_parser_pattern("<a> <1x> < <b>").expect("a pattern");
        let capture = |name: &str| PatternPart::Capture(Some(name.to_owned()));
        assert_eq!(pattern.parts, [capture("a"), PatternPart::Literal(" <1x> < ".to_owned()), capture("b")]);
    }

    #[test]
    fn refusals() {
        for bad in ["<a><b>", "<_> x <_>", "plain", "<a> <a>"] {
            assert!(parse_parser_pattern(bad).is_err(), "{bad}");
        }
        for bad in ["<_><_>", "<a> x"] {
            assert!(parse_line_pattern(bad).is_err(), "{bad}");
        }
        assert!(parse_line_pattern("").is_ok());
    }
}
