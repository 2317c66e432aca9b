//! Reads queries: pipelines and spansets.

use std::ops::{Deref, DerefMut};

use super::ast::*;
use super::check;
use super::dialect::DIALECT;
use crate::error::Result;
use crate::lexer::{Cursor, Kind};

/// How deep parentheses and expressions may nest.
const DEPTH_LIMIT: usize = 64;

/// Reads and checks a query.
///
/// # Errors
/// The first place that is not TraceQL, does not fit, or is not supported.
pub fn parse(source: &str) -> Result<Query> {
    let mut parser = Parser::new(source)?;
    let kind = parser.query_kind()?;
    let hints = parser.hints()?;
    if parser.peek().kind != Kind::End {
        return Err(parser.unexpected(["`|`", "`with`", "end of input"]));
    }
    let query = Query { kind, hints };
    check::check(&query, source)?;
    Ok(query)
}

/// Reads an attribute or intrinsic alone, as the tag endpoints name it.
///
/// # Errors
/// The text is none.
pub fn parse_attribute(source: &str) -> Result<Attribute> {
    let mut parser = Parser::new(source)?;
    let (attribute, _) = parser.attribute()?;
    match parser.peek().kind {
        Kind::End => Ok(attribute),
        _ => Err(parser.unexpected(["end of input"])),
    }
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

/// Spans, or numbers of them.
pub(super) enum Part {
    Pipeline(Pipeline),
    Metrics(Metrics),
}

impl<'a> Parser<'a> {
    fn new(source: &'a str) -> Result<Self> {
        Cursor::new(source, &DIALECT).map(Self)
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        self.peek().kind == Kind::Name && self.peek().text == word
    }

    /// Reads one level deeper.
    pub(super) fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if !self.enter(DEPTH_LIMIT) {
            return Err(self.refuse(format!("nested deeper than {DEPTH_LIMIT}")));
        }
        let part = read(self);
        self.leave();
        part
    }

    fn query_kind(&mut self) -> Result<QueryKind> {
        Ok(match self.part()? {
            Part::Pipeline(pipeline) => QueryKind::Search(pipeline),
            Part::Metrics(metrics) => QueryKind::Metrics(metrics),
        })
    }

    /// A pipeline of spans, which may end in a metrics function; or arithmetic between metrics in parentheses.
    pub(super) fn part(&mut self) -> Result<Part> {
        if self.begins_metrics_operand() {
            return self.metrics_operation().map(Part::Metrics);
        }
        let mut stages = vec![Stage::Spansets(self.spansets(0)?)];
        while self.peek().is("|") {
            self.next();
            if self.peek().kind == Kind::Name && MetricsFunction::NAMES.contains(&self.peek().text) {
                return self.metrics_tail(Pipeline { stages }).map(Part::Metrics);
            }
            stages.push(self.stage()?);
        }
        Ok(Part::Pipeline(Pipeline { stages }))
    }

    fn stage(&mut self) -> Result<Stage> {
        let start = self.peek().span;
        if self.peek().is("{") || self.peek().is("(") && self.parenthesis_holds_spansets() {
            return self.spansets(0).map(Stage::Spansets);
        }
        if self.is_word("by") {
            self.next();
            self.expect("(")?;
            let field = self.nested(|parser| parser.field(0))?;
            self.expect(")")?;
            return Ok(Stage::By(field));
        }
        if self.is_word("coalesce") {
            self.next();
            self.expect("(")?;
            self.expect(")")?;
            return Ok(Stage::Coalesce);
        }
        if self.is_word("select") {
            self.next();
            return self.attribute_list().map(Stage::Select);
        }
        let left = self.scalar(0)?;
        let Kind::Operator(sign) = self.peek().kind else { return Err(self.unexpected(["a comparison"])) };
        let comparison = Operator::by_sign(sign).filter(|own| own.is_comparison() && !own.is_pattern());
        let Some(operator) = comparison else { return Err(self.unexpected(["a comparison"])) };
        self.next();
        let right = self.scalar(0)?;
        Ok(Stage::Scalar(ScalarFilter { left, operator, right, span: self.since(start) }))
    }

    /// Whether the parenthesis that comes next opens spansets, and not arithmetic of aggregates.
    fn parenthesis_holds_spansets(&self) -> bool {
        (0..).map(|ahead| self.peek_at(ahead)).find(|token| !token.is("(")).is_some_and(|token| token.is("{"))
    }

    /// Whether parentheses come next that hold a metrics query.
    pub(super) fn begins_metrics_operand(&self) -> bool {
        if !self.peek().is("(") {
            return false;
        }
        let mut depth = 0usize;
        for ahead in 0.. {
            let token = self.peek_at(ahead);
            match token.kind {
                Kind::Operator("(" | "{") => depth += 1,
                Kind::Operator(")" | "}") => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return false;
                    }
                }
                Kind::Operator("|") => {
                    let function = self.peek_at(ahead + 1);
                    if function.kind == Kind::Name && MetricsFunction::NAMES.contains(&function.text) {
                        return true;
                    }
                }
                Kind::End => return false,
                _ => {}
            }
        }
        false
    }

    /// Spansets joined by operators that bind at least as tightly as `precedence`.
    fn spansets(&mut self, precedence: u8) -> Result<Spansets> {
        let mut left = self.nested(Self::spanset)?;
        loop {
            let Kind::Operator(sign) = self.peek().kind else { return Ok(left) };
            let operator = SpansetOperator::by_sign(sign).filter(|own| own.precedence() >= precedence);
            let Some(operator) = operator else { return Ok(left) };
            self.next();
            let right = self.nested(|parser| parser.spansets(operator.precedence() + 1))?;
            left = Spansets::Operation { operator, left: Box::new(left), right: Box::new(right) };
        }
    }

    fn spanset(&mut self) -> Result<Spansets> {
        if self.takes("(") {
            let inner = self.spansets(0)?;
            let mut stages = vec![Stage::Spansets(inner)];
            while self.takes("|") {
                stages.push(self.stage()?);
            }
            self.expect(")")?;
            return Ok(match stages.pop() {
                Some(Stage::Spansets(only)) if stages.is_empty() => only,
                Some(last) => {
                    stages.push(last);
                    Spansets::Pipeline(Box::new(Pipeline { stages }))
                }
                None => Spansets::Filter(None),
            });
        }
        if !self.peek().is("{") {
            return Err(self.unexpected(["`{`", "`(`"]));
        }
        self.span_filter().map(Spansets::Filter)
    }

    /// `{ … }`
    pub(super) fn span_filter(&mut self) -> Result<Option<Field>> {
        self.expect("{")?;
        if self.takes("}") {
            return Ok(None);
        }
        let field = self.nested(|parser| parser.field(0))?;
        if !self.peek().is("}") {
            return Err(self.unexpected(["an operator", "`}`"]));
        }
        self.next();
        Ok(Some(field))
    }

    fn hints(&mut self) -> Result<Vec<Hint>> {
        let mut hints = Vec::new();
        if !self.is_word("with") {
            return Ok(hints);
        }
        self.next();
        self.expect("(")?;
        loop {
            let start = self.peek().span;
            if self.peek().kind != Kind::Name {
                return Err(self.unexpected(["a hint's name"]));
            }
            let name = self.next().text.to_owned();
            self.expect("=")?;
            let value = self.static_value()?;
            hints.push(Hint { name, value, span: self.since(start) });
            if self.takes(")") {
                return Ok(hints);
            }
            self.expect(",")?;
        }
    }
}
