//! The vertical autoscaler: what a container should request, and which replicas are given it when.
//!
//! Owns: decaying histograms, memory peaks, confidence, floors, caps, update plans. Never: reading metrics, resizing or evicting. Formulas
//! and constants are those of kubernetes/autoscaler's `vertical-pod-autoscaler` 1.7. CPU is whole millicores, memory whole bytes. Start with
//! [`step`]; the estimators are in [`estimate`].

pub mod estimate;

mod amount;
mod cap;
mod checkpoint;
mod container;
mod decay;
mod histogram;
mod memory;
mod policy;
mod share;
mod step;
mod update;

pub use amount::{MAX_AMOUNT, amount_from_float, round_up, scale_amount};
pub use cap::{ProportionalLimit, cap, proportional_limit};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use container::{ContainerState, Rejection};
pub use decay::DecayingHistogram;
pub use histogram::{Histogram, Layout, Options};
pub use memory::{HistogramCall, MemoryWindow, OomBump};
pub use policy::{
    ContainerPolicy, ContainerRecommendation, ControlledValues, EvictionChange, EvictionRequirement, Policy, Resource,
    Resources, UpdateMethod, UpdateMode,
};
pub use share::{SharedResource, shared_resources};
pub use step::{Observation, Oom, Replica, ReplicaContainer, ResizeState, Sample, State, applied, step};
pub use update::{
    EvictionBudget, Priority, PriorityInput, UpdateQuestion, evictable_pending, evictable_running, priority_of,
    should_update,
};
