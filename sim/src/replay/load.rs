//! The load behind recorded observations.
//!
//! What arrived between two looks is what is there more, and what was worked off meanwhile. The first is in the record where a queue is
//! followed. The second is what the replicas that worked could do at the service time that the caller names; where claims are recorded
//! (items in flight, leases) those count, else a replica works whenever there is something to do. Where only CPU was recorded, the work done is
//! the CPU that was used.

use tidemill_scaling::TimeMs;
use tidemill_scaling::hpa::{self, Phase, Pod, Readings};
use tidemill_scaling::keda::{TriggerReading, TriggerValue};
use tidemill_scaling::record::Observation;

use super::{Incident, Recorded};
use crate::load::{Load, LoadError, refused};
use crate::outcome::Minute;
use crate::random::Random;
use crate::{Counts, Setup};

/// The longest incident: a year.
const MAX_DURATION_MS: i64 = 366 * 86_400_000;

/// One look, as far as load is concerned.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: TimeMs,
    /// Items that wait or are worked on; none where no queue was read.
    unfinished: Option<f64>,
    /// Replicas that work.
    working: f64,
    replicas: usize,
}

impl Incident {
    /// What arrived, in the time of the incident.
    ///
    /// # Errors
    /// Fewer than two looks with a value, more than a year, more items than can be simulated.
    pub fn load(&self, setup: &Setup) -> Result<Load, LoadError> {
        let looks: Vec<Look> = self.looks(setup).into_iter().filter(|look| look.unfinished.is_some()).collect();
        let (Some(first), Some(last)) = (looks.first(), looks.last()) else {
            return Err(refused(format!(
                "{}: no observation holds a value of a queue, or CPU usage, to take a load from",
                self.name
            )));
        };
        let duration = last.at.since_ms(first.at);
        if duration <= 0 {
            return Err(refused(format!("{}: at least two observations at different times are needed", self.name)));
        }
        if duration > MAX_DURATION_MS {
            return Err(refused(format!("{}: reaches over more than 366 days", self.name)));
        }
        let mut random = Random::new(setup.seed ^ 0x7265_706c);
        let mut load = Load { name: self.name.clone(), arrivals_ms: Vec::new(), duration_ms: duration };
        load.spread(0, 1, first.unfinished.unwrap_or(0.0), &mut random)?;
        // What a stretch owes: a queue that shrank faster than expected was worked off faster, not fed less.
        for pair in looks.windows(2) {
            let (Some(before), Some(after)) = (pair[0].unfinished, pair[1].unfinished) else { continue };
            let stretch = pair[1].at.since_ms(pair[0].at);
            if stretch <= 0 {
                continue;
            }
            let done = pair[0].working * stretch as f64 / setup.service_ms.max(1) as f64;
            let arrived = (after - before + done).max(0.0);
            load.spread(pair[0].at.since_ms(first.at), stretch, arrived, &mut random)?;
        }
        load.arrivals_ms.sort_unstable();
        Ok(load)
    }

    /// What was recorded, for the same charts.
    pub fn recorded(&self, setup: &Setup) -> Recorded {
        let looks = self.looks(setup);
        let mut recorded = Recorded { changes: self.changes(), ..Recorded::default() };
        let Some(first) = looks.first().copied() else { return recorded };
        let whole = looks.last().map_or(0, |last| last.at.since_ms(first.at)).clamp(0, MAX_DURATION_MS);
        recorded.minutes = vec![Minute::default(); usize::try_from(whole / 60_000 + 1).unwrap_or(1)];
        let mut filled = 0;
        for (index, look) in looks.iter().enumerate() {
            let until = looks.get(index + 1).map_or(look.at, |next| next.at);
            recorded.replica_hours += look.replicas as f64 * until.since_ms(look.at).max(0) as f64 / 3_600_000.0;
            let waiting = look.unfinished.map_or(0.0, |all| (all - look.working).max(0.0));
            recorded.highest_backlog = recorded.highest_backlog.max(waiting);
            let from = usize::try_from(look.at.since_ms(first.at) / 60_000).unwrap_or(0);
            let to = usize::try_from(until.since_ms(first.at) / 60_000).unwrap_or(0).min(recorded.minutes.len() - 1);
            for (place, minute) in recorded.minutes.iter_mut().enumerate().take(to + 1).skip(from) {
                minute.backlog = minute.backlog.max(waiting as usize);
                minute.replicas = minute.replicas.max(look.replicas);
                if place >= filled {
                    minute.cost_hours = recorded.replica_hours;
                }
            }
            if let Some(minute) = recorded.minutes.get_mut(to) {
                minute.cost_hours = recorded.replica_hours;
            }
            filled = to;
        }
        recorded
    }

