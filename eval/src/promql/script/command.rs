//! The commands of a script.

use regex::Regex;
use tidemill_lang::promql::{ExprKind, parse, parse_duration};

use super::load::Loading;
use super::series::{Item, parse_line};
use super::{Failure, Loaded};
use crate::labels::Labels;

/// One command.
pub(in super::super) enum Command {
    Clear,
    Load(usize, Loaded),
    Eval(Box<Evaluation>),
}

/// A query with what it is expected to give.
pub(in super::super) struct Evaluation {
    pub line: usize,
    pub query: String,
    /// The first and the last time, and their distance; 0 for an instant query.
    pub times: (i64, i64, i64),
    /// The times of an expected range vector.
    pub vector_times: Option<(i64, i64, i64)>,
    pub expected: Expected,
    pub is_ordered: bool,
    pub fails: Option<Vec<Pattern>>,
    pub warns: Vec<Pattern>,
    pub informs: Vec<Pattern>,
    pub warns_not: bool,
    pub informs_not: bool,
}

/// The expected value.
pub(in super::super) enum Expected {
    Scalar(f64),
    Text(String),
    Series(Vec<(Labels, Vec<Item>)>),
}

/// What a message must be.
pub(in super::super) enum Pattern {
    Any,
    Exact(String),
    Regex(Regex),
}

impl Pattern {
    pub(super) fn fits(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == text,
            Self::Regex(regex) => regex.is_match(text),
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Any => ".*",
            Self::Exact(exact) => exact,
            Self::Regex(regex) => regex.as_str(),
        }
    }
}

/// Reads a script.
pub(super) fn parse_commands(script: &str) -> Result<Vec<Command>, Failure> {
    let lines: Vec<&str> =
        script.lines().map(str::trim).map(|line| if line.starts_with('#') { "" } else { line }).collect();
    let mut commands = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let number = at + 1;
        at += 1;
        if line.is_empty() {
            continue;
        }
        let body_end = (at..lines.len()).find(|at| lines[*at].is_empty()).unwrap_or(lines.len());
        let fail = |line: usize, message: String| Failure { line, what: lines[line - 1].to_owned(), message };
        let word = line.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        if word == "clear" {
            commands.push(Command::Clear);
        } else if word.starts_with("load") {
            let mut loading = load(line).map_err(|message| fail(number, message))?;
            for (offset, series) in lines[at..body_end].iter().enumerate() {
                loading.line(series).map_err(|message| fail(at + offset + 1, message))?;
            }
            at = body_end;
            commands.push(Command::Load(number, loading.finish().map_err(|message| fail(number, message))?));
        } else if word.starts_with("eval") {
            let mut evaluation = head(line, number).map_err(|message| fail(number, message))?;
            let mut used = 0;
            for (offset, text) in lines[at..body_end].iter().enumerate() {
                used = offset + 1;
                let is_done = body(&mut evaluation, text).map_err(|message| fail(at + offset + 1, message))?;
                if is_done {
                    break;
                }
            }
            at += used;
            commands.push(Command::Eval(Box::new(evaluation)));
        } else {
            return Err(fail(number, format!("invalid command {line:?}; expected load, clear or eval")));
        }
    }
    Ok(commands)
}

fn load(line: &str) -> Result<Loading, String> {
    let (word, step) = line.split_once(char::is_whitespace).ok_or("load needs a step")?;
    let with_custom_buckets = match word {
        "load" => false,
        "load_with_nhcb" => true,
        _ => return Err("invalid load command. (load[_with_nhcb] <step:duration>)".to_owned()),
    };
    Ok(Loading::new(parse_duration(step.trim())?, with_custom_buckets))
}

/// The first line of an evaluation.
fn head(line: &str, number: usize) -> Result<Evaluation, String> {
    let pattern = |text: &str| Regex::new(text).map_err(|error| error.to_string());
    let instant = pattern(r"^eval(?:_(fail|warn|ordered|info))?\s+instant\s+(?:at\s+(.+?))?\s+(.+)$")?;
    let range = pattern(r"^eval(?:_(fail|warn|info))?\s+range\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+?)\s+(.+)$")?;
    let (mode, times, query) = if let Some(found) = instant.captures(line) {
        let at = found.get(2).map_or(Ok(0), |at| parse_duration(at.as_str()))?;
        (found.get(1), (at, at, 0), found[3].to_owned())
    } else if let Some(found) = range.captures(line) {
        let times = (parse_duration(&found[2])?, parse_duration(&found[3])?, parse_duration(&found[4])?);
        if times.1 < times.0 {
            return Err("end timestamp is before start timestamp".to_owned());
        }
        (found.get(1), times, found[5].to_owned())
    } else {
        return Err("expected `eval instant [at <time>] <query>` or `eval range from <time> to <time> step <step> \
                    <query>`"
            .to_owned());
    };
    parse(&query).map_err(|error| error.to_string())?;
    let mode = mode.map_or("", |mode| mode.as_str());
    let any = |is: bool| if is { vec![Pattern::Any] } else { Vec::new() };
    Ok(Evaluation {
        line: number,
        query,
        times,
        vector_times: None,
        expected: Expected::Series(Vec::new()),
        is_ordered: mode == "ordered",
        fails: (mode == "fail").then(Vec::new),
        warns: any(mode == "warn"),
        informs: any(mode == "info"),
        warns_not: false,
        informs_not: false,
    })
}

