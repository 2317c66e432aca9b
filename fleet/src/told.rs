//! Usage that a file tells in place of what is measured: for rehearsals and tests of policies on real processes.
//!
//! Owns: [`ToldUsage`], which stands before another [`Runtime`]. Never: anything else that a runtime does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::watch;

use crate::control::now;
use crate::runtime::{LogOptions, LogStream, ReplicaSpec, ReplicaStatus, Resources, Runtime, RuntimeError, Usage};

/// The largest file that is read.
const MAX_BYTES: u64 = 1 << 20;
/// What a told value says about its window.
const WINDOW: Duration = Duration::from_secs(1);

/// What a workload uses, by the file.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    /// Thousandths of a core that its ready replicas use together: more replicas use less each, as with a load that is spread.
    cpu_milli: i64,
    /// Bytes that each of them uses.
    memory_bytes: i64,
}

/// A runtime whose replicas use what a file says: JSON, `{"NAMESPACE/WORKLOAD": {"cpu_milli": 900, "memory_bytes": 104857600}}`. It is read at
/// every look. Workloads that it does not name are measured; so are all while it cannot be read, with a warning.
#[derive(Debug)]
pub struct ToldUsage {
    inner: Arc<dyn Runtime>,
    path: PathBuf,
}

impl ToldUsage {
    /// Stands before `inner`.
    pub fn new(inner: Arc<dyn Runtime>, path: PathBuf) -> Self {
        Self { inner, path }
    }

    fn read(&self) -> Result<BTreeMap<String, Told>, String> {
        let bytes = std::fs::metadata(&self.path).map_err(|error| error.to_string())?.len();
        if bytes > MAX_BYTES {
            return Err(format!("has {bytes} bytes; at most {MAX_BYTES} are read"));
        }
        let text = std::fs::read_to_string(&self.path).map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    fn told(&self, uid: &str) -> Option<Usage> {
        let all = match self.read() {
            Ok(all) => all,
            Err(problem) => {
                tracing::warn!(file = %self.path.display(), problem, "what replicas use is measured, because the file that tells it cannot be read");
                return None;
            }
        };
        let replicas = self.inner.replicas();
        let own = &replicas.iter().find(|replica| replica.spec.uid == uid)?.spec;
        let told = *all.get(&format!("{}/{}", own.namespace, own.workload))?;
        Some(usage_of(uid, told, &replicas))
    }
}

/// The share of one replica.
fn usage_of(uid: &str, told: Told, replicas: &[ReplicaStatus]) -> Usage {
    let own = replicas.iter().find(|replica| replica.spec.uid == uid);
    let is_ready = |replica: &&ReplicaStatus| replica.is_ready && !replica.is_stopping;
    let is_fellow = |replica: &&ReplicaStatus| own.is_some_and(|own| own.spec.owner_uid == replica.spec.owner_uid);
    let ready = replicas.iter().filter(is_fellow).filter(is_ready).count();
    let share = own.filter(is_ready).map_or(0, |_| told.cpu_milli / i64::try_from(ready.max(1)).unwrap_or(i64::MAX));
    let amounts = Resources { cpu_milli: Some(share), memory_bytes: Some(told.memory_bytes) };
    let none = Resources { cpu_milli: Some(0), memory_bytes: Some(0) };
    let names = own.into_iter().flat_map(|own| own.spec.containers.iter().map(|container| container.name.clone()));
    // All of it is the first container's.
    let containers = names.enumerate().map(|(index, name)| (name, if index == 0 { amounts } else { none })).collect();
    Usage { at: now(), window: WINDOW, containers, cpu_seconds: BTreeMap::new() }
}

#[async_trait]
impl Runtime for ToldUsage {
    async fn start(&self, replica: ReplicaSpec) -> Result<(), RuntimeError> {
        self.inner.start(replica).await
    }

    async fn stop(&self, uid: &str, grace: Option<Duration>) -> Result<(), RuntimeError> {
        self.inner.stop(uid, grace).await
    }

    async fn remove(&self, uid: &str) -> Result<(), RuntimeError> {
        self.inner.remove(uid).await
    }

    fn replicas(&self) -> Vec<ReplicaStatus> {
        self.inner.replicas()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes()
    }

    fn usage(&self, uid: &str) -> Option<Usage> {
        self.told(uid).or_else(|| self.inner.usage(uid))
    }

    async fn logs(&self, uid: &str, options: LogOptions) -> Result<LogStream, RuntimeError> {
        self.inner.logs(uid, options).await
    }
}
