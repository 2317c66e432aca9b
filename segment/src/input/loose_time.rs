//! Times as people write them into logs.

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use serde_json::Value;

/// The nanoseconds that `value` says, if it says a time: RFC 3339 or `YYYY-MM-DD HH:MM:SS`, UTC where it names no zone, or a number since
/// 1970 whose size tells seconds from milli-, micro- and nanoseconds.
pub(crate) fn read_time(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => match number.as_u64() {
            Some(whole) => Some(scale_whole(whole)),
            None => number.as_f64().and_then(scale_fraction),
        },
        Value::String(text) => read_text(text.trim()),
        _ => None,
    }
}

fn read_text(text: &str) -> Option<u64> {
    if let Ok(whole) = text.parse::<u64>() {
        return Some(scale_whole(whole));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && let Ok(number) = text.parse::<f64>()
    {
        return scale_fraction(number);
    }
    // A comma before the fraction, as log4j and Python write it.
    let text = text.replacen(',', ".", 1);
    string_to_timestamp_nanos(&text).ok().and_then(|nanos| u64::try_from(nanos).ok())
}

/// Up to the year 5138 in seconds, and so on: the borders lie far from the present in each unit.
fn scale_whole(number: u64) -> u64 {
    let factor = match number {
        0..100_000_000_000 => 1_000_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    number.saturating_mul(factor)
}

fn scale_fraction(number: f64) -> Option<u64> {
    if !number.is_finite() || number <= 0.0 {
        return None;
    }
    let factor = match number {
        ..1e11 => 1e9,
        ..1e14 => 1e6,
        ..1e17 => 1e3,
        _ => 1.0,
    };
    // Whole and fraction apart, so that nanoseconds survive in seconds since 1970.
    let whole = number.trunc();
    Some((whole as u64).saturating_mul(factor as u64).saturating_add((number.fract() * factor) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_unit_and_notation_is_read() {
        let nanos = 1_700_000_000_000_000_000;
        for value in [
            json!(1_700_000_000),
            json!(1_700_000_000_000_i64),
            json!(1_700_000_000_000_000_i64),
            json!(nanos),
            json!("1700000000"),
            json!(1_700_000_000.0),
            json!("2023-11-14T22:13:20Z"),
            json!("2023-11-14T23:13:20+01:00"),
            json!("2023-11-14 22:13:20"),
            json!("2023-11-14 22:13:20,000"),
        ] {
            assert_eq!(read_time(&value), Some(nanos), "{value}");
        }
        assert_eq!(read_time(&json!("2023-11-14T22:13:20.000000001Z")), Some(nanos + 1));
        for value in [json!("yesterday"), json!(null), json!(-5.5), json!({}), json!("")] {
            assert_eq!(read_time(&value), None, "{value}");
        }
    }
}
