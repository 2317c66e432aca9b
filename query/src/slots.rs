//! How many queries run at a time, in all and of each organization.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidemill_types::OrganizationId;

use crate::{Error, Result};

/// One organization leaves one slot in so many to the others.
const LEFT_TO_OTHERS: usize = 4;

/// The slots that are taken, by organization. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots(Arc<Mutex<HashMap<OrganizationId, usize>>>);

/// How many slots there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotLimits {
    pub(crate) all: usize,
    pub(crate) of_one: usize,
}

impl SlotLimits {
    /// So many for all, of which one organization leaves some to others.
    pub(crate) fn shared(all: usize) -> Self {
        Self { all, of_one: all - all / LEFT_TO_OTHERS }
    }

    /// So many for each organization.
    pub(crate) fn each(of_one: usize) -> Self {
        Self { all: usize::MAX, of_one }
    }
}

/// A query that runs; gives its slot back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    organization: OrganizationId,
}

impl Slots {
    /// A slot for a query of `organization`.
    ///
    /// # Errors
    /// There is none left, or none left for it.
    pub(crate) fn take(&self, organization: OrganizationId, limits: SlotLimits) -> Result<Slot> {
        let mut taken = self.0.lock();
        let (all, own) = (taken.values().sum::<usize>(), taken.get(&organization).copied().unwrap_or(0));
        if all >= limits.all {
            return Err(Error::TooManyQueries { running: all });
        }
        if own >= limits.of_one {
            return Err(Error::TooManyQueries { running: own });
        }
        *taken.entry(organization).or_default() += 1;
        Ok(Slot { slots: self.clone(), organization })
    }

    /// How many are taken.
    pub(crate) fn running(&self) -> usize {
        self.0.lock().values().sum()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.0.lock();
        if let Some(own) = taken.get_mut(&self.organization) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.organization);
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
        let (slots, limits) = (Slots::default(), SlotLimits::shared(8));
        let mut held: Vec<Slot> = (0..6).map(|_| slots.take(one, limits).expect("is free")).collect();
        assert!(matches!(slots.take(one, limits), Err(Error::TooManyQueries { running: 6 })));
        held.extend((0..2).map(|_| slots.take(other, limits).expect("is left")));
        assert!(matches!(slots.take(other, limits), Err(Error::TooManyQueries { running: 8 })));
        held.truncate(5);
        assert!(slots.take(one, limits).is_ok() && slots.running() == 5);
        drop(held);
        assert_eq!(slots.running(), 0);
        // One slot is anybody's.
        assert!(slots.take(one, SlotLimits::shared(1)).is_ok());
    }
}
