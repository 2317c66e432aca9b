//! Regular expressions as Loki's users write them (Go's syntax), turned into what the `regex` crate reads.
//!
//! The two agree but for the classes `\d`, `\w`, `\s` and the boundary `\b`, which are ASCII in Go, and quotes `\Q…\E`.

use crate::whole::WholePattern;

/// The most bytes that a compiled expression may take.
pub const REGEX_LIMIT_BYTES: usize = 4 << 20;

/// `pattern` in the syntax of the `regex` crate.
pub fn translate_regex(pattern: &str) -> String {
    let mut translated = String::with_capacity(pattern.len());
    let mut rest = pattern;
    let mut in_class = false;
    while let Some(next) = rest.chars().next() {
        let after = &rest[next.len_utf8()..];
        if next == '\\' {
            let Some(name) = after.chars().next() else {
                translated.push('\\');
                break;
            };
            let behind = &after[name.len_utf8()..];
            rest = behind;
            match name {
                'Q' => {
                    let (quoted, remaining) = behind.split_once("\\E").unwrap_or((behind, ""));
                    translated.push_str(&regex::escape(quoted));
                    rest = remaining;
                }
                'd' if in_class => translated.push_str("0-9"),
                'd' => translated.push_str("[0-9]"),
                'D' => translated.push_str("[^0-9]"),
                'w' if in_class => translated.push_str("0-9A-Za-z_"),
                'w' => translated.push_str("[0-9A-Za-z_]"),
                'W' => translated.push_str("[^0-9A-Za-z_]"),
                's' if in_class => translated.push_str("\\t\\n\\x0c\\r\\x20"),
                's' => translated.push_str("[\\t\\n\\x0c\\r\\x20]"),
                'S' => translated.push_str("[^\\t\\n\\x0c\\r\\x20]"),
                'b' if !in_class => translated.push_str("(?-u:\\b)"),
                _ => {
                    translated.push('\\');
                    translated.push(name);
                }
            }
            continue;
        }
        match next {
            '[' if in_class && !after.starts_with(':') => translated.push('\\'),
            '[' if !in_class => {
                in_class = true;
                translated.push('[');
                rest = after;
                for opening in ["^]", "]", "^"] {
                    if let Some(behind) = after.strip_prefix(opening) {
                        translated.push_str(&opening.replace(']', "\\]"));
                        rest = behind;
                        break;
                    }
                }
                continue;
            }
            '[' => {
                // A named class such as `[:alpha:]`.
                if let Some(end) = after.find(":]") {
                    translated.push('[');
                    translated.push_str(&after[..end + 2]);
                    rest = &after[end + 2..];
                    continue;
                }
                translated.push('\\');
            }
            ']' => in_class = false,
            '&' | '~' if in_class => translated.push('\\'),
            _ => {}
        }
        translated.push(next);
        rest = after;
    }
    translated
}

/// Compiles `pattern`, written in Go's syntax.
///
/// # Errors
/// Why it is no regular expression, or that it is too large.
pub fn compile_regex(pattern: &str) -> Result<regex::Regex, String> {
    regex::RegexBuilder::new(&translate_regex(pattern)).size_limit(REGEX_LIMIT_BYTES).build().map_err(|error| {
        let text = error.to_string();
        text.lines().last().unwrap_or("invalid").trim_start_matches("error: ").to_owned()
    })
}

/// `pattern`, which must fit a whole value.
///
/// # Errors
/// As [`compile_regex`].
pub fn whole_pattern(pattern: &str) -> Result<WholePattern, String> {
    WholePattern::new(pattern, compile_anchored_regex)
}

/// Compiles `pattern` so that it must fit a whole value.
///
/// # Errors
/// As [`compile_regex`].
pub fn compile_anchored_regex(pattern: &str) -> Result<regex::Regex, String> {
    compile_regex(pattern)?;
    compile_regex(&format!("^(?s:{pattern})$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(pattern: &str, text: &str) -> bool {
        compile_regex(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}")).is_match(text)
    }

    #[test]
    fn classes_are_ascii_as_in_go() {
        assert!(finds("^\\d$", "7") && !finds("^\\d$", "٣"));
        assert!(finds("^[\\d.]+$", "1.5") && finds("^\\w$", "_") && !finds("^\\w$", "é"));
        assert!(finds("\\bé", "xé") && !finds("^\\s$", "\u{a0}"));
        assert!(finds("^\\Qa.b\\E$", "a.b") && !finds("^\\Qa.b\\E$", "axb"));
        assert!(finds("^[^]]$", "a") && finds("^[]a]$", "]") && finds("^[[:digit:]]$", "4") && finds("^[a[b]$", "["));
        assert!(finds("☃ \\x{1F680}$", "x ☃ 🚀") && finds("\\p{So}", "💳") && finds("(?i)NAÏVE", "naïve"));
    }

    #[test]
    fn bad_and_huge_patterns_are_refused() {
        for bad in ["[", "(?P<x", "(", "a{5,2}"] {
            assert!(compile_regex(bad).is_err(), "{bad}");
        }
        assert!(compile_regex("((a{1000}){1000}){1000}").is_err());
        assert!(compile_anchored_regex("a)(b").is_err());
    }
}
