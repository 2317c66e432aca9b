//! Trees as text again: one line where that fits, else one stage or part per line.

use super::ast::*;
use super::dialect::{DURATIONS, SIZES};

/// The longest line that is not broken.
const LINE_CHARS: usize = 100;
const INDENT: &str = "  ";

/// `query` as text that reads back as the same tree.
pub fn print(query: &Query) -> String {
    match query {
        Query::Log(query) => log_lines(query, 0, ""),
        Query::Metric(metric) => metric_lines(metric, 0),
    }
}

/// A metric in one line.
pub fn print_metric(metric: &Metric) -> String {
    match &metric.kind {
        MetricKind::Literal(value) => number(*value),
        MetricKind::Vector(value) => format!("vector({})", number(*value)),
        MetricKind::Range(range) => {
            format!("{}{}{})", range_opening(range), print_log(&range.query), range_suffix(range))
                + &range.grouping.as_ref().map(|grouping| format!(" {}", print_grouping(grouping))).unwrap_or_default()
        }
        MetricKind::Aggregation(aggregation) => {
            format!("{}{})", vector_opening(aggregation), print_metric(&aggregation.of))
        }
        MetricKind::Binary(binary) => {
            let sign = binary_sign(binary);
            format!("({} {sign} {})", print_metric(&binary.left), print_metric(&binary.right))
        }
        MetricKind::LabelReplace(replace) => {
            format!("label_replace({},{})", print_metric(&replace.of), replace_texts(replace))
        }
    }
}

/// A selector and its pipeline in one line.
pub fn print_log(query: &LogQuery) -> String {
    let mut text = print_selector(&query.matchers);
    for stage in &query.stages {
        text.push(' ');
        text.push_str(&print_stage(&stage.kind));
    }
    text
}

/// `{a="b", c=~"d"}`
pub fn print_selector(matchers: &[Matcher]) -> String {
    format!("{{{}}}", matchers.iter().map(print_matcher).collect::<Vec<_>>().join(", "))
}

fn metric_lines(metric: &Metric, depth: usize) -> String {
    let pad = INDENT.repeat(depth);
    let line = format!("{pad}{}", print_metric(metric));
    if line.chars().count() <= LINE_CHARS {
        return line;
    }
    match &metric.kind {
        MetricKind::Literal(_) | MetricKind::Vector(_) => line,
        MetricKind::Range(range) => {
            let inner = log_lines(&range.query, depth + 1, &range_suffix(range));
            let grouping = range.grouping.as_ref().map(|own| format!(" {}", print_grouping(own))).unwrap_or_default();
            format!("{pad}{}\n{inner}\n{pad}){grouping}", range_opening(range))
        }
        MetricKind::Aggregation(aggregation) => {
            let inner = metric_lines(&aggregation.of, depth + 1);
            format!("{pad}{}\n{inner}\n{pad})", vector_opening(aggregation))
        }
        MetricKind::Binary(binary) => {
            let left = metric_lines(&binary.left, depth + 1);
            let right = metric_lines(&binary.right, depth + 1);
            format!("{pad}(\n{left}\n{pad}{}\n{right}\n{pad})", binary_sign(binary))
        }
        MetricKind::LabelReplace(replace) => {
            let inner = metric_lines(&replace.of, depth + 1);
            format!("{pad}label_replace(\n{inner},\n{pad}{INDENT}{}\n{pad})", replace_texts(replace))
        }
    }
}

fn log_lines(query: &LogQuery, depth: usize, suffix: &str) -> String {
    let pad = INDENT.repeat(depth);
    let line = format!("{pad}{}{suffix}", print_log(query));
    if line.chars().count() <= LINE_CHARS {
        return line;
    }
    let mut text = format!("{pad}{}", print_selector(&query.matchers));
    let mut after_filter = false;
    for stage in &query.stages {
        let is_filter = matches!(stage.kind, StageKind::LineFilter(_));
        text.push_str(if is_filter && after_filter { " " } else { "\n" });
        if !(is_filter && after_filter) {
            text.push_str(&pad);
            text.push_str(INDENT);
        }
        text.push_str(&print_stage(&stage.kind));
        after_filter = is_filter;
    }
    text + suffix
}

