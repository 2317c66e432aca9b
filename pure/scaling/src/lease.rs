//! Bundles and crashes: how many items one lease takes, and what an attempt that ended without a report does to them.
//!
//! An attempt that ends without a reported error is a *crash*. A crashed bundle is claimed again in halves, then one by one, so
//! that an item that kills its worker is found. An item that crashed alone three times is given up, unless its crashes are
//! explained by something else: processes are also killed by people, by the kernel and by machines that go away, and whatever
//! such a process holds is innocent. Two cases are told apart by what can be observed:
//!
//! - The process that held the lease still lives (it claims again): only the item can have lost the attempt. Three are enough.
//! - The process is gone. Then the item's crashes are compared with how often leases on *other* items end in a crash. With a
//!   rate `p`, an innocent item crashes `k` times in a row with probability `p^k`; it is given up when that is below one in a
//!   million, and never before three. Where processes do not die otherwise (`p` below 1 %) this is three; while processes are
//!   killed all the time it is never; and with nothing to compare with it is twenty, so that no crash loop lasts for ever.

use std::time::Duration;

use crate::retry::{RetryPolicy, Verdict, backoff};

/// An item is never given up before it crashed alone this often.
pub const ALONE_CRASHES: u32 = 3;

/// The chance below which an innocent explanation of an item's crashes is no longer believed.
const INNOCENCE_THRESHOLD: f64 = 1e-6;

/// A claimable item, as far as the size of a bundle is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Counts toward the byte budget.
    pub size_bytes: u64,
    /// The largest bundle it may be part of, `None` for no limit.
    pub bundle_limit: Option<u32>,
}

/// How many leading `candidates` form a bundle: at most `max_items` and `max_bytes`, but at least one; and no more than any
/// member's own limit.
pub fn plan_bundle(candidates: impl IntoIterator<Item = Candidate>, max_items: usize, max_bytes: u64) -> usize {
    let mut taken = 0;
    let mut bytes = 0_u64;
    let mut limit = max_items.max(1);
    for candidate in candidates {
        let own_limit = candidate.bundle_limit.map_or(limit, |own| limit.min(own.max(1) as usize));
        bytes = bytes.saturating_add(candidate.size_bytes);
        if taken > 0 && (taken + 1 > own_limit || bytes > max_bytes) {
            break;
        }
        limit = own_limit;
        taken += 1;
        if taken >= limit {
            break;
        }
    }
    taken
}

/// The largest bundle that the items of a bundle of `items` may form after it was split: half, rounded up.
pub fn split_limit(items: u32) -> u32 {
    items.div_ceil(2).max(1)
}

/// An item's crashes while it was the only one in its bundle, the present one included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AloneCrashes {
    /// All of them.
    pub total: u32,
    /// Those whose holder was alive.
    pub with_living_holder: u32,
}

/// How leases of the same queue ended lately, without those of the item that is judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OtherLeases {
    /// With a report: published, completed, failed or handed back.
    pub reported: u64,
    /// Without one.
    pub crashed: u64,
}

impl OtherLeases {
    /// The chance that a lease on an innocent item crashes (Laplace's rule of succession: one half when nothing is known).
    fn crash_chance(self) -> f64 {
        (self.crashed as f64 + 1.0) / (self.crashed as f64 + self.reported as f64 + 2.0)
    }
}

