//! Numbers as the verbs of Go's `fmt` write them, without signs and padding.

/// The digits behind which every further digit of a number is 0.
const DIGITS_LIMIT: usize = 1_100;

/// The digits of a whole number in a base.
pub(super) fn digits(magnitude: u64, base: u32, is_upper: bool) -> String {
    match (base, is_upper) {
        (2, _) => format!("{magnitude:b}"),
        (8, _) => format!("{magnitude:o}"),
        (16, false) => format!("{magnitude:x}"),
        (16, true) => format!("{magnitude:X}"),
        _ => magnitude.to_string(),
    }
}

/// A finite number that is not negative, as a verb writes it; `None` for a verb that writes no such numbers.
pub(super) fn float(value: f64, verb: char, precision: Option<usize>) -> Option<String> {
    match verb {
        'f' | 'F' => Some(fixed(value, precision.unwrap_or(6))),
        'e' => Some(scientific(value, precision.unwrap_or(6))),
        'E' => Some(scientific(value, precision.unwrap_or(6)).to_uppercase()),
        'g' | 'v' => Some(general(value, precision)),
        'G' => Some(general(value, precision).to_uppercase()),
        'x' => Some(hexadecimal(value, precision)),
        'X' => Some(hexadecimal(value, precision).to_uppercase()),
        'b' => Some(binary(value)),
        _ => None,
    }
}

/// A number as the flag `#` wants it: always with a point, and with the zeros that `%g` leaves out.
pub(super) fn with_point(number: &str, verb: char, precision: Option<usize>) -> String {
    let marks = if matches!(verb, 'x' | 'X') { ['p', 'P'] } else { ['e', 'E'] };
    let (digits, tail) = number.split_at(number.find(marks).unwrap_or(number.len()));
    let wanted = if matches!(verb, 'v' | 'g' | 'G' | 'x') { precision.unwrap_or(6) } else { 0 };
    let significant = digits.chars().filter(|letter| *letter != '.').skip_while(|letter| *letter == '0').count();
    let has_point = digits.contains('.');
    let leading = usize::from(!has_point && digits == "0");
    let zeros = "0".repeat(wanted.saturating_sub(significant + leading));
    format!("{digits}{}{zeros}{tail}", if has_point { "" } else { "." })
}

fn fixed(value: f64, precision: usize) -> String {
    let kept = precision.min(DIGITS_LIMIT);
    format!("{value:.kept$}{}", "0".repeat(precision - kept))
}

fn scientific(value: f64, precision: usize) -> String {
    let kept = precision.min(DIGITS_LIMIT);
    let (mantissa, exponent) = split_exponent(&format!("{value:.kept$e}"));
    format!("{mantissa}{}e{}", "0".repeat(precision - kept), exponent_text(exponent))
}

/// As `%g`: the shorter of both ways, with no zeros at its end.
fn general(value: f64, precision: Option<usize>) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let precision = precision.map(|precision| precision.clamp(1, DIGITS_LIMIT));
    let (mantissa, exponent) = match precision {
        Some(precision) => split_exponent(&format!("{value:.*e}", precision - 1)),
        None => split_exponent(&format!("{value:e}")),
    };
    let digits = mantissa.replace('.', "");
    let digits = digits.trim_end_matches('0');
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let limit = match precision.map(|precision| i32::try_from(precision).unwrap_or(i32::MAX)) {
        None => 6,
        Some(precision) if precision > count && count > exponent => count,
        Some(precision) => precision,
    };
    if exponent < -4 || exponent >= limit {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        return format!("{first}{point}{rest}e{}", exponent_text(exponent));
    }
    match usize::try_from(exponent) {
        Ok(exponent) if digits.len() <= exponent + 1 => format!("{digits:0<width$}", width = exponent + 1),
        Ok(exponent) => format!("{}.{}", &digits[..=exponent], &digits[exponent + 1..]),
        Err(_) => format!("0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1)),
    }
}

