//! Whose turn it is, and from where a queue is scanned.
//!
//! Owns: for each queue the places (a priority and an organization) that have claimable work, as one scan of the index told them and
//! as what arrived since was announced, and how far the claims of each have come (the low-water mark: what lies before it are
//! entries of deleted and leased rows, and walking over those would make every claim slower than the one before). A place that has
//! nothing left keeps its mark. What it knows is looked at again after a moment, so that work that came unannounced is found: beyond
//! the marks soon, before them now and then. Never: I/O.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidemill_types::{OrganizationId, WorkQueue};

/// What a scan found is believed this long,
const KNOWN_FOR: Duration = Duration::from_millis(250);
/// that it found nothing, only this long: somebody else may have enqueued, and the notification be on its way;
const EMPTY_FOR: Duration = Duration::from_millis(20);
/// or so many times what the scan took, where many dead rows make scans slow,
const KNOWN_FOR_SCANS: u32 = 64;
/// but never longer than this.
const KNOWN_AT_MOST: Duration = Duration::from_secs(10);
/// Marks are believed this long, or so many times what the scan took that looked before them.
const MARKS_KNOWN_FOR: Duration = Duration::from_secs(10);
/// Marks that another process stored are believed this long: what came back before them, this one was not told.
const STORED_MARKS_FOR: Duration = Duration::from_secs(2);
/// Marks are stored when so many items were claimed since,
const STORE_AFTER_ITEMS: usize = 1_000;
/// but not more often than this.
const STORE_EVERY: Duration = Duration::from_millis(250);
/// What something unknown happened to while it was scanned is looked at once and soon again.
const STALE_AFTER: Duration = Duration::from_millis(5);
/// Places where something arrived that are remembered while a scan runs.
const ARRIVALS_DURING_SCAN: usize = 64;
/// Arrivals at one place that are told from each other while a claim runs.
const LATEST_ARRIVALS: usize = 64;
/// Places in one ring; more take their turns as those before them have no work left.
pub(super) const RING_SIZE: usize = 1_000;

/// A place in a queue's order: `runnable_at` and id.
pub(super) type Mark = (i64, i64);

/// A place (a priority and an organization) and its mark.
pub(super) type PlaceMark = (i16, OrganizationId, Mark);

/// Work became claimable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) queue: WorkQueue,
    pub(super) priority: i16,
    pub(super) organization: OrganizationId,
    /// The earliest `runnable_at` that it can have, [`ANYWHERE`] when that is not known.
    pub(super) since: i64,
}

/// Before all others in a queue's order.
pub(super) const ANYWHERE: i64 = i64::MIN;

/// Arrivals by place, each with the earliest `since`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Arrivals(BTreeMap<(WorkQueue, i16, OrganizationId), i64>);

impl Arrivals {
    pub(super) fn add(&mut self, arrival: Arrival) {
        let since = self.0.entry((arrival.queue, arrival.priority, arrival.organization)).or_insert(arrival.since);
        *since = arrival.since.min(*since);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Arrival> + '_ {
        self.0.iter().map(|(&(queue, priority, organization), &since)| Arrival { queue, priority, organization, since })
    }
}

impl FromIterator<Arrival> for Arrivals {
    fn from_iter<T: IntoIterator<Item = Arrival>>(arrivals: T) -> Self {
        let mut all = Self::default();
        arrivals.into_iter().for_each(|arrival| all.add(arrival));
        all
    }
}

/// What is known of every queue.
#[derive(Debug, Default)]
pub(super) struct Rings {
    queues: Mutex<HashMap<WorkQueue, Known>>,
}

#[derive(Debug, Default)]
struct Known {
    ring: Option<Ring>,
    /// Scans under way, and what was announced meanwhile: they may or may not have seen it.
    scans: usize,
    arrived: Arrivals,
    is_stale: bool,
    /// When the scan began whose result is the ring.
    scanned: Option<Instant>,
    /// How often something arrived.
    arrivals: u64,
    /// Whether any scan ended.
    is_begun: bool,
    /// Items that were claimed since the marks were stored, and when that was.
    unstored_items: usize,
    stored: Option<Instant>,
}

#[derive(Debug)]
struct Ring {
    known_until: Instant,
    empty_until: Instant,
    /// Until then a scan begins at the marks.
    marks_until: Instant,
    /// No place was left out.
    is_whole: bool,
    places: BTreeMap<(i16, OrganizationId), Place>,
}

