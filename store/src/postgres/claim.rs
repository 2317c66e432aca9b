//! Claiming: the bundle of a place, and the accounting of leases that ran out.

use deadpool_postgres::GenericClient;
use tidemill_scaling::lease::{AloneCrashes, OtherLeases, decide_crash};
use tidemill_scaling::retry::Verdict;
use tidemill_types::{Action, ErrorKind, LeaseToken, TimestampNs, WorkId};
use tokio_postgres::Row;
use uuid::Uuid;

use super::connection::{execute, query};
use super::finish::{kill, note_error, release};
use super::inbox::without_zero;
use super::ring::{Choice, Reached};
use crate::encoding::InputPayload;
use crate::metastore::{Bundle, ClaimRequest, NewInput, WorkItem};
use crate::{Error, MetastoreOptions, Result};

/// Leases settled by one claim.
const SETTLED_AT_ONCE: i64 = 64;

/// In how many nanoseconds the next lease runs out: not above zero when one has, `None` when there is none.
pub(super) async fn next_expiry_ns(client: &impl GenericClient) -> Result<Option<i64>> {
    Ok(query(client, "claim", "SELECT min(lease_until) - now_ns() FROM leases", &[]).await?[0].get(0))
}

/// Bundle and lease in one statement, whose commit need not be durable. `taken` is `tidemill_scaling::lease::plan_bundle` in SQL: a
/// prefix within the budgets and within the limit of each of its members.
const LEASE: &str = "
    WITH candidates AS MATERIALIZED (
      SELECT id, size_bytes, bundle_limit, instance_num, runnable_at, dedupe_key IS NOT NULL AS has_key FROM work
      WHERE queue = $1 AND priority = $2 AND organization = $3 AND runnable_at <= now_ns() AND token IS NULL
        AND (runnable_at, id) >= ($10::bigint, $11::bigint)
        AND (SELECT set_config('synchronous_commit', 'off', true) IS NOT NULL)
      ORDER BY runnable_at, id LIMIT $4::bigint FOR UPDATE SKIP LOCKED),
    ranked AS (
      SELECT c.*, row_number() OVER running AS place, sum(size_bytes) OVER running AS bytes,
             min(bundle_limit) OVER running AS smallest
      FROM candidates c
      WHERE instance_num = (SELECT instance_num FROM candidates ORDER BY runnable_at, id LIMIT 1)
      WINDOW running AS (ORDER BY runnable_at, id ROWS UNBOUNDED PRECEDING)),
    taken AS (
      SELECT * FROM ranked WHERE place = 1 OR (bytes <= $5::bigint AND place <= coalesce(smallest, place))),
    lease AS (
      INSERT INTO leases (token, queue, organization, instance_num, items, has_keys, holder, worker, claimed_at, extended_at,
        lease_until)
      SELECT $6::uuid, $1::smallint, $3::uuid, min(instance_num), array_agg(id), bool_or(has_key), $7::uuid, $8::text, now_ns(),
             now_ns(), now_ns() + $9::bigint
      FROM taken HAVING count(*) > 0)
    UPDATE work w SET token = $6 FROM taken t WHERE w.id = t.id
    RETURNING w.id, w.instance_num, w.size_bytes, w.failures, w.crashes, w.created_at, w.object_key, w.payload, w.runnable_at,
              (SELECT count(*) FROM candidates)";

/// Claims the next bundle of a place; `None` when nothing is claimable after its mark.
pub(super) async fn lease(
    client: &impl GenericClient,
    request: &ClaimRequest,
    choice: &Choice,
    holder: Uuid,
) -> Result<Option<(Bundle, Reached)>> {
    let token = Uuid::new_v4();
    let (mark_at, mark_id) = choice.mark;
    let max_items = i64::try_from(request.max_items.max(1)).unwrap_or(i64::MAX);
    let max_bytes = i64::try_from(request.max_bytes).unwrap_or(i64::MAX);
    let lease = i64::try_from(request.lease.as_nanos()).unwrap_or(i64::MAX / 4);
    let mut rows = query(
        client,
        "claim",
        LEASE,
        &[
            &choice.queue.code(),
            &choice.priority,
            &choice.organization.0,
            &max_items,
            &max_bytes,
            &token,
            &holder,
            &without_zero(&request.worker),
            &lease,
            &mark_at,
            &mark_id,
        ],
    )
    .await?;
    let order = |row: &Row| (row.get::<_, i64>(8), row.get::<_, i64>(0));
    rows.sort_by_key(order);
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(None) };
    let candidates: i64 = first.get(9);
    // What was looked at and not taken stands somewhere after the first.
    let is_all_taken = candidates == rows.len() as i64;
    let mark = order(if is_all_taken { last } else { first });
    let reached = Reached { mark, is_end: is_all_taken && candidates < max_items };
    let instance_num = first.get(1);
    let items = rows.iter().map(|row| read_item(row, choice)).collect::<Result<_>>()?;
    let (queue, organization) = (choice.queue, choice.organization);
    Ok(Some((Bundle { token: LeaseToken(token), queue, organization, instance_num, items }, reached)))
}

