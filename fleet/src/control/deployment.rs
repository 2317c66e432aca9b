//! Deployments and StatefulSets: as many replicas as asked for, of the present template.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::status::{self, WorkloadCounts};
use super::template::{self, Identity};
use super::{Controller, Plan, Seen, hosts_of, random_suffix, surroundings, template_hash};
use crate::events::EventKind;
use crate::objects::Object;
use crate::runtime::{ReplicaPhase, ReplicaStatus};

/// Replicas that a scaler would rather have gone, names by commas; told by whoever sets the size.
pub(crate) const VICTIMS: &str = "tidemill.dev/scale-in-first";

impl Controller {
    pub(super) fn plan_workload(&self, seen: &Seen, owner: &Arc<Object>, plan: &mut Plan) {
        let template = owner.at("/spec/template").cloned().unwrap_or_default();
        let hash = template_hash(&template);
        let all: Vec<&ReplicaStatus> = seen.owned_by(&owner.metadata.uid).collect();
        // A replica that ended is replaced by a new one.
        for ended in all.iter().filter(|replica| is_over(replica)) {
            plan.remove.push(ended.spec.uid.clone());
        }
        let alive: Vec<&ReplicaStatus> =
            all.into_iter().filter(|replica| !is_over(replica) && !replica.is_stopping).collect();
        let wanted = usize::try_from(owner.replicas()).unwrap_or_default();
        let changes = if owner.kind == "StatefulSet" {
            ordered(owner, &alive, wanted, &hash)
        } else {
            rolling(owner, &alive, wanted, &hash)
        };
        for uid in &changes.stop {
            plan.stop.push((uid.clone(), None));
        }
        let mut problem = None;
        for name in changes.start {
            if let Err(missing) = self.start_one(seen, owner, &template, &hash, name, plan) {
                self.tell_missing(owner, &missing);
                problem = Some(missing.iter().map(|missing| missing.what.clone()).collect::<Vec<_>>().join("; "));
                break;
            }
        }
        let started = plan.start.iter().filter(|replica| replica.owner_uid == owner.metadata.uid).count();
        if started > 0 || !changes.stop.is_empty() {
            let message = format!("{} replicas: {started} started, {} stopped", wanted, changes.stop.len());
            self.events.tell(owner, EventKind::Normal, "ScalingReplicas", &message);
        }
        let counts = WorkloadCounts::of(&alive, &hash, wanted);
        status::workload(seen, owner, counts, problem, plan);
    }

    fn start_one(
        &self,
        seen: &Seen,
        owner: &Object,
        template: &Value,
        hash: &str,
        name: String,
        plan: &mut Plan,
    ) -> Result<(), Vec<super::Missing>> {
        let namespace = &owner.metadata.namespace;
        let (hosts, services) = (hosts_of(&self.storage, namespace), seen.service_variables(namespace));
        let identity = Identity {
            uid: uuid::Uuid::new_v4().to_string(),
            name,
            template: hash.to_owned(),
            attempt: 1,
            address: plan.take_address()?,
            env: BTreeMap::new(),
        };
        let around = surroundings(&self.storage, seen, &hosts, &services, owner);
        plan.start.push(template::replica(owner, template, identity, &around)?);
        Ok(())
    }
}

fn is_over(replica: &ReplicaStatus) -> bool {
    matches!(replica.phase, ReplicaPhase::Succeeded | ReplicaPhase::Failed)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    /// Names.
    start: Vec<String>,
    /// Uids.
    stop: Vec<String>,
}

