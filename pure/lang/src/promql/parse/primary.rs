//! Literals, parentheses, aggregations and calls.

use super::super::ast::{Aggregate, AggregateOp, Call, Expr, ExprKind, Text};
use super::super::functions::{FUNCTIONS, Function};
use super::Parser;
use crate::error::{Error, Result};
use crate::lexer::Kind;
use crate::span::Span;

impl Parser<'_> {
    /// An expression without operators and modifiers.
    pub(super) fn primary(&mut self) -> Result<Expr> {
        let token = self.peek().clone();
        if let Kind::Text(bytes) = token.kind {
            self.next();
            return Ok(Expr { kind: ExprKind::Text(Text(bytes)), span: token.span });
        }
        if token.is("(") {
            self.next();
            let inner = self.expression()?;
            let end = self.expect(")", "parentheses")?;
            return Ok(Expr { kind: ExprKind::Paren(Box::new(inner)), span: token.span.to(end) });
        }
        let is_called = self.peek_at(1).is("(");
        if token.kind == Kind::Name {
            let aggregate = AggregateOp::ALL.into_iter().find(|op| token.is_keyword(op.as_str()));
            let is_grouped = self.peek_at(1).is_keyword("by") || self.peek_at(1).is_keyword("without");
            if let Some(op) = aggregate.filter(|_| is_called || (is_grouped && self.peek_at(2).is("("))) {
                return self.aggregate(op);
            }
            if is_called {
                return self.call();
            }
        }
        if let Some(number) = self.number() {
            return Ok(Expr { kind: ExprKind::Number(number), span: token.span });
        }
        self.vector_selector()
    }

    fn aggregate(&mut self, op: AggregateOp) -> Result<Expr> {
        let start = self.next().span;
        let mut grouping = self.grouping()?;
        let mut args = self.arguments("aggregation")?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let span = Span::new(start.start, self.last_span().end);
        let (is_without, grouping) = grouping.unwrap_or_default();
        let expected = if op.param_type().is_some() { 2 } else { 1 };
        let given = args.len();
        if given == 0 {
            return Err(Error::syntax("no arguments for aggregate expression provided", span, self.source));
        }
        let refusal = || {
            let message = format!(
                "wrong number of arguments for aggregate expression provided, expected {expected}, got {given}"
            );
            Error::syntax(message, span, self.source)
        };
        if given != expected {
            return Err(refusal());
        }
        let expr = args.pop().ok_or_else(refusal)?;
        let aggregate = Aggregate { op, expr, param: args.pop(), grouping, is_without };
        Ok(Expr { kind: ExprKind::Aggregate(Box::new(aggregate)), span })
    }

    fn grouping(&mut self) -> Result<Option<(bool, Vec<String>)>> {
        let is_without = self.peek().is_keyword("without");
        if !is_without && !self.peek().is_keyword("by") {
            return Ok(None);
        }
        self.next();
        Ok(Some((is_without, self.label_names("grouping opts")?)))
    }

    fn call(&mut self) -> Result<Expr> {
        let name = self.next();
        let Some(function) = Function::find(name.text) else {
            let error = Error::syntax(format!("unknown function with name {:?}", name.text), name.span, self.source);
            return Err(error.allowing(similar(name.text)));
        };
        let args = self.arguments("function call")?;
        let span = Span::new(name.span.start, self.last_span().end);
        Ok(Expr { kind: ExprKind::Call(Call { function, args }), span })
    }

    fn arguments(&mut self, context: &str) -> Result<Vec<Expr>> {
        self.expect("(", context)?;
        let mut args = Vec::new();
        if self.takes(")") {
            return Ok(args);
        }
        loop {
            args.push(self.expression()?);
            if self.takes(")") {
                return Ok(args);
            }
            let comma = self.expect(",", context)?;
            if self.peek().is(")") {
                let message = "trailing commas not allowed in function call args";
                return Err(Error::syntax(message, comma, self.source));
            }
        }
    }
}

/// The names of functions that `name` may have meant.
fn similar(name: &str) -> Vec<String> {
    let lower = name.to_ascii_lowercase();
    let is_near = |function: &&Function| {
        function.name == lower || (lower.len() > 3 && (function.name.contains(&lower) || lower.contains(function.name)))
    };
    FUNCTIONS.iter().filter(is_near).take(5).map(|function| function.name.to_owned()).collect()
}
