//! Which roles this process plays, and how each is put together from the engines.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tidemill_lake::clock::SystemClock;
use tidemill_lake::receive::{DiskLimits, DiskMonitor, Gate, Receiver, ReceiverDeps, ReceiverOptions};
use tidemill_lake::sweep::{SweeperDeps, SweeperHandle, SweeperOptions};
use tidemill_lake::worker::{WorkerDeps, WorkerHandle, WorkerOptions};
use tidemill_lake::{loki_push, otlp_grpc, otlp_http, receive, sweep, worker};
use tidemill_store::metastore::queues_for;
use tidemill_types::{ErrorKind, OrganizationId};
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::auth::{KeyRing, Openness};
use crate::config::Config;
use crate::data_folder::Ports;
use crate::error::{Error, Result};
use crate::http::{ApiState, LoadState, Readiness, router, trace_requests};
use crate::intake::{Intake, from_lake};
use crate::listener::Listener;
use crate::query::Queries;
use crate::serve::{Tasks, worker_grace};
use crate::stack::Stack;
use crate::telemetry::{OwnDoor, Telemetry, tell_of_replicas};
use crate::tls::ServerTls;

/// Which roles this process plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles {
    /// OTLP over gRPC and HTTP.
    pub receive: bool,
    /// Webhooks, watched folders, SQS.
    pub notify: bool,
    /// Ingest, compaction, rollups.
    pub work: bool,
    /// SQL.
    pub query: bool,
    /// Retention, doomed objects, orphans.
    pub sweep: bool,
}

impl Roles {
    /// Every role.
    pub const ALL: Self = Self { receive: true, notify: true, work: true, query: true, sweep: true };

    /// Every role but work, which workloads of the fleet perform.
    pub const FRONT: Self = Self { work: false, ..Self::ALL };

    /// Whether this process is the whole server of its data folder.
    pub fn is_the_server(self) -> bool {
        self == Self::ALL || self == Self::FRONT
    }

    /// The word for them in names of files.
    pub fn name(self) -> &'static str {
        match self {
            Self::ALL | Self::FRONT => "up",
            Self { receive: true, .. } => "receive",
            Self { notify: true, .. } => "notify",
            Self { work: true, .. } => "worker",
            Self { query: true, .. } => "query",
            Self { .. } => "sweeper",
        }
    }
}

/// What this process tells of itself, and the doors by which some of that comes back in.
#[derive(Debug, Default)]
pub struct OwnTelemetry {
    /// The exports.
    pub telemetry: Telemetry,
    /// Doors into this process's receiver, each with the organization behind it.
    pub doors: Vec<(OwnDoor, OrganizationId)>,
    /// Whose rows are what this process tells of itself; they are not traced while they are ingested.
    pub organization: Option<OrganizationId>,
}

/// What the caller of a started process works with.
#[derive(Debug)]
pub struct Running {
    /// Where the listeners are.
    pub ports: Ports,
    /// SQL, where this process queries.
    pub queries: Option<Queries>,
}

impl OwnTelemetry {
    /// Sends what is left once the process stops, then lets the receiver go.
    async fn run_until(self, stop: CancellationToken) {
        stop.cancelled().await;
        let Self { telemetry, doors, .. } = self;
        if let Err(error) = tokio::task::spawn_blocking(move || telemetry.shut_down()).await {
            tracing::debug!(%error, "own telemetry");
        }
        doors.iter().for_each(|(door, _)| door.close());
    }
}

/// A process about to start.
#[derive(Debug)]
pub struct Assembly {
    /// What its roles stand on.
    pub stack: Stack,
    /// Which roles.
    pub roles: Roles,
    /// Told by `/readyz`.
    pub readiness: Readiness,
    /// What it tells of itself.
    pub own: OwnTelemetry,
    /// Closed while the disk is nearly full.
    pub gate: Gate,
}

