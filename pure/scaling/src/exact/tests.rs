//! Every interleaving of create, claim, complete, exit, crash and of the two reads, for small numbers of items and jobs.

use std::collections::BTreeSet;

use super::*;

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Job {
    /// Created, looking for an item.
    Looking,
    /// Holds an item.
    Working,
    /// Its item is done, it has not ended.
    Done,
    /// Found nothing: it was one too many.
    Wasted,
}

/// Where the scaler is in its loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scaler {
    Resting,
    /// Has read how many jobs are alive.
    KnowsAlive(i64),
    /// Has read the source.
    KnowsSource(i64, i64),
    /// Will create this many.
    Creating(i64),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    unclaimed: i64,
    /// Claims of jobs that are gone; a lease gives them up some time later.
    orphans: i64,
    jobs: Vec<Job>,
    scaler: Scaler,
    crashes_left: u8,
    arrivals_left: u8,
    ever_too_many: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    AliveFirst,
    SourceFirst,
}

const MAX_JOBS: i64 = 3;

fn start(items: i64, arrivals: u8, crashes: u8) -> World {
    World {
        unclaimed: items,
        orphans: 0,
        jobs: Vec::new(),
        scaler: Scaler::Resting,
        crashes_left: crashes,
        arrivals_left: arrivals,
        ever_too_many: 0,
    }
}

impl World {
    fn in_flight(&self) -> i64 {
        self.orphans + self.jobs.iter().filter(|job| **job == Job::Working).count() as i64
    }

    fn alive(&self) -> i64 {
        self.jobs.len() as i64
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next.jobs.sort_unstable();
        next
    }

    /// What the scaler does next.
    fn scaler_step(&self, order: Order) -> Self {
        let decide = |alive: i64, unclaimed: i64, in_flight: i64| {
            let counts = Counts { unclaimed, in_flight, alive };
            match jobs_to_create(counts, MAX_JOBS) {
                0 => Scaler::Resting,
                count => Scaler::Creating(count),
            }
        };
        self.with(|next| {
            next.scaler = match (self.scaler, order) {
                (Scaler::Resting, Order::AliveFirst) => Scaler::KnowsAlive(self.alive()),
                (Scaler::Resting, Order::SourceFirst) => Scaler::KnowsSource(self.unclaimed, self.in_flight()),
                (Scaler::KnowsAlive(alive), _) => decide(alive, self.unclaimed, self.in_flight()),
                (Scaler::KnowsSource(unclaimed, in_flight), _) => decide(self.alive(), unclaimed, in_flight),
                (Scaler::Creating(count), _) => {
                    next.jobs.push(Job::Looking);
                    if count == 1 { Scaler::Resting } else { Scaler::Creating(count - 1) }
                }
            };
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
            match job {
                Job::Looking if self.unclaimed > 0 => steps.push(self.with(|next| {
                    next.unclaimed -= 1;
                    next.jobs[index] = Job::Working;
                })),
                Job::Looking => steps.push(self.with(|next| {
                    next.ever_too_many += 1;
                    next.jobs[index] = Job::Wasted;
                })),
                Job::Working => steps.push(self.with(|next| next.jobs[index] = Job::Done)),
                Job::Done | Job::Wasted => steps.push(self.with(|next| {
                    next.jobs.remove(index);
                })),
            }
            if self.crashes_left > 0 && matches!(job, Job::Looking | Job::Working) {
                steps.push(self.with(|next| {
                    next.crashes_left -= 1;
                    next.orphans += i64::from(next.jobs[index] == Job::Working);
                    next.jobs.remove(index);
                }));
            }
        }
        steps
    }
}

/// Every world that can be reached.
fn reachable(start: World, order: Order) -> BTreeSet<World> {
    let mut seen = BTreeSet::new();
    let mut open = vec![start];
    while let Some(world) = open.pop() {
        if seen.contains(&world) {
            continue;
        }
        open.push(world.scaler_step(order));
        open.extend(world.world_steps());
        seen.insert(world);
    }
    seen
}

#[test]
fn never_one_too_many_without_crashes() {
    let mut worlds = 0;
    for items in 0..=3 {
        for arrivals in 0..=2 {
            for world in reachable(start(items, arrivals, 0), Order::AliveFirst) {
                assert_eq!(world.ever_too_many, 0, "{world:?}");
                assert!(world.alive() <= MAX_JOBS, "{world:?}");
                worlds += 1;
            }
        }
    }
    assert!(worlds > 500, "{worlds} worlds are too few to prove anything");
}

#[test]
fn jobs_that_look_are_never_more_than_items_and_orphan_claims() {
    // The invariant behind the others. Only a crash makes an orphan claim, so without one no job looks in vain; with one, at most as many
    // jobs are too many at a time as claims wait to be given up.
    let mut worlds = 0;
    for items in 0..=3 {
        for world in reachable(start(items, 1, 2), Order::AliveFirst) {
            let looking = world.jobs.iter().filter(|job| **job == Job::Looking).count() as i64;
            let to_create = if let Scaler::Creating(count) = world.scaler { count } else { 0 };
            assert!(looking + to_create <= world.unclaimed + world.orphans, "{world:?}");
            assert!(world.alive() + to_create <= MAX_JOBS, "{world:?}");
            worlds += 1;
        }
    }
    assert!(worlds > 3_000, "{worlds} worlds are too few to prove anything");
}

#[test]
fn never_starved() {
    for items in 0..=3 {
        for world in reachable(start(items, 1, 1), Order::AliveFirst) {
            // Whatever happened: let everything run fairly and every item is taken.
            let mut now = world.clone();
            for _ in 0..200 {
                let steps = now.world_steps();
                now = steps.into_iter().find(|next| next.crashes_left == now.crashes_left).unwrap_or(now);
                now = now.scaler_step(Order::AliveFirst);
            }
            assert_eq!(
                (now.unclaimed, now.in_flight(), now.arrivals_left),
                (0, 0, 0),
                "starved from {world:?}: {now:?}"
            );
        }
    }
}

#[test]
fn one_quiet_poll_leaves_no_item_behind() {
    // Nothing moves between the reads: after one poll every unclaimed item has a job that looks for it, up to the limit.
    for world in reachable(start(3, 1, 0), Order::AliveFirst) {
        let counts = Counts { unclaimed: world.unclaimed, in_flight: world.in_flight(), alive: world.alive() };
        let created = jobs_to_create(counts, MAX_JOBS);
        let without_claim = world.jobs.iter().filter(|job| **job != Job::Working).count() as i64;
        let is_full = world.alive() + created == MAX_JOBS;
        assert!(is_full || without_claim + created >= world.unclaimed, "{world:?}");
    }
}

#[test]
fn the_other_order_of_reads_creates_too_many() {
    let found = reachable(start(1, 0, 0), Order::SourceFirst).into_iter().any(|world| world.ever_too_many > 0);
    assert!(found, "reading the source first should be seen to waste a job");
}

#[test]
fn orphans_are_counted_and_hostile_numbers_stay_in_bounds() {
    assert_eq!(orphan_claims(Counts { unclaimed: 0, in_flight: 5, alive: 3 }), 2);
    assert_eq!(orphan_claims(Counts { unclaimed: 0, in_flight: 3, alive: 5 }), 0);
    for value in [i64::MIN, -1, 0, 1, i64::MAX] {
        for other in [i64::MIN, -1, 0, 7, i64::MAX] {
            let created = jobs_to_create(Counts { unclaimed: value, in_flight: other, alive: 4 }, 10);
            assert!((0..=6).contains(&created), "{value} {other}: {created}");
        }
    }
}