    fn changes(&self) -> usize {
        let changed = |entry: &&super::Entry| {
            entry.record.as_ref().is_some_and(|record| !super::sizes(&record.actions).is_empty())
        };
        self.entries.iter().filter(changed).count()
    }

    fn looks(&self, setup: &Setup) -> Vec<Look> {
        self.entries.iter().map(|entry| look(entry.at, &entry.observation, setup)).collect()
    }
}

fn look(at: TimeMs, observation: &Observation, setup: &Setup) -> Look {
    match observation {
        Observation::ScaledObject(seen) => {
            let replicas = replicas_of(&seen.scale, &seen.pods);
            let usage = seen.triggers.iter().find_map(|trigger| match trigger {
                TriggerReading::Usage(reading) => cores(reading),
                _ => None,
            });
            match value_of(&seen.triggers) {
                Some(value) => queue(at, value, &seen.pods, replicas, setup),
                None => used(at, usage, replicas, setup),
            }
        }
        Observation::ScaledJob(seen) => {
            let jobs = seen.jobs.as_deref().unwrap_or_default();
            let alive = jobs.iter().filter(|job| job.phase == tidemill_scaling::keda::job::JobPhase::Active);
            let running = alive.clone().filter(|job| job.pods.iter().any(|pod| pod.phase == Phase::Running)).count();
            let Some(value) = value_of(&seen.triggers) else {
                return Look { at, unfinished: None, working: 0.0, replicas: alive.count() };
            };
            let working = value.in_flight.unwrap_or(running as f64);
            Look { at, unfinished: Some(unfinished(value, working, setup)), working, replicas: alive.count() }
        }
        Observation::HorizontalPodAutoscaler(seen) => {
            let replicas = replicas_of(&seen.scale, &seen.pods);
            let samples = seen.readings.iter().find_map(|reading| match &reading.values {
                Ok(Readings::Samples(milli)) => Some(milli.iter().map(|milli| *milli as f64 / 1000.0).sum::<f64>()),
                _ => None,
            });
            match samples {
                Some(value) => {
                    let value = TriggerValue { value, in_flight: None, is_active: None, observed_at: at };
                    queue(at, value, &seen.pods, replicas, setup)
                }
                None => used(at, seen.readings.iter().find_map(cores), replicas, setup),
            }
        }
        Observation::VerticalPodAutoscaler(seen) => {
            let milli: i64 = seen.samples.iter().filter_map(|sample| sample.usage.cpu_milli).sum();
            let usage = (!seen.samples.is_empty()).then_some(milli as f64 / 1000.0);
            used(at, usage, seen.pods.len(), setup)
        }
    }
}

/// The first value from outside.
fn value_of(triggers: &[TriggerReading]) -> Option<TriggerValue> {
    triggers.iter().find_map(|trigger| match trigger {
        TriggerReading::Value(value) if value.value.is_finite() && value.value >= 0.0 => Some(*value),
        _ => None,
    })
}

fn unfinished(value: TriggerValue, working: f64, setup: &Setup) -> f64 {
    match value.in_flight {
        Some(in_flight) => value.value + in_flight,
        None if setup.counts == Counts::Unclaimed => value.value + working,
        None => value.value,
    }
}

fn queue(at: TimeMs, value: TriggerValue, pods: &[Pod], replicas: usize, setup: &Setup) -> Look {
    let leased = pods.iter().filter(|pod| pod.live_leases > 0).count();
    let ready = pods.iter().filter(|pod| pod.phase == Phase::Running && pod.ready != Some(false)).count();
    // Without pods in the record every replica counts as ready.
    let ready = if pods.is_empty() { replicas } else { ready };
    let working = match value.in_flight {
        Some(in_flight) => in_flight,
        None if leased > 0 => leased as f64,
        None => (ready as f64).min(value.value),
    };
    Look { at, unfinished: Some(unfinished(value, working, setup)), working, replicas }
}

/// Work by CPU: what was used was worked, and nothing is known of what waited.
fn used(at: TimeMs, cores: Option<f64>, replicas: usize, setup: &Setup) -> Look {
    let working = cores.map(|cores| cores * 1000.0 / setup.usage.cpu_milli.max(1) as f64);
    Look { at, unfinished: working, working: working.unwrap_or(0.0), replicas }
}

fn cores(reading: &hpa::Reading) -> Option<f64> {
    let Ok(Readings::Usage(pods)) = &reading.values else { return None };
    let milli: i64 = pods.iter().flat_map(|pod| pod.containers_milli.values()).flatten().sum();
    Some(milli as f64 / 1000.0)
}

fn replicas_of(scale: &Result<hpa::Scale, String>, pods: &[Pod]) -> usize {
    match scale {
        Ok(scale) => usize::try_from(scale.status_replicas.max(0)).unwrap_or(0),
        Err(_) => pods.len(),
    }
}
