//! The world: items wait in one queue, replicas or jobs take them, and a policy is asked how many there should be.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidemill_scaling::record::{Policy, State, step};
use tidemill_scaling::{Action, TimeMs};

use crate::clock::{Agenda, Clock, Event};
use crate::outcome::{Change, Ledger, Outcome};
use crate::random::Random;
use crate::replica::Replica;
use crate::vertical::{self, Vertical};
use crate::{Contender, Load, Setup};

/// Where the world's time begins; a round number of seconds of our own era.
pub(crate) const START: TimeMs = TimeMs(1_700_000_000_000);
/// How often CPU is measured, as metrics-server does.
pub(crate) const MEASURE_MS: i64 = 15_000;
/// An arrival wakes a native policy this much later.
const WAKE_MS: i64 = 100;
/// How long the world goes on after its load, so that what waits can end.
const TAIL_MS: i64 = 1_800_000;

pub(crate) struct World<'a> {
    pub setup: &'a Setup,
    load: &'a Load,
    pub contender: &'a Contender,
    state: Option<State>,
    pub vertical: Option<Vertical>,
    pub now: i64,
    pub agenda: Agenda,
    next_arrival: usize,
    pub queue: VecDeque<i64>,
    pub replicas: BTreeMap<u64, Replica>,
    idle: BTreeSet<u64>,
    pub working: usize,
    /// Items whose claim outlives the replica that made it.
    pub orphans: usize,
    next_id: u64,
    /// What the policy asked for; replicas that leave are not in it.
    pub asked: i32,
    is_waking: bool,
    random: Random,
    pub ledger: Ledger,
}

impl<'a> World<'a> {
    pub fn new(setup: &'a Setup, load: &'a Load, contender: &'a Contender) -> Self {
        let mut world = Self {
            setup,
            load,
            contender,
            state: Some(contender.policy.first_state()),
            vertical: contender.vertical_policy().cloned().map(Vertical::new),
            now: 0,
            agenda: Agenda::default(),
            next_arrival: 0,
            queue: VecDeque::new(),
            replicas: BTreeMap::new(),
            idle: BTreeSet::new(),
            working: 0,
            orphans: 0,
            next_id: 0,
            asked: 0,
            is_waking: false,
            random: Random::new(setup.seed),
            ledger: Ledger::default(),
        };
        world.asked = match &contender.policy {
            Policy::HorizontalPodAutoscaler(policy) => policy.min_replicas,
            Policy::ScaledObject(policy) => policy.min(),
            Policy::ScaledJob(_) => 0,
            Policy::VerticalPodAutoscaler(_) => contender.size.replicas,
        };
        for _ in 0..world.asked {
            world.start_replica();
        }
        world.agenda.set(1000, Event::Second);
        if !matches!(contender.policy, Policy::ScaledJob(_)) {
            world.agenda.set(MEASURE_MS, Event::Measure);
        }
        if world.vertical.is_some() {
            world.agenda.set(vertical::LOOP_MS, Event::Size);
        }
        if !matches!(contender.policy, Policy::VerticalPodAutoscaler(_)) {
            let first = if contender.sync_ms.is_some() { Clock::Poll } else { Clock::Both };
            world.agenda.set(0, Event::Ask(first));
            if let Some(sync_ms) = contender.sync_ms {
                world.agenda.set(sync_ms, Event::Ask(Clock::Sync));
            }
        }
        world
    }

    pub fn run(mut self) -> Outcome {
        let end = self.load.duration_ms + TAIL_MS;
        loop {
            let arrival = self.load.arrivals_ms.get(self.next_arrival).copied();
            let event = self.agenda.next_at().unwrap_or(i64::MAX);
            let at = arrival.unwrap_or(i64::MAX).min(event);
            if at > end {
                break;
            }
            self.now = at;
            if arrival == Some(at) {
                self.arrive(at);
            } else if let Some((_, event)) = self.agenda.pop() {
                self.happen(event);
            }
        }
        let unfinished = self.queue.len() + self.working + self.orphans;
        let waited = self.queue.iter().map(|arrived| end - arrived);
        self.ledger.waits_ms.extend(waited);
        self.ledger.close(self.contender, self.load.arrivals_ms.len(), unfinished)
    }

