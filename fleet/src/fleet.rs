//! The handle by which surfaces ask for objects and change them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidemill_scaling::TimeMs;
use tidemill_source::{Sources, SourcesOptions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::control::{Controller, Missing, now, text_of};
use crate::error::{Error, Result};
use crate::events::Events;
use crate::export::Exporter;
use crate::local::{LocalOptions, LocalRuntime};
use crate::objects::{FieldProblem, Kind, LabelSelector, Object, ObjectKey, find_kind, kind_of, validate};
use crate::runtime::{LogOptions, LogStream, Runtime};
use crate::scale::{Counters, ScaleOptions, Scaler};
use crate::storage::{Storage, Write};
use crate::told::ToldUsage;
use crate::{merge, pods};

/// The annotation that keeps what was applied last.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// How often a change is tried again that others got in the way of.
const TRIES: usize = 5;

/// How a fleet runs on this host.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Where it keeps its database and the replicas' folders.
    pub folder: PathBuf,
    /// The program that becomes a shim when its first argument is `fleet-shim`.
    pub shim: PathBuf,
    /// How often policies look.
    pub scale: ScaleOptions,
    /// How sources are looked at.
    pub sources: SourcesOptions,
    /// A file that tells what replicas use, in place of what is measured; see [`ToldUsage`].
    pub told_usage: Option<PathBuf>,
}

/// What an application did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// There was none.
    Created,
    /// It is another now.
    Configured,
    /// It was so already.
    Unchanged,
}

/// How an object is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 7396.
    Merge,
    /// RFC 6902.
    Json,
    /// Kubernetes's own.
    Strategic,
}

/// What becomes of what an object owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    /// It goes with it.
    #[default]
    Cascade,
    /// It stays, owned by nobody.
    Orphan,
}

/// Objects of one kind, and a version that is another whenever they may be others.
#[derive(Debug, Clone)]
pub struct ObjectList {
    /// By namespace and name.
    pub objects: Vec<Arc<Object>>,
    /// Rises with every change that is stored.
    pub version: u64,
}

/// A fleet of this host.
#[derive(Debug, Clone)]
pub struct Fleet {
    storage: Arc<Storage>,
    runtime: Arc<dyn Runtime>,
    sources: Arc<Sources>,
    events: Arc<Events>,
    counters: Arc<Counters>,
    scaler: Arc<Scaler>,
    /// Where replicas are processes of this host: their runtime, and the fleet's folder.
    local: Option<(LocalRuntime, PathBuf)>,
}

/// What runs a fleet until it is told to stop.
#[derive(Debug)]
pub struct FleetTask {
    fleet: Fleet,
    scaler: Arc<Scaler>,
}

impl FleetTask {
    /// Controls and decides until `stop`. Replicas go on.
    pub async fn run(self, stop: CancellationToken) {
        let Fleet { storage, runtime, events, .. } = self.fleet;
        let controller = Arc::new(Controller::new(storage, runtime, events));
        tokio::join!(controller.run(stop.clone()), self.scaler.run(stop));
    }
}

impl Fleet {
    /// Opens the fleet of a folder; replicas that run are adopted.
    ///
    /// # Errors
    /// A folder or database that cannot be opened.
    pub fn open(options: FleetOptions) -> Result<(Self, FleetTask)> {
        let io = |source| {
            Error::Runtime(crate::runtime::RuntimeError::Io {
                what: format!("creating {}", options.folder.display()),
                source,
            })
        };
        std::fs::create_dir_all(&options.folder).map_err(io)?;
        let storage = Arc::new(Storage::open(&options.folder)?);
        let local = LocalOptions {
            shim: options.shim.clone(),
            ..LocalOptions::new(options.folder.join("replicas")).map_err(io)?
        };
        let local = LocalRuntime::open(local)?;
        let sources = Arc::new(Sources::new(options.sources));
        let runtime: Arc<dyn Runtime> = Arc::new(local.clone());
        let runtime = match options.told_usage {
            Some(file) => Arc::new(ToldUsage::new(runtime, file)),
            None => runtime,
        };
        let (mut fleet, mut task) = Self::over(storage, runtime, sources, options.scale);
        fleet.local = Some((local, options.folder));
        task.fleet = fleet.clone();
        Ok((fleet, task))
    }