impl Assembly {
    /// Binds every listener first, then starts every task, so that a taken port stops the start before anything runs.
    ///
    /// # Errors
    /// A taken port, a broken certificate, a store that does not open.
    pub async fn start(self, tasks: &mut Tasks) -> Result<Running> {
        let config = &self.stack.config;
        let tls = load_tls(config)?;
        let bind = |key: &'static str| {
            Listener::bind(config.listen(key), key, config.count("listen.max_connections"), tls.clone())
        };
        let api = bind("listen.api_port").await?;
        let push = if self.roles.receive {
            Some((bind("listen.grpc_port").await?, bind("listen.http_port").await?))
        } else {
            None
        };
        let ports = Ports {
            pid: std::process::id(),
            scheme: api.scheme().to_owned(),
            address: api.address().ip(),
            api: api.address().port(),
            grpc: push.as_ref().map(|(grpc, _)| grpc.address().port()),
            http: push.as_ref().map(|(_, http)| http.address().port()),
            certificate: config.path("tls.cert").and_then(|it| it.canonicalize().ok()),
            metastore: config.masked("metastore.url"),
        };
        if let Some(tls) = tls {
            tasks.spawn("TLS reload", tls.run_reload(tasks.stop.clone()));
        }
        let authenticator = self.authenticator();
        let receiver = match push {
            Some((grpc, http)) => {
                let receiver = self.start_receiver(tasks);
                // An SDK that takes the one port for the other is understood all the same.
                let routes = otlp_grpc::router(receiver.clone(), authenticator.clone())
                    .merge(otlp_http::router(receiver.clone(), authenticator.clone()))
                    .merge(loki_push::router(receiver.clone(), authenticator.clone()))
                    .fallback(nothing_but_otlp);
                let routes = self.traced(routes);
                tasks.spawn("OTLP over gRPC", grpc.serve(routes.clone(), tasks.stop.clone()));
                tasks.spawn("OTLP over HTTP", http.serve(routes, tasks.stop.clone()));
                Some(receiver)
            }
            None => None,
        };
        if self.roles.receive || self.roles.notify {
            self.start_disk_monitor(tasks);
        }
        let worker = if self.roles.work { Some(self.start_worker(tasks)?) } else { None };
        let sweeper = self.roles.sweep.then(|| self.start_sweeper(tasks));
        tasks.spawn("profiles and keys", self.stack.directory.clone().run_refresh(tasks.stop.clone()));
        let queries = self.roles.query.then(|| Queries::new(&self.stack));
        if let Some(receiver) = &receiver {
            self.own.doors.iter().for_each(|(door, organization)| door.open(receiver.clone(), *organization));
        }
        let pushes = receiver.clone().map(|receiver| {
            loki_push::router(receiver.clone(), authenticator.clone())
                .merge(otlp_http::router_of_others(receiver, authenticator.clone()))
        });
        self.own.telemetry.numbers.set(receiver.clone(), worker, sweeper);
        let fleet = if self.roles.is_the_server() && config.flag("fleet.enabled") {
            let fleet = crate::fleet::start(config, &self.stack.folder, self.stack.metastore.clone(), tasks)?;
            crate::fleet::answer_metrics(
                config,
                &fleet,
                queries.clone(),
                Admin { metastore: self.stack.metastore.clone() },
            )?;
            let roles = match crate::fleet::roles::read(config)? {
                Some(roles) => crate::fleet::roles::objects(config, &roles)?,
                None => Vec::new(),
            };
            crate::fleet::roles::apply(&fleet, roles).await?;
            Some(fleet)
        } else {
            None
        };
        if let (Some(fleet), Some(receiver), Some(name)) = (&fleet, &receiver, config.optional("fleet.organization")) {
            let admin = Admin { metastore: self.stack.metastore.clone() };
            let stop = tasks.stop.clone();
            tasks.spawn(
                "fleet telemetry",
                tell_of_replicas(fleet.clone(), receiver.clone(), admin, name.to_owned(), stop),
            );
        }
        let state = ApiState {
            admin: Admin { metastore: self.stack.metastore.clone() },
            authenticator: authenticator.clone(),
            readiness: self.readiness.clone(),
            numbers: self.own.telemetry.numbers.clone(),
            queries: queries.clone(),
            fleet,
            load: LoadState {
                intake: Intake {
                    metastore: self.stack.metastore.clone(),
                    buckets: self.stack.buckets.clone(),
                    placement: self.stack.placement(),
                    gate: self.gate.clone(),
                },
                spool: self.stack.spool.clone(),
            },
            receiver,
        };
        let mut routes = router(state).merge(pushes.unwrap_or_default());
        if self.roles.notify {
            routes = self.start_notifications(tasks, authenticator, routes).await?;
        }
        tasks.spawn("API", api.serve(self.traced(routes), tasks.stop.clone()));
        tasks.spawn("own telemetry", self.own.run_until(tasks.stop.clone()));
        Ok(Running { ports, queries })
    }

    fn traced(&self, routes: Router) -> Router {
        if self.own.telemetry.is_exporting() { trace_requests(routes) } else { routes }
    }

    fn authenticator(&self) -> Arc<KeyRing> {
        let config = &self.stack.config;
        let openness = if config.flag("auth.enabled") { Openness::KeyNeeded } else { Openness::Open };
        Arc::new(KeyRing::new(self.stack.metastore.clone(), openness, config.duration("auth.cache")))
    }

    fn start_receiver(&self, tasks: &mut Tasks) -> Receiver {
        let config = &self.stack.config;
        let options = ReceiverOptions {
            gather: config.duration("receive.group_wait"),
            group_bytes: usize_of(config.bytes("receive.group_bytes")),
            max_request_bytes: usize_of(config.bytes("receive.max_request")),
            memory_bytes: usize_of(config.bytes("receive.memory")),
            ..ReceiverOptions::default()
        };
        let deps = ReceiverDeps {
            metastore: self.stack.metastore.clone(),
            buckets: self.stack.buckets.clone(),
            placement: self.stack.placement(),
            clock: Arc::new(SystemClock),
            gate: self.gate.clone(),
        };
        let (receiver, task) = receive::build(options, deps);
        // It ends by itself once the listeners have dropped their handles: requests in flight are still answered.
        tasks.spawn("receiver", task.run());
        receiver
    }

    fn start_disk_monitor(&self, tasks: &mut Tasks) {
        let config = &self.stack.config;
        let limits = DiskLimits {
            folder: self.stack.folder.root().to_owned(),
            min_free_bytes: 256 << 20,
            max_used_bytes: Some(config.bytes("storage.disk_budget")).filter(|bytes| *bytes > 0),
            every: Duration::from_secs(5),
        };
        let monitor = DiskMonitor::new(limits, self.gate.clone());
        let stop = tasks.stop.clone();
        tasks.spawn("disk budget", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = monitor.run() => {}
            }
        });
    }

    fn start_sweeper(&self, tasks: &mut Tasks) -> SweeperHandle {
        let config = &self.stack.config;
        let options = SweeperOptions {
            doomed_every: config.duration("sweep.interval"),
            full_every: config.duration("sweep.full_interval"),
            ..SweeperOptions::default()
        };
        let deps = SweeperDeps { metastore: self.stack.metastore.clone(), buckets: self.stack.buckets.clone() };
        let (handle, task) = sweep::build(options, deps);
        let stop = tasks.stop.clone();
        let stopper = handle.clone();
        tasks.spawn("sweeper", async move {
            let stopped = async {
                stop.cancelled().await;
                stopper.stop();
            };
            tokio::join!(task.run(), stopped);
        });
        handle
    }

    fn start_worker(&self, tasks: &mut Tasks) -> Result<WorkerHandle> {
        let config = &self.stack.config;
        let queues = queues_for(&config.worker_signals(), &config.worker_actions());
        let mut options = WorkerOptions::new(queues, worker_name(), self.stack.spool.clone());
        options.untraced = self.own.organization;
        options.concurrency = config.count("worker.count");
        options.lease = config.duration("worker.lease");
        options.bundle_bytes = config.bytes("worker.bundle_bytes");
        options.memory_bytes = usize_of(config.bytes("worker.memory"));
        options.grace = worker_grace(config.duration("shutdown.grace"));
        let deps = WorkerDeps {
            metastore: self.stack.metastore.clone(),
            buckets: self.stack.buckets.clone(),
            placement: self.stack.placement(),
            clock: Arc::new(SystemClock),
        };
        let (handle, task) = worker::build(options, deps).map_err(from_lake)?;
        let stop = tasks.stop.clone();
        let stopper = handle.clone();
        tasks.spawn("worker", async move {
            let stopped = async {
                stop.cancelled().await;
                stopper.stop();
            };
            tokio::join!(task.run(), stopped);
        });
        Ok(handle)
    }
}

async fn nothing_but_otlp(uri: http::Uri) -> Error {
    let path = uri.path();
    Error::new(ErrorKind::NotFound, format!("there is nothing at {path}: this port takes OTLP, over gRPC and HTTP"))
        .with_hint("POST to /v1/logs, /v1/metrics or /v1/traces; SQL and administration are at listen.api_port")
}

fn load_tls(config: &Config) -> Result<Option<ServerTls>> {
    match (config.path("tls.cert"), config.path("tls.key")) {
        (Some(certificate), Some(key)) => ServerTls::load(certificate, key).map(Some),
        _ => Ok(None),
    }
}

/// Host and process, for people who look at a lease.
fn worker_name() -> String {
    let host = sysinfo::System::host_name().unwrap_or_else(|_| "unknown".to_owned());
    format!("{host}/{}", std::process::id())
}

/// A size in memory; beyond the address space it is as much as there can be.
fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
