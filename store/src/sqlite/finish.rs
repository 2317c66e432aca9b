//! The ends of a lease: publish, complete, fail, hand back; and dead letters.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use tidemill_scaling::retry::{FailureNature, Verdict, decide_failure};
use tidemill_types::{CatalogSeq, ErrorKind, LeaseToken, TimestampNs, WorkId};

use super::connection::{failed, now_ns};
use super::{catalog, claim, inbox, trace_days};
use crate::encoding::bounded_reason;
use crate::metastore::{DoomedObject, Publication};
use crate::step::{Step, reach};
use crate::{Error, MetastoreOptions, Result};

struct Lease {
    queue: i64,
    organization: [u8; 16],
    items: u32,
}

/// Nobody but the holder of the current token may end a lease, whatever the clock says.
fn current_lease(connection: &Connection, operation: &'static str, token: LeaseToken) -> Result<Option<Lease>> {
    connection
        .prepare_cached("SELECT queue, organization, items FROM leases WHERE token = ?1")
        .and_then(|mut statement| {
            statement
                .query_row([token.0.into_bytes()], |row| {
                    Ok(Lease { queue: row.get(0)?, organization: row.get(1)?, items: row.get(2)? })
                })
                .optional()
        })
        .map_err(failed(operation))
}

fn require_lease(connection: &Connection, operation: &'static str, token: LeaseToken) -> Result<Lease> {
    let lease = current_lease(connection, operation, token)?;
    lease.ok_or_else(|| {
        Error::new(operation, token.0.to_string(), ErrorKind::Conflict, "the lease is no longer current")
    })
}

pub(super) fn extend_lease(connection: &Connection, token: LeaseToken, lease: Duration) -> Result<()> {
    require_lease(connection, "extend lease", token)?;
    let now = now_ns();
    let until = now.saturating_add(i64::try_from(lease.as_nanos()).unwrap_or(i64::MAX));
    connection
        .prepare_cached("UPDATE leases SET lease_until = ?2, extended_at = ?3 WHERE token = ?1")
        .and_then(|mut statement| statement.execute(params![token.0.into_bytes(), until, now]))
        .map_err(failed("extend lease"))?;
    Ok(())
}

pub(super) fn hand_back(connection: &Connection, token: LeaseToken) -> Result<()> {
    let lease = require_lease(connection, "hand back", token)?;
    let fail = failed("hand back");
    // A wish to run again is fulfilled by the run that is still to come.
    connection
        .execute("UPDATE work SET token = NULL, again_at = NULL WHERE token = ?1", [token.0.into_bytes()])
        .map_err(fail)?;
    end_lease(connection, token, lease.queue, now_ns())
}

