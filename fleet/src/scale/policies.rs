//! Policies as objects say them.

use std::sync::atomic::AtomicU32;

use serde_json::Value;
use tidemill_scaling::keda::Profile;
use tidemill_scaling::manifest::{self, Body, KedaSpec, TargetRef};
use tidemill_scaling::record::{Policy, State};

use crate::objects::{Object, ObjectKey};

/// Kinds that decide about sizes.
pub(super) const KINDS: [&str; 4] = ["ScaledObject", "ScaledJob", "HorizontalPodAutoscaler", "VerticalPodAutoscaler"];

/// `strict` keeps KEDA's clocks and defects; the repaired way is the default.
const PROFILE: &str = "tidemill.dev/profile";

/// What makes a policy another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(String);

impl Version {
    /// Of an object: its specification and its annotations.
    pub(super) fn of(object: &Object) -> Self {
        let annotations = serde_json::to_string(&object.metadata.annotations).unwrap_or_default();
        Self(format!("{} {annotations}", object.metadata.generation))
    }
}

/// A policy that is carried out.
#[derive(Debug)]
pub struct Known {
    /// The object's key.
    pub key: ObjectKey,
    /// The object's uid.
    pub uid: String,
    /// Of which version of the object it is.
    pub version: Version,
    /// The policy.
    pub policy: Policy,
    /// What it scales; a ScaledJob scales nothing.
    pub target: Option<TargetRef>,
    /// The triggers as they were written.
    pub written: KedaSpec,
    /// The container whose variables triggers may name.
    pub env_container: Option<String>,
    /// Whether a pushed value wakes it.
    pub is_pushed: bool,
    /// How often its history could not be read.
    pub history_tries: AtomicU32,
}

impl Known {
    /// Whether it keeps KEDA's two clocks.
    pub(super) fn is_strict(&self) -> bool {
        matches!(&self.policy, Policy::ScaledObject(policy) if policy.profile == Profile::Strict)
    }
}

/// The policy of an object.
pub(super) fn read(object: &Object) -> Result<Known, String> {
    let text = serde_json::to_string(object).map_err(|error| error.to_string())?;
    let read = manifest::read("object", &text).map_err(|problems| {
        problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect::<Vec<_>>().join("; ")
    })?;
    let profile = match object.metadata.annotations.get(PROFILE).map(String::as_str) {
        None | Some("native") => Profile::Native,
        Some("strict") => Profile::Strict,
        Some(other) => return Err(format!("annotation {PROFILE}: {other:?} is neither strict nor native")),
    };
    let Some(one) = read.into_iter().next() else { return Err("it is empty".to_owned()) };
    let (policy, target, written) = match one.body {
        Body::ScaledObject { target, mut policy, spec } => {
            policy.profile = profile;
            (Policy::ScaledObject(policy), Some(target), spec)
        }
        Body::ScaledJob { mut policy, spec, .. } => {
            policy.profile = profile;
            policy.generation = object.metadata.generation;
            (Policy::ScaledJob(*policy), None, spec)
        }
        Body::Horizontal { target, policy } => {
            (Policy::HorizontalPodAutoscaler(*policy), Some(target), KedaSpec::default())
        }
        Body::Vertical { target, policy } => {
            (Policy::VerticalPodAutoscaler(*policy), Some(target), KedaSpec::default())
        }
        Body::Workload(_) | Body::Selects(_) | Body::Other => {
            return Err(format!("{} decides about no size", object.kind));
        }
    };
    let container =
        object.at("/spec/scaleTargetRef/envSourceContainerName").or_else(|| object.at("/spec/envSourceContainerName"));
    Ok(Known {
        key: object.key(),
        uid: object.metadata.uid.clone(),
        version: Version::of(object),
        is_pushed: written
            .triggers
            .iter()
            .any(|trigger| matches!(trigger.scaler.as_str(), "tidemill" | "external-push")),
        history_tries: AtomicU32::new(0),
        env_container: container.and_then(Value::as_str).map(ToOwned::to_owned),
        policy,
        target,
        written,
    })
}

/// Whether a state is one of this policy's kind.
pub(super) fn is_of_kind(state: &State, policy: &Policy) -> bool {
    std::mem::discriminant(state) == std::mem::discriminant(&policy.first_state())
}
