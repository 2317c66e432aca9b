//! Time as nanoseconds since the Unix epoch, and the UTC days and hours that partition the lake.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Nanoseconds in a second.
pub const NANOS_PER_SECOND: i64 = 1_000_000_000;
/// Nanoseconds in an hour.
pub const NANOS_PER_HOUR: i64 = 3_600 * NANOS_PER_SECOND;
/// Nanoseconds in a UTC day (leap seconds do not exist in Unix time).
pub const NANOS_PER_DAY: i64 = 24 * NANOS_PER_HOUR;

/// A point in time: nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimestampNs(pub i64);

impl TimestampNs {
    /// The earliest time a record may carry: 2000-01-01T00:00:00Z.
    pub const EARLIEST_VALID: Self = Self(946_684_800 * NANOS_PER_SECOND);

    /// The UTC day that holds this time.
    pub fn day(self) -> Day {
        Day(self.0.div_euclid(NANOS_PER_DAY) as i32)
    }

    /// The UTC hour that holds this time.
    pub fn hour(self) -> Hour {
        Hour(self.0.div_euclid(NANOS_PER_HOUR) as i32)
    }

    /// This time moved by `nanos`, saturating.
    pub fn plus_ns(self, nanos: i64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

/// A half-open range of time: `start` is in, `end` is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimeRange {
    /// First instant inside.
    pub start: TimestampNs,
    /// First instant after.
    pub end: TimestampNs,
}

impl TimeRange {
    /// Everything.
    pub const ALL: Self = Self { start: TimestampNs(i64::MIN), end: TimestampNs(i64::MAX) };

    /// Whether the two share an instant.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether `at` is inside.
    pub fn contains(self, at: TimestampNs) -> bool {
        self.start <= at && at < self.end
    }

    /// Whether all of `other` is inside.
    pub fn covers(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
///
/// Civil-from-days after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
pub fn civil_date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_from_march + 2) / 153;
    let day = day_from_march - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// A UTC day: days since 1970-01-01. No segment crosses one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(pub i32);

impl Day {
    /// The day's instants.
    pub fn range(self) -> TimeRange {
        let start = i64::from(self.0) * NANOS_PER_DAY;
        TimeRange { start: TimestampNs(start), end: TimestampNs(start.saturating_add(NANOS_PER_DAY)) }
    }

    /// The day as the number `YYYYMMDD`, the way object keys and the KEDA views write it.
    pub fn dateint(self) -> i32 {
        let (year, month, day) = civil_date(i64::from(self.0));
        (year * 10_000 + month * 100 + day) as i32
    }
}

impl fmt::Display for Day {
    /// Writes `YYYYMMDD`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}", self.dateint())
    }
}

/// A UTC hour: hours since 1970-01-01T00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hour(pub i32);

impl Hour {
    /// The hour's instants.
    pub fn range(self) -> TimeRange {
        let start = i64::from(self.0) * NANOS_PER_HOUR;
        TimeRange { start: TimestampNs(start), end: TimestampNs(start.saturating_add(NANOS_PER_HOUR)) }
    }

    /// The day that holds the hour.
    pub fn day(self) -> Day {
        Day(self.0.div_euclid(24))
    }

    /// The hour of its day, 0 to 23.
    pub fn of_day(self) -> u8 {
        self.0.rem_euclid(24) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_as_dates() {
        assert_eq!(Day(0).dateint(), 19_700_101);
        assert_eq!(Day(19_387).dateint(), 20_230_130);
        assert_eq!(Day(-1).dateint(), 19_691_231);
        assert_eq!(Day(11_016).dateint(), 20_000_229);
    }

    #[test]
    fn ranges_are_half_open() {
        let day = Day(3).range();
        assert!(day.contains(day.start) && !day.contains(day.end));
        assert!(!day.overlaps(Day(4).range()));
        assert_eq!(day.start.day(), Day(3));
        assert_eq!(TimestampNs(day.end.0 - 1).day(), Day(3));
        assert_eq!(TimestampNs(-1).hour().of_day(), 23);
    }
}
