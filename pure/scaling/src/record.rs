//! A policy of any kind, and decisions that were written down.

use serde::{Deserialize, Serialize};

use crate::decision::{Action, Outcome, Reason, TimeMs};
use crate::keda::{job, object};
use crate::{hpa, vpa};

/// A policy of any kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Policy {
    /// See [`hpa`].
    HorizontalPodAutoscaler(hpa::Policy),
    /// See [`object`].
    ScaledObject(Box<object::Policy>),
    /// See [`job`].
    ScaledJob(job::Policy),
    /// See [`vpa`].
    VerticalPodAutoscaler(vpa::Policy),
}

/// What a policy of any kind remembers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum State {
    /// See [`hpa`].
    HorizontalPodAutoscaler(Box<hpa::State>),
    /// See [`object`].
    ScaledObject(Box<object::State>),
    /// See [`job`].
    ScaledJob(job::State),
    /// See [`vpa`].
    VerticalPodAutoscaler(vpa::State),
}

/// What a policy of any kind sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Observation {
    /// See [`hpa`].
    HorizontalPodAutoscaler(hpa::Observation),
    /// See [`object`].
    ScaledObject(object::Observation),
    /// See [`job`].
    ScaledJob(job::Observation),
    /// See [`vpa`].
    VerticalPodAutoscaler(vpa::Observation),
}

impl Policy {
    /// The state before the first step.
    pub fn first_state(&self) -> State {
        match self {
            Self::HorizontalPodAutoscaler(_) => State::HorizontalPodAutoscaler(Box::default()),
            Self::ScaledObject(_) => State::ScaledObject(Box::default()),
            Self::ScaledJob(_) => State::ScaledJob(job::State::default()),
            Self::VerticalPodAutoscaler(_) => State::VerticalPodAutoscaler(vpa::State::default()),
        }
    }
}

/// Policy, state and observation are not of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindMismatch;

impl std::fmt::Display for KindMismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("policy, state and observation are not of one kind")
    }
}

impl std::error::Error for KindMismatch {}

/// One decision of a policy of any kind.
///
/// # Errors
/// When the three are not of one kind.
pub fn step(
    policy: &Policy,
    state: State,
    observation: &Observation,
    now: TimeMs,
) -> Result<Outcome<State>, KindMismatch> {
    Ok(match (policy, state, observation) {
        (
            Policy::HorizontalPodAutoscaler(policy),
            State::HorizontalPodAutoscaler(state),
            Observation::HorizontalPodAutoscaler(seen),
        ) => hpa::step(policy, *state, seen, now).map_state(|state| State::HorizontalPodAutoscaler(Box::new(state))),
        (Policy::ScaledObject(policy), State::ScaledObject(state), Observation::ScaledObject(seen)) => {
            object::step(policy, *state, seen, now).map_state(|state| State::ScaledObject(Box::new(state)))
        }
        (Policy::ScaledJob(policy), State::ScaledJob(state), Observation::ScaledJob(seen)) => {
            job::step(policy, state, seen, now).map_state(State::ScaledJob)
        }
        (
            Policy::VerticalPodAutoscaler(policy),
            State::VerticalPodAutoscaler(state),
            Observation::VerticalPodAutoscaler(seen),
        ) => vpa::step(policy, state, seen, now).map_state(State::VerticalPodAutoscaler),
        _ => return Err(KindMismatch),
    })
}

impl<S> Outcome<S> {
    /// The same outcome with another form of its state.
    pub fn map_state<T>(self, change: impl FnOnce(S) -> T) -> Outcome<T> {
        Outcome { state: change(self.state), actions: self.actions, reasons: self.reasons }
    }
}

/// A decision with all that it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// When.
    pub now: TimeMs,
    /// By which policy.
    pub policy: Policy,
    /// What it remembered.
    pub state: State,
    /// What it saw.
    pub observation: Observation,
    /// What it decided.
    pub actions: Vec<Action>,
    /// Why.
    pub reasons: Vec<Reason>,
}

impl Record {
    /// Whether deciding again gives the same actions for the same reasons.
    pub fn is_reproduced(&self) -> bool {
        step(&self.policy, self.state.clone(), &self.observation, self.now)
            .is_ok_and(|outcome| outcome.actions == self.actions && outcome.reasons == self.reasons)
    }
}