fn range_opening(range: &RangeAggregation) -> String {
    let parameter = range.parameter.map(|value| format!("{},", number(value))).unwrap_or_default();
    format!("{}({parameter}", range.function.name())
}

fn range_suffix(range: &RangeAggregation) -> String {
    let offset = match range.offset_ns {
        0 => String::new(),
        offset if offset < 0 => format!(" offset -{}", print_duration(-offset)),
        offset => format!(" offset {}", print_duration(offset)),
    };
    format!("[{}]{offset}", print_duration(range.range_ns))
}

fn vector_opening(aggregation: &VectorAggregation) -> String {
    let grouping = aggregation.grouping.as_ref().map(|own| format!(" {}", print_grouping(own))).unwrap_or_default();
    let count = aggregation.count.map(|count| format!("{count},")).unwrap_or_default();
    format!("{}{grouping}({count}", aggregation.function.name())
}

fn binary_sign(binary: &Binary) -> String {
    let mut sign = binary.operator.sign().to_owned();
    if binary.is_bool {
        sign.push_str(" bool");
    }
    if let Some(labels) = &binary.matching.labels {
        let keyword = if labels.is_on { "on" } else { "ignoring" };
        sign.push_str(&format!(" {keyword} ({})", labels.labels.join(",")));
    }
    match binary.matching.cardinality {
        Cardinality::OneToOne => return sign,
        Cardinality::ManyToOne => sign.push_str(" group_left"),
        Cardinality::OneToMany => sign.push_str(" group_right"),
    }
    if !binary.matching.include.is_empty() {
        sign.push_str(&format!(" ({})", binary.matching.include.join(",")));
    }
    sign
}

fn replace_texts(replace: &LabelReplace) -> String {
    [&replace.destination, &replace.replacement, &replace.source, &replace.pattern].map(|text| quote(text)).join(",")
}

fn print_grouping(grouping: &Grouping) -> String {
    format!("{} ({})", if grouping.is_without { "without" } else { "by" }, grouping.labels.join(","))
}

fn print_matcher(matcher: &Matcher) -> String {
    format!("{}{}{}", matcher.name, matcher.operator.sign(), quote(&matcher.value))
}

fn print_stage(kind: &StageKind) -> String {
    match kind {
        StageKind::LineFilter(filter) => print_line_filter(filter),
        StageKind::Json(extractions) => {
            let list: Vec<_> =
                extractions.iter().map(|one| format!("{}={}", one.label, quote(&one.expression))).collect();
            spaced("| json", &list.join(","))
        }
        StageKind::Logfmt { is_strict, keeps_empty, extractions } => {
            let mut text = "| logfmt".to_owned();
            if *is_strict {
                text.push_str(" --strict");
            }
            if *keeps_empty {
                text.push_str(" --keep-empty");
            }
            let list: Vec<_> = extractions.iter().map(|one| format!("{}={}", one.label, quote(&one.key))).collect();
            spaced(&text, &list.join(","))
        }
        StageKind::Regexp(pattern) => format!("| regexp {}", quote(pattern)),
        StageKind::Pattern(pattern) => format!("| pattern {}", quote(&pattern.text)),
        StageKind::Unpack => "| unpack".to_owned(),
        StageKind::LabelFilter(filter) => format!("| {}", print_label_filter(filter)),
        StageKind::LineFormat(template) => format!("| line_format {}", quote(&template.text)),
        StageKind::LabelFormat(formats) => {
            let list: Vec<_> = formats
                .iter()
                .map(|format| match &format.value {
                    LabelFormatValue::Rename(from) => format!("{}={from}", format.label),
                    LabelFormatValue::Template(template) => format!("{}={}", format.label, quote(&template.text)),
                })
                .collect();
            format!("| label_format {}", list.join(","))
        }
        StageKind::Decolorize => "| decolorize".to_owned(),
        StageKind::Drop(picks) => format!("| drop {}", print_picks(picks)),
        StageKind::Keep(picks) => format!("| keep {}", print_picks(picks)),
        StageKind::Unwrap(unwrap) => match unwrap.conversion {
            Some(conversion) => format!("| unwrap {}({})", conversion.name(), unwrap.label),
            None => format!("| unwrap {}", unwrap.label),
        },
    }
}

