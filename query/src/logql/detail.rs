//! Which labels a query needs of its lines, and the columns that they come from.

use super::labels::{DETECTED_LEVEL, WantedLabels};
use crate::AttributeScope;
use crate::scan::OpenSegment;

/// The fields of records that become structured metadata: label and column.
pub(super) const FIELDS: [(&str, &str); 10] = [
    ("trace_id", "trace_id"),
    ("span_id", "span_id"),
    ("event_name", "event_name"),
    ("severity_text", "severity_text"),
    ("scope_name", "scope_name"),
    ("scope_version", "scope_version"),
    ("severity_number", "severity_number"),
    ("observed_timestamp", "observed_time"),
    ("flags", "flags"),
    ("dropped_attributes_count", "dropped_attributes"),
];

/// Which labels lines get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Detail {
    /// The labels of the stream, and nothing else.
    Streams,
    /// Those of the labels of the stream and of the structured metadata that are wanted.
    Wanted(WantedLabels),
    /// Everything.
    Everything,
}

impl Detail {
    /// What a query needs that reads these labels; any where there are none.
    pub(super) fn of(labels: Option<Vec<String>>) -> Self {
        labels.map_or(Self::Everything, |labels| Self::Wanted(WantedLabels::new(labels)))
    }

    pub(super) fn wants(&self, label: &str) -> bool {
        match self {
            Self::Streams => false,
            Self::Wanted(labels) => labels.hold(label),
            Self::Everything => true,
        }
    }

    /// The labels whose attributes are to be read; `None` for all attributes.
    pub(super) fn wanted(&self) -> Option<&WantedLabels> {
        match self {
            Self::Wanted(labels) => Some(labels),
            Self::Streams | Self::Everything => None,
        }
    }

    /// Whether rows of a segment have nothing that is wanted beside what their stream has.
    pub(super) fn is_of_streams(&self, open: &OpenSegment) -> bool {
        use AttributeScope::{Record, Scope};
        let wanted = match self {
            Self::Streams => return true,
            Self::Wanted(wanted) => wanted,
            Self::Everything => return false,
        };
        let has_own = |scope| open.may_have(scope, |key| wanted.may_come_from(key));
        !FIELDS.iter().any(|(label, _)| wanted.hold(label)) && !has_own(Record) && !has_own(Scope)
    }

    /// The columns to be read.
    pub(super) fn columns(&self) -> Vec<&'static str> {
        let mut columns = vec!["time", "body", "service_name", "scope_name", "resource"];
        if *self != Self::Streams {
            columns.extend(["scope", "attributes"]);
        }
        columns.extend(FIELDS.iter().filter(|(label, _)| self.wants(label)).map(|(_, column)| *column));
        if self.wants(DETECTED_LEVEL) {
            columns.extend(["severity_number", "severity_text"]);
        }
        let mut once = Vec::with_capacity(columns.len());
        for column in columns {
            if !once.contains(&column) {
                once.push(column);
            }
        }
        once
    }
}
