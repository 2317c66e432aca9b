//! What people and scalers see of the queue, each answer from one snapshot.

use rusqlite::{Connection, OptionalExtension, params};
use tidemill_types::{OrganizationId, TimestampNs, WorkId, WorkQueue};
use uuid::Uuid;

use super::connection::{failed, now_ns, unreadable};
use crate::Result;
use crate::metastore::{Backlog, QueueEntry};

pub(super) fn backlog(connection: &Connection) -> Result<Vec<Backlog>> {
    let fail = failed("read backlog");
    let mut backlogs: Vec<Backlog> = WorkQueue::all()
        .into_iter()
        .map(|queue| Backlog { queue, runnable: 0, delayed: 0, leased: 0, runnable_bytes: 0, oldest: None, dead: 0 })
        .collect();
    let mut live = connection
        .prepare_cached(
            "SELECT w.queue, sum(l.token IS NULL AND w.runnable_at <= ?1), sum(l.token IS NULL AND w.runnable_at > ?1), \
               sum(l.token IS NOT NULL), sum(CASE WHEN l.token IS NULL AND w.runnable_at <= ?1 THEN w.size_bytes ELSE 0 END), \
               min(CASE WHEN l.token IS NULL AND w.runnable_at <= ?1 THEN w.created_at END) \
             FROM work w LEFT JOIN leases l ON l.token = w.token AND l.lease_until > ?1 GROUP BY w.queue",
        )
        .map_err(&fail)?;
    let mut rows = live.query([now_ns()]).map_err(&fail)?;
    while let Some(row) = rows.next().map_err(&fail)? {
        let code: i16 = row.get(0).map_err(&fail)?;
        let Some(backlog) = backlogs.iter_mut().find(|backlog| backlog.queue.code() == code) else { continue };
        let count = |place: usize| row.get::<_, i64>(place).map(i64::cast_unsigned).map_err(&fail);
        (backlog.runnable, backlog.delayed, backlog.leased, backlog.runnable_bytes) =
            (count(1)?, count(2)?, count(3)?, count(4)?);
        backlog.oldest = row.get::<_, Option<i64>>(5).map_err(&fail)?.map(TimestampNs);
    }
    let mut dead =
        connection.prepare_cached("SELECT queue, count(*) FROM dead_letters GROUP BY queue").map_err(&fail)?;
    let mut rows = dead.query([]).map_err(&fail)?;
    while let Some(row) = rows.next().map_err(&fail)? {
        let code: i16 = row.get(0).map_err(&fail)?;
        if let Some(backlog) = backlogs.iter_mut().find(|backlog| backlog.queue.code() == code) {
            backlog.dead = row.get::<_, i64>(1).map_err(&fail)?.cast_unsigned();
        }
    }
    Ok(backlogs)
}

/// Live items, then dead letters, each oldest first.
const QUEUE: &str = "
    SELECT id, queue, organization, state, created_at, runnable_at, failures, crashes, worker, reason, payload FROM (
      SELECT w.id, w.queue, w.organization,
             CASE WHEN l.token IS NOT NULL THEN 'leased' WHEN w.runnable_at <= ?4 THEN 'runnable' ELSE 'delayed' END AS state,
             w.created_at, w.runnable_at, w.failures, w.crashes, l.worker, e.reason,
             CASE WHEN w.object_key IS NULL THEN w.payload ELSE json_set(w.payload, '$.object_key', w.object_key) END AS payload
      FROM (SELECT * FROM work WHERE NOT ?2 AND (?1 IS NULL OR queue = ?1) ORDER BY id LIMIT ?3) w
      LEFT JOIN leases l ON l.token = w.token AND l.lease_until > ?4
      LEFT JOIN work_errors e ON e.work = w.id
      ORDER BY w.id)
    UNION ALL
    SELECT * FROM (
      SELECT id, queue, organization, 'dead', created_at, runnable_at, failures, crashes, NULL, reason,
             CASE WHEN object_key IS NULL THEN payload ELSE json_set(payload, '$.object_key', object_key) END
      FROM dead_letters WHERE ?1 IS NULL OR queue = ?1 ORDER BY id LIMIT ?3)
    LIMIT ?3";

pub(super) fn queue(
    connection: &Connection,
    queue: Option<WorkQueue>,
    is_dead_only: bool,
    limit: usize,
) -> Result<Vec<QueueEntry>> {
    let fail = failed("list queue");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(QUEUE).map_err(&fail)?;
    let rows = statement
        .query_map(params![queue.map(WorkQueue::code), is_dead_only, limit, now_ns()], |row| {
            let payload: String = row.get(10)?;
            Ok(QueueEntry {
                id: WorkId(row.get(0)?),
                queue: WorkQueue::from_code(row.get(1)?).ok_or_else(|| unreadable("work.queue"))?,
                organization: OrganizationId(Uuid::from_bytes(row.get(2)?)),
                state: row.get(3)?,
                created_at: TimestampNs(row.get(4)?),
                runnable_at: TimestampNs(row.get(5)?),
                failures: row.get(6)?,
                crashes: row.get(7)?,
                worker: row.get(8)?,
                last_error: row.get(9)?,
                payload: serde_json::from_str(&payload).map_err(|_| unreadable("work.payload"))?,
            })
        })
        .map_err(&fail)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fail)
}

/// How long until one of `queues` has claimable work, as far as is known now: `Some(0)` for now, `None` for not at all.
pub(super) fn due_in_ns(connection: &Connection, queues: &[WorkQueue]) -> Result<Option<i64>> {
    let fail = failed("wait for work");
    let mut waiting = connection
        .prepare_cached("SELECT min(runnable_at) FROM work WHERE token IS NULL AND queue = ?1")
        .map_err(&fail)?;
    let mut due: Option<i64> = connection
        .query_row("SELECT min(lease_until) FROM leases", [], |row| row.get(0))
        .optional()
        .map_err(&fail)?
        .flatten();
    for queue in queues {
        let at: Option<i64> = waiting.query_row([queue.code()], |row| row.get(0)).map_err(&fail)?;
        due = [due, at].into_iter().flatten().min();
    }
    let now = now_ns();
    Ok(due.map(|at| at.saturating_sub(now).max(0)))
}
