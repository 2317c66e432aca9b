//! What replicas use: one look over all processes at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::cgroup::Cgroups;
use super::process::{self, Stat};
use super::{Shared, now};
use crate::runtime::{ContainerState, Resources, Usage};

/// Microseconds in a tick of the kernel's clock: what Linux tells every program (`getconf CLK_TCK` is 100).
const TICK_US: u64 = 10_000;
/// Of all time, the share that measuring may take; many processes are looked at less often.
const SHARE: u32 = 20;

/// CPU time that was seen of a container.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Of which run; `None` where what is seen goes on over all of them.
    pid: Option<u32>,
    cpu_us: u64,
    /// Of the runs before this one.
    before_us: u64,
    at: Instant,
}

/// What one look says of a container.
#[derive(Debug, Clone, Copy)]
struct Look {
    pid: Option<u32>,
    cpu_us: u64,
    memory_bytes: i64,
}

/// Measures until the runtime is gone.
pub(super) async fn run(shared: Weak<Shared>) {
    let mut seen: BTreeMap<(String, String), Seen> = BTreeMap::new();
    let mut rest = Duration::from_millis(100);
    loop {
        tokio::time::sleep(rest).await;
        let Some(shared) = shared.upgrade() else { return };
        let running = running(&shared);
        if running.is_empty() {
            seen.clear();
            shared.usage.lock().clear();
            rest = shared.options.measure_every;
            continue;
        }
        let started = Instant::now();
        let looking = shared.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let looks = looks(looking.limiting.cgroups(), &running);
            (running, looks)
        });
        let Ok((running, looks)) = looked.await else { return };
        measure(&shared, &running, &looks, &mut seen);
        rest = shared.options.measure_every.max(started.elapsed() * SHARE);
    }
}

fn looks(cgroups: Option<&Cgroups>, running: &[Running]) -> Vec<Option<Look>> {
    if let Some(cgroups) = cgroups {
        let look = |container: &Running| {
            let used = cgroups.used(&container.uid, &container.container)?;
            Some(Look { pid: None, cpu_us: used.cpu_us, memory_bytes: used.memory_bytes })
        };
        return running.iter().map(look).collect();
    }
    let page = i64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let sums = sums_by_root(running, &process::all());
    let look = |container: &Running| {
        let (ticks, pages) = sums.get(&container.pid).copied()?;
        let memory_bytes = i64::try_from(pages).unwrap_or(i64::MAX).saturating_mul(page);
        Some(Look { pid: Some(container.pid), cpu_us: ticks.saturating_mul(TICK_US), memory_bytes })
    };
    running.iter().map(look).collect()
}

struct Running {
    uid: String,
    container: String,
    index: usize,
    pid: u32,
    memory_limit: Option<i64>,
}

fn running(shared: &Shared) -> Vec<Running> {
    let entries: Vec<_> = shared.entries.lock().values().cloned().collect();
    let mut found = Vec::new();
    for entry in entries {
        let status = entry.status();
        let specs = entry.spec().init_containers.iter().chain(&entry.spec().containers);
        for (index, (container, spec)) in status.containers.iter().zip(specs).enumerate() {
            if let ContainerState::Running { pid, .. } = container.state {
                let (uid, container) = (entry.uid().to_owned(), container.name.clone());
                found.push(Running { uid, container, index, pid, memory_limit: spec.limits.memory_bytes });
            }
        }
    }
    found
}

