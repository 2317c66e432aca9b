//! From text to tree. Start with [`parse`]; one file per part of the grammar.

mod binary;
mod length;
mod modifier;
mod primary;
mod selector;

use std::ops::{Deref, DerefMut};

use super::ast::{Expr, ExprKind, MatchOp, Selector};
use super::check::{check, check_not_all};
use super::dialect::DIALECT;
use crate::error::{Error, Result};
use crate::lexer::{Cursor, Kind, Token};
use crate::span::Span;

/// How deep expressions may nest.
const MAX_DEPTH: usize = 100;

/// Reads and checks a query.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(source: &str) -> Result<Expr> {
    let mut parser = Parser::new(source)?;
    if parser.peek().kind == Kind::End {
        return Err(Error::syntax("no expression found in input", Span::at(0), source));
    }
    let expr = parser.expression()?;
    parser.end()?;
    check(&expr, source)?;
    check_not_all(&expr, source)?;
    Ok(expr)
}

/// Reads and checks a lone selector without time modifiers.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse_selector(source: &str) -> Result<Selector> {
    let mut parser = Parser::new(source)?;
    let expr = parser.vector_selector()?;
    parser.end()?;
    check(&expr, source)?;
    check_not_all(&expr, source)?;
    match expr.kind {
        ExprKind::Vector(selector) => Ok(selector),
        _ => Err(Error::syntax("expected a selector", expr.span, source)),
    }
}

/// Reads the labels of one series, written as a selector of equalities: `name{label="value"}`.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse_series(source: &str) -> Result<Vec<(String, String)>> {
    let mut parser = Parser::new(source)?;
    if parser.peek().kind == Kind::End {
        return Ok(Vec::new());
    }
    let expr = parser.vector_selector()?;
    parser.end()?;
    let ExprKind::Vector(selector) = expr.kind else {
        return Err(Error::syntax("expected a series", expr.span, source));
    };
    let mut labels: Vec<(String, String)> =
        selector.name.map(|name| ("__name__".to_owned(), name)).into_iter().collect();
    for matcher in selector.matchers {
        if matcher.op != MatchOp::Equal {
            return Err(Error::syntax("unexpected operator in a series", matcher.span, source).allowing(["`=`"]));
        }
        labels.push((matcher.name, matcher.value));
    }
    Ok(labels)
}

/// Reads what a cursor comes to.
pub(super) struct Parser<'a>(Cursor<'a>);

impl<'a> Deref for Parser<'a> {
    type Target = Cursor<'a>;

    fn deref(&self) -> &Cursor<'a> {
        &self.0
    }
}

impl DerefMut for Parser<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<'a> Parser<'a> {
    fn new(source: &'a str) -> Result<Self> {
        Cursor::new(source, &DIALECT).map(Self)
    }

    fn expect(&mut self, operator: &str, context: &str) -> Result<Span> {
        if self.peek().is(operator) {
            return Ok(self.next().span);
        }
        Err(self.unexpected(context, [format!("`{operator}`")]))
    }

    fn end(&self) -> Result<()> {
        if self.peek().kind == Kind::End { Ok(()) } else { Err(self.unexpected("", ["end of input"])) }
    }

    fn unexpected<T: Into<String>>(&self, context: &str, allowed: impl IntoIterator<Item = T>) -> Error {
        let token = self.peek();
        let place = if context.is_empty() { String::new() } else { format!(" in {context}") };
        Error::syntax(format!("unexpected {}{place}", token.description()), token.span, self.source).allowing(allowed)
    }

    /// Runs `inner` one level deeper.
    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if !self.enter(MAX_DEPTH) {
            let message = format!("expressions nest deeper than {MAX_DEPTH} levels");
            return Err(Error::unsupported(message, self.peek().span, self.source));
        }
        let result = inner(self);
        self.leave();
        result
    }

    /// The UTF-8 text of a quoted token.
    fn text(&self, token: &Token<'a>) -> Result<Option<String>> {
        let Kind::Text(bytes) = &token.kind else { return Ok(None) };
        match String::from_utf8(bytes.clone()) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Error::unsupported("a string that is not UTF-8", token.span, self.source)),
        }
    }
}
