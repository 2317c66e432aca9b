//! Reads expressions: attributes, values, and operators between them.

use super::ast::*;
use super::parse::Parser;
use crate::error::{Error, Result};
use crate::lexer::Kind;
use crate::span::Span;

impl Parser<'_> {
    /// An expression of operators that bind at least as tightly as `precedence`.
    pub(super) fn field(&mut self, precedence: u8) -> Result<Field> {
        let mut left = self.nested(Self::operand)?;
        loop {
            let Kind::Operator(sign) = self.peek().kind else { return Ok(left) };
            let operator = Operator::by_sign(sign).filter(|own| own.precedence() >= precedence);
            let Some(operator) = operator else { return Ok(left) };
            self.next();
            let binds = if operator == Operator::Power { operator.precedence() } else { operator.precedence() + 1 };
            let right = self.nested(|parser| parser.field(binds))?;
            let span = left.span.to(right.span);
            let kind = FieldKind::Binary { operator, left: Box::new(left), right: Box::new(right) };
            left = Field { kind, span };
        }
    }

    fn operand(&mut self) -> Result<Field> {
        let start = self.peek().span;
        let kind = match self.peek().kind {
            Kind::Operator("(") => {
                self.next();
                let inner = self.field(0)?;
                self.expect(")")?;
                return Ok(Field { span: self.since(start), ..inner });
            }
            Kind::Operator("!") => {
                self.next();
                FieldKind::Not(Box::new(self.nested(Self::operand)?))
            }
            Kind::Operator("-") => {
                self.next();
                match self.nested(Self::operand)? {
                    Field { kind: FieldKind::Static(Static::Int(value)), .. } => {
                        FieldKind::Static(Static::Int(value.wrapping_neg()))
                    }
                    Field { kind: FieldKind::Static(Static::Float(value)), .. } => {
                        FieldKind::Static(Static::Float(-value))
                    }
                    Field { kind: FieldKind::Static(Static::Duration(value)), .. } => {
                        FieldKind::Static(Static::Duration(value.wrapping_neg()))
                    }
                    other => FieldKind::Negative(Box::new(other)),
                }
            }
            Kind::Name => match self.word_value() {
                Some(value) => {
                    self.next();
                    FieldKind::Static(value)
                }
                None => FieldKind::Attribute(self.attribute()?.0),
            },
            Kind::Number(_) | Kind::Duration(_) | Kind::Text(_) => FieldKind::Static(self.static_value()?),
            _ => return Err(self.unexpected(["an attribute", "a value", "`(`"])),
        };
        Ok(Field { kind, span: self.since(start) })
    }

    /// The value that the word that comes next stands for.
    fn word_value(&self) -> Option<Static> {
        match self.peek().text {
            "true" => Some(Static::Bool(true)),
            "false" => Some(Static::Bool(false)),
            "nil" => Some(Static::Nil),
            "minInt" => Some(Static::Int(i64::MIN)),
            "maxInt" => Some(Static::Int(i64::MAX)),
            word => Status::by_name(word).map(Static::Status).or_else(|| SpanKind::by_name(word).map(Static::Kind)),
        }
    }

    /// A value.
    pub(super) fn static_value(&mut self) -> Result<Static> {
        let is_negative = self.takes("-");
        let token = self.peek().clone();
        let value = match &token.kind {
            Kind::Number(value) => match token.text.parse::<i64>() {
                Ok(_) if is_negative => Static::Int(format!("-{}", token.text).parse().unwrap_or(i64::MIN)),
                Ok(whole) => Static::Int(whole),
                Err(_) if token.text.bytes().all(|byte| byte.is_ascii_digit()) => {
                    if is_negative && token.text == "9223372036854775808" {
                        Static::Int(i64::MIN)
                    } else {
                        return Err(self.refuse("the whole number is out of range"));
                    }
                }
                Err(_) => Static::Float(if is_negative { -value } else { *value }),
            },
            Kind::Duration(value) => Static::Duration(if is_negative { -value } else { *value }),
            Kind::Text(bytes) if !is_negative => {
                let text = String::from_utf8(bytes.clone()).map_err(|_| self.refuse("the string is not UTF-8"))?;
                Static::Text(text)
            }
            Kind::Name if !is_negative => match self.word_value() {
                Some(value) => value,
                None => return Err(self.unexpected(["a value"])),
            },
            _ => return Err(self.unexpected(["a value"])),
        };
        self.next();
        Ok(value)
    }

    /// An attribute or intrinsic, with its place.
    pub(super) fn attribute(&mut self) -> Result<(Attribute, Span)> {
        if self.peek().kind != Kind::Name {
            return Err(self.unexpected(["an attribute"]));
        }
        let first = self.next();
        let mut span = first.span;
        if let Some(intrinsic) = Intrinsic::by_name(first.text) {
            return Ok((Attribute::Intrinsic(intrinsic), span));
        }
        if first.text == "parent" || first.text.starts_with("parent.") {
            let message = "attributes of the parent span are not supported; `span:parentID` is";
            return Err(Error::unsupported(message, span, self.source));
        }
        let Some((scope, prefix)) = Scope::of(first.text) else {
            let message = match first.text.split_once([':', '.']) {
                Some((scope, _)) if first.text.contains(':') => {
                    let known: Vec<String> = Intrinsic::all()
                        .map(Intrinsic::name)
                        .filter(|name| name.contains(':'))
                        .map(str::to_owned)
                        .collect();
                    let message = format!("unknown intrinsic `{}` of `{scope}`", first.text);
                    return Err(Error::syntax(message, span, self.source).allowing(known));
                }
                Some((scope, _)) => format!("unknown scope `{scope}`"),
                None => format!("unknown identifier `{}`; an attribute needs a scope or a leading dot", first.text),
            };
            let known = ["`.`", "`span.`", "`resource.`", "`event.`", "`link.`", "`instrumentation.`"];
            return Err(Error::syntax(message, span, self.source).allowing(known));
        };
        let mut name = first.text[prefix..].to_owned();
        loop {
            let part = self.peek().clone();
            if part.span.start != span.end {
                break;
            }
            match &part.kind {
                Kind::Text(bytes) if part.text.starts_with('"') => {
                    let escapes = part.text.replace("\\\\", "").replace("\\\"", "");
                    let text = String::from_utf8(bytes.clone()).ok().filter(|_| !escapes.contains('\\'));
                    let Some(text) = text else { return Err(self.refuse("invalid escape in an attribute's name")) };
                    name.push_str(&text);
                }
                Kind::Name => name.push_str(part.text),
                _ => break,
            }
            self.next();
            span = span.to(part.span);
        }
        if name.is_empty() {
            return Err(Error::syntax("an attribute without a name", span, self.source));
        }
        Ok((Attribute::Named(scope, name), span))
    }

    /// `(a, b)`, at least one.
    pub(super) fn attribute_list(&mut self) -> Result<Vec<Attribute>> {
        self.expect("(")?;
        let mut attributes = Vec::new();
        loop {
            attributes.push(self.attribute()?.0);
            if self.takes(")") {
                return Ok(attributes);
            }
            if !self.takes(",") {
                return Err(self.unexpected(["`,`", "`)`"]));
            }
        }
    }

    /// Arithmetic of aggregates and numbers.
    pub(super) fn scalar(&mut self, precedence: u8) -> Result<Scalar> {
        let mut left = self.nested(Self::scalar_operand)?;
        loop {
            let Kind::Operator(sign) = self.peek().kind else { return Ok(left) };
            let operator = Operator::by_sign(sign).filter(|own| own.is_arithmetic() && own.precedence() >= precedence);
            let Some(operator) = operator else { return Ok(left) };
            self.next();
            let right = self.nested(|parser| parser.scalar(operator.precedence() + 1))?;
            left = Scalar::Operation { operator, left: Box::new(left), right: Box::new(right) };
        }
    }

    fn scalar_operand(&mut self) -> Result<Scalar> {
        if self.takes("(") {
            let inner = self.scalar(0)?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.peek().kind == Kind::Name {
            let Some(function) = Aggregate::by_name(self.peek().text) else {
                return Err(self.unexpected(["an aggregate", "`by`", "`select`", "`coalesce`", "a metrics function"]));
            };
            self.next();
            self.expect("(")?;
            let of = if function == Aggregate::Count { None } else { Some(self.nested(|parser| parser.field(0))?) };
            self.expect(")")?;
            return Ok(Scalar::Aggregate { function, of });
        }
        match self.static_value()? {
            value @ (Static::Int(_) | Static::Float(_) | Static::Duration(_)) => Ok(Scalar::Static(value)),
            _ => Err(self.refuse("an aggregate is compared with a number or a duration")),
        }
    }
}