    /// A fleet over what is given.
    pub fn over(
        storage: Arc<Storage>,
        runtime: Arc<dyn Runtime>,
        sources: Arc<Sources>,
        scale: ScaleOptions,
    ) -> (Self, FleetTask) {
        let events = Arc::new(Events::new(storage.clone()));
        let scaler = Scaler::new(storage.clone(), runtime.clone(), sources.clone(), events.clone(), scale);
        let counters = scaler.counters.clone();
        let scaler = Arc::new(scaler);
        let fleet = Self { storage, runtime, sources, events, counters, scaler: scaler.clone(), local: None };
        (fleet.clone(), FleetTask { fleet, scaler })
    }

    /// What tells of the replicas, where they are processes of this host. What they print is kept for it from now on.
    pub fn exporter(&self) -> Option<Exporter> {
        let (local, folder) = self.local.clone()?;
        Some(Exporter::new(local, self.storage.clone(), self.counters.clone(), folder.join("export.json")))
    }

    /// In one sentence, who keeps replicas within their limits, where they are processes of this host.
    pub fn limits(&self) -> Option<String> {
        self.local.as_ref().map(|(local, _)| local.limits())
    }

    /// The sources, into which values are pushed.
    pub fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    /// Values of the metrics that a namespace publishes under a name, and when their sources had them.
    ///
    /// # Errors
    /// None is published so; a source that fails, and since when.
    pub async fn published(
        &self,
        namespace: &str,
        name: &str,
        selector: &LabelSelector,
    ) -> std::result::Result<Vec<(f64, TimeMs)>, String> {
        let objects = self.scaler.published(namespace, name, selector);
        if objects.is_empty() {
            return Err(format!("namespace {namespace} has no ExternalMetric of {name} with these labels"));
        }
        futures::future::try_join_all(objects.iter().map(|object| self.scaler.read_published(object))).await
    }

    /// What runs the replicas.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }

    /// Objects of a kind.
    pub fn list(&self, kind: &Kind, namespace: Option<&str>, selector: &LabelSelector) -> ObjectList {
        if kind.kind == "Pod" {
            let mut pods: Vec<Arc<Object>> =
                self.runtime.replicas().iter().map(|replica| Arc::new(pods::pod(replica))).collect();
            pods.retain(|pod| {
                namespace.is_none_or(|namespace| pod.metadata.namespace == namespace)
                    && selector.matches(&pod.metadata.labels)
            });
            pods.sort_by_key(|pod| pod.key());
            return ObjectList { objects: pods, version: *self.storage.watch().borrow() };
        }
        let listed = self.storage.list(kind.kind, namespace);
        let mut objects = listed.objects;
        objects.retain(|object| selector.matches(&object.metadata.labels));
        if kind.kind == "Namespace" {
            objects = self.namespaces(objects);
        }
        ObjectList { objects, version: listed.sequence }
    }