/// As `%x`: a power of two behind hexadecimal digits of which the first is 1 (`strconv.FormatFloat`).
fn hexadecimal(value: f64, precision: Option<usize>) -> String {
    let (mut mantissa, mut exponent) = parts(value);
    if mantissa == 0 {
        exponent = 0;
    } else {
        let shift = mantissa.leading_zeros() - 3;
        mantissa <<= shift;
        exponent += 60 - i32::try_from(shift).unwrap_or(0);
    }
    if let Some(kept) = precision.filter(|precision| *precision < 15) {
        let shift = 4 * kept;
        let extra = (mantissa << shift) & ((1 << 60) - 1);
        mantissa >>= 60 - shift;
        if (extra | (mantissa & 1)) > (1 << 59) {
            mantissa += 1;
        }
        mantissa <<= 60 - shift;
        if mantissa & (1 << 61) != 0 {
            mantissa >>= 1;
            exponent += 1;
        }
    }
    let fraction = format!("{:015x}", mantissa & ((1 << 60) - 1));
    let fraction = match precision {
        Some(precision) => format!("{}{}", &fraction[..precision.min(15)], "0".repeat(precision.saturating_sub(15))),
        None => fraction.trim_end_matches('0').to_owned(),
    };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("0x{}{point}{fraction}p{}", mantissa >> 60, exponent_text(exponent))
}

/// As `%b`: the mantissa in decimal, and its power of two.
fn binary(value: f64) -> String {
    let (mantissa, exponent) = parts(value);
    format!("{mantissa}p{exponent:+}")
}

/// A number's mantissa as a whole number, and the power of two that belongs to it.
fn parts(value: f64) -> (u64, i32) {
    let bits = value.to_bits();
    let fraction = bits & ((1 << 52) - 1);
    match i32::try_from((bits >> 52) & 0x7ff).unwrap_or(0) {
        0 => (fraction, -1_074),
        exponent => (fraction | (1 << 52), exponent - 1_075),
    }
}

fn split_exponent(text: &str) -> (String, i32) {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    (mantissa.to_owned(), exponent.parse().unwrap_or(0))
}

/// An exponent with its sign and two digits or more.
fn exponent_text(exponent: i32) -> String {
    format!("{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_of_every_verb() {
        let cases = [
            (1.5, 'x', None, "0x1.8p+00"),
            (0.1, 'X', None, "0X1.999999999999AP-04"),
            (0.0, 'x', None, "0x0p+00"),
            (0.1, 'x', Some(3), "0x1.99ap-04"),
            (1.9, 'x', Some(0), "0x1p+01"),
            (1.5, 'x', Some(20), "0x1.80000000000000000000p+00"),
            (1e-320, 'x', None, "0x1.fap-1064"),
            (2.0, 'x', None, "0x1p+01"),
            (1.0, 'b', None, "4503599627370496p-52"),
            (0.0, 'b', None, "0p-1074"),
            (1_234_567.0, 'g', Some(3), "1.23e+06"),
            (1_234_567.0, 'g', Some(10), "1234567"),
            (100.0, 'g', Some(3), "100"),
            (0.000_123, 'g', Some(2), "0.00012"),
            (1e21, 'g', None, "1e+21"),
            (123_456_789.0, 'v', None, "1.23456789e+08"),
            (1e-7, 'G', None, "1E-07"),
            (0.5, 'f', Some(0), "0"),
            (1e20, 'f', None, "100000000000000000000.000000"),
            (123_456.789, 'e', None, "1.234568e+05"),
            (0.000_12, 'E', None, "1.200000E-04"),
        ];
        for (value, verb, precision, expected) in cases {
            assert_eq!(float(value, verb, precision).as_deref(), Some(expected), "%{verb} of {value}");
        }
        assert_eq!(float(1.0, 'd', None), None);
        assert_eq!(float(1.0, 'f', Some(2_000)).map(|text| text.len()), Some(2_002));
        assert_eq!(with_point("2", 'f', Some(0)), "2.");
        assert_eq!(with_point("0", 'g', None), "0.00000");
        assert_eq!(with_point("3", 'g', Some(3)), "3.00");
        assert_eq!(with_point("0x1.8p+00", 'x', None), "0x1.8000p+00");
    }
}
