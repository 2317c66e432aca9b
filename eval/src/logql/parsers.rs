//! Parsers: what they find in a line becomes labels.
//!
//! Each takes the line with its lifetime where the line is still the batch's own, so that most labels borrow from it.

mod json;
mod logfmt;
mod pattern;

use std::borrow::Cow;

pub(super) use json::{JsonPaths, parse_json, parse_json_paths, unpack};
pub(super) use logfmt::{LogfmtOptions, parse_logfmt};
pub(super) use pattern::parse_pattern;

/// Which labels the rest of a query needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Required {
    /// Any.
    All,
    /// These.
    Some(Vec<String>),
}

impl Required {
    /// Whether a parser need not look at all.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Some(names) if names.is_empty())
    }

    /// Whether the label is needed, under its own name or as `…_extracted`.
    pub fn needs(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names.iter().any(|own| own == name || own.strip_suffix("_extracted") == Some(name)),
        }
    }

    /// Whether some needed label begins with `prefix` and an underscore.
    pub fn needs_below(&self, prefix: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) => names
                .iter()
                .any(|own| own.len() > prefix.len() && own.starts_with(prefix) && own.as_bytes()[prefix.len()] == b'_'),
        }
    }

    /// How many labels are needed; none that a line cannot have more of.
    pub fn count(&self) -> usize {
        match self {
            Self::All => usize::MAX,
            Self::Some(names) => names.len(),
        }
    }
}

/// `key` as a label's name: what is not a letter, digit or underscore becomes an underscore, and one goes before a leading digit.
pub(super) fn sanitized(key: Cow<'_, str>) -> Cow<'_, str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let leads_with_digit = key.starts_with(|c: char| c.is_ascii_digit());
    if !leads_with_digit && key.chars().all(fits) {
        return key;
    }
    let mut name = String::with_capacity(key.len() + 1);
    if leads_with_digit {
        name.push('_');
    }
    name.extend(key.chars().map(|c| if fits(c) { c } else { '_' }));
    Cow::Owned(name)
}

/// A line, which parts of it may outlive where it is the batch's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'l, 'a> {
    text: &'l str,
    batch_text: Option<&'a str>,
}

impl<'l, 'a> From<&'l Cow<'a, str>> for Line<'l, 'a> {
    fn from(line: &'l Cow<'a, str>) -> Self {
        match line {
            Cow::Borrowed(text) => Self { text, batch_text: Some(text) },
            Cow::Owned(text) => Self { text, batch_text: None },
        }
    }
}

impl<'a> From<&'a str> for Line<'a, 'a> {
    fn from(text: &'a str) -> Self {
        Self { text, batch_text: Some(text) }
    }
}

impl<'l, 'a> Line<'l, 'a> {
    /// The line's text.
    pub fn text(self) -> &'l str {
        self.text
    }

    /// A part of the line: borrowed where the line is the batch's own.
    pub fn part(self, text: &str) -> Cow<'a, str> {
        let borrowed = self.batch_text.and_then(|whole| {
            let start = (text.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
            whole.get(start..start.wrapping_add(text.len()))
        });
        borrowed.map_or_else(|| Cow::Owned(text.to_owned()), Cow::Borrowed)
    }
}