/// Old replicas go as new ones get ready, within `maxSurge` and `maxUnavailable`.
fn rolling(owner: &Object, alive: &[&ReplicaStatus], wanted: usize, hash: &str) -> Changes {
    let mut changes = Changes::default();
    let (mut new, old): (Vec<&ReplicaStatus>, Vec<&ReplicaStatus>) =
        alive.iter().partition(|replica| replica.spec.template == hash);
    let name = || format!("{}-{hash}-{}", owner.metadata.name, random_suffix());
    if owner.text("/spec/strategy/type") == Some("Recreate") && !old.is_empty() {
        changes.stop = old.iter().map(|replica| replica.spec.uid.clone()).collect();
        return changes;
    }
    let share = |path: &str, is_up: bool| share_of(owner.at(path), wanted, is_up);
    let mut surge = share("/spec/strategy/rollingUpdate/maxSurge", true);
    let unavailable = share("/spec/strategy/rollingUpdate/maxUnavailable", false);
    if surge == 0 && unavailable == 0 {
        surge = 1;
    }
    if new.len() > wanted {
        let preferred: Vec<&str> =
            owner.metadata.annotations.get(VICTIMS).map(|names| names.split(',').collect()).unwrap_or_default();
        let rank = |replica: &&ReplicaStatus| {
            preferred.iter().position(|name| *name == replica.spec.name).unwrap_or(usize::MAX)
        };
        // Preferred ones first, then what is not ready, then the youngest.
        new.sort_by_key(|replica| (rank(replica), replica.is_ready, std::cmp::Reverse(replica.created_at)));
        let surplus = new.len() - wanted;
        changes.stop.extend(new.drain(..surplus).map(|replica| replica.spec.uid.clone()));
    }
    if old.is_empty() {
        changes.start.extend((new.len()..wanted).map(|_| name()));
        return changes;
    }
    let room = (wanted + surge).saturating_sub(new.len() + old.len());
    changes.start.extend((0..room.min(wanted - new.len())).map(|_| name()));
    let ready = new.iter().chain(&old).filter(|replica| replica.is_ready).count();
    let mut spare = ready.saturating_sub(wanted.saturating_sub(unavailable));
    let mut old = old;
    old.sort_by_key(|replica| (replica.is_ready, replica.created_at));
    for replica in old {
        if !replica.is_ready {
            changes.stop.push(replica.spec.uid.clone());
        } else if spare > 0 {
            spare -= 1;
            changes.stop.push(replica.spec.uid.clone());
        }
    }
    changes
}

/// `25%` or a number; a quarter where nothing is said.
fn share_of(written: Option<&Value>, wanted: usize, is_up: bool) -> usize {
    let percent = |percent: usize| {
        let product = wanted * percent;
        if is_up { product.div_ceil(100) } else { product / 100 }
    };
    match written {
        Some(Value::Number(number)) => {
            number.as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or_default()
        }
        Some(Value::String(text)) => match text.strip_suffix('%') {
            Some(digits) => percent(digits.parse().unwrap_or_default()),
            None => text.parse().unwrap_or_default(),
        },
        _ => percent(25),
    }
}

/// One after the other, by number: up from the lowest, down and renewed from the highest.
fn ordered(owner: &Object, alive: &[&ReplicaStatus], wanted: usize, hash: &str) -> Changes {
    let mut changes = Changes::default();
    let is_parallel = owner.text("/spec/podManagementPolicy") == Some("Parallel");
    let name = |number: usize| format!("{}-{number}", owner.metadata.name);
    let of = |number: usize| alive.iter().find(|replica| replica.spec.name == name(number));
    let number_of =
        |replica: &ReplicaStatus| replica.spec.name.rsplit('-').next().and_then(|number| number.parse::<usize>().ok());
    for number in 0..wanted {
        match of(number) {
            None => {
                changes.start.push(name(number));
                if !is_parallel {
                    return changes;
                }
            }
            Some(replica) if !replica.is_ready && !is_parallel && replica.spec.template == hash => return changes,
            Some(_) => {}
        }
    }
    let mut surplus: Vec<(usize, &str)> = alive
        .iter()
        .filter_map(|replica| Some((number_of(replica)?, replica.spec.uid.as_str())))
        .filter(|(number, _)| *number >= wanted)
        .collect();
    surplus.sort_unstable();
    if is_parallel {
        changes.stop.extend(surplus.iter().map(|(_, uid)| (*uid).to_owned()));
    } else if let Some((_, uid)) = surplus.last() {
        changes.stop.push((*uid).to_owned());
        return changes;
    }
    // Renewed one at a time, the highest first, once all others are ready.
    if changes.start.is_empty() && changes.stop.is_empty() {
        let old = (0..wanted).rev().filter_map(of).find(|replica| replica.spec.template != hash);
        changes.stop.extend(old.map(|replica| replica.spec.uid.clone()));
    }
    changes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shares_are_rounded_in_favour_of_progress() {
        assert_eq!((share_of(None, 3, true), share_of(None, 3, false)), (1, 0));
        assert_eq!((share_of(Some(&json!("50%")), 5, true), share_of(Some(&json!("50%")), 5, false)), (3, 2));
        assert_eq!((share_of(Some(&json!(2)), 5, true), share_of(Some(&json!("1")), 5, false)), (2, 1));
    }
}
