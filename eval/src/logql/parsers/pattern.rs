//! Lines that follow a pattern of texts and captures.

use std::borrow::Cow;

use tidemill_lang::logql::pattern::{Pattern, PatternPart};

use super::{Line, Required};
use crate::logql::labels::RowLabels;

/// Makes labels of the named captures. A line that does not begin with the pattern's first text gives none; a text that is missing
/// further on ends the capture before it at the line's end.
pub(in crate::logql) fn parse_pattern<'a>(
    line: Line<'_, 'a>,
    labels: &mut RowLabels<'a>,
    pattern: &Pattern,
    required: &Required,
) {
    let mut rest = line.text();
    let mut parts = pattern.parts.iter().peekable();
    if let Some(PatternPart::Literal(first)) = parts.peek() {
        let Some(behind) = rest.strip_prefix(first.as_str()) else { return };
        rest = behind;
        parts.next();
    }
    if rest.is_empty() {
        return;
    }
    while let Some(PatternPart::Capture(name)) = parts.next() {
        let (value, behind) = match parts.next() {
            Some(PatternPart::Literal(literal)) => match rest.find(literal.as_str()) {
                Some(at) => (&rest[..at], Some(&rest[at + literal.len()..])),
                None => (rest, None),
            },
            _ => (rest, None),
        };
        if let Some(name) = name.as_ref().filter(|name| required.needs(name)) {
            labels.add_parsed(Cow::Owned(name.clone()), line.part(value));
        }
        match behind {
            Some(behind) => rest = behind,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use tidemill_lang::logql::pattern::parse_parser_pattern;

    use super::*;

    fn labels(pattern: &str, line: &str) -> String {
        let mut labels = RowLabels::default();
        let pattern = parse_parser_pattern(pattern).expect("a pattern");
        parse_pattern(line.into(), &mut labels, &pattern, &Required::All);
        labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn captures_end_at_the_next_text() {
        assert_eq!(labels("<a> <b>", "x y z"), "a=x,b=y z");
        assert_eq!(labels("<a> <b>", "x"), "a=x");
        assert_eq!(labels("job <id> done", "the job 5 done"), "");
        assert_eq!(labels("job <id> done", "job 5 done now"), "id=5");
        assert_eq!(labels("<_>: <x>", "k: v"), "x=v");
    }
}
