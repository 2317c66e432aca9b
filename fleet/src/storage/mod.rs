//! What a fleet remembers on this host: objects, what policies remember, decisions and events.
//!
//! Owns: one SQLite file, written in transactions that are on the disk before they are told; a copy in memory for reading; the stream of changes.
//! Never: what objects mean. One process opens it, the one that holds the data folder. Start with [`Storage::commit`].

mod database;
mod memory;

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

pub use memory::{Change, ChangeKind, Listed};

use crate::error::{Error, Result};
use crate::objects::{Object, ObjectKey};
use database::Database;
use memory::Memory;

/// Decisions that are kept of one policy.
pub const KEPT_RECORDS: usize = 1000;

/// One write of a commit.
#[derive(Debug, Clone)]
pub enum Write {
    /// Stores an object; fails unless the stored one has this resource version (empty: there must be none; `None`: whatever it is).
    Put {
        /// The object; its resource version is set by the commit.
        object: Box<Object>,
        /// What must be stored now.
        expected: Option<String>,
    },
    /// Forgets an object, if it is there.
    Delete(ObjectKey),
    /// What the policy with this uid remembers.
    State {
        /// The policy object's uid.
        uid: String,
        /// Its state, as JSON.
        state: String,
    },
    /// A decision of the policy with this uid.
    Record {
        /// The policy object's uid.
        uid: String,
        /// When, in milliseconds since 1970.
        at_ms: i64,
        /// The record, as JSON.
        record: String,
    },
    /// Forgets state and decisions of a policy.
    Forget {
        /// The policy object's uid.
        uid: String,
    },
}

/// The storage of one fleet.
#[derive(Debug)]
pub struct Storage {
    memory: Mutex<Memory>,
    database: Mutex<Database>,
    changed: watch::Sender<u64>,
    /// The last change whose names can be connected to; where nobody says so, all of them.
    reachable: watch::Sender<u64>,
}

impl Storage {
    /// Opens or creates the file `fleet.db` of a folder.
    ///
    /// # Errors
    /// What the database said, or that it was written by a newer version.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut database = Database::open(&folder.join("fleet.db"))?;
        let (objects, sequence) = database.load()?;
        let changed = watch::Sender::new(sequence);
        let memory = Mutex::new(Memory::new(objects, sequence));
        Ok(Self { memory, database: Mutex::new(database), changed, reachable: watch::Sender::new(u64::MAX) })
    }

    /// Carries out every write or none, on the disk before it returns. What changed is returned in the order of the writes of objects.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound` or `Conflict` where an object is not as expected; what the database said.
    pub fn commit(&self, writes: Vec<Write>) -> Result<Vec<Arc<Object>>> {
        // One writer: whoever holds the database decides the order, also of what memory shows.
        let mut database = self.database.lock();
        let (mut changes, mut sequence) = {
            let memory = self.memory.lock();
            check(&memory, &writes)?;
            (Vec::new(), memory.sequence())
        };
        let mut stored = Vec::new();
        let mut writes = writes;
        for write in &mut writes {
            match write {
                Write::Put { object, .. } => {
                    sequence += 1;
                    object.metadata.resource_version = sequence.to_string();
                    let object = Arc::new((**object).clone());
                    stored.push(object.clone());
                    let kind = if self.memory.lock().get(&object.key()).is_some() {
                        ChangeKind::Modified
                    } else {
                        ChangeKind::Added
                    };
                    changes.push(Change { sequence, kind, object });
                }
                Write::Delete(key) => {
                    if let Some(object) = self.memory.lock().get(key) {
                        sequence += 1;
                        let mut last = (*object).clone();
                        last.metadata.resource_version = sequence.to_string();
                        changes.push(Change { sequence, kind: ChangeKind::Deleted, object: Arc::new(last) });
                    }
                }
                Write::State { .. } | Write::Record { .. } | Write::Forget { .. } => {}
            }
        }
        database.write(&writes, sequence)?;
        if !changes.is_empty() {
            self.memory.lock().apply(changes);
            self.changed.send_replace(sequence);
        }
        Ok(stored)
    }

    /// An object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.memory.lock().get(key)
    }

    /// The objects of a kind, of one namespace or all, by namespace and name.
    pub fn list(&self, kind: &str, namespace: Option<&str>) -> Listed {
        self.memory.lock().list(kind, namespace)
    }

    /// Every object.
    pub fn all(&self) -> Vec<Arc<Object>> {
        self.memory.lock().all()
    }

    /// Changes after `since`.
    ///
    /// # Errors
    /// `Gone` where they are no longer kept.
    pub fn changes(&self, since: u64) -> Result<Vec<Change>> {
        self.memory.lock().changes(since).ok_or(Error::Gone(since))
    }

    /// Counts up with every change.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Tells that the names of everything up to this change can be connected to.
    pub(crate) fn set_reachable(&self, sequence: u64) {
        self.reachable.send_replace(sequence);
    }

    /// Waits until [`Storage::set_reachable`] was told of this change, at most `limit`: a look that comes before finds nobody at a mapped host.
    pub(crate) async fn wait_until_reachable(&self, sequence: u64, limit: std::time::Duration) {
        let mut reachable = self.reachable.subscribe();
        // Who looks too early is told so by the connection.
        let _ = tokio::time::timeout(limit, reachable.wait_for(|reached| *reached >= sequence)).await;
    }

    /// What a policy remembers, as JSON.
    ///
    /// # Errors
    /// What the database said.
    pub fn state(&self, uid: &str) -> Result<Option<String>> {
        self.database.lock().state(uid)
    }

    /// The last decisions of a policy, oldest first.
    ///
    /// # Errors
    /// What the database said.
    pub fn records(&self, uid: &str, limit: usize) -> Result<Vec<Value>> {
        self.database.lock().records(uid, limit)
    }
}

fn check(memory: &Memory, writes: &[Write]) -> Result<()> {
    for write in writes {
        if let Write::Put { object, expected: Some(expected) } = write {
            let key = object.key();
            match memory.get(&key) {
                None if expected.is_empty() => {}
                None => return Err(Error::NotFound(key)),
                Some(_) if expected.is_empty() => return Err(Error::AlreadyExists(key)),
                Some(stored) if stored.metadata.resource_version != *expected => return Err(Error::Conflict(key)),
                Some(_) => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
