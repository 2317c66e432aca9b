//! One replica: its status, and the order in which its containers run.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tidemill_scaling::TimeMs;
use tokio::sync::watch;

use super::container::{Finish, run_container};
use super::files::{Created, Ended, RECORD, REMOVED, ReplicaFolder, Stop, create_private_folder};
use super::{PrintedBy, Shared, is_last, now};
use crate::runtime::{
    ContainerState, ContainerStatus, ReplicaPhase, ReplicaSpec, ReplicaStatus, RestartPolicy, RuntimeError,
};

/// A replica that is known.
#[derive(Debug)]
pub(super) struct Entry {
    folder: ReplicaFolder,
    spec: Arc<ReplicaSpec>,
    status: Mutex<ReplicaStatus>,
    stop: watch::Sender<Option<Stop>>,
}

fn fresh(spec: ReplicaSpec, created_at: TimeMs) -> ReplicaStatus {
    let waiting = |name: &String| ContainerStatus {
        name: name.clone(),
        state: ContainerState::Waiting { reason: "ContainerCreating".to_owned(), message: String::new() },
        last_end: None,
        is_ready: false,
        restarts: 0,
    };
    let containers =
        spec.init_containers.iter().chain(&spec.containers).map(|container| waiting(&container.name)).collect();
    ReplicaStatus {
        phase: ReplicaPhase::Pending,
        is_stopping: false,
        is_ready: false,
        ready_changed_at: created_at,
        created_at,
        started_at: None,
        finished_at: None,
        reason: None,
        message: None,
        containers,
        spec,
    }
}

impl Entry {
    /// Records a new replica.
    pub(super) fn create(folder: ReplicaFolder, spec: ReplicaSpec) -> Result<Self, RuntimeError> {
        let io = |source| RuntimeError::Io { what: format!("creating {}", folder.path().display()), source };
        create_private_folder(folder.path()).map_err(io)?;
        let created = Created { spec, created_at: now() };
        folder.write(RECORD, &created)?;
        Ok(Self::new(folder, fresh(created.spec, created.created_at), None))
    }

    /// Reads a replica that an earlier process recorded.
    pub(super) fn load(folder: ReplicaFolder) -> Result<Option<Self>, RuntimeError> {
        let created = match folder.read::<Created>(RECORD)? {
            Some(created) => created,
            None => match folder.read::<Created>(REMOVED)? {
                Some(created) => created,
                None => return Ok(None),
            },
        };
        let stop = folder.read::<Stop>("stop.json")?;
        let mut status = fresh(created.spec, created.created_at);
        status.is_stopping = stop.is_some();
        if let Some(ended) = folder.read::<Ended>("ended.json")? {
            status.phase = ended.phase;
            status.started_at = ended.started_at;
            status.finished_at = Some(ended.at);
            status.reason = ended.reason;
            status.message = ended.message;
            status.containers = ended.containers;
        }
        Ok(Some(Self::new(folder, status, stop)))
    }

    fn new(folder: ReplicaFolder, status: ReplicaStatus, stop: Option<Stop>) -> Self {
        Self { folder, spec: Arc::new(status.spec.clone()), status: Mutex::new(status), stop: watch::Sender::new(stop) }
    }

    pub(super) fn uid(&self) -> &str {
        &self.spec.uid
    }

    pub(super) fn spec(&self) -> &Arc<ReplicaSpec> {
        &self.spec
    }

    pub(super) fn folder(&self) -> &ReplicaFolder {
        &self.folder
    }

    pub(super) fn status(&self) -> ReplicaStatus {
        self.status.lock().clone()
    }

