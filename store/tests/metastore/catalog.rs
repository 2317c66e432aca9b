//! The catalog: publication, conflicts, the change log, hours, adoption.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemill_store::metastore::{DoomedObject, Publication, Refusal, SegmentFilter};
use tidemill_store::{Metastore, MetastoreOptions};
use tidemill_types::{
    ByteRange, CatalogSeq, Day, ErrorKind, Hour, Level, SegmentId, SegmentMeta, ServiceSet, Signal, Tier, TimeRange,
    TimestampNs,
};
use uuid::Uuid;

use crate::world::{
    Place, admit, assert_kind, claim, enqueue_jobs, job, numbers, organization, publish, push, quick, segment,
    with_segments,
};

async fn live(store: &dyn Metastore) -> Vec<SegmentMeta> {
    store.segments(&SegmentFilter::default()).await.expect("lists")
}

pub async fn every_field_of_a_segment_is_kept(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    let odd = SegmentMeta {
        id: SegmentId(Uuid::from_u128(u128::MAX)),
        signal: Signal::Metrics,
        tier: Tier(3_600),
        level: Level(2),
        day: Day(-3),
        time: TimeRange { start: TimestampNs(i64::MIN + 1), end: TimestampNs(i64::MAX) },
        ingest_day: Day(i32::MAX),
        rows: u64::MAX >> 1,
        bytes: 1 << 40,
        instance_num: -7,
        etag: None,
        footer: ByteRange { offset: 1 << 39, len: 5 },
        footer_hash: [255; 32],
        index: ByteRange { offset: 0, len: 0 },
        services: ServiceSet::Bloom(vec![0xa5; 256]),
        covers_ingest_seq: i64::MAX,
        ..segment(owner, 1)
    };
    publish(&*store, owner, with_segments(vec![odd.clone(), segment(owner, 2)])).await;
    let mut found = place.open().await.segments(&SegmentFilter::default()).await.expect("lists");
    found.sort_by_key(|segment| segment.rows);
    assert_eq!(found, [segment(owner, 2), odd]);
}

pub async fn a_publication_commits_together(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    publish(&*store, owner, with_segments(vec![segment(owner, 1), segment(owner, 2)])).await;
    let input = push(owner, 1);
    admit(&*store, input).await;
    let bundle = claim(&*store, 1).await;
    let publication = Publication {
        segments: vec![segment(owner, 3)],
        replaces: vec![segment(owner, 1).id, segment(owner, 2).id],
        raised_hours: vec![Hour(5), Hour(6)],
        enqueue: vec![job(owner, 42)],
        refusals: vec![Refusal {
            organization: Some(owner),
            signal: Some(Signal::Logs),
            bucket: "lake".to_owned(),
            object_key: "raw".to_owned(),
            records_refused: 0,
            records_kept: 0,
            reason: "truncated gzip".to_owned(),
            at: TimestampNs(1),
        }],
        orphans: vec![DoomedObject { bucket: "lake".to_owned(), object_key: "db/orphan".to_owned() }],
        trace_days: Vec::new(),
    };
    let seq = store.publish(bundle.token, &publication).await.expect("is published");
    assert_eq!(store.catalog_changes(CatalogSeq(0), 10).await.expect("reads").seq, seq);
    assert_eq!(live(&*store).await, [segment(owner, 3)]);
    assert_eq!(store.ingest_seqs(owner, Signal::Logs, &[Hour(5), Hour(6), Hour(7)]).await.expect("reads"), [1, 1, 0]);
    assert_eq!(numbers(&claim(&*store, 1).await), [42]);
    let inbox = store.inbox(Some(owner), 10).await.expect("lists");
    assert_eq!(inbox.iter().map(|entry| entry.reason.as_deref()).collect::<Vec<_>>(), [Some("truncated gzip")]);
    let doomed = store.doomed_objects(10).await.expect("lists");
    assert_eq!(doomed, publication.orphans, "the rest keeps its grace");
}

