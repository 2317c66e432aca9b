//! The copy of the objects that is read, and the changes that are still told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::objects::{Object, ObjectKey};

/// Changes that a watch may still ask for.
const KEPT_CHANGES: usize = 8192;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is another.
    Modified,
    /// It is gone.
    Deleted,
}

/// One change.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its number; rises.
    pub sequence: u64,
    /// What happened.
    pub kind: ChangeKind,
    /// The object, as it was last.
    pub object: Arc<Object>,
}

/// Objects with the change up to which they are complete.
#[derive(Debug, Clone)]
pub struct Listed {
    /// By namespace and name.
    pub objects: Vec<Arc<Object>>,
    /// The last change that they show.
    pub sequence: u64,
}

#[derive(Debug)]
pub(super) struct Memory {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    changes: VecDeque<Change>,
    /// Changes up to this one are no longer kept.
    forgotten: u64,
    sequence: u64,
}

impl Memory {
    pub(super) fn new(objects: Vec<Object>, sequence: u64) -> Self {
        let objects = objects.into_iter().map(|object| (object.key(), Arc::new(object))).collect();
        Self { objects, changes: VecDeque::new(), forgotten: sequence, sequence }
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.objects.get(key).cloned()
    }

    pub(super) fn list(&self, kind: &str, namespace: Option<&str>) -> Listed {
        let from = ObjectKey::new(kind, namespace.unwrap_or_default(), "");
        let is_meant =
            |key: &ObjectKey| key.kind == kind && namespace.is_none_or(|namespace| key.namespace == namespace);
        let objects =
            self.objects.range(from..).take_while(|(key, _)| is_meant(key)).map(|(_, object)| object.clone()).collect();
        Listed { objects, sequence: self.sequence }
    }

    pub(super) fn all(&self) -> Vec<Arc<Object>> {
        self.objects.values().cloned().collect()
    }

    pub(super) fn changes(&self, since: u64) -> Option<Vec<Change>> {
        if since < self.forgotten {
            return None;
        }
        let first = self.changes.partition_point(|change| change.sequence <= since);
        Some(self.changes.iter().skip(first).cloned().collect())
    }

    pub(super) fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            let key = change.object.key();
            match change.kind {
                ChangeKind::Added | ChangeKind::Modified => self.objects.insert(key, change.object.clone()),
                ChangeKind::Deleted => self.objects.remove(&key),
            };
            self.sequence = change.sequence;
            if self.changes.len() == KEPT_CHANGES
                && let Some(oldest) = self.changes.pop_front()
            {
                self.forgotten = oldest.sequence;
            }
            self.changes.push_back(change);
        }
    }
}
