//! The seam between controllers and whatever runs replicas.
//!
//! Owns: what a replica is told ([`ReplicaSpec`]), what is seen of it ([`ReplicaStatus`], [`Usage`]), and the verbs ([`Runtime`]). Never: how it is
//! run, or whether it should be. Everything is resolved before it comes here: environment references, images, host names.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use serde::{Deserialize, Serialize};
use tidemill_scaling::TimeMs;
use tokio::sync::watch;

/// A replica to run: a pod's worth of containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaSpec {
    /// By which it is known; never reused.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name, unique within the namespace.
    pub name: String,
    /// The kind of what owns it: `Deployment`, `StatefulSet`, `Job`.
    pub workload_kind: String,
    /// The name of what owns it.
    pub workload: String,
    /// The uid of what owns it.
    pub owner_uid: String,
    /// Tells the template that it was made from: replicas of another one are of an older version.
    pub template: String,
    /// Which attempt of its owner's work it is, from 1; told with its logs.
    pub attempt: u32,
    /// The loopback address that is its own, for `$(POD_IP)` and for services.
    pub address: std::net::Ipv4Addr,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Containers that run one after the other, each to its end, before the others start.
    pub init_containers: Vec<ContainerSpec>,
    /// Its containers.
    pub containers: Vec<ContainerSpec>,
    /// What follows when a container ends.
    pub restart_policy: RestartPolicy,
    /// From the polite signal to the last one.
    pub grace_period: Duration,
    /// It is ended as failed when it has been active this long.
    pub active_deadline: Option<Duration>,
}

/// What follows when a container ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// It is started again, with a back-off.
    Always,
    /// It is started again unless it ended with 0.
    OnFailure,
    /// It stays ended.
    Never,
}

/// A container: one process and its descendants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its name, unique within the replica.
    pub name: String,
    /// The image that it was mapped from, as the manifest says it.
    pub image: String,
    /// The program, absolute or found in `PATH`.
    pub program: PathBuf,
    /// Its arguments, after `$(NAME)` was expanded.
    pub args: Vec<String>,
    /// Its whole environment; nothing of the server's own is inherited but `PATH`, `HOME`, `LANG` and `TZ`.
    pub env: BTreeMap<String, String>,
    /// Where it runs; the replica's own folder without one.
    pub working_dir: Option<PathBuf>,
    /// What it is sized by.
    pub requests: Resources,
    /// What it may not pass.
    pub limits: Resources,
    /// Ends it when it fails.
    pub liveness: Option<Probe>,
    /// Takes it out of services while it fails.
    pub readiness: Option<Probe>,
    /// Holds the other two back until it has succeeded once.
    pub startup: Option<Probe>,
    /// Runs before the polite signal, within the grace period.
    pub pre_stop: Option<ProbeAction>,
}

/// Amounts of CPU and memory; `None` is not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: Option<i64>,
    /// Bytes.
    pub memory_bytes: Option<i64>,
}

/// A periodic check of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is done.
    pub action: ProbeAction,
    /// From the start of the container to the first check.
    pub initial_delay: Duration,
    /// Between checks.
    pub period: Duration,
    /// A check that takes longer has failed.
    pub timeout: Duration,
    /// So many in a row make it succeed.
    pub success_threshold: u32,
    /// So many in a row make it fail.
    pub failure_threshold: u32,
}

/// One check, or one thing to do before the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeAction {
    /// An HTTP GET that answers 200 to 399.
    HttpGet {
        /// `127.0.0.1` or the replica's own address.
        host: String,
        /// Its port.
        port: u16,
        /// Its path and query.
        path: String,
        /// Headers to send.
        headers: Vec<(String, String)>,
        /// TLS without verification, as Kubernetes does it.
        is_https: bool,
    },
    /// A TCP connection that is accepted.
    TcpSocket {
        /// As above.
        host: String,
        /// Its port.
        port: u16,
    },
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// As above.
        host: String,
        /// Its port.
        port: u16,
        /// The service that is asked about.
        service: String,
    },
    /// A command in the container's environment that ends with 0.
    Exec {
        /// Program and arguments.
        command: Vec<String>,
    },
    /// Rest, for `preStop`.
    Sleep {
        /// How long.
        duration: Duration,
    },
}

/// The phase of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicaPhase {
    /// Not every container was started yet.
    Pending,
    /// At least one container runs, or will be started again.
    Running,
    /// All containers ended with 0 and stay ended.
    Succeeded,
    /// All containers ended, at least one badly, and stay ended.
    Failed,
}

