//! Pipelines, ready to run over lines.

use std::borrow::Cow;

use arrow::array::Array;
use regex::Regex;
use tidemill_lang::go_regex::compile_regex;
use tidemill_lang::logql::ast::{
    Conversion, Grouping, LabelFormat, LabelFormatValue, LabelPick, LogQuery, StageKind, Unwrap,
};
use tidemill_lang::logql::pattern::Pattern;
use tidemill_lang::logql::template::Template;

use super::batch::{LogBatch, StreamLabels};
use super::bytes_text::{parse_bytes, parse_duration_ns};
use super::filter::{LabelTest, LineTest, TextTest};
use super::labels::{ERROR, ERROR_DETAILS, Origin, RowLabels};
use super::parsers::{
    JsonPaths, Line, LogfmtOptions, Required, parse_json, parse_json_paths, parse_logfmt, parse_pattern, unpack,
};
use super::required::required_behind;
use super::template::{TemplateContext, run_template};
use crate::error::{Error, Result};

/// A line on its way.
#[derive(Debug, Default)]
pub(super) struct Row<'a> {
    /// Nanoseconds since 1970.
    pub time_ns: i64,
    pub line: Cow<'a, str>,
    pub labels: RowLabels<'a>,
    /// The sample, once it was unwrapped.
    pub value: f64,
}

impl<'a> Row<'a> {
    /// Becomes line `index` of the batch.
    pub fn load(&mut self, batch: &'a LogBatch, index: usize) {
        self.time_ns = batch.time.value(index);
        self.line = Cow::Borrowed(batch.line.value(index));
        let stream = &batch.streams[batch.stream.value(index) as usize];
        self.load_labels(stream);
        for (name, column) in &batch.metadata {
            if column.is_valid(index) {
                self.labels.push_base(name, column.value(index), Origin::Metadata);
            }
        }
        let is_own = |name: &str| batch.metadata.iter().any(|(own, column)| own == name && column.is_valid(index));
        for (name, value) in stream.metadata().filter(|(name, _)| !is_own(name)) {
            self.labels.push_base(name, value, Origin::Metadata);
        }
    }

    /// Becomes a line of a stream that has nothing of its own.
    pub fn load_stream(&mut self, stream: &'a StreamLabels) {
        self.load_labels(stream);
        for (name, value) in stream.metadata() {
            self.labels.push_base(name, value, Origin::Metadata);
        }
    }

    fn load_labels(&mut self, stream: &'a StreamLabels) {
        self.labels.clear();
        for (name, value) in stream.iter() {
            self.labels.push_base(name, value, Origin::Stream);
        }
    }
}

/// What happens to every line.
#[derive(Debug)]
pub(super) struct Pipeline {
    steps: Vec<Step>,
    now_ns: i64,
}

#[derive(Debug)]
enum Step {
    Lines(LineTest),
    Json(Required),
    JsonPaths(JsonPaths, Required),
    Logfmt(LogfmtOptions, Required),
    Regexp(Regex, Required),
    Pattern(Pattern, Required),
    Unpack(Required),
    Labels(LabelTest),
    LineFormat(Template),
    LabelFormat(Vec<LabelFormat>),
    Decolorize,
    Drop(Picks),
    Keep(Picks),
    Unwrap(Unwrap),
}

/// Labels by name, and perhaps value.
#[derive(Debug)]
struct Picks(Vec<(String, Option<TextTest>)>);

impl Picks {
    fn new(picks: &[LabelPick]) -> Result<Self> {
        let picks = picks.iter().map(|pick| match pick {
            LabelPick::Name(name) => Ok((name.clone(), None)),
            LabelPick::Matching(matcher) => Ok((matcher.name.clone(), Some(TextTest::new(matcher)?))),
        });
        picks.collect::<Result<_>>().map(Self)
    }

    fn hold(&self, name: &str, value: &str) -> bool {
        self.0.iter().any(|(own, test)| own == name && test.as_ref().is_none_or(|test| test.meets(value)))
    }

    fn name_error(&self) -> bool {
        self.0.iter().any(|(name, _)| name == ERROR || name == ERROR_DETAILS)
    }
}

