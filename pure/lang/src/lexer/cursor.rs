//! A place among the tokens of a query, from which parsers read on.

use super::{Dialect, Lexer, Token};
use crate::error::{Error, Result};
use crate::span::Span;

/// The longest query that is read, in bytes.
const QUERY_LIMIT_BYTES: usize = 128 << 10;

/// Tokens, the next of them, and how deep the parser stands.
pub(crate) struct Cursor<'a> {
    pub(crate) source: &'a str,
    tokens: Vec<Token<'a>>,
    at: usize,
    depth: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the first token.
    ///
    /// # Errors
    /// The query is too long, or not made of the dialect's tokens.
    pub(crate) fn new(source: &'a str, dialect: &'a Dialect) -> Result<Self> {
        if source.len() > QUERY_LIMIT_BYTES {
            let message = format!("a query of {} bytes; at most {QUERY_LIMIT_BYTES} are read", source.len());
            return Err(Error::syntax(message, Span::at(0), source));
        }
        Ok(Self { source, tokens: Lexer::tokens(source, dialect)?, at: 0, depth: 0 })
    }

    pub(crate) fn peek(&self) -> &Token<'a> {
        self.peek_at(0)
    }

    /// The token `ahead` places further on; the end where there is none.
    pub(crate) fn peek_at(&self, ahead: usize) -> &Token<'a> {
        self.tokens.get(self.at + ahead).unwrap_or(&self.tokens[self.tokens.len() - 1])
    }

    pub(crate) fn next(&mut self) -> Token<'a> {
        let token = self.peek().clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    /// Takes the operator if it comes next.
    pub(crate) fn takes(&mut self, operator: &str) -> bool {
        let is_next = self.peek().is(operator);
        if is_next {
            self.next();
        }
        is_next
    }

    /// Takes the keyword if it comes next.
    pub(crate) fn takes_keyword(&mut self, keyword: &str) -> bool {
        let is_next = self.peek().is_keyword(keyword);
        if is_next {
            self.next();
        }
        is_next
    }

    pub(crate) fn expect(&mut self, operator: &str) -> Result<Span> {
        if self.peek().is(operator) { Ok(self.next().span) } else { Err(self.unexpected([format!("`{operator}`")])) }
    }

    /// A refusal of the next token.
    pub(crate) fn unexpected<T: Into<String>>(&self, allowed: impl IntoIterator<Item = T>) -> Error {
        let token = self.peek();
        Error::syntax(format!("unexpected {}", token.description()), token.span, self.source).allowing(allowed)
    }

    /// A refusal at the next token.
    pub(crate) fn refuse(&self, message: impl Into<String>) -> Error {
        Error::syntax(message, self.peek().span, self.source)
    }

    /// Where the token stands that was taken last.
    pub(crate) fn last_span(&self) -> Span {
        self.tokens[self.at.saturating_sub(1)].span
    }

    /// The span from `start` to the last token that was taken.
    pub(crate) fn since(&self, start: Span) -> Span {
        start.to(self.last_span())
    }

    /// Goes one level deeper, until [`Cursor::leave`]; false where it would be deeper than `limit`.
    pub(crate) fn enter(&mut self, limit: usize) -> bool {
        let may_enter = self.depth < limit;
        self.depth += usize::from(may_enter);
        may_enter
    }

    /// Comes back from one level deeper.
    pub(crate) fn leave(&mut self) {
        self.depth -= 1;
    }
}
