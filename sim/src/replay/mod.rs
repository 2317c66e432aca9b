//! A recorded incident: decided again, and its load for other policies.
//!
//! Owns: reading records (what `tidemill explain -o json` prints) and bare observations over time, deciding each again, asking other policies
//! about the same observations, and the load that they show ([`load`]). Never: the decisions. Start with [`Incident::read`].

mod load;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_scaling::record::{Observation, Policy, step};
use tidemill_scaling::{Action, Reason, Record, TimeMs};

use crate::load::{LoadError, refused};
use crate::outcome::Minute;

/// Entries of one incident at most.
const MAX_ENTRIES: usize = 1_000_000;
/// Differences that are told of one decision, and decisions that are listed.
const MAX_DIFFERENCES: usize = 20;
const MAX_LISTED: usize = 1_000;

/// What was seen at one time, and what was decided where that was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its place in the file, from 1.
    pub place: usize,
    /// When.
    pub at: TimeMs,
    /// What was seen.
    pub observation: Observation,
    /// The whole record.
    pub record: Option<Record>,
}

/// Entries of one object, in the order of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    /// The file.
    pub name: String,
    /// At least one.
    pub entries: Vec<Entry>,
}

/// A decision that came out differently.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The record's place in the file.
    pub place: usize,
    /// Milliseconds since the Unix epoch.
    pub at: TimeMs,
    /// What was recorded, as actions.
    pub recorded: Vec<Action>,
    /// What comes out now.
    pub found: Vec<Action>,
    /// What differs: actions, and reasons one by one.
    pub what: Vec<String>,
}

/// All records of an incident decided again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Again {
    /// Records that hold a decision.
    pub decisions: usize,
    /// Of those, made again to the last word.
    pub reproduced: usize,
    /// The first of the others.
    pub differences: Vec<Difference>,
}

/// Another policy asked about what was recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The policy's name.
    pub policy: String,
    /// Observations that it was asked about.
    pub observations: usize,
    /// How often it wanted another size or another number of jobs than was recorded.
    pub different: usize,
    /// The first of those.
    pub differences: Vec<Difference>,
}

/// What was recorded, minute by minute.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Recorded {
    /// Replicas that existed, added up over time.
    pub replica_hours: f64,
    /// The longest backlog that was seen.
    pub highest_backlog: f64,
    /// Decisions that changed something.
    pub changes: usize,
    /// Minute by minute; `oldest_s` is not known.
    pub minutes: Vec<Minute>,
}

/// One entry of the file. `explain` may wrap a record with more about it.
#[derive(Deserialize)]
struct Bare {
    now: TimeMs,
    observation: Observation,
}

impl Incident {
    /// Reads JSON values one after the other (lines), lists of them, or `{"items": […]}`.
    ///
    /// # Errors
    /// Text that is no JSON, an entry that is neither a record nor `{"now", "observation"}`, entries of several kinds of object.
    pub fn read(name: &str, text: &str) -> Result<Self, LoadError> {
        let mut entries = Vec::new();
        for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
            let value = value.map_err(|error| refused(format!("{name}: {error}")))?;
            take(name, value, &mut entries)?;
        }
        let Some(first) = entries.first() else {
            return Err(refused(format!("{name}: holds no record; tidemill explain -o json prints them")));
        };
        let kind = std::mem::discriminant(&first.observation);
        if let Some(other) = entries.iter().find(|entry| std::mem::discriminant(&entry.observation) != kind) {
            return Err(refused(format!(
                "{name}: entry {} is of another kind of object than the first: replay one object at a time",
                other.place
            )));
        }
        entries.sort_by_key(|entry| entry.at);
        Ok(Self { name: name.to_owned(), entries })
    }

    /// The policy of the last record.
    pub fn policy(&self) -> Option<&Policy> {
        self.entries.iter().rev().find_map(|entry| entry.record.as_ref()).map(|record| &record.policy)
    }

    /// Decides every record again.
    pub fn again(&self) -> Again {
        let mut again = Again { decisions: 0, reproduced: 0, differences: Vec::new() };
        for entry in &self.entries {
            let Some(record) = &entry.record else { continue };
            again.decisions += 1;
            match difference(entry.place, record) {
                None => again.reproduced += 1,
                Some(difference) if again.differences.len() < MAX_LISTED => again.differences.push(difference),
                Some(_) => {}
            }
        }
        again
    }

    /// Asks a policy about every observation, with its own memory of them. None where it is of another kind, or follows another number of
    /// metrics, so that the recorded values say nothing to it.
    pub fn ask(&self, name: &str, policy: &Policy) -> Option<Asked> {
        let fits = |observation: &Observation| match (policy, observation) {
            (Policy::HorizontalPodAutoscaler(policy), Observation::HorizontalPodAutoscaler(seen)) => {
                policy.metrics.len() == seen.readings.len()
            }
            (Policy::ScaledObject(policy), Observation::ScaledObject(seen)) => {
                policy.triggers.len() == seen.triggers.len()
            }
            (Policy::ScaledJob(policy), Observation::ScaledJob(seen)) => policy.triggers.len() == seen.triggers.len(),
            (Policy::VerticalPodAutoscaler(_), Observation::VerticalPodAutoscaler(_)) => true,
            _ => false,
        };
        if !self.entries.iter().all(|entry| fits(&entry.observation)) {
            return None;
        }
        let mut asked = Asked { policy: name.to_owned(), observations: 0, different: 0, differences: Vec::new() };
        let mut state = policy.first_state();
        for entry in &self.entries {
            let outcome = step(policy, state, &entry.observation, entry.at).ok()?;
            state = outcome.state;
            asked.observations += 1;
            let Some(record) = &entry.record else { continue };
            let (recorded, found) = (sizes(&record.actions), sizes(&outcome.actions));
            if recorded == found {
                continue;
            }
            asked.different += 1;
            if asked.differences.len() < MAX_LISTED {
                let what = outcome.reasons.iter().take(MAX_DIFFERENCES).map(shown).collect();
                asked.differences.push(Difference { place: entry.place, at: entry.at, recorded, found, what });
            }
        }
        Some(asked)
    }
}

