//! The memory that requests may hold together, handed out in KiB.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Error, Result};

const UNIT_BYTES: usize = 1024;

/// A bound on the bytes of all requests between their first byte and their answer.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    units: Arc<Semaphore>,
}

impl MemoryBudget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self { units: Arc::new(Semaphore::new((bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS))) }
    }

    /// An empty share.
    pub fn reservation(&self) -> Reservation {
        Reservation { units: self.units.clone(), held: None, needed_bytes: 0, joined: None }
    }
}

/// A share of the budget; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    units: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    needed_bytes: usize,
    /// A share of another budget that is given back with this one.
    joined: Option<Box<Reservation>>,
}

impl Reservation {
    /// Takes `bytes` more.
    ///
    /// # Errors
    /// `Busy` when the budget is spent; nothing waits, so that a flood is answered rather than queued.
    pub fn grow(&mut self, bytes: usize) -> Result<()> {
        let needed_bytes = self.needed_bytes.saturating_add(bytes);
        let needed = needed_bytes.div_ceil(UNIT_BYTES);
        let missing = needed.saturating_sub(self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if missing == 0 {
            self.needed_bytes = needed_bytes;
            return Ok(());
        }
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let more = self.units.clone().try_acquire_many_owned(missing).map_err(|_| Error::Busy {
            reason: "the receiver's memory for requests in flight is full".to_owned(),
            retry_after: Duration::from_secs(1),
        })?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        self.needed_bytes = needed_bytes;
        Ok(())
    }

    /// Gives back what was taken so far.
    pub(crate) fn release(&mut self) {
        self.held = None;
        self.needed_bytes = 0;
    }

    /// Gives `other` back together with this one.
    pub(super) fn join(&mut self, other: Self) {
        self.joined = Some(Box::new(other));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_budget_is_busy_until_a_share_is_dropped() {
        let budget = MemoryBudget::new(4 * UNIT_BYTES);
        let mut first = budget.reservation();
        first.grow(1).expect("fits");
        first.grow(3 * UNIT_BYTES).expect("fits exactly");
        let mut second = budget.reservation();
        let refused = second.grow(1).expect_err("nothing is left");
        assert!(refused.retry_after().is_some(), "{refused}");
        drop(first);
        second.grow(1).expect("the share was given back");
    }
}
