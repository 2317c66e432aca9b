//! One lexer for every query language; a [`Dialect`] says what differs.
//!
//! [`Lexer::tokens`] turns a text into all its tokens at once, ending with [`Kind::End`], or refuses it at the first place that is no
//! token. Keywords are identifiers here: a parser tells them from names, since most languages let a keyword be a name somewhere.

mod cursor;
mod dialect;
mod number;
mod text;
mod token;

pub(crate) use cursor::Cursor;
pub use dialect::{Comments, Dialect, Nesting, Quotes, Unit};
pub use number::duration;
pub use token::{Kind, Token};

use crate::error::{Error, Result};
use crate::span::Span;

/// Reads one text in one dialect.
pub struct Lexer<'a> {
    source: &'a str,
    dialect: &'a Dialect,
    at: usize,
    nesting: Nesting,
}

impl<'a> Lexer<'a> {
    /// A lexer at the start of `source`.
    pub fn new(source: &'a str, dialect: &'a Dialect) -> Self {
        Self { source, dialect, at: 0, nesting: Nesting::default() }
    }

    /// All tokens of `source`, without blanks and comments; the last is [`Kind::End`].
    ///
    /// # Errors
    /// The first place that is no token of the dialect.
    pub fn tokens(source: &'a str, dialect: &'a Dialect) -> Result<Vec<Token<'a>>> {
        let mut lexer = Self::new(source, dialect);
        let mut tokens = Vec::new();
        loop {
            let token = lexer.token()?;
            let is_end = token.kind == Kind::End;
            tokens.push(token);
            if is_end {
                return Ok(tokens);
            }
        }
    }

    /// The next token; [`Kind::End`] again and again at the end.
    ///
    /// # Errors
    /// The next place is no token of the dialect.
    pub fn token(&mut self) -> Result<Token<'a>> {
        self.skip_blanks();
        let start = self.at;
        let rest = &self.source[start..];
        let Some(first) = rest.chars().next() else {
            return Ok(self.finish(start, Kind::End));
        };
        if self.dialect.quotes.opens(first) {
            let value = text::quoted(self.source, start, self.dialect)?;
            self.at = value.end;
            return Ok(self.finish(start, Kind::Text(value.bytes)));
        }
        let begins_number = first.is_ascii_digit()
            || (first == '.' && self.dialect.dot_begins_number && rest[1..].starts_with(|c: char| c.is_ascii_digit()));
        if begins_number {
            let (kind, end) = number::number(self.source, start, self.dialect)?;
            self.at = end;
            return Ok(self.finish(start, kind));
        }
        if (self.dialect.begins_name)(first, self.nesting) {
            self.at += rest.find(|c| !(self.dialect.continues_name)(c, self.nesting)).unwrap_or(rest.len());
            return Ok(self.finish(start, Kind::Name));
        }
        let longest = self.dialect.operators.iter().filter(|o| rest.starts_with(**o)).max_by_key(|o| o.len());
        let Some(operator) = longest else {
            let span = Span::new(start, start + first.len_utf8());
            return Err(Error::syntax(format!("unexpected character {first:?}"), span, self.source));
        };
        self.at += operator.len();
        self.nesting.follow(operator);
        Ok(self.finish(start, Kind::Operator(operator)))
    }

    fn finish(&self, start: usize, kind: Kind) -> Token<'a> {
        Token { kind, text: &self.source[start..self.at], span: Span::new(start, self.at) }
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = &self.source[self.at..];
            let blank = rest.len() - rest.trim_start().len();
            self.at += blank;
            let rest = &rest[blank..];
            match self.dialect.comments.len_at(rest) {
                0 => return,
                comment => self.at += comment,
            }
        }
    }
}

#[cfg(test)]
mod tests;
