//! Kubernetes quantities: `250m`, `1.5`, `512Mi`, `2e3`, as whole milli-units.

use std::fmt;

/// A text that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantityError {
    /// What was written.
    pub text: String,
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no quantity; write a number with one of n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei",
            self.text
        )
    }
}

impl std::error::Error for QuantityError {}

/// Digits of a quantity that are read; more than any real one has.
const MAX_DIGITS: usize = 40;

/// The quantity in milli-units, rounded up as Kubernetes does, saturating at the ends of `i64`.
///
/// Source: `k8s.io/apimachinery/pkg/api/resource`, `Quantity.MilliValue`.
///
/// # Errors
/// A text that is no quantity.
pub fn parse_milli(text: &str) -> Result<i64, QuantityError> {
    parse_scaled(text, 1000).ok_or_else(|| QuantityError { text: text.to_owned() })
}

/// The quantity in whole units, rounded up: bytes of memory.
///
/// # Errors
/// A text that is no quantity.
pub fn parse_units(text: &str) -> Result<i64, QuantityError> {
    parse_scaled(text, 1).ok_or_else(|| QuantityError { text: text.to_owned() })
}

/// `text` times `scale`, rounded away from zero as upstream's `ScaledValue` does.
fn parse_scaled(text: &str, scale: i128) -> Option<i64> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = rest.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') || whole.len() + fraction.len() > MAX_DIGITS {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (multiplier, exponent) = suffix_value(suffix)?;
    let exponent = exponent - i32::try_from(fraction.len()).ok()?;
    let scaled = digits.saturating_mul(multiplier).saturating_mul(scale);
    let value = if exponent >= 0 {
        scaled.saturating_mul(10_i128.saturating_pow(exponent.unsigned_abs()))
    } else {
        let divisor = 10_i128.saturating_pow(exponent.unsigned_abs());
        scaled / divisor + i128::from(scaled % divisor != 0)
    };
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    Some(if negative { -value } else { value })
}

/// A whole multiplier and a power of ten.
fn suffix_value(suffix: &str) -> Option<(i128, i32)> {
    let decimal = |exponent| Some((1, exponent));
    let binary = |power: u32| Some((1_i128 << (10 * power), 0));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (-40..=40).contains(&exponent).then_some((1, exponent))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, milli) in [
            ("250m", 250),
            ("1", 1000),
            ("1.5", 1500),
            ("0.0001", 1),
            ("2e3", 2_000_000),
            ("1k", 1_000_000),
            ("512Mi", 512 * 1024 * 1024 * 1000),
            ("-1.5", -1500),
            ("100u", 1),
            ("9E", i64::MAX),
            (".5", 500),
        ] {
            assert_eq!(parse_milli(text), Ok(milli), "{text}");
        }
        assert_eq!(parse_units("8Gi"), Ok(8 << 30));
        assert_eq!(parse_units("100m"), Ok(1));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "m", "1x", "1.2.3", "--1", "1e", "1e999", "one", " 1", "1 ", "."] {
            assert!(parse_milli(text).is_err(), "{text:?}");
        }
    }
}
