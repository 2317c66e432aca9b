//! What a text is made of.

use crate::span::Span;

/// One token, with its text as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Token<'a> {
    /// What it is, with its value.
    pub kind: Kind,
    /// The text as written.
    pub text: &'a str,
    /// Where it stands.
    pub span: Span,
}

/// The kinds of token.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A name or keyword; its value is the token's text.
    Name,
    /// A number without a unit.
    Number(f64),
    /// A number (or a run of them) with units of time, in nanoseconds.
    Duration(i64),
    /// A number with a unit of size, in bytes.
    Bytes(f64),
    /// A quoted text with its escapes resolved. Escapes may name single bytes, so it need not be UTF-8.
    Text(Vec<u8>),
    /// One of the dialect's operators, brackets and separators included.
    Operator(&'static str),
    /// The end of the text.
    End,
}

impl Token<'_> {
    /// Whether it is the operator `operator`.
    pub fn is(&self, operator: &str) -> bool {
        matches!(self.kind, Kind::Operator(own) if own == operator)
    }

    /// Whether it is the keyword `keyword`, in any case.
    pub fn is_keyword(&self, keyword: &str) -> bool {
        self.kind == Kind::Name && self.text.eq_ignore_ascii_case(keyword)
    }

    /// How a message names it.
    pub fn description(&self) -> String {
        match self.kind {
            Kind::End => "end of input".to_owned(),
            Kind::Name => format!("identifier `{}`", self.text),
            Kind::Number(_) => format!("number `{}`", self.text),
            Kind::Duration(_) => format!("duration `{}`", self.text),
            Kind::Bytes(_) => format!("size `{}`", self.text),
            Kind::Text(_) => format!("string {}", self.text),
            Kind::Operator(operator) => format!("`{operator}`"),
        }
    }
}