pub async fn a_publication_that_conflicts_changes_nothing(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    publish(&*store, owner, with_segments(vec![segment(owner, 1)])).await;
    let before = store.catalog_changes(CatalogSeq(0), 10).await.expect("reads");
    admit(&*store, push(owner, 1)).await;
    let bundle = claim(&*store, 1).await;
    let publication = Publication {
        segments: vec![segment(owner, 3)],
        replaces: vec![segment(owner, 1).id, segment(owner, 2).id],
        raised_hours: vec![Hour(5)],
        enqueue: vec![job(owner, 42)],
        ..Publication::default()
    };
    assert_kind(store.publish(bundle.token, &publication).await, ErrorKind::Conflict);
    let after = store.catalog_changes(CatalogSeq(0), 10).await.expect("reads");
    assert_eq!((after.seq, after.added), (before.seq, vec![segment(owner, 1)]));
    assert_eq!(store.ingest_seqs(owner, Signal::Logs, &[Hour(5)]).await.expect("reads"), [0]);
    assert_eq!(
        store.queue(None, false, 10).await.expect("lists").len(),
        1,
        "the item is still there, its follow-up is not"
    );
    let publication = Publication { replaces: vec![segment(owner, 1).id], ..publication };
    store.publish(bundle.token, &publication).await.expect("the lease is still current");
    assert_eq!(live(&*store).await, [segment(owner, 3)]);
}

pub async fn publishing_twice_is_refused(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    enqueue_jobs(&*store, owner, 0..1).await;
    let bundle = claim(&*store, 1).await;
    let publication = with_segments(vec![segment(owner, 1)]);
    let (one, two) = tokio::join!(store.publish(bundle.token, &publication), store.publish(bundle.token, &publication));
    assert_eq!(u8::from(one.is_ok()) + u8::from(two.is_ok()), 1, "{one:?} {two:?}");
    assert_kind(store.publish(bundle.token, &publication).await, ErrorKind::Conflict);
    assert_eq!(live(&*store).await.len(), 1);
}

pub async fn segments_are_filtered(place: Place) {
    let store = place.open().await;
    let (one, two) = (organization(&*store, 1).await, organization(&*store, 2).await);
    let day = Day(19_388).range();
    let variants = vec![
        segment(one, 1),
        segment(two, 2),
        SegmentMeta { signal: Signal::Traces, ..segment(one, 3) },
        SegmentMeta { tier: Tier(60), ..segment(one, 4) },
        SegmentMeta {
            day: Day(19_388),
            time: TimeRange { start: day.start, end: day.start.plus_ns(10) },
            ..segment(one, 5)
        },
    ];
    publish(&*store, one, with_segments(variants.clone())).await;
    let ids = async |filter: SegmentFilter| {
        let mut rows: Vec<u64> = Vec::new();
        for found in store.segments(&filter).await.expect("lists") {
            rows.push(1 + variants.iter().position(|variant| *variant == found).expect("is one of them") as u64);
        }
        rows.sort_unstable();
        rows
    };
    let all = SegmentFilter::default();
    assert_eq!(ids(all.clone()).await, [1, 2, 3, 4, 5]);
    assert_eq!(ids(SegmentFilter { organization: Some(two), ..all.clone() }).await, [2]);
    assert_eq!(ids(SegmentFilter { signal: Some(Signal::Traces), ..all.clone() }).await, [3]);
    assert_eq!(ids(SegmentFilter { tier: Some(Tier(60)), ..all.clone() }).await, [4]);
    assert_eq!(ids(SegmentFilter { day: Some(Day(19_388)), ..all.clone() }).await, [5]);
    let just_before = TimeRange { start: day.start.plus_ns(-5), end: day.start };
    assert_eq!(
        ids(SegmentFilter { time: Some(just_before), ..all.clone() }).await,
        Vec::<u64>::new(),
        "ranges are half-open"
    );
    let last_instant = TimeRange { start: day.start.plus_ns(9), end: day.end };
    assert_eq!(ids(SegmentFilter { time: Some(last_instant), organization: Some(one), ..all.clone() }).await, [5]);
    assert_eq!(ids(SegmentFilter { id: Some(variants[2].id), ..all.clone() }).await, [3]);
    assert_eq!(
        ids(SegmentFilter { id: Some(variants[2].id), organization: Some(two), ..all.clone() }).await,
        Vec::<u64>::new()
    );

    let latest = store.segments(&SegmentFilter { latest: Some(3), ..all }).await.expect("lists");
    let mut expected = variants.clone();
    expected.sort_by_key(|segment| (std::cmp::Reverse(segment.time.end), segment.id));
    assert_eq!(latest, expected[..3]);

    let totals = store.segment_totals().await.expect("counts");
    let mut counted: BTreeMap<_, (u64, u64, u64)> = BTreeMap::new();
    for segment in &variants {
        let sums = counted.entry((segment.signal.code(), segment.tier, segment.level)).or_default();
        *sums = (sums.0 + 1, sums.1 + segment.rows, sums.2 + segment.bytes);
    }
    let told = totals.iter().map(|it| ((it.signal.code(), it.tier, it.level), (it.segments, it.rows, it.bytes)));
    assert_eq!(told.collect::<Vec<_>>(), counted.into_iter().collect::<Vec<_>>());
}

