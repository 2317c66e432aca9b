//! Operators, their precedence, and how two sides match.

use super::super::ast::{Binary, BinaryOp, Cardinality, Expr, ExprKind, Matching, Number};
use super::Parser;
use crate::error::{Error, Result};
use crate::lexer::{Kind, Token};

/// How strongly a sign binds what follows: as `*`, weaker than `^`.
const POWER: u8 = 6;

/// How many operators of like precedence may follow each other; each nests the tree by one.
const MAX_CHAIN: usize = 500;

fn operator(token: &Token<'_>) -> Option<(BinaryOp, u8)> {
    use BinaryOp::*;
    let found = match (&token.kind, token.text) {
        (Kind::Operator(_), "+") => (Add, 4),
        (Kind::Operator(_), "-") => (Subtract, 4),
        (Kind::Operator(_), "*") => (Multiply, 5),
        (Kind::Operator(_), "/") => (Divide, 5),
        (Kind::Operator(_), "%") => (Modulo, 5),
        (Kind::Operator(_), "^") => (Power, POWER),
        (Kind::Operator(_), "==") => (Equal, 3),
        (Kind::Operator(_), "!=") => (NotEqual, 3),
        (Kind::Operator(_), ">") => (Greater, 3),
        (Kind::Operator(_), "<") => (Less, 3),
        (Kind::Operator(_), ">=") => (GreaterOrEqual, 3),
        (Kind::Operator(_), "<=") => (LessOrEqual, 3),
        (Kind::Operator(_), "</") => (TrimUpper, 3),
        (Kind::Operator(_), ">/") => (TrimLower, 3),
        (Kind::Name, _) if token.is_keyword("atan2") => (Atan2, 5),
        (Kind::Name, _) if token.is_keyword("and") => (And, 2),
        (Kind::Name, _) if token.is_keyword("unless") => (Unless, 2),
        (Kind::Name, _) if token.is_keyword("or") => (Or, 1),
        _ => return None,
    };
    Some(found)
}

impl Parser<'_> {
    /// A whole expression.
    pub(super) fn expression(&mut self) -> Result<Expr> {
        self.deeper(|parser| parser.operators(1))
    }

    /// An expression of operators that bind at least as strongly as `weakest`.
    fn operators(&mut self, weakest: u8) -> Result<Expr> {
        let mut left = self.operand()?;
        let mut chained = 0;
        while let Some((op, strength)) = operator(self.peek()).filter(|(_, strength)| *strength >= weakest) {
            let op_span = self.next().span;
            chained += 1;
            if chained > MAX_CHAIN {
                let message = format!("more than {MAX_CHAIN} operators in a row");
                return Err(Error::unsupported(message, op_span, self.source));
            }
            let (returns_bool, matching) = self.matching(op)?;
            let right_weakest = if op == BinaryOp::Power { strength } else { strength + 1 };
            let right = self.deeper(|parser| parser.operators(right_weakest))?;
            let span = left.span.to(right.span);
            let binary = Binary { op, op_span, returns_bool, matching, left, right };
            left = Expr { kind: ExprKind::Binary(Box::new(binary)), span };
        }
        Ok(left)
    }

    /// A sign with its operand, or an expression with its modifiers.
    fn operand(&mut self) -> Result<Expr> {
        let sign = self.peek().clone();
        if !(sign.is("-") || sign.is("+")) {
            return self.modified();
        }
        self.next();
        let is_negative = sign.is("-");
        let expr = self.deeper(|parser| parser.operators(POWER))?;
        let span = sign.span.to(expr.span);
        if let ExprKind::Number(number) = expr.kind {
            let value = if is_negative { -number.value } else { number.value };
            return Ok(Expr { kind: ExprKind::Number(Number { value, ..number }), span });
        }
        Ok(Expr { kind: ExprKind::Unary { is_negative, expr: Box::new(expr) }, span })
    }

    /// `bool`, `on`, `ignoring`, `group_left`, `group_right` and the fill modifiers.
    fn matching(&mut self, op: BinaryOp) -> Result<(bool, Matching)> {
        let returns_bool = self.takes_keyword("bool");
        let cardinality = if op.is_set() { Cardinality::ManyToMany } else { Cardinality::OneToOne };
        let mut matching = Matching { cardinality, ..Matching::default() };
        let is_on = self.peek().is_keyword("on");
        if is_on || self.peek().is_keyword("ignoring") {
            self.next();
            matching.is_on = is_on;
            matching.labels = self.label_names("grouping opts")?;
            let is_left = self.peek().is_keyword("group_left");
            if is_left || self.peek().is_keyword("group_right") {
                self.next();
                matching.cardinality = if is_left { Cardinality::ManyToOne } else { Cardinality::OneToMany };
                if self.peek().is("(") {
                    matching.include = self.label_names("grouping opts")?;
                }
            }
        }
        self.fill(&mut matching)?;
        Ok((returns_bool, matching))
    }

    /// `fill(value)`, or `fill_left(value)` and `fill_right(value)` in any order; names unless a parenthesis follows.
    fn fill(&mut self, matching: &mut Matching) -> Result<()> {
        let is_fill = |parser: &Self, name| parser.peek().is_keyword(name) && parser.peek_at(1).is("(");
        if is_fill(self, "fill") {
            self.next();
            let value = self.fill_value()?;
            matching.fill_left = Some(value);
            matching.fill_right = Some(value);
            return Ok(());
        }
        loop {
            if matching.fill_left.is_none() && is_fill(self, "fill_left") {
                self.next();
                matching.fill_left = Some(self.fill_value()?);
            } else if matching.fill_right.is_none() && is_fill(self, "fill_right") {
                self.next();
                matching.fill_right = Some(self.fill_value()?);
            } else {
                return Ok(());
            }
        }
    }

    fn fill_value(&mut self) -> Result<f64> {
        self.expect("(", "fill modifier")?;
        let value = self.signed_number("fill modifier")?;
        self.expect(")", "fill modifier")?;
        Ok(value)
    }

    /// A number with or without a sign.
    pub(super) fn signed_number(&mut self, context: &str) -> Result<f64> {
        let is_negative = self.peek().is("-");
        if is_negative || self.peek().is("+") {
            self.next();
        }
        let Some(number) = self.number() else { return Err(self.unexpected(context, ["number"])) };
        Ok(if is_negative { -number.value } else { number.value })
    }

    /// A number or a duration, if one is next.
    pub(super) fn number(&mut self) -> Option<Number> {
        let token = self.peek();
        let number = match token.kind {
            Kind::Number(value) => Number { value, is_duration: false },
            Kind::Duration(nanoseconds) => Number { value: nanoseconds as f64 / 1e9, is_duration: true },
            Kind::Name if token.is_keyword("inf") => Number { value: f64::INFINITY, is_duration: false },
            Kind::Name if token.is_keyword("nan") => Number { value: f64::NAN, is_duration: false },
            _ => return None,
        };
        self.next();
        Some(number)
    }

    /// A list of label names in parentheses.
    pub(super) fn label_names(&mut self, context: &str) -> Result<Vec<String>> {
        self.expect("(", context)?;
        let mut names = Vec::new();
        loop {
            if self.takes(")") {
                return Ok(names);
            }
            let token = self.peek().clone();
            match self.text(&token)? {
                Some(name) if !name.is_empty() => names.push(name),
                None if token.kind == Kind::Name && !token.text.contains(':') => names.push(token.text.to_owned()),
                _ => return Err(self.unexpected(context, ["label"])),
            }
            self.next();
            if !self.peek().is(")") {
                self.expect(",", context)?;
            }
        }
    }
}
