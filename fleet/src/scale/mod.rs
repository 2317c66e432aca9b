//! The production loop around `step`: look, decide, write down, carry out.
//!
//! Owns: when each policy looks, what it sees, and that state, decision and its consequences are stored in one transaction, so that a process that is
//! killed anywhere has either decided and acted or neither. Never: the decision itself (`tidemill_scaling::record::step`).
//! Start with [`Scaler::run`].

mod carry;
mod counters;
pub(crate) mod custom;
mod history;
mod metrics;
mod observe;
mod policies;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidemill_scaling::keda::Profile;
use tidemill_scaling::keda::object::Tick;
use tidemill_scaling::record::{self, Observation, Policy, State};
use tidemill_source::Sources;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::events::{EventKind, Events};
use crate::objects::Object;
use crate::runtime::Runtime;
use crate::storage::Storage;
pub use counters::{Counted, Counters, READY_BOUNDS_S};
use policies::Known;

/// A look waits at most this long for the addresses of names that were just stored.
const REACHABLE: Duration = Duration::from_secs(1);

/// How often policies look.
#[derive(Debug, Clone, Copy)]
pub struct ScaleOptions {
    /// Between looks of a horizontal autoscaler. Kubernetes looks every 15 s.
    pub sync_period: Duration,
    /// Between looks of a vertical autoscaler. Kubernetes's recommender looks every minute.
    pub vertical_period: Duration,
}

impl Default for ScaleOptions {
    fn default() -> Self {
        Self { sync_period: Duration::from_secs(15), vertical_period: Duration::from_secs(60) }
    }
}

/// Decides about sizes.
#[derive(Debug)]
pub struct Scaler {
    pub(crate) storage: Arc<Storage>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) sources: Arc<Sources>,
    pub(crate) events: Arc<Events>,
    /// What policies did, for metrics.
    pub(crate) counters: Arc<Counters>,
    options: ScaleOptions,
    looks: AtomicU64,
}

/// A look that ended.
struct Looked {
    uid: String,
    look: u64,
    observation: Observation,
}

/// When a policy looks next, by a clock that never jumps.
#[derive(Debug, Clone, Copy)]
struct Due {
    poll: Instant,
    /// The horizontal autoscaler's clock, of strict ScaledObjects only.
    sync: Option<Instant>,
}

impl Due {
    fn next(self) -> Instant {
        self.sync.map_or(self.poll, |sync| sync.min(self.poll))
    }
}

struct Running {
    known: Arc<Known>,
    state: State,
    due: Due,
    /// The look that is under way. What any other one brings was seen before the last decision, and is let go.
    looking: Option<u64>,
    /// The change by which it was taken up.
    since: u64,
}

impl Scaler {
    /// A scaler over what is stored and what runs.
    pub fn new(
        storage: Arc<Storage>,
        runtime: Arc<dyn Runtime>,
        sources: Arc<Sources>,
        events: Arc<Events>,
        options: ScaleOptions,
    ) -> Self {
        Self { storage, runtime, sources, events, counters: Arc::default(), options, looks: AtomicU64::new(0) }
    }

