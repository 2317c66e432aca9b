//! Sums and products of decimal numbers as they are written, so that 0.1 + 0.2 is 0.3.

/// A decimal number: `digits` times ten to the minus `scale`.
#[derive(Debug, Clone, Copy)]
struct Decimal {
    digits: i128,
    scale: u32,
}

/// What is done with the numbers.
#[derive(Debug, Clone, Copy)]
pub(super) enum DecimalOperation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// The digits that a quotient keeps behind the point.
const QUOTIENT_DIGITS: u32 = 16;

/// The operation on `first` and each of `rest` in turn; in binary where the decimals grow too long.
pub(super) fn calculate(operation: DecimalOperation, first: f64, rest: &[f64]) -> Result<f64, String> {
    let mut result = first;
    for &next in rest {
        if matches!(operation, DecimalOperation::Divide) && next == 0.0 {
            return Err("decimal division by 0".to_owned());
        }
        let exact = of(result).zip(of(next)).and_then(|(left, right)| combine(operation, left, right));
        result = match (exact, operation) {
            (Some(exact), _) => exact,
            (None, DecimalOperation::Add) => result + next,
            (None, DecimalOperation::Subtract) => result - next,
            (None, DecimalOperation::Multiply) => result * next,
            (None, DecimalOperation::Divide) => result / next,
        };
    }
    Ok(result)
}

fn of(value: f64) -> Option<Decimal> {
    let text = value.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits = format!("{whole}{fraction}").parse().ok()?;
    Some(Decimal { digits, scale: u32::try_from(fraction.len()).ok()? })
}

fn combine(operation: DecimalOperation, left: Decimal, right: Decimal) -> Option<f64> {
    let scale = left.scale.max(right.scale);
    let aligned = |value: Decimal| value.digits.checked_mul(10i128.checked_pow(scale - value.scale)?);
    let result = match operation {
        DecimalOperation::Add => Decimal { digits: aligned(left)?.checked_add(aligned(right)?)?, scale },
        DecimalOperation::Subtract => Decimal { digits: aligned(left)?.checked_sub(aligned(right)?)?, scale },
        DecimalOperation::Multiply => {
            Decimal { digits: left.digits.checked_mul(right.digits)?, scale: left.scale + right.scale }
        }
        DecimalOperation::Divide => {
            let numerator = aligned(left)?.checked_mul(10i128.checked_pow(QUOTIENT_DIGITS + 1)?)?;
            let quotient = numerator / aligned(right)?;
            Decimal { digits: (quotient + 5 * quotient.signum()) / 10, scale: QUOTIENT_DIGITS }
        }
    };
    format!("{}e-{}", result.digits, result.scale).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        let of = |operation, first, rest: &[f64]| calculate(operation, first, rest);
        assert_eq!(of(DecimalOperation::Add, 0.1, &[0.2]), Ok(0.3));
        assert_eq!(of(DecimalOperation::Subtract, 5.5, &[2.0, 0.1]), Ok(3.4));
        assert_eq!(of(DecimalOperation::Multiply, 1.1, &[1.1]), Ok(1.21));
        assert_eq!(of(DecimalOperation::Divide, 7.0, &[2.0]), Ok(3.5));
        assert_eq!(of(DecimalOperation::Add, 1e300, &[1.0]), Ok(1e300));
        assert!(of(DecimalOperation::Divide, 1.0, &[0.0]).is_err());
    }
}