fn spaced(text: &str, more: &str) -> String {
    if more.is_empty() { text.to_owned() } else { format!("{text} {more}") }
}

fn print_picks(picks: &[LabelPick]) -> String {
    let list: Vec<_> = picks
        .iter()
        .map(|pick| match pick {
            LabelPick::Name(name) => name.clone(),
            LabelPick::Matching(matcher) => print_matcher(matcher),
        })
        .collect();
    list.join(",")
}

/// Alternatives of a negated filter are printed as filters of their own, which say the same.
fn print_line_filter(filter: &LineFilter) -> String {
    let sign = filter.operator.sign();
    let matches: Vec<String> = filter
        .alternatives
        .iter()
        .map(|one| match one {
            LineMatch::Text(text) => quote(text),
            LineMatch::Pattern(pattern) => quote(&pattern.text),
            LineMatch::Address(range) => format!("ip({})", quote(range.text())),
        })
        .collect();
    let joint = if filter.operator.is_negated() { format!(" {sign} ") } else { " or ".to_owned() };
    format!("{sign} {}", matches.join(&joint))
}

fn print_label_filter(filter: &LabelFilter) -> String {
    match filter {
        LabelFilter::And(left, right) => format!("( {} , {} )", print_label_filter(left), print_label_filter(right)),
        LabelFilter::Or(left, right) => format!("( {} or {} )", print_label_filter(left), print_label_filter(right)),
        LabelFilter::Text(matcher) => print_matcher(matcher),
        LabelFilter::Quantity { label, operator, quantity } => {
            let quantity = match quantity {
                Quantity::Number(value) => number(*value),
                Quantity::Duration(value) if *value < 0 => format!("-{}", print_duration(-value)),
                Quantity::Duration(value) => print_duration(*value),
                Quantity::Bytes(value) => print_bytes(*value),
            };
            format!("{label}{}{quantity}", operator.sign())
        }
        LabelFilter::Address { label, is_negated, range } => {
            format!("{label}{}ip({})", if *is_negated { "!=" } else { "=" }, quote(range.text()))
        }
    }
}

fn number(value: f64) -> String {
    value.to_string()
}

/// The units of a duration, largest first: `1h30m`.
pub fn print_duration(nanoseconds: i64) -> String {
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    let mut rest = nanoseconds;
    for name in ["h", "m", "s", "ms", "us", "ns"] {
        let factor = DURATIONS.iter().find(|unit| unit.name == name).map_or(1, |unit| unit.factor);
        if rest / factor > 0 {
            text.push_str(&format!("{}{name}", rest / factor));
            rest %= factor;
        }
    }
    text
}

/// A size in the largest decimal unit that gives it back exactly with one digit; else in bytes.
fn print_bytes(bytes: f64) -> String {
    let decimal = ["PB", "TB", "GB", "MB", "kB"];
    for unit in decimal.iter().filter_map(|name| SIZES.iter().find(|unit| unit.name == *name)) {
        let scaled = bytes / unit.factor as f64;
        if scaled >= 1.0 {
            let text = if scaled < 10.0 { format!("{scaled:.1}") } else { format!("{scaled:.0}") };
            if text.parse::<f64>().is_ok_and(|value| value * unit.factor as f64 == bytes) {
                return format!("{text}{}", unit.name);
            }
        }
    }
    format!("{bytes}B")
}

/// `text` in double quotes, with Go's escapes where it needs them.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control < ' ' || control == '\u{7f}' => {
                quoted.push_str(&format!("\\x{:02x}", u32::from(control)))
            }
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}
