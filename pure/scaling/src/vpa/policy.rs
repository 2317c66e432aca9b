//! What a vertical autoscaler is told, and what it recommends.

use serde::{Deserialize, Serialize};

/// A resource that is sized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// In millicores.
    Cpu,
    /// In bytes.
    Memory,
}

impl Resource {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Memory];

    /// Its name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }
}

/// Amounts of both resources; what is missing is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Millicores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_milli: Option<i64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<i64>,
}

impl Resources {
    /// The amount of one resource.
    pub fn get(&self, resource: Resource) -> Option<i64> {
        match resource {
            Resource::Cpu => self.cpu_milli,
            Resource::Memory => self.memory_bytes,
        }
    }

    /// Sets the amount of one resource.
    pub fn set(&mut self, resource: Resource, amount: Option<i64>) {
        match resource {
            Resource::Cpu => self.cpu_milli = amount,
            Resource::Memory => self.memory_bytes = amount,
        }
    }

    /// The same with each amount that is set changed.
    pub fn map(mut self, change: impl Fn(Resource, i64) -> Option<i64>) -> Self {
        for resource in Resource::ALL {
            let changed = self.get(resource).and_then(|amount| change(resource, amount));
            self.set(resource, changed);
        }
        self
    }
}

/// A vertical autoscaler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// What is done with a recommendation.
    #[serde(default)]
    pub update_mode: UpdateMode,
    /// Workloads with fewer live replicas are left alone.
    #[serde(default = "two")]
    pub min_replicas: i32,
    /// By container; `*` for all that have none of their own.
    #[serde(default)]
    pub containers: Vec<ContainerPolicy>,
    /// The largest recommendation where a container has none of its own.
    #[serde(default)]
    pub global_max: Resources,
    /// Round CPU up to multiples of this many millicores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_cpu_milli: Option<i64>,
    /// Round memory up to multiples of this many bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_memory_bytes: Option<i64>,
    /// The change of requests that an eviction must bring; without any, every change may evict.
    #[serde(default)]
    pub eviction_requirements: Vec<EvictionRequirement>,
    /// Resources whose utilization a horizontal autoscaler of the same target follows. They are recommended and never changed: each change
    /// would move the other's target.
    #[serde(default)]
    pub followed_by_horizontal: Vec<Resource>,
}

fn two() -> i32 {
    2
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            update_mode: UpdateMode::default(),
            min_replicas: two(),
            containers: Vec::new(),
            global_max: Resources::default(),
            round_cpu_milli: None,
            round_memory_bytes: None,
            eviction_requirements: Vec::new(),
            followed_by_horizontal: Vec::new(),
        }
    }
}

impl Policy {
    /// The policy of one container: its own, that of `*`, or the defaults.
    pub fn container(&self, name: &str) -> ContainerPolicy {
        let of = |wanted: &str| self.containers.iter().find(|policy| policy.name == wanted).cloned();
        of(name).or_else(|| of("*")).unwrap_or_else(|| ContainerPolicy::with_defaults(name))
    }
}

/// What is done with a recommendation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum UpdateMode {
    /// Nothing.
    Off,
    /// New replicas get it.
    Initial,
    /// Replicas are replaced.
    #[default]
    Recreate,
    /// The same, an old word.
    Auto,
    /// Replicas are resized, and replaced where that does not work.
    InPlaceOrRecreate,
    /// Replicas are resized, never replaced.
    InPlace,
}

/// The policy of one container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerPolicy {
    /// Its name, or `*`.
    pub name: String,
    /// Whether it is recommended for at all.
    #[serde(default = "yes")]
    pub is_scaled: bool,
    /// The least recommendation.
    #[serde(default)]
    pub min_allowed: Resources,
    /// The largest one; it wins over the least.
    #[serde(default)]
    pub max_allowed: Resources,
    /// Which resources are recommended.
    #[serde(default = "both")]
    pub controlled: Vec<Resource>,
    /// Whether limits follow.
    #[serde(default)]
    pub controlled_values: ControlledValues,
}

fn yes() -> bool {
    true
}

fn both() -> Vec<Resource> {
    Resource::ALL.to_vec()
}

impl ContainerPolicy {
    /// A policy without bounds.
    pub fn with_defaults(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            is_scaled: true,
            min_allowed: Resources::default(),
            max_allowed: Resources::default(),
            controlled: both(),
            controlled_values: ControlledValues::default(),
        }
    }
}

/// Whether limits follow requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ControlledValues {
    /// Limits keep their proportion.
    #[default]
    RequestsAndLimits,
    /// Limits stay, and requests stay below them.
    RequestsOnly,
}

/// A change that an eviction must bring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvictionRequirement {
    /// Of any of these resources.
    pub resources: Vec<Resource>,
    /// In this direction.
    pub change: EvictionChange,
}

/// The direction of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EvictionChange {
    /// The target is above the request.
    TargetHigherThanRequests,
    /// The target is below the request.
    TargetLowerThanRequests,
}

/// What one container should request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerRecommendation {
    /// The container.
    pub container: String,
    /// What to request.
    pub target: Resources,
    /// Below this an update is due.
    pub lower: Resources,
    /// Above this an update is due.
    pub upper: Resources,
    /// The target before the policy's bounds.
    pub uncapped: Resources,
    /// How far the history reaches, in days.
    pub confidence: f64,
}

/// How a replica gets its resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateMethod {
    /// It is resized while it runs.
    Resize,
    /// It is evicted and made anew.
    Evict,
}
