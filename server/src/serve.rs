//! Runs roles until the process is told to stop, then lets work in flight finish.
//!
//! Owns: which task belongs to which role, the order of stopping. Never: what a role does (the engines'). Start with [`serve`].

use std::future::Future;
use std::time::Duration;

use tidemill_lake::receive::Gate;
use tidemill_types::ErrorKind;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::http::Readiness;
use crate::roles::{Assembly, OwnTelemetry, Roles, Running};
use crate::stack::Stack;

/// Of the grace period, what the end of the process itself takes.
const EXIT: Duration = Duration::from_millis(100);
/// Of the grace period, what is kept for ending the runtime, whose threads may still be in the middle of something.
pub const RUNTIME_END: Duration = Duration::from_millis(200);

/// The tasks of this process and how they are told to stop.
#[derive(Debug)]
pub struct Tasks {
    running: JoinSet<&'static str>,
    /// Cancelled once, when the process begins to stop.
    pub stop: CancellationToken,
}

impl Tasks {
    fn new() -> Self {
        Self { running: JoinSet::new(), stop: CancellationToken::new() }
    }

    /// Runs `task`, which ends after [`Tasks::stop`] and not before.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(async move {
            task.await;
            name
        });
    }

    /// Resolves with the name of a task that ended before it was told to.
    async fn first_ended(&mut self) -> Error {
        match self.running.join_next().await {
            Some(Ok(name)) => Error::new(ErrorKind::Internal, format!("{name} ended by itself")),
            Some(Err(error)) => Error::caused(ErrorKind::Internal, "a task of the server failed", error),
            None => std::future::pending().await,
        }
    }

    async fn finish(&mut self) {
        while let Some(ended) = self.running.join_next().await {
            match ended {
                Ok(name) => tracing::debug!(task = name, "stopped"),
                Err(error) => tracing::warn!(%error, "a task failed while stopping"),
            }
        }
    }
}

/// Runs `roles` until SIGTERM, SIGINT or `until`; `ready` is told where the listeners are once they serve.
///
/// # Errors
/// Those of starting, and `Internal` when a task ends by itself.
pub async fn serve<R, U>(stack: Stack, roles: Roles, own: OwnTelemetry, ready: R) -> Result<()>
where
    R: FnOnce(Running) -> U,
    U: Future<Output = Result<Outcome>>,
{
    let grace = stack.config.duration("shutdown.grace");
    let folder = stack.folder.clone();
    let mut tasks = Tasks::new();
    let mut interrupts = Interrupts::listen()?;
    let readiness = Readiness::default();
    let running =
        Assembly { stack, roles, readiness: readiness.clone(), own, gate: Gate::default() }.start(&mut tasks).await?;
    // Beside a whole server, a single role is not the one that commands look for.
    let is_the_server = roles.is_the_server() || folder.running_server().is_none();
    let telling = if is_the_server { Some(folder.write_ports(&running.ports)?) } else { None };
    readiness.set(true);
    let api = running.ports.url(running.ports.api);
    tracing::info!(role = roles.name(), version = env!("CARGO_PKG_VERSION"), api, "serving");
    let until = ready(running);
    let outcome = run_until_told(&mut tasks, &mut interrupts, until).await;
    readiness.set(false);
    drop(telling);
    tasks.stop.cancel();
    tokio::select! {
        ended = tokio::time::timeout(grace.saturating_sub(RUNTIME_END + EXIT), tasks.finish()) => {
            if ended.is_err() {
                tracing::warn!(grace_s = grace.as_secs(), "work in flight did not end within the grace period; its leases will expire");
            }
        }
        name = interrupts.next() => tracing::warn!(signal = name, "told again to stop: not waiting for work in flight"),
    }
    outcome
}

/// What follows once the caller's own future has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Go on until told to stop.
    GoOn,
    /// Stop now.
    Stop,
}

async fn run_until_told(
    tasks: &mut Tasks,
    interrupts: &mut Interrupts,
    until: impl Future<Output = Result<Outcome>>,
) -> Result<()> {
    let until = async {
        match until.await {
            Ok(Outcome::GoOn) => std::future::pending().await,
            Ok(Outcome::Stop) => Ok(()),
            Err(error) => Err(error),
        }
    };
    tokio::select! {
        name = interrupts.next() => {
            tracing::info!(signal = name, "stopping");
            Ok(())
        }
        error = tasks.first_ended() => Err(error),
        ended = until => ended,
    }
}

struct Interrupts {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Interrupts {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| Error::io("listening for signals", error));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// How long a worker may go on with what it has begun, so that handing back still fits into `grace`.
pub fn worker_grace(grace: Duration) -> Duration {
    grace.saturating_sub(Duration::from_secs(3)).max(grace / 2)
}
