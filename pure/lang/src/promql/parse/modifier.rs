//! What follows an expression: `[range]`, `[range:step]`, `offset`, `@`, `anchored`, `smoothed`.

use super::super::ast::{At, Expr, ExprKind, Extension, LengthKind, Matrix, Selector, Subquery, When};
use super::Parser;
use crate::error::{Error, Result};
use crate::span::Span;

impl Parser<'_> {
    /// An expression with all that follows it.
    pub(super) fn modified(&mut self) -> Result<Expr> {
        let mut expr = self.primary()?;
        loop {
            if self.peek().is("[") {
                expr = self.ranged(expr)?;
            } else if self.takes_keyword("offset") {
                self.offset(&mut expr)?;
            } else if self.takes("@") {
                self.at_time(&mut expr)?;
            } else if self.takes_keyword("anchored") {
                self.extend(&mut expr, Extension::Anchored)?;
            } else if self.takes_keyword("smoothed") {
                self.extend(&mut expr, Extension::Smoothed)?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn ranged(&mut self, expr: Expr) -> Result<Expr> {
        let open = self.next().span;
        let range = self.range_length("subquery or range selector")?;
        if self.takes(":") {
            let step = if self.peek().is("]") { None } else { Some(self.range_length("subquery selector")?) };
            let end = self.expect("]", "subquery selector")?;
            let span = expr.span.to(end);
            let subquery = Subquery { expr, range, step, when: When::default() };
            return Ok(Expr { kind: ExprKind::Subquery(Box::new(subquery)), span });
        }
        if !self.peek().is("]") {
            return Err(self.unexpected("subquery or range", ["`:`", "`]`"]));
        }
        let end = self.next().span;
        let span = expr.span.to(end);
        let refused = |message: &str| Err(Error::syntax(message, open.to(end), self.source));
        match expr.kind {
            ExprKind::Vector(selector) if selector.when.offset.is_some() => {
                refused("no offset modifiers allowed before range")
            }
            ExprKind::Vector(selector) if selector.when.at.is_some() => refused("no @ modifiers allowed before range"),
            ExprKind::Vector(selector) => Ok(Expr { kind: ExprKind::Matrix(Matrix { selector, range }), span }),
            _ => refused("ranges only allowed for vector selectors"),
        }
    }

    fn offset(&mut self, expr: &mut Expr) -> Result<()> {
        let length = self.offset_length()?;
        let (end, span, source) = (self.last_span().end, expr.span, self.source);
        let Some(when) = time_of(expr) else {
            let message =
                "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery";
            return Err(Error::syntax(message, span, source));
        };
        if when.offset.is_some() {
            return Err(Error::syntax("offset may not be set multiple times", span, source));
        }
        let is_none = matches!(length.kind, LengthKind::Number(number) if number.value == 0.0);
        when.offset = Some(length).filter(|_| !is_none);
        expr.span = Span::new(span.start, end);
        Ok(())
    }

    fn at_time(&mut self, expr: &mut Expr) -> Result<()> {
        let is_start = self.peek().is_keyword("start");
        let at = if (is_start || self.peek().is_keyword("end")) && self.peek_at(1).is("(") {
            self.next();
            self.next();
            self.expect(")", "@")?;
            if is_start { At::Start } else { At::End }
        } else {
            let start = self.peek().span;
            let seconds = self.signed_number("@")?;
            let milliseconds = (seconds * 1000.0).round();
            if !seconds.is_finite() || milliseconds.abs() >= i64::MAX as f64 {
                let message = format!("timestamp out of bounds for @ modifier: {seconds}");
                return Err(Error::syntax(message, Span::new(start.start, self.last_span().end), self.source));
            }
            At::Time(milliseconds as i64)
        };
        let (end, span, source) = (self.last_span().end, expr.span, self.source);
        let Some(when) = time_of(expr) else {
            let message =
                "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery";
            return Err(Error::syntax(message, span, source));
        };
        if when.at.is_some() {
            return Err(Error::syntax("@ <timestamp> may not be set multiple times", span, source));
        }
        when.at = Some(at);
        expr.span = Span::new(span.start, end);
        Ok(())
    }

    fn extend(&mut self, expr: &mut Expr, extension: Extension) -> Result<()> {
        let word = if extension == Extension::Anchored { "anchored" } else { "smoothed" };
        let refused = |message: String| Err(Error::syntax(message, expr.span, self.source));
        let selector: &mut Selector = match &mut expr.kind {
            ExprKind::Vector(selector) => selector,
            ExprKind::Matrix(matrix) => &mut matrix.selector,
            ExprKind::Subquery(_) => return refused(format!("{word} modifier is not supported for subqueries")),
            _ => return refused(format!("{word} modifier is only supported for selectors")),
        };
        match selector.extension {
            Some(other) if other != extension => {
                return refused("anchored and smoothed modifiers cannot be used together".to_owned());
            }
            _ => selector.extension = Some(extension),
        }
        expr.span.end = self.last_span().end;
        Ok(())
    }
}

fn time_of(expr: &mut Expr) -> Option<&mut When> {
    match &mut expr.kind {
        ExprKind::Vector(selector) => Some(&mut selector.when),
        ExprKind::Matrix(matrix) => Some(&mut matrix.selector.when),
        ExprKind::Subquery(subquery) => Some(&mut subquery.when),
        _ => None,
    }
}
