//! What makes a sample of remote write one that can be kept.
//!
//! Source of the rules of histograms: `Validate` in Prometheus's `model/histogram`.

use tidemill_types::{NANOS_PER_DAY, TimestampNs};

use super::encode::{CUSTOM_SCHEMA, MAX_WIDTH, NS_PER_MS};
use super::{STALE_NAN_BITS, WrittenHistogram};
use crate::otlp::fault::Fault;

/// The resolutions of exponential histograms; beyond Prometheus's finest they are brought to it.
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=52;

/// Refuses a time that no sample is filed under: before the year 2000, or more than a day after its arrival.
pub(super) fn check_time(time_ms: i64, arrival_ms: i64) -> Result<(), Fault> {
    let (first, last) =
        (TimestampNs::EARLIEST_VALID.0 / NS_PER_MS, arrival_ms.saturating_add(NANOS_PER_DAY / NS_PER_MS));
    if (first..=last).contains(&time_ms) {
        return Ok(());
    }
    Err(Fault::new(format!("{time_ms} ms is out of bounds: from the year 2000 to a day from now")).within("timestamp"))
}

/// Refuses what is no histogram, or none that can be kept.
pub(super) fn check_histogram(histogram: &WrittenHistogram, has_float_counts: bool) -> Result<(), Fault> {
    if histogram.sum.to_bits() == STALE_NAN_BITS {
        return Ok(());
    }
    if histogram.schema == CUSTOM_SCHEMA {
        check_custom(histogram)?;
    } else if !SCHEMAS.contains(&histogram.schema) {
        let (first, last) = (SCHEMAS.start(), SCHEMAS.end());
        return Err(Fault::new(format!("schema {} is not from {first} to {last}", histogram.schema)).within("schema"));
    }
    for (side, buckets) in [("positive_spans", &histogram.positive), ("negative_spans", &histogram.negative)] {
        let width =
            buckets.first().zip(buckets.last()).map_or(0, |(first, last)| i64::from(last.0) - i64::from(first.0) + 1);
        if width > MAX_WIDTH {
            return Err(Fault::new(format!(
                "{width} buckets from the first to the last; at most {MAX_WIDTH} are kept"
            ))
            .within(side));
        }
    }
    let buckets = histogram.positive.iter().chain(&histogram.negative).map(|(_, count)| *count);
    if buckets.clone().chain([histogram.count, histogram.zero_count]).any(|count| count < 0.0) {
        return Err(Fault::new("a count is negative"));
    }
    let observed: f64 = buckets.sum::<f64>() + histogram.zero_count;
    // What is no number is observed, and in no bucket.
    let fits = if histogram.sum.is_nan() { observed <= histogram.count } else { observed == histogram.count };
    if !has_float_counts && !fits {
        let message = format!("{observed} observations are in the buckets, and the count is {}", histogram.count);
        return Err(Fault::new(message));
    }
    Ok(())
}

fn check_custom(histogram: &WrittenHistogram) -> Result<(), Fault> {
    let bounds = &histogram.bounds;
    if bounds.iter().any(|bound| !bound.is_finite()) || bounds.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(Fault::new("the bounds are not finite and rising").within("custom_values"));
    }
    if !histogram.negative.is_empty() || histogram.zero_count != 0.0 {
        return Err(Fault::new("a histogram with bounds of its own has no negative and no zero buckets"));
    }
    let is_beyond = |index: &i32| usize::try_from(*index).map_or(true, |index| index > bounds.len());
    match histogram.positive.iter().map(|(index, _)| index).find(|index| is_beyond(index)) {
        Some(index) => {
            Err(Fault::new(format!("bucket {index} is beyond {} bounds", bounds.len())).within("positive_spans"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_those_that_prometheus_takes() {
        let good = WrittenHistogram {
            schema: 3,
            count: 7.0,
            zero_count: 1.0,
            sum: 2.0,
            positive: vec![(-2, 1.0), (5, 5.0)],
            ..WrittenHistogram::default()
        };
        let custom = WrittenHistogram {
            schema: CUSTOM_SCHEMA,
            count: 3.0,
            bounds: vec![0.5, 2.0],
            positive: vec![(0, 1.0), (2, 2.0)],
            ..WrittenHistogram::default()
        };
        let stale = WrittenHistogram { sum: f64::from_bits(STALE_NAN_BITS), ..WrittenHistogram::default() };
        let unordered = WrittenHistogram { sum: f64::NAN, count: 9.0, ..good.clone() };
        for taken in [&good, &custom, &stale, &unordered] {
            assert!(check_histogram(taken, false).is_ok(), "{taken:?}");
        }
        for refused in [
            WrittenHistogram { count: 8.0, ..good.clone() },
            WrittenHistogram { count: 2.0, ..unordered },
            WrittenHistogram { schema: -5, ..good.clone() },
            WrittenHistogram { schema: 53, ..good.clone() },
            WrittenHistogram { positive: vec![(0, 3.0), (i32::MAX, 3.0)], ..good.clone() },
            WrittenHistogram { bounds: vec![2.0, 0.5], ..custom.clone() },
            WrittenHistogram { bounds: vec![0.5, f64::INFINITY], ..custom.clone() },
            WrittenHistogram { positive: vec![(3, 3.0)], ..custom.clone() },
            WrittenHistogram { zero_count: 1.0, ..custom.clone() },
        ] {
            assert!(check_histogram(&refused, false).is_err(), "{refused:?}");
        }
        // Counts that are no integers need not add up, but they are none below zero.
        assert!(check_histogram(&WrittenHistogram { count: 7.5, ..good.clone() }, true).is_ok());
        assert!(check_histogram(&WrittenHistogram { positive: vec![(0, -2.0)], ..good }, true).is_err());
    }

    #[test]
    fn times_are_those_that_points_are_filed_under() {
        let now = 1_700_000_000_000;
        for (time_ms, is_taken) in [
            (now, true),
            (now + 86_400_000, true),
            (now + 86_400_001, false),
            (946_684_800_000, true),
            (946_684_799_999, false),
            (0, false),
            (-5, false),
            (i64::MIN, false),
            (i64::MAX, false),
        ] {
            assert_eq!(check_time(time_ms, now).is_ok(), is_taken, "{time_ms}");
        }
    }
}