    /// Namespaces are there once something is in them; those that were applied have labels of their own.
    fn namespaces(&self, stored: Vec<Arc<Object>>) -> Vec<Arc<Object>> {
        let mut found: std::collections::BTreeMap<String, Arc<Object>> =
            stored.into_iter().map(|object| (object.metadata.name.clone(), object)).collect();
        let mut names: std::collections::BTreeSet<String> =
            self.storage.all().iter().map(|object| object.metadata.namespace.clone()).collect();
        names.insert("default".to_owned());
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            let made = || find_kind("Namespace").map(|kind| Arc::new(Object::new(kind, "", &name))).unwrap_or_default();
            found.entry(name.clone()).or_insert_with(made);
        }
        found.into_values().collect()
    }

    /// One object.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, key: &ObjectKey) -> Result<Arc<Object>> {
        let found = match key.kind.as_str() {
            "Pod" | "Namespace" => {
                let kind = find_kind(&key.kind).ok_or_else(|| Error::NotFound(key.clone()))?;
                let namespace = kind.is_namespaced.then_some(key.namespace.as_str());
                self.list(kind, namespace, &LabelSelector::default())
                    .objects
                    .into_iter()
                    .find(|object| object.metadata.name == key.name)
            }
            _ => self.storage.get(key),
        };
        found.ok_or_else(|| Error::NotFound(key.clone()))
    }

    /// Stores a new object.
    ///
    /// # Errors
    /// `AlreadyExists`, `Invalid`.
    pub async fn create(&self, object: Object, is_dry: bool) -> Result<Arc<Object>> {
        let mut object = writable(object)?;
        if object.metadata.name.is_empty()
            && let Some(start) = object.metadata.generate_name.clone()
        {
            object.metadata.name = format!("{start}{}", crate::control::job_suffix());
        }
        object.metadata.uid = uuid::Uuid::new_v4().to_string();
        object.metadata.generation = 1;
        object.metadata.creation_timestamp = text_of(now()).as_str().map(ToOwned::to_owned);
        object.metadata.deletion_timestamp = None;
        object.body.remove("status");
        check(&object)?;
        if is_dry {
            return match self.storage.get(&object.key()) {
                Some(_) => Err(Error::AlreadyExists(object.key())),
                None => Ok(Arc::new(object)),
            };
        }
        self.put(object, Some(String::new())).await
    }

    /// Stores another version of an object.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` where it has another resource version than the one given, `Invalid`.
    pub async fn replace(&self, object: Object, is_dry: bool) -> Result<Arc<Object>> {
        let next = writable(object)?;
        let live = self.storage.get(&next.key()).ok_or_else(|| Error::NotFound(next.key()))?;
        if !next.metadata.resource_version.is_empty()
            && next.metadata.resource_version != live.metadata.resource_version
        {
            return Err(Error::Conflict(next.key()));
        }
        self.put_next(&live, next, is_dry).await
    }

    /// Applies a manifest beside what others set.
    ///
    /// # Errors
    /// `Invalid`.
    pub async fn apply(&self, object: Object, is_dry: bool) -> Result<(Arc<Object>, Applied)> {
        let wanted = writable(object)?;
        let text = serde_json::to_string(&wanted).map_err(|error| Error::Internal(error.to_string()))?;
        let mut tries = 1..;
        loop {
            let done = self.apply_once(&wanted, &text, is_dry).await;
            match done {
                Err(Error::Conflict(_) | Error::AlreadyExists(_))
                    if tries.next().is_some_and(|attempt| attempt < TRIES) => {}
                other => return other,
            }
        }
    }

    async fn apply_once(&self, wanted: &Object, text: &str, is_dry: bool) -> Result<(Arc<Object>, Applied)> {
        let annotate = |object: &mut Object| {
            object.metadata.annotations.insert(LAST_APPLIED.to_owned(), text.to_owned());
        };
        let Some(live) = self.storage.get(&wanted.key()) else {
            let mut object = wanted.clone();
            annotate(&mut object);
            return Ok((self.create(object, is_dry).await?, Applied::Created));
        };
        let last: Option<Value> =
            live.metadata.annotations.get(LAST_APPLIED).and_then(|text| serde_json::from_str(text).ok());
        let mut next = to_value(&live)?;
        let mut wanted_value = to_value(wanted)?;
        if let Some(members) = wanted_value.as_object_mut() {
            members.remove("status");
        }
        merge::apply(&mut next, last.as_ref(), &wanted_value);
        let mut next = from_value(next)?;
        annotate(&mut next);
        let is_same = |mut one: Object| {
            one.metadata.annotations.remove(LAST_APPLIED);
            one
        };
        if is_same(next.clone()) == is_same((*live).clone()) && live.metadata.annotations.contains_key(LAST_APPLIED) {
            return Ok((live, Applied::Unchanged));
        }
        Ok((self.put_next(&live, next, is_dry).await?, Applied::Configured))
    }

    /// Changes an object.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `BadRequest` for a patch that cannot be done.
    pub async fn patch(&self, key: &ObjectKey, kind: PatchKind, patch: &Value, is_dry: bool) -> Result<Arc<Object>> {
        let mut tries = 1..;
        loop {
            let live = self.storage.get(key).ok_or_else(|| Error::NotFound(key.clone()))?;
            let mut value = to_value(&live)?;
            match kind {
                PatchKind::Merge => merge::merge(&mut value, patch),
                PatchKind::Strategic => merge::strategic_merge(&mut value, patch),
                PatchKind::Json => merge::json_patch(&mut value, patch).map_err(Error::BadRequest)?,
            }
            let next = writable(from_value(value)?)?;
            if next.key() != *key {
                return Err(Error::BadRequest("a patch may change neither kind, namespace nor name".to_owned()));
            }
            match self.put_next(&live, next, is_dry).await {
                Err(Error::Conflict(_)) if tries.next().is_some_and(|attempt| attempt < TRIES) => {}
                other => return other,
            }
        }
    }

    /// Deletes an object, and a namespace with all that is in it. A pod is stopped, and its owner starts another.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete(&self, key: &ObjectKey, propagation: Propagation, grace: Option<Duration>) -> Result<()> {
        let live = self.get(key)?;
        if key.kind == "Pod" {
            self.runtime.stop(&live.metadata.uid, grace).await?;
            return Ok(());
        }
        let mut writes = vec![Write::Delete(key.clone())];
        if matches!(
            key.kind.as_str(),
            "ScaledObject" | "ScaledJob" | "HorizontalPodAutoscaler" | "VerticalPodAutoscaler"
        ) {
            writes.push(Write::Forget { uid: live.metadata.uid.clone() });
        }
        let all = self.storage.all();
        if key.kind == "Namespace" {
            writes.extend(
                all.iter()
                    .filter(|object| object.metadata.namespace == key.name)
                    .map(|object| Write::Delete(object.key())),
            );
        }
        if propagation == Propagation::Orphan {
            for object in all.iter().filter(|object| object.is_owned_by(&live.metadata.uid)) {
                let mut next = (**object).clone();
                next.metadata.owner_references.retain(|owner| owner.uid != live.metadata.uid);
                writes.push(Write::Put { object: Box::new(next), expected: None });
            }
        }
        self.commit(writes).await.map(|_| ())
    }

    /// Replaces an object's size.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `BadRequest` for a kind without one.
    pub async fn scale(&self, key: &ObjectKey, replicas: i32) -> Result<Arc<Object>> {
        if !matches!(key.kind.as_str(), "Deployment" | "StatefulSet") {
            return Err(Error::BadRequest(format!("a {} has no size", key.kind)));
        }
        self.patch(key, PatchKind::Merge, &serde_json::json!({"spec": {"replicas": replicas}}), false).await
    }

    /// The last decisions about an object, oldest first, as records that can be decided again.
    ///
    /// # Errors
    /// `NotFound`; what the database said.
    pub fn decisions(&self, key: &ObjectKey, limit: usize) -> Result<Vec<Value>> {
        let object = self.get(key)?;
        self.storage.records(&object.metadata.uid, limit)
    }

    /// What pods use, by namespace and name.
    pub fn usage(&self, namespace: Option<&str>) -> Vec<Value> {
        let replicas = self.runtime.replicas();
        let named =
            replicas.iter().filter(|replica| namespace.is_none_or(|namespace| replica.spec.namespace == namespace));
        named.filter_map(|replica| Some(pods::metrics(replica, &self.runtime.usage(&replica.spec.uid)?))).collect()
    }

    /// What a pod printed.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` where a container must be named.
    pub async fn logs(&self, namespace: &str, pod: &str, options: LogOptions) -> Result<LogStream> {
        let found = self.get(&ObjectKey::new("Pod", namespace, pod))?;
        Ok(self.runtime.logs(&found.metadata.uid, options).await?)
    }

    /// Images, secrets and hosts that a manifest's replicas would miss, each with the line to add.
    pub fn missing(&self, object: &Object) -> Vec<Missing> {
        crate::control::missing_of(&self.storage, object)
    }

    /// Both count up when something that [`Fleet::list`] shows may have changed.
    pub fn changes(&self) -> (watch::Receiver<u64>, watch::Receiver<u64>) {
        (self.storage.watch(), self.runtime.changes())
    }

    /// Stops every replica, each within its own grace, and waits until all have ended or `limit` is over.
    pub async fn stop_replicas(&self, limit: Duration) {
        let is_alive = |replica: &crate::runtime::ReplicaStatus| replica.finished_at.is_none();
        for replica in self.runtime.replicas().iter().filter(|replica| is_alive(replica)) {
            if let Err(error) = self.runtime.stop(&replica.spec.uid, Some(replica.spec.grace_period.min(limit))).await {
                tracing::warn!(%error, "a replica cannot be stopped");
            }
        }
        let mut changes = self.runtime.changes();
        let ended = async {
            while self.runtime.replicas().iter().any(is_alive) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(limit, ended).await.is_err() {
            tracing::warn!("replicas did not end in time; they are adopted by the next start");
        }
    }

    async fn put_next(&self, live: &Arc<Object>, mut next: Object, is_dry: bool) -> Result<Arc<Object>> {
        next.metadata.uid = live.metadata.uid.clone();
        next.metadata.creation_timestamp = live.metadata.creation_timestamp.clone();
        // A status is what is observed; nobody writes it from outside.
        match live.body.get("status") {
            Some(status) => next.body.insert("status".to_owned(), status.clone()),
            None => next.body.remove("status"),
        };
        let is_other = next.body.get("spec") != live.body.get("spec");
        next.metadata.generation = live.metadata.generation + i64::from(is_other);
        check(&next)?;
        if is_dry {
            return Ok(Arc::new(next));
        }
        self.put(next, Some(live.metadata.resource_version.clone())).await
    }

    async fn put(&self, object: Object, expected: Option<String>) -> Result<Arc<Object>> {
        let stored = self.commit(vec![Write::Put { object: Box::new(object), expected }]).await?;
        stored.into_iter().next().ok_or_else(|| Error::Internal("nothing was stored".to_owned()))
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Vec<Arc<Object>>> {
        let storage = self.storage.clone();
        let committed = tokio::task::spawn_blocking(move || storage.commit(writes)).await;
        committed.map_err(|error| Error::Internal(error.to_string()))?
    }
}

/// An object of a kind that clients may write, its version the one that is stored.
fn writable(mut object: Object) -> Result<Object> {
    let kind = kind_of(&object.api_version, &object.kind).ok_or_else(|| {
        Error::BadRequest(format!("no matches for kind {:?} in version {:?}", object.kind, object.api_version))
    })?;
    if !kind.is_writable {
        return Err(Error::BadRequest(format!("objects of kind {} are shown and not written", kind.kind)));
    }
    object.api_version = kind.api_version();
    if !kind.is_namespaced {
        object.metadata.namespace.clear();
    } else if object.metadata.namespace.is_empty() {
        object.metadata.namespace = "default".to_owned();
    }
    Ok(object)
}

fn check(object: &Object) -> Result<()> {
    let problems: Vec<FieldProblem> = validate(object);
    if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(object.key(), problems)) }
}

fn to_value(object: &Object) -> Result<Value> {
    serde_json::to_value(object).map_err(|error| Error::Internal(error.to_string()))
}

fn from_value(value: Value) -> Result<Object> {
    serde_json::from_value(value).map_err(|error| Error::BadRequest(format!("that makes no object: {error}")))
}
