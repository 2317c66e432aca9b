//! Reads queries: selectors, and operators between metrics.

use std::ops::{Deref, DerefMut};

use super::ast::*;
use super::check;
use super::dialect::DIALECT;
use crate::error::{Error, Result};
use crate::go_regex::whole_pattern;
use crate::lexer::{Cursor, Kind, Token};
use crate::span::Span;

/// How deep parentheses, aggregations and label filters may nest.
const DEPTH_LIMIT: usize = 64;

/// Reads and checks a query.
///
/// # Errors
/// The first place that is not LogQL, does not fit, or is not supported.
pub fn parse(source: &str) -> Result<Query> {
    let mut parser = Parser::new(source)?;
    let query = match parser.expression(0)? {
        Part::Log(query) => Query::Log(query),
        Part::Metric(metric) => Query::Metric(metric),
    };
    parser.expect_end()?;
    check::check(&query, source)?;
    Ok(query)
}

/// Reads a selector alone, as the parameters `match[]` and `query` of the label endpoints carry it; `{}` selects every stream.
///
/// # Errors
/// The first place that is no selector.
pub fn parse_matchers(source: &str) -> Result<Vec<Matcher>> {
    let mut parser = Parser::new(source)?;
    let matchers = parser.selector()?;
    match parser.peek().kind {
        Kind::End => Ok(matchers),
        _ => Err(parser.refuse("only label matchers are supported")),
    }
}

/// A part of a query: of lines or of numbers.
pub(super) enum Part {
    Log(LogQuery),
    Metric(Metric),
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

    fn expect_end(&self) -> Result<()> {
        if self.peek().kind == Kind::End { Ok(()) } else { Err(self.unexpected(["end of input"])) }
    }

