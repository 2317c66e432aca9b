//! Bounds of a recommendation, and limits that follow it.

use super::policy::{ContainerPolicy, ControlledValues, Resource, Resources};

/// An amount within a container's policy: the least first, then the largest (its own, else the global one), so that the largest wins; then the
/// container's limit, where only requests are controlled.
pub fn cap(amounts: Resources, policy: &ContainerPolicy, global_max: Resources, limits: Resources) -> Resources {
    amounts.map(|resource, amount| {
        let mut amount = amount;
        if let Some(least) = policy.min_allowed.get(resource) {
            amount = amount.max(least);
        }
        if let Some(largest) = policy.max_allowed.get(resource).or(global_max.get(resource)) {
            amount = amount.min(largest);
        }
        if policy.controlled_values == ControlledValues::RequestsOnly
            && let Some(limit) = limits.get(resource)
        {
            amount = amount.min(limit);
        }
        Some(amount)
    })
}

/// What a limit is computed from; 0 is the same as missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProportionalLimit {
    /// The limit as it was.
    pub limit: Option<i64>,
    /// The request as it was.
    pub request: Option<i64>,
    /// The request to come.
    pub recommended: Option<i64>,
    /// The namespace's limit for containers that have none.
    pub default_limit: Option<i64>,
}

/// The limit that keeps its proportion to the request, truncated; `None` where there is no limit to set.
pub fn proportional_limit(input: ProportionalLimit) -> Option<i64> {
    let set = |amount: Option<i64>| amount.filter(|amount| *amount != 0);
    let limit = set(input.limit).or(set(input.default_limit))?;
    let recommended = set(input.recommended)?;
    match set(input.request) {
        None => Some(recommended),
        Some(request) if request == limit => Some(recommended),
        Some(request) => {
            let scaled = i128::from(limit) * i128::from(recommended) / i128::from(request);
            Some(i64::try_from(scaled).unwrap_or(i64::MAX))
        }
    }
}

/// Limits for a container whose requests become `target`.
pub(super) fn limits_for(
    target: Resources,
    requests: Resources,
    limits: Resources,
    values: ControlledValues,
) -> Resources {
    if values == ControlledValues::RequestsOnly {
        return limits;
    }
    let mut scaled = limits;
    for resource in Resource::ALL {
        if target.get(resource).is_some() {
            let input = ProportionalLimit {
                limit: limits.get(resource),
                request: requests.get(resource),
                recommended: target.get(resource),
                default_limit: None,
            };
            scaled.set(resource, proportional_limit(input));
        }
    }
    scaled
}
