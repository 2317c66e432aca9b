//! The ends of a lease: publish, complete, fail, hand back; and dead letters.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use tidemill_scaling::retry::{FailureNature, Verdict, decide_failure};
use tidemill_types::{CatalogSeq, ErrorKind, LeaseToken, WorkId, WorkQueue};
use uuid::Uuid;

use super::connection::{execute, query};
use super::inbox::{record_refusals, without_zero};
use super::{catalog, enqueue, sweep, trace_days};
use crate::encoding::bounded_reason;
use crate::metastore::Publication;
use crate::{Error, MetastoreOptions, Result};

/// A lease that was current and is over with this transaction.
pub(super) struct Ended {
    pub(super) queue: i16,
    organization: Uuid,
    items: Vec<i64>,
    pub(super) has_keys: bool,
}

/// What a publication did.
pub(super) struct Published {
    pub(super) seq: CatalogSeq,
    pub(super) ended: Ended,
    /// The `runnable_at` of the follow-ups without key and delay.
    pub(super) enqueued_at: i64,
}

/// Nobody but the holder of the current token may end a lease, whatever the clock says; of two, the second waits and loses.
async fn end_lease(client: &impl GenericClient, operation: &'static str, token: LeaseToken) -> Result<Option<Ended>> {
    let sql = "DELETE FROM leases WHERE token = $1 RETURNING queue, organization, items, has_keys";
    let rows = query(client, operation, sql, &[&token.0]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let ended = Ended { queue: row.get(0), organization: row.get(1), items: row.get(2), has_keys: row.get(3) };
    if ended.has_keys {
        // Items with a key may be enqueued again at this moment; from here on that waits for us.
        let sql = "SELECT 1 FROM work WHERE id = ANY($1) ORDER BY id FOR UPDATE";
        query(client, operation, sql, &[&ended.items]).await?;
    }
    Ok(Some(ended))
}

async fn require_lease(client: &impl GenericClient, operation: &'static str, token: LeaseToken) -> Result<Ended> {
    end_lease(client, operation, token).await?.ok_or_else(|| lost(operation, token))
}

fn lost(operation: &'static str, token: LeaseToken) -> Error {
    Error::new(operation, token.0.to_string(), ErrorKind::Conflict, "the lease is no longer current")
}

pub(super) async fn extend_lease(client: &impl GenericClient, token: LeaseToken, lease: Duration) -> Result<()> {
    let lease = i64::try_from(lease.as_nanos()).unwrap_or(i64::MAX / 4);
    let sql = "UPDATE leases SET lease_until = now_ns() + $2, extended_at = now_ns() \
               WHERE token = $1 AND (SELECT set_config('synchronous_commit', 'off', true) IS NOT NULL)";
    match execute(client, "extend lease", sql, &[&token.0, &lease]).await? {
        0 => Err(lost("extend lease", token)),
        _ => Ok(()),
    }
}

pub(super) async fn hand_back(client: &impl GenericClient, token: LeaseToken) -> Result<Ended> {
    let ended = require_lease(client, "hand back", token).await?;
    // A wish to run again is fulfilled by the run that is still to come.
    let sql = "UPDATE work SET token = NULL, again_at = NULL WHERE id = ANY($1) AND token = $2";
    execute(client, "hand back", sql, &[&ended.items, &token.0]).await?;
    Ok(ended)
}

pub(super) async fn fail(
    client: &impl GenericClient,
    token: LeaseToken,
    reason: &str,
    nature: FailureNature,
    options: &MetastoreOptions,
) -> Result<Ended> {
    let ended = require_lease(client, "fail", token).await?;
    let sql = "SELECT id, failures FROM work WHERE id = ANY($1) AND token = $2 ORDER BY id FOR UPDATE";
    let items = query(client, "fail", sql, &[&ended.items, &token.0]).await?;
    let count = items.len() as u32;
    for item in &items {
        let (id, failures): (i64, i32) = (item.get(0), item.get(1));
        let failures = if count == 1 { failures + 1 } else { failures };
        execute(client, "fail", "UPDATE work SET failures = $2 WHERE id = $1", &[&id, &failures]).await?;
        match decide_failure(&options.retry, count, failures.cast_unsigned(), nature, rand::random()) {
            Verdict::DeadLetter => kill(client, id, reason).await?,
            Verdict::Retry { delay, bundle_limit } => {
                release(client, id, delay, bundle_limit).await?;
                note_error(client, id, reason).await?;
            }
        }
    }
    Ok(ended)
}

/// All of a bundle's result, or nothing of it. The catalog's position is raised by the last statement, so that its row is
/// locked as shortly as can be.
pub(super) async fn publish(
    client: &impl GenericClient,
    token: LeaseToken,
    publication: &Publication,
    options: &MetastoreOptions,
) -> Result<Published> {
    let ended = require_lease(client, "publish", token).await?;
    let replaced: Vec<Uuid> = publication.replaces.iter().map(|id| id.0).collect();
    let grace = i64::try_from(options.replaced_grace.as_nanos()).unwrap_or(i64::MAX / 4);
    let removed = catalog::take_out(client, "publish", &replaced, grace).await?;
    if let Some(missing) = replaced.iter().find(|id| !removed.contains(id)) {
        let problem = "a segment to be replaced is no longer live";
        return Err(Error::new("publish", missing.to_string(), ErrorKind::Conflict, problem));
    }
    trace_days::replace(client, &publication.trace_days, grace).await?;
    sweep::doom(client, "publish", &publication.orphans, ended.organization).await?;
    finish_items(client, "publish", token, &ended, options).await?;
    record_refusals(client, &publication.refusals).await?;
    let enqueued_at = enqueue::enqueue(client, &publication.enqueue).await?;
    let signal = WorkQueue::from_code(ended.queue).map(|queue| queue.signal);
    let hours: Vec<_> = signal
        .into_iter()
        .flat_map(|signal| publication.raised_hours.iter().map(move |hour| (ended.organization, signal, *hour)))
        .collect();
    let change = catalog::Change { added: &publication.segments, removed: &removed, raised: &hours };
    let seq = catalog::commit_change(client, "publish", &change).await?;
    Ok(Published { seq: CatalogSeq(seq), ended, enqueued_at })
}

/// Completes leases none of whose items has a key, in one statement; returns their tokens and queues.
pub(super) async fn complete_unkeyed(
    client: &impl GenericClient,
    tokens: &[Uuid],
    options: &MetastoreOptions,
) -> Result<Vec<(Uuid, i16)>> {
    let grace = i64::try_from(options.raw_grace.as_nanos()).unwrap_or(i64::MAX / 4);
    let rows = query(
        client,
        "complete",
        "WITH ended AS (DELETE FROM leases WHERE token = ANY($1) AND NOT has_keys RETURNING token, queue, items), \
           done AS (DELETE FROM work w USING (SELECT token, unnest(items) AS id FROM ended) e \
             WHERE w.id = e.id AND w.token = e.token \
             RETURNING w.id, w.queue, w.organization, w.object_key, w.failures + w.crashes AS tries, \
               CASE WHEN w.object_key IS NOT NULL THEN w.payload END AS payload), \
           doomed AS (INSERT INTO doomed_objects (bucket, object_key, organization, delete_at) \
             SELECT DISTINCT payload::json ->> 'bucket', object_key, organization, now_ns() + $2 FROM done \
             WHERE queue / 16 = 1 AND (payload::json ->> 'owned')::boolean ON CONFLICT DO NOTHING), \
           errors AS (DELETE FROM work_errors WHERE work IN (SELECT id FROM done WHERE tries > 0 OR queue / 16 = 1)) \
         SELECT token, queue FROM ended",
        &[&tokens, &grace],
    )
    .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Completes one lease; `None` when its token is not current.
pub(super) async fn complete_one(
    client: &impl GenericClient,
    token: LeaseToken,
    options: &MetastoreOptions,
) -> Result<Option<Ended>> {
    let Some(ended) = end_lease(client, "complete", token).await? else { return Ok(None) };
    finish_items(client, "complete", token, &ended, options).await?;
    Ok(Some(ended))
}

/// Deletes a lease's items; those that were enqueued again meanwhile stay and run once more.
async fn finish_items(
    client: &impl GenericClient,
    operation: &'static str,
    token: LeaseToken,
    ended: &Ended,
    options: &MetastoreOptions,
) -> Result<()> {
    if ended.queue / 16 == 1 {
        let grace = i64::try_from(options.raw_grace.as_nanos()).unwrap_or(i64::MAX / 4);
        execute(
            client,
            operation,
            "INSERT INTO doomed_objects (bucket, object_key, organization, delete_at) \
             SELECT DISTINCT payload::json ->> 'bucket', object_key, organization, now_ns() + $3 FROM work \
             WHERE id = ANY($1) AND token = $2 AND (payload::json ->> 'owned')::boolean ON CONFLICT DO NOTHING",
            &[&ended.items, &token.0, &grace],
        )
        .await?;
    }
    execute(client, operation, "DELETE FROM work_errors WHERE work = ANY($1)", &[&ended.items]).await?;
    if ended.has_keys {
        execute(
            client,
            operation,
            "UPDATE work SET token = NULL, runnable_at = again_at, again_at = NULL, failures = 0, crashes = 0, \
               crashes_alone = 0, crashes_with_living_holder = 0, bundle_limit = NULL \
             WHERE id = ANY($1) AND token = $2 AND again_at IS NOT NULL",
            &[&ended.items, &token.0],
        )
        .await?;
    }
    execute(client, operation, "DELETE FROM work WHERE id = ANY($1) AND token = $2", &[&ended.items, &token.0]).await?;
    Ok(())
}

/// Makes an item claimable again.
pub(super) async fn release(
    client: &impl GenericClient,
    id: i64,
    delay: Duration,
    bundle_limit: Option<u32>,
) -> Result<()> {
    // A wish to run again is fulfilled by the attempt that is still to come. Without a pause the item keeps its place.
    let delay = (!delay.is_zero()).then(|| i64::try_from(delay.as_nanos()).unwrap_or(i64::MAX / 4));
    let limit = bundle_limit.map(u32::cast_signed);
    let sql = "UPDATE work SET token = NULL, again_at = NULL, bundle_limit = $2, \
               runnable_at = coalesce(now_ns() + $3, runnable_at) WHERE id = $1";
    execute(client, "release", sql, &[&id, &limit, &delay]).await?;
    Ok(())
}

pub(super) async fn note_error(client: &impl GenericClient, id: i64, reason: &str) -> Result<()> {
    let sql = "INSERT INTO work_errors (work, at, reason) VALUES ($1, now_ns(), $2) \
               ON CONFLICT (work) DO UPDATE SET at = excluded.at, reason = excluded.reason";
    execute(client, "note error", sql, &[&id, &without_zero(bounded_reason(reason))]).await?;
    Ok(())
}

const LETTER_COLUMNS: &str = "id, queue, organization, instance_num, priority, size_bytes, created_at, tier, range_start, \
                              range_end, dedupe_key, object_key, payload";

/// Moves an item to the dead letters. If its key was enqueued again while it was leased, that wish lives on as a new item.
pub(super) async fn kill(client: &impl GenericClient, id: i64, reason: &str) -> Result<()> {
    const OPERATION: &str = "dead-letter";
    let sql = format!(
        "INSERT INTO dead_letters ({LETTER_COLUMNS}, runnable_at, failures, crashes, died_at, reason) \
         SELECT {LETTER_COLUMNS}, runnable_at, failures, crashes, now_ns(), $2 FROM work WHERE id = $1"
    );
    execute(client, OPERATION, &sql, &[&id, &without_zero(bounded_reason(reason))]).await?;
    let rows = query(client, OPERATION, "DELETE FROM work WHERE id = $1 RETURNING again_at", &[&id]).await?;
    execute(client, OPERATION, "DELETE FROM work_errors WHERE work = $1", &[&id]).await?;
    let again_at: Option<i64> = rows.first().and_then(|row| row.get(0));
    if let Some(again_at) = again_at {
        let sql = "INSERT INTO work (queue, organization, instance_num, priority, size_bytes, created_at, tier, range_start, \
                     range_end, dedupe_key, object_key, payload, runnable_at) \
                   SELECT queue, organization, instance_num, priority, size_bytes, now_ns(), tier, range_start, range_end, \
                     dedupe_key, object_key, payload, $2 FROM dead_letters WHERE id = $1";
        execute(client, OPERATION, sql, &[&id, &again_at]).await?;
    }
    Ok(())
}

/// Makes dead letters live again. One whose key has a live item meanwhile is done by that one.
pub(super) async fn redrive(client: &impl GenericClient, ids: Option<&[WorkId]>) -> Result<u64> {
    let ids: Option<Vec<i64>> = ids.map(|ids| ids.iter().map(|id| id.0).collect());
    let sql = format!(
        "WITH redriven AS (DELETE FROM dead_letters WHERE $1::bigint[] IS NULL OR id = ANY($1) RETURNING *), \
           live AS (INSERT INTO work ({LETTER_COLUMNS}, runnable_at) SELECT {LETTER_COLUMNS}, now_ns() FROM redriven ORDER BY id \
             ON CONFLICT DO NOTHING) \
         SELECT count(*) FROM redriven"
    );
    let rows = query(client, "redrive", &sql, &[&ids]).await?;
    Ok(rows[0].get::<_, i64>(0).cast_unsigned())
}
