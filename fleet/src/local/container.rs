//! One container: run after run, until its restart policy or a stop ends it.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::{Child, Command};

use super::files::{ContainerFolder, Launch, Run};
use super::replica::Entry;
use super::{Shared, now, probe, process, shim};
use crate::runtime::{ContainerEnd, ContainerSpec, ContainerState, RestartPolicy, RuntimeError};

/// How often a run is looked at whose shim is no child of this process.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often a shim that was just started is looked at.
const START_LOOK_EVERY: Duration = Duration::from_millis(5);

/// Runs whose output was not read yet are kept up to this number.
const RUNS_KEPT_UNREAD: u32 = 100;

/// How a container's runs ended.
#[derive(Debug)]
pub(super) enum Finish {
    /// Its last run.
    Ended(ContainerEnd),
    /// It was told to stop before it ever ran.
    NotStarted,
}

/// Runs the container at `index` of the replica's containers, init containers first.
pub(super) async fn run_container(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    index: usize,
    policy: RestartPolicy,
) -> Finish {
    let spec = entry.spec().init_containers.iter().chain(&entry.spec().containers).nth(index).cloned();
    let Some(spec) = spec else { return Finish::NotStarted };
    let folder = entry.folder().container(&spec.name);
    let runner = Runner { shared, entry, index, folder, spec };
    runner.run(policy).await
}

struct Runner<'a> {
    shared: &'a Arc<Shared>,
    entry: &'a Arc<Entry>,
    index: usize,
    folder: ContainerFolder,
    spec: ContainerSpec,
}

