//! What follows from the objects: which replicas there should be, where connections go, what statuses say.
//!
//! Owns: one pass over everything, run again whenever an object or a replica changed; it looks at what is and does what is missing, so that a pass that was
//! interrupted is finished by the next one. Never: deciding a size. Start with [`Controller::run`].

mod deployment;
mod environment;
mod garbage;
mod hosts;
mod job;
mod services;
mod status;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill_scaling::TimeMs;

pub(crate) use deployment::VICTIMS;
pub use environment::{Missing, contents};
pub use hosts::{Hosts, MappedHost, service_address};
pub(crate) use job::verdict_of;
pub use template::{mapped_image, split_words, trigger_environment};

use crate::error::Result;
use crate::events::{EventKind, Events};
use crate::local::service::Proxies;
use crate::objects::Object;
use crate::runtime::{ReplicaSpec, ReplicaStatus, Resources, Runtime};
use crate::storage::{Storage, Write};
use template::Surroundings;

/// Passes that follow each other are at least this far apart.
const BETWEEN_PASSES: Duration = Duration::from_millis(10);
/// A pass comes at least so often, for what only time changes.
const AT_LEAST_EVERY: Duration = Duration::from_secs(30);

/// Carries objects out.
#[derive(Debug)]
pub struct Controller {
    pub(crate) storage: Arc<Storage>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) events: Arc<Events>,
    proxies: Proxies,
}

/// What one pass sees.
struct Seen {
    now: TimeMs,
    objects: Vec<Arc<Object>>,
    replicas: Vec<ReplicaStatus>,
    images: BTreeMap<String, String>,
    mapped_hosts: BTreeMap<String, MappedHost>,
}

/// What a pass wants done.
#[derive(Debug, Default)]
struct Plan {
    /// Loopback addresses that replicas have, those that are to be started among them.
    addresses: BTreeSet<Ipv4Addr>,
    start: Vec<ReplicaSpec>,
    /// With a grace that replaces the replica's own.
    stop: Vec<(String, Option<Duration>)>,
    remove: Vec<String>,
    writes: Vec<Write>,
    /// When something follows from time alone.
    wake: Option<TimeMs>,
}

impl Plan {
    fn new(seen: &Seen) -> Self {
        Self { addresses: seen.replicas.iter().map(|replica| replica.spec.address).collect(), ..Self::default() }
    }

    /// A loopback address of 127.64.0.0/10 that no replica has.
    fn take_address(&mut self) -> Result<Ipv4Addr, Vec<Missing>> {
        let first = u32::from(Ipv4Addr::new(127, 64, 0, 0));
        let all = (1..(1_u32 << 22)).map(|number| Ipv4Addr::from(first + number));
        let mut usable = all.filter(|address| !matches!(address.octets()[3], 0 | 255));
        let free = usable.find(|address| !self.addresses.contains(address));
        let free = free.ok_or_else(|| vec![Missing::new("every loopback address of 127.64.0.0/10 is taken")])?;
        self.addresses.insert(free);
        Ok(free)
    }

    fn wake_at(&mut self, at: TimeMs) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

impl Controller {
    /// A controller over what is stored and what runs.
    pub fn new(storage: Arc<Storage>, runtime: Arc<dyn Runtime>, events: Arc<Events>) -> Self {
        storage.set_reachable(0);
        Self { storage, runtime, events, proxies: Proxies::default() }
    }

