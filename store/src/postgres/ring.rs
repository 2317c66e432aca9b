//! Whose turn it is, and from where a queue is scanned.
//!
//! Owns: for each queue the organizations with claimable work at its best priority, as one scan of the index told them and as what
//! arrived since was announced, and how far the claims of each have come (the low-water mark: what lies before it are mostly entries
//! of deleted rows, and walking over those would make every claim slower than the one before). What it knows is forgotten after a
//! moment, so that work that came back unannounced is found. Never: I/O.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidemill_types::{OrganizationId, WorkQueue};

/// What a scan found is believed this long,
const KNOWN_FOR: Duration = Duration::from_millis(250);
/// or so many times what the scan took, where many dead rows make scans slow,
const KNOWN_FOR_SCANS: u32 = 32;
/// but never longer than this; a mark as well.
const KNOWN_AT_MOST: Duration = Duration::from_secs(10);
/// What something unknown happened to while it was scanned is looked at once and soon again.
const STALE_AFTER: Duration = Duration::from_millis(5);
/// Arrivals that are remembered while a scan runs.
const ARRIVALS_DURING_SCAN: usize = 64;

/// A place in a queue's order: `runnable_at` and id.
pub(super) type Mark = (i64, i64);

/// Work became claimable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arrival {
    pub(super) queue: WorkQueue,
    pub(super) priority: i16,
    pub(super) organization: OrganizationId,
    /// It is last in its queue's order, not somewhere before.
    pub(super) is_last: bool,
}

#[derive(Debug, Default)]
pub(super) struct Rings {
    queues: Mutex<HashMap<WorkQueue, Known>>,
}

#[derive(Debug, Default)]
struct Known {
    ring: Option<Ring>,
    /// Scans under way, and what was announced meanwhile: they may or may not have seen it.
    scans: usize,
    arrived: Vec<Arrival>,
    is_stale: bool,
    /// When the scan began whose result is the ring.
    scanned: Option<Instant>,
}

#[derive(Debug)]
struct Ring {
    known_until: Instant,
    /// `None`: nothing was claimable.
    priority: Option<i16>,
    /// In ascending order.
    places: Vec<Place>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    organization: OrganizationId,
    mark: Option<Mark>,
    /// When its mark was first set.
    marked: Instant,
}

impl Place {
    fn new(organization: OrganizationId) -> Self {
        Self { organization, mark: None, marked: Instant::now() }
    }

    fn found((organization, first): (OrganizationId, Mark)) -> Self {
        Self { organization, mark: Some(first), marked: Instant::now() }
    }
}

/// What a scan found: the best priority that has claimable work, whose it is, and where the first of each stands.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) priority: i16,
    pub(super) places: Vec<(OrganizationId, Mark)>,
}

/// What is to be claimed next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) queue: WorkQueue,
    pub(super) priority: i16,
    pub(super) organization: OrganizationId,
    pub(super) mark: Option<Mark>,
}

impl Ring {
    fn place(&self, organization: OrganizationId) -> Result<usize, usize> {
        self.places.binary_search_by_key(&organization, |place| place.organization)
    }

    fn offer(&mut self, arrival: &Arrival) {
        if self.priority.is_none_or(|known| arrival.priority < known) {
            self.priority = Some(arrival.priority);
            self.places = vec![Place::new(arrival.organization)];
        } else if self.priority == Some(arrival.priority) {
            match self.place(arrival.organization) {
                Ok(_) if arrival.is_last => {}
                Ok(place) => self.places[place].mark = None,
                Err(place) => self.places.insert(place, Place::new(arrival.organization)),
            }
        }
    }
}

/// A scan under way; dropped, it was in vain.
pub(super) struct Scan<'a> {
    rings: &'a Rings,
    queue: WorkQueue,
    begun: Instant,
}

impl Drop for Scan<'_> {
    fn drop(&mut self) {
        let mut queues = self.rings.queues.lock();
        let known = queues.entry(self.queue).or_default();
        known.scans -= 1;
        if known.scans == 0 {
            known.arrived.clear();
            known.is_stale = false;
        }
    }
}