impl Runner<'_> {
    async fn run(self, policy: RestartPolicy) -> Finish {
        let options = &self.shared.options;
        let mut number = match self.folder.launch() {
            Ok(launch) => launch.map_or(0, |launch| launch.run),
            Err(error) => return Finish::Ended(cannot_start(&error.to_string())),
        };
        let mut back_off = options.back_off;
        let mut stopping = self.entry.stopping();
        loop {
            let last = number.checked_sub(1).and_then(|before| self.folder.end(before).ok().flatten());
            self.entry.update(self.shared, self.index, |container| {
                container.restarts = number;
                container.last_end = last;
            });
            let known = self.folder.end(number).ok().flatten();
            if known.is_none() && stopping.borrow().is_some() && !self.is_held() {
                return Finish::NotStarted;
            }
            let end = match known {
                Some(end) => end,
                None => self.one_run(number).await,
            };
            let is_good = end.exit_code == 0;
            self.entry.update(self.shared, self.index, |container| {
                container.is_ready = false;
                container.state = ContainerState::Ended(end.clone());
            });
            let is_last = match policy {
                RestartPolicy::Always => false,
                RestartPolicy::OnFailure => is_good,
                RestartPolicy::Never => true,
            };
            if is_last || stopping.borrow().is_some() {
                return Finish::Ended(end);
            }
            if end.finished_at.since_ms(end.started_at)
                >= i64::try_from(options.back_off_reset.as_millis()).unwrap_or(i64::MAX)
            {
                back_off = options.back_off;
            }
            let passed = u64::try_from(now().since_ms(end.finished_at)).unwrap_or_default();
            let left = back_off.saturating_sub(Duration::from_millis(passed));
            // The first start again is at once, as Kubernetes does it.
            if number > 0 && !left.is_zero() {
                let message = format!(
                    "back-off {} s restarting failed container {}: {}",
                    back_off.as_secs_f64(),
                    self.spec.name,
                    end.reason
                );
                self.entry.update(self.shared, self.index, |container| {
                    container.last_end = Some(end.clone());
                    container.state = ContainerState::Waiting { reason: "CrashLoopBackOff".to_owned(), message };
                });
                tokio::select! {
                    () = tokio::time::sleep(left) => {}
                    _ = stopping.wait_for(Option::is_some) => return Finish::Ended(end),
                }
            }
            if number > 0 {
                back_off = (back_off * 2).min(options.back_off_most);
            }
            number += 1;
        }
    }

    /// Whether a shim runs this container now.
    fn is_held(&self) -> bool {
        self.folder.path().exists() && matches!(self.folder.try_lock(), Ok(None))
    }

    async fn one_run(&self, number: u32) -> ContainerEnd {
        let child = if self.is_held() {
            None
        } else {
            if let Ok(Some(run)) = self.folder.run(number) {
                // It ran, and its shim is gone without a word: what is left of it ends here.
                process::signal(&run, Signal::KILL);
                return self.lost(number, run.started_at);
            }
            match self.start(number) {
                Ok(child) => Some(child),
                Err(error) => return cannot_start(&error.to_string()),
            }
        };
        let mut shim = Shim { child, folder: &self.folder, number };
        let run = match shim.started().await {
            Ok(run) => run,
            Err(end) => return end.unwrap_or_else(|| self.lost(number, now())),
        };
        let is_ready = self.spec.readiness.is_none() && self.spec.startup.is_none();
        self.entry.update(self.shared, self.index, |container| {
            container.is_ready = is_ready;
            container.state = ContainerState::Running { since: run.started_at, pid: run.pid };
        });
        let mut stopping = self.entry.stopping();
        let home = self.home();
        let set_ready =
            |is_ready| self.entry.update(self.shared, self.index, |container| container.is_ready = is_ready);
        let ended = shim.ended();
        tokio::pin!(ended);
        let end = tokio::select! {
            end = &mut ended => end,
            () = async { let _ = stopping.wait_for(Option::is_some).await; } => {
                tokio::select! {
                    end = &mut ended => end,
                    () = self.terminate(&run) => ended.await,
                }
            }
            () = probe::watch(&self.spec, &home, set_ready) => {
                tracing::info!(replica = self.entry.uid(), container = self.spec.name, "its liveness probe fails; it is started again");
                let grace = self.entry.spec().grace_period;
                tokio::select! {
                    end = &mut ended => end,
                    () = self.terminate_within(&run, grace) => ended.await,
                }
            }
        };
        end.unwrap_or_else(|| self.lost(number, run.started_at))
    }

    /// Asks politely, waits, and ends it; a second request with a shorter grace is heard.
    async fn terminate(&self, run: &Run) {
        let mut stopping = self.entry.stopping();
        let left = |stop: &super::files::Stop| {
            let passed = u64::try_from(now().since_ms(stop.at)).unwrap_or_default();
            Duration::from_millis(stop.grace_ms.saturating_sub(passed))
        };
        let first = stopping.borrow_and_update().clone();
        let Some(stop) = first else { return };
        let polite = self.terminate_within(run, left(&stop));
        tokio::pin!(polite);
        loop {
            tokio::select! {
                () = &mut polite => return,
                changed = stopping.changed() => {
                    let sooner = stopping.borrow().as_ref().map(left);
                    if changed.is_err() || sooner.is_some_and(|left| left.is_zero()) {
                        process::signal(run, Signal::KILL);
                        return;
                    }
                }
            }
        }
    }

    async fn terminate_within(&self, run: &Run, grace: Duration) {
        let deadline = tokio::time::Instant::now() + grace;
        if let Some(action) = &self.spec.pre_stop {
            let _ = tokio::time::timeout_at(deadline, probe::act(action, &self.spec, &self.home(), grace)).await;
        }
        process::signal(run, Signal::TERM);
        tokio::time::sleep_until(deadline).await;
        process::signal(run, Signal::KILL);
    }

    /// The replica's own folder, where containers run that name none.
    fn home(&self) -> std::path::PathBuf {
        self.entry.folder().path().join("home")
    }

    fn start(&self, number: u32) -> Result<Child, RuntimeError> {
        let home = self.home();
        let io = |what: &str| {
            let what = format!("{what} container {}", self.spec.name);
            move |source| RuntimeError::Io { what, source }
        };
        super::files::create_private_folder(&home).map_err(io("making a folder for"))?;
        let mut env = inherited();
        env.extend(self.spec.env.clone());
        let launch = Launch {
            run: number,
            program: self.spec.program.clone(),
            args: self.spec.args.clone(),
            env,
            working_dir: self.spec.working_dir.clone().unwrap_or(home),
            group: self.shared.limiting.cgroups().map(|cgroups| cgroups.group(self.entry.uid(), &self.spec)),
            data_bytes: self.shared.limiting.data_bytes(&self.spec),
        };
        // The run before this one is still shown; what somebody reads he lets go himself, unless he is far behind.
        let kept = if self.shared.is_read.load(std::sync::atomic::Ordering::Relaxed) { RUNS_KEPT_UNREAD } else { 2 };
        if let Some(old) = number.checked_sub(kept) {
            self.folder.forget(old);
        }
        self.folder.write_launch(&launch)?;
        let mut command = Command::new(&self.shared.options.shim);
        command.arg(shim::COMMAND).arg(self.folder.path()).env_clear();
        command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        command.spawn().map_err(io("starting the shim of"))
    }

    fn lost(&self, number: u32, started_at: tidemill_scaling::TimeMs) -> ContainerEnd {
        if let Some(cgroups) = self.shared.limiting.cgroups() {
            cgroups.kill(self.entry.uid(), &self.spec.name);
        }
        let end = ContainerEnd {
            exit_code: 137,
            signal: Some(9),
            reason: "Lost: its shim was ended from outside".to_owned(),
            started_at,
            finished_at: now(),
        };
        if let Err(error) = self.folder.write_end(number, &end) {
            tracing::warn!(replica = self.entry.uid(), %error, "a container's end cannot be recorded");
        }
        end
    }
}

