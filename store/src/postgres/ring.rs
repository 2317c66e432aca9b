//! Whose turn it is, and from where a queue is scanned.
//!
//! Owns: for each queue the organizations with claimable work at its best priority, as one scan of the index told them, and how far
//! the claims of each have come (the low-water mark: what lies before it are mostly entries of deleted rows, and walking over
//! those would make every claim slower than the one before). What it knows is forgotten when work arrives, and after a moment in
//! any case, so that work that came back is found. Never: I/O.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidemill_types::{OrganizationId, WorkQueue};
use uuid::Uuid;

const KNOWN_FOR: Duration = Duration::from_millis(250);

/// A place in a queue's order: `runnable_at` and id.
pub(super) type Mark = (i64, i64);

#[derive(Debug, Default)]
pub(super) struct Rings {
    rings: Mutex<HashMap<WorkQueue, Ring>>,
}

#[derive(Debug)]
struct Ring {
    scanned: Instant,
    priority: i16,
    /// In ascending order.
    places: Vec<(Uuid, Option<Mark>)>,
}

/// What is to be claimed next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) queue: WorkQueue,
    pub(super) priority: i16,
    pub(super) organization: OrganizationId,
    pub(super) mark: Option<Mark>,
}

impl Rings {
    /// The organization after `after`; `None` when nothing is known of the queue.
    pub(super) fn next(&self, queue: WorkQueue, after: Option<OrganizationId>) -> Option<Choice> {
        let mut rings = self.rings.lock();
        let ring = rings.get(&queue)?;
        if ring.scanned.elapsed() > KNOWN_FOR || ring.places.is_empty() {
            rings.remove(&queue);
            return None;
        }
        let later = ring.places.iter().find(|(organization, _)| after.is_none_or(|after| *organization > after.0));
        let (organization, mark) = *later.or(ring.places.first())?;
        Some(Choice { queue, priority: ring.priority, organization: OrganizationId(organization), mark })
    }

    /// What a scan found.
    pub(super) fn replace(&self, queue: WorkQueue, priority: i16, mut organizations: Vec<Uuid>) {
        organizations.sort_unstable();
        let places = organizations.into_iter().map(|organization| (organization, None)).collect();
        self.rings.lock().insert(queue, Ring { scanned: Instant::now(), priority, places });
    }

    /// Work arrived.
    pub(super) fn forget(&self, queues: impl IntoIterator<Item = WorkQueue>) {
        let mut rings = self.rings.lock();
        for queue in queues {
            rings.remove(&queue);
        }
    }

    /// A bundle was claimed that begins at `first`.
    pub(super) fn advance(&self, choice: &Choice, first: Mark) {
        self.change(choice, |mark| *mark = Some(first));
    }

    /// Nothing lies after the choice's mark: the next look begins at the start, or there is none.
    pub(super) fn exhaust(&self, choice: &Choice) {
        if choice.mark.is_some() {
            self.change(choice, |mark| *mark = None);
        } else if let Some(ring) = self.rings.lock().get_mut(&choice.queue) {
            ring.places.retain(|(organization, _)| *organization != choice.organization.0);
        }
    }

    fn change(&self, choice: &Choice, change: impl Fn(&mut Option<Mark>)) {
        let mut rings = self.rings.lock();
        let Some(ring) = rings.get_mut(&choice.queue).filter(|ring| ring.priority == choice.priority) else { return };
        let place = ring.places.iter_mut().find(|(organization, _)| *organization == choice.organization.0);
        if let Some((_, mark)) = place {
            change(mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidemill_types::{Action, Signal};

    use super::*;

    const QUEUE: WorkQueue = WorkQueue { signal: Signal::Logs, action: Action::Job };

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    #[test]
    fn the_ring_goes_round_and_drops_who_has_nothing() {
        let rings = Rings::default();
        assert!(rings.next(QUEUE, None).is_none(), "nothing is known");
        rings.replace(QUEUE, 7, vec![id(3), id(1), id(2)]);
        let next = |after: Option<u128>| {
            let choice = rings.next(QUEUE, after.map(|number| OrganizationId(id(number))))?;
            assert_eq!(choice.priority, 7);
            Some(choice)
        };
        let turn = |after| next(after).map(|choice| choice.organization.0.as_u128());
        assert_eq!([turn(None), turn(Some(1)), turn(Some(2)), turn(Some(3))], [Some(1), Some(2), Some(3), Some(1)]);
        rings.advance(&next(Some(1)).expect("has a turn"), (10, 5));
        let marked = next(Some(1)).expect("has a turn");
        assert_eq!(marked.mark, Some((10, 5)));
        rings.exhaust(&marked);
        let unmarked = next(Some(1)).expect("is looked at from the start");
        assert_eq!(unmarked.mark, None);
        rings.exhaust(&unmarked);
        assert_eq!(turn(Some(1)), Some(3));
        rings.forget([QUEUE]);
        assert!(next(None).is_none());
    }
}
