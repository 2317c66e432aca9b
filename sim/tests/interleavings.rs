//! Every interleaving of arrive, create, claim, complete, exit, crash and giving up a claim, with whole decisions: `step` of a `ScaledJob` over
//! the observation that its two reads made, at any moments. The seeded world (`properties.rs`) shows the same over time.

use std::collections::BTreeSet;

use tidemill_scaling::TimeMs;
use tidemill_scaling::hpa::Phase;
use tidemill_scaling::keda::{Strategy, StrategyKind, Target, Trigger, TriggerReading, TriggerValue, job};
use tidemill_scaling::record::{Observation, Policy, step};

const MAX_JOBS: usize = 3;
const NOW: TimeMs = TimeMs(1_700_000_000_000);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Job {
    /// Its pod has not started.
    Pending,
    Looking,
    Working,
    Done,
    /// It found nothing.
    Wasted,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct World {
    unclaimed: usize,
    /// Claims of jobs that are gone.
    orphans: usize,
    jobs: Vec<Job>,
    /// The jobs as the scaler listed them, before it reads the source.
    listed: Option<Vec<Job>>,
    to_create: usize,
    crashes_left: u8,
    arrivals_left: u8,
    wasted: usize,
    /// The last decision reported claims without a job.
    has_reported: bool,
}

fn policy() -> Policy {
    let target = Target::AverageValue { value: 1.0, activation: 0.0, is_cached: false };
    let trigger = Trigger { metric: "s0-queue".to_owned(), name: String::new(), target };
    let strategy = Strategy { kind: StrategyKind::Exact, ..Strategy::default() };
    let max_replicas = Some(MAX_JOBS as i32);
    Policy::ScaledJob(job::Policy { strategy, max_replicas, ..job::Policy::with_defaults(vec![trigger]) })
}

impl World {
    fn in_flight(&self) -> usize {
        self.orphans + self.jobs.iter().filter(|job| **job == Job::Working).count()
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next.jobs.sort_unstable();
        next
    }

    /// What the scaler does next: list the jobs, read the source and decide, or create one of the jobs that it decided on.
    fn scaler_step(&self, policy: &Policy) -> Self {
        self.with(|next| {
            if next.to_create > 0 {
                next.to_create -= 1;
                next.jobs.push(Job::Pending);
                return;
            }
            let Some(listed) = next.listed.take() else {
                next.listed = Some(next.jobs.clone());
                return;
            };
            let phase = |job: &Job| if *job == Job::Pending { Phase::Pending } else { Phase::Running };
            let jobs = listed.iter().enumerate().map(|(index, one)| job::Job::active(format!("j{index}"), phase(one)));
            let value = TriggerReading::Value(TriggerValue {
                value: self.unclaimed as f64,
                in_flight: Some(self.in_flight() as f64),
                is_active: None,
                observed_at: NOW,
            });
            let seen = job::Observation { jobs: Ok(jobs.collect()), triggers: vec![value] };
            let outcome =
                step(policy, policy.first_state(), &Observation::ScaledJob(seen), NOW).expect("one kind of policy");
            next.to_create = usize::try_from(outcome.created_jobs()).expect("0 or more");
            next.has_reported = outcome.reason("OrphanClaims").is_some();
            assert_eq!(next.has_reported, self.in_flight() > listed.len(), "{self:?}");
        })
    }

    /// Everything else that may happen next.
    fn world_steps(&self) -> Vec<Self> {
        let mut steps = Vec::new();
        if self.arrivals_left > 0 {
            steps.push(self.with(|next| {
                next.arrivals_left -= 1;
                next.unclaimed += 1;
            }));
        }
        if self.orphans > 0 {
            steps.push(self.with(|next| {
                next.orphans -= 1;
                next.unclaimed += 1;
            }));
        }
        for (index, job) in self.jobs.iter().enumerate() {
            let becomes = |next: Job| self.with(|world| world.jobs[index] = next);
            match job {
                Job::Pending => steps.push(becomes(Job::Looking)),
                Job::Looking if self.unclaimed > 0 => steps.push(self.with(|next| {
                    next.unclaimed -= 1;
                    next.jobs[index] = Job::Working;
                })),
                Job::Looking => steps.push(self.with(|next| {
                    next.wasted += 1;
                    next.jobs[index] = Job::Wasted;
                })),
                Job::Working => steps.push(becomes(Job::Done)),
                Job::Done | Job::Wasted => steps.push(self.with(|next| {
                    next.jobs.remove(index);
                })),
            }
            if self.crashes_left > 0 && matches!(job, Job::Pending | Job::Looking | Job::Working) {
                steps.push(self.with(|next| {
                    next.crashes_left -= 1;
                    next.orphans += usize::from(next.jobs[index] == Job::Working);
                    next.jobs.remove(index);
                }));
            }
        }
        steps
    }
}

/// Every world that can be reached from these numbers of items, later arrivals and crashes.
fn reachable(items: usize, arrivals_left: u8, crashes_left: u8) -> BTreeSet<World> {
    let policy = policy();
    let mut seen = BTreeSet::new();
    let mut open = vec![World { unclaimed: items, arrivals_left, crashes_left, ..World::default() }];
    while let Some(world) = open.pop() {
        if seen.contains(&world) {
            continue;
        }
        open.push(world.scaler_step(&policy));
        open.extend(world.world_steps());
        seen.insert(world);
    }
    seen
}

#[test]
fn never_one_too_many() {
    let mut worlds = 0;
    for items in 0..=3 {
        for world in reachable(items, 1, 0) {
            assert_eq!(world.wasted, 0, "{world:?}");
            assert!(world.jobs.len() + world.to_create <= MAX_JOBS, "{world:?}");
            assert!(!world.has_reported, "no job is gone, so no claim is an orphan: {world:?}");
            worlds += 1;
        }
    }
    assert!(worlds > 500, "{worlds} worlds are too few to prove anything");
}

#[test]
fn jobs_that_look_are_never_more_than_items_and_orphan_claims() {
    let mut reported = 0;
    for items in 0..=2 {
        for world in reachable(items, 1, 1) {
            let looking = world.jobs.iter().filter(|job| matches!(job, Job::Pending | Job::Looking)).count();
            assert!(looking + world.to_create <= world.unclaimed + world.orphans, "{world:?}");
            reported += usize::from(world.has_reported);
        }
    }
    assert!(reported > 0, "a claim that no job can hold is reported");
}

#[test]
fn never_starved() {
    let policy = policy();
    for items in 0..=2 {
        for world in reachable(items, 1, 1) {
            // Whatever happened: let everything run fairly, without further crashes, and every item is done.
            let mut now = world.clone();
            for _ in 0..200 {
                let steps = now.world_steps();
                now = steps.into_iter().find(|next| next.crashes_left == now.crashes_left).unwrap_or(now);
                now = now.scaler_step(&policy);
            }
            assert_eq!((now.unclaimed, now.in_flight(), now.arrivals_left), (0, 0, 0), "from {world:?}: {now:?}");
        }
    }
}