/// What becomes of an item of a bundle that crashed.
pub fn decide_crash(
    policy: &RetryPolicy,
    items_in_bundle: u32,
    alone: AloneCrashes,
    others: OtherLeases,
    jitter: f64,
) -> Verdict {
    if items_in_bundle > 1 {
        return Verdict::Retry { delay: Duration::ZERO, bundle_limit: Some(split_limit(items_in_bundle)) };
    }
    let is_beyond_chance = others.crash_chance().powi(alone.total.min(1_000_000) as i32) <= INNOCENCE_THRESHOLD;
    if alone.with_living_holder >= ALONE_CRASHES || (alone.total >= ALONE_CRASHES && is_beyond_chance) {
        return Verdict::DeadLetter;
    }
    // The first crash alone is tried again at once: after a power cut that is all there is to do.
    let delay = if alone.total <= 1 { Duration::ZERO } else { backoff(policy, alone.total - 1, jitter) };
    Verdict::Retry { delay, bundle_limit: Some(1) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verdict(total: u32, with_living_holder: u32, others: OtherLeases) -> Verdict {
        decide_crash(&RetryPolicy::default(), 1, AloneCrashes { total, with_living_holder }, others, 0.0)
    }

    #[test]
    fn three_crashes_under_a_living_process_are_enough() {
        assert_ne!(verdict(2, 2, OtherLeases::default()), Verdict::DeadLetter);
        assert_eq!(verdict(3, 3, OtherLeases::default()), Verdict::DeadLetter);
    }

    #[test]
    fn where_processes_do_not_die_otherwise_three_crashes_are_enough() {
        let calm = OtherLeases { reported: 200, crashed: 0 };
        assert_ne!(verdict(2, 0, calm), Verdict::DeadLetter);
        assert_eq!(verdict(3, 0, calm), Verdict::DeadLetter);
    }

    #[test]
    fn kills_of_processes_do_not_condemn_what_they_held() {
        let killed = OtherLeases { reported: 100, crashed: 300 };
        assert_ne!(verdict(30, 0, killed), Verdict::DeadLetter);
        assert_ne!(verdict(3, 0, OtherLeases::default()), Verdict::DeadLetter);
    }

    #[test]
    fn a_crash_loop_with_nothing_to_compare_ends() {
        assert_ne!(verdict(19, 0, OtherLeases::default()), Verdict::DeadLetter);
        assert_eq!(verdict(20, 0, OtherLeases::default()), Verdict::DeadLetter);
    }

    proptest! {
        #[test]
        fn splitting_reaches_one_and_never_grows(items in 2_u32..100_000) {
            let mut size = items;
            let mut splits = 0;
            while size > 1 {
                let next = split_limit(size);
                prop_assert!(next < size);
                size = next;
                splits += 1;
            }
            prop_assert!(splits <= 17);
        }

        #[test]
        fn bundles_respect_every_bound(
            sizes in proptest::collection::vec((0_u64..1_000, proptest::option::of(1_u32..8)), 1..40),
            max_items in 1_usize..20,
            max_bytes in 0_u64..5_000,
        ) {
            let candidates: Vec<Candidate> =
                sizes.iter().map(|&(size_bytes, bundle_limit)| Candidate { size_bytes, bundle_limit }).collect();
            let taken = plan_bundle(candidates.iter().copied(), max_items, max_bytes);
            prop_assert!(taken >= 1 && taken <= max_items && taken <= candidates.len());
            let bundle = &candidates[..taken];
            if taken > 1 {
                prop_assert!(bundle.iter().map(|item| item.size_bytes).sum::<u64>() <= max_bytes);
            }
            for item in bundle {
                prop_assert!(item.bundle_limit.is_none_or(|limit| taken <= limit as usize));
            }
        }

        #[test]
        fn more_crashes_of_others_never_condemn(total in 1_u32..60, reported in 0_u64..1_000, crashed in 0_u64..1_000) {
            let before = verdict(total, 0, OtherLeases { reported, crashed });
            let after = verdict(total, 0, OtherLeases { reported, crashed: crashed + 1 });
            if after == Verdict::DeadLetter {
                prop_assert_eq!(before, Verdict::DeadLetter);
            }
        }

        #[test]
        fn never_before_the_third_crash_alone(total in 1_u32..ALONE_CRASHES, reported in 0_u64..1_000_000) {
            prop_assert_ne!(verdict(total, total, OtherLeases { reported, crashed: 0 }), Verdict::DeadLetter);
        }
    }
}