pub(super) fn fail(
    connection: &Connection,
    token: LeaseToken,
    reason: &str,
    nature: FailureNature,
    options: &MetastoreOptions,
) -> Result<()> {
    let lease = require_lease(connection, "fail", token)?;
    let now = now_ns();
    let items: Vec<(i64, u32)> = {
        let mut statement = connection
            .prepare_cached("SELECT id, failures FROM work WHERE token = ?1 ORDER BY id")
            .map_err(failed("fail"))?;
        let rows = statement
            .query_map([token.0.into_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(failed("fail"))?;
        rows.collect::<rusqlite::Result<_>>().map_err(failed("fail"))?
    };
    let count = items.len() as u32;
    for (id, failures) in items {
        let failures = if count == 1 { failures + 1 } else { failures };
        connection
            .prepare_cached("UPDATE work SET failures = ?2 WHERE id = ?1")
            .and_then(|mut statement| statement.execute(params![id, failures]))
            .map_err(failed("fail"))?;
        match decide_failure(&options.retry, count, failures, nature, rand::random()) {
            Verdict::DeadLetter => kill(connection, id, reason, now)?,
            Verdict::Retry { delay, bundle_limit } => {
                release(connection, id, delay, bundle_limit, now)?;
                note_error(connection, id, reason, now)?;
            }
        }
    }
    end_lease(connection, token, lease.queue, now)
}

/// All of a bundle's result, or nothing of it.
pub(super) fn publish(
    connection: &Connection,
    token: LeaseToken,
    publication: &Publication,
    options: &MetastoreOptions,
) -> Result<CatalogSeq> {
    let lease = require_lease(connection, "publish", token)?;
    let now = now_ns();
    let seq = catalog::next_seq(connection)?;
    catalog::replace(connection, &publication.replaces, seq, now, options)?;
    catalog::insert(connection, "publish", &publication.segments, seq)?;
    trace_days::replace(connection, &publication.trace_days, now, options)?;
    if let Some(signal) = tidemill_types::WorkQueue::from_code(lease.queue as i16).map(|queue| queue.signal) {
        catalog::raise_hours(connection, lease.organization, signal, &publication.raised_hours, seq)?;
    }
    let orphans = DoomedList { organization: lease.organization, delete_at: now };
    orphans.insert(connection, &publication.orphans)?;
    finish_items(connection, token, &lease, now, options)?;
    inbox::record_refusals(connection, &publication.refusals)?;
    claim::enqueue(connection, &publication.enqueue)?;
    reach(Step::PublishBeforeCommit);
    Ok(CatalogSeq(seq))
}

pub(super) fn complete(
    connection: &Connection,
    tokens: &[LeaseToken],
    options: &MetastoreOptions,
) -> Result<Vec<LeaseToken>> {
    let now = now_ns();
    let mut lost = Vec::new();
    for &token in tokens {
        match current_lease(connection, "complete", token)? {
            Some(lease) => finish_items(connection, token, &lease, now, options)?,
            None => lost.push(token),
        }
    }
    Ok(lost)
}

/// Deletes a lease's items; those that were enqueued again meanwhile stay and run once more.
fn finish_items(
    connection: &Connection,
    token: LeaseToken,
    lease: &Lease,
    now: i64,
    options: &MetastoreOptions,
) -> Result<()> {
    let key = token.0.into_bytes();
    let fail = failed("complete");
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        connection.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map_err(&fail)
    };
    if lease.queue / 16 == 1 {
        let grace = i64::try_from(options.raw_grace.as_nanos()).unwrap_or(i64::MAX);
        run(
            "INSERT INTO doomed_objects (bucket, object_key, organization, delete_at) \
             SELECT payload ->> 'bucket', object_key, organization, ?2 FROM work \
             WHERE token = ?1 AND payload ->> 'owned' ON CONFLICT DO NOTHING",
            params![key, now.saturating_add(grace)],
        )?;
    }
    run("DELETE FROM work_errors WHERE work IN (SELECT id FROM work WHERE token = ?1)", params![key])?;
    run(
        "UPDATE work SET token = NULL, runnable_at = again_at, again_at = NULL, failures = 0, crashes = 0, crashes_alone = 0, \
         crashes_with_living_holder = 0, bundle_limit = NULL WHERE token = ?1 AND again_at IS NOT NULL",
        params![key],
    )?;
    run("DELETE FROM work WHERE token = ?1", params![key])?;
    debug_assert!(lease.items > 0);
    end_lease(connection, token, lease.queue, now)
}

fn end_lease(connection: &Connection, token: LeaseToken, queue: i64, now: i64) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM leases WHERE token = ?1")
        .and_then(|mut statement| statement.execute([token.0.into_bytes()]))
        .map_err(failed("end lease"))?;
    count_outcome(connection, queue, now, "reported")
}

/// Counts how a lease ended; `outcome` is a column.
pub(super) fn count_outcome(connection: &Connection, queue: i64, now: i64, outcome: &'static str) -> Result<()> {
    let day = TimestampNs(now).day().0;
    connection
        .prepare_cached(&format!(
            "INSERT INTO lease_outcomes (queue, day, {outcome}) VALUES (?1, ?2, 1) \
             ON CONFLICT (queue, day) DO UPDATE SET {outcome} = {outcome} + 1"
        ))
        .and_then(|mut statement| statement.execute(params![queue, day]))
        .map_err(failed("count outcome"))?;
    Ok(())
}

/// Makes an item claimable again.
pub(super) fn release(
    connection: &Connection,
    id: i64,
    delay: Duration,
    bundle_limit: Option<u32>,
    now: i64,
) -> Result<()> {
    let runnable_at =
        (!delay.is_zero()).then(|| now.saturating_add(i64::try_from(delay.as_nanos()).unwrap_or(i64::MAX)));
    // A wish to run again is fulfilled by the attempt that is still to come. Without a pause the item keeps its place.
    connection
        .prepare_cached(
            "UPDATE work SET token = NULL, again_at = NULL, bundle_limit = ?2, runnable_at = coalesce(?3, runnable_at) \
             WHERE id = ?1",
        )
        .and_then(|mut statement| statement.execute(params![id, bundle_limit, runnable_at]))
        .map_err(failed("release"))?;
    Ok(())
}

