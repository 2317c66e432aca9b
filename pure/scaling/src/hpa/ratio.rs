//! Ratios of usage to target over whole milli-units, with integer division where upstream has it.

use std::collections::BTreeMap;

/// How far a metric is from its target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// Usage over target; computed from the truncated percentage or average.
    pub ratio: f64,
    /// Percent of the requests, where the target is a utilization.
    pub utilization: Option<i32>,
    /// The average over the pods in milli-units, truncated.
    pub average_milli: i64,
}

/// Utilization against `target_percent`: pods without a request entry are left out.
///
/// # Errors
/// When no pod with metrics has a request.
pub fn utilization_ratio(
    usage_milli: &BTreeMap<&str, i64>,
    requests_milli: &BTreeMap<&str, i64>,
    target_percent: i32,
) -> Result<Ratio, String> {
    let (mut usage, mut requests, mut count) = (0_i128, 0_i128, 0_i128);
    for (pod, value) in usage_milli {
        let Some(request) = requests_milli.get(pod) else { continue };
        usage += i128::from(*value);
        requests += i128::from(*request);
        count += 1;
    }
    if requests == 0 {
        return Err("no metrics returned matched known pods".to_owned());
    }
    let percent = i32::try_from(usage * 100 / requests).unwrap_or(i32::MAX);
    Ok(Ratio {
        ratio: f64::from(percent) / f64::from(target_percent),
        utilization: Some(percent),
        average_milli: saturate(usage / count),
    })
}

/// The average of `usage_milli` against `target_milli`; 0 when there is no usage at all.
pub fn plain_ratio(usage_milli: &BTreeMap<&str, i64>, target_milli: i64) -> Ratio {
    let total: i128 = usage_milli.values().map(|value| i128::from(*value)).sum();
    let average = saturate(total / i128::try_from(usage_milli.len().max(1)).unwrap_or(1));
    Ratio { ratio: average as f64 / target_milli as f64, utilization: None, average_milli: average }
}

/// The nearest `i64`.
pub(super) fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// `value` rounded up, at most `i32::MAX`; NaN is 0.
pub(super) fn ceil_i32(value: f64) -> i32 {
    value.ceil() as i32
}
