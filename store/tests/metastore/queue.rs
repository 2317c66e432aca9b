//! The work queue: order, budgets, fairness, tokens, keys, views.

use std::time::Duration;

use tidemill_store::Metastore;
use tidemill_store::metastore::{Backlog, ClaimRequest, NewInput, NewWork};
use tidemill_types::{Action, Day, ErrorKind, LeaseToken, Signal, Tier, WorkQueue};
use uuid::Uuid;

use crate::world::{
    JOBS, LOGS, Place, admit, assert_kind, claim, doomed_request, enqueue_jobs, job, numbers, organization, push,
    request,
};

pub async fn the_best_priority_and_the_oldest_go_first(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    for (number, priority) in [(0, 20), (1, 10), (2, 20), (3, 0), (4, 10)] {
        store.enqueue(&[NewWork { priority, ..job(owner, number) }]).await.expect("is enqueued");
    }
    let mut order = Vec::new();
    while let Some(bundle) = store.claim(&request(10)).await.expect("claims") {
        order.push(numbers(&bundle));
    }
    assert_eq!(order, [vec![3], vec![1, 4], vec![0, 2]]);
}

pub async fn bundles_keep_their_budgets(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    let jobs: Vec<NewWork> = (0..6).map(|number| NewWork { size_bytes: 40, ..job(owner, number) }).collect();
    store.enqueue(&jobs).await.expect("are enqueued");
    let small = ClaimRequest { max_bytes: 100, ..request(10) };
    assert_eq!(numbers(&store.claim(&small).await.expect("claims").expect("has work")), [0, 1]);
    let tiny = ClaimRequest { max_bytes: 1, ..request(10) };
    assert_eq!(numbers(&store.claim(&tiny).await.expect("claims").expect("has work")), [2], "at least one");
    assert_eq!(numbers(&claim(&*store, 2).await), [3, 4]);
    assert_eq!(numbers(&claim(&*store, 2).await), [5]);
    assert!(store.claim(&request(1)).await.expect("claims").is_none());
}

pub async fn a_bundle_has_one_organization_and_one_instance(place: Place) {
    let store = place.open().await;
    let (one, two) = (organization(&*store, 1).await, organization(&*store, 2).await);
    for (owner, instance_num, number) in [(one, 1, 0), (two, 1, 1), (one, 2, 2), (one, 1, 3), (two, 1, 4)] {
        store.enqueue(&[NewWork { instance_num, ..job(owner, number) }]).await.expect("is enqueued");
    }
    admit(&*store, NewInput { priority: 0, ..push(one, 1) }).await;
    let mut bundles = Vec::new();
    let request = ClaimRequest { queues: vec![JOBS, LOGS], ..request(10) };
    while let Some(bundle) = store.claim(&request).await.expect("claims") {
        let numbers = if bundle.queue == JOBS { numbers(&bundle) } else { Vec::new() };
        bundles.push((bundle.organization, bundle.queue, bundle.instance_num, numbers));
    }
    bundles.sort_by_key(|(organization, queue, instance, _)| (*organization, queue.code(), *instance));
    let expected =
        [(one, LOGS, 1, vec![]), (one, JOBS, 1, vec![0, 3]), (one, JOBS, 2, vec![2]), (two, JOBS, 1, vec![1, 4])];
    assert_eq!(bundles, expected);
}

pub async fn organizations_take_turns(place: Place) {
    let store = place.open().await;
    let mut owners = Vec::new();
    for number in 1..=3 {
        owners.push(organization(&*store, number).await);
    }
    enqueue_jobs(&*store, owners[0], 0..50).await;
    enqueue_jobs(&*store, owners[1], 0..2).await;
    enqueue_jobs(&*store, owners[2], 0..2).await;
    let mut after = None;
    let mut turns = Vec::new();
    for _ in 0..8 {
        let request = ClaimRequest { after, ..request(1) };
        let bundle = store.claim(&request).await.expect("claims").expect("has work");
        after = Some(bundle.organization);
        turns.push(owners.iter().position(|owner| *owner == bundle.organization).expect("is one of them"));
    }
    assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0, 0]);
}

