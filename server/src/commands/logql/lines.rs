//! Lines as people read them: time, level, labels that differ, the line; colours only on a terminal.

use std::io::IsTerminal as _;

use serde_json::Value;
use tidemill_types::TimestampNs;

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// It is.
    On,
    /// It is not.
    Off,
}

impl Colours {
    /// On where stdout is a terminal and `NO_COLOR` does not say otherwise.
    pub fn of_stdout() -> Self {
        let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if is_wanted && std::io::stdout().is_terminal() { Self::On } else { Self::Off }
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::On if !code.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

/// One line of an answer.
#[derive(Debug)]
pub struct Line<'a> {
    /// Nanoseconds since 1970.
    pub time_ns: i64,
    /// Its labels.
    pub labels: String,
    /// `detected_level` or `level`, where it has one.
    pub level: &'a str,
    /// The text.
    pub text: &'a str,
}

/// The lines of all streams of an answer.
pub fn entries(data: &Value, order: Order) -> Vec<Line<'_>> {
    of_streams(data["result"].as_array().map(Vec::as_slice).unwrap_or_default(), order)
}

/// In which order lines of several streams stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Newest first.
    NewestFirst,
    /// Oldest first.
    OldestFirst,
}

/// The lines of streams.
pub fn of_streams(streams: &[Value], order: Order) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for stream in streams {
        let labels = labels_text(&stream["stream"]);
        let level = ["detected_level", "level"].iter().find_map(|name| stream["stream"][*name].as_str());
        for value in stream["values"].as_array().into_iter().flatten() {
            let time_ns = value[0].as_str().and_then(|time| time.parse().ok()).unwrap_or_default();
            let text = value[1].as_str().unwrap_or_default();
            lines.push(Line { time_ns, labels: labels.clone(), level: level.unwrap_or_default(), text });
        }
    }
    match order {
        Order::NewestFirst => lines.sort_by_key(|line| std::cmp::Reverse(line.time_ns)),
        Order::OldestFirst => lines.sort_by_key(|line| line.time_ns),
    }
    lines
}

/// Labels as LogQL writes them.
pub fn labels_text(labels: &Value) -> String {
    let pairs = labels.as_object().into_iter().flatten();
    let pairs: Vec<String> =
        pairs.map(|(name, value)| format!("{name}={:?}", value.as_str().unwrap_or_default())).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// A time in UTC, to the millisecond.
pub fn time_text(time_ns: i64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(TimestampNs(time_ns).0)) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
        Err(_) => time_ns.to_string(),
    }
}

/// Text of an answer with lines.
pub fn render(data: &Value, order: Order, colours: Colours) -> String {
    text_of(&entries(data, order), colours)
}

/// Lines as text. What is no letter is escaped, so that a line cannot write to the terminal what it likes.
pub fn text_of(lines: &[Line<'_>], colours: Colours) -> String {
    let mut text = String::new();
    for line in lines {
        let colour = match line.level {
            "error" | "fatal" | "critical" => "31",
            "warn" => "33",
            "debug" | "trace" => "90",
            _ => "",
        };
        let shown: String = line
            .text
            .chars()
            .flat_map(|letter| {
                let is_plain = !letter.is_control() || letter == '\t';
                let escaped = (!is_plain).then(|| letter.escape_default());
                escaped.into_iter().flatten().chain(is_plain.then_some(letter))
            })
            .collect();
        text.push_str(&colours.paint("2", &time_text(line.time_ns)));
        text.push(' ');
        text.push_str(&colours.paint("36", &line.labels));
        text.push(' ');
        text.push_str(&colours.paint(colour, &shown));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stand_in_order_and_cannot_write_to_the_terminal() {
        let data = serde_json::json!({ "resultType": "streams", "result": [
            { "stream": { "a": "x", "level": "error" }, "values": [["3000000", "c\u{1b}[2J"], ["1000000", "a"]] },
            { "stream": { "a": "y" }, "values": [["2000000", "b"]] },
        ]});
        let text = render(&data, Order::NewestFirst, Colours::Off);
        assert_eq!(
            text,
            "1970-01-01T00:00:00.003Z {a=\"x\", level=\"error\"} c\\u{1b}[2J\n\
             1970-01-01T00:00:00.002Z {a=\"y\"} b\n\
             1970-01-01T00:00:00.001Z {a=\"x\", level=\"error\"} a\n"
        );
        assert!(render(&data, Order::NewestFirst, Colours::On).contains("\u{1b}[31ma\u{1b}[0m"));
        // Also where each stream has one line, which tells no order.
        let oldest = render(&data, Order::OldestFirst, Colours::Off);
        assert_eq!(oldest.lines().collect::<Vec<_>>(), text.lines().rev().collect::<Vec<_>>());
    }
}