pub async fn changes_come_in_pages_and_in_commit_order(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    publish(&*store, owner, with_segments(vec![segment(owner, 1)])).await;
    publish(&*store, owner, with_segments((2..=4).map(|number| segment(owner, number)).collect())).await;
    publish(&*store, owner, with_segments(vec![segment(owner, 5)])).await;
    let mut pages = Vec::new();
    let mut at = CatalogSeq(0);
    loop {
        let page = store.catalog_changes(at, 2).await.expect("reads");
        at = page.seq;
        pages.push(page.added.len());
        if !page.more {
            break;
        }
    }
    assert_eq!(pages, [1, 3, 1], "positions are never torn");
    publish(
        &*store,
        owner,
        Publication {
            segments: vec![segment(owner, 6)],
            replaces: vec![segment(owner, 2).id],
            ..Publication::default()
        },
    )
    .await;
    let page = store.catalog_changes(at, 2).await.expect("reads");
    assert_eq!((page.added, page.removed, page.more), (vec![segment(owner, 6)], vec![segment(owner, 2).id], false));
    let nothing = store.catalog_changes(page.seq, 2).await.expect("reads");
    assert_eq!((nothing.added.len(), nothing.removed.len(), nothing.seq), (0, 0, page.seq));
}

pub async fn changes_of_another_process_are_seen_at_once(place: Place) {
    let (here, there) = (place.open().await, place.open().await);
    let owner = organization(&*here, 1).await;
    let mut at = there.catalog_changes(CatalogSeq(0), 10).await.expect("reads").seq;
    for number in 1..=5 {
        publish(&*here, owner, with_segments(vec![segment(owner, number)])).await;
        let page = there.catalog_changes(at, 10).await.expect("reads");
        assert_eq!(page.added, vec![segment(owner, number)]);
        // What has not changed is not there again, however often one looks, and whatever else is committed.
        for look in 0..2 {
            let nothing = there.catalog_changes(page.seq, 10).await.expect("reads");
            assert_eq!((nothing.added.len(), nothing.seq), (0, page.seq));
            admit(&*here, push(owner, 100 + 2 * number + look)).await;
        }
        // Who comes later begins from nothing.
        let all = there.catalog_changes(CatalogSeq(0), 10).await.expect("reads");
        assert_eq!((all.added.len() as u64, all.seq), (number, page.seq));
        at = page.seq;
    }
}

pub async fn a_follower_sees_what_concurrent_publishers_did(place: Place) {
    const PUBLISHERS: u64 = 4;
    const ROUNDS: u64 = 12;
    let stores = [place.open().await, place.open().await];
    let owner = organization(&*stores[0], 1).await;
    enqueue_jobs(&*stores[0], owner, 0..PUBLISHERS * ROUNDS).await;
    let mut publishers = tokio::task::JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let store = stores[(publisher % 2) as usize].clone();
        publishers.spawn(async move {
            for round in 0..ROUNDS {
                let bundle = claim(&*store, 1).await;
                let number = 1 + publisher * 1_000 + round;
                // Each publication replaces the one before the last of the same publisher.
                let replaces = if round >= 2 { vec![segment(owner, number - 2).id] } else { vec![] };
                let publication = Publication {
                    segments: vec![segment(owner, number)],
                    replaces,
                    raised_hours: vec![Hour(round as i32)],
                    ..Publication::default()
                };
                store.publish(bundle.token, &publication).await.expect("is current");
            }
        });
    }
    let mut follower = Follower::default();
    while !publishers.is_empty() {
        follower.follow(&*stores[0]).await;
        while publishers.try_join_next().is_some_and(|ended| ended.map(|()| true).expect("published")) {}
    }
    follower.follow(&*stores[1]).await;
    let live: BTreeMap<SegmentId, SegmentMeta> = live(&*stores[0]).await.into_iter().map(|one| (one.id, one)).collect();
    assert_eq!(live.len() as u64, 2 * PUBLISHERS);
    assert_eq!(follower.segments, live);
    assert_eq!(follower.hours.len() as u64, ROUNDS);
    assert!(follower.hours.values().all(|seq| *seq == PUBLISHERS as i64), "{:?}", follower.hours);
}

