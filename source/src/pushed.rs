//! Values that this process is told instead of asking for them: its own queue's backlog.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Client, Observed, SourceError};

/// A value that was pushed.
#[derive(Debug, Clone, PartialEq)]
pub struct PushedValue {
    /// Unclaimed items.
    pub value: f64,
    /// Claimed ones of the same snapshot.
    pub in_flight: Option<f64>,
    /// When.
    pub at: Timestamp,
}

/// The pushed values by their names.
#[derive(Debug, Clone)]
pub struct Pushed {
    values: Arc<Mutex<BTreeMap<String, PushedValue>>>,
    changed: watch::Sender<u64>,
}

impl Default for Pushed {
    fn default() -> Self {
        Self { values: Arc::default(), changed: watch::Sender::new(0) }
    }
}

impl Pushed {
    /// Tells a value; who waits for changes wakes when it differs from the last one.
    pub fn tell(&self, name: &str, value: PushedValue) {
        let before = self.values.lock().insert(name.to_owned(), value.clone());
        let is_news = before.is_none_or(|before| before.value != value.value || before.in_flight != value.in_flight);
        if is_news {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Counts up whenever a value differs from the one before it.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Wakes who waits for changes, for values that are not held here.
    pub(crate) fn wake(&self) -> watch::Sender<u64> {
        self.changed.clone()
    }

    pub(crate) fn client(&self, name: &str) -> PushedClient {
        PushedClient { name: name.to_owned(), values: self.values.clone() }
    }
}

#[derive(Debug)]
pub(crate) struct PushedClient {
    name: String,
    values: Arc<Mutex<BTreeMap<String, PushedValue>>>,
}

#[async_trait]
impl Client for PushedClient {
    async fn observe(&self, _now: Timestamp) -> Result<Observed, SourceError> {
        let values = self.values.lock();
        let Some(found) = values.get(&self.name) else {
            let known: Vec<&str> = values.keys().map(String::as_str).collect();
            return Err(SourceError::no_value(format!(
                "no queue {:?} has told its backlog; these have: {}",
                self.name,
                known.join(", ")
            )));
        };
        Ok(Observed { value: found.value, in_flight: found.in_flight, is_active: None, at: found.at })
    }
}