fn read_item(row: &Row, choice: &Choice) -> Result<WorkItem> {
    let text: &str = row.get(7);
    let corrupt = |source| Error::new("claim", "work.payload", ErrorKind::Corrupt, source);
    let payload: serde_json::Value = serde_json::from_str(text).map_err(corrupt)?;
    let input = if choice.queue.action == Action::Ingest {
        let input: InputPayload = serde_json::from_str(text).map_err(corrupt)?;
        Some(NewInput {
            organization: choice.organization,
            instance_num: row.get(1),
            identities: input.identities(),
            collector: input.collector,
            signal: choice.queue.signal,
            bucket: input.bucket,
            object_key: row.get(6),
            etag: input.etag,
            size_bytes: row.get::<_, i64>(2).cast_unsigned(),
            records: input.records,
            arrived_at: input.arrived_at,
            owned: input.owned,
            priority: choice.priority,
            format: input.format,
        })
    } else {
        None
    };
    Ok(WorkItem {
        id: WorkId(row.get(0)),
        failures: row.get::<_, i32>(3).cast_unsigned(),
        crashes: row.get::<_, i32>(4).cast_unsigned(),
        created_at: TimestampNs(row.get(5)),
        input,
        payload,
    })
}

/// Leases that ran out are crashes: their items become claimable in smaller bundles, or dead letters.
pub(super) async fn settle_crashes(
    client: &impl GenericClient,
    claimer: Uuid,
    options: &MetastoreOptions,
) -> Result<()> {
    let expired = query(
        client,
        "claim",
        "DELETE FROM leases WHERE token IN (SELECT token FROM leases WHERE lease_until <= now_ns() ORDER BY lease_until \
           LIMIT $1 FOR UPDATE SKIP LOCKED) \
         RETURNING token, queue, holder, worker, items",
        &[&SETTLED_AT_ONCE],
    )
    .await?;
    for lease in &expired {
        settle_crash(client, lease, claimer, options).await?;
    }
    Ok(())
}

async fn settle_crash(
    client: &impl GenericClient,
    lease: &Row,
    claimer: Uuid,
    options: &MetastoreOptions,
) -> Result<()> {
    let (token, queue, holder): (Uuid, i16, Uuid) = (lease.get(0), lease.get(1), lease.get(2));
    let (worker, ids): (&str, Vec<i64>) = (lease.get(3), lease.get(4));
    let items = query(
        client,
        "claim",
        "SELECT id, crashes_alone, crashes_with_living_holder FROM work WHERE id = ANY($1) AND token = $2 ORDER BY id FOR UPDATE",
        &[&ids, &token],
    )
    .await?;
    let others = read_outcomes(client, queue).await?;
    count_outcomes(client, queue, 0, 1).await?;
    let is_alone = items.len() == 1;
    for item in &items {
        let (id, total, with_living_holder): (i64, i32, i32) = (item.get(0), item.get(1), item.get(2));
        let before =
            AloneCrashes { total: total.cast_unsigned(), with_living_holder: with_living_holder.cast_unsigned() };
        let alone = AloneCrashes {
            total: before.total + u32::from(is_alone),
            with_living_holder: before.with_living_holder + u32::from(is_alone && holder == claimer),
        };
        let others = OtherLeases { crashed: others.crashed.saturating_sub(u64::from(before.total)), ..others };
        execute(
            client,
            "claim",
            "UPDATE work SET crashes = crashes + 1, crashes_alone = $2, crashes_with_living_holder = $3 WHERE id = $1",
            &[&id, &alone.total.cast_signed(), &alone.with_living_holder.cast_signed()],
        )
        .await?;
        let reason = format!("an attempt ended without a report (worker {worker})");
        match decide_crash(&options.retry, items.len() as u32, alone, others, rand::random()) {
            Verdict::DeadLetter => {
                kill(client, id, &format!("crashed alone {} times; last: {reason}", alone.total)).await?;
            }
            Verdict::Retry { delay, bundle_limit } => {
                release(client, id, delay, bundle_limit).await?;
                note_error(client, id, &reason).await?;
            }
        }
    }
    Ok(())
}

/// How the queue's leases ended today and yesterday.
async fn read_outcomes(client: &impl GenericClient, queue: i16) -> Result<OtherLeases> {
    let rows = query(
        client,
        "claim",
        "SELECT coalesce(sum(reported), 0)::bigint, coalesce(sum(crashed), 0)::bigint FROM lease_outcomes \
         WHERE queue = $1 AND day >= (now_ns() / 86400000000000)::integer - 1",
        &[&queue],
    )
    .await?;
    let count = |place: usize| rows[0].get::<_, i64>(place).cast_unsigned();
    Ok(OtherLeases { reported: count(0), crashed: count(1) })
}

/// Adds to today's counts of how leases ended.
pub(super) async fn count_outcomes(client: &impl GenericClient, queue: i16, reported: i64, crashed: i64) -> Result<()> {
    execute(
        client,
        "count outcomes",
        "INSERT INTO lease_outcomes (queue, day, reported, crashed) \
         SELECT $1, (now_ns() / 86400000000000)::integer, $2, $3 \
         WHERE (SELECT set_config('synchronous_commit', 'off', true) IS NOT NULL) \
         ON CONFLICT (queue, day) DO UPDATE SET reported = lease_outcomes.reported + excluded.reported, \
           crashed = lease_outcomes.crashed + excluded.crashed",
        &[&queue, &reported, &crashed],
    )
    .await?;
    Ok(())
}
