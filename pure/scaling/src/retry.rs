//! What a *reported* failure does to an item: backoff with jitter, and the dead letter after the last attempt.
//!
//! Never blames an item of a bundle of several: such a bundle is split (see [`crate::lease::split_limit`]).

use std::time::Duration;

/// When to try again and when to give up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// The pause after the first failure; doubles with each further one.
    pub first_delay: Duration,
    /// No pause is longer.
    pub longest_delay: Duration,
    /// The failure with this count makes the item a dead letter.
    pub max_failures: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { first_delay: Duration::from_secs(1), longest_delay: Duration::from_secs(600), max_failures: 10 }
    }
}

/// What becomes of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It runs again after `delay`, in a bundle of at most `bundle_limit` items.
    Retry {
        /// Not before this long from now.
        delay: Duration,
        /// The largest bundle it may be part of, `None` for no limit.
        bundle_limit: Option<u32>,
    },
    /// It is kept aside until a person redrives it.
    DeadLetter,
}

/// Whether the failure can pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureNature {
    /// The next attempt may succeed.
    Transient,
    /// No attempt can succeed.
    Permanent,
}

/// The pause after the `count`-th failure or crash: exponential, with "equal jitter" (Brooker, "Exponential Backoff And
/// Jitter", AWS Architecture Blog, 2015): half of the pause is fixed, the other half is `jitter` (0 to 1) of itself.
pub fn backoff(policy: &RetryPolicy, count: u32, jitter: f64) -> Duration {
    let doublings = count.saturating_sub(1).min(32);
    let full =
        policy.first_delay.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(policy.longest_delay);
    let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 1.0 };
    full / 2 + (full / 2).mul_f64(jitter)
}

/// What becomes of a bundle's items after a reported failure. `failures` counts this failure; it matters for an item alone.
pub fn decide_failure(
    policy: &RetryPolicy,
    items_in_bundle: u32,
    failures: u32,
    nature: FailureNature,
    jitter: f64,
) -> Verdict {
    if items_in_bundle > 1 {
        let bundle_limit = Some(crate::lease::split_limit(items_in_bundle));
        return Verdict::Retry { delay: Duration::ZERO, bundle_limit };
    }
    if nature == FailureNature::Permanent || failures >= policy.max_failures {
        return Verdict::DeadLetter;
    }
    Verdict::Retry { delay: backoff(policy, failures, jitter), bundle_limit: Some(1) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_item_alone_waits_longer_each_time_and_is_given_up_at_last() {
        let policy = RetryPolicy::default();
        let waits: Vec<u64> = (1..10).map(|count| backoff(&policy, count, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256]);
        assert_eq!(decide_failure(&policy, 1, 10, FailureNature::Transient, 0.0), Verdict::DeadLetter);
        assert_eq!(decide_failure(&policy, 1, 1, FailureNature::Permanent, 0.0), Verdict::DeadLetter);
    }

    proptest! {
        #[test]
        fn pauses_are_bounded_and_grow(count in 1_u32..100, jitter in 0.0_f64..=1.0) {
            let policy = RetryPolicy::default();
            let pause = backoff(&policy, count, jitter);
            prop_assert!(pause <= policy.longest_delay);
            prop_assert!(pause >= policy.first_delay / 2);
            prop_assert!(backoff(&policy, count + 1, jitter) >= pause);
        }

        #[test]
        fn nothing_in_a_bundle_of_several_is_blamed(items in 2_u32..10_000, failures in 0_u32..100, permanent: bool) {
            let nature = if permanent { FailureNature::Permanent } else { FailureNature::Transient };
            let verdict = decide_failure(&RetryPolicy::default(), items, failures, nature, 0.5);
            match verdict {
                Verdict::Retry { delay, bundle_limit: Some(limit) } => {
                    prop_assert_eq!(delay, Duration::ZERO);
                    prop_assert!(limit >= 1 && limit < items);
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
