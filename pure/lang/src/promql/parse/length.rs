//! Lengths of time: ranges, steps and offsets, as numbers or as expressions.

use super::super::ast::{BinaryOp, Length, LengthKind, Number};
use super::Parser;
use crate::error::{Error, Result};
use crate::span::Span;

impl Parser<'_> {
    /// The range or step of a selector or subquery: any expression; a bare number must be positive.
    pub(super) fn range_length(&mut self, context: &str) -> Result<Length> {
        let mut length = self.length(0, context)?;
        if let LengthKind::Number(number) = &mut length.kind {
            *number = whole_milliseconds(*number);
            if number.value <= 0.0 {
                return Err(Error::syntax("duration must be greater than 0", length.span, self.source));
            }
        }
        Ok(length)
    }

    /// What follows `offset`: a signed number, a call, or an expression in parentheses.
    pub(super) fn offset_length(&mut self) -> Result<Length> {
        let mut length = self.length_operand(OperandIn::Offset)?;
        if let LengthKind::Number(number) = &mut length.kind {
            *number = whole_milliseconds(*number);
        }
        Ok(length)
    }

    fn length(&mut self, weakest: u8, context: &str) -> Result<Length> {
        let mut left = self.length_operand(OperandIn::Range(context))?;
        while let Some((op, strength)) = self.length_operator().filter(|(_, strength)| *strength >= weakest) {
            self.next();
            let right_weakest = if op == BinaryOp::Power { strength } else { strength + 1 };
            let right = self.deeper(|parser| parser.length(right_weakest, context))?;
            let span = left.span.to(right.span);
            left = Length { kind: LengthKind::Binary { op, left: Box::new(left), right: Box::new(right) }, span };
        }
        Ok(left)
    }

    fn length_operator(&self) -> Option<(BinaryOp, u8)> {
        let found = [
            ("+", BinaryOp::Add, 1),
            ("-", BinaryOp::Subtract, 1),
            ("*", BinaryOp::Multiply, 2),
            ("/", BinaryOp::Divide, 2),
            ("%", BinaryOp::Modulo, 2),
            ("^", BinaryOp::Power, 3),
        ];
        found.into_iter().find(|(text, ..)| self.peek().is(text)).map(|(_, op, strength)| (op, strength))
    }

    fn length_operand(&mut self, place: OperandIn<'_>) -> Result<Length> {
        let first = self.peek().clone();
        if first.is("-") || first.is("+") {
            self.next();
            let is_negative = first.is("-");
            let inner = self.deeper(|parser| match place {
                OperandIn::Offset => parser.length_operand(place),
                OperandIn::Range(context) => parser.length(3, context),
            })?;
            let span = first.span.to(inner.span);
            return Ok(match inner.kind {
                LengthKind::Number(mut number) => {
                    number.value = if is_negative { -number.value } else { number.value };
                    Length { kind: LengthKind::Number(number), span }
                }
                _ => Length { kind: LengthKind::Unary { is_negative, length: Box::new(inner) }, span },
            });
        }
        if let Some(number) = self.number() {
            if !number.value.is_finite() || number.value.abs() > i64::MAX as f64 / 1e9 {
                return Err(Error::syntax("duration out of range", first.span, self.source));
            }
            return Ok(Length { kind: LengthKind::Number(number), span: first.span });
        }
        let context = match place {
            OperandIn::Offset => "offset",
            OperandIn::Range(context) => context,
        };
        if self.takes("(") {
            let inner = self.deeper(|parser| parser.length(0, context))?;
            let end = self.expect(")", context)?;
            return Ok(Length { kind: LengthKind::Paren(Box::new(inner)), span: first.span.to(end) });
        }
        if self.peek_at(1).is("(") {
            if first.is_keyword("step") || first.is_keyword("range") {
                self.next();
                self.next();
                let end = self.expect(")", context)?;
                let kind = if first.is_keyword("step") { LengthKind::Step } else { LengthKind::Range };
                return Ok(Length { kind, span: first.span.to(end) });
            }
            if first.is_keyword("min") || first.is_keyword("max") {
                return self.extreme(first.span, first.is_keyword("max"), context);
            }
        }
        Err(self.unexpected(context, ["number", "duration", "step()", "range()", "min()", "max()"]))
    }

    fn extreme(&mut self, start: Span, is_max: bool, context: &str) -> Result<Length> {
        self.next();
        self.expect("(", context)?;
        let left = Box::new(self.deeper(|parser| parser.length(0, context))?);
        self.expect(",", context)?;
        let right = Box::new(self.deeper(|parser| parser.length(0, context))?);
        let end = self.expect(")", context)?;
        Ok(Length { kind: LengthKind::Extreme { is_max, left, right }, span: start.to(end) })
    }
}

/// A number of seconds that stands alone is a duration, cut to milliseconds.
fn whole_milliseconds(number: Number) -> Number {
    Number { value: (number.value * 1000.0).trunc() / 1000.0, is_duration: true }
}

/// Where a length's operand stands: after `offset` no bare operator may follow it.
#[derive(Clone, Copy)]
enum OperandIn<'a> {
    Offset,
    Range(&'a str),
}
