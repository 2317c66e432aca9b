//! `cron`: a number of replicas between two times of a schedule.
//!
//! Active is, as KEDA has it, when the next end comes no later than the next start.

use async_trait::async_trait;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use crate::parameters::Parameters;
use crate::{Client, Observed, SourceError};

/// A schedule that comes no sooner than this comes never.
const HORIZON_DAYS: i64 = 366 * 8;

#[derive(Debug)]
pub(crate) struct Cron {
    zone: TimeZone,
    start: Schedule,
    end: Schedule,
    replicas: f64,
}

impl Cron {
    pub(crate) fn new(parameters: &Parameters) -> Result<Self, SourceError> {
        let name = parameters.need("timezone")?;
        let zone = TimeZone::get(name).map_err(|error| SourceError::invalid(format!("timezone: {error}")))?;
        let (start, end) = (parameters.need("start")?, parameters.need("end")?);
        if start == end {
            return Err(SourceError::invalid("start and end are the same schedule"));
        }
        parameters.need("desiredReplicas")?;
        let replicas = parameters.number("desiredReplicas")?.filter(|replicas| *replicas > 0.0);
        let replicas = replicas.ok_or_else(|| SourceError::invalid("desiredReplicas: is no number above 0"))?;
        Ok(Self { zone, start: Schedule::parse("start", start)?, end: Schedule::parse("end", end)?, replicas })
    }

    fn value(&self, now: Timestamp) -> Result<f64, SourceError> {
        let next = |what: &str, schedule: &Schedule| {
            schedule
                .next(now, &self.zone)
                .ok_or_else(|| SourceError::invalid(format!("{what}: never comes within eight years")))
        };
        let is_active = next("end", &self.end)? <= next("start", &self.start)?;
        Ok(if is_active { self.replicas } else { 0.0 })
    }
}

#[async_trait]
impl Client for Cron {
    async fn observe(&self, now: Timestamp) -> Result<Observed, SourceError> {
        Ok(Observed { is_active: None, ..Observed::new(self.value(now)?, now) })
    }
}

