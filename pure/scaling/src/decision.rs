//! What every decision is made of: a time, actions, reasons with their values and ages, and conditions.
//!
//! Owns: the shapes that the four kinds of policy share. Never: deciding. Everything here is data with a stable JSON form, so that a printed
//! decision can be read back and made again.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::vpa::{ContainerRecommendation, UpdateMethod};

/// A point in time: milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimeMs(pub i64);

impl TimeMs {
    /// This time moved by `milliseconds`, saturating.
    pub fn plus_ms(self, milliseconds: i64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }

    /// Milliseconds from `earlier` to this time; negative when `earlier` is later.
    pub fn since_ms(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What `step` returns: the next state, what to do, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome<S> {
    /// What the next call is given.
    pub state: S,
    /// What to carry out, in order; empty when nothing is to be done.
    pub actions: Vec<Action>,
    /// Why, in the order of the rules that applied; never empty.
    pub reasons: Vec<Reason>,
}

impl<S> Outcome<S> {
    /// The size that the workload is told to take, if it is told one.
    pub fn scaled_to(&self) -> Option<i32> {
        self.actions.iter().find_map(|action| match action {
            Action::Scale { to, .. } => Some(*to),
            _ => None,
        })
    }

    /// How many jobs are to be created.
    pub fn created_jobs(&self) -> i32 {
        let count = |action: &Action| if let Action::CreateJobs { count } = action { *count } else { 0 };
        self.actions.iter().map(count).sum()
    }

    /// The first reason with this code.
    pub fn reason(&self, code: &str) -> Option<&Reason> {
        self.reasons.iter().find(|reason| reason.code == code)
    }
}

/// One thing to carry out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Set the number of replicas.
    Scale {
        /// The size that was observed.
        from: i32,
        /// The size to set.
        to: i32,
        /// Which replicas should go, first to last, where replicas were observed and some must go.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        victims: Vec<String>,
    },
    /// Create this many jobs.
    CreateJobs {
        /// At least 1.
        count: i32,
    },
    /// Delete these jobs.
    DeleteJobs {
        /// Their names.
        names: Vec<String>,
        /// Why they go.
        why: JobDeletion,
    },
    /// Publish a vertical recommendation.
    Recommend {
        /// One for each container that has a history.
        containers: Vec<ContainerRecommendation>,
    },
    /// Give a replica its recommended resources.
    UpdateReplica {
        /// Its name.
        replica: String,
        /// How.
        method: UpdateMethod,
    },
}

/// Why jobs are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobDeletion {
    /// Finished, and beyond the history limit.
    History,
    /// Made from an older specification, under the rollout strategy `immediate`.
    Rollout,
}

/// One rule that applied, with what it saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// A stable word, upstream's own where upstream has one: `ScaleDownStabilized`.
    pub code: Cow<'static, str>,
    /// The metric, trigger, container or replica that it is about; empty for the whole decision.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// One sentence for people.
    pub message: String,
    /// What was seen and computed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<Fact>,
}

impl Reason {
    /// A reason without facts.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code: Cow::Borrowed(code), subject: String::new(), message: message.into(), facts: Vec::new() }
    }

    /// The same reason about `subject`.
    pub fn about(mut self, subject: &str) -> Self {
        subject.clone_into(&mut self.subject);
        self
    }

    /// The same reason with one fact more.
    pub fn with(mut self, name: &'static str, value: impl Into<FactValue>) -> Self {
        self.facts.push(Fact::new(name, value));
        self
    }

    /// The same reason with these facts more.
    pub fn with_all(mut self, facts: Vec<Fact>) -> Self {
        self.facts.extend(facts);
        self
    }

    /// The value of a fact.
    pub fn fact(&self, name: &str) -> Option<&FactValue> {
        self.facts.iter().find(|fact| fact.name == name).map(|fact| &fact.value)
    }
}

/// A named value, with its age where it was observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    /// What it is.
    pub name: Cow<'static, str>,
    /// How much.
    pub value: FactValue,
    /// How long before the decision it was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<i64>,
}

impl Fact {
    /// A computed value.
    pub fn new(name: &'static str, value: impl Into<FactValue>) -> Self {
        Self { name: Cow::Borrowed(name), value: value.into(), age_ms: None }
    }

    /// An observed value; `observed_at` unknown gives no age.
    pub fn observed(name: &'static str, value: impl Into<FactValue>, observed_at: Option<TimeMs>, now: TimeMs) -> Self {
        Self { age_ms: observed_at.map(|at| now.since_ms(at)), ..Self::new(name, value) }
    }
}

/// The value of a fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FactValue {
    /// A whole number.
    Whole(i64),
    /// A finite number.
    Number(f64),
    /// A word.
    Text(String),
    /// Names.
    Names(Vec<String>),
}

impl From<i64> for FactValue {
    fn from(value: i64) -> Self {
        Self::Whole(value)
    }
}

impl From<i32> for FactValue {
    fn from(value: i32) -> Self {
        Self::Whole(i64::from(value))
    }
}

impl From<usize> for FactValue {
    fn from(value: usize) -> Self {
        Self::Whole(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<f64> for FactValue {
    /// JSON has no infinities: they become the word that names them.
    fn from(value: f64) -> Self {
        if value.is_finite() { Self::Number(value) } else { Self::Text(value.to_string()) }
    }
}

impl From<&str> for FactValue {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<Vec<String>> for FactValue {
    fn from(names: Vec<String>) -> Self {
        Self::Names(names)
    }
}

/// True, false or not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It cannot be told.
    Unknown,
}

/// A condition of an object's status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// `AbleToScale`, `Ready` …
    #[serde(rename = "type")]
    pub name: Cow<'static, str>,
    /// Whether it holds.
    pub status: Truth,
    /// A stable word.
    pub reason: Cow<'static, str>,
    /// One sentence.
    pub message: String,
    /// When the status last flipped.
    pub since: TimeMs,
}

/// The conditions of one object, each name once.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Conditions(pub Vec<Condition>);

impl Conditions {
    /// Sets a condition; its time moves only when the status flips.
    pub fn set(
        &mut self,
        name: &'static str,
        status: Truth,
        reason: &'static str,
        message: impl Into<String>,
        now: TimeMs,
    ) {
        let reason = Cow::Borrowed(reason);
        let message = message.into();
        match self.0.iter_mut().find(|condition| condition.name == name) {
            Some(known) => {
                let since = if known.status == status { known.since } else { now };
                *known = Condition { name: Cow::Borrowed(name), status, reason, message, since };
            }
            None => self.0.push(Condition { name: Cow::Borrowed(name), status, reason, message, since: now }),
        }
    }

    /// The condition of this name.
    pub fn get(&self, name: &str) -> Option<&Condition> {
        self.0.iter().find(|condition| condition.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_until_it_flips() {
        let mut conditions = Conditions::default();
        conditions.set("Ready", Truth::True, "A", "", TimeMs(1));
        conditions.set("Ready", Truth::True, "B", "", TimeMs(2));
        assert_eq!(
            conditions.get("Ready").map(|condition| (condition.since, &*condition.reason)),
            Some((TimeMs(1), "B"))
        );
        conditions.set("Ready", Truth::False, "C", "", TimeMs(3));
        assert_eq!(conditions.get("Ready").map(|condition| condition.since), Some(TimeMs(3)));
    }
}