#[derive(Debug)]
struct Place {
    /// Nothing claimable lies before.
    mark: Mark,
    is_claimable: bool,
    /// The mark as it was stored last.
    stored: Option<Mark>,
    /// The latest arrivals: which of the queue's it was, and the earliest `since` of it and those after it. Both ascend.
    latest: VecDeque<(u64, i64)>,
}

impl Place {
    fn new(mark: Mark) -> Self {
        Self { mark, is_claimable: true, stored: None, latest: VecDeque::new() }
    }

    fn arrive(&mut self, arrival: u64, since: i64) {
        self.is_claimable = true;
        self.mark = self.mark.min((since, i64::MIN));
        while self.latest.pop_back_if(|(_, later)| *later >= since).is_some() {}
        self.latest.push_back((arrival, since));
        if self.latest.len() > LATEST_ARRIVALS
            && let (Some((_, first)), Some(second)) = (self.latest.pop_front(), self.latest.front_mut())
        {
            // Coarser: the second seems to have come as early as the first.
            second.1 = first;
        }
    }

    /// The earliest `since` of what arrived after the queue had so many arrivals.
    fn earliest_after(&self, arrivals: u64) -> Option<i64> {
        self.latest.iter().find(|(arrival, _)| *arrival > arrivals).map(|(_, since)| *since)
    }
}

/// What a scan found: the places that have claimable work, best priority first, and where the first of it stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    pub(super) places: Vec<PlaceMark>,
    /// There are no more.
    pub(super) is_whole: bool,
}

/// What is to be done next for a claim.
#[derive(Debug, Clone, Copy)]
pub(super) enum Next {
    /// Claim this.
    Claim(Choice),
    /// Nothing is claimable.
    Nothing,
    /// Scan the queue.
    Scan,
}

/// What is to be claimed next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) queue: WorkQueue,
    pub(super) priority: i16,
    pub(super) organization: OrganizationId,
    pub(super) mark: Mark,
    arrivals: u64,
}

/// How far a claim came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reached {
    /// Nothing claimable lies before.
    pub(super) mark: Mark,
    /// Nothing claimable lies after it either.
    pub(super) is_end: bool,
}

impl Ring {
    fn offer(&mut self, number: u64, arrival: &Arrival) {
        // Where no place was left out, nothing else is there.
        let since = if self.is_whole { arrival.since } else { ANYWHERE };
        let key = (arrival.priority, arrival.organization);
        self.places.entry(key).or_insert_with(|| Place::new((since, i64::MIN))).arrive(number, arrival.since);
    }

    fn next(&self, queue: WorkQueue, after: Option<OrganizationId>, arrivals: u64) -> Next {
        let now = Instant::now();
        let mut claimable = self.places.iter().filter(|(_, place)| place.is_claimable);
        let Some((&(priority, first), place)) = claimable.next() else {
            return if self.is_whole && now < self.empty_until { Next::Nothing } else { Next::Scan };
        };
        if now >= self.known_until {
            return Next::Scan;
        }
        let choice = |organization: OrganizationId, place: &Place| {
            Next::Claim(Choice { queue, priority, organization, mark: place.mark, arrivals })
        };
        let later = after.and_then(|after| {
            let mut later = self.places.range((Bound::Excluded((priority, after)), Bound::Unbounded));
            later.find(|(_, place)| place.is_claimable).filter(|((its_priority, _), _)| *its_priority == priority)
        });
        later.map_or_else(|| choice(first, place), |(&(_, organization), place)| choice(organization, place))
    }
}

/// A scan under way; dropped, it was in vain.
pub(super) struct Scan<'a> {
    rings: &'a Rings,
    queue: WorkQueue,
    begun: Instant,
    /// The known places, and until when their marks are believed; `None` to look at everything.
    known: Option<(Vec<PlaceMark>, Instant)>,
    is_first: bool,
}

impl Drop for Scan<'_> {
    fn drop(&mut self) {
        let mut queues = self.rings.queues.lock();
        let known = queues.entry(self.queue).or_default();
        known.scans -= 1;
        if known.scans == 0 {
            known.arrived = Arrivals::default();
            known.is_stale = false;
        }
    }
}