#[derive(Default)]
struct Follower {
    at: CatalogSeq,
    segments: BTreeMap<SegmentId, SegmentMeta>,
    hours: BTreeMap<Hour, i64>,
}

impl Follower {
    async fn follow(&mut self, store: &dyn Metastore) {
        loop {
            let page = store.catalog_changes(self.at, 3).await.expect("reads");
            assert!(page.seq >= self.at);
            self.at = page.seq;
            self.segments.extend(page.added.into_iter().map(|one| (one.id, one)));
            for id in page.removed {
                // Added and removed between two looks, or known.
                self.segments.remove(&id);
            }
            for (_, _, hour, seq) in page.hours {
                assert!(self.hours.insert(hour, seq).is_none_or(|before| before <= seq));
            }
            if !page.more {
                return;
            }
        }
    }
}

pub async fn a_pruned_change_log_is_said(place: Place) {
    let store = place.open_with(MetastoreOptions { change_log_memory: Duration::ZERO, ..quick() }).await;
    let owner = organization(&*store, 1).await;
    publish(&*store, owner, with_segments(vec![segment(owner, 1)])).await;
    let early = store.catalog_changes(CatalogSeq(0), 10).await.expect("reads").seq;
    publish(&*store, owner, with_segments(vec![segment(owner, 2)])).await;
    let replacing = Publication { replaces: vec![segment(owner, 1).id], ..Publication::default() };
    publish(&*store, owner, replacing).await;
    let late = store.catalog_changes(early, 10).await.expect("reads").seq;
    store.prune().await.expect("prunes");
    assert_kind(store.catalog_changes(early, 10).await, ErrorKind::Conflict);
    assert!(store.catalog_changes(late, 10).await.expect("is within the log").added.is_empty());
    assert_eq!(store.catalog_changes(CatalogSeq(0), 10).await.expect("reads").added, [segment(owner, 2)]);
}

pub async fn hours_are_raised_by_ingest(place: Place) {
    let store = place.open().await;
    let (one, two) = (organization(&*store, 1).await, organization(&*store, 2).await);
    let hours = |hours: &[i32]| Publication {
        raised_hours: hours.iter().map(|hour| Hour(*hour)).collect(),
        ..Default::default()
    };
    publish(&*store, one, hours(&[1, 2])).await;
    publish(&*store, one, hours(&[2])).await;
    publish(&*store, two, hours(&[2])).await;
    let asked = [Hour(2), Hour(1), Hour(9)];
    assert_eq!(store.ingest_seqs(one, Signal::Logs, &asked).await.expect("reads"), [2, 1, 0]);
    assert_eq!(store.ingest_seqs(two, Signal::Logs, &asked).await.expect("reads"), [1, 0, 0]);
    assert_eq!(store.ingest_seqs(one, Signal::Metrics, &asked).await.expect("reads"), [0, 0, 0]);
    let delta = store.catalog_changes(CatalogSeq(0), 10).await.expect("reads");
    let mut raised: Vec<_> = delta.hours.iter().map(|(owner, _, hour, seq)| (*owner, hour.0, *seq)).collect();
    raised.sort_unstable();
    assert_eq!(raised, [(one, 1, 1), (one, 2, 2), (two, 2, 1)]);
}

pub async fn retiring_and_adopting(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    publish(&*store, owner, with_segments(vec![segment(owner, 1), segment(owner, 2)])).await;
    let ids = [segment(owner, 1).id, segment(owner, 9).id];
    assert_eq!(store.retire_segments(&ids).await.expect("retires"), 1);
    assert_eq!(live(&*store).await, [segment(owner, 2)]);
    // What was retired is still in the bucket for its grace, and must not come back.
    let found = [segment(owner, 1), segment(owner, 2), segment(owner, 3)];
    let mut unsorted = found.clone();
    unsorted.reverse();
    assert_eq!(store.adopt_segments(&unsorted).await.expect("adopts"), 1);
    assert_eq!(store.adopt_segments(&found).await.expect("adopts"), 0);
    assert_eq!(live(&*store).await.len(), 2);
}

pub async fn a_row_above_one_kibibyte_is_refused(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    let names = (0..32).map(|number| format!("{number:->60}")).collect();
    let large = SegmentMeta { services: ServiceSet::Names(names), ..segment(owner, 1) };
    enqueue_jobs(&*store, owner, 0..1).await;
    let bundle = claim(&*store, 1).await;
    assert_kind(store.publish(bundle.token, &with_segments(vec![large])).await, ErrorKind::Invalid);
    assert!(live(&*store).await.is_empty());
}