    /// Passes until `stop`.
    pub async fn run(self: Arc<Self>, stop: tokio_util::sync::CancellationToken) {
        let (mut objects, mut replicas) = (self.storage.watch(), self.runtime.changes());
        loop {
            objects.borrow_and_update();
            replicas.borrow_and_update();
            let rest = match self.pass(now()).await {
                Ok(wake) => wake.map_or(AT_LEAST_EVERY, |at| {
                    Duration::from_millis(u64::try_from(at.since_ms(now())).unwrap_or_default())
                }),
                Err(error) => {
                    tracing::warn!(%error, "a pass over the fleet failed; the next one tries again");
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = objects.changed() => {}
                _ = replicas.changed() => {}
                () = tokio::time::sleep(rest.clamp(BETWEEN_PASSES, AT_LEAST_EVERY)) => {}
            }
            tokio::time::sleep(BETWEEN_PASSES).await;
        }
    }

    /// Looks once and does what is missing. Returns when something follows from time alone.
    async fn pass(&self, now: TimeMs) -> Result<Option<TimeMs>> {
        let sequence = *self.storage.watch().borrow();
        let seen = self.look(now);
        let mut plan = Plan::new(&seen);
        garbage::plan(&seen, &mut plan);
        for object in &seen.objects {
            match object.kind.as_str() {
                "Deployment" | "StatefulSet" => self.plan_workload(&seen, object, &mut plan),
                "Job" => self.plan_job(&seen, object, &mut plan),
                "PodDisruptionBudget" => status::budget(&seen, object, &mut plan),
                _ => {}
            }
        }
        self.events.trim(now, &mut plan.writes);
        let failed = self.proxies.set(&services::wanted(&seen)).await;
        self.storage.set_reachable(sequence);
        services::statuses(&seen, &failed, &mut plan);
        // What must not happen twice is in the replicas' own records, so the order of these is free; statuses come last, to be true.
        for replica in plan.start {
            self.runtime.start(replica).await?;
        }
        for (uid, grace) in plan.stop {
            self.runtime.stop(&uid, grace).await?;
        }
        for uid in plan.remove {
            self.runtime.remove(&uid).await?;
        }
        self.write(plan.writes).await?;
        Ok(plan.wake)
    }

    /// Writes all together; where somebody changed one of them in between, the others by themselves. The next pass sees that one.
    async fn write(&self, writes: Vec<Write>) -> Result<()> {
        if writes.is_empty() {
            return Ok(());
        }
        let is_other = |error: &crate::Error| matches!(error, crate::Error::Conflict(_) | crate::Error::NotFound(_));
        match self.commit(writes.clone()).await {
            Err(error) if is_other(&error) => {}
            other => return other,
        }
        for write in writes {
            match self.commit(vec![write]).await {
                Err(error) if is_other(&error) => {}
                other => other?,
            }
        }
        Ok(())
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<()> {
        let storage = self.storage.clone();
        let committed = tokio::task::spawn_blocking(move || storage.commit(writes)).await;
        committed.map_err(|error| crate::Error::Internal(error.to_string()))?.map(|_| ())
    }

    fn look(&self, now: TimeMs) -> Seen {
        // Replicas first: one that is started in between is then missing from no list of owners.
        let replicas = self.runtime.replicas();
        let objects = self.storage.all();
        let (images, mapped_hosts) = mapping(&self.storage);
        Seen { now, objects, replicas, images, mapped_hosts }
    }

    /// Tells that replicas cannot be made, once for each reason.
    fn tell_missing(&self, owner: &Object, missing: &[Missing]) {
        let all: Vec<&str> = missing.iter().map(|missing| missing.what.as_str()).collect();
        self.events.tell(owner, EventKind::Warning, "FailedCreate", &all.join("\n"));
    }
}

/// Images and hosts that are mapped.
pub fn mapping(storage: &Storage) -> (BTreeMap<String, String>, BTreeMap<String, MappedHost>) {
    let (mut images, mut hosts) = (BTreeMap::new(), BTreeMap::new());
    for object in storage.list("Mapping", None).objects {
        images.extend(crate::objects::texts(object.at("/spec/images")));
        let named = crate::objects::texts(object.at("/spec/hosts"));
        hosts.extend(named.into_iter().map(|(name, target)| (name.clone(), MappedHost::new(&name, &target))));
    }
    (images, hosts)
}

/// The names of a namespace: mapped hosts, and its services before them.
pub fn hosts_of(storage: &Storage, namespace: &str) -> Hosts {
    let (_, mapped) = mapping(storage);
    let services = storage.list("Service", Some(namespace)).objects;
    let is_service = |name: &String| services.iter().any(|service| service.metadata.name == *name);
    let ports: Vec<(String, u16)> = mapped
        .iter()
        .filter(|(name, _)| !is_service(name))
        .filter_map(|(name, host)| Some((name.clone(), host.port()?)))
        .collect();
    let names = mapped.into_iter().map(|(name, host)| (name, host.alias));
    let services = services
        .iter()
        .map(|service| (service.metadata.name.clone(), service_address(namespace, &service.metadata.name)));
    Hosts::new(names.chain(services)).with_ports(ports)
}

/// Images, secrets and hosts that the replicas of an object would miss, each with the line to add.
pub(crate) fn missing_of(storage: &Storage, object: &Object) -> Vec<Missing> {
    let path = if object.kind == "ScaledJob" { "/spec/jobTargetRef/template" } else { "/spec/template" };
    let Some(template) = object.at(path) else { return Vec::new() };
    let (images, _) = mapping(storage);
    let hosts = hosts_of(storage, &object.metadata.namespace);
    let services = BTreeMap::new();
    let around =
        Surroundings { storage, hosts: &hosts, images: &images, services: &services, requests: BTreeMap::new() };
    let identity = template::Identity {
        uid: String::new(),
        name: object.metadata.name.clone(),
        template: String::new(),
        attempt: 1,
        address: Ipv4Addr::LOCALHOST,
        env: BTreeMap::new(),
    };
    template::replica(object, template, identity, &around).err().unwrap_or_default()
}

impl Seen {
    fn owned_by<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a ReplicaStatus> {
        self.replicas.iter().filter(move |replica| replica.spec.owner_uid == uid)
    }

    /// `<NAME>_SERVICE_HOST` and `_PORT`, as Kubernetes gives them.
    fn service_variables(&self, namespace: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for service in
            self.objects.iter().filter(|object| object.kind == "Service" && object.metadata.namespace == namespace)
        {
            let name = service.metadata.name.to_uppercase().replace(['-', '.'], "_");
            found
                .insert(format!("{name}_SERVICE_HOST"), service_address(namespace, &service.metadata.name).to_string());
            if let Some(port) = service.at("/spec/ports/0/port").and_then(Value::as_u64) {
                found.insert(format!("{name}_SERVICE_PORT"), port.to_string());
            }
        }
        found
    }

    /// What vertical autoscalers that may act want for a workload's containers.
    fn recommended(&self, owner: &Object) -> BTreeMap<String, Resources> {
        let acts = |vpa: &&Arc<Object>| {
            vpa.kind == "VerticalPodAutoscaler"
                && vpa.metadata.namespace == owner.metadata.namespace
                && vpa.text("/spec/targetRef/kind") == Some(&owner.kind)
                && vpa.text("/spec/targetRef/name") == Some(&owner.metadata.name)
                && vpa.text("/spec/updatePolicy/updateMode") != Some("Off")
        };
        let Some(vpa) = self.objects.iter().find(acts) else { return BTreeMap::new() };
        let list = vpa.at("/status/recommendation/containerRecommendations").and_then(Value::as_array);
        let one = |item: &Value| {
            Some((item.get("containerName")?.as_str()?.to_owned(), template::resources(item.get("target"))))
        };
        list.into_iter().flatten().filter_map(one).collect()
    }
}

/// A template as replicas carry it: what changes it makes them old.
fn template_hash(template: &Value) -> String {
    blake3::hash(template.to_string().as_bytes()).to_hex()[..10].to_owned()
}

/// The end of a job's name.
pub(crate) fn job_suffix() -> String {
    random_suffix()
}

/// Five letters that no other replica has by chance.
fn random_suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut number = uuid::Uuid::new_v4().as_u128();
    let mut letter = || {
        let index = (number % LETTERS.len() as u128) as usize;
        number /= LETTERS.len() as u128;
        char::from(LETTERS[index])
    };
    (0..5).map(|_| letter()).collect()
}

/// The clock of this host.
pub(crate) fn now() -> TimeMs {
    TimeMs(jiff::Timestamp::now().as_millisecond())
}

/// A time in milliseconds as objects write it.
pub(crate) fn text_of(at: TimeMs) -> Value {
    jiff::Timestamp::from_millisecond(at.0).map_or(Value::Null, |at| json!(crate::objects::time_text(at)))
}

fn surroundings<'a>(
    storage: &'a Storage,
    seen: &'a Seen,
    hosts: &'a Hosts,
    services: &'a BTreeMap<String, String>,
    owner: &Object,
) -> Surroundings<'a> {
    Surroundings { storage, hosts, images: &seen.images, services, requests: seen.recommended(owner) }
}
