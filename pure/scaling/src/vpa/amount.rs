//! Amounts: whole millicores or bytes, always truncated, never negative, at most [`MAX_AMOUNT`].

/// The largest amount.
pub const MAX_AMOUNT: i64 = 100_000_000_000_000;

/// The amount nearest below `value`, within bounds; NaN is 0.
pub fn amount_from_float(value: f64) -> i64 {
    (value.clamp(0.0, MAX_AMOUNT as f64)) as i64
}

/// `amount` times `factor`, truncated and within bounds.
pub fn scale_amount(amount: i64, factor: f64) -> i64 {
    amount_from_float(amount as f64 * factor)
}

/// `amount` rounded up to a multiple of `step`; `None` where `step` is not positive.
pub fn round_up(amount: i64, step: i64) -> Option<i64> {
    if step <= 0 {
        return None;
    }
    Some(amount.saturating_add(step - 1).div_euclid(step).saturating_mul(step))
}
