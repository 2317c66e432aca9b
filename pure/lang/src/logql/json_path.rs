//! Paths into JSON documents: `a.b[0]["c d"]`.

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathStep {
    /// Into the member of an object.
    Field(String),
    /// Into the element of an array, from 0.
    Index(usize),
}

/// Reads a path. Fields are `a-zA-Z0-9_` after the first letter; others stand in brackets and double quotes.
///
/// # Errors
/// The byte at which it is no path, and why.
pub fn parse_path(text: &str) -> Result<Vec<PathStep>, (usize, String)> {
    let mut steps = Vec::new();
    let mut at = 0;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'[' => {
                let (step, end) = bracket(text, at)?;
                steps.push(step);
                at = end;
            }
            b'.' if !steps.is_empty() => {
                let (step, end) = field(text, at + 1)?;
                steps.push(step);
                at = end;
            }
            _ if steps.is_empty() => {
                let (step, end) = field(text, at)?;
                steps.push(step);
                at = end;
            }
            _ => return Err((at, format!("unexpected {:?} in a path", char_at(text, at)))),
        }
    }
    if steps.is_empty() { Err((0, "an empty path".to_owned())) } else { Ok(steps) }
}

fn char_at(text: &str, at: usize) -> char {
    text[at..].chars().next().unwrap_or(' ')
}

fn field(text: &str, start: usize) -> Result<(PathStep, usize), (usize, String)> {
    let rest = &text[start..];
    let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    if length == 0 || rest.starts_with(|c: char| c.is_ascii_digit()) {
        return Err((start, "expected a field's name".to_owned()));
    }
    Ok((PathStep::Field(rest[..length].to_owned()), start + length))
}

fn bracket(text: &str, start: usize) -> Result<(PathStep, usize), (usize, String)> {
    let rest = &text[start + 1..];
    let (step, length) = if let Some(quoted) = rest.strip_prefix('"') {
        let end = quoted.find('"').ok_or((start, "unterminated field name".to_owned()))?;
        (PathStep::Field(quoted[..end].to_owned()), end + 2)
    } else {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let index = rest[..digits]
            .parse()
            .map_err(|_| (start + 1, "expected an index or a name in double quotes".to_owned()))?;
        (PathStep::Index(index), digits)
    };
    if !rest[length..].starts_with(']') {
        return Err((start + 1 + length, "expected `]`".to_owned()));
    }
    Ok((step, start + length + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_fields_and_indexes() {
        let field = |name: &str| PathStep::Field(name.to_owned());
        assert_eq!(parse_path("a.b_1"), Ok(vec![field("a"), field("b_1")]));
        assert_eq!(parse_path("[1]"), Ok(vec![PathStep::Index(1)]));
        assert_eq!(parse_path("x[0][\"c d\"].e"), Ok(vec![field("x"), PathStep::Index(0), field("c d"), field("e")]));
    }

    #[test]
    fn what_is_no_path_is_refused_with_its_place() {
        let places = [("", 0), ("a[", 2), ("a['x']", 2), ("a..b", 2), ("a b", 1), ("a[\"x", 1), ("1a", 0), ("a[1", 3)];
        for (text, at) in places {
            assert_eq!(parse_path(text).expect_err(text).0, at, "{text}");
        }
    }
}
