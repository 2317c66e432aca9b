//! Enqueueing and claiming: the ring over organizations, the bundle, and the accounting of leases that ran out.

use rusqlite::{Connection, OptionalExtension, Row, params};
use tidemill_scaling::lease::{AloneCrashes, Candidate, OtherLeases, decide_crash, plan_bundle};
use tidemill_scaling::retry::Verdict;
use tidemill_types::{Action, LeaseToken, OrganizationId, TimestampNs, WorkId, WorkQueue};
use uuid::Uuid;

use super::connection::{failed, now_ns, unreadable};
use super::finish::{count_outcome, kill, note_error, release};
use crate::encoding::{InputPayload, work_payload};
use crate::metastore::{Bundle, ClaimRequest, NewInput, NewWork, WorkItem};
use crate::{MetastoreOptions, Result};

/// Leases settled by one claim.
const SETTLED_AT_ONCE: i64 = 64;

pub(super) fn enqueue(connection: &Connection, work: &[NewWork]) -> Result<()> {
    let fail = failed("enqueue");
    let now = now_ns();
    let mut statement = connection
        .prepare_cached(
            "INSERT INTO work (queue, organization, instance_num, priority, runnable_at, size_bytes, created_at, tier, \
               range_start, range_end, dedupe_key, payload) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
             ON CONFLICT (queue, organization, dedupe_key) WHERE dedupe_key IS NOT NULL DO UPDATE SET \
               payload = excluded.payload, size_bytes = excluded.size_bytes, priority = min(priority, excluded.priority), \
               runnable_at = CASE WHEN token IS NULL AND failures + crashes = 0 \
                 THEN min(runnable_at, excluded.runnable_at) ELSE runnable_at END, \
               again_at = CASE WHEN token IS NULL THEN again_at \
                 ELSE min(coalesce(again_at, excluded.runnable_at), excluded.runnable_at) END",
        )
        .map_err(&fail)?;
    for item in work {
        super::organizations::check_open(connection, "enqueue", item.organization)?;
        let delay = i64::try_from(item.delay.as_nanos()).unwrap_or(i64::MAX);
        statement
            .execute(params![
                item.queue.code(),
                item.organization.0.into_bytes(),
                item.instance_num,
                item.priority,
                now.saturating_add(delay),
                i64::try_from(item.size_bytes).unwrap_or(i64::MAX),
                now,
                item.tier.0,
                item.range.map(|range| range.start.0),
                item.range.map(|range| range.end.0),
                item.dedupe_key,
                work_payload("enqueue", item)?,
            ])
            .map_err(&fail)?;
    }
    Ok(())
}

pub(super) fn claim(
    connection: &Connection,
    request: &ClaimRequest,
    holder: Uuid,
    options: &MetastoreOptions,
) -> Result<Option<Bundle>> {
    settle_crashes(connection, holder, options)?;
    let now = now_ns();
    for &queue in &request.queues {
        if let Some((priority, organization)) = choose_organization(connection, queue, request.after, now)? {
            return lease_bundle(connection, request, queue, priority, organization, holder, now);
        }
    }
    Ok(None)
}

/// The best priority with claimable work, and the next organization of its ring. Each step is one index seek.
fn choose_organization(
    connection: &Connection,
    queue: WorkQueue,
    after: Option<OrganizationId>,
    now: i64,
) -> Result<Option<(i64, OrganizationId)>> {
    let fail = failed("claim");
    let mut next_priority = connection
        .prepare_cached(
            "SELECT priority FROM work WHERE token IS NULL AND queue = ?1 AND priority > ?2 ORDER BY priority LIMIT 1",
        )
        .map_err(&fail)?;
    let mut next_organization = connection
        .prepare_cached(
            "SELECT organization FROM work WHERE token IS NULL AND queue = ?1 AND priority = ?2 AND organization > ?3 \
             ORDER BY organization LIMIT 1",
        )
        .map_err(&fail)?;
    let mut is_claimable = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM work WHERE token IS NULL AND queue = ?1 AND priority = ?2 AND organization = ?3 \
             AND runnable_at <= ?4)",
        )
        .map_err(&fail)?;
    let mut priority = i64::MIN;
    loop {
        let next =
            next_priority.query_row(params![queue.code(), priority], |row| row.get(0)).optional().map_err(&fail)?;
        let Some(found) = next else { return Ok(None) };
        priority = found;
        // Organizations after the cursor, then all from the start.
        for start in after.map(|id| id.0.into_bytes().to_vec()).into_iter().chain([Vec::new()]) {
            let mut last = start;
            while let Some(organization) = next_organization
                .query_row(params![queue.code(), priority, last], |row| row.get::<_, [u8; 16]>(0))
                .optional()
                .map_err(&fail)?
            {
                let key = params![queue.code(), priority, organization, now];
                if is_claimable.query_row(key, |row| row.get(0)).map_err(&fail)? {
                    return Ok(Some((priority, OrganizationId(Uuid::from_bytes(organization)))));
                }
                last = organization.to_vec();
            }
        }
    }
}

