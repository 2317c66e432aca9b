//! What replicas use: one look over all processes at a time.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::process::{self, Stat};
use super::{Shared, now};
use crate::runtime::{ContainerState, Resources, Usage};

/// Ticks of the kernel's clock in a second: what Linux tells every program (`getconf CLK_TCK`).
const TICKS_PER_SECOND: f64 = 100.0;
/// Of all time, the share that measuring may take; many processes are looked at less often.
const SHARE: u32 = 20;

/// CPU time that was seen of a container's run.
#[derive(Debug, Clone, Copy)]
struct Seen {
    pid: u32,
    ticks: u64,
    /// Of the runs before this one.
    before: u64,
    at: Instant,
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
            rest = shared.options.measure_every;
            continue;
        }
        let started = Instant::now();
        let Ok(stats) = tokio::task::spawn_blocking(process::all).await else { return };
        measure(&shared, &running, &stats, &mut seen);
        rest = shared.options.measure_every.max(started.elapsed() * SHARE);
    }
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

fn measure(shared: &Shared, running: &[Running], stats: &[Stat], seen: &mut BTreeMap<(String, String), Seen>) {
    let page = i64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let sums = sums_by_root(running, stats);
    let at = Instant::now();
    let mut usage: BTreeMap<String, Usage> = BTreeMap::new();
    for container in running {
        let Some((ticks, pages)) = sums.get(&container.pid).copied() else { continue };
        let memory = i64::try_from(pages).unwrap_or(i64::MAX).saturating_mul(page);
        let key = (container.uid.clone(), container.container.clone());
        let last = seen.get(&key).copied();
        let before = match last {
            Some(last) if last.pid != container.pid => last.before + last.ticks,
            Some(last) => last.before,
            None => 0,
        };
        // A process that nobody waited for takes its time with it; what was seen stays.
        let ticks = ticks.max(last.filter(|last| last.pid == container.pid).map_or(0, |last| last.ticks));
        seen.insert(key, Seen { pid: container.pid, ticks, before, at });
        if let Some(limit) = container.memory_limit.filter(|limit| memory > *limit) {
            end_for_memory(shared, container, memory, limit);
        }
        let Some(last) = last.filter(|last| last.pid == container.pid) else { continue };
        let window = at - last.at;
        let cpu_milli = (ticks - last.ticks) as f64 / TICKS_PER_SECOND / window.as_secs_f64() * 1000.0;
        let amounts = Resources { cpu_milli: Some(cpu_milli as i64), memory_bytes: Some(memory) };
        let entry = usage.entry(container.uid.clone()).or_insert_with(|| Usage {
            at: now(),
            window,
            containers: BTreeMap::new(),
            cpu_seconds: BTreeMap::new(),
        });
        entry.containers.insert(container.container.clone(), amounts);
        entry.cpu_seconds.insert(container.container.clone(), (before + ticks) as f64 / TICKS_PER_SECOND);
    }
    seen.retain(|(uid, name), _| running.iter().any(|running| running.uid == *uid && running.container == *name));
    *shared.usage.lock() = usage;
}

/// CPU ticks and resident pages of each container: its first process, the group that it leads, and everything that descends from it.
fn sums_by_root(running: &[Running], stats: &[Stat]) -> BTreeMap<u32, (u64, u64)> {
    let by_pid: BTreeMap<u32, &Stat> = stats.iter().map(|stat| (stat.pid, stat)).collect();
    let roots: std::collections::BTreeSet<u32> = running.iter().map(|running| running.pid).collect();
    let mut sums: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for stat in stats {
        let mut at = Some(stat);
        // A chain of parents is as long as processes nest; a loop cannot be, because a parent is older.
        let root = loop {
            match at {
                Some(here) if roots.contains(&here.group) => break Some(here.group),
                Some(here) if roots.contains(&here.pid) => break Some(here.pid),
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
