//! What policies did: sizes changed by direction, flaps, and how long a decision takes to become ready replicas.

use std::collections::BTreeSet;

use super::families::{Families, Histogram, Labels};
use crate::objects::ObjectKey;
use crate::scale::{Counters, READY_BOUNDS_S};

/// Of all policies but those of `own`.
pub(super) fn add(families: &mut Families, counters: &Counters, own: &BTreeSet<ObjectKey>) {
    let began = families.began;
    for (key, counted) in counters.all().into_iter().filter(|(key, _)| !own.contains(key)) {
        let labels = Labels::new(&[("namespace", &key.namespace), ("policy_kind", &key.kind), ("policy", &key.name)]);
        families.counter("tidemill_fleet_decisions_total", &labels, &[], (counted.decisions as f64, began));
        for (direction, count) in [("up", counted.up), ("down", counted.down)] {
            let direction = [("direction", direction)];
            families.counter("tidemill_fleet_scale_events_total", &labels, &direction, (count as f64, began));
        }
        families.counter("tidemill_fleet_flaps_total", &labels, &[], (counted.flaps as f64, began));
        if counted.ready.iter().any(|count| *count > 0) {
            families.histograms.push(Histogram {
                name: "tidemill_fleet_decision_to_ready_seconds",
                labels: labels.0,
                bounds: &READY_BOUNDS_S,
                counts: counted.ready.to_vec(),
                sum: counted.ready_sum_s,
            });
        }
    }
}
