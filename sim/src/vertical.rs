//! The vertical autoscaler in the world: it sees what replicas use, changes what new ones request, and evicts or resizes old ones.

use tidemill_scaling::hpa::Phase;
use tidemill_scaling::vpa::{self, ContainerRecommendation, Resources, UpdateMethod, UpdateMode};
use tidemill_scaling::{Action, TimeMs};

use crate::clock::Event;
use crate::observe::{id_of, name_of};
use crate::outcome::Change;
use crate::world::{START, World};

/// The loop of recommender and updater upstream.
pub(crate) const LOOP_MS: i64 = 60_000;

/// A vertical autoscaler at work.
#[derive(Debug)]
pub(crate) struct Vertical {
    pub policy: vpa::Policy,
    state: vpa::State,
    recommendation: Option<ContainerRecommendation>,
    pub ooms: Vec<vpa::Oom>,
    /// The end of the last stretch that was sampled.
    sampled_ms: i64,
}

impl Vertical {
    pub fn new(policy: vpa::Policy) -> Self {
        Self { policy, state: vpa::State::default(), recommendation: None, ooms: Vec::new(), sampled_ms: -1 }
    }

    /// What a new replica requests, as admission writes it.
    pub fn admitted(&self, requests: Resources, limits: Resources) -> (Resources, Resources) {
        match &self.recommendation {
            Some(one) if self.policy.update_mode != UpdateMode::Off => {
                vpa::applied(&self.policy, one, requests, limits)
            }
            _ => (requests, limits),
        }
    }
}

impl World<'_> {
    /// One look of the vertical autoscaler, and what comes of it.
    pub(crate) fn ask_vertical(&mut self) {
        self.agenda.set(self.now + LOOP_MS, Event::Size);
        let Some(mut vertical) = self.vertical.take() else { return };
        let observation = self.observe_vertical(&mut vertical);
        let outcome = vpa::step(&vertical.policy, std::mem::take(&mut vertical.state), &observation, self.at());
        vertical.state = outcome.state;
        let reasons: Vec<String> =
            outcome.reasons.iter().map(|reason| format!("{}: {}", reason.code, reason.message)).collect();
        let mut updates = Vec::new();
        for action in outcome.actions {
            match action {
                Action::Recommend { containers } => {
                    vertical.recommendation =
                        containers.into_iter().find(|one| one.container == self.contender.size.container);
                }
                Action::UpdateReplica { replica, method } => updates.push((replica, method)),
                _ => {}
            }
        }
        self.vertical = Some(vertical);
        for (replica, method) in updates {
            let text = match method {
                UpdateMethod::Resize => format!("{replica} resized"),
                UpdateMethod::Evict => format!("{replica} evicted"),
            };
            self.ledger.note(Change { at_s: self.now / 1000, action: text, reasons: reasons.clone() });
            let Some(id) = id_of(&replica) else { continue };
            match method {
                UpdateMethod::Resize => self.resize(id),
                UpdateMethod::Evict => self.evict(id),
            }
        }
    }

    fn observe_vertical(&self, vertical: &mut Vertical) -> vpa::Observation {
        let container = &self.contender.size.container;
        let mut samples = Vec::new();
        let mut latest = vertical.sampled_ms;
        for (id, replica) in &self.replicas {
            let Some(measured) = replica.measured.filter(|measured| measured.at_ms > vertical.sampled_ms) else {
                continue;
            };
            latest = latest.max(measured.at_ms);
            let usage = Resources { cpu_milli: Some(measured.cpu_milli), memory_bytes: Some(measured.memory_bytes) };
            let at = START.plus_ms(measured.at_ms);
            samples.push(vpa::Sample { replica: name_of(*id), container: container.clone(), at, usage });
        }
        vertical.sampled_ms = latest;
        let pods = self.replicas.iter().filter(|(_, replica)| !replica.is_leaving).map(|(id, replica)| vpa::Replica {
            name: name_of(*id),
            phase: if replica.ready_ms.is_some() { Phase::Running } else { Phase::Pending },
            started_at: Some(START.plus_ms(replica.created_ms)),
            containers: vec![vpa::ReplicaContainer {
                name: container.clone(),
                requests: replica.requests,
                limits: replica.limits,
                oom_after_ms: replica.oom_after_ms,
            }],
            resize: None,
        });
        vpa::Observation {
            samples,
            ooms: std::mem::take(&mut vertical.ooms),
            replicas: self.asked,
            pods: pods.collect(),
            disruptions_allowed: Vec::new(),
        }
    }

    fn resize(&mut self, id: u64) {
        let (template, limits) = (self.contender.size.requests, self.contender.size.limits);
        let Some(vertical) = &self.vertical else { return };
        let (requests, limits) = vertical.admitted(template, limits);
        if let Some(replica) = self.replicas.get_mut(&id) {
            self.ledger.release(replica.requests);
            self.ledger.request(requests);
            (replica.requests, replica.limits) = (requests, limits);
            replica.oom_after_ms = None;
            self.ledger.resizes += 1;
        }
    }

    /// It ends after its item, and a new one takes its place at once.
    fn evict(&mut self, id: u64) {
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        self.ledger.evictions += 1;
        if replica.item.is_some() {
            replica.is_leaving = true;
        } else {
            self.remove_replica(id);
        }
        self.start_replica();
    }

    /// The container was killed for memory: the item waits again, and the container starts anew in the same replica.
    pub(crate) fn kill_for_memory(&mut self, id: u64) {
        self.ledger.ooms += 1;
        let now = self.now;
        let at: TimeMs = self.at();
        let delay = self.startup_delay();
        let memory_bytes = self.setup.usage.memory_bytes;
        let container = self.contender.size.container.clone();
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        replica.oom_after_ms = Some(now - replica.started_ms);
        replica.started_ms = now;
        replica.ready_ms = None;
        replica.is_doomed = false;
        replica.busy_ms += now - replica.busy_since;
        replica.memory_peak = replica.memory_peak.max(replica.memory_bytes);
        replica.memory_bytes = memory_bytes;
        let requested_bytes = replica.requests.memory_bytes.unwrap_or(0);
        if let Some(vertical) = &mut self.vertical {
            vertical.ooms.push(vpa::Oom { replica: name_of(id), container, at, requested_bytes });
        }
        self.agenda.set(now + delay, Event::Ready(id));
    }
}
