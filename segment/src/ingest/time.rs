//! Which time a record is filed under.

use tidemill_types::{NANOS_PER_DAY, TimestampNs};

/// A record's time and what was sent instead, when that could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChosenTime {
    /// The time to file under.
    pub time: TimestampNs,
    /// The bits of the time that was sent, when it was sent and is not valid.
    pub original: Option<i64>,
}

/// The first valid one of event time, `second` (observed or end time) and arrival. Valid is 2000-01-01 to arrival + 24 h; 0 means absent.
#[inline]
pub(crate) fn choose_time(event: u64, second: u64, arrival: TimestampNs) -> ChosenTime {
    let latest = arrival.plus_ns(NANOS_PER_DAY).0;
    let valid = |nanos: u64| {
        let time = i64::try_from(nanos).ok()?;
        (TimestampNs::EARLIEST_VALID.0 <= time && time <= latest).then_some(TimestampNs(time))
    };
    if let Some(time) = valid(event) {
        return ChosenTime { time, original: None };
    }
    let original = (event != 0).then_some(event as i64);
    ChosenTime { time: valid(second).unwrap_or(arrival), original }
}

/// A time that is only stored, not filed under: `None` when absent or beyond what a timestamp can say.
#[inline]
pub(crate) fn stored_time(nanos: u64) -> Option<i64> {
    i64::try_from(nanos).ok().filter(|nanos| *nanos != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARRIVAL: TimestampNs = TimestampNs(1_700_000_000_000_000_000);

    #[test]
    fn the_first_valid_candidate_is_taken() {
        let at = |event, second| choose_time(event, second, ARRIVAL);
        let good = ARRIVAL.0 as u64 - 5;
        assert_eq!(at(good, 1), ChosenTime { time: TimestampNs(good as i64), original: None });
        assert_eq!(at(0, good), ChosenTime { time: TimestampNs(good as i64), original: None });
        assert_eq!(at(0, 0), ChosenTime { time: ARRIVAL, original: None });
        assert_eq!(at(7, good), ChosenTime { time: TimestampNs(good as i64), original: Some(7) });
        assert_eq!(at(u64::MAX, 0), ChosenTime { time: ARRIVAL, original: Some(-1) });
    }

    #[test]
    fn the_valid_range_includes_both_ends() {
        let first = TimestampNs::EARLIEST_VALID.0;
        let last = ARRIVAL.0 + NANOS_PER_DAY;
        for (nanos, kept) in [(first, true), (first - 1, false), (last, true), (last + 1, false)] {
            assert_eq!(choose_time(nanos as u64, 0, ARRIVAL).original.is_none(), kept, "{nanos}");
        }
    }
}
