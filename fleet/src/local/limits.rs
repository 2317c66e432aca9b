//! Who keeps containers within their limits: the kernel by control groups where this process may make them, the server elsewhere.
//!
//! Elsewhere memory is looked at with every measurement of usage, and who is above its limit is ended as `OOMKilled`. What a look a second may miss is
//! bounded by `RLIMIT_DATA`, far above the limit: it counts what a process maps and not what it uses, so that at the limit itself it would end programs
//! that only reserve. No limit of CPU is kept there.

use std::fmt;

use super::cgroup::{self, Cgroups};
use crate::runtime::{ContainerSpec, ReplicaSpec};

/// What a process may map beyond its memory limit's multiple: thread stacks and heaps that are reserved and not used.
const DATA_SLACK_BYTES: u64 = 4 << 30;
const DATA_MULTIPLE: u64 = 4;

#[derive(Debug)]
pub(super) enum Limiting {
    /// The kernel does.
    Cgroups(Cgroups),
    /// The server does, because of what is said.
    Watched { why: String },
}

impl Limiting {
    pub(super) fn find(may_use_cgroups: bool) -> Self {
        let found = if may_use_cgroups { cgroup::find() } else { Err("cgroups are switched off".to_owned()) };
        let found = found.map_or_else(|why| Self::Watched { why }, Self::Cgroups);
        tracing::info!("{found}");
        found
    }

    pub(super) fn cgroups(&self) -> Option<&Cgroups> {
        match self {
            Self::Cgroups(cgroups) => Some(cgroups),
            Self::Watched { .. } => None,
        }
    }

    /// The most data that a process of the container may map.
    pub(super) fn data_bytes(&self, spec: &ContainerSpec) -> Option<u64> {
        let limit = u64::try_from(spec.limits.memory_bytes?).ok()?;
        let is_watched = matches!(self, Self::Watched { .. });
        is_watched.then(|| limit.saturating_mul(DATA_MULTIPLE).saturating_add(DATA_SLACK_BYTES))
    }

    /// Lets go of what was made for a replica that has ended.
    pub(super) fn let_go(&self, spec: &ReplicaSpec) {
        if let Some(cgroups) = self.cgroups() {
            for container in spec.init_containers.iter().chain(&spec.containers) {
                cgroups.remove(&spec.uid, &container.name);
            }
        }
    }
}

impl fmt::Display for Limiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroups(_) => f.write_str("limits of CPU and memory are kept by cgroup v2"),
            Self::Watched { why } => {
                write!(f, "memory limits are kept by looking at usage, CPU limits are not kept: {why}")
            }
        }
    }
}
