//! How many queries run at a time: in all, and of one organization, so that none keeps all others out.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidemill_types::OrganizationId;

use crate::{Error, Result};

/// One organization leaves one slot in so many to the others.
const LEFT_TO_OTHERS: usize = 4;

/// The slots of an engine. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Slots(Arc<Mutex<Taken>>);

#[derive(Debug)]
struct Taken {
    most: usize,
    by: HashMap<OrganizationId, usize>,
}

/// A query that runs; gives its slot back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    organization: OrganizationId,
}

impl Slots {
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Taken { most, by: HashMap::new() })))
    }

    /// A slot for a query of `organization`.
    ///
    /// # Errors
    /// There is none left, or none left for it.
    pub(crate) fn take(&self, organization: OrganizationId) -> Result<Slot> {
        let mut taken = self.0.lock();
        let most_each = taken.most - taken.most / LEFT_TO_OTHERS;
        let (all, own) = (taken.by.values().sum::<usize>(), taken.by.get(&organization).copied().unwrap_or(0));
        if all >= taken.most {
            return Err(Error::TooManyQueries { running: all });
        }
        if own >= most_each {
            return Err(Error::TooManyQueries { running: own });
        }
        *taken.by.entry(organization).or_default() += 1;
        Ok(Slot { slots: self.clone(), organization })
    }

    /// How many are taken.
    pub(crate) fn running(&self) -> usize {
        self.0.lock().by.values().sum()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.0.lock();
        if let Some(own) = taken.by.get_mut(&self.organization) {
            *own -= 1;
            if *own == 0 {
                taken.by.remove(&self.organization);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_organization_leaves_room_for_others() {
        let [one, other] = ["1", "2"].map(|number| {
            let text = format!("00000000-0000-0000-0000-00000000000{number}");
            text.parse::<OrganizationId>().expect("an id")
        });
        let slots = Slots::new(8);
        let mut held: Vec<Slot> = (0..6).map(|_| slots.take(one).expect("is free")).collect();
        assert!(matches!(slots.take(one), Err(Error::TooManyQueries { running: 6 })));
        held.extend((0..2).map(|_| slots.take(other).expect("is left")));
        assert!(matches!(slots.take(other), Err(Error::TooManyQueries { running: 8 })));
        held.truncate(5);
        assert!(slots.take(one).is_ok() && slots.running() == 5);
        drop(held);
        assert_eq!(slots.running(), 0);
        // One slot is anybody's.
        assert!(Slots::new(1).take(one).is_ok());
    }
}
