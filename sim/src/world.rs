//! The world: items wait in one queue, replicas or jobs take them, and a policy is asked how many there should be.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidemill_scaling::record::{Policy, State, step};
use tidemill_scaling::{Action, TimeMs};

use crate::clock::{Agenda, Clock, Event};
use crate::outcome::{Change, Ledger, Outcome};
use crate::random::Random;
use crate::{Contender, Load, Setup};

/// Where the world's time begins; a round number of seconds of our own era.
pub(crate) const START: TimeMs = TimeMs(1_700_000_000_000);
/// How often CPU is measured, as metrics-server does.
pub(crate) const MEASURE_MS: i64 = 15_000;
/// An arrival wakes a native policy this much later.
const WAKE_MS: i64 = 100;
/// How long the world goes on after its load, so that what waits can end.
const TAIL_MS: i64 = 1_800_000;

/// A replica or a job.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    pub started_ms: i64,
    pub ready_ms: Option<i64>,
    /// The arrival of the item that it works on.
    pub item: Option<i64>,
    busy_since: i64,
    busy_ms: i64,
    /// Share of the last measured stretch that it worked, and that stretch's end.
    pub measured: Option<(f64, i64)>,
    /// It ends when its item is done.
    is_leaving: bool,
}

pub(crate) struct World<'a> {
    pub setup: &'a Setup,
    load: &'a Load,
    contender: &'a Contender,
    state: Option<State>,
    pub now: i64,
    agenda: Agenda,
    next_arrival: usize,
    pub queue: VecDeque<i64>,
    pub replicas: BTreeMap<u64, Replica>,
    idle: BTreeSet<u64>,
    pub working: usize,
    next_id: u64,
    /// What the policy asked for; replicas that leave are not in it.
    pub asked: i32,
    is_waking: bool,
    random: Random,
    ledger: Ledger,
}

impl<'a> World<'a> {
    pub fn new(setup: &'a Setup, load: &'a Load, contender: &'a Contender) -> Self {
        let mut world = Self {
            setup,
            load,
            contender,
            state: Some(contender.policy.first_state()),
            now: 0,
            agenda: Agenda::default(),
            next_arrival: 0,
            queue: VecDeque::new(),
            replicas: BTreeMap::new(),
            idle: BTreeSet::new(),
            working: 0,
            next_id: 0,
            asked: 0,
            is_waking: false,
            random: Random::new(setup.seed),
            ledger: Ledger::default(),
        };
        world.asked = match &contender.policy {
            Policy::HorizontalPodAutoscaler(policy) => policy.min_replicas,
            Policy::ScaledObject(policy) => policy.min(),
            Policy::ScaledJob(_) | Policy::VerticalPodAutoscaler(_) => 0,
        };
        for _ in 0..world.asked {
            world.start_replica();
        }
        world.agenda.set(1000, Event::Second);
        if matches!(contender.policy, Policy::HorizontalPodAutoscaler(_) | Policy::ScaledObject(_)) {
            world.agenda.set(MEASURE_MS, Event::Measure);
        }
        let first = if contender.sync_ms.is_some() { Clock::Poll } else { Clock::Both };
        world.agenda.set(0, Event::Ask(first));
        if let Some(sync_ms) = contender.sync_ms {
            world.agenda.set(sync_ms, Event::Ask(Clock::Sync));
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
        let unfinished = self.queue.len() + self.working;
        let waited = self.queue.iter().map(|arrived| end - arrived);
        self.ledger.waits_ms.extend(waited);
        self.ledger.close(&self.contender.name, self.load.arrivals_ms.len(), unfinished)
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

    fn start_replica(&mut self) {
        let id = self.next_id;
        self.next_id += 1;
        self.ledger.starts += 1;
        let delay = (self.setup.startup_ms as f64 * (0.5 + self.random.unit())) as i64;
        let replica = Replica {
            started_ms: self.now,
            ready_ms: None,
            item: None,
            busy_since: 0,
            busy_ms: 0,
            measured: None,
            is_leaving: false,
        };
        self.replicas.insert(id, replica);
        self.agenda.set(self.now + delay, Event::Ready(id));
    }

    /// Idle replicas take what waits, oldest first.
    fn take_items(&mut self) {
        while !self.queue.is_empty()
            && let Some(id) = self.idle.pop_first()
        {
            let Some(arrived) = self.queue.pop_front() else { return };
            let length = (self.random.exponential(self.setup.service_ms as f64) as i64).max(1);
            let fails = self.random.unit() < self.setup.failure;
            let Some(replica) = self.replicas.get_mut(&id) else { continue };
            replica.item = Some(arrived);
            replica.busy_since = self.now;
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
        if self.is_jobs() && self.idle.remove(&id) {
            self.replicas.remove(&id);
            self.ledger.wasted += 1;
        }
    }

    fn done(&mut self, id: u64) {
        let is_jobs = self.is_jobs();
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        replica.item = None;
        replica.busy_ms += self.now - replica.busy_since;
        self.working -= 1;
        if replica.is_leaving || is_jobs {
            self.replicas.remove(&id);
            return;
        }
        self.idle.insert(id);
        self.take_items();
    }

    /// The replica goes down; its item waits again where it was, and the replica starts anew.
    fn crash(&mut self, id: u64) {
        let Some(replica) = self.replicas.remove(&id) else { return };
        self.working -= 1;
        if let Some(arrived) = replica.item {
            let place = self.queue.partition_point(|waiting| *waiting <= arrived);
            self.queue.insert(place, arrived);
        }
        if !replica.is_leaving && !self.is_jobs() {
            self.start_replica();
        }
        self.take_items();
    }

    fn measure(&mut self) {
        for replica in self.replicas.values_mut().filter(|replica| replica.ready_ms.is_some()) {
            let running =
                if replica.item.is_some() { self.now - replica.busy_since.max(self.now - MEASURE_MS) } else { 0 };
            // What was done before this stretch began counts for the stretch it ended in.
            let busy = replica.busy_ms.min(MEASURE_MS - running) + running;
            replica.busy_ms = 0;
            replica.measured = Some((busy as f64 / MEASURE_MS as f64, self.now));
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
        for id in victims.iter().filter_map(|name| crate::observe::id_of(name)) {
            match self.replicas.get_mut(&id) {
                Some(replica) if replica.item.is_some() => replica.is_leaving = true,
                _ => {
                    self.replicas.remove(&id);
                    self.idle.remove(&id);
                }
            }
        }
    }
}

impl Replica {
    pub fn is_leaving(&self) -> bool {
        self.is_leaving
    }
}

/// The world makes policy, state and observation of one kind.
fn unreachable_kinds() -> ! {
    unreachable!("policy, state and observation are made of one kind")
}
