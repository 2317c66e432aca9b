//! The policies of a comparison, each with the clocks that ask it.

use serde::{Deserialize, Serialize};
use tidemill_scaling::forecast;
use tidemill_scaling::hpa::{self, Behavior, Metric, ResourceTarget, Rules};
use tidemill_scaling::keda::{Profile, Strategy, StrategyKind, Target, Trigger, job, object};
use tidemill_scaling::record::Policy;
use tidemill_scaling::vpa::{self, shared_resources};

use crate::replica::Size;

/// The horizontal autoscaler's clock upstream.
pub(crate) const SYNC_MS: i64 = 15_000;
/// How often a native policy looks even when nothing happens.
const NATIVE_MS: i64 = 1_000;

/// One policy and its clocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contender {
    /// Its name in reports.
    pub name: String,
    /// The policy.
    pub policy: Policy,
    /// Its poll, or the only clock it has.
    pub poll_ms: i64,
    /// The horizontal autoscaler's sync, where it is a clock of its own.
    pub sync_ms: Option<i64>,
    /// Whether an arrival wakes it.
    pub is_woken: bool,
    /// The workload that it is for.
    #[serde(default)]
    pub workload: String,
    /// What a replica requests.
    #[serde(default)]
    pub size: Size,
    /// A vertical autoscaler of the same workload.
    #[serde(default)]
    pub vertical: Option<vpa::Policy>,
    /// What is left out, and why.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Contender {
    /// A policy as KEDA and Kubernetes would run it.
    pub fn upstream(name: &str, policy: Policy) -> Self {
        let (poll_ms, sync_ms) = match &policy {
            Policy::ScaledObject(object) => (object.polling_interval_ms, Some(SYNC_MS)),
            Policy::ScaledJob(job) => (job.polling_interval_ms, None),
            Policy::HorizontalPodAutoscaler(_) | Policy::VerticalPodAutoscaler(_) => (SYNC_MS, None),
        };
        let policy = match policy {
            Policy::ScaledObject(mut object) => {
                object.profile = Profile::Strict;
                Policy::ScaledObject(object)
            }
            Policy::ScaledJob(job) => Policy::ScaledJob(job::Policy { profile: Profile::Strict, ..job }),
            other => other,
        };
        Self { poll_ms: poll_ms.max(1000), sync_ms, is_woken: false, ..Self::native(name, policy) }
    }

    /// A policy as it is run here: one clock, and woken by what arrives.
    pub fn native(name: &str, policy: Policy) -> Self {
        Self {
            name: name.to_owned(),
            policy,
            poll_ms: NATIVE_MS,
            sync_ms: None,
            is_woken: true,
            workload: String::new(),
            size: Size::default(),
            vertical: None,
            notes: Vec::new(),
        }
    }

    /// A policy as its profile says: strict as upstream would run it, anything else as it is run here.
    pub fn by_profile(name: &str, policy: Policy) -> Self {
        let profile = match &policy {
            Policy::ScaledObject(object) => object.profile,
            Policy::ScaledJob(job) => job.profile,
            Policy::HorizontalPodAutoscaler(_) | Policy::VerticalPodAutoscaler(_) => Profile::Strict,
        };
        match profile {
            Profile::Strict => Self::upstream(name, policy),
            Profile::Native => Self::native(name, policy),
        }
    }

    /// Adds the vertical autoscaler of the same workload. A combination that would chase itself is refused: it is left out, and noted.
    pub fn join_vertical(&mut self, name: &str, vertical: &vpa::Policy) {
        let horizontal = match &self.policy {
            Policy::HorizontalPodAutoscaler(policy) => policy.clone(),
            Policy::ScaledObject(policy) => policy.horizontal(),
            Policy::ScaledJob(_) | Policy::VerticalPodAutoscaler(_) => return,
        };
        let shared: Vec<&str> =
            shared_resources(&horizontal, vertical).iter().map(|shared| shared.resource.name()).collect();
        if shared.is_empty() {
            self.name = format!("{} + {name}", self.name);
            self.vertical = Some(vertical.clone());
        } else {
            self.notes.push(format!(
                "{name} is refused beside {}: it changes the request of {}, whose utilization the other follows",
                self.name,
                shared.join(" and ")
            ));
        }
    }

    /// The vertical autoscaler that works here.
    pub(crate) fn vertical_policy(&self) -> Option<&vpa::Policy> {
        match &self.policy {
            Policy::VerticalPodAutoscaler(policy) => Some(policy),
            _ => self.vertical.as_ref(),
        }
    }

    /// The comparison of five policies on one queue of items, each replica taking one at a time.
    pub fn comparison(max_replicas: i32, startup_ms: i64) -> Vec<Self> {
        let cpu = Metric::Resource { resource: "cpu".to_owned(), target: ResourceTarget::Utilization { percent: 70 } };
        let horizontal = hpa::Policy::strict(1, max_replicas, vec![cpu]);
        let object = |polling_interval_ms, cooldown_ms| object::Policy {
            polling_interval_ms,
            cooldown_ms,
            max_replicas: Some(max_replicas),
            ..object::Policy::with_defaults(vec![queue()])
        };
        let down = |window_ms| {
            let scale_down = Rules { stabilization_ms: Some(window_ms), ..Rules::default_down() };
            Some(Behavior { scale_down, ..Behavior::default() })
        };
        let best = object::Policy { behavior: down(30_000), ..object(1_000, 30_000) };
        let exact = job::Policy {
            max_replicas: Some(max_replicas),
            strategy: Strategy { kind: StrategyKind::Exact, ..Strategy::default() },
            ..job::Policy::with_defaults(vec![queue()])
        };
        let native = object::Policy { behavior: down(15_000), ..object(1_000, 15_000) };
        let forecast = object::Policy { forecast: Some(hourly(startup_ms)), ..native.clone() };
        let boxed = |policy| Policy::ScaledObject(Box::new(policy));
        vec![
            Self::upstream("CPU HPA", Policy::HorizontalPodAutoscaler(horizontal)),
            Self::upstream("KEDA defaults", boxed(object(30_000, 300_000))),
            Self::upstream("KEDA best", boxed(best)),
            Self::native("exact jobs", Policy::ScaledJob(exact)),
            Self::native("backlog", boxed(native)),
            Self::native("backlog and forecast", boxed(forecast)),
        ]
    }
}

/// A queue with one item per replica.
fn queue() -> Trigger {
    let target = Target::AverageValue { value: 1.0, activation: 0.0, is_cached: false };
    Trigger { metric: "s0-queue".to_owned(), name: String::new(), target }
}

/// What came at the same minute an hour ago.
fn hourly(startup_ms: i64) -> forecast::Policy {
    forecast::Policy {
        mode: forecast::Mode::On,
        method: forecast::Method::SeasonalNaive { season_ms: 3_600_000 },
        interval_ms: 60_000,
        lookahead_ms: startup_ms,
        max_error: 0.3,
        error_window: 60,
    }
}