    fn arrive(&mut self, at: i64) {
        self.next_arrival += 1;
        self.queue.push_back(at);
        self.take_items();
        if self.contender.is_woken && !self.is_waking && !self.queue.is_empty() {
            self.is_waking = true;
            self.agenda.set(at + WAKE_MS, Event::Wake);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Ready(id) => {
                if let Some(replica) = self.replicas.get_mut(&id) {
                    replica.ready_ms = Some(self.now);
                    self.idle.insert(id);
                    self.take_items();
                    self.end_wasted_job(id);
                }
            }
            Event::Done(id) => self.done(id),
            Event::Crash(id) => self.crash(id),
            Event::GiveUp(arrived) => {
                self.orphans -= 1;
                self.put_back(arrived);
            }
            Event::Size => self.ask_vertical(),
            Event::Measure => {
                self.measure();
                self.agenda.set(self.now + MEASURE_MS, Event::Measure);
            }
            Event::Ask(clock) => {
                let period = match clock {
                    Clock::Sync => self.contender.sync_ms.unwrap_or(crate::contender::SYNC_MS),
                    Clock::Poll | Clock::Both => self.contender.poll_ms,
                };
                self.agenda.set(self.now + period.max(1), Event::Ask(clock));
                self.ask(clock);
            }
            Event::Wake => {
                self.is_waking = false;
                self.ask(Clock::Both);
            }
            Event::Second => {
                self.agenda.set(self.now + 1000, Event::Second);
                let oldest = self.queue.front().map_or(0, |arrived| self.now - arrived);
                self.ledger.second(
                    self.now - 1000,
                    self.queue.len(),
                    self.replicas.len(),
                    oldest,
                    self.setup.objective_ms,
                );
            }
        }
    }

    fn is_jobs(&self) -> bool {
        matches!(self.contender.policy, Policy::ScaledJob(_))
    }

    pub fn startup_delay(&mut self) -> i64 {
        (self.setup.startup_ms as f64 * (0.5 + self.random.unit())) as i64
    }

    pub fn at(&self) -> TimeMs {
        START.plus_ms(self.now)
    }

    pub fn start_replica(&mut self) {
        let id = self.next_id;
        self.next_id += 1;
        self.ledger.starts += 1;
        let delay = self.startup_delay();
        let size = &self.contender.size;
        let (requests, limits) = match &self.vertical {
            Some(vertical) => vertical.admitted(size.requests, size.limits),
            None => (size.requests, size.limits),
        };
        self.ledger.request(requests);
        self.replicas.insert(id, Replica::new(self.now, requests, limits, self.setup.usage.memory_bytes));
        self.agenda.set(self.now + delay, Event::Ready(id));
    }

    pub fn remove_replica(&mut self, id: u64) -> Option<Replica> {
        self.idle.remove(&id);
        let removed = self.replicas.remove(&id)?;
        self.ledger.release(removed.requests);
        Some(removed)
    }

    /// Idle replicas take what waits, oldest first.
    fn take_items(&mut self) {
        while !self.queue.is_empty()
            && let Some(id) = self.idle.pop_first()
        {
            let Some(arrived) = self.queue.pop_front() else { return };
            let length = self.random.exponential(self.setup.service_ms as f64);
            let fails = self.random.unit() < self.setup.failure;
            let usage = &self.setup.usage;
            let more = if usage.item_bytes > 0 { self.random.exponential(usage.item_bytes as f64) as i64 } else { 0 };
            let Some(replica) = self.replicas.get_mut(&id) else { continue };
            let length = ((length * replica.slowdown(usage)) as i64).max(1);
            replica.item = Some(arrived);
            replica.busy_since = self.now;
            replica.memory_bytes = usage.memory_bytes + more;
            replica.is_doomed = replica.limits.memory_bytes.is_some_and(|limit| replica.memory_bytes > limit);
            let used = replica.limits.memory_bytes.map_or(replica.memory_bytes, |most| most.min(replica.memory_bytes));
            replica.memory_peak = replica.memory_peak.max(used);
            let fails = fails || replica.is_doomed;
            self.working += 1;
            if fails {
                self.agenda.set(self.now + length / 2, Event::Crash(id));
            } else {
                self.ledger.waits_ms.push(self.now - arrived);
                self.agenda.set(self.now + length, Event::Done(id));
            }
        }
    }