impl Scan<'_> {
    /// What it found; `None` when nothing is claimable.
    pub(super) fn finish(self, found: Option<Found>) {
        let mut queues = self.rings.queues.lock();
        let known = queues.entry(self.queue).or_default();
        let priority = found.as_ref().map(|found| found.priority);
        let mut places: Vec<Place> = found.into_iter().flat_map(|found| found.places).map(Place::found).collect();
        places.sort_unstable_by_key(|place| place.organization);
        let known_for = (self.begun.elapsed() * KNOWN_FOR_SCANS).clamp(KNOWN_FOR, KNOWN_AT_MOST);
        let known_for = if known.is_stale { STALE_AFTER } else { known_for };
        let mut ring = Ring { known_until: Instant::now() + known_for, priority, places };
        known.arrived.iter().for_each(|arrival| ring.offer(arrival));
        known.ring = Some(ring);
        known.scanned = Some(self.begun);
    }
}

impl Rings {
    /// The organization after `after`; `None` when nothing is known to be claimable.
    pub(super) fn next(&self, queue: WorkQueue, after: Option<OrganizationId>) -> Option<Choice> {
        let queues = self.queues.lock();
        let ring = queues.get(&queue)?.ring.as_ref().filter(|ring| Instant::now() < ring.known_until)?;
        let later = ring.places.iter().find(|place| after.is_none_or(|after| place.organization > after));
        let place = later.or(ring.places.first())?;
        Some(Choice { queue, priority: ring.priority?, organization: place.organization, mark: place.mark })
    }

    /// Whether a scan of the queue began and ended since then.
    pub(super) fn is_scanned_since(&self, queue: WorkQueue, since: Instant) -> bool {
        let queues = self.queues.lock();
        queues.get(&queue).and_then(|known| known.scanned).is_some_and(|scanned| scanned >= since)
    }

