//! Enqueueing and claiming: the ring over organizations, the bundle, and the accounting of leases that ran out.

use deadpool_postgres::GenericClient;
use tidemill_scaling::lease::{AloneCrashes, OtherLeases, decide_crash};
use tidemill_scaling::retry::Verdict;
use tidemill_types::{Action, ErrorKind, LeaseToken, OrganizationId, TimestampNs, WorkId, WorkQueue};
use tokio_postgres::Row;
use uuid::Uuid;

use super::connection::{execute, query};
use super::finish::{kill, note_error, release};
use super::inbox::without_zero;
use super::organizations::check_open;
use super::ring::{Choice, Found, Mark};
use crate::encoding::{InputPayload, work_payload};
use crate::metastore::{Bundle, ClaimRequest, NewInput, NewWork, WorkItem};
use crate::{Error, MetastoreOptions, Result};

/// Leases settled by one claim.
const SETTLED_AT_ONCE: i64 = 64;
/// Organizations in one ring; more take their turns as those before them have no work left.
const RING_SIZE: i32 = 1_000;
/// Rows inserted by one statement.
pub(super) const ENQUEUED_AT_ONCE: usize = 10_000;

pub(super) async fn enqueue(client: &impl GenericClient, work: &[NewWork]) -> Result<()> {
    check_open(client, "enqueue", work.iter().map(|item| item.organization)).await?;
    let (mut keyed, unkeyed): (Vec<&NewWork>, Vec<&NewWork>) = work.iter().partition(|item| item.dedupe_key.is_some());
    for chunk in unkeyed.chunks(ENQUEUED_AT_ONCE) {
        insert(client, chunk, "", "").await?;
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
    Ok(())
}

/// Enqueues items without keys in one statement; `false`, and nothing is enqueued, when not every organization is open.
pub(super) async fn enqueue_at_once(client: &impl GenericClient, work: &[NewWork]) -> Result<bool> {
    let work: Vec<&NewWork> = work.iter().collect();
    Ok(insert(client, &work, IF_OPEN, "").await? == work.len() as u64)
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

async fn insert(client: &impl GenericClient, work: &[&NewWork], condition: &str, on_conflict: &str) -> Result<u64> {
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
    let sql = format!(
        "INSERT INTO work (queue, organization, instance_num, priority, runnable_at, created_at, size_bytes, tier, range_start, \
           range_end, dedupe_key, payload) \
         SELECT queue, organization, instance_num, priority, now_ns() + delay, now_ns(), size_bytes, tier, range_start, \
           range_end, dedupe_key, payload \
         FROM unnest($1::smallint[], $2::uuid[], $3::integer[], $4::smallint[], $5::bigint[], $6::bigint[], $7::bigint[], \
           $8::bigint[], $9::bigint[], $10::text[], $11::text[]) WITH ORDINALITY \
           AS given (queue, organization, instance_num, priority, delay, size_bytes, tier, range_start, range_end, dedupe_key, \
             payload, place) \
         {condition} ORDER BY place {on_conflict}"
    );
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 11] =
        [&queues, &organizations, &instances, &priorities, &delays, &sizes, &tiers, &starts, &ends, &keys, &payloads];
    execute(client, "enqueue", &sql, &values).await
}

/// Whether any lease has run out.
pub(super) async fn has_expired(client: &impl GenericClient) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM leases WHERE lease_until <= now_ns())";
    Ok(query(client, "claim", sql, &[]).await?[0].get(0))
}

/// One walk over the index: the first claimable item, then the first of each further organization at its priority. Where dead rows
/// pile up, walking over them is all that a scan costs, so it tells where it came to.
const SCAN: &str = "
    WITH RECURSIVE ring AS (
      (SELECT priority, organization, runnable_at, id, 1 AS place FROM work
       WHERE queue = $1 AND runnable_at <= now_ns() AND token IS NULL
       ORDER BY priority, organization, runnable_at, id LIMIT 1)
      UNION ALL
      SELECT next.priority, next.organization, next.runnable_at, next.id, ring.place + 1 FROM ring, LATERAL (
        SELECT w.priority, w.organization, w.runnable_at, w.id FROM work w
        WHERE w.queue = $1 AND w.priority = ring.priority AND w.organization > ring.organization
          AND w.runnable_at <= now_ns() AND w.token IS NULL
        ORDER BY w.organization, w.runnable_at, w.id LIMIT 1) AS next
      WHERE ring.place < $2)
    SELECT priority, organization, runnable_at, id FROM ring";

/// Looks which organizations have claimable work in a queue, at its best priority, and where the first of it stands.
pub(super) async fn scan(client: &impl GenericClient, queue: WorkQueue) -> Result<Option<Found>> {
    let rows = query(client, "claim", SCAN, &[&queue.code(), &RING_SIZE]).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let places = rows.iter().map(|row| (OrganizationId(row.get(1)), (row.get(2), row.get(3)))).collect();
    Ok(Some(Found { priority: first.get(0), places }))
}

/// Bundle and lease in one statement, whose commit need not be durable. `taken` is `tidemill_scaling::lease::plan_bundle` in SQL: a prefix within the budgets and
/// within the limit of each of its members.
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
      SELECT $6::uuid, $1::smallint, $3::uuid, min(instance_num), array_agg(id), bool_or(has_key), $7::uuid, $8::text, now_ns(), now_ns(), now_ns() + $9::bigint
      FROM taken HAVING count(*) > 0)
    UPDATE work w SET token = $6 FROM taken t WHERE w.id = t.id
    RETURNING w.id, w.instance_num, w.size_bytes, w.failures, w.crashes, w.created_at, w.object_key, w.payload, w.runnable_at";

pub(super) async fn lease(
    client: &impl GenericClient,
    request: &ClaimRequest,
    choice: &Choice,
    holder: Uuid,
) -> Result<Option<(Bundle, Mark)>> {
    let token = Uuid::new_v4();
    let (mark_at, mark_id) = choice.mark.unwrap_or((i64::MIN, i64::MIN));
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
    rows.sort_by_key(|row| (row.get::<_, i64>(8), row.get::<_, i64>(0)));
    let Some(first) = rows.first() else { return Ok(None) };
    let (instance_num, mark) = (first.get(1), (first.get(8), first.get(0)));
    let items = rows.iter().map(|row| read_item(row, choice)).collect::<Result<_>>()?;
    let (queue, organization) = (choice.queue, choice.organization);
    Ok(Some((Bundle { token: LeaseToken(token), queue, organization, instance_num, items }, mark)))
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