fn lease_bundle(
    connection: &Connection,
    request: &ClaimRequest,
    queue: WorkQueue,
    priority: i64,
    organization: OrganizationId,
    holder: Uuid,
    now: i64,
) -> Result<Option<Bundle>> {
    let fail = failed("claim");
    let mut rows = read_candidates(connection, request, queue, priority, organization, now).map_err(&fail)?;
    let Some(instance_num) = rows.first().map(|row| row.instance_num) else { return Ok(None) };
    rows.retain(|row| row.instance_num == instance_num);
    let taken = plan_bundle(rows.iter().map(|row| row.candidate), request.max_items, request.max_bytes);
    rows.truncate(taken);
    let token = LeaseToken(Uuid::new_v4());
    let mut take = connection.prepare_cached("UPDATE work SET token = ?2 WHERE id = ?1").map_err(&fail)?;
    for row in &rows {
        take.execute(params![row.item.id.0, token.0.into_bytes()]).map_err(&fail)?;
    }
    let lease = i64::try_from(request.lease.as_nanos()).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "INSERT INTO leases (token, queue, organization, instance_num, items, holder, worker, claimed_at, extended_at, \
             lease_until) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?9)",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                token.0.into_bytes(),
                queue.code(),
                organization.0.into_bytes(),
                instance_num,
                rows.len() as i64,
                holder.into_bytes(),
                request.worker,
                now,
                now.saturating_add(lease),
            ])
        })
        .map_err(fail)?;
    Ok(Some(Bundle { token, queue, organization, instance_num, items: rows.into_iter().map(|row| row.item).collect() }))
}

struct CandidateRow {
    candidate: Candidate,
    instance_num: i32,
    item: WorkItem,
}

fn read_candidates(
    connection: &Connection,
    request: &ClaimRequest,
    queue: WorkQueue,
    priority: i64,
    organization: OrganizationId,
    now: i64,
) -> rusqlite::Result<Vec<CandidateRow>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, size_bytes, bundle_limit, instance_num, failures, crashes, created_at, object_key, payload FROM work \
         WHERE token IS NULL AND queue = ?1 AND priority = ?2 AND organization = ?3 AND runnable_at <= ?4 \
         ORDER BY runnable_at, id LIMIT ?5",
    )?;
    let limit = i64::try_from(request.max_items.max(1)).unwrap_or(i64::MAX);
    let key = params![queue.code(), priority, organization.0.into_bytes(), now, limit];
    let rows = statement.query_map(key, |row| read_candidate(row, queue, priority, organization))?;
    rows.collect()
}

fn read_candidate(
    row: &Row<'_>,
    queue: WorkQueue,
    priority: i64,
    organization: OrganizationId,
) -> rusqlite::Result<CandidateRow> {
    let size_bytes = row.get::<_, i64>(1)?.cast_unsigned();
    let instance_num = row.get(3)?;
    let text: String = row.get(8)?;
    let payload: serde_json::Value = serde_json::from_str(&text).map_err(|_| unreadable("work.payload"))?;
    let input = if queue.action == Action::Ingest {
        let input: InputPayload = serde_json::from_str(&text).map_err(|_| unreadable("work.payload"))?;
        Some(NewInput {
            organization,
            instance_num,
            identities: input.identities(),
            collector: input.collector,
            signal: queue.signal,
            bucket: input.bucket,
            object_key: row.get(7)?,
            etag: input.etag,
            size_bytes,
            records: input.records,
            arrived_at: input.arrived_at,
            owned: input.owned,
            priority: i16::try_from(priority).map_err(|_| unreadable("work.priority"))?,
            format: input.format,
        })
    } else {
        None
    };
    let item = WorkItem {
        id: WorkId(row.get(0)?),
        failures: row.get(4)?,
        crashes: row.get(5)?,
        created_at: TimestampNs(row.get(6)?),
        input,
        payload,
    };
    Ok(CandidateRow { candidate: Candidate { size_bytes, bundle_limit: row.get(2)? }, instance_num, item })
}

