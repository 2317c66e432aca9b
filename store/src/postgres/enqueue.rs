//! Enqueueing: within a transaction, or in one statement that others see before it is durable.

use deadpool_postgres::GenericClient;
use tidemill_types::ErrorKind;
use tokio_postgres::Row;
use uuid::Uuid;

use super::connection::{prepare, query};
use super::organizations::check_open;
use crate::encoding::work_payload;
use crate::metastore::NewWork;
use crate::{Error, Result};

/// Rows inserted by one statement.
pub(super) const ENQUEUED_AT_ONCE: usize = 10_000;

/// Enqueues within a transaction; returns the `runnable_at` of those without key and delay.
pub(super) async fn enqueue(client: &impl GenericClient, work: &[NewWork]) -> Result<i64> {
    check_open(client, "enqueue", work.iter().map(|item| item.organization)).await?;
    let (mut keyed, unkeyed): (Vec<&NewWork>, Vec<&NewWork>) = work.iter().partition(|item| item.dedupe_key.is_some());
    let mut since = i64::MAX;
    for chunk in unkeyed.chunks(ENQUEUED_AT_ONCE) {
        since = since.min(insert(client, chunk, "", "").await?.at);
    }
    // One by one, because a statement may not touch a row twice; in one order, so that nobody waits in a ring. The sort is stable:
    // the last of a key's items is the latest.
    keyed.sort_by(|one, other| {
        let key = |item: &NewWork| (item.queue.code(), item.organization, item.dedupe_key.clone());
        key(one).cmp(&key(other))
    });
    for item in keyed {
        insert(client, &[item], "", ON_KNOWN_KEY).await?;
    }
    Ok(since)
}

/// What a statement inserted, and when.
struct Inserted {
    rows: i64,
    at: i64,
    session: Session,
}

/// Which process of the server ran a statement, and in which of its transactions.
struct Session {
    process: i32,
    transaction: i64,
}

impl Session {
    fn read(row: &Row, place: usize) -> Self {
        Self { process: row.get(place), transaction: row.get(place + 1) }
    }
}

/// The columns of a [`Session`].
const SESSION: &str = "pg_backend_pid(), pg_current_xact_id()::text::bigint";

/// Enqueues items without keys in one statement; returns their `runnable_at` without delay. `None`, and nothing is enqueued, when not
/// every organization is open.
pub(super) async fn enqueue_at_once(client: &impl GenericClient, work: &[NewWork]) -> Result<Option<i64>> {
    let work: Vec<&NewWork> = work.iter().collect();
    let inserted = insert(client, &work, IF_OPEN, "").await?;
    Ok((inserted.rows == work.len() as i64).then_some(inserted.at))
}

/// The same on a connection that is a session of its own. `is_there` is called as soon as others see what was enqueued; the answer
/// comes when it is durable as well: both statements are sent at once.
pub(super) async fn enqueue_then_flush(
    client: &impl GenericClient,
    work: &[NewWork],
    is_there: impl FnOnce(i64),
) -> Result<bool> {
    let work: Vec<&NewWork> = work.iter().collect();
    let condition = format!("{IF_OPEN} AND {UNFLUSHED}");
    // Prepared first, so that nothing but the statements is sent below.
    prepare(client, "enqueue", &insert_sql(&condition, "")).await?;
    prepare(client, "enqueue", &flush_sql()).await?;
    let inserting = async {
        let inserted = insert(client, &work, &condition, "").await?;
        let is_open = inserted.rows == work.len() as i64;
        if is_open {
            is_there(inserted.at);
        }
        Ok(is_open.then_some(inserted.session))
    };
    let flushing = async { query(client, "enqueue", &flush_sql(), &[]).await };
    let (inserted, flushed) = futures::future::join(inserting, flushing).await;
    let Some(inserted) = inserted? else { return Ok(false) };
    let flushed = Session::read(&flushed?[0], 1);
    if inserted.process != flushed.process || inserted.transaction >= flushed.transaction {
        let problem = "two statements of one connection were not run by one process of the server in their order, so it is not known \
                       whether what was enqueued is durable; where a pooler shares connections, metastore.listen_url must be set";
        return Err(Error::new("enqueue", "the metastore", ErrorKind::Unavailable, problem));
    }
    Ok(true)
}

