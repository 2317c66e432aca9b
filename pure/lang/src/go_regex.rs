//! Regular expressions as users of Prometheus, Loki and Tempo write them (Go's syntax), turned into what the `regex` crate reads.
//!
//! Source of the syntax: the package `regexp/syntax` of Go. The crate reads most of it alike; different are: a `{` that begins no
//! repetition, which is itself; the classes `\d`, `\w`, `\s` and the boundary `\b`, which are ASCII; what stands in brackets (no
//! operators of sets, `-` after a class); quotes `\Q…\E`; octal escapes; repetitions of repetitions. `\B` is that of Unicode here.

/// A text as a pattern that fits it alone.
pub use regex::escape as escape_regex;

use crate::WholePattern;

/// The most bytes that a compiled expression may take.
pub const REGEX_LIMIT_BYTES: usize = 10 << 20;
/// The most that a repetition may count to.
const MOST_REPEATS: u32 = 1_000;
/// The classes of POSIX.
const NAMED_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// Compiles `pattern`.
///
/// # Errors
/// Why it is no regular expression, or that it is too large.
pub fn compile_regex(pattern: &str) -> Result<regex::Regex, String> {
    compile(&translate(pattern)?)
}

/// Compiles `pattern` so that it must fit a whole value; its dot fits any character.
///
/// # Errors
/// As [`compile_regex`].
pub fn compile_anchored_regex(pattern: &str) -> Result<regex::Regex, String> {
    compile(&format!("^(?s:{})$", translate(pattern)?))
}

/// `pattern`, which must fit a whole value.
///
/// # Errors
/// As [`compile_regex`].
pub fn whole_pattern(pattern: &str) -> Result<WholePattern, String> {
    WholePattern::new(pattern, compile_anchored_regex)
}

fn compile(translated: &str) -> Result<regex::Regex, String> {
    regex::RegexBuilder::new(translated).size_limit(REGEX_LIMIT_BYTES).build().map_err(|error| {
        let text = error.to_string();
        text.lines().last().unwrap_or("invalid").trim_start_matches("error: ").to_owned()
    })
}

/// `pattern` in the syntax of the `regex` crate.
fn translate(pattern: &str) -> Result<String, String> {
    let mut translation =
        Translation { rest: pattern, done: String::with_capacity(pattern.len()), last: Last::Nothing, groups: 0 };
    while let Some(next) = translation.next() {
        translation.step(next)?;
    }
    if translation.groups > 0 {
        return Err(format!("missing closing ): `{pattern}`"));
    }
    Ok(translation.done)
}

/// What a repetition would repeat.
#[derive(Clone, Copy, PartialEq)]
enum Last {
    Nothing,
    Something,
    Repetition,
}

struct Translation<'p> {
    rest: &'p str,
    done: String,
    last: Last,
    groups: usize,
}