pub async fn claimers_never_share_an_item(place: Place) {
    const ITEMS: u64 = 300;
    let stores = [place.open().await, place.open().await];
    let owner = organization(&*stores[0], 1).await;
    enqueue_jobs(&*stores[0], owner, 0..ITEMS).await;
    let mut claimers = tokio::task::JoinSet::new();
    for claimer in 0..6 {
        let store = stores[claimer % 2].clone();
        claimers.spawn(async move {
            let mut claimed = Vec::new();
            while let Some(bundle) = store.claim(&request(7)).await.expect("claims") {
                claimed.extend(numbers(&bundle));
                assert!(store.complete(&[bundle.token]).await.expect("completes").is_empty());
            }
            claimed
        });
    }
    let mut all: Vec<u64> = claimers.join_all().await.into_iter().flatten().collect();
    all.sort_unstable();
    // A claimer may find nothing while others hold the rest, but no item is given twice and none is forgotten.
    assert_eq!(all, (0..ITEMS).collect::<Vec<_>>());
}

pub async fn only_the_current_token_is_accepted(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    enqueue_jobs(&*store, owner, 0..1).await;
    let stranger = LeaseToken(Uuid::new_v4());
    assert_all_refused(&*store, stranger).await;

    // Over by the clock, but nobody else has it: still current.
    let late = store.claim(&doomed_request(1)).await.expect("claims").expect("has work");
    store.extend_lease(late.token, Duration::ZERO).await.expect("is current");
    let next = claim(&*store, 1).await;
    assert_eq!(numbers(&next), [0]);
    assert_all_refused(&*store, late.token).await;
    store.extend_lease(next.token, Duration::from_secs(60)).await.expect("is current");
    store.publish(next.token, &Default::default()).await.expect("is current");
    assert_all_refused(&*store, next.token).await;

    enqueue_jobs(&*store, owner, 1..2).await;
    let late = store.claim(&doomed_request(1)).await.expect("claims").expect("has work");
    store.publish(late.token, &Default::default()).await.expect("is current, whatever the clock says");
    assert!(store.queue(None, false, 10).await.expect("lists").is_empty());
}

async fn assert_all_refused(store: &dyn Metastore, token: LeaseToken) {
    assert_kind(store.publish(token, &Default::default()).await, ErrorKind::Conflict);
    assert_kind(store.fail(token, "x", false).await, ErrorKind::Conflict);
    assert_kind(store.hand_back(token).await, ErrorKind::Conflict);
    assert_kind(store.extend_lease(token, Duration::from_secs(1)).await, ErrorKind::Conflict);
    assert_eq!(store.complete(&[token]).await.expect("answers"), [token]);
}

pub async fn handing_back_is_no_attempt(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    enqueue_jobs(&*store, owner, 0..2).await;
    for _ in 0..5 {
        let bundle = claim(&*store, 2).await;
        assert_eq!(numbers(&bundle), [0, 1]);
        assert!(bundle.items.iter().all(|item| item.failures == 0 && item.crashes == 0));
        store.hand_back(bundle.token).await.expect("is current");
    }
}

pub async fn delayed_work_waits(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    let later = NewWork { delay: Duration::from_secs(3_600), ..job(owner, 0) };
    store.enqueue(&[later]).await.expect("is enqueued");
    assert!(store.claim(&request(1)).await.expect("claims").is_none());
    let backlog = backlog_of(&*store, JOBS).await;
    assert_eq!((backlog.runnable, backlog.delayed, backlog.oldest), (0, 1, None));
    enqueue_jobs(&*store, owner, 1..2).await;
    assert_eq!(numbers(&claim(&*store, 10).await), [1]);
}

async fn backlog_of(store: &dyn Metastore, queue: WorkQueue) -> Backlog {
    let all = store.backlog().await.expect("counts");
    all.into_iter().find(|backlog| backlog.queue == queue).expect("every queue is listed")
}

pub async fn enqueueing_a_key_again_runs_it_once_more(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    let keyed = |number, delay| NewWork { dedupe_key: Some("hour".to_owned()), delay, ..job(owner, number) };
    store.enqueue(&[keyed(1, Duration::from_secs(3_600)), keyed(2, Duration::ZERO)]).await.expect("are enqueued");
    store.enqueue(&[keyed(3, Duration::from_secs(3_600))]).await.expect("is enqueued");
    let bundle = claim(&*store, 10).await;
    assert_eq!(numbers(&bundle), [3], "one item, its time moved earlier, its payload the latest");
    store.enqueue(&[keyed(4, Duration::ZERO), keyed(5, Duration::ZERO)]).await.expect("are enqueued");
    assert!(store.claim(&request(1)).await.expect("claims").is_none(), "it is leased");
    store.publish(bundle.token, &Default::default()).await.expect("is current");
    let again = claim(&*store, 10).await;
    assert_eq!(numbers(&again), [5], "once more, not twice");
    assert!(store.complete(&[again.token]).await.expect("completes").is_empty());
    assert!(store.claim(&request(1)).await.expect("claims").is_none());

    // A follow-up with the key of the very item that is published.
    store.enqueue(&[keyed(6, Duration::ZERO)]).await.expect("is enqueued");
    let bundle = claim(&*store, 1).await;
    let publication =
        tidemill_store::metastore::Publication { enqueue: vec![keyed(7, Duration::ZERO)], ..Default::default() };
    store.publish(bundle.token, &publication).await.expect("is current");
    assert_eq!(numbers(&claim(&*store, 1).await), [7]);
}

