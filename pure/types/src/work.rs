//! What work is done: the action, and the queue that an action on a signal forms.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Signal;

/// What a work item asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Turn raw objects into L0 segments; such an item is an inbox row.
    Ingest,
    /// Merge segments into a higher level.
    Compact,
    /// Recompute a rollup tier of one hour.
    Rollup,
    /// Work that only its submitter understands.
    Job,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Compact, Self::Rollup, Self::Job];

    /// The name in flags, views and APIs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Compact => "compact",
            Self::Rollup => "rollup",
            Self::Job => "job",
        }
    }

    /// The number stored in the queue.
    pub fn code(self) -> i16 {
        match self {
            Self::Ingest => 1,
            Self::Compact => 2,
            Self::Rollup => 3,
            Self::Job => 4,
        }
    }

    /// The action stored as `code`.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.code() == code)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|action| action.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not an action; one of ingest, compact, rollup, job"))
    }
}

/// One action on one signal: what a worker role may be restricted to, and what a backlog is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkQueue {
    /// The signal worked on.
    pub signal: Signal,
    /// The action asked for.
    pub action: Action,
}

impl WorkQueue {
    /// `action * 16 + signal`: the number stored with each work item, so that one index scan serves one queue.
    pub fn code(self) -> i16 {
        self.action.code() * 16 + self.signal.code()
    }

    /// The queue stored as `code`.
    pub fn from_code(code: i16) -> Option<Self> {
        Some(Self { signal: Signal::from_code(code % 16)?, action: Action::from_code(code / 16)? })
    }

    /// Every queue.
    pub fn all() -> Vec<Self> {
        Action::ALL.into_iter().flat_map(|action| Signal::ALL.map(|signal| Self { signal, action })).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_codes_round_trip_and_differ() {
        let mut codes: Vec<i16> = WorkQueue::all().into_iter().map(WorkQueue::code).collect();
        for queue in WorkQueue::all() {
            assert_eq!(WorkQueue::from_code(queue.code()), Some(queue));
        }
        codes.dedup();
        assert_eq!(codes.len(), 12);
    }
}
