//! Reads functions: over ranges, over series, and the others.

use super::ast::*;
use super::parse::{Parser, Part};
use crate::error::{Error, Result};
use crate::lexer::Kind;
use crate::span::Span;

impl Parser<'_> {
    pub(super) fn function(&mut self) -> Result<Metric> {
        let name = self.peek().clone();
        if let Some(function) = RangeFunction::by_name(name.text) {
            return self.range_aggregation(function);
        }
        if let Some(function) = VectorFunction::by_name(name.text) {
            return self.vector_aggregation(function);
        }
        if name.is_keyword("label_replace") {
            return self.label_replace();
        }
        if name.is_keyword("vector") {
            self.next();
            self.expect("(")?;
            let value = self.number()?;
            let end = self.expect(")")?;
            return Ok(Metric { kind: MetricKind::Vector(value), span: name.span.to(end) });
        }
        if name.is_keyword("variants") {
            return Err(Error::unsupported("`variants` is not supported", name.span, self.source));
        }
        if self.peek_at(1).is("(") || self.peek_at(1).is_keyword("by") || self.peek_at(1).is_keyword("without") {
            return Err(self.refuse(format!("unknown function `{}`", name.text)));
        }
        Err(self.unexpected(["a selector", "a function", "a number", "`(`"]))
    }

    fn range_aggregation(&mut self, function: RangeFunction) -> Result<Metric> {
        let name = self.next();
        self.expect("(")?;
        let parameter_place = self.peek().span;
        let parameter = if matches!(self.peek().kind, Kind::Number(_) | Kind::Operator("+" | "-")) {
            let value = self.number()?;
            self.expect(",")?;
            Some(value)
        } else {
            None
        };
        let (query, range) = self.nested(Self::ranged_query)?;
        let Some(range) = range else { return Err(self.unexpected(["a range such as `[5m]`"])) };
        let end = self.expect(")")?;
        let grouping_place = self.peek().span;
        let grouping = self.grouping()?;
        let quantile = function == RangeFunction::QuantileOverTime;
        if parameter.is_some() != quantile {
            let message = if quantile { "a parameter is required" } else { "no parameter is taken" };
            return Err(Error::of_type(format!("{}: {message}", function.name()), parameter_place, self.source));
        }
        if grouping.is_some() && !function.takes_grouping() {
            let message = format!("grouping is not allowed for {}", function.name());
            return Err(Error::of_type(message, grouping_place, self.source));
        }
        let has_unwrap = query.stages.iter().any(|stage| matches!(stage.kind, StageKind::Unwrap(_)));
        if has_unwrap && !function.takes_values() || !has_unwrap && !function.takes_lines() {
            let how = if has_unwrap { "with" } else { "without" };
            let message = format!("{} {how} unwrap is no aggregation", function.name());
            return Err(Error::of_type(message, name.span, self.source));
        }
        let span = name.span.to(if grouping.is_some() { self.since(name.span) } else { end });
        let Range { range_ns, offset_ns } = range;
        let kind = MetricKind::Range(RangeAggregation { function, parameter, query, range_ns, offset_ns, grouping });
        Ok(Metric { kind, span })
    }

    /// A query with its range, which stands behind the selector, the pipeline or the parentheses around them.
    fn ranged_query(&mut self) -> Result<(LogQuery, Option<Range>)> {
        let start = self.peek().span;
        let (mut query, mut range) = if self.takes("(") {
            let inner = self.nested(Self::ranged_query)?;
            self.expect(")")?;
            inner
        } else if self.peek().is("{") {
            (self.log_query()?, None)
        } else {
            return Err(self.unexpected(["a selector", "`(`"]));
        };
        if range.is_none() && self.peek().is("[") {
            range = Some(self.range()?);
            query.stages.extend(self.stages()?);
            query.span = self.since(start);
        }
        Ok((query, range))
    }

    /// `[5m] offset 1h`
    fn range(&mut self) -> Result<Range> {
        self.expect("[")?;
        let Kind::Duration(range_ns) = self.peek().kind else {
            return Err(self.unexpected(["a duration such as `5m`"]));
        };
        self.next();
        self.expect("]")?;
        let mut offset_ns = 0;
        if self.takes_keyword("offset") {
            let is_negative = self.takes("-");
            let Kind::Duration(offset) = self.peek().kind else { return Err(self.unexpected(["a duration"])) };
            self.next();
            offset_ns = if is_negative { -offset } else { offset };
        }
        Ok(Range { range_ns, offset_ns })
    }

    /// `by (…)` or `without (…)`, if it comes next.
    fn grouping(&mut self) -> Result<Option<Grouping>> {
        let is_without = self.peek().is_keyword("without");
        if !is_without && !self.peek().is_keyword("by") {
            return Ok(None);
        }
        self.next();
        Ok(Some(Grouping { is_without, labels: self.label_list()? }))
    }

    fn vector_aggregation(&mut self, function: VectorFunction) -> Result<Metric> {
        let name = self.next();
        let mut grouping_place = self.peek().span;
        let mut grouping = self.grouping()?;
        self.expect("(")?;
        let mut count = None;
        let parameter_place = self.peek().span;
        let is_parameter = matches!(self.peek().kind, Kind::Number(_)) && self.peek_at(1).is(",");
        if is_parameter || self.peek().is("-") && self.peek_at(2).is(",") {
            let value = self.number()?;
            self.expect(",")?;
            count = Some(self.series_count(function, value, parameter_place)?);
        } else if function.takes_count() {
            let message = format!("{} needs a number of series", function.name());
            return Err(Error::of_type(message, parameter_place, self.source));
        }
        let of_place = self.peek().span;
        let Part::Metric(of) = self.nested(|parser| parser.expression(0))? else {
            let message = format!("{} takes a metric, not lines", function.name());
            return Err(Error::of_type(message, self.since(of_place), self.source));
        };
        self.expect(")")?;
        if grouping.is_none() {
            grouping_place = self.peek().span;
            grouping = self.grouping()?;
        }
        if grouping.is_some() && !function.takes_grouping() {
            let message = format!("grouping is not allowed for {}", function.name());
            return Err(Error::of_type(message, grouping_place, self.source));
        }
        let aggregation = VectorAggregation { function, count, of, grouping };
        Ok(Metric { kind: MetricKind::Aggregation(Box::new(aggregation)), span: self.since(name.span) })
    }

    fn series_count(&self, function: VectorFunction, value: f64, place: Span) -> Result<usize> {
        let problem = if !function.takes_count() {
            "takes no parameter"
        } else if value.fract() != 0.0 || value > 1e9 {
            "needs a whole number of series"
        } else if value < 1.0 {
            "needs a number of series above 0"
        } else {
            return Ok(value as usize);
        };
        Err(Error::of_type(format!("{} {problem}", function.name()), place, self.source))
    }

    fn label_replace(&mut self) -> Result<Metric> {
        let name = self.next();
        self.expect("(")?;
        let of_place = self.peek().span;
        let Part::Metric(of) = self.nested(|parser| parser.expression(0))? else {
            return Err(Error::of_type("label_replace takes a metric, not lines", self.since(of_place), self.source));
        };
        let mut texts = Vec::new();
        for _ in 0..4 {
            self.expect(",")?;
            texts.push(self.text()?);
        }
        let end = self.expect(")")?;
        let (pattern, pattern_token) = texts.pop().expect("four were read");
        self.check_pattern(&pattern, pattern_token.span)?;
        let (source, _) = texts.pop().expect("three are left");
        let (replacement, _) = texts.pop().expect("two are left");
        let (destination, destination_token) = texts.pop().expect("one is left");
        let is_label = destination.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && destination.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_label {
            let message = format!("invalid label name {destination:?} in label_replace");
            return Err(Error::of_type(message, destination_token.span, self.source));
        }
        let replace = LabelReplace { of, destination, replacement, source, pattern };
        Ok(Metric { kind: MetricKind::LabelReplace(Box::new(replace)), span: name.span.to(end) })
    }
}

/// A range with its offset.
struct Range {
    range_ns: i64,
    offset_ns: i64,
}