pub async fn completing_many_names_the_lost(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    enqueue_jobs(&*store, owner, 0..30).await;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(claim(&*store, 10).await.token);
    }
    let stranger = LeaseToken(Uuid::new_v4());
    tokens.insert(1, stranger);
    assert_eq!(store.complete(&tokens).await.expect("completes"), [stranger]);
    assert_eq!(store.complete(&tokens).await.expect("completes").len(), 4);
    assert!(store.queue(None, false, 10).await.expect("lists").is_empty());
}

pub async fn waiting_ends_when_work_arrives(place: Place) {
    const LONG: Duration = Duration::from_secs(600);
    let (near, far) = (place.open().await, place.open().await);
    let owner = organization(&*near, 1).await;
    for sender in [near.clone(), far] {
        let wait = tokio::time::timeout(LONG / 10, near.wait_for_work(&[JOBS], LONG));
        let (waited, ()) = tokio::join!(wait, enqueue_jobs(&*sender, owner, 0..1));
        waited.expect("is woken");
        // What is there already ends the wait at once.
        tokio::time::timeout(LONG / 10, near.wait_for_work(&[JOBS], LONG)).await.expect("is woken");
        let bundle = claim(&*near, 10).await;
        near.complete(&[bundle.token]).await.expect("completes");
    }
    let delayed = NewWork { delay: Duration::from_millis(20), ..job(owner, 1) };
    near.enqueue(&[delayed]).await.expect("is enqueued");
    while near.claim(&request(1)).await.expect("claims").is_none() {
        tokio::time::timeout(LONG / 10, near.wait_for_work(&[JOBS], LONG)).await.expect("is woken when it is due");
    }
}

/// Each KEDA query of the reference (section 6), verbatim, against the backlog.
async fn check_views(place: &Place, store: &dyn Metastore, step: &str) {
    for backlog in store.backlog().await.expect("counts") {
        let WorkQueue { signal, action } = backlog.queue;
        if action == Action::Ingest {
            let query = format!(
                "SELECT COALESCE(COUNT(*),0) FROM inqueue WHERE telemetry_type='{signal}' AND claimed_at IS NULL"
            );
            assert_eq!(place.number(&query).await, backlog.runnable + backlog.delayed, "{step}: {query}");
        } else {
            let query = format!(
                "SELECT COALESCE(COUNT(*),0) FROM work_queue WHERE needs_run=true AND runnable_at<=now() \
                 AND signal='{signal}' AND action='{action}'"
            );
            assert_eq!(place.number(&query).await, backlog.runnable, "{step}: {query}");
        }
        let listed = store.queue(Some(backlog.queue), false, 1_000).await.expect("lists");
        let count = |state: &str| listed.iter().filter(|entry| entry.state == state).count() as u64;
        assert_eq!(
            (count("runnable"), count("delayed"), count("leased"), count("dead")),
            (backlog.runnable, backlog.delayed, backlog.leased, backlog.dead),
            "{step}: {signal} {action}"
        );
    }
}