impl<'p> Translation<'p> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn skip(&mut self, prefix: &str) -> bool {
        self.rest.strip_prefix(prefix).map(|rest| self.rest = rest).is_some()
    }

    fn step(&mut self, next: char) -> Result<(), String> {
        match next {
            '\\' => return self.escape(),
            '[' => self.class()?,
            '(' => return self.group(),
            ')' => {
                self.groups = self.groups.checked_sub(1).ok_or("unexpected )")?;
                self.done.push(')');
            }
            '|' => {
                self.done.push('|');
                self.last = Last::Nothing;
                return Ok(());
            }
            '*' | '+' | '?' => return self.repeat(next.encode_utf8(&mut [0; 4])),
            '{' => match repetition(self.rest) {
                Some(inside) => {
                    let inside = inside?;
                    self.rest = &self.rest[inside.len()..];
                    return self.repeat(&format!("{{{inside}"));
                }
                None => self.literal('{'),
            },
            '^' | '$' | '.' => self.done.push(next),
            _ => self.literal(next),
        }
        self.last = Last::Something;
        Ok(())
    }

    /// A character that stands for itself, in brackets as well.
    fn literal(&mut self, character: char) {
        if character.is_ascii_punctuation() && !"<>".contains(character) {
            self.done.push('\\');
        }
        self.done.push(character);
    }

    fn repeat(&mut self, operator: &str) -> Result<(), String> {
        match self.last {
            Last::Nothing => return Err(format!("missing argument to repetition operator: `{operator}`")),
            Last::Repetition => return Err(format!("invalid nested repetition operator: `{operator}`")),
            Last::Something => {}
        }
        self.done.push_str(operator);
        if self.skip("?") {
            self.done.push('?');
        }
        self.last = Last::Repetition;
        Ok(())
    }

    /// After `(`.
    fn group(&mut self) -> Result<(), String> {
        self.last = Last::Nothing;
        self.done.push('(');
        if !self.skip("?") {
            self.groups += 1;
            return Ok(());
        }
        self.done.push('?');
        if self.skip("P<") || (!self.rest.starts_with("<=") && !self.rest.starts_with("<!") && self.skip("<")) {
            let Some((name, rest)) = self.rest.split_once('>') else { return Err("invalid named capture".to_owned()) };
            self.done.push_str(&format!("P<{name}>"));
            (self.rest, self.groups) = (rest, self.groups + 1);
            return Ok(());
        }
        let flags = self.rest.find(|flag: char| !"imsU-".contains(flag)).unwrap_or(self.rest.len());
        let (flags, rest) = self.rest.split_at(flags);
        self.done.push_str(flags);
        self.rest = rest;
        match self.next() {
            Some(':') => {
                self.done.push(':');
                self.groups += 1;
            }
            Some(')') => self.done.push(')'),
            _ => return Err(format!("invalid or unsupported Perl syntax: `(?{flags}`")),
        }
        Ok(())
    }

    /// After `\`, outside of brackets.
    fn escape(&mut self) -> Result<(), String> {
        if self.skip("Q") {
            let (quoted, rest) = self.rest.split_once("\\E").unwrap_or((self.rest, ""));
            quoted.chars().for_each(|character| self.literal(character));
            if !quoted.is_empty() {
                self.last = Last::Something;
            }
            self.rest = rest;
            return Ok(());
        }
        self.last = Last::Something;
        for (name, translated) in [("A", "\\A"), ("z", "\\z"), ("b", "(?-u:\\b)"), ("B", "\\B")] {
            if self.skip(name) {
                self.done.push_str(translated);
                return Ok(());
            }
        }
        if !self.named_class()? {
            let character = self.escaped()?;
            self.literal(character);
        }
        Ok(())
    }

    /// After `\`: the class that it names, if it does.
    fn named_class(&mut self) -> Result<bool, String> {
        for (name, class) in [
            ("d", "[0-9]"),
            ("D", "[^0-9]"),
            ("w", "[0-9A-Za-z_]"),
            ("W", "[^0-9A-Za-z_]"),
            ("s", "[\\t\\n\\x0c\\r\\x20]"),
            ("S", "[^\\t\\n\\x0c\\r\\x20]"),
        ] {
            if self.skip(name) {
                self.done.push_str(class);
                return Ok(true);
            }
        }
        let is_negated = if self.skip("p") {
            false
        } else if self.skip("P") {
            true
        } else {
            return Ok(false);
        };
        let wrong = || "invalid character class range".to_owned();
        let name = if self.skip("{") {
            let (name, rest) = self.rest.split_once('}').ok_or_else(wrong)?;
            self.rest = rest;
            name
        } else {
            let name = self.rest;
            let end = self.next().ok_or_else(wrong)?.len_utf8();
            &name[..end]
        };
        let (name, is_negated) = name.strip_prefix('^').map_or((name, is_negated), |name| (name, !is_negated));
        if name.is_empty() || !name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
            return Err(wrong());
        }
        self.done.push_str(&format!("\\{}{{{name}}}", if is_negated { 'P' } else { 'p' }));
        Ok(true)
    }

    /// After `\`: the character that it stands for.
    fn escaped(&mut self) -> Result<char, String> {
        let name = self.next().ok_or("trailing backslash at end of expression")?;
        let wrong = || format!("invalid escape sequence: `\\{name}`");
        let is_octal = |character: char| ('0'..='7').contains(&character);
        let code = match name {
            'a' => 0x07,
            'f' => 0x0c,
            'n' => 0x0a,
            'r' => 0x0d,
            't' => 0x09,
            'v' => 0x0b,
            // One digit but zero would be a reference to a group, which there is not.
            '1'..='7' if !self.rest.starts_with(is_octal) => return Err(wrong()),
            '0'..='7' => {
                let more = self.rest.chars().take(2).take_while(|digit| is_octal(*digit)).count();
                let (digits, rest) = self.rest.split_at(more);
                self.rest = rest;
                u32::from_str_radix(&format!("{name}{digits}"), 8).map_err(|_| wrong())?
            }
            'x' => {
                let (digits, rest) = match self.rest.strip_prefix('{') {
                    Some(inside) => inside.split_once('}').ok_or_else(wrong)?,
                    None => self.rest.split_at_checked(2).ok_or_else(wrong)?,
                };
                self.rest = rest;
                u32::from_str_radix(digits, 16).map_err(|_| wrong())?
            }
            _ if name.is_ascii() && !name.is_ascii_alphanumeric() => return Ok(name),
            _ => return Err(wrong()),
        };
        char::from_u32(code).ok_or_else(wrong)
    }

    /// After `[`.
    fn class(&mut self) -> Result<(), String> {
        let class = self.rest;
        let unclosed = || format!("missing closing ]: `[{class}`");
        self.done.push('[');
        if self.skip("^") {
            self.done.push('^');
        }
        let mut is_first = true;
        while is_first || !self.skip("]") {
            is_first = false;
            if self.rest.is_empty() {
                return Err(unclosed());
            }
            if self.posix_class()? {
                continue;
            }
            if let Some(behind) = self.rest.strip_prefix('\\') {
                let before = std::mem::replace(&mut self.rest, behind);
                if self.named_class()? {
                    continue;
                }
                self.rest = before;
            }
            let from = self.class_character().ok_or_else(unclosed)??;
            self.class_literal(from);
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.skip("-");
                let to = self.class_character().ok_or_else(unclosed)??;
                if to < from {
                    return Err(format!("invalid character class range: `{from}-{to}`"));
                }
                self.done.push('-');
                self.class_literal(to);
            }
        }
        self.done.push(']');
        Ok(())
    }

    /// A class such as `[:alpha:]`, in brackets.
    fn posix_class(&mut self) -> Result<bool, String> {
        let Some((name, rest)) = self.rest.strip_prefix("[:").and_then(|inside| inside.split_once(":]")) else {
            return Ok(false);
        };
        if !NAMED_CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(format!("invalid character class range: `[:{name}:]`"));
        }
        self.done.push_str(&format!("[:{name}:]"));
        self.rest = rest;
        Ok(true)
    }

    fn class_character(&mut self) -> Option<Result<char, String>> {
        match self.next()? {
            '\\' => Some(self.escaped()),
            character => Some(Ok(character)),
        }
    }

    fn class_literal(&mut self, character: char) {
        if character.is_ascii_control() || character == ' ' {
            self.done.push_str(&format!("\\x{:02x}", u32::from(character)));
        } else {
            self.literal(character);
        }
    }
}

