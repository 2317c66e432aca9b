//! Times of templates: Go's layouts, and zones by name.

use std::cmp::Ordering;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Timelike, Utc};
use chrono_tz::Tz;

/// A moment, seen in a zone.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Moment {
    time: DateTime<Tz>,
    /// A fixed offset in seconds that was read with the time.
    fixed_offset: Option<i32>,
}

/// The names of the months.
pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// The names of the days of the week, from Sunday.
pub(super) const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The parts of a layout, longest first where one begins another.
const PARTS: [&str; 30] = [
    "January", "Monday", "2006", "-07:00", "Z07:00", "-0700", "Z0700", "MST", "Jan", "Mon", "002", "-07", "01", "02",
    "03", "04", "05", "06", "15", "PM", "pm", "_2", "1", "2", "3", "4", "5", ".0", ".9", ",0",
];

impl Moment {
    /// The moment of so many nanoseconds since 1970, in UTC.
    pub fn of_ns(nanoseconds: i64) -> Self {
        Self { time: DateTime::<Utc>::from_timestamp_nanos(nanoseconds).with_timezone(&Tz::UTC), fixed_offset: None }
    }

    /// The moment of so many seconds since 1970, in UTC; `None` beyond what calendars reach.
    pub fn of_seconds(seconds: i64, nanoseconds: u32) -> Option<Self> {
        let time = DateTime::<Utc>::from_timestamp(seconds, nanoseconds)?;
        Some(Self { time: time.with_timezone(&Tz::UTC), fixed_offset: None })
    }

    /// The beginning of the year 1, which stands for no time.
    pub fn zero() -> Self {
        Self::of_seconds(-62_135_596_800, 0).unwrap_or_else(|| Self::of_ns(0))
    }

    /// Seconds since 1970.
    pub fn seconds(&self) -> i64 {
        self.time.timestamp()
    }

    /// Milliseconds since 1970.
    pub fn milliseconds(&self) -> i64 {
        self.time.timestamp_millis()
    }

    /// Microseconds since 1970.
    pub fn microseconds(&self) -> i64 {
        self.time.timestamp_micros()
    }

    /// Nanoseconds since 1970; 0 where they are too many.
    pub fn nanoseconds(&self) -> i64 {
        self.time.timestamp_nanos_opt().unwrap_or(0)
    }

    /// What the clocks of its zone show.
    pub fn local(&self) -> NaiveDateTime {
        match self.fixed_offset {
            Some(offset) => self.time.naive_utc() + chrono::TimeDelta::seconds(i64::from(offset)),
            None => self.time.naive_local(),
        }
    }

    /// The same moment in UTC.
    pub fn utc(&self) -> Self {
        Self { time: self.time.with_timezone(&Tz::UTC), fixed_offset: None }
    }

    /// Whether it stands for no time.
    pub fn is_zero(&self) -> bool {
        self.order(&Self::zero()).is_eq()
    }

    /// Whether it is before or after the other, whatever their zones.
    pub fn order(&self, other: &Self) -> Ordering {
        self.time.cmp(&other.time)
    }

    /// As Go prints it.
    pub fn text(&self) -> String {
        self.format("2006-01-02 15:04:05.999999999 -0700 MST")
    }

    /// The zone of that name.
    pub fn zone(name: &str) -> Result<Tz, String> {
        if name.is_empty() || name == "Local" {
            return Ok(Tz::UTC);
        }
        name.parse().map_err(|_| format!("unknown time zone {name}"))
    }

    /// Reads a time by its layout; what the text leaves open is taken in `zone`.
    pub fn parse(layout: &str, text: &str, zone: Tz) -> Result<Self, String> {
        let refusal = || format!("parsing time {text:?} as {layout:?}");
        let mut read = Read::default();
        let mut rest = text;
        let mut left = layout;
        while !left.is_empty() {
            match part_at(left) {
                Some((part, length)) => {
                    left = &left[length..];
                    rest = read.part(part, rest).ok_or_else(refusal)?;
                    if part == "05" && !left.starts_with(['.', ',']) && rest.starts_with('.') {
                        // Go reads a fraction behind the seconds even where the layout has none.
                        rest = read.part(".9", rest).ok_or_else(refusal)?;
                    }
                }
                None => {
                    let letter = left.chars().next().ok_or_else(refusal)?;
                    rest = rest.strip_prefix(letter).ok_or_else(refusal)?;
                    left = &left[letter.len_utf8()..];
                }
            }
        }
        if rest.is_empty() { read.moment(zone).ok_or_else(refusal) } else { Err(refusal()) }
    }

    /// The time by its layout.
    pub fn format(&self, layout: &str) -> String {
        let mut text = String::new();
        let mut rest = layout;
        while !rest.is_empty() {
            match part_at(rest) {
                Some((part, length)) => {
                    self.write(&mut text, part, &rest[..length]);
                    rest = &rest[length..];
                }
                None => {
                    let letter = rest.chars().next().unwrap_or(' ');
                    text.push(letter);
                    rest = &rest[letter.len_utf8()..];
                }
            }
        }
        text
    }

