//! Fleets: what was applied, the controllers that carry decisions out, and replicas that run as local processes.
//!
//! Owns: objects and their storage on this host, reconciliation, the observation of replicas, and the local [`Runtime`]. Never: deciding a size
//! (`tidemill-scaling`), reading a trigger (`tidemill-source`), or a command line. A replica is what Kubernetes calls a pod; a container of it is a process.

pub mod control;
pub mod error;
pub mod events;
pub mod export;
mod fleet;
pub mod local;
mod merge;
pub mod objects;
pub mod pods;
pub mod runtime;
pub mod scale;
pub mod storage;
mod told;

pub use error::{Error, Result};
pub use fleet::{Applied, Fleet, FleetOptions, FleetTask, LAST_APPLIED, ObjectList, PatchKind, Propagation};
pub use runtime::Runtime;