    /// Looks and decides until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let (mut objects, mut pushed) = (self.storage.watch(), self.sources.pushed().changes());
        let (sender, mut looked) = mpsc::channel::<Looked>(1024);
        let mut running: BTreeMap<String, Running> = BTreeMap::new();
        loop {
            objects.borrow_and_update();
            self.refresh(&mut running);
            let now = Instant::now();
            for policy in running.values_mut().filter(|policy| policy.looking.is_none() && policy.due.next() <= now) {
                self.clone().start_look(policy, now, sender.clone());
            }
            let next = running.values().filter(|policy| policy.looking.is_none()).map(|policy| policy.due.next()).min();
            tokio::select! {
                () = stop.cancelled() => return,
                _ = objects.changed() => {}
                _ = pushed.changed() => {
                    pushed.borrow_and_update();
                    running.values_mut().filter(|policy| policy.known.is_pushed).for_each(|policy| policy.due.poll = Instant::now());
                }
                () = sleep_until(next) => {}
                Some(first) = looked.recv() => {
                    self.decide(&mut running, first).await;
                    while let Ok(more) = looked.try_recv() {
                        self.decide(&mut running, more).await;
                    }
                }
            }
        }
    }

    /// Takes up policies that are new or another, and lets go of those that are gone.
    fn refresh(&self, running: &mut BTreeMap<String, Running>) {
        let mut present = BTreeMap::new();
        for kind in policies::KINDS {
            for object in self.storage.list(kind, None).objects {
                present.insert(object.metadata.uid.clone(), object);
            }
        }
        running.retain(|uid, _| present.contains_key(uid));
        self.counters.keep(|key| self.storage.get(key).is_some());
        for (uid, object) in present {
            let version = policies::Version::of(&object);
            if running.get(&uid).is_some_and(|policy| policy.known.version == version) {
                continue;
            }
            let known = match policies::read(&object) {
                Ok(known) => Arc::new(known),
                Err(problem) => {
                    self.events.tell(&object, EventKind::Warning, "InvalidPolicy", &problem);
                    continue;
                }
            };
            let kept = running.remove(&uid).map(|policy| policy.state);
            let state =
                kept.or_else(|| self.stored_state(&uid)).filter(|state| policies::is_of_kind(state, &known.policy));
            let state = state.unwrap_or_else(|| known.policy.first_state());
            let now = Instant::now();
            let sync = known.is_strict().then_some(now);
            let due = Due { poll: now, sync };
            let since = object.metadata.resource_version.parse().unwrap_or_default();
            running.insert(uid, Running { known, state, due, looking: None, since });
        }
    }

    fn stored_state(&self, uid: &str) -> Option<State> {
        let text = self.storage.state(uid).ok().flatten()?;
        match serde_json::from_str(&text) {
            Ok(state) => Some(state),
            Err(error) => {
                tracing::warn!(uid, %error, "what a policy remembers cannot be read; it begins anew");
                None
            }
        }
    }

    fn start_look(self: Arc<Self>, policy: &mut Running, now: Instant, sender: mpsc::Sender<Looked>) {
        let known = policy.known.clone();
        let tick = match policy.due.sync {
            Some(sync) if policy.due.poll <= now && sync <= now => Tick::Both,
            Some(sync) if sync <= now => Tick::Sync,
            Some(_) => Tick::Poll,
            None => Tick::Both,
        };
        if matches!(tick, Tick::Both | Tick::Poll) {
            policy.due.poll = now + self.interval(&known);
        }
        if matches!(tick, Tick::Both | Tick::Sync)
            && let Some(sync) = &mut policy.due.sync
        {
            *sync = now + self.options.sync_period;
        }
        // No two looks have one number, also when the policy became another in between.
        let look = self.looks.fetch_add(1, Ordering::Relaxed);
        policy.looking = Some(look);
        let since = policy.since;
        let is_new = matches!(&policy.state, State::VerticalPodAutoscaler(state) if state.containers.is_empty());
        tokio::spawn(async move {
            self.storage.wait_until_reachable(since, REACHABLE).await;
            let observation = self.observe(&known, tick, is_new).await;
            let looked = Looked { uid: known.uid.clone(), look, observation };
            // The loop is gone only when the process ends.
            let _ = sender.send(looked).await;
        });
    }

    fn interval(&self, known: &Known) -> Duration {
        let ms = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or_default().max(100));
        match &known.policy {
            Policy::HorizontalPodAutoscaler(_) => self.options.sync_period,
            Policy::VerticalPodAutoscaler(_) => self.options.vertical_period,
            Policy::ScaledJob(policy) => ms(policy.polling_interval_ms),
            Policy::ScaledObject(policy) if policy.profile == Profile::Strict => ms(policy.polling_interval_ms),
            // Natively one clock serves both purposes.
            Policy::ScaledObject(policy) => ms(policy.polling_interval_ms).min(self.options.sync_period),
        }
    }

    async fn decide(&self, running: &mut BTreeMap<String, Running>, looked: Looked) {
        let Some(policy) = running.get_mut(&looked.uid) else { return };
        if policy.looking != Some(looked.look) {
            return;
        }
        policy.looking = None;
        match self.decide_one(&policy.known, policy.state.clone(), looked.observation).await {
            Ok(state) => policy.state = state,
            // It is gone, or changed: the next look is at what is there then.
            Err(Error::NotFound(_)) => {}
            Err(error) => {
                tracing::warn!(policy = %policy.known.key, %error, "a decision could not be stored; it is made again");
                policy.due.poll = policy.due.poll.min(Instant::now() + Duration::from_secs(1));
            }
        }
    }

    async fn decide_one(&self, known: &Known, state: State, observation: Observation) -> Result<State> {
        let now = crate::control::now();
        let outcome = record::step(&known.policy, state.clone(), &observation, now);
        let outcome = outcome.map_err(|error| Error::Internal(error.to_string()))?;
        let record = tidemill_scaling::Record {
            now,
            policy: known.policy.clone(),
            state,
            observation,
            actions: outcome.actions.clone(),
            reasons: outcome.reasons.clone(),
        };
        self.carry_out(known, &outcome.state, &record).await?;
        Ok(outcome.state)
    }

    /// The object that a policy scales.
    pub(crate) fn target(&self, known: &Known) -> Option<Arc<Object>> {
        let target = known.target.as_ref()?;
        self.storage.get(&crate::objects::ObjectKey::new(&target.kind, &known.key.namespace, &target.name))
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