/// Five fields: minute, hour, day of month, month, day of week (crontab(5)).
#[derive(Debug)]
struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Where both days are restricted, either is enough.
    is_either_day: bool,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Schedule {
    fn parse(what: &str, text: &str) -> Result<Self, SourceError> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(SourceError::invalid(format!(
                "{what}: {text:?} has {} fields, not minute, hour, day, month, weekday",
                fields.len()
            )));
        };
        let field = |text: &str, least: u32, most: u32, names: &[&str], first: u32| {
            bits(text, least, most, names, first).ok_or_else(|| {
                SourceError::invalid(format!(
                    "{what}: {text:?} is no list of numbers, ranges and steps from {least} to {most}"
                ))
            })
        };
        let weekdays = field(weekday, 0, 7, &WEEKDAYS, 0)?;
        Ok(Self {
            minutes: field(minute, 0, 59, &[], 0)?,
            hours: field(hour, 0, 23, &[], 0)?,
            days: field(day, 1, 31, &[], 0)?,
            months: field(month, 1, 12, &MONTHS, 1)?,
            // 7 is Sunday too.
            weekdays: weekdays | (weekdays >> 7 & 1),
            is_either_day: !day.starts_with(['*', '?']) && !weekday.starts_with(['*', '?']),
        })
    }

    /// The first time after `now`.
    fn next(&self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let local = now.to_zoned(zone.clone()).datetime();
        let from = local.checked_add(1.minute()).ok()?.with().second(0).subsec_nanosecond(0).build().ok()?;
        let mut date = from.date();
        for _ in 0..HORIZON_DAYS {
            if self.is_day(date) {
                for hour in (0..24).filter(|hour| self.hours >> hour & 1 == 1) {
                    for minute in (0..60).filter(|minute| self.minutes >> minute & 1 == 1) {
                        let at: DateTime = date.at(hour, minute, 0, 0);
                        if at < from {
                            continue;
                        }
                        // A time that a change of clocks leaves out is taken where the clock stands then.
                        let found = zone.to_ambiguous_timestamp(at).compatible().ok()?;
                        if found > now {
                            return Some(found);
                        }
                    }
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn is_day(&self, date: jiff::civil::Date) -> bool {
        let has = |bits: u64, at: i8| bits >> at & 1 == 1;
        let is_day = has(self.days, date.day());
        let is_weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        has(self.months, date.month()) && if self.is_either_day { is_day || is_weekday } else { is_day && is_weekday }
    }
}

/// `*`, `5`, `1-5`, `*/10`, `1-30/2`, `mon,wed`
fn bits(text: &str, least: u32, most: u32, names: &[&str], first: u32) -> Option<u64> {
    let number = |text: &str| {
        let named =
            names.iter().zip(first..).find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, number)| number);
        named.or_else(|| text.parse().ok()).filter(|number| (least..=most).contains(number))
    };
    let mut found = 0;
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let step: u32 = match step {
            Some(step) => step.parse().ok().filter(|step| *step > 0)?,
            None => 1,
        };
        let (from, to) = match range {
            "*" | "?" => (least, most),
            _ => match range.split_once('-') {
                Some((from, to)) => (number(from)?, number(to)?),
                // `5/10` goes on to the end, as `5-59/10` does.
                None if part.contains('/') => (number(range)?, most),
                None => (number(range)?, number(range)?),
            },
        };
        if from > to {
            return None;
        }
        (from..=to).step_by(usize::try_from(step).ok()?).for_each(|value| found |= 1 << value);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, from: &str, zone: &str) -> String {
        let zone = TimeZone::get(zone).expect("a zone");
        let from: Timestamp = from.parse().expect("a time");
        Schedule::parse("start", schedule)
            .expect("a schedule")
            .next(from, &zone)
            .map_or("never".to_owned(), |at| at.to_string())
    }

    #[test]
    fn the_next_time_is_the_calendars() {
        assert_eq!(next("0 6 * * *", "2026-03-01T05:00:00Z", "UTC"), "2026-03-01T06:00:00Z");
        assert_eq!(next("0 6 * * *", "2026-03-01T06:00:00Z", "UTC"), "2026-03-02T06:00:00Z");
        assert_eq!(next("*/20 22-23 * * mon-fri", "2026-11-27T23:41:00Z", "UTC"), "2026-11-30T22:00:00Z");
        assert_eq!(next("0 0 29 2 *", "2026-01-01T00:00:00Z", "UTC"), "2028-02-29T00:00:00Z");
        assert_eq!(next("0 0 31 2 *", "2026-01-01T00:00:00Z", "UTC"), "never");
        assert_eq!(next("0 0 13 * 5", "2026-11-01T00:00:00Z", "UTC"), "2026-11-06T00:00:00Z");
        assert_eq!(next("0 8 * * 7", "2026-11-26T00:00:00Z", "Asia/Kolkata"), "2026-11-29T02:30:00Z");
        // 02:30 is left out when summer begins.
        assert_eq!(next("30 2 * * *", "2026-03-29T00:00:00Z", "Europe/Berlin"), "2026-03-29T01:30:00Z");
    }

    #[test]
    fn it_is_active_between_start_and_end() {
        let mut parameters = Parameters::default();
        for (name, value) in
            [("timezone", "Europe/Berlin"), ("start", "0 8 * * *"), ("end", "0 20 * * *"), ("desiredReplicas", "10")]
        {
            parameters.set(name, value);
        }
        let cron = Cron::new(&parameters).expect("a source");
        let value = |at: &str| cron.value(at.parse().expect("a time"));
        assert_eq!(value("2026-07-01T05:59:00Z"), Ok(0.0));
        assert_eq!(value("2026-07-01T06:00:00Z"), Ok(10.0));
        assert_eq!(value("2026-07-01T17:59:59Z"), Ok(10.0));
        assert_eq!(value("2026-07-01T18:00:00Z"), Ok(0.0));
        assert_eq!(value("2026-12-01T06:59:00Z"), Ok(0.0));
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for wrong in ["* * * *", "60 * * * *", "5-1 * * * *", "*/0 * * * *", "a * * * *", "* * 0 * *", "* * * 13 *"] {
            assert!(Schedule::parse("start", wrong).is_err(), "{wrong}");
        }
    }
}