/// What a container's environment has from the server's own.
fn inherited() -> std::collections::BTreeMap<String, String> {
    let named = ["PATH", "HOME", "LANG", "TZ"].into_iter();
    named.filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?))).collect()
}

fn cannot_start(what: &str) -> ContainerEnd {
    ContainerEnd {
        exit_code: 126,
        signal: None,
        reason: format!("CannotStart: {what}"),
        started_at: now(),
        finished_at: now(),
    }
}

/// The shim of one run: a child of this process, or of one before it.
struct Shim<'a> {
    child: Option<Child>,
    folder: &'a ContainerFolder,
    number: u32,
}

impl Shim<'_> {
    /// The run once it has begun; its end, if there is one, where it never did.
    async fn started(&mut self) -> Result<Run, Option<ContainerEnd>> {
        loop {
            if let Ok(Some(run)) = self.folder.run(self.number) {
                return Ok(run);
            }
            if let Ok(Some(end)) = self.folder.end(self.number) {
                return Err(Some(end));
            }
            if self.is_gone() {
                // It may have written between the two looks.
                return match self.folder.run(self.number) {
                    Ok(Some(run)) => Ok(run),
                    _ => Err(self.folder.end(self.number).ok().flatten()),
                };
            }
            tokio::time::sleep(START_LOOK_EVERY).await;
        }
    }

    fn is_gone(&mut self) -> bool {
        match &mut self.child {
            Some(child) => match child.try_wait() {
                // It may have found the lock taken by another one, which then runs the container.
                Ok(Some(_)) => {
                    self.child = None;
                    matches!(self.folder.try_lock(), Ok(Some(_)))
                }
                _ => false,
            },
            None => matches!(self.folder.try_lock(), Ok(Some(_))),
        }
    }

    /// The end of the run; `None` where the shim went without a word.
    async fn ended(mut self) -> Option<ContainerEnd> {
        loop {
            if let Some(child) = &mut self.child {
                let _ = child.wait().await;
                self.child = None;
            }
            if let Ok(Some(end)) = self.folder.end(self.number) {
                return Some(end);
            }
            if self.is_gone() {
                return self.folder.end(self.number).ok().flatten();
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