    pub(super) fn name(&mut self, what: &str) -> Result<Token<'a>> {
        if self.peek().kind == Kind::Name { Ok(self.next()) } else { Err(self.unexpected([what])) }
    }

    pub(super) fn text(&mut self) -> Result<(String, Token<'a>)> {
        let Kind::Text(bytes) = &self.peek().kind else { return Err(self.unexpected(["a string"])) };
        let text = String::from_utf8(bytes.clone()).map_err(|_| self.refuse("the string is not UTF-8"))?;
        Ok((text, self.next()))
    }

    /// Where byte `at` of the string `token` stands in the query; the string itself where escapes hide it.
    pub(super) fn span_in(&self, token: &Token<'_>, at: usize) -> Span {
        let start = token.span.start + 1 + at;
        if token.text.contains('\\') && !token.text.starts_with('`') || start > token.span.end {
            return token.span;
        }
        let mut end = (start + 1).min(token.span.end);
        while !self.source.is_char_boundary(end) {
            end += 1;
        }
        Span::new(start, end)
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

    /// `{name="value", …}`
    pub(super) fn selector(&mut self) -> Result<Vec<Matcher>> {
        self.expect("{")?;
        let mut matchers = Vec::new();
        if self.takes("}") {
            return Ok(matchers);
        }
        loop {
            matchers.push(self.matcher()?);
            if self.takes("}") {
                return Ok(matchers);
            }
            if !self.takes(",") {
                return Err(self.unexpected(["`,`", "`}`"]));
            }
        }
    }

    /// `name="value"`
    pub(super) fn matcher(&mut self) -> Result<Matcher> {
        let name = self.name("a label")?;
        let Kind::Operator(sign) = self.peek().kind else {
            return Err(self.unexpected(["`=`", "`!=`", "`=~`", "`!~`"]));
        };
        let Some(operator) = MatchOperator::by_sign(sign) else {
            return Err(self.unexpected(["`=`", "`!=`", "`=~`", "`!~`"]));
        };
        self.next();
        let (value, token) = self.text()?;
        if operator.is_pattern() {
            self.check_pattern(&value, token.span)?;
        }
        Ok(Matcher { name: name.text.to_owned(), operator, value, span: name.span.to(token.span) })
    }

    pub(super) fn check_pattern(&self, pattern: &str, span: Span) -> Result<()> {
        whole_pattern(pattern)
            .map(drop)
            .map_err(|why| Error::syntax(format!("invalid regular expression {pattern:?}: {why}"), span, self.source))
    }

    /// Metrics joined by operators that bind at least as tightly as `precedence`.
    pub(super) fn expression(&mut self, precedence: u8) -> Result<Part> {
        let mut left = self.nested(Self::operand)?;
        loop {
            let token = self.peek();
            let sign = match token.kind {
                Kind::Operator(sign) => sign,
                Kind::Name => token.text,
                _ => return Ok(left),
            };
            let Some(operator) = BinaryOperator::by_sign(sign).filter(|own| own.precedence() >= precedence) else {
                return Ok(left);
            };
            let place = token.span;
            let Part::Metric(left_metric) = left else {
                let message = format!("the left side of `{sign}` must be a metric, not lines");
                return Err(Error::of_type(message, place, self.source));
            };
            self.next();
            let is_bool = self.takes_keyword("bool");
            let matching = self.matching()?;
            let binds =
                if operator == BinaryOperator::Power { operator.precedence() } else { operator.precedence() + 1 };
            let right = match self.nested(|parser| parser.expression(binds))? {
                Part::Metric(metric) => metric,
                Part::Log(query) => {
                    let message = format!("the right side of `{sign}` must be a metric, not lines");
                    return Err(Error::of_type(message, query.span, self.source));
                }
            };
            let span = left_metric.span.to(right.span);
            let binary = Binary { operator, left: left_metric, right, is_bool, matching };
            left = Part::Metric(Metric { kind: MetricKind::Binary(Box::new(binary)), span });
        }
    }

    fn matching(&mut self) -> Result<Matching> {
        let mut matching = Matching::default();
        let is_on = self.peek().is_keyword("on");
        if !is_on && !self.peek().is_keyword("ignoring") {
            return Ok(matching);
        }
        self.next();
        matching.labels = Some(MatchingLabels { is_on, labels: self.label_list()? });
        matching.cardinality = if self.takes_keyword("group_left") {
            Cardinality::ManyToOne
        } else if self.takes_keyword("group_right") {
            Cardinality::OneToMany
        } else {
            return Ok(matching);
        };
        if self.peek().is("(") {
            matching.include = self.label_list()?;
        }
        Ok(matching)
    }

    /// `(a, b)`; may be empty.
    pub(super) fn label_list(&mut self) -> Result<Vec<String>> {
        self.expect("(")?;
        let mut labels = Vec::new();
        if self.takes(")") {
            return Ok(labels);
        }
        loop {
            labels.push(self.name("a label")?.text.to_owned());
            if self.takes(")") {
                return Ok(labels);
            }
            if !self.takes(",") {
                return Err(self.unexpected(["`,`", "`)`"]));
            }
        }
    }

    fn operand(&mut self) -> Result<Part> {
        let start = self.peek().span;
        match self.peek().kind {
            Kind::Operator("{") => self.log_query().map(Part::Log),
            Kind::Operator("(") => {
                self.next();
                let inner = self.expression(0)?;
                let end = self.expect(")")?;
                Ok(match inner {
                    Part::Metric(metric) => Part::Metric(Metric { span: start.to(end), ..metric }),
                    Part::Log(query) => Part::Log(LogQuery { span: start.to(end), ..query }),
                })
            }
            Kind::Number(_) | Kind::Operator("+" | "-") => {
                let value = self.number()?;
                let end = self.last_span();
                Ok(Part::Metric(Metric { kind: MetricKind::Literal(value), span: start.to(end) }))
            }
            Kind::Name => self.function().map(Part::Metric),
            _ => Err(self.unexpected(["a selector", "a function", "a number", "`(`"])),
        }
    }

    /// A number with its sign.
    pub(super) fn number(&mut self) -> Result<f64> {
        let is_negative = self.takes("-");
        if !is_negative {
            self.takes("+");
        }
        let Kind::Number(value) = self.peek().kind else { return Err(self.unexpected(["a number"])) };
        if !value.is_finite() {
            return Err(self.refuse("the number is out of range"));
        }
        self.next();
        Ok(if is_negative { -value } else { value })
    }

    /// A selector with its pipeline.
    pub(super) fn log_query(&mut self) -> Result<LogQuery> {
        let start = self.peek().span;
        let matchers = self.selector()?;
        let stages = self.stages()?;
        Ok(LogQuery { matchers, stages, span: self.since(start) })
    }
}