    fn write(&self, text: &mut String, part: &str, written: &str) {
        let local = self.local();
        let offset = self.fixed_offset.unwrap_or_else(|| self.time.offset().fix().local_minus_utc());
        let hour12 = match local.hour() % 12 {
            0 => 12,
            hour => hour,
        };
        text.push_str(&match part {
            "2006" => format!("{:04}", local.year()),
            "06" => format!("{:02}", local.year().rem_euclid(100)),
            "January" => MONTHS[local.month0() as usize].to_owned(),
            "Jan" => MONTHS[local.month0() as usize][..3].to_owned(),
            "01" => format!("{:02}", local.month()),
            "1" => local.month().to_string(),
            "Monday" => DAYS[local.weekday().num_days_from_sunday() as usize].to_owned(),
            "Mon" => DAYS[local.weekday().num_days_from_sunday() as usize][..3].to_owned(),
            "02" => format!("{:02}", local.day()),
            "_2" => format!("{:2}", local.day()),
            "2" => local.day().to_string(),
            "002" => format!("{:03}", local.ordinal()),
            "15" => format!("{:02}", local.hour()),
            "03" => format!("{hour12:02}"),
            "3" => hour12.to_string(),
            "04" => format!("{:02}", local.minute()),
            "4" => local.minute().to_string(),
            "05" => format!("{:02}", local.second()),
            "5" => local.second().to_string(),
            "PM" => if local.hour() < 12 { "AM" } else { "PM" }.to_owned(),
            "pm" => if local.hour() < 12 { "am" } else { "pm" }.to_owned(),
            "MST" if self.fixed_offset.is_some_and(|offset| offset != 0) => zone_text(offset, ""),
            "MST" if self.fixed_offset.is_some() => "UTC".to_owned(),
            "MST" => self.time.format("%Z").to_string(),
            "Z07:00" | "Z0700" if offset == 0 => "Z".to_owned(),
            "Z07:00" | "-07:00" => zone_text(offset, ":"),
            "Z0700" | "-0700" => zone_text(offset, ""),
            "-07" => zone_text(offset, "")[..3].to_owned(),
            _ => {
                let digits = &format!("{:09}", local.nanosecond() % 1_000_000_000)[..(written.len() - 1).min(9)];
                let digits = if part == ".9" { digits.trim_end_matches('0') } else { digits };
                if digits.is_empty() { String::new() } else { format!("{}{digits}", &written[..1]) }
            }
        });
    }
}

fn zone_text(offset_seconds: i32, separator: &str) -> String {
    let sign = if offset_seconds < 0 { '-' } else { '+' };
    let minutes = offset_seconds.abs() / 60;
    format!("{sign}{:02}{separator}{:02}", minutes / 60, minutes % 60)
}

/// The part that a layout begins with, and how long it is written.
fn part_at(layout: &str) -> Option<(&'static str, usize)> {
    let part = *PARTS.iter().find(|part| layout.starts_with(**part))?;
    match part {
        ".0" | ",0" | ".9" => {
            let digit = char::from(part.as_bytes()[1]);
            let length = layout[1..].find(|c| c != digit).map_or(layout.len(), |end| end + 1);
            let is_fraction = !layout[length..].starts_with(|c: char| c.is_ascii_digit());
            is_fraction.then_some((part, length))
        }
        "Jan" | "Mon" if layout[3..].starts_with(|c: char| c.is_ascii_lowercase()) => None,
        _ => Some((part, part.len())),
    }
}

/// What was read of a time.
#[derive(Default)]
struct Read {
    year: Option<i32>,
    month: Option<u32>,
    day: Option<u32>,
    ordinal: Option<u32>,
    hour: u32,
    minute: u32,
    second: u32,
    nanosecond: u32,
    is_afternoon: Option<bool>,
    offset: Option<i32>,
}