    /// The caller begins to scan a queue.
    pub(super) fn scan(&self, queue: WorkQueue) -> Scan<'_> {
        self.queues.lock().entry(queue).or_default().scans += 1;
        Scan { rings: self, queue, begun: Instant::now() }
    }

    /// Work became claimable.
    pub(super) fn offer(&self, arrivals: &[Arrival]) {
        let mut queues = self.queues.lock();
        for arrival in arrivals {
            let known = queues.entry(arrival.queue).or_default();
            if let Some(ring) = &mut known.ring {
                ring.offer(arrival);
            }
            if known.scans > 0 && !known.arrived.contains(arrival) {
                known.is_stale |= known.arrived.len() == ARRIVALS_DURING_SCAN;
                known.arrived.truncate(ARRIVALS_DURING_SCAN - 1);
                known.arrived.push(*arrival);
            }
        }
    }

    /// Something became claimable, nobody knows what.
    pub(super) fn forget(&self, forgotten: impl IntoIterator<Item = WorkQueue>) {
        let mut queues = self.queues.lock();
        for queue in forgotten {
            if let Some(known) = queues.get_mut(&queue) {
                known.ring = None;
                known.is_stale |= known.scans > 0;
            }
        }
    }

    /// A bundle was claimed that begins at `first`.
    pub(super) fn advance(&self, choice: &Choice, first: Mark) {
        self.with_place(choice, |ring, place| {
            let place = &mut ring.places[place];
            if place.mark.is_none() {
                place.marked = Instant::now();
            }
            place.mark = (place.marked.elapsed() < KNOWN_AT_MOST).then_some(first);
        });
    }

    /// Nothing lies after the choice's mark. Whether something does before it, the next scan tells.
    pub(super) fn exhaust(&self, choice: &Choice) {
        self.with_place(choice, |ring, place| {
            ring.places.remove(place);
            if ring.places.is_empty() {
                ring.known_until = Instant::now();
            }
        });
    }

    fn with_place(&self, choice: &Choice, change: impl FnOnce(&mut Ring, usize)) {
        let mut queues = self.queues.lock();
        let ring = queues.get_mut(&choice.queue).and_then(|known| known.ring.as_mut());
        let Some(ring) = ring.filter(|ring| ring.priority == Some(choice.priority)) else { return };
        if let Ok(place) = ring.place(choice.organization) {
            change(ring, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidemill_types::{Action, Signal};
    use uuid::Uuid;

    use super::*;

    const QUEUE: WorkQueue = WorkQueue { signal: Signal::Logs, action: Action::Job };

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn arrival(priority: i16, organization: u128, is_last: bool) -> Arrival {
        Arrival { queue: QUEUE, priority, organization: OrganizationId(id(organization)), is_last }
    }

    /// The first of each stands at (1, 1).
    fn found(priority: i16, organizations: &[u128]) -> Option<Found> {
        let places = organizations.iter().map(|number| (OrganizationId(id(*number)), (1, 1))).collect();
        Some(Found { priority, places })
    }

    fn turn(rings: &Rings, after: Option<u128>) -> Option<(i16, u128, Option<Mark>)> {
        let choice = rings.next(QUEUE, after.map(|number| OrganizationId(id(number))))?;
        Some((choice.priority, choice.organization.0.as_u128(), choice.mark))
    }

    #[test]
    fn the_ring_goes_round_and_drops_who_has_nothing() {
        let rings = Rings::default();
        assert!(rings.next(QUEUE, None).is_none(), "nothing is known");
        rings.scan(QUEUE).finish(found(7, &[3, 1, 2]));
        for (after, expected) in [(None, 1), (Some(1), 2), (Some(2), 3), (Some(3), 1)] {
            assert_eq!(turn(&rings, after), Some((7, expected, Some((1, 1)))));
        }
        let choice = rings.next(QUEUE, Some(OrganizationId(id(1)))).expect("has a turn");
        rings.advance(&choice, (10, 5));
        assert_eq!(turn(&rings, Some(1)), Some((7, 2, Some((10, 5)))));
        rings.exhaust(&choice);
        assert_eq!(turn(&rings, Some(1)), Some((7, 3, Some((1, 1)))));
        rings.forget([QUEUE]);
        assert!(rings.next(QUEUE, None).is_none());
    }

    #[test]
    fn marks_outlive_arrivals_but_not_what_comes_back() {
        let rings = Rings::default();
        let begun = Instant::now();
        assert!(!rings.is_scanned_since(QUEUE, begun));
        rings.scan(QUEUE).finish(found(0, &[1]));
        assert!(rings.is_scanned_since(QUEUE, begun) && !rings.is_scanned_since(QUEUE, Instant::now()));
        rings.advance(&rings.next(QUEUE, None).expect("has a turn"), (10, 5));
        rings.offer(&[arrival(0, 1, true)]);
        assert_eq!(turn(&rings, None), Some((0, 1, Some((10, 5)))));
        rings.offer(&[arrival(0, 1, false)]);
        assert_eq!(turn(&rings, None), Some((0, 1, None)));
    }

    #[test]
    fn arrivals_make_a_scan_needless_where_the_queue_was_known() {
        let rings = Rings::default();
        rings.offer(&[arrival(5, 9, true)]);
        assert!(rings.next(QUEUE, None).is_none(), "there may be better work than what arrived");
        rings.scan(QUEUE).finish(None);
        rings.offer(&[arrival(5, 9, true)]);
        assert_eq!(turn(&rings, None), Some((5, 9, None)));
        rings.offer(&[arrival(6, 1, true), arrival(4, 2, true)]);
        assert_eq!(turn(&rings, None), Some((4, 2, None)), "the best priority is first");
        rings.exhaust(&rings.next(QUEUE, None).expect("has a turn"));
        assert!(rings.next(QUEUE, None).is_none(), "worse work is found by a scan");
    }

    #[test]
    fn what_arrives_during_a_scan_is_not_overlooked() {
        let rings = Rings::default();
        let scan = rings.scan(QUEUE);
        rings.offer(&[arrival(3, 8, true)]);
        scan.finish(None);
        assert_eq!(turn(&rings, None), Some((3, 8, None)));
        let scan = rings.scan(QUEUE);
        rings.forget([QUEUE]);
        scan.finish(found(3, &[8]));
        assert_eq!(turn(&rings, None), Some((3, 8, Some((1, 1)))));
        std::thread::sleep(STALE_AFTER);
        assert!(rings.next(QUEUE, None).is_none(), "it is scanned again");
    }
}