impl Pipeline {
    /// The pipeline of `query`, whose labels are needed for `grouping` only where there is one.
    pub fn new(query: &LogQuery, grouping: Option<&Grouping>, now_ns: i64) -> Result<Self> {
        let behind = required_behind(&query.stages, grouping);
        let mut steps = Vec::with_capacity(query.stages.len());
        for (stage, required) in query.stages.iter().zip(behind) {
            let is_parser = matches!(
                stage.kind,
                StageKind::Json(_) | StageKind::Logfmt { .. } | StageKind::Regexp(_) | StageKind::Pattern(_)
            );
            if is_parser && required.is_none() {
                continue;
            }
            if let StageKind::LineFilter(filter) = &stage.kind {
                // Line filters are cheap, so they go before what does not write lines. Behind `decolorize` they then see the colours
                // still, as they do in Loki.
                let writes_lines = |step: &Step| matches!(step, Step::LineFormat(_) | Step::Unpack(_));
                let is_filter = |step: &Step| matches!(step, Step::Lines(_));
                let start = steps.iter().rposition(writes_lines).map_or(0, |at| at + 1);
                let filters = steps[start..].iter().take_while(|step| is_filter(step)).count();
                steps.insert(start + filters, Step::Lines(LineTest::new(filter)?));
                continue;
            }
            steps.push(match &stage.kind {
                StageKind::Json(extractions) if extractions.is_empty() => Step::Json(required),
                StageKind::Json(extractions) => {
                    let paths = extractions.iter().map(|one| (one.label.clone(), one.path.clone()));
                    Step::JsonPaths(paths.collect(), required)
                }
                StageKind::Logfmt { is_strict, keeps_empty, extractions } => {
                    let extractions = extractions.iter().map(|one| (one.label.clone(), one.key.clone())).collect();
                    let options = LogfmtOptions { is_strict: *is_strict, keeps_empty: *keeps_empty, extractions };
                    Step::Logfmt(options, required)
                }
                StageKind::Regexp(pattern) => Step::Regexp(compile_regex(pattern).map_err(Error::Data)?, required),
                StageKind::Pattern(pattern) => Step::Pattern(pattern.clone(), required),
                StageKind::Unpack => Step::Unpack(required),
                StageKind::LabelFilter(filter) => Step::Labels(LabelTest::new(filter)?),
                StageKind::LineFormat(template) => Step::LineFormat(template.clone()),
                StageKind::LabelFormat(formats) => Step::LabelFormat(formats.clone()),
                StageKind::Decolorize => Step::Decolorize,
                StageKind::Drop(picks) => Step::Drop(Picks::new(picks)?),
                StageKind::Keep(picks) => Step::Keep(Picks::new(picks)?),
                StageKind::LineFilter(_) => continue,
                StageKind::Unwrap(unwrap) => Step::Unwrap(unwrap.clone()),
            });
        }
        Ok(Self { steps, now_ns })
    }

    /// Whether it looks at lines only and changes nothing.
    pub fn only_filters_lines(&self) -> bool {
        self.steps.iter().all(|step| matches!(step, Step::Lines(_)))
    }

    /// Whether nothing beside line filters reads lines or their times, so that lines with the same labels come out with the same.
    pub fn goes_by_labels(&self) -> bool {
        use LabelFormatValue::Rename;
        self.steps.iter().all(|step| match step {
            Step::Lines(_) | Step::Labels(_) | Step::Drop(_) | Step::Keep(_) => true,
            Step::LabelFormat(formats) => formats.iter().all(|format| matches!(format.value, Rename(_))),
            _ => false,
        })
    }