impl Scan<'_> {
    /// The places before whose marks it need not look, in their order; `None` to look everywhere.
    pub(super) fn known(&self) -> Option<Vec<PlaceMark>> {
        self.known.as_ref().map(|(places, _)| places.clone())
    }

    /// Whether nothing was known of the queue before.
    pub(super) fn is_first(&self) -> bool {
        self.is_first
    }

    /// It begins at marks that were stored.
    pub(super) fn begin_at(&mut self, marks: Vec<PlaceMark>) {
        if !marks.is_empty() {
            self.known = Some((marks, self.begun + STORED_MARKS_FOR));
        }
    }

    /// It looks before the marks as well.
    pub(super) fn everywhere(mut self) -> Self {
        self.known = None;
        self
    }

    /// What it found.
    pub(super) fn finish(mut self, found: Found) {
        let mut queues = self.rings.queues.lock();
        let known = queues.entry(self.queue).or_default();
        let (now, took) = (Instant::now(), self.begun.elapsed());
        let until = |at_least: Duration| {
            let known_for = (took * KNOWN_FOR_SCANS).clamp(at_least, KNOWN_AT_MOST);
            now + if known.is_stale { STALE_AFTER } else { known_for }
        };
        let (known_until, empty_until) = (until(KNOWN_FOR), until(EMPTY_FOR));
        let everywhere = || (Vec::new(), now + MARKS_KNOWN_FOR.max(took * KNOWN_FOR_SCANS));
        let (marks, marks_until) = self.known.take().unwrap_or_else(everywhere);
        let mut places: BTreeMap<_, _> = marks
            .into_iter()
            .map(|(priority, organization, mark)| {
                ((priority, organization), Place { is_claimable: false, ..Place::new(mark) })
            })
            .collect();
        for (priority, organization, first) in found.places {
            places.insert((priority, organization), Place::new(first));
        }
        let mut ring = Ring { known_until, empty_until, marks_until, is_whole: found.is_whole, places };
        for arrival in known.arrived.iter() {
            // As if it came now: a claim that began before may have missed it.
            known.arrivals += 1;
            ring.offer(known.arrivals, &arrival);
        }
        known.ring = Some(ring);
        known.scanned = Some(self.begun);
        known.is_begun = true;
    }
}

impl Rings {
    /// The organization after `after`, of those with the best priority.
    pub(super) fn next(&self, queue: WorkQueue, after: Option<OrganizationId>) -> Next {
        let queues = self.queues.lock();
        let Some(known) = queues.get(&queue) else { return Next::Scan };
        known.ring.as_ref().map_or(Next::Scan, |ring| ring.next(queue, after, known.arrivals))
    }

    /// Whether a scan of the queue began and ended since then.
    pub(super) fn is_scanned_since(&self, queue: WorkQueue, since: Instant) -> bool {
        let queues = self.queues.lock();
        queues.get(&queue).and_then(|known| known.scanned).is_some_and(|scanned| scanned >= since)
    }