pub async fn the_views_agree_with_the_queue_at_every_step(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    check_views(&place, &*store, "empty").await;
    for number in 1..=4 {
        let signal = if number == 4 { Signal::Metrics } else { Signal::Logs };
        admit(&*store, NewInput { signal, ..push(owner, number) }).await;
    }
    for (number, action) in [(1, Action::Compact), (2, Action::Rollup), (3, Action::Compact)] {
        let queue = WorkQueue { signal: Signal::Metrics, action };
        let work = NewWork { queue, tier: Tier(10), range: Some(Day(19_387).range()), ..job(owner, number) };
        store.enqueue(&[work]).await.expect("is enqueued");
    }
    let later = NewWork {
        queue: WorkQueue { signal: Signal::Metrics, action: Action::Rollup },
        delay: Duration::from_secs(600),
        ..job(owner, 4)
    };
    store.enqueue(&[later]).await.expect("is enqueued");
    check_views(&place, &*store, "enqueued").await;
    assert_eq!(
        place.number("SELECT dateint FROM work_queue WHERE id = (SELECT min(id) FROM work_queue)").await,
        20_230_130
    );
    assert_eq!(place.number("SELECT frequency_ms FROM work_queue ORDER BY id LIMIT 1").await, 10_000);
    assert_eq!(place.number("SELECT COUNT(DISTINCT organization_id) FROM inqueue").await, 1);
    assert_eq!(place.number("SELECT COUNT(*) FROM inqueue WHERE collector_name='default' AND bucket='lake'").await, 4);

    let ingest = ClaimRequest { queues: vec![LOGS], ..request(2) };
    let first = store.claim(&ingest).await.expect("claims").expect("has work");
    check_views(&place, &*store, "claimed").await;
    store.publish(first.token, &Default::default()).await.expect("is current");
    check_views(&place, &*store, "published").await;
    let expired = ClaimRequest { lease: Duration::ZERO, ..ingest.clone() };
    store.claim(&expired).await.expect("claims").expect("has work");
    check_views(&place, &*store, "expired").await;
    let again = store.claim(&ingest).await.expect("claims").expect("has work");
    check_views(&place, &*store, "claimed after a crash").await;
    store.fail(again.token, "broken", true).await.expect("is current");
    check_views(&place, &*store, "dead").await;
    store.redrive(None).await.expect("redrives");
    check_views(&place, &*store, "redriven").await;
    let compact =
        ClaimRequest { queues: vec![WorkQueue { signal: Signal::Metrics, action: Action::Compact }], ..request(1) };
    let bundle = store.claim(&compact).await.expect("claims").expect("has work");
    check_views(&place, &*store, "compacting").await;
    store.hand_back(bundle.token).await.expect("is current");
    check_views(&place, &*store, "handed back").await;
}

/// The columns of the reference (section 4.1), and their types on PostgreSQL.
const INQUEUE: [(&str, &str); 12] = [
    ("id", "uuid"),
    ("queue_ts", "timestamp with time zone"),
    ("priority", "integer"),
    ("organization_id", "uuid"),
    ("collector_name", "text"),
    ("instance_num", "integer"),
    ("bucket", "text"),
    ("object_id", "text"),
    ("telemetry_type", "text"),
    ("tries", "integer"),
    ("claimed_by", "bigint"),
    ("claimed_at", "timestamp with time zone"),
];
const WORK_QUEUE: [(&str, &str); 15] = [
    ("id", "bigint"),
    ("priority", "integer"),
    ("runnable_at", "timestamp with time zone"),
    ("organization_id", "uuid"),
    ("instance_num", "integer"),
    ("dateint", "integer"),
    ("frequency_ms", "bigint"),
    ("signal", "text"),
    ("action", "text"),
    ("needs_run", "boolean"),
    ("tries", "integer"),
    ("ts_range", "tstzrange"),
    ("claimed_by", "bigint"),
    ("claimed_at", "timestamp with time zone"),
    ("heartbeated_at", "timestamp with time zone"),
];

pub async fn the_views_have_the_columns_of_the_reference(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    admit(&*store, push(owner, 1)).await;
    let compact = WorkQueue { signal: Signal::Logs, action: Action::Compact };
    store.enqueue(&[NewWork { queue: compact, ..job(owner, 2) }]).await.expect("is enqueued");
    for (view, columns) in [("inqueue", &INQUEUE[..]), ("work_queue", &WORK_QUEUE)] {
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let all = format!("SELECT COUNT(*) FROM (SELECT {} FROM {view}) AS every_column", names.join(", "));
        assert_eq!(place.number(&all).await, 1, "{all}");
        let types = match place {
            Place::Sqlite(_) => format!("SELECT COUNT(*) FROM pragma_table_info('{view}')"),
            Place::Postgres { .. } => {
                let pairs: Vec<String> = columns.iter().map(|(name, kind)| format!("('{name}', '{kind}')")).collect();
                format!(
                    "SELECT COUNT(*) FROM information_schema.columns WHERE table_name = '{view}' \
                     AND (column_name::text, data_type::text) IN ({})",
                    pairs.join(", ")
                )
            }
        };
        assert_eq!(place.number(&types).await, columns.len() as u64, "{types}");
        // Nobody has claimed it: as the reference says this.
        let unclaimed =
            format!("SELECT COUNT(*) FROM {view} WHERE claimed_by = -1 AND claimed_at IS NULL AND tries = 0");
        assert_eq!(place.number(&unclaimed).await, 1, "{unclaimed}");
    }
}

