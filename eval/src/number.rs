//! Numbers as text.

/// `value` as the Prometheus API writes it: the shortest decimal digits that read back as the same number, never with an exponent;
/// `NaN`, `+Inf`, `-Inf`.
pub fn format_number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
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
    use super::{format_number, format_short};

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