    /// Whether lines may be left out for what they say.
    pub fn filters_lines(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Lines(_)))
    }

    /// Whether a template may read the time of a line.
    pub fn runs_templates(&self) -> bool {
        use LabelFormatValue::Template;
        self.steps.iter().any(|step| match step {
            Step::LineFormat(_) => true,
            Step::LabelFormat(formats) => formats.iter().any(|format| matches!(format.value, Template(_))),
            _ => false,
        })
    }

    /// Whether the line filters keep a line; only of use where nothing writes lines.
    pub fn keeps_line(&self, line: &str) -> bool {
        self.steps.iter().all(|step| match step {
            Step::Lines(test) => test.keeps(line),
            _ => true,
        })
    }

    /// Runs what is no line filter; whether the line stays.
    pub fn run_on_labels(&self, row: &mut Row<'_>) -> bool {
        self.steps.iter().all(|step| matches!(step, Step::Lines(_)) || self.step(step, row))
    }

    /// Runs the pipeline over the line; whether it stays.
    pub fn run(&self, row: &mut Row<'_>) -> bool {
        self.steps.iter().all(|step| self.step(step, row))
    }

    fn step(&self, step: &Step, row: &mut Row<'_>) -> bool {
        let labels = &mut row.labels;
        match step {
            Step::Lines(test) => return test.keeps(&row.line),
            Step::Labels(test) => return test.keeps(labels),
            Step::Json(required) => parse_json((&row.line).into(), labels, required),
            Step::JsonPaths(paths, required) => parse_json_paths((&row.line).into(), labels, paths, required),
            Step::Logfmt(options, required) => parse_logfmt((&row.line).into(), labels, options, required),
            Step::Pattern(pattern, required) => parse_pattern((&row.line).into(), labels, pattern, required),
            Step::Regexp(regex, required) => parse_regexp((&row.line).into(), labels, regex, required),
            Step::Unpack(required) => {
                if let Some(line) = unpack((&row.line).into(), labels, required) {
                    row.line = line;
                }
            }
            Step::LineFormat(template) => self.line_format(template, row),
            Step::LabelFormat(formats) => self.label_format(formats, row),
            Step::Decolorize => {
                if row.line.contains('\u{1b}') {
                    row.line = Cow::Owned(decolorized(&row.line));
                }
            }
            Step::Drop(picks) => labels.retain(picks.name_error(), |name, value| !picks.hold(name, value)),
            Step::Keep(picks) => labels.retain(false, |name, value| picks.hold(name, value)),
            Step::Unwrap(unwrap) => return take_value(unwrap, row),
        }
        true
    }

    fn context<'c>(&self, row: &'c Row<'_>) -> TemplateContext<'c> {
        TemplateContext { line: &row.line, time_ns: row.time_ns, now_ns: self.now_ns }
    }

    fn line_format(&self, template: &Template, row: &mut Row<'_>) {
        match run_template(template, &row.labels, self.context(row)) {
            Ok(line) => row.line = Cow::Owned(line),
            Err(why) => row.labels.set_error("TemplateFormatErr", why),
        }
    }

    fn label_format(&self, formats: &[LabelFormat], row: &mut Row<'_>) {
        for format in formats {
            match &format.value {
                LabelFormatValue::Rename(from) => row.labels.rename(from, &format.label),
                LabelFormatValue::Template(template) => match run_template(template, &row.labels, self.context(row)) {
                    Ok(value) => row.labels.set(&format.label, value, Origin::Parsed),
                    Err(why) => row.labels.set_error("TemplateFormatErr", why),
                },
            }
        }
    }
}

fn parse_regexp<'a>(line: Line<'_, 'a>, labels: &mut RowLabels<'a>, regex: &Regex, required: &Required) {
    let Some(found) = regex.captures(line.text()) else { return };
    for name in regex.capture_names().flatten() {
        if required.needs(name) {
            let value = found.name(name).map_or(Cow::Borrowed(""), |value| line.part(value.as_str()));
            labels.add_parsed(Cow::Owned(name.to_owned()), value);
        }
    }
}

/// The line without the terminal's colours.
fn decolorized(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("\u{1b}[") {
        plain.push_str(&rest[..at]);
        let behind = &rest[at + 2..];
        let end = behind.find(|c: char| !c.is_ascii_digit() && c != ';').unwrap_or(behind.len());
        match behind[end..].chars().next() {
            Some(letter) if letter.is_ascii_alphabetic() => rest = &behind[end + 1..],
            _ => {
                plain.push_str("\u{1b}[");
                rest = behind;
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// Makes the label the sample; a line without the label goes, one whose value cannot be read is marked.
fn take_value(unwrap: &Unwrap, row: &mut Row<'_>) -> bool {
    let Some(text) = row.labels.get_or_dropped(&unwrap.label).filter(|text| !text.is_empty()) else { return false };
    let value = match unwrap.conversion {
        None => text.parse().ok(),
        Some(Conversion::Bytes) => parse_bytes(text),
        Some(Conversion::Duration | Conversion::DurationSeconds) => parse_duration_ns(text).map(|value| value / 1e9),
    };
    match value {
        Some(value) => row.value = value,
        None => {
            let details = format!("{text:?} is no value to unwrap");
            row.value = 0.0;
            row.labels.set_error("SampleExtractionErr", details);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::decolorized;

    #[test]
    fn colours_go_and_other_escapes_stay() {
        assert_eq!(decolorized("\u{1b}[31mred\u{1b}[0m \u{1b}[1;32mx\u{1b}[m \u{1b}[é"), "red x \u{1b}[é");
    }
}