/// What stands behind a `{` that begins a repetition, with its `}`; `None` where it begins none.
fn repetition(rest: &str) -> Option<Result<&str, String>> {
    let end = rest.find('}')?;
    let (from, to) = rest[..end].split_once(',').unwrap_or((&rest[..end], &rest[..end]));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    let count = |text: &str| text.parse().unwrap_or(u32::MAX);
    if !is_number(from) || !(to.is_empty() || is_number(to)) {
        return None;
    }
    let is_wrong =
        count(from) > MOST_REPEATS || (!to.is_empty() && (count(to) > MOST_REPEATS || count(to) < count(from)));
    Some(if is_wrong { Err(format!("invalid repeat count: `{{{}`", &rest[..=end])) } else { Ok(&rest[..=end]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(pattern: &str, text: &str) -> bool {
        compile_regex(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}")).is_match(text)
    }

    #[test]
    fn classes_are_ascii_as_in_go() {
        assert!(finds("^\\d$", "7") && !finds("^\\d$", "٣") && finds("^\\D$", "٣"));
        assert!(finds("^[\\d.]+$", "1.5") && finds("^\\w$", "_") && !finds("^\\w$", "é"));
        assert!(finds("\\bé", "xé") && !finds("^\\s$", "\u{a0}"));
        assert!(finds("^\\Qa.b\\E$", "a.b") && !finds("^\\Qa.b\\E$", "axb") && finds("^\\Qa[b", "a[b"));
        assert!(finds("^[^]]$", "a") && finds("^[]a]$", "]") && finds("^[[:digit:]]$", "4") && finds("^[a[b]$", "["));
        assert!(finds("☃ \\x{1F680}$", "x ☃ 🚀") && finds("\\p{So}", "💳") && finds("(?i)NAÏVE", "naïve"));
        assert!(finds("^\\p{^So}\\pL[\\pN-]$", "xé-") && finds("^[[:^digit:]]$", "x"));
    }

    #[test]
    fn braces_are_repetitions_only_where_they_count() {
        for (pattern, text) in [
            ("{\"k", "{\"k\":1}"),
            ("^{", "{"),
            ("user{id}", "/user{id}"),
            ("a{,2}", "a{,2}"),
            ("\\${x}", "${x}"),
            ("{}", "{}"),
            ("a{", "a{"),
            ("{?(.*)", "{x"),
            ("^a{2}$", "aa"),
            ("^a{1,}?b{0,1000}$", "aaab"),
        ] {
            assert!(finds(pattern, text), "{pattern} in {text}");
        }
        assert!(!finds("^$|{", "a") && compile_anchored_regex("/api/{id}").is_ok_and(|it| it.is_match("/api/{id}")));
    }

    /// Expectations by Go 1.26: which of the texts have it.
    #[test]
    fn brackets_hold_what_they_hold_in_go() {
        for (pattern, found, not_found) in [
            ("^[\\w-.]+$", "a-b.c_9", "a b"),
            ("^[\\s-_]+$", " -_", "a"),
            ("^[\\w-~]+$", "a~-", "a|"),
            ("^[--a]+$", "-AZa]", "b"),
            ("^[a-z&&b]+$", "a&b", "A"),
            ("^[.-\\x{30}]+$", "./0", "-"),
            ("^[a[]b]$", "[b]", "ab"),
            ("^[\\]\\-\\\\]+$", "]-\\", "a"),
            ("^[ \\t#]+$", " \t#", "a"),
            ("^[~^&]+$", "~^&", "a"),
            ("^\\<abc\\>$", "<abc>", "abc"),
            ("^\\141\\0$", "a\0", "\\141"),
        ] {
            assert!(finds(pattern, found), "{pattern} in {found}");
            assert!(!finds(pattern, not_found), "{pattern} in {not_found}");
        }
    }

    #[test]
    fn bad_and_huge_patterns_are_refused() {
        for bad in [
            "[",
            "[]",
            "[^]",
            "(?P<x",
            "(",
            "a{5,2}",
            "{1}",
            "*",
            "a|*",
            "a**",
            "a++",
            "a{2}{3}",
            "a{1001}",
            "(?x)a",
            "\\u0061",
            "\\8",
            "\\1",
            "[a--b]",
            "[b-a]",
            "[[:foo:]]",
            "a)",
            "(?=a)",
            "(?<=a)",
            "\\",
            "\\p{",
            "\\p{a b}",
            "\\x{110000}",
            "[\\b]",
        ] {
            assert!(compile_regex(bad).is_err(), "{bad}");
        }
        assert!(compile_regex("((a{1000}){1000}){1000}").is_err());
        assert!(compile_anchored_regex("a)(b").is_err());
    }
}
