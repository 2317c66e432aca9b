//! Queries that somebody is still writing, as a client sends them to be told what may come next.

use super::ast::Query;
use super::parse::parse;

/// What can be read of a filter that may be incomplete: those of its conditions that are whole, joined by `&&`. `None` where there are
/// none, or where leaving out a part could leave out spans as well: then everything meets it.
pub fn parse_incomplete(source: &str) -> Option<Query> {
    if let Ok(query) = parse(source) {
        return Some(query);
    }
    let conditions = conditions(source.trim().strip_prefix('{')?)?;
    let whole: Vec<&str> =
        conditions.into_iter().filter(|text| !text.is_empty() && parse(&format!("{{ {text} }}")).is_ok()).collect();
    if whole.is_empty() { None } else { parse(&format!("{{ {} }}", whole.join(" && "))).ok() }
}

/// What stands between `&&` in the one spanset behind `{`; `None` where there is more than that, or an alternative.
fn conditions(spanset: &str) -> Option<Vec<&str>> {
    let mut found = Vec::new();
    let (mut from, mut at) = (0, 0);
    let bytes = spanset.as_bytes();
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' | b'`' => at = quote_end(bytes, at),
            b'{' => return None,
            b'|' if bytes.get(at + 1) == Some(&b'|') => return None,
            b'&' if bytes.get(at + 1) == Some(&b'&') => {
                found.push(spanset[from..at].trim());
                at += 1;
                from = at + 1;
            }
            b'}' if spanset[at + 1..].trim().is_empty() => break,
            b'}' => return None,
            _ => {}
        }
        at += 1;
    }
    found.push(spanset[from..at.min(bytes.len())].trim());
    Some(found)
}

/// Where the quotes end that begin at a byte; the end of the text where they do not.
fn quote_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != bytes[at] {
        end += if bytes[end] == b'\\' && bytes[at] == b'"' { 2 } else { 1 };
    }
    end
}

#[cfg(test)]
mod tests {
    use super::super::print::print;
    use super::*;

    #[test]
    fn conditions_that_are_whole_count() {
        for (text, read) in [
            ("{ span.a = 1 }", Some("{ span.a = 1 }")),
            (
                "{ span.http.method =  && resource.service.name=\"front\" }",
                Some("{ resource.service.name = \"front\" }"),
            ),
            ("{ resource.service.name = \"front\" && }", Some("{ resource.service.name = \"front\" }")),
            ("{ name = \"a && } b\" && span.x =", Some("{ name = \"a && } b\" }")),
            ("{ name = `a\\` && status = error && kind", Some("{ name = \"a\\\\\" && status = error }")),
            ("{ resource.cluster = }", None),
            ("{ broken", None),
            ("{", None),
            ("", None),
            ("{ a = }  {", None),
            ("{ name = \"é", None),
            // An alternative that is left out would leave out spans.
            ("{ span.x = 1 && name = \"a\" || span.b = }", None),
            ("{ span.x = 1 } >> { span.b = }", None),
        ] {
            let read = read.map(|read| print(&parse(read).expect("a query")));
            assert_eq!(parse_incomplete(text).map(|query| print(&query)), read, "{text}");
        }
    }
}