impl Read {
    /// Reads one part; gives what is left of the text.
    fn part<'t>(&mut self, part: &str, text: &'t str) -> Option<&'t str> {
        let (value, rest) = match part {
            "2006" => digits(text, 4, 4)?,
            "002" => digits(text, 3, 3)?,
            "06" | "01" | "02" | "15" | "03" | "04" | "05" => digits(text, 2, 2)?,
            "_2" => digits(text.trim_start_matches(' '), 1, 2)?,
            "1" | "2" | "3" | "4" | "5" => digits(text, 1, 2)?,
            "January" | "Jan" => named(text, &MONTHS, part.len() == 3)?,
            "Monday" | "Mon" => return named(text, &DAYS, part.len() == 3).map(|(_, rest)| rest),
            "PM" | "pm" => {
                let is_afternoon = text.get(..2)?.eq_ignore_ascii_case("pm");
                if !is_afternoon && !text.get(..2)?.eq_ignore_ascii_case("am") {
                    return None;
                }
                self.is_afternoon = Some(is_afternoon);
                return Some(&text[2..]);
            }
            "MST" => {
                let end = text.find(|c: char| !c.is_ascii_uppercase()).unwrap_or(text.len());
                if text[..end] == *"UTC" {
                    self.offset = Some(0);
                }
                return (end >= 3).then(|| &text[end..]);
            }
            "Z07:00" | "Z0700" if text.starts_with('Z') => {
                self.offset = Some(0);
                return Some(&text[1..]);
            }
            "Z07:00" | "-07:00" | "Z0700" | "-0700" | "-07" => return self.zone(part, text),
            _ => {
                let rest = text.strip_prefix(['.', ','])?;
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()).min(9);
                self.nanosecond = format!("{:0<9}", &rest[..end]).parse().ok()?;
                return Some(&rest[end..]);
            }
        };
        match part {
            "2006" => self.year = i32::try_from(value).ok(),
            "06" => self.year = Some(if value < 69 { 2000 } else { 1900 } + value as i32),
            "January" | "Jan" | "01" | "1" => self.month = Some(value),
            "02" | "2" | "_2" => self.day = Some(value),
            "002" => self.ordinal = Some(value),
            "15" | "03" | "3" => self.hour = value,
            "04" | "4" => self.minute = value,
            _ => self.second = value,
        }
        Some(rest)
    }

    fn zone<'t>(&mut self, part: &str, text: &'t str) -> Option<&'t str> {
        let sign = match text.chars().next()? {
            '+' => 1,
            '-' => -1,
            _ => return None,
        };
        let (hours, rest) = digits(&text[1..], 2, 2)?;
        let rest = if part.contains(':') { rest.strip_prefix(':')? } else { rest };
        let (minutes, rest) = if part == "-07" { (0, rest) } else { digits(rest, 2, 2)? };
        self.offset = Some(sign * (hours * 3600 + minutes * 60) as i32);
        Some(rest)
    }

    fn moment(&self, zone: Tz) -> Option<Moment> {
        let year = self.year.unwrap_or(0);
        let date = match self.ordinal {
            Some(ordinal) => NaiveDate::from_yo_opt(year, ordinal)?,
            None => NaiveDate::from_ymd_opt(year, self.month.unwrap_or(1), self.day.unwrap_or(1))?,
        };
        let hour = match self.is_afternoon {
            Some(true) if self.hour < 12 => self.hour + 12,
            Some(false) if self.hour == 12 => 0,
            _ => self.hour,
        };
        let time = NaiveTime::from_hms_nano_opt(hour, self.minute, self.second, self.nanosecond)?;
        let local = NaiveDateTime::new(date, time);
        if let Some(offset) = self.offset {
            let utc = local - chrono::TimeDelta::seconds(i64::from(offset));
            let time = utc.and_utc().with_timezone(&Tz::UTC);
            return Some(Moment { time, fixed_offset: (offset != 0).then_some(offset) });
        }
        let time = zone.from_local_datetime(&local);
        Some(Moment { time: time.earliest().or_else(|| time.latest())?, fixed_offset: None })
    }
}

fn digits(text: &str, least: usize, most: usize) -> Option<(u32, &str)> {
    let count = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    (count >= least).then(|| Some((text[..count].parse().ok()?, &text[count..])))?
}

/// The number from 1 of the name that `text` begins with.
fn named<'t>(text: &'t str, names: &[&str], is_short: bool) -> Option<(u32, &'t str)> {
    for (at, name) in names.iter().enumerate() {
        let name = if is_short { &name[..3] } else { name };
        if text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)) {
            return Some((at as u32 + 1, &text[name.len()..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_write_and_read() {
        let moment = Moment::of_ns(1_748_742_756_467_597_249);
        let cases = [
            ("2006-01-02T15:04:05.000000000Z07:00", "2025-06-01T01:52:36.467597249Z"),
            ("Mon, 2 Jan 06 3:04PM MST", "Sun, 1 Jun 25 1:52AM UTC"),
            ("Monday January _2 002 -0700", "Sunday June  1 152 +0000"),
            ("15:04:05.999", "01:52:36.467"),
        ];
        for (layout, text) in cases {
            assert_eq!(moment.format(layout), text);
        }
        let berlin = Moment::zone("Europe/Berlin").expect("a zone");
        let read = Moment::parse("2006-01-02T15:04:05Z", "2025-06-01T00:30:15Z", berlin).expect("a time");
        assert_eq!((read.seconds(), read.format("15:04 MST -07:00")), (1_748_730_615, "00:30 CEST +02:00".to_owned()));
        let read = Moment::parse("2006-01-02T15:04:05Z07:00", "2025-06-01T00:30:15.5-03:00", Tz::UTC).expect("a time");
        assert_eq!((read.milliseconds(), read.format("15:04Z07:00")), (1_748_748_615_500, "00:30-03:00".to_owned()));
        assert!(Moment::parse("2006-01-02", "nope", Tz::UTC).is_err() && Moment::zone("Mars/Base").is_err());
        assert_eq!(Moment::zero().format("2006-01-02"), "0001-01-01");
    }
}
