//! What people and scalers see of the queue, each answer from one snapshot.

use deadpool_postgres::GenericClient;
use tidemill_types::{ErrorKind, OrganizationId, TimestampNs, WorkId, WorkQueue};
use uuid::Uuid;

use super::connection::query;
use crate::metastore::{Backlog, QueueEntry};
use crate::{Error, Result};

pub(super) async fn backlog(client: &impl GenericClient) -> Result<Vec<Backlog>> {
    let rows = query(
        client,
        "read backlog",
        "SELECT w.queue, count(*) FILTER (WHERE l.token IS NULL AND w.runnable_at <= now_ns()), \
           count(*) FILTER (WHERE l.token IS NULL AND w.runnable_at > now_ns()), count(l.token), \
           coalesce(sum(w.size_bytes) FILTER (WHERE l.token IS NULL AND w.runnable_at <= now_ns()), 0)::bigint, \
           min(w.created_at) FILTER (WHERE l.token IS NULL AND w.runnable_at <= now_ns()), 0::bigint \
         FROM work w LEFT JOIN leases l ON l.token = w.token AND l.lease_until > now_ns() GROUP BY w.queue \
         UNION ALL SELECT queue, 0, 0, 0, 0, NULL, count(*) FROM dead_letters GROUP BY queue",
        &[],
    )
    .await?;
    let mut backlogs: Vec<Backlog> = WorkQueue::all()
        .into_iter()
        .map(|queue| Backlog { queue, runnable: 0, delayed: 0, leased: 0, runnable_bytes: 0, oldest: None, dead: 0 })
        .collect();
    for row in &rows {
        let code: i16 = row.get(0);
        let Some(backlog) = backlogs.iter_mut().find(|backlog| backlog.queue.code() == code) else { continue };
        let count = |place: usize| row.get::<_, i64>(place).cast_unsigned();
        backlog.runnable += count(1);
        backlog.delayed += count(2);
        backlog.leased += count(3);
        backlog.runnable_bytes += count(4);
        backlog.oldest = backlog.oldest.or(row.get::<_, Option<i64>>(5).map(TimestampNs));
        backlog.dead += count(6);
    }
    Ok(backlogs)
}

/// Live items, then dead letters, each oldest first.
const QUEUE: &str = "
    SELECT * FROM (
    (SELECT w.id, w.queue, w.organization,
            CASE WHEN l.token IS NOT NULL THEN 'leased' WHEN w.runnable_at <= now_ns() THEN 'runnable' ELSE 'delayed' END AS state,
            w.created_at, w.runnable_at, w.failures, w.crashes, l.worker, e.reason, w.object_key, w.payload
     FROM (SELECT * FROM work WHERE NOT $2 AND ($1::smallint IS NULL OR queue = $1) ORDER BY id LIMIT $3) w
     LEFT JOIN leases l ON l.token = w.token AND l.lease_until > now_ns()
     LEFT JOIN work_errors e ON e.work = w.id)
    UNION ALL
    (SELECT id, queue, organization, 'dead', created_at, runnable_at, failures, crashes, NULL, reason, object_key, payload
     FROM dead_letters WHERE $1::smallint IS NULL OR queue = $1 ORDER BY id LIMIT $3)
    ) entries ORDER BY state = 'dead', id LIMIT $3";

pub(super) async fn queue(
    client: &impl GenericClient,
    queue: Option<WorkQueue>,
    is_dead_only: bool,
    limit: usize,
) -> Result<Vec<QueueEntry>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query(client, "list queue", QUEUE, &[&queue.map(WorkQueue::code), &is_dead_only, &limit]).await?;
    rows.iter()
        .map(|row| {
            let corrupt = |column| Error::new("list queue", column, ErrorKind::Corrupt, "is unreadable");
            let mut payload: serde_json::Value =
                serde_json::from_str(row.get(11)).map_err(|_| corrupt("work.payload"))?;
            if let (Some(fields), Some(object_key)) = (payload.as_object_mut(), row.get::<_, Option<String>>(10)) {
                fields.insert("object_key".to_owned(), object_key.into());
            }
            Ok(QueueEntry {
                id: WorkId(row.get(0)),
                queue: WorkQueue::from_code(row.get(1)).ok_or_else(|| corrupt("work.queue"))?,
                organization: OrganizationId(row.get::<_, Uuid>(2)),
                state: row.get(3),
                created_at: TimestampNs(row.get(4)),
                runnable_at: TimestampNs(row.get(5)),
                failures: row.get::<_, i32>(6).cast_unsigned(),
                crashes: row.get::<_, i32>(7).cast_unsigned(),
                worker: row.get(8),
                last_error: row.get(9),
                payload,
            })
        })
        .collect()
}

/// In how many nanoseconds a lease runs out or delayed work of one of `queues` falls due, as far as is known now: not above zero when
/// something has, `None` for not at all.
pub(super) async fn due_in_ns(client: &impl GenericClient, queues: &[WorkQueue]) -> Result<Option<i64>> {
    let codes: Vec<i16> = queues.iter().map(|queue| queue.code()).collect();
    // A bounded look: a queue with many delayed items is looked at again when the first of those seen falls due.
    let rows = query(
        client,
        "wait for work",
        "SELECT least((SELECT min(lease_until) FROM leases), \
           (SELECT min(runnable_at) FROM (SELECT runnable_at FROM work WHERE queue = ANY($1) AND token IS NULL LIMIT 2000) seen)) \
           - now_ns()",
        &[&codes],
    )
    .await?;
    Ok(rows[0].get(0))
}
