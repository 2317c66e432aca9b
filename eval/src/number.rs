//! Numbers as text.

use std::fmt::Write as _;

/// `value` as the Prometheus API writes it: the shortest decimal digits that read back as the same number, never with an exponent;
/// `NaN`, `+Inf`, `-Inf`.
pub fn format_number(value: f64) -> String {
    let mut text = String::new();
    push_number(&mut text, value);
    text
}

/// Adds `value` to a text, as [`format_number`] writes it.
pub(crate) fn push_number(text: &mut String, value: f64) {
    if value.is_nan() {
        return text.push_str("NaN");
    }
    if value.is_infinite() {
        return text.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    }
    let mut buffer = zmij::Buffer::new();
    let digits = buffer.format_finite(value);
    if digits.contains('e') {
        // The standard library writes no exponents.
        let _infallible = write!(text, "{value}");
    } else {
        text.push_str(digits.strip_suffix(".0").unwrap_or(digits));
    }
}

/// `value` with the shortest digits, with an exponent where that is below -4 or above 5, as Prometheus writes numbers in messages and
/// in histograms.
pub(crate) fn format_short(value: f64) -> String {
    if !value.is_finite() || value == 0.0 {
        return format_number(value);
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("scientific notation has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is an integer");
    if (-4..6).contains(&exponent) {
        return value.to_string();
    }
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{format_number, format_short};

    proptest! {
        #[test]
        fn numbers_are_written_as_the_standard_library_writes_them(
            any in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO,
            usual in -1e6..1e6f64,
            places in 0..6i32,
        ) {
            let rounded = (usual * 10f64.powi(places)).round() / 10f64.powi(places);
            for value in [any, usual, rounded] {
                prop_assert_eq!(format_number(value), value.to_string());
            }
        }
    }

    #[test]
    fn short_numbers_have_exponents_at_the_ends() {
        let cases =
            [(1e-5, "1e-05"), (0.0001, "0.0001"), (123456.5, "123456.5"), (1.5e6, "1.5e+06"), (f64::NAN, "NaN")];
        for (value, text) in cases {
            assert_eq!(format_short(value), text);
        }
    }

    #[test]
    fn numbers_have_no_exponent() {
        let cases = [
            (1.0, "1"),
            (-0.0, "-0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e21, "1000000000000000000000"),
            (2.5e-7, "0.00000025"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ];
        for (value, text) in cases {
            assert_eq!(format_number(value), text);
        }
    }
}
