//! Reads the stages of a pipeline.

use super::AddressRange;
use super::ast::*;
use super::json_path::parse_path;
use super::parse::Parser;
use super::pattern::{parse_line_pattern, parse_parser_pattern};
use super::template::{Template, parse_template};
use crate::error::{Error, Result};
use crate::go_regex::compile_regex;
use crate::lexer::{Kind, Token};

impl<'a> Parser<'a> {
    /// Every stage that follows.
    pub(super) fn stages(&mut self) -> Result<Vec<Stage>> {
        let mut stages = Vec::new();
        loop {
            let start = self.peek().span;
            let kind = match self.peek().kind {
                Kind::Operator("|") => {
                    self.next();
                    self.stage()?
                }
                Kind::Operator(sign) => match LineOperator::by_sign(sign) {
                    Some(operator) => {
                        self.next();
                        StageKind::LineFilter(self.line_filter(operator)?)
                    }
                    None => return Ok(stages),
                },
                _ => return Ok(stages),
            };
            stages.push(Stage { kind, span: self.since(start) });
        }
    }

    fn line_filter(&mut self, operator: LineOperator) -> Result<LineFilter> {
        let mut alternatives = vec![self.line_match(operator)?];
        while self.peek().is_keyword("or") {
            self.next();
            alternatives.push(self.line_match(operator)?);
        }
        Ok(LineFilter { operator, alternatives })
    }

    fn line_match(&mut self, operator: LineOperator) -> Result<LineMatch> {
        if self.peek().is_keyword("ip") && self.peek_at(1).is("(") {
            if !matches!(operator, LineOperator::Contains | LineOperator::ContainsNot) {
                return Err(self.refuse(format!("ip() needs `|=` or `!=`, not `{}`", operator.sign())));
            }
            return self.address().map(LineMatch::Address);
        }
        if !matches!(self.peek().kind, Kind::Text(_)) {
            return Err(self.unexpected(["a string", "`ip`"]));
        }
        let (text, token) = self.text()?;
        match operator {
            LineOperator::Pattern | LineOperator::PatternNot => parse_line_pattern(&text)
                .map(LineMatch::Pattern)
                .map_err(|why| Error::syntax(why, token.span, self.source)),
            LineOperator::Matches | LineOperator::MatchesNot => {
                self.check_regex(&text, &token)?;
                Ok(LineMatch::Text(text))
            }
            LineOperator::Contains | LineOperator::ContainsNot => Ok(LineMatch::Text(text)),
        }
    }

    fn check_regex(&self, text: &str, token: &Token<'_>) -> Result<regex::Regex> {
        compile_regex(text).map_err(|why| {
            Error::syntax(format!("invalid regular expression {text:?}: {why}"), token.span, self.source)
        })
    }

    /// `ip("…")`
    fn address(&mut self) -> Result<AddressRange> {
        self.next();
        self.expect("(")?;
        let (text, token) = self.text()?;
        self.expect(")")?;
        AddressRange::parse(&text).ok_or_else(|| {
            let message = format!("{text:?} is no address, network or range of addresses");
            Error::syntax(message, token.span, self.source)
        })
    }

    fn stage(&mut self) -> Result<StageKind> {
        if self.peek().kind != Kind::Name {
            if self.peek().is("(") {
                return self.label_filter().map(StageKind::LabelFilter);
            }
            return Err(self.unexpected(["a parser", "a label filter", "a formatter"]));
        }
        match self.peek().text {
            "json" => self.json(),
            "logfmt" => self.logfmt(),
            "regexp" => self.regexp(),
            "pattern" => {
                self.next();
                let (text, token) = self.text()?;
                let pattern = parse_parser_pattern(&text).map_err(|why| Error::syntax(why, token.span, self.source))?;
                Ok(StageKind::Pattern(pattern))
            }
            "unpack" => self.word(StageKind::Unpack),
            "decolorize" => self.word(StageKind::Decolorize),
            "line_format" => {
                self.next();
                self.template().map(StageKind::LineFormat)
            }
            "label_format" => self.label_format(),
            "drop" => {
                self.next();
                self.picks().map(StageKind::Drop)
            }
            "keep" => {
                self.next();
                self.picks().map(StageKind::Keep)
            }
            "unwrap" => self.unwrap(),
            "distinct" if !matches!(self.peek_at(1).kind, Kind::Operator(_)) => {
                let span = self.peek().span;
                Err(Error::unsupported("the stage `distinct` is not supported", span, self.source))
            }
            _ => self.label_filter().map(StageKind::LabelFilter),
        }
    }