/// Whoever sees work before it is durable finds it only once, and the sender hears when it is.
pub async fn what_is_enqueued_by_many_runs_once(place: Place) {
    const SENDERS: u64 = 8;
    const EACH: u64 = 25;
    let stores = [place.open().await, place.open().await];
    let owner = organization(&*stores[0], 1).await;
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let store = stores[(sender % 2) as usize].clone();
        senders.spawn(async move {
            for number in 0..EACH {
                enqueue_jobs(&*store, owner, sender * EACH + number..sender * EACH + number + 1).await;
            }
        });
    }
    let mut ran = Vec::new();
    while (ran.len() as u64) < SENDERS * EACH {
        match stores[1].claim(&request(3)).await.expect("claims") {
            Some(bundle) => {
                ran.extend(numbers(&bundle));
                assert!(stores[1].complete(&[bundle.token]).await.expect("completes").is_empty());
            }
            None => stores[1].wait_for_work(&[JOBS], Duration::from_secs(60)).await,
        }
    }
    while let Some(sender) = senders.join_next().await {
        sender.expect("sent all");
    }
    ran.sort_unstable();
    assert_eq!(ran, (0..SENDERS * EACH).collect::<Vec<_>>());
    assert!(stores[0].queue(None, false, 10).await.expect("lists").is_empty());
}

/// Where claims have come, and what comes back before that place.
pub async fn what_comes_back_is_claimed_before_what_came_later(place: Place) {
    let store = place.open().await;
    let other = place.open().await;
    let owner = organization(&*store, 1).await;
    enqueue_jobs(&*store, owner, 0..6).await;
    let first = claim(&*store, 2).await;
    assert_eq!(numbers(&claim(&*store, 2).await), [2, 3]);
    store.hand_back(first.token).await.expect("is current");
    assert_eq!(numbers(&claim(&*store, 1).await), [0]);
    assert_eq!(numbers(&claim(&*store, 10).await), [1, 4, 5]);
    assert!(store.claim(&request(1)).await.expect("claims").is_none());
    // By another process, which tells.
    enqueue_jobs(&*store, owner, 6..9).await;
    let elsewhere = claim(&*other, 1).await;
    assert_eq!(numbers(&elsewhere), [6]);
    assert_eq!(numbers(&claim(&*store, 1).await), [7]);
    let (waited, ()) = tokio::join!(
        tokio::time::timeout(Duration::from_secs(60), async {
            let urgent = ClaimRequest { worker: "second".to_owned(), ..request(10) };
            let mut all = Vec::new();
            while all.len() < 2 {
                match store.claim(&urgent).await.expect("claims") {
                    Some(bundle) => all.extend(numbers(&bundle)),
                    None => store.wait_for_work(&[JOBS], Duration::from_secs(60)).await,
                }
            }
            all.sort_unstable();
            all
        }),
        async { other.hand_back(elsewhere.token).await.expect("is current") }
    );
    assert_eq!(waited.expect("is told"), [6, 8]);
}

/// The marks that a process leaves behind are hints.
pub async fn a_process_that_begins_finds_what_came_back(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    enqueue_jobs(&*store, owner, 0..2_500).await;
    let first = claim(&*store, 800).await;
    for _ in 0..2 {
        let done = claim(&*store, 800).await;
        assert!(store.complete(&[done.token]).await.expect("completes").is_empty());
    }
    store.hand_back(first.token).await.expect("is current");
    drop(store);
    let store = place.open().await;
    let mut ran = Vec::new();
    while ran.len() < 900 {
        match store.claim(&request(500)).await.expect("claims") {
            Some(bundle) => ran.extend(numbers(&bundle)),
            None => store.wait_for_work(&[JOBS], Duration::from_secs(60)).await,
        }
    }
    ran.sort_unstable();
    assert_eq!(ran, (0..800).chain(2_400..2_500).collect::<Vec<_>>());
}

pub async fn a_key_that_is_made_urgent_runs_with_its_better_priority(place: Place) {
    let store = place.open().await;
    let owner = organization(&*store, 1).await;
    let keyed = |priority, delay| NewWork {
        dedupe_key: Some("hour".to_owned()),
        delay: Duration::from_secs(delay),
        priority,
        ..job(owner, 1)
    };
    store.enqueue(&[keyed(0, 3_600)]).await.expect("is enqueued");
    assert!(store.claim(&request(1)).await.expect("claims").is_none());
    store.enqueue(&[keyed(10, 0)]).await.expect("is enqueued");
    assert_eq!(numbers(&claim(&*store, 1).await), [1], "due at once, and still of the better priority");
}
