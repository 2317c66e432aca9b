//! Times and ages as people read them.

use jiff::Timestamp;
use tidemill_types::TimestampNs;

/// A time in UTC, to the second.
pub fn when(at: TimestampNs) -> String {
    match Timestamp::from_nanosecond(i128::from(at.0)) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => at.0.to_string(),
    }
}

/// An age, coarse: `0 s`, `12 s`, `3 min`, `5 h`, `2 d`.
pub fn age(ms: i64) -> String {
    match ms / 1000 {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// The first line of a text, cut to `width` characters.
pub fn first_line(text: &str, width: usize) -> String {
    let line = text.lines().next().unwrap_or("");
    if line.chars().count() <= width { line.to_owned() } else { line.chars().take(width - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ages_are_short() {
        assert_eq!(when(TimestampNs(946_684_800_000_000_000)), "2000-01-01T00:00:00Z");
        assert_eq!(
            [age(900), age(61_000), age(180_000), age(18_000_000), age(172_800_000)],
            ["0 s", "61 s", "3 min", "5 h", "2 d"]
        );
        assert_eq!(first_line("abcdef\nx", 4), "abc…");
    }
}