/// One of the lines below an evaluation; tells whether no more belong to it.
fn body(evaluation: &mut Evaluation, line: &str) -> Result<bool, String> {
    if let Some(fails) = &mut evaluation.fails {
        if let Some(message) = line.strip_prefix("expected_fail_message") {
            fails.push(Pattern::Exact(message.trim().to_owned()));
            return Ok(true);
        }
        if let Some(regex) = line.strip_prefix("expected_fail_regexp") {
            fails.push(Pattern::Regex(Regex::new(regex.trim()).map_err(|error| error.to_string())?));
            return Ok(true);
        }
    }
    if let Some(times) = line.strip_prefix("expect range vector") {
        let words: Vec<&str> = times.split_whitespace().collect();
        let ["from", from, "to", to, "step", step] = words.as_slice() else {
            return Err(format!("invalid range vector definition {line:?}"));
        };
        evaluation.vector_times = Some((parse_duration(from)?, parse_duration(to)?, parse_duration(step)?));
        return Ok(false);
    }
    if let Some(text) = line.strip_prefix("expect string") {
        let token = parse(text.trim()).map_err(|error| error.to_string())?;
        let ExprKind::Text(text) = token.kind else {
            return Err("expected string literal not valid - a quoted string literal is required".to_owned());
        };
        evaluation.expected = Expected::Text(String::from_utf8_lossy(&text.0).into_owned());
        return Ok(false);
    }
    if line == "expect" || line.starts_with("expect ") {
        expect(evaluation, line)?;
        return Ok(false);
    }
    if let Some(value) = lone_number(line) {
        evaluation.expected = Expected::Scalar(value);
        return Ok(true);
    }
    let (labels, items) = parse_line(line)?;
    if items.len() > 1 && evaluation.times.2 == 0 && evaluation.vector_times.is_none() {
        return Err("several values of an instant query; say `expect range vector` first".to_owned());
    }
    match &mut evaluation.expected {
        Expected::Series(series) => {
            series.retain(|(known, _)| *known != labels);
            series.push((labels, items));
        }
        Expected::Scalar(_) | Expected::Text(_) => return Err("a series beside a scalar or string".to_owned()),
    }
    Ok(false)
}

fn expect(evaluation: &mut Evaluation, line: &str) -> Result<(), String> {
    let rest = line.strip_prefix("expect").unwrap_or_default().trim();
    let (what, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let rest = rest.trim();
    let pattern = if rest.is_empty() {
        Pattern::Any
    } else if let Some(message) = rest.strip_prefix("msg:") {
        Pattern::Exact(message.trim().to_owned())
    } else if let Some(regex) = rest.strip_prefix("regex:") {
        Pattern::Regex(Regex::new(regex.trim()).map_err(|error| error.to_string())?)
    } else {
        return Err("invalid expect statement, must match `expect <type> <match_type>: <string>` format".to_owned());
    };
    match what {
        "ordered" => evaluation.is_ordered = true,
        "fail" if evaluation.fails.is_some() => {
            return Err("invalid expect lines, multiple expect fail lines are not allowed".to_owned());
        }
        "fail" => evaluation.fails = Some(vec![pattern]),
        "warn" => evaluation.warns.push(pattern),
        "info" => evaluation.informs.push(pattern),
        "no_warn" => evaluation.warns_not = true,
        "no_info" => evaluation.informs_not = true,
        // That it succeeds is expected of every query that is not expected to fail.
        "ok" => {}
        _ => return Err(format!("invalid expected error/annotation type {what}")),
    }
    if evaluation.informs_not && !evaluation.informs.is_empty() {
        return Err("invalid expect lines, info and no_info cannot be used together".to_owned());
    }
    if evaluation.warns_not && !evaluation.warns.is_empty() {
        return Err("invalid expect lines, warn and no_warn cannot be used together".to_owned());
    }
    Ok(())
}

/// The number that a line consists of.
fn lone_number(line: &str) -> Option<f64> {
    let digits = line.strip_prefix(['+', '-']).unwrap_or(line);
    let is_plausible = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || digits.eq_ignore_ascii_case("inf")
        || digits.eq_ignore_ascii_case("nan");
    if !is_plausible {
        return None;
    }
    match digits.strip_prefix("0x") {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16).ok().map(|value| value as f64),
        None => line.parse().ok(),
    }
}