pub(super) fn note_error(connection: &Connection, id: i64, reason: &str, now: i64) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO work_errors (work, at, reason) VALUES (?1, ?2, ?3) \
             ON CONFLICT (work) DO UPDATE SET at = excluded.at, reason = excluded.reason",
        )
        .and_then(|mut statement| statement.execute(params![id, now, bounded_reason(reason)]))
        .map_err(failed("note error"))?;
    Ok(())
}

const LETTER_COLUMNS: &str = "id, queue, organization, instance_num, priority, size_bytes, created_at, tier, range_start, \
                              range_end, dedupe_key, object_key, payload";

/// Moves an item to the dead letters. If its key was enqueued again while it was leased, that wish lives on as a new item.
pub(super) fn kill(connection: &Connection, id: i64, reason: &str, now: i64) -> Result<()> {
    let fail = failed("dead-letter");
    connection
        .prepare_cached(&format!(
            "INSERT INTO dead_letters ({LETTER_COLUMNS}, runnable_at, failures, crashes, died_at, reason) \
             SELECT {LETTER_COLUMNS}, runnable_at, failures, crashes, ?2, ?3 FROM work WHERE id = ?1"
        ))
        .and_then(|mut statement| statement.execute(params![id, now, bounded_reason(reason)]))
        .map_err(&fail)?;
    let again: Option<i64> =
        connection.query_row("SELECT again_at FROM work WHERE id = ?1", [id], |row| row.get(0)).map_err(&fail)?;
    connection.execute("DELETE FROM work WHERE id = ?1", [id]).map_err(&fail)?;
    connection.execute("DELETE FROM work_errors WHERE work = ?1", [id]).map_err(&fail)?;
    if let Some(again_at) = again {
        connection
            .execute(
                "INSERT INTO work (queue, organization, instance_num, priority, size_bytes, created_at, tier, range_start, \
                   range_end, dedupe_key, object_key, payload, runnable_at) \
                 SELECT queue, organization, instance_num, priority, size_bytes, ?2, tier, range_start, range_end, dedupe_key, \
                   object_key, payload, ?3 FROM dead_letters WHERE id = ?1",
                params![id, now, again_at],
            )
            .map_err(&fail)?;
    }
    Ok(())
}

/// Makes dead letters live again. One whose key has a live item meanwhile is done by that one.
pub(super) fn redrive(connection: &Connection, ids: Option<&[WorkId]>) -> Result<u64> {
    let fail = failed("redrive");
    let ids: Vec<i64> = match ids {
        Some(ids) => ids.iter().map(|id| id.0).collect(),
        None => {
            let mut statement = connection.prepare("SELECT id FROM dead_letters ORDER BY id").map_err(&fail)?;
            let rows = statement.query_map([], |row| row.get(0)).map_err(&fail)?;
            rows.collect::<rusqlite::Result<_>>().map_err(&fail)?
        }
    };
    let now = now_ns();
    let mut redriven = 0;
    for id in ids {
        connection
            .prepare_cached(&format!(
                "INSERT INTO work ({LETTER_COLUMNS}, runnable_at) SELECT {LETTER_COLUMNS}, ?2 FROM dead_letters WHERE id = ?1 \
                 ON CONFLICT DO NOTHING"
            ))
            .and_then(|mut statement| statement.execute(params![id, now]))
            .map_err(&fail)?;
        redriven += connection.execute("DELETE FROM dead_letters WHERE id = ?1", [id]).map_err(&fail)? as u64;
    }
    Ok(redriven)
}

/// Objects to be deleted from `delete_at` on.
pub(super) struct DoomedList {
    pub(super) organization: [u8; 16],
    pub(super) delete_at: i64,
}

impl DoomedList {
    pub(super) fn insert(&self, connection: &Connection, objects: &[DoomedObject]) -> Result<()> {
        let fail = failed("doom objects");
        let mut statement = connection
            .prepare_cached(
                "INSERT INTO doomed_objects (bucket, object_key, organization, delete_at) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT DO UPDATE SET delete_at = min(delete_at, excluded.delete_at)",
            )
            .map_err(&fail)?;
        for object in objects {
            statement
                .execute(params![object.bucket, object.object_key, self.organization, self.delete_at])
                .map_err(&fail)?;
        }
        Ok(())
    }
}
