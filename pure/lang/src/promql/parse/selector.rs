//! Selectors: a name, conditions in braces, or both.

use super::super::ast::{Expr, ExprKind, LabelMatcher, MatchOp, Selector, When};
use super::Parser;
use crate::error::{Error, Result};
use crate::go_regex::whole_pattern;
use crate::lexer::Kind;
use crate::span::Span;

/// Keywords that name no metric outside of braces.
const RESERVED: [&str; 8] = ["bool", "on", "ignoring", "group_left", "group_right", "atan2", "inf", "nan"];

impl Parser<'_> {
    /// A selector without modifiers.
    pub(super) fn vector_selector(&mut self) -> Result<Expr> {
        let first = self.peek().clone();
        let is_name = first.kind == Kind::Name && !RESERVED.iter().any(|keyword| first.is_keyword(keyword));
        if !is_name && !first.is("{") {
            return Err(self.unexpected("", ["expression"]));
        }
        let name = is_name.then(|| self.next().text.to_owned());
        let matchers = if self.peek().is("{") { self.matchers()? } else { Vec::new() };
        let span = Span::new(first.span.start, self.last_span().end);
        let selector = Selector { name, matchers, when: When::default(), extension: None };
        Ok(Expr { kind: ExprKind::Vector(selector), span })
    }

    fn matchers(&mut self) -> Result<Vec<LabelMatcher>> {
        self.expect("{", "label matching")?;
        let mut matchers = Vec::new();
        loop {
            if self.takes("}") {
                matchers.sort_by_cached_key(LabelMatcher::to_string);
                return Ok(matchers);
            }
            matchers.push(self.matcher()?);
            if !self.takes(",") && !self.peek().is("}") {
                return Err(self.unexpected("label matching", ["`,`", "`}`"]));
            }
        }
    }

    fn matcher(&mut self) -> Result<LabelMatcher> {
        let first = self.peek().clone();
        let quoted = self.text(&first)?;
        let name = match &quoted {
            Some(name) => name.clone(),
            None if first.kind == Kind::Name => first.text.to_owned(),
            None => return Err(self.unexpected("label matching", ["identifier", "`}`"])),
        };
        self.next();
        let ops = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Matches, MatchOp::MatchesNot];
        let Some(op) = ops.into_iter().find(|op| self.peek().is(op.as_str())) else {
            if quoted.is_some() && (self.peek().is(",") || self.peek().is("}")) {
                let op = MatchOp::Equal;
                return Ok(LabelMatcher { name: "__name__".to_owned(), op, value: name, span: first.span });
            }
            return Err(self.unexpected("label matching", ops.map(|op| format!("`{}`", op.as_str()))));
        };
        self.next();
        let token = self.peek().clone();
        let Some(value) = self.text(&token)? else {
            return Err(self.unexpected("label matching", ["string"]));
        };
        self.next();
        if matches!(op, MatchOp::Matches | MatchOp::MatchesNot)
            && let Err(error) = whole_pattern(&value)
        {
            let message = format!("invalid regular expression {value:?}: {error}");
            return Err(Error::syntax(message, token.span, self.source));
        }
        Ok(LabelMatcher { name, op, value, span: first.span.to(token.span) })
    }
}
