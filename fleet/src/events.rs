//! Events: what happened to objects, told once and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tidemill_scaling::TimeMs;

use crate::control::{now, text_of};
use crate::objects::{Object, ObjectKey, find_kind};
use crate::storage::{Storage, Write};

/// An event is kept this long after it was last told.
const KEPT_MS: i64 = 6 * 3600 * 1000;
/// How often old events are looked for.
const TRIM_EVERY_MS: i64 = 60_000;
/// Most events at a time; the oldest go first.
const MAX_EVENTS: usize = 5000;

/// Whether an event asks for action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It does not.
    Normal,
    /// It does.
    Warning,
}

/// Collects events; a pass of the controller writes them.
#[derive(Debug)]
pub struct Events {
    storage: Arc<Storage>,
    waiting: Mutex<BTreeMap<ObjectKey, Object>>,
    /// When old events were last looked for.
    looked_at: Mutex<TimeMs>,
}

impl Events {
    /// Events over what is stored.
    pub fn new(storage: Arc<Storage>) -> Self {
        Self { storage, waiting: Mutex::default(), looked_at: Mutex::default() }
    }

    /// Tells an event about an object; the same again counts.
    pub fn tell(&self, about: &Object, kind: EventKind, reason: &str, message: &str) {
        let Some(event_kind) = find_kind("Event") else { return };
        let namespace = if about.metadata.namespace.is_empty() { "default" } else { &about.metadata.namespace };
        let hash = blake3::hash(format!("{}\0{reason}\0{message}", about.metadata.uid).as_bytes()).to_hex();
        let mut event = Object::new(event_kind, namespace, &format!("{}.{}", about.metadata.name, &hash[..16]));
        let key = event.key();
        let mut waiting = self.waiting.lock();
        let known = waiting.get(&key).cloned().or_else(|| self.storage.get(&key).map(|known| (*known).clone()));
        let at = text_of(now());
        let count = known.as_ref().and_then(|known| known.whole("/count")).unwrap_or_default() + 1;
        // A reason that is told every few moments is written once a minute.
        if let Some(known) = &known
            && kind == EventKind::Warning
            && last_told(known).is_some_and(|last| now().since_ms(last) < 60_000)
        {
            return;
        }
        if let Some(known) = &known {
            event.metadata = known.metadata.clone();
        } else {
            event.metadata.uid = uuid::Uuid::new_v4().to_string();
            event.metadata.creation_timestamp = at.as_str().map(ToOwned::to_owned);
        }
        let first = known.as_ref().and_then(|known| known.at("/firstTimestamp").cloned()).unwrap_or_else(|| at.clone());
        let involved = json!({
            "kind": about.kind, "namespace": about.metadata.namespace, "name": about.metadata.name, "uid": about.metadata.uid,
            "apiVersion": about.api_version,
        });
        for (name, value) in [
            ("type", json!(if kind == EventKind::Normal { "Normal" } else { "Warning" })),
            ("reason", json!(reason)),
            ("message", json!(message)),
            ("count", json!(count)),
            ("firstTimestamp", first),
            ("lastTimestamp", at),
            ("involvedObject", involved),
            ("source", json!({"component": "tidemill"})),
        ] {
            event.body.insert(name.to_owned(), value);
        }
        waiting.insert(key, event);
    }

    /// Hands over what waits, and deletes what is old.
    pub(crate) fn trim(&self, now: TimeMs, writes: &mut Vec<Write>) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        let is_told = !waiting.is_empty();
        writes.extend(waiting.into_values().map(|event| Write::Put { object: Box::new(event), expected: None }));
        let mut looked = self.looked_at.lock();
        // While nothing is told, what is old is old a minute later as well.
        if !is_told && (0..TRIM_EVERY_MS).contains(&now.since_ms(*looked)) {
            return;
        }
        *looked = now;
        let stored = self.storage.list("Event", None).objects;
        let mut by_time: BTreeSet<(TimeMs, ObjectKey)> =
            stored.iter().map(|event| (last_told(event).unwrap_or_default(), event.key())).collect();
        while let Some((at, key)) = by_time.first().cloned() {
            if now.since_ms(at) <= KEPT_MS && by_time.len() <= MAX_EVENTS {
                break;
            }
            by_time.remove(&(at, key.clone()));
            writes.push(Write::Delete(key));
        }
    }
}

/// When an event was last told.
fn last_told(event: &Object) -> Option<TimeMs> {
    let text = event.at("/lastTimestamp").and_then(Value::as_str)?;
    Some(TimeMs(text.parse::<jiff::Timestamp>().ok()?.as_millisecond()))
}