    /// The caller begins to scan a queue.
    pub(super) fn scan(&self, queue: WorkQueue) -> Scan<'_> {
        let mut queues = self.queues.lock();
        let known = queues.entry(queue).or_default();
        known.scans += 1;
        let begun = Instant::now();
        let ring = known.ring.as_ref().filter(|ring| ring.is_whole && begun < ring.marks_until);
        let is_first = !known.is_begun;
        let known = ring.map(|ring| {
            let places = ring.places.iter();
            let marks = places.map(|(&(priority, organization), place)| (priority, organization, place.mark)).collect();
            (marks, ring.marks_until)
        });
        Scan { rings: self, queue, begun, known, is_first }
    }

    /// Work became claimable.
    pub(super) fn offer(&self, arrivals: &Arrivals) {
        let mut queues = self.queues.lock();
        for arrival in arrivals.iter() {
            let known = queues.entry(arrival.queue).or_default();
            known.arrivals += 1;
            if let Some(ring) = &mut known.ring {
                ring.offer(known.arrivals, &arrival);
                if ring.places.len() > 2 * RING_SIZE {
                    // Bounded, whatever arrives; a scan tells what matters.
                    known.ring = None;
                }
            }
            if known.scans > 0 {
                if known.arrived.len() < ARRIVALS_DURING_SCAN {
                    known.arrived.add(arrival);
                } else {
                    known.is_stale = true;
                }
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

    /// A claim came so far.
    pub(super) fn advance(&self, choice: &Choice, reached: Reached) {
        self.with_place(choice, |place| {
            // What arrived meanwhile may stand before the mark, and have been too late for this claim.
            let missed = place.earliest_after(choice.arrivals);
            let mark = missed.map_or(reached.mark, |since| reached.mark.min((since, i64::MIN)));
            // Others may have come further.
            place.mark = place.mark.max(mark);
            place.is_claimable &= missed.is_some() || !reached.is_end;
        });
    }

    /// So many items of a queue were claimed; returns the marks that are to be stored now, in the order of their places.
    pub(super) fn take_unstored(&self, queue: WorkQueue, items: usize) -> Option<Vec<PlaceMark>> {
        let mut queues = self.queues.lock();
        let known = queues.get_mut(&queue)?;
        known.unstored_items += items;
        let is_due = known.unstored_items >= STORE_AFTER_ITEMS
            && known.stored.is_none_or(|stored| stored.elapsed() >= STORE_EVERY);
        let ring = known.ring.as_mut().filter(|_| is_due)?;
        (known.unstored_items, known.stored) = (0, Some(Instant::now()));
        let changed = ring.places.iter_mut().filter(|(_, place)| place.stored != Some(place.mark));
        let changed = changed.map(|(&(priority, organization), place)| {
            place.stored = Some(place.mark);
            (priority, organization, place.mark)
        });
        Some(changed.collect())
    }

    /// A claim found nothing.
    pub(super) fn exhaust(&self, choice: &Choice) {
        self.with_place(choice, |place| place.is_claimable &= place.earliest_after(choice.arrivals).is_some());
    }

    fn with_place(&self, choice: &Choice, change: impl FnOnce(&mut Place)) {
        let mut queues = self.queues.lock();
        let ring = queues.get_mut(&choice.queue).and_then(|known| known.ring.as_mut());
        if let Some(place) = ring.and_then(|ring| ring.places.get_mut(&(choice.priority, choice.organization))) {
            change(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use tidemill_types::{Action, Signal};
    use uuid::Uuid;

    use super::*;

    const QUEUE: WorkQueue = WorkQueue { signal: Signal::Logs, action: Action::Job };

    fn owner(number: u128) -> OrganizationId {
        OrganizationId(Uuid::from_u128(number))
    }

    fn arrivals(priority: i16, organization: u128, since: i64) -> Arrivals {
        [Arrival { queue: QUEUE, priority, organization: owner(organization), since }].into_iter().collect()
    }

    /// The first of each stands at (1, 1).
    fn found(places: &[(i16, u128)]) -> Found {
        let places = places.iter().map(|(priority, number)| (*priority, owner(*number), (1, 1))).collect();
        Found { places, is_whole: true }
    }

    fn choice(rings: &Rings, after: Option<u128>) -> Choice {
        match rings.next(QUEUE, after.map(owner)) {
            Next::Claim(choice) => choice,
            other => panic!("{other:?}"),
        }
    }

    fn turn(rings: &Rings, after: Option<u128>) -> (i16, u128, Mark) {
        let choice = choice(rings, after);
        (choice.priority, choice.organization.0.as_u128(), choice.mark)
    }

    fn reached(mark: Mark, is_end: bool) -> Reached {
        Reached { mark, is_end }
    }

    #[test]
    fn the_ring_goes_round_and_leaves_out_who_has_nothing() {
        let rings = Rings::default();
        assert!(matches!(rings.next(QUEUE, None), Next::Scan), "nothing is known");
        rings.scan(QUEUE).finish(found(&[(7, 1), (7, 2), (7, 3), (9, 2)]));
        for (after, expected) in [(None, 1), (Some(1), 2), (Some(2), 3), (Some(3), 1)] {
            assert_eq!(turn(&rings, after), (7, expected, (1, 1)));
        }
        let second = choice(&rings, Some(1));
        rings.advance(&second, reached((10, 5), false));
        assert_eq!(turn(&rings, Some(1)), (7, 2, (10, 5)));
        rings.exhaust(&second);
        assert_eq!(turn(&rings, Some(1)), (7, 3, (1, 1)));
        for _ in 0..2 {
            rings.advance(&choice(&rings, None), reached((20, 1), true));
        }
        assert_eq!(turn(&rings, None), (9, 2, (1, 1)), "then comes worse work");
        rings.exhaust(&choice(&rings, None));
        assert!(matches!(rings.next(QUEUE, None), Next::Nothing));
        rings.forget([QUEUE]);
        assert!(matches!(rings.next(QUEUE, None), Next::Scan));
    }

    #[test]
    fn marks_follow_claims_and_yield_to_what_arrives_before_them() {
        let rings = Rings::default();
        let begun = Instant::now();
        assert!(!rings.is_scanned_since(QUEUE, begun));
        rings.scan(QUEUE).finish(found(&[(0, 1)]));
        assert!(rings.is_scanned_since(QUEUE, begun) && !rings.is_scanned_since(QUEUE, Instant::now()));
        rings.advance(&choice(&rings, None), reached((10, 5), true));
        rings.offer(&arrivals(0, 1, 30));
        assert_eq!(turn(&rings, None), (0, 1, (10, 5)), "a place that had nothing left keeps its mark");
        rings.offer(&arrivals(0, 1, 8));
        assert_eq!(turn(&rings, None), (0, 1, (8, i64::MIN)));
        rings.offer(&arrivals(0, 1, ANYWHERE));
        assert_eq!(turn(&rings, None), (0, 1, (ANYWHERE, i64::MIN)));
        rings.offer(&arrivals(0, 2, 40));
        assert_eq!(turn(&rings, Some(1)), (0, 2, (40, i64::MIN)), "a new place has nothing older");
    }

    #[test]
    fn what_arrives_during_a_claim_is_not_overlooked() {
        let rings = Rings::default();
        rings.scan(QUEUE).finish(found(&[(0, 1)]));
        let (one, two) = (choice(&rings, None), choice(&rings, None));
        rings.offer(&arrivals(0, 1, 50));
        rings.offer(&arrivals(0, 1, 7));
        rings.advance(&one, reached((20, 3), true));
        assert_eq!(turn(&rings, None), (0, 1, (7, i64::MIN)), "it was too late for this claim");
        let three = choice(&rings, None);
        rings.advance(&three, reached((60, 1), true));
        assert!(matches!(rings.next(QUEUE, None), Next::Nothing), "and in time for this one");
        rings.exhaust(&two);
        rings.advance(&two, reached((20, 3), false));
        rings.offer(&arrivals(0, 1, 70));
        assert_eq!(turn(&rings, None), (0, 1, (60, 1)), "who is late does not bring the mark back");
    }

    #[test]
    fn many_arrivals_are_told_coarsely_but_never_too_late() {
        let mut place = Place::new((0, 0));
        for (number, since) in (1..).zip(0..1_000) {
            place.arrive(number, since);
        }
        assert!(place.latest.len() <= LATEST_ARRIVALS);
        for arrivals in [0, 1, 500, 936, 937, 990, 999] {
            assert!(place.earliest_after(arrivals).is_some_and(|since| since <= arrivals as i64), "{arrivals}");
        }
        assert_eq!((place.earliest_after(990), place.earliest_after(1_000)), (Some(990), None));
    }

    #[test]
    fn arrivals_make_a_scan_needless_where_the_queue_was_known() {
        let rings = Rings::default();
        rings.offer(&arrivals(5, 9, 3));
        assert!(matches!(rings.next(QUEUE, None), Next::Scan), "there may be better work than what arrived");
        rings.scan(QUEUE).finish(found(&[]));
        assert!(matches!(rings.next(QUEUE, None), Next::Nothing));
        rings.offer(&arrivals(5, 9, 3));
        assert_eq!(turn(&rings, None), (5, 9, (3, i64::MIN)));
        rings.offer(
            &[(6, 1), (4, 2)]
                .iter()
                .flat_map(|(priority, number)| arrivals(*priority, *number, 3).iter().collect::<Vec<_>>())
                .collect(),
        );
        assert_eq!(turn(&rings, None), (4, 2, (3, i64::MIN)), "the best priority is first");
    }

    #[test]
    fn a_ring_that_left_places_out_is_scanned_again() {
        let rings = Rings::default();
        rings.scan(QUEUE).finish(Found { is_whole: false, ..found(&[(1, 1)]) });
        rings.offer(&arrivals(1, 2, 30));
        assert_eq!(turn(&rings, Some(1)), (1, 2, (ANYWHERE, i64::MIN)), "it may be one of those");
        for _ in 0..2 {
            rings.exhaust(&choice(&rings, None));
        }
        assert!(matches!(rings.next(QUEUE, None), Next::Scan));
    }

    #[test]
    fn a_scan_begins_at_the_marks_until_they_are_old() {
        let rings = Rings::default();
        let first = rings.scan(QUEUE);
        assert_eq!(first.known(), None, "nothing is known");
        first.finish(found(&[(0, 1), (0, 2)]));
        rings.advance(&choice(&rings, None), reached((10, 5), true));
        rings.offer(&arrivals(3, 1, 44));
        let scan = rings.scan(QUEUE);
        let known = [(0, owner(1), (10, 5)), (0, owner(2), (1, 1)), (3, owner(1), (44, i64::MIN))];
        assert_eq!(scan.known().as_deref(), Some(&known[..]));
        scan.finish(Found { places: vec![(0, owner(2), (9, 9))], is_whole: true });
        assert_eq!(turn(&rings, None), (0, 2, (9, 9)), "the first has still nothing");
        rings.advance(&choice(&rings, None), reached((30, 5), true));
        assert!(matches!(rings.next(QUEUE, None), Next::Nothing));
        rings.offer(&arrivals(0, 1, 20));
        assert_eq!(turn(&rings, None), (0, 1, (10, 5)), "and kept its mark");
        rings.forget([QUEUE]);
        assert_eq!(rings.scan(QUEUE).known(), None);
    }

    #[test]
    fn a_first_scan_begins_at_stored_marks() {
        let rings = Rings::default();
        let mut scan = rings.scan(QUEUE);
        assert!(scan.is_first());
        scan.begin_at(vec![(0, owner(1), (10, 5))]);
        assert_eq!(scan.known(), Some(vec![(0, owner(1), (10, 5))]));
        scan.finish(Found { places: vec![(0, owner(1), (12, 6))], is_whole: true });
        assert_eq!(turn(&rings, None), (0, 1, (12, 6)));
        rings.forget([QUEUE]);
        assert!(!rings.scan(QUEUE).is_first(), "from now on this process is told what comes back");
    }

    #[test]
    fn marks_are_stored_now_and_then() {
        let rings = Rings::default();
        assert_eq!(rings.take_unstored(QUEUE, 5_000), None, "nothing is known");
        rings.scan(QUEUE).finish(found(&[(0, 1), (0, 2)]));
        rings.advance(&choice(&rings, None), reached((10, 5), false));
        assert_eq!(rings.take_unstored(QUEUE, STORE_AFTER_ITEMS - 1), None, "that is not worth it");
        assert_eq!(rings.take_unstored(QUEUE, 1), Some(vec![(0, owner(1), (10, 5)), (0, owner(2), (1, 1))]));
        assert_eq!(rings.take_unstored(QUEUE, 5_000), None, "they have just been stored");
        rings.advance(&choice(&rings, None), reached((20, 5), false));
        std::thread::sleep(STORE_EVERY);
        assert_eq!(rings.take_unstored(QUEUE, 0), Some(vec![(0, owner(1), (20, 5))]), "what changed");
    }

    #[test]
    fn what_arrives_during_a_claim_and_a_scan_is_not_overlooked() {
        let rings = Rings::default();
        rings.scan(QUEUE).finish(found(&[(0, 1)]));
        for since in 0..5 {
            rings.offer(&arrivals(0, 1, since));
        }
        let claim = choice(&rings, None);
        let scan = rings.scan(QUEUE);
        rings.offer(&arrivals(0, 1, 7));
        scan.finish(found(&[(0, 1)]));
        rings.advance(&claim, reached((20, 3), true));
        assert_eq!(turn(&rings, None), (0, 1, (7, i64::MIN)));
    }

    #[test]
    fn what_arrives_during_a_scan_is_not_overlooked() {
        let rings = Rings::default();
        let scan = rings.scan(QUEUE);
        rings.offer(&arrivals(3, 8, 12));
        scan.finish(found(&[]));
        assert_eq!(turn(&rings, None), (3, 8, (12, i64::MIN)));
        let scan = rings.scan(QUEUE);
        rings.forget([QUEUE]);
        scan.finish(found(&[(3, 8)]));
        assert_eq!(turn(&rings, None), (3, 8, (1, 1)));
        std::thread::sleep(STALE_AFTER);
        assert!(matches!(rings.next(QUEUE, None), Next::Scan), "it is scanned again");
    }

    #[test]
    fn arrivals_of_one_place_are_one() {
        let mut all = arrivals(1, 1, 9);
        for since in [12, 4, 7] {
            all.add(Arrival { queue: QUEUE, priority: 1, organization: owner(1), since });
        }
        assert_eq!(all, arrivals(1, 1, 4));
    }
}
