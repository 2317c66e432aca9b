//! What belongs to nothing any more.

use std::collections::BTreeSet;

use super::{Plan, Seen};
use crate::runtime::ReplicaPhase;
use crate::storage::Write;

/// Objects whose owner or namespace is gone, and replicas whose owner is gone.
pub(super) fn plan(seen: &Seen, plan: &mut Plan) {
    let uids: BTreeSet<&str> = seen.objects.iter().map(|object| object.metadata.uid.as_str()).collect();
    for object in &seen.objects {
        let owners = &object.metadata.owner_references;
        if !owners.is_empty() && owners.iter().all(|owner| !uids.contains(owner.uid.as_str())) {
            plan.writes.push(Write::Delete(object.key()));
        }
    }
    for replica in seen.replicas.iter().filter(|replica| !uids.contains(replica.spec.owner_uid.as_str())) {
        if matches!(replica.phase, ReplicaPhase::Succeeded | ReplicaPhase::Failed) {
            plan.remove.push(replica.spec.uid.clone());
        } else if !replica.is_stopping {
            plan.stop.push((replica.spec.uid.clone(), None));
        }
    }
}