fn measure(shared: &Shared, running: &[Running], looks: &[Option<Look>], seen: &mut BTreeMap<(String, String), Seen>) {
    let at = Instant::now();
    let mut usage: BTreeMap<String, Usage> = BTreeMap::new();
    for (container, look) in running.iter().zip(looks) {
        let Some(look) = look else { continue };
        let key = (container.uid.clone(), container.container.clone());
        let last = seen.get(&key).copied();
        let before_us = match last {
            Some(last) if last.pid != look.pid => last.before_us + last.cpu_us,
            Some(last) => last.before_us,
            None => 0,
        };
        let last = last.filter(|last| last.pid == look.pid);
        // A process that nobody waited for takes its time with it; what was seen stays.
        let cpu_us = look.cpu_us.max(last.map_or(0, |last| last.cpu_us));
        seen.insert(key, Seen { pid: look.pid, cpu_us, before_us, at });
        let memory = look.memory_bytes;
        if shared.limiting.cgroups().is_none()
            && let Some(limit) = container.memory_limit.filter(|limit| memory > *limit)
        {
            end_for_memory(shared, container, memory, limit);
        }
        let Some(last) = last else { continue };
        let window = at - last.at;
        let cpu_milli = (cpu_us - last.cpu_us) as f64 / window.as_secs_f64() / 1000.0;
        let amounts = Resources { cpu_milli: Some(cpu_milli as i64), memory_bytes: Some(memory) };
        let entry = usage.entry(container.uid.clone()).or_insert_with(|| Usage {
            at: now(),
            window,
            containers: BTreeMap::new(),
            cpu_seconds: BTreeMap::new(),
        });
        entry.containers.insert(container.container.clone(), amounts);
        entry.cpu_seconds.insert(container.container.clone(), (before_us + cpu_us) as f64 / 1e6);
    }
    let present: BTreeSet<(&str, &str)> =
        running.iter().map(|running| (running.uid.as_str(), running.container.as_str())).collect();
    seen.retain(|(uid, name), _| present.contains(&(uid.as_str(), name.as_str())));
    *shared.usage.lock() = usage;
}

/// CPU ticks and resident pages of each container: its first process, the group that it leads, and everything that descends from it.
fn sums_by_root(running: &[Running], stats: &[Stat]) -> BTreeMap<u32, (u64, u64)> {
    let by_pid: BTreeMap<u32, &Stat> = stats.iter().map(|stat| (stat.pid, stat)).collect();
    let roots: BTreeSet<u32> = running.iter().map(|running| running.pid).collect();
    // Orphans of a container are children of its shim, which is its first process's parent.
    let shims: BTreeMap<u32, u32> =
        roots.iter().filter_map(|root| Some((by_pid.get(root)?.parent, *root))).filter(|(shim, _)| *shim > 1).collect();
    let mut sums: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for stat in stats {
        let mut at = Some(stat);
        // A chain of parents is as long as processes nest; a loop cannot be, because a parent is older.
        let root = loop {
            match at {
                Some(here) if roots.contains(&here.group) => break Some(here.group),
                Some(here) if roots.contains(&here.pid) => break Some(here.pid),
                Some(here) if shims.contains_key(&here.parent) => break shims.get(&here.parent).copied(),
                Some(here) if here.parent > 1 => {
                    at = by_pid
                        .get(&here.parent)
                        .copied()
                        .filter(|parent| parent.start_ticks <= here.start_ticks && parent.pid != here.pid)
                }
                _ => break None,
            }
        };
        if let Some(root) = root {
            let sum = sums.entry(root).or_default();
            sum.0 += stat.cpu_ticks;
            sum.1 += stat.resident_pages;
        }
    }
    sums
}

fn end_for_memory(shared: &Shared, container: &Running, memory: i64, limit: i64) {
    let Some(entry) = shared.entries.lock().get(&container.uid).cloned() else { return };
    let folder = entry.folder().container(&container.container);
    let restarts = entry.status().containers.get(container.index).map_or(0, |container| container.restarts);
    tracing::info!(
        replica = container.uid,
        container = container.container,
        memory,
        limit,
        "it uses more memory than its limit and is ended"
    );
    // The shim reads this mark when it writes the end down.
    if std::fs::write(folder.path().join(format!("{restarts}.oom")), b"").is_ok()
        && let Ok(Some(run)) = folder.run(restarts)
        && run.pid == container.pid
    {
        process::signal(&run, Signal::KILL);
    }
}