    /// Adds its containers that were started.
    pub(super) fn printed(&self, is_removed: bool, found: &mut Vec<PrintedBy>) {
        let status = self.status.lock();
        let is_over = is_last(status.phase);
        for container in &status.containers {
            let has_started =
                !matches!(&container.state, ContainerState::Waiting { reason, .. } if reason == "ContainerCreating");
            if has_started || container.restarts > 0 {
                found.push(PrintedBy {
                    replica: self.spec.clone(),
                    container: container.name.clone(),
                    last_run: container.restarts,
                    is_over,
                    is_removed,
                    folder: self.folder.container(&container.name),
                });
            }
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        is_last(self.status.lock().phase)
    }

    /// Records that it is to stop; a shorter grace replaces a longer one.
    pub(super) fn ask_to_stop(&self, grace: Option<Duration>, reason: Option<&str>) -> Result<(), RuntimeError> {
        if self.has_ended() {
            return Ok(());
        }
        let grace = grace.unwrap_or(self.spec.grace_period);
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let asked = self.stop.borrow().clone();
        if asked.as_ref().is_some_and(|asked| asked.grace_ms <= grace_ms) {
            return Ok(());
        }
        let at = asked.as_ref().map_or_else(now, |asked| asked.at);
        let reason = asked.and_then(|asked| asked.reason).or_else(|| reason.map(ToOwned::to_owned));
        let stop = Stop { at, grace_ms, reason };
        self.folder.write("stop.json", &stop)?;
        self.status.lock().is_stopping = true;
        self.stop.send_replace(Some(stop));
        Ok(())
    }

    pub(super) fn stopping(&self) -> watch::Receiver<Option<Stop>> {
        self.stop.subscribe()
    }

    /// Changes what is seen of the container at `index`, and of the replica with it.
    pub(super) fn update(&self, shared: &Shared, index: usize, change: impl FnOnce(&mut ContainerStatus)) {
        {
            let mut status = self.status.lock();
            let before = status.clone();
            if let Some(container) = status.containers.get_mut(index) {
                change(container);
            }
            derive(&mut status, self.spec.init_containers.len());
            if *status == before {
                return;
            }
        }
        shared.bump();
    }
}

/// What follows for the replica from how its containers are.
fn derive(status: &mut ReplicaStatus, init_count: usize) {
    let has_started = |container: &ContainerStatus| {
        !matches!(container.state, ContainerState::Waiting { .. }) || container.last_end.is_some()
    };
    let main = &status.containers[init_count.min(status.containers.len())..];
    if !is_last(status.phase) && main.iter().any(has_started) {
        status.phase = ReplicaPhase::Running;
    }
    if status.started_at.is_none() {
        status.started_at = status.containers.iter().find_map(|container| match &container.state {
            ContainerState::Running { since, .. } => Some(*since),
            ContainerState::Ended(end) => Some(end.started_at),
            ContainerState::Waiting { .. } => container.last_end.as_ref().map(|end| end.started_at),
        });
    }
    let is_ready = !main.is_empty() && main.iter().all(|container| container.is_ready) && !is_last(status.phase);
    if is_ready != status.is_ready {
        status.is_ready = is_ready;
        status.ready_changed_at = now();
    }
    if !is_last(status.phase) {
        let waiting = status.containers.iter().find_map(|container| match &container.state {
            ContainerState::Waiting { reason, message } if reason != "ContainerCreating" => {
                Some((reason.clone(), message.clone()))
            }
            _ => None,
        });
        (status.reason, status.message) =
            waiting.map_or((None, None), |(reason, message)| (Some(reason), Some(message)));
    }
}

/// Runs a replica to its end, which it records.
pub(super) async fn run(shared: Arc<Shared>, entry: Arc<Entry>) {
    let work = run_containers(&shared, &entry);
    tokio::pin!(work);
    let phase = tokio::select! {
        phase = &mut work => phase,
        () = deadline(&entry) => {
            if let Err(error) = entry.ask_to_stop(None, Some("DeadlineExceeded")) {
                tracing::warn!(replica = entry.uid(), %error, "its deadline has passed and that cannot be recorded");
            }
            work.await
        }
    };
    let stop = entry.stop.borrow().clone();
    let ended = {
        let mut status = entry.status.lock();
        let reason = stop.and_then(|stop| stop.reason);
        status.phase = if reason.is_some() { ReplicaPhase::Failed } else { phase };
        if let Some(reason) = reason {
            status.message =
                Some(format!("was active longer than {} s", entry.spec.active_deadline.unwrap_or_default().as_secs()));
            status.reason = Some(reason);
        } else if let Some(end) = status.containers.iter().find_map(|container| match &container.state {
            ContainerState::Ended(end) if end.exit_code != 0 => Some(end),
            _ => None,
        }) {
            let (reason, message) = end.reason.split_once(": ").unwrap_or((&end.reason, ""));
            (status.reason, status.message) =
                (Some(reason.to_owned()), (!message.is_empty()).then(|| message.to_owned()));
        }
        status.finished_at = Some(now());
        status.containers.iter_mut().for_each(|container| container.is_ready = false);
        if status.is_ready {
            status.is_ready = false;
            status.ready_changed_at = now();
        }
        Ended {
            phase: status.phase,
            at: status.finished_at.unwrap_or_default(),
            started_at: status.started_at,
            reason: status.reason.clone(),
            message: status.message.clone(),
            containers: status.containers.clone(),
        }
    };
    if let Err(error) = entry.folder.write("ended.json", &ended) {
        tracing::warn!(replica = entry.uid(), %error, "its end cannot be recorded");
    }
    shared.limiting.let_go(&entry.spec);
    shared.bump();
}

async fn deadline(entry: &Entry) {
    let Some(limit) = entry.spec.active_deadline else { return std::future::pending().await };
    let limit_ms = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
    loop {
        let passed = entry.status.lock().started_at.map(|started| now().since_ms(started));
        match passed.map(|passed| limit_ms.saturating_sub(passed)) {
            Some(left) if left <= 0 => return,
            Some(left) => tokio::time::sleep(Duration::from_millis(u64::try_from(left).unwrap_or_default())).await,
            None => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn run_containers(shared: &Arc<Shared>, entry: &Arc<Entry>) -> ReplicaPhase {
    let spec = entry.spec.clone();
    let restarts_init =
        if spec.restart_policy == RestartPolicy::Never { RestartPolicy::Never } else { RestartPolicy::OnFailure };
    for index in 0..spec.init_containers.len() {
        match run_container(shared, entry, index, restarts_init).await {
            Finish::Ended(end) if end.exit_code == 0 => {}
            Finish::Ended(_) | Finish::NotStarted => return ReplicaPhase::Failed,
        }
    }
    let first = spec.init_containers.len();
    let all = (0..spec.containers.len()).map(|index| run_container(shared, entry, first + index, spec.restart_policy));
    let is_good = |finish: &Finish| matches!(finish, Finish::Ended(end) if end.exit_code == 0);
    if join_all(all).await.iter().all(is_good) { ReplicaPhase::Succeeded } else { ReplicaPhase::Failed }
}