struct ExpiredLease {
    token: [u8; 16],
    queue: i64,
    holder: [u8; 16],
    worker: String,
}

/// Leases that ran out are crashes: their items become claimable in smaller bundles, or dead letters.
fn settle_crashes(connection: &Connection, claimer: Uuid, options: &MetastoreOptions) -> Result<()> {
    let fail = failed("claim");
    let now = now_ns();
    let expired = {
        let mut statement = connection
            .prepare_cached(
                "SELECT token, queue, holder, worker FROM leases WHERE lease_until <= ?1 ORDER BY lease_until LIMIT ?2",
            )
            .map_err(&fail)?;
        let rows = statement
            .query_map(params![now, SETTLED_AT_ONCE], |row| {
                Ok(ExpiredLease { token: row.get(0)?, queue: row.get(1)?, holder: row.get(2)?, worker: row.get(3)? })
            })
            .map_err(&fail)?;
        rows.collect::<rusqlite::Result<Vec<_>>>().map_err(&fail)?
    };
    for lease in expired {
        let is_holder_alive = lease.holder == claimer.into_bytes();
        settle_crash(connection, &lease, is_holder_alive, options, now)?;
    }
    Ok(())
}

fn settle_crash(
    connection: &Connection,
    lease: &ExpiredLease,
    is_holder_alive: bool,
    options: &MetastoreOptions,
    now: i64,
) -> Result<()> {
    let fail = failed("claim");
    let items = {
        let mut statement = connection
            .prepare_cached(
                "SELECT id, crashes_alone, crashes_with_living_holder FROM work WHERE token = ?1 ORDER BY id",
            )
            .map_err(&fail)?;
        let rows = statement
            .query_map([lease.token], |row| {
                Ok((row.get::<_, i64>(0)?, AloneCrashes { total: row.get(1)?, with_living_holder: row.get(2)? }))
            })
            .map_err(&fail)?;
        rows.collect::<rusqlite::Result<Vec<_>>>().map_err(&fail)?
    };
    let others = read_outcomes(connection, lease.queue, now)?;
    count_outcome(connection, lease.queue, now, "crashed")?;
    let is_alone = items.len() == 1;
    for &(id, before) in &items {
        let alone = AloneCrashes {
            total: before.total + u32::from(is_alone),
            with_living_holder: before.with_living_holder + u32::from(is_alone && is_holder_alive),
        };
        let others = OtherLeases { crashed: others.crashed.saturating_sub(u64::from(before.total)), ..others };
        connection
            .prepare_cached(
                "UPDATE work SET crashes = crashes + 1, crashes_alone = ?2, crashes_with_living_holder = ?3 WHERE id = ?1",
            )
            .and_then(|mut statement| statement.execute(params![id, alone.total, alone.with_living_holder]))
            .map_err(&fail)?;
        let reason = format!("an attempt ended without a report (worker {})", lease.worker);
        match decide_crash(&options.retry, items.len() as u32, alone, others, rand::random()) {
            Verdict::DeadLetter => {
                kill(connection, id, &format!("crashed alone {} times; last: {reason}", alone.total), now)?;
            }
            Verdict::Retry { delay, bundle_limit } => {
                release(connection, id, delay, bundle_limit, now)?;
                note_error(connection, id, &reason, now)?;
            }
        }
    }
    connection.execute("DELETE FROM leases WHERE token = ?1", [lease.token]).map_err(fail)?;
    Ok(())
}

/// How the queue's leases ended today and yesterday.
fn read_outcomes(connection: &Connection, queue: i64, now: i64) -> Result<OtherLeases> {
    let since = TimestampNs(now).day().0 - 1;
    connection
        .prepare_cached(
            "SELECT coalesce(sum(reported), 0), coalesce(sum(crashed), 0) FROM lease_outcomes WHERE queue = ?1 AND day >= ?2",
        )
        .and_then(|mut statement| {
            statement.query_row(params![queue, since], |row| {
                Ok(OtherLeases {
                    reported: row.get::<_, i64>(0)?.cast_unsigned(),
                    crashed: row.get::<_, i64>(1)?.cast_unsigned(),
                })
            })
        })
        .map_err(failed("claim"))
}