/// What is seen of a replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// What it was told; after the controller was killed, what the replica's own record says.
    pub spec: ReplicaSpec,
    /// Its phase.
    pub phase: ReplicaPhase,
    /// Whether it was told to stop.
    pub is_stopping: bool,
    /// Whether all its containers are ready.
    pub is_ready: bool,
    /// When that last changed.
    pub ready_changed_at: TimeMs,
    /// When it was accepted.
    pub created_at: TimeMs,
    /// When its first container started.
    pub started_at: Option<TimeMs>,
    /// When it ended.
    pub finished_at: Option<TimeMs>,
    /// A stable word where something is to be said: `CrashLoopBackOff`, `DeadlineExceeded`, `OOMKilled`, `CannotStart`.
    pub reason: Option<String>,
    /// One sentence.
    pub message: Option<String>,
    /// Its containers, init containers first.
    pub containers: Vec<ContainerStatus>,
}

/// What is seen of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: ContainerState,
    /// How its run before this one ended.
    pub last_end: Option<ContainerEnd>,
    /// Whether it is ready.
    pub is_ready: bool,
    /// How often it was started again.
    pub restarts: u32,
}

/// How a container is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ContainerState {
    /// It is to be started.
    Waiting {
        /// `ContainerCreating`, `CrashLoopBackOff`, `CannotStart` …
        reason: String,
        /// One sentence.
        message: String,
    },
    /// It runs.
    Running {
        /// Since when.
        since: TimeMs,
        /// Its process.
        pid: u32,
    },
    /// It ended.
    Ended(ContainerEnd),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerEnd {
    /// Its exit code; 128 + n after signal n.
    pub exit_code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `CannotStart`.
    pub reason: String,
    /// When it started.
    pub started_at: TimeMs,
    /// When it ended.
    pub finished_at: TimeMs,
}

/// What a replica uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// The end of the window that was measured.
    pub at: TimeMs,
    /// How long it is.
    pub window: Duration,
    /// Thousandths of a core and bytes, by container.
    pub containers: BTreeMap<String, Resources>,
    /// CPU seconds since each container's first start, by container.
    pub cpu_seconds: BTreeMap<String, f64>,
}

/// Which part of a log is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// The container; the only one without a name.
    pub container: Option<String>,
    /// Go on as lines come.
    pub follow: bool,
    /// Of the run before this one.
    pub previous: bool,
    /// Only the last so many lines.
    pub tail: Option<usize>,
    /// Only lines since then.
    pub since: Option<TimeMs>,
    /// An RFC 3339 time before each line.
    pub timestamps: bool,
}

/// Lines of a log, with their ends.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<Bytes, RuntimeError>> + Send>>;

/// One line that a container printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was read, in nanoseconds since 1970.
    pub time_ns: i64,
    /// Whether it went to standard error.
    pub is_stderr: bool,
    /// Its text without the end of line; a line beyond 16 KiB comes in parts.
    pub text: String,
    /// The replica's uid.
    pub replica_uid: String,
    /// Its container.
    pub container: String,
    /// Which run of the container, from 0.
    pub restart: u32,
}

/// Why a runtime cannot do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// There is no such replica or container.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense: says why.
    #[error("{0}")]
    Invalid(String),
    /// The host refused: says what.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the host said.
        source: std::io::Error,
    },
}

/// Runs replicas.
#[async_trait]
pub trait Runtime: Send + Sync + std::fmt::Debug {
    /// Starts a replica; a second call with the same uid does nothing. It returns once the replica is recorded so that a controller that is killed right after finds
    /// it again; the start itself shows in [`Runtime::replicas`].
    ///
    /// # Errors
    /// When it cannot be recorded.
    async fn start(&self, replica: ReplicaSpec) -> Result<(), RuntimeError>;

    /// Begins to stop a replica; its end shows in [`Runtime::replicas`]. `grace` replaces the replica's own.
    ///
    /// # Errors
    /// `NotFound`.
    async fn stop(&self, uid: &str, grace: Option<Duration>) -> Result<(), RuntimeError>;

    /// Forgets a replica that has ended, with its logs.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` while it runs.
    async fn remove(&self, uid: &str) -> Result<(), RuntimeError>;

    /// Every replica that is known, those that were adopted after a restart among them.
    fn replicas(&self) -> Vec<ReplicaStatus>;

    /// Counts up whenever a status changes.
    fn changes(&self) -> watch::Receiver<u64>;

    /// What a replica uses, as last measured; `None` before the first measurement.
    fn usage(&self, uid: &str) -> Option<Usage>;

    /// The lines that a container printed.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` where a container must be named.
    async fn logs(&self, uid: &str, options: LogOptions) -> Result<LogStream, RuntimeError>;
}
