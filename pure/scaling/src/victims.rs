//! Which replicas go first when a workload shrinks.
//!
//! A replica that holds no lease always goes before one that does; among equals the one that is not ready goes first, then the youngest.
//! Names break ties, so that the answer does not depend on the order of the observation.

use std::cmp::Reverse;

use crate::hpa::{Phase, Pod};

/// The names of the `count` replicas that should go, first to last. Replicas that end by themselves are not counted.
pub fn choose_victims(pods: &[Pod], count: usize) -> Vec<String> {
    if count == 0 {
        return Vec::new();
    }
    let mut live: Vec<&Pod> = pods.iter().filter(|pod| is_live(pod)).collect();
    let rank = |pod: &Pod| {
        let is_ready = pod.ready == Some(true) && pod.phase == Phase::Running;
        (pod.live_leases > 0, is_ready, Reverse(pod.started_at))
    };
    live.sort_by(|one, other| rank(one).cmp(&rank(other)).then_with(|| one.name.cmp(&other.name)));
    live.into_iter().take(count).map(|pod| pod.name.clone()).collect()
}

fn is_live(pod: &Pod) -> bool {
    !pod.is_deleting && !matches!(pod.phase, Phase::Failed | Phase::Succeeded)
}