fn take(name: &str, value: Value, entries: &mut Vec<Entry>) -> Result<(), LoadError> {
    let place = entries.len() + 1;
    match value {
        Value::Array(values) => values.into_iter().try_for_each(|value| take(name, value, entries)),
        Value::Object(mut fields) if fields.get("items").is_some_and(Value::is_array) => {
            take(name, fields.remove("items").unwrap_or_default(), entries)
        }
        Value::Object(mut fields) if fields.get("record").is_some_and(Value::is_object) => {
            take(name, fields.remove("record").unwrap_or_default(), entries)
        }
        value => {
            if entries.len() == MAX_ENTRIES {
                return Err(refused(format!("{name}: holds more than {MAX_ENTRIES} entries")));
            }
            let wrong = |error: serde_json::Error| refused(format!("{name}: entry {place}: {error}"));
            let entry = if value.get("policy").is_some() {
                let record: Record = serde_json::from_value(value).map_err(wrong)?;
                Entry { place, at: record.now, observation: record.observation.clone(), record: Some(record) }
            } else {
                let bare: Bare = serde_json::from_value(value).map_err(wrong)?;
                Entry { place, at: bare.now, observation: bare.observation, record: None }
            };
            entries.push(entry);
            Ok(())
        }
    }
}

/// The sizes and jobs that actions ask for; which replicas go is not compared.
fn sizes(actions: &[Action]) -> Vec<Action> {
    let size = |action: &Action| match action {
        Action::Scale { from, to, .. } => Some(Action::Scale { from: *from, to: *to, victims: Vec::new() }),
        Action::CreateJobs { count } => Some(Action::CreateJobs { count: *count }),
        Action::UpdateReplica { .. } => Some(action.clone()),
        Action::DeleteJobs { .. } | Action::Recommend { .. } => None,
    };
    actions.iter().filter_map(size).collect()
}

fn difference(place: usize, record: &Record) -> Option<Difference> {
    let outcome = match step(&record.policy, record.state.clone(), &record.observation, record.now) {
        Ok(outcome) => outcome,
        Err(error) => {
            let what = vec![error.to_string()];
            let recorded = record.actions.clone();
            return Some(Difference { place, at: record.now, recorded, found: Vec::new(), what });
        }
    };
    if outcome.actions == record.actions && outcome.reasons == record.reasons {
        return None;
    }
    let mut what = Vec::new();
    if outcome.actions != record.actions {
        what.push("the actions differ".to_owned());
    }
    let count = outcome.reasons.len().max(record.reasons.len());
    for index in 0..count {
        let (was, is) = (record.reasons.get(index), outcome.reasons.get(index));
        if was != is && what.len() < MAX_DIFFERENCES {
            let told = |reason: Option<&Reason>| reason.map_or_else(|| "nothing".to_owned(), shown);
            what.push(format!("reason {}: recorded {}, found {}", index + 1, told(was), told(is)));
        }
    }
    Some(Difference { place, at: record.now, recorded: record.actions.clone(), found: outcome.actions, what })
}

fn shown(reason: &Reason) -> String {
    let facts: Vec<String> = reason
        .facts
        .iter()
        .map(|fact| format!("{}={}", fact.name, serde_json::to_string(&fact.value).unwrap_or_default()))
        .collect();
    let about = if reason.subject.is_empty() { String::new() } else { format!(" {}", reason.subject) };
    format!("{}{about}: {} [{}]", reason.code, reason.message, facts.join(" "))
}