    /// A job that is ready and finds nothing ends.
    fn end_wasted_job(&mut self, id: u64) {
        if self.is_jobs() && self.idle.contains(&id) {
            self.remove_replica(id);
            self.ledger.wasted += 1;
        }
    }

    fn done(&mut self, id: u64) {
        let is_jobs = self.is_jobs();
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        replica.item = None;
        replica.busy_ms += self.now - replica.busy_since;
        replica.memory_bytes = self.setup.usage.memory_bytes;
        self.working -= 1;
        if replica.is_leaving || is_jobs {
            self.remove_replica(id);
            return;
        }
        self.idle.insert(id);
        self.take_items();
    }

    /// The replica goes down, and starts anew; its item waits again where it was as soon as its claim is given up.
    fn crash(&mut self, id: u64) {
        let is_jobs = self.is_jobs();
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        let (item, is_doomed, is_leaving) = (replica.item.take(), replica.is_doomed, replica.is_leaving);
        self.working -= 1;
        match item {
            Some(arrived) if self.setup.lease_ms > 0 => {
                self.orphans += 1;
                self.agenda.set(self.now + self.setup.lease_ms, Event::GiveUp(arrived));
            }
            Some(arrived) => self.put_back(arrived),
            None => {}
        }
        if is_doomed && !is_leaving && !is_jobs {
            self.kill_for_memory(id);
        } else {
            self.ledger.ooms += u64::from(is_doomed);
            self.remove_replica(id);
            if !is_leaving && !is_jobs {
                self.start_replica();
            }
        }
        self.take_items();
    }

    fn put_back(&mut self, arrived: i64) {
        let place = self.queue.partition_point(|waiting| *waiting <= arrived);
        self.queue.insert(place, arrived);
        self.take_items();
    }

    fn measure(&mut self) {
        let (now, usage) = (self.now, self.setup.usage);
        for replica in self.replicas.values_mut().filter(|replica| replica.ready_ms.is_some()) {
            replica.measure(now, MEASURE_MS, &usage);
        }
    }

    fn ask(&mut self, clock: Clock) {
        let observation = self.observe(&self.contender.policy, clock);
        let Some(state) = self.state.take() else { return };
        let outcome = match step(&self.contender.policy, state, &observation, START.plus_ms(self.now)) {
            Ok(outcome) => outcome,
            Err(_) => unreachable_kinds(),
        };
        self.state = Some(outcome.state);
        self.ledger.orphan_reports += u64::from(outcome.reasons.iter().any(|reason| reason.code == "OrphanClaims"));
        for action in outcome.actions {
            let (is_up, text) = match &action {
                Action::Scale { from, to, .. } => (to > from, format!("{from} to {to} replicas")),
                Action::CreateJobs { count } => (true, format!("{count} jobs created")),
                _ => continue,
            };
            let reasons = &outcome.reasons;
            self.ledger.change(self.now, is_up, || Change {
                at_s: self.now / 1000,
                action: text,
                reasons: reasons.iter().map(|reason| format!("{}: {}", reason.code, reason.message)).collect(),
            });
            match action {
                Action::Scale { from, to, victims } => self.scale_to(from, to, &victims),
                Action::CreateJobs { count } => (0..count).for_each(|_| self.start_replica()),
                _ => {}
            }
        }
    }

    /// Starts what is missing; of those that the decision names, idle ones end now and the others after their item.
    fn scale_to(&mut self, from: i32, to: i32, victims: &[String]) {
        self.asked = to;
        (from..to).for_each(|_| self.start_replica());
        let ids: Vec<u64> = victims.iter().filter_map(|name| crate::observe::id_of(name)).collect();
        let took_leased = ids.iter().any(|id| self.replicas.get(id).is_some_and(|replica| replica.item.is_some()));
        if took_leased
            && self.replicas.iter().any(|(id, one)| one.item.is_none() && !one.is_leaving && !ids.contains(id))
        {
            self.ledger.leased_before_idle += 1;
        }
        for id in ids {
            match self.replicas.get_mut(&id) {
                Some(replica) if replica.item.is_some() => replica.is_leaving = true,
                _ => {
                    self.remove_replica(id);
                }
            }
        }
    }
}

/// The world makes policy, state and observation of one kind.
fn unreachable_kinds() -> ! {
    unreachable!("policy, state and observation are made of one kind")
}
