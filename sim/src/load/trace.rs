//! Recorded loads: `time,count`, or `time` alone for single events.

use jiff::civil::DateTime;

use super::{Load, LoadError, refused};
use crate::random::Random;

/// The stretch of the last count where there is only one.
const ONLY_STRETCH_MS: i64 = 60_000;
/// The longest trace: a year.
const MAX_DURATION_MS: i64 = 366 * 86_400_000;

pub(super) fn read(name: &str, text: &str, factor: f64, random: &mut Random) -> Result<Load, LoadError> {
    if !(factor.is_finite() && factor > 0.0) {
        return Err(refused(format!("the factor must be above 0, found {factor}")));
    }
    let mut header: Vec<String> = Vec::new();
    let mut rows: Vec<(i64, f64)> = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let cells: Vec<&str> = line.split(',').map(|cell| cell.trim().trim_matches('"')).collect();
        let Some(time) = time_ms(cells[0]) else {
            if index == 0 {
                header = cells.iter().map(|cell| cell.to_lowercase()).collect();
                continue;
            }
            return Err(refused(format!("{name}:{}: {:?} is no time", index + 1, cells[0])));
        };
        // A second column counts, unless its name says that it is something else of a single event.
        let is_count = header
            .get(1)
            .is_none_or(|title| matches!(title.as_str(), "count" | "value" | "requests" | "items" | "rate"));
        let count = match cells.get(1).filter(|_| is_count) {
            None => 1.0,
            Some(cell) => match cell.parse::<f64>() {
                Ok(count) if count.is_finite() && count >= 0.0 => count,
                _ => return Err(refused(format!("{name}:{}: {cell:?} is no count", index + 1))),
            },
        };
        if rows.last().is_some_and(|(last, _)| *last > time) {
            return Err(refused(format!("{name}:{}: times go back", index + 1)));
        }
        rows.push((time, count));
    }
    let (Some((start, _)), Some((end, _))) = (rows.first().copied(), rows.last().copied()) else {
        return Err(refused(format!("{name}: holds no line with a time")));
    };
    if end - start > MAX_DURATION_MS {
        return Err(refused(format!("{name}: reaches over more than 366 days")));
    }
    let has_counts = rows.iter().any(|(_, count)| *count != 1.0);
    let mut load = Load { name: name.to_owned(), arrivals_ms: Vec::new(), duration_ms: 0 };
    let mut stretch = ONLY_STRETCH_MS;
    for (index, (time, count)) in rows.iter().enumerate() {
        if let Some((next, _)) = rows.get(index + 1) {
            stretch = next - time;
        }
        let length = if has_counts { stretch.max(1) } else { 1 };
        load.spread(time - start, length, count * factor, random)?;
    }
    load.arrivals_ms.sort_unstable();
    load.duration_ms = end - start + if has_counts { stretch } else { 1000 };
    Ok(load)
}

/// Seconds since anything as a number, or a date and time.
fn time_ms(cell: &str) -> Option<i64> {
    if let Ok(seconds) = cell.parse::<f64>() {
        return (seconds.is_finite() && seconds.abs() < 1e12).then_some((seconds * 1000.0) as i64);
    }
    if let Ok(time) = cell.parse::<jiff::Timestamp>() {
        return Some(time.as_millisecond());
    }
    let civil: DateTime = cell.parse().ok()?;
    let zoned = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(zoned.timestamp().as_millisecond())
}
