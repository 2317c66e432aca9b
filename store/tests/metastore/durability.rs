//! What an answer promises on PostgreSQL, where workers see work before it is durable.

use crate::world::{Opened, Place, enqueue_jobs, organization, quick};

/// Ends of the server's log, as numbers.
const INSERTED: &str = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn";
const FLUSHED: &str = "SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_enqueued_is_flushed_before_the_answer() {
    let Some(place) = Place::postgres().await else { return };
    let Opened::Postgres(store) = place.try_open(quick()).await.expect("opens") else { panic!("another database") };
    let owner = organization(&*store, 1).await;
    for round in 0..50 {
        let before = store.query_number(INSERTED).await.expect("is a number");
        enqueue_jobs(&*store, owner, round..round + 1).await;
        let flushed = store.query_number(FLUSHED).await.expect("is a number");
        assert!(flushed > before, "round {round}: flushed up to {flushed}, enqueued after {before}");
    }
}