/// True, and the transaction's commit does not wait until it is durable.
const UNFLUSHED: &str = "(SELECT set_config('synchronous_commit', 'off', true) IS NOT NULL)";

/// A transaction that has nothing but its own record in the log: with its commit all that was committed before is as durable as
/// commits are on this server.
fn flush_sql() -> String {
    format!("SELECT pg_logical_emit_message(true, 'tidemill', ''), {SESSION}")
}

/// As `organizations::check_open`, in the statement itself. `$2` are the items' organizations.
const IF_OPEN: &str = "WHERE (SELECT count(*) FROM \
       (SELECT 1 FROM organizations WHERE id = ANY($2) AND NOT deleting ORDER BY id FOR SHARE) AS open) \
     = (SELECT count(DISTINCT id) FROM unnest($2) AS all_of (id))";

const ON_KNOWN_KEY: &str = "ON CONFLICT (queue, organization, dedupe_key) WHERE dedupe_key IS NOT NULL DO UPDATE SET \
     payload = excluded.payload, size_bytes = excluded.size_bytes, priority = least(work.priority, excluded.priority), \
     runnable_at = CASE WHEN work.token IS NULL AND work.failures + work.crashes = 0 \
       THEN least(work.runnable_at, excluded.runnable_at) ELSE work.runnable_at END, \
     again_at = CASE WHEN work.token IS NULL THEN work.again_at ELSE least(work.again_at, excluded.runnable_at) END";

fn insert_sql(condition: &str, on_conflict: &str) -> String {
    format!(
        "WITH inserted AS ( \
         INSERT INTO work (queue, organization, instance_num, priority, runnable_at, created_at, size_bytes, tier, range_start, \
           range_end, dedupe_key, payload) \
         SELECT queue, organization, instance_num, priority, now_ns() + delay, now_ns(), size_bytes, tier, range_start, \
           range_end, dedupe_key, payload \
         FROM unnest($1::smallint[], $2::uuid[], $3::integer[], $4::smallint[], $5::bigint[], $6::bigint[], $7::bigint[], \
           $8::bigint[], $9::bigint[], $10::text[], $11::text[]) WITH ORDINALITY \
           AS given (queue, organization, instance_num, priority, delay, size_bytes, tier, range_start, range_end, dedupe_key, \
             payload, place) \
         {condition} ORDER BY place {on_conflict} RETURNING 1) \
         SELECT count(*), now_ns(), {SESSION} FROM inserted"
    )
}

async fn insert(
    client: &impl GenericClient,
    work: &[&NewWork],
    condition: &str,
    on_conflict: &str,
) -> Result<Inserted> {
    let queues: Vec<i16> = work.iter().map(|item| item.queue.code()).collect();
    let organizations: Vec<Uuid> = work.iter().map(|item| item.organization.0).collect();
    let instances: Vec<i32> = work.iter().map(|item| item.instance_num).collect();
    let priorities: Vec<i16> = work.iter().map(|item| item.priority).collect();
    let delays: Vec<i64> =
        work.iter().map(|item| i64::try_from(item.delay.as_nanos()).unwrap_or(i64::MAX / 4)).collect();
    let sizes: Vec<i64> = work.iter().map(|item| i64::try_from(item.size_bytes).unwrap_or(i64::MAX)).collect();
    let tiers: Vec<i64> = work.iter().map(|item| i64::from(item.tier.0)).collect();
    let starts: Vec<Option<i64>> = work.iter().map(|item| item.range.map(|range| range.start.0)).collect();
    let ends: Vec<Option<i64>> = work.iter().map(|item| item.range.map(|range| range.end.0)).collect();
    let keys: Vec<Option<&str>> = work.iter().map(|item| item.dedupe_key.as_deref()).collect();
    let payloads: Vec<String> = work.iter().map(|item| work_payload("enqueue", item)).collect::<Result<_>>()?;
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 11] =
        [&queues, &organizations, &instances, &priorities, &delays, &sizes, &tiers, &starts, &ends, &keys, &payloads];
    let rows = query(client, "enqueue", &insert_sql(condition, on_conflict), &values).await?;
    Ok(Inserted { rows: rows[0].get(0), at: rows[0].get(1), session: Session::read(&rows[0], 2) })
}
