//! Claiming: the scan for the ring over organizations, the bundle, and the accounting of leases that ran out.

use deadpool_postgres::GenericClient;
use tidemill_scaling::lease::{AloneCrashes, OtherLeases, decide_crash};
use tidemill_scaling::retry::Verdict;
use tidemill_types::{Action, ErrorKind, LeaseToken, OrganizationId, TimestampNs, WorkId, WorkQueue};
use tokio_postgres::Row;
use uuid::Uuid;

use super::connection::{execute, query};
use super::finish::{kill, note_error, release};
use super::inbox::without_zero;
use super::ring::{Choice, Found, Mark, RING_SIZE, Reached};
use crate::encoding::InputPayload;
use crate::metastore::{Bundle, ClaimRequest, NewInput, WorkItem};
use crate::{Error, MetastoreOptions, Result};

/// Leases settled by one claim.
const SETTLED_AT_ONCE: i64 = 64;

/// Rounds of a scan that begins at marks.
const NEW_PLACES: usize = 4;

/// In how many nanoseconds the next lease runs out: not above zero when one has, `None` when there is none.
pub(super) async fn next_expiry_ns(client: &impl GenericClient) -> Result<Option<i64>> {
    Ok(query(client, "claim", "SELECT min(lease_until) - now_ns() FROM leases", &[]).await?[0].get(0))
}

/// One walk over the index: the first claimable item, then the first of each further place. Where dead rows pile up, walking over
/// them is all that a scan costs, so it tells where it came to.
const SCAN: &str = "
    WITH RECURSIVE ring AS (
      (SELECT priority, organization, runnable_at, id, 1::bigint AS place FROM work
       WHERE queue = $1 AND runnable_at <= now_ns() AND token IS NULL
       ORDER BY priority, organization, runnable_at, id LIMIT 1)
      UNION ALL
      SELECT next.priority, next.organization, next.runnable_at, next.id, ring.place + 1 FROM ring, LATERAL (
        SELECT w.priority, w.organization, w.runnable_at, w.id FROM work w
        WHERE w.queue = $1 AND (w.priority, w.organization) > (ring.priority, ring.organization)
          AND w.runnable_at <= now_ns() AND w.token IS NULL
        ORDER BY w.priority, w.organization, w.runnable_at, w.id LIMIT 1) AS next
      WHERE ring.place < $2)
    SELECT priority, organization, runnable_at, id FROM ring";

/// Looks where a queue has claimable work, and where the first of it stands.
pub(super) async fn scan(client: &impl GenericClient, queue: WorkQueue) -> Result<Found> {
    let rows = query(client, "claim", SCAN, &[&queue.code(), &(RING_SIZE as i64)]).await?;
    let places = rows.iter().map(|row| (row.get(0), OrganizationId(row.get(1)), (row.get(2), row.get(3))));
    Ok(Found { places: places.collect(), is_whole: rows.len() < RING_SIZE })
}

/// The first claimable item of each known place from its mark on, and of each gap between them. Arrays: the lower ends of all ranges,
/// and the upper ends; both are included, and no item stands at the end of a place.
const SCAN_RANGES: &str = "
    SELECT first.priority, first.organization, first.runnable_at, first.id
    FROM unnest($2::smallint[], $3::uuid[], $4::bigint[], $5::bigint[], $6::smallint[], $7::uuid[], $8::bigint[])
        AS ranges (from_priority, from_organization, from_at, from_id, to_priority, to_organization, to_at),
      LATERAL (
        SELECT w.priority, w.organization, w.runnable_at, w.id FROM work w
        WHERE w.queue = $1 AND (w.priority, w.organization, w.runnable_at, w.id) >= (from_priority, from_organization, from_at, from_id)
          AND (w.priority, w.organization, w.runnable_at) <= (to_priority, to_organization, to_at)
          AND w.runnable_at <= now_ns() AND w.token IS NULL
        ORDER BY w.priority, w.organization, w.runnable_at, w.id LIMIT 1) AS first
    ORDER BY 1, 2";

/// A scan that does not look before the marks of `known` places; `None` when it found so many new places that it gave up.
pub(super) async fn scan_from_marks(
    client: &impl GenericClient,
    queue: WorkQueue,
    mut known: Vec<(i16, OrganizationId, Mark)>,
) -> Result<Option<Found>> {
    for _ in 0..NEW_PLACES {
        let places = scan_ranges(client, queue, &known).await?;
        let is_known =
            |place: &(i16, OrganizationId, Mark)| known.iter().any(|known| (known.0, known.1) == (place.0, place.1));
        let new: Vec<_> = places.iter().filter(|place| !is_known(place)).copied().collect();
        if new.is_empty() {
            return Ok(Some(Found { places, is_whole: true }));
        }
        // Behind a new place in the same gap there may be another.
        known.extend(new);
        known.sort_unstable();
    }
    Ok(None)
}

async fn scan_ranges(
    client: &impl GenericClient,
    queue: WorkQueue,
    known: &[(i16, OrganizationId, Mark)],
) -> Result<Vec<(i16, OrganizationId, Mark)>> {
    let (mut from, mut to) = (Vec::new(), Vec::new());
    let mut gap = (i16::MIN, Uuid::nil(), i64::MIN, i64::MIN);
    for &(priority, organization, (at, id)) in known {
        from.extend([gap, (priority, organization.0, at, id)]);
        to.extend([(priority, organization.0, i64::MIN), (priority, organization.0, i64::MAX)]);
        gap = (priority, organization.0, i64::MAX, i64::MAX);
    }
    from.push(gap);
    to.push((i16::MAX, Uuid::max(), i64::MAX));
    let rows = query(
        client,
        "claim",
        SCAN_RANGES,
        &[
            &queue.code(),
            &from.iter().map(|from| from.0).collect::<Vec<_>>(),
            &from.iter().map(|from| from.1).collect::<Vec<_>>(),
            &from.iter().map(|from| from.2).collect::<Vec<_>>(),
            &from.iter().map(|from| from.3).collect::<Vec<_>>(),
            &to.iter().map(|to| to.0).collect::<Vec<_>>(),
            &to.iter().map(|to| to.1).collect::<Vec<_>>(),
            &to.iter().map(|to| to.2).collect::<Vec<_>>(),
        ],
    )
    .await?;
    Ok(rows.iter().map(|row| (row.get(0), OrganizationId(row.get(1)), (row.get(2), row.get(3)))).collect())
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