    fn word(&mut self, kind: StageKind) -> Result<StageKind> {
        self.next();
        Ok(kind)
    }

    fn json(&mut self) -> Result<StageKind> {
        self.next();
        let mut extractions = Vec::new();
        for (label, expression, token) in self.extractions()? {
            let path = parse_path(&expression).map_err(|(at, why)| {
                let message = format!("no path {expression:?}: {why}");
                Error::syntax(message, self.span_in(&token, at), self.source)
            })?;
            extractions.push(JsonExtraction { label, expression, path });
        }
        Ok(StageKind::Json(extractions))
    }

    fn logfmt(&mut self) -> Result<StageKind> {
        self.next();
        let (mut is_strict, mut keeps_empty) = (false, false);
        while self.peek().is("-") {
            let start = self.peek().span;
            let mut words = Vec::new();
            while self.peek().is("-") || self.peek().kind == Kind::Name && !words.is_empty() {
                let follows = self.since(start).end == self.peek().span.start || words.is_empty();
                if !follows {
                    break;
                }
                words.push(self.next().text);
            }
            match words.concat().as_str() {
                "--strict" => is_strict = true,
                "--keep-empty" => keeps_empty = true,
                other => {
                    let message = format!("unknown flag {other:?} of logfmt");
                    return Err(Error::syntax(message, self.since(start), self.source)
                        .allowing(["`--strict`", "`--keep-empty`"]));
                }
            }
        }
        let mut extractions = Vec::new();
        for (label, key, token) in self.extractions()? {
            let bad = key.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '-');
            if let Some(at) = bad.or(key.is_empty().then_some(0)) {
                let message = format!("no key of logfmt: {key:?}");
                return Err(Error::syntax(message, self.span_in(&token, at), self.source));
            }
            extractions.push(Extraction { label, key });
        }
        Ok(StageKind::Logfmt { is_strict, keeps_empty, extractions })
    }

    /// `label="expression", label`, if they come next.
    fn extractions(&mut self) -> Result<Vec<(String, String, Token<'a>)>> {
        let mut extractions = Vec::new();
        if self.peek().kind != Kind::Name {
            return Ok(extractions);
        }
        loop {
            let label = self.name("a label")?;
            if self.takes("=") {
                let (expression, token) = self.text()?;
                extractions.push((label.text.to_owned(), expression, token));
            } else {
                extractions.push((label.text.to_owned(), label.text.to_owned(), label));
            }
            if !self.takes(",") {
                return Ok(extractions);
            }
        }
    }

    fn regexp(&mut self) -> Result<StageKind> {
        self.next();
        let (text, token) = self.text()?;
        let regex = self.check_regex(&text, &token)?;
        let mut names: Vec<&str> = regex.capture_names().flatten().collect();
        if names.is_empty() {
            return Err(Error::syntax("at least one named capture is required", token.span, self.source));
        }
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::syntax(format!("duplicate capture name {:?}", twice[0]), token.span, self.source));
        }
        Ok(StageKind::Regexp(text))
    }

    fn template(&mut self) -> Result<Template> {
        let (text, token) = self.text()?;
        parse_template(&text).map_err(|(at, why)| {
            Error::syntax(format!("invalid template: {why}"), self.span_in(&token, at), self.source)
        })
    }

    fn label_format(&mut self) -> Result<StageKind> {
        self.next();
        let mut formats: Vec<LabelFormat> = Vec::new();
        loop {
            let label = self.name("a label")?;
            self.expect("=")?;
            let value = if self.peek().kind == Kind::Name {
                LabelFormatValue::Rename(self.next().text.to_owned())
            } else if matches!(self.peek().kind, Kind::Text(_)) {
                LabelFormatValue::Template(self.template()?)
            } else {
                return Err(self.unexpected(["a label", "a string"]));
            };
            if label.text == "__error__" {
                return Err(Error::of_type("__error__ cannot be formatted", label.span, self.source));
            }
            if formats.iter().any(|format| format.label == label.text) {
                let message = format!("label {:?} is formatted twice in one stage", label.text);
                return Err(Error::of_type(message, label.span, self.source));
            }
            formats.push(LabelFormat { label: label.text.to_owned(), value });
            if !self.takes(",") {
                return Ok(StageKind::LabelFormat(formats));
            }
        }
    }

    fn picks(&mut self) -> Result<Vec<LabelPick>> {
        let mut picks = Vec::new();
        loop {
            let is_matcher =
                matches!(self.peek_at(1).kind, Kind::Operator(sign) if MatchOperator::by_sign(sign).is_some());
            if is_matcher && self.peek().kind == Kind::Name && matches!(self.peek_at(2).kind, Kind::Text(_)) {
                picks.push(LabelPick::Matching(self.matcher()?));
            } else {
                picks.push(LabelPick::Name(self.name("a label")?.text.to_owned()));
            }
            if !self.takes(",") {
                return Ok(picks);
            }
        }
    }

    fn unwrap(&mut self) -> Result<StageKind> {
        self.next();
        let name = self.name("a label")?;
        if !self.peek().is("(") {
            return Ok(StageKind::Unwrap(Unwrap { label: name.text.to_owned(), conversion: None }));
        }
        let Some(conversion) = Conversion::by_name(name.text) else {
            let message = format!("unknown conversion `{}`", name.text);
            return Err(Error::syntax(message, name.span, self.source).allowing([
                "`duration`",
                "`duration_seconds`",
                "`bytes`",
            ]));
        };
        self.next();
        let label = self.name("a label")?.text.to_owned();
        self.expect(")")?;
        Ok(StageKind::Unwrap(Unwrap { label, conversion: Some(conversion) }))
    }

    /// `or` binds loosest; `and`, `,` and juxtaposition bind alike.
    fn label_filter(&mut self) -> Result<LabelFilter> {
        let mut left = self.label_filter_and()?;
        while self.takes_keyword("or") {
            let right = self.label_filter_and()?;
            left = LabelFilter::Or(Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn label_filter_and(&mut self) -> Result<LabelFilter> {
        let mut left = self.nested(Self::label_condition)?;
        loop {
            let joins = self.takes_keyword("and") || self.takes(",");
            let follows = self.peek().is("(")
                || self.peek().kind == Kind::Name
                    && !["or", "unless", "by", "without", "offset"].iter().any(|word| self.peek().is_keyword(word));
            if !joins && !follows {
                return Ok(left);
            }
            let right = self.nested(Self::label_condition)?;
            left = LabelFilter::And(Box::new(left), Box::new(right));
        }
    }

    fn label_condition(&mut self) -> Result<LabelFilter> {
        if self.takes("(") {
            let inner = self.label_filter()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.peek().kind != Kind::Name {
            return Err(self.unexpected(["a label", "`(`"]));
        }
        let Kind::Operator(sign) = self.peek_at(1).kind else {
            self.next();
            return Err(self.unexpected(["a comparison"]));
        };
        if matches!(self.peek_at(2).kind, Kind::Text(_)) && MatchOperator::by_sign(sign).is_some() {
            return self.matcher().map(LabelFilter::Text);
        }
        let label = self.next().text.to_owned();
        let Some(operator) = Comparison::by_sign(sign) else {
            if MatchOperator::by_sign(sign).is_some() {
                self.next();
                return Err(self.unexpected(["a string"]));
            }
            return Err(self.unexpected(["a comparison"]));
        };
        self.next();
        if self.peek().is_keyword("ip") && self.peek_at(1).is("(") {
            let is_negated = match sign {
                "=" => false,
                "!=" => true,
                _ => return Err(self.refuse(format!("ip() needs `=` or `!=`, not `{sign}`"))),
            };
            return Ok(LabelFilter::Address { label, is_negated, range: self.address()? });
        }
        let is_negative = self.takes("-");
        if !is_negative {
            self.takes("+");
        }
        let quantity = match self.peek().kind {
            Kind::Number(value) | Kind::Bytes(value) if !value.is_finite() => {
                return Err(self.refuse("the number is out of range"));
            }
            Kind::Number(value) => Quantity::Number(if is_negative { -value } else { value }),
            Kind::Duration(value) => Quantity::Duration(if is_negative { -value } else { value }),
            Kind::Bytes(value) if !is_negative => Quantity::Bytes(value),
            _ => return Err(self.unexpected(["a number", "a duration", "a size", "a string"])),
        };
        self.next();
        Ok(LabelFilter::Quantity { label, operator, quantity })
    }
}
