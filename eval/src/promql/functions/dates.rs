//! Times as parts of a date, in UTC.

use tidemill_types::civil_date;

use super::super::row::Row;

/// The parts of a time, by the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Civil {
    pub year: i64,
    pub month: i64,
    pub day: i64,
    pub day_of_year: i64,
    /// 0 is Sunday.
    pub day_of_week: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
}

impl Civil {
    /// The parts of a time in seconds since 1970.
    pub(in super::super) fn of_seconds(seconds: i64) -> Self {
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil_date(days);
        let before = (1..month).map(|month| days_in_month(year, month)).sum::<i64>();
        Self {
            year,
            month,
            day,
            day_of_year: before + day,
            day_of_week: (days + 4).rem_euclid(7),
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The part of a date that a function gives.
pub(super) fn part(function: &str) -> Option<fn(Civil) -> i64> {
    Some(match function {
        "day_of_month" => |civil| civil.day,
        "day_of_week" => |civil| civil.day_of_week,
        "day_of_year" => |civil| civil.day_of_year,
        "days_in_month" => |civil| days_in_month(civil.year, civil.month),
        "hour" => |civil| civil.hour,
        "minute" => |civil| civil.minute,
        "month" => |civil| civil.month,
        "year" => |civil| civil.year,
        _ => return None,
    })
}

/// The part of the date of each value, which is a time in seconds.
pub(super) fn map_row(row: Row, part: fn(Civil) -> i64) -> Row {
    row.map_floats(|value| part(Civil::of_seconds(value as i64)) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_dates() {
        let parts = |seconds| {
            let civil = Civil::of_seconds(seconds);
            (civil.year, civil.month, civil.day, civil.day_of_year, civil.day_of_week, civil.hour, civil.minute)
        };
        assert_eq!(parts(0), (1970, 1, 1, 1, 4, 0, 0));
        assert_eq!(parts(951_827_696), (2000, 2, 29, 60, 2, 12, 34));
        assert_eq!(parts(-1), (1969, 12, 31, 365, 3, 23, 59));
        assert_eq!(days_in_month(1900, 2), 28);
    }
}
