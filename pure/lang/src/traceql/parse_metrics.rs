//! Reads metrics: functions over time, and what is done with their series.

use super::ast::*;
use super::parse::{Parser, Part};
use crate::error::{Error, Result};
use crate::lexer::Kind;

/// How many values of an attribute `compare` shows where the query does not say.
const COMPARE_TOP: usize = 10;

impl Parser<'_> {
    /// The metrics function behind a pipeline, and what follows it.
    pub(super) fn metrics_tail(&mut self, spans: Pipeline) -> Result<Metrics> {
        let function = self.metrics_function()?;
        let mut by = Vec::new();
        if self.is_word("by") {
            if matches!(function, MetricsFunction::Compare { .. }) {
                return Err(self.refuse("compare takes no `by`"));
            }
            self.next();
            by = self.attribute_list()?;
        }
        let seconds = self.second_stages()?;
        Ok(Metrics::Pipeline { spans, function, by, seconds })
    }

    fn metrics_function(&mut self) -> Result<MetricsFunction> {
        let name = self.next();
        self.expect("(")?;
        let function = match name.text {
            "rate" => MetricsFunction::Rate,
            "count_over_time" => MetricsFunction::CountOverTime,
            "compare" => self.compare()?,
            "quantile_over_time" => {
                let of = self.attribute()?.0;
                let mut ranks = Vec::new();
                while self.takes(",") {
                    let place = self.peek().span;
                    let Kind::Number(rank) = self.peek().kind else { return Err(self.unexpected(["a number"])) };
                    if !(0.0..=1.0).contains(&rank) {
                        let message = format!("a quantile lies between 0 and 1, not {rank}");
                        return Err(Error::of_type(message, place, self.source));
                    }
                    self.next();
                    ranks.push(rank);
                }
                if ranks.is_empty() {
                    return Err(self.unexpected(["`,` and a quantile"]));
                }
                MetricsFunction::QuantileOverTime(of, ranks)
            }
            _ => {
                let of = self.attribute()?.0;
                match name.text {
                    "min_over_time" => MetricsFunction::MinOverTime(of),
                    "max_over_time" => MetricsFunction::MaxOverTime(of),
                    "avg_over_time" => MetricsFunction::AvgOverTime(of),
                    "sum_over_time" => MetricsFunction::SumOverTime(of),
                    _ => MetricsFunction::HistogramOverTime(of),
                }
            }
        };
        self.expect(")")?;
        Ok(function)
    }

    /// `{ … }, top, start, end`
    fn compare(&mut self) -> Result<MetricsFunction> {
        let selection = Box::new(self.span_filter()?);
        let mut numbers = Vec::new();
        while self.takes(",") {
            let place = self.peek().span;
            match self.static_value()? {
                Static::Int(value) => numbers.push((value, place)),
                _ => return Err(Error::of_type("compare takes whole numbers", place, self.source)),
            }
        }
        let top = match numbers.first() {
            None => COMPARE_TOP,
            Some((value @ 1..=1000, _)) => *value as usize,
            Some((_, place)) => {
                let message = "compare shows between 1 and 1000 values";
                return Err(Error::of_type(message, *place, self.source));
            }
        };
        let window_ns = match numbers.as_slice() {
            [] | [_] => None,
            [_, (start, _), (end, _)] if start < end => Some((*start, *end)),
            [_, (_, place), ..] => {
                let message = "compare takes start and end of its selection, in nanoseconds";
                return Err(Error::of_type(message, *place, self.source));
            }
        };
        Ok(MetricsFunction::Compare { selection, top, window_ns })
    }

    fn second_stages(&mut self) -> Result<Vec<SecondStage>> {
        let mut seconds = Vec::new();
        loop {
            if self.takes("|") {
                let is_top = self.is_word("topk");
                if !is_top && !self.is_word("bottomk") {
                    return Err(self.unexpected(["`topk`", "`bottomk`"]));
                }
                self.next();
                self.expect("(")?;
                let count = self.peek().text.parse::<usize>().ok().filter(|count| *count > 0);
                let Some(count) = count else { return Err(self.unexpected(["a whole number above 0"])) };
                self.next();
                self.expect(")")?;
                seconds.push(if is_top { SecondStage::Topk(count) } else { SecondStage::Bottomk(count) });
                continue;
            }
            let Kind::Operator(sign) = self.peek().kind else { return Ok(seconds) };
            let comparison = Operator::by_sign(sign).filter(|own| own.is_comparison() && !own.is_pattern());
            let Some(operator) = comparison else { return Ok(seconds) };
            self.next();
            seconds.push(SecondStage::Compare(operator, self.metrics_number()?));
        }
    }

    fn metrics_number(&mut self) -> Result<f64> {
        if self.takes("(") {
            let value = self.metrics_number()?;
            self.expect(")")?;
            return Ok(value);
        }
        let place = self.peek().span;
        match self.static_value()? {
            Static::Int(value) => Ok(value as f64),
            Static::Float(value) => Ok(value),
            Static::Duration(value) => Ok(value as f64 / 1e9),
            _ => Err(Error::syntax("a metric is compared with a number", place, self.source)),
        }
    }

    /// Arithmetic between metrics in parentheses.
    pub(super) fn metrics_operation(&mut self) -> Result<Metrics> {
        let operation = self.metrics_arithmetic(0)?;
        let more = self.second_stages()?;
        Ok(match operation {
            Metrics::Operation { operator, left, right, mut seconds } => {
                seconds.extend(more);
                Metrics::Operation { operator, left, right, seconds }
            }
            Metrics::Pipeline { spans, function, by, mut seconds } => {
                seconds.extend(more);
                Metrics::Pipeline { spans, function, by, seconds }
            }
            number => number,
        })
    }

    fn metrics_arithmetic(&mut self, precedence: u8) -> Result<Metrics> {
        let mut left = self.nested(Self::metrics_operand)?;
        loop {
            let Kind::Operator(sign) = self.peek().kind else { return Ok(left) };
            let known = |own: &Operator| {
                matches!(own, Operator::Add | Operator::Subtract | Operator::Multiply | Operator::Divide)
                    && own.precedence() >= precedence
            };
            let Some(operator) = Operator::by_sign(sign).filter(known) else { return Ok(left) };
            self.next();
            let right = self.nested(|parser| parser.metrics_arithmetic(operator.precedence() + 1))?;
            left = Metrics::Operation { operator, left: Box::new(left), right: Box::new(right), seconds: Vec::new() };
        }
    }

    fn metrics_operand(&mut self) -> Result<Metrics> {
        if !self.peek().is("(") {
            return self.metrics_number().map(Metrics::Number);
        }
        if !self.begins_metrics_operand() {
            return self.metrics_number().map(Metrics::Number);
        }
        self.next();
        let inner = match self.nested(Self::part)? {
            Part::Metrics(metrics) => metrics,
            Part::Pipeline(_) => return Err(self.unexpected(["`|` and a metrics function"])),
        };
        self.expect(")")?;
        Ok(inner)
    }
}
