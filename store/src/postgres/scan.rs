//! Looking where a queue has claimable work: everywhere, or from the low-water marks on; and the marks that outlive a process.

use deadpool_postgres::GenericClient;
use tidemill_types::{OrganizationId, WorkQueue};
use tokio_postgres::Row;
use uuid::Uuid;

use super::connection::{execute, query};
use super::ring::{Found, PlaceMark, RING_SIZE};
use crate::Result;

/// Rounds of a scan that begins at marks.
const NEW_PLACES: usize = 4;

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
    Ok(Found { places: rows.iter().map(read_place).collect(), is_whole: rows.len() < RING_SIZE })
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
    mut known: Vec<PlaceMark>,
) -> Result<Option<Found>> {
    for _ in 0..NEW_PLACES {
        let places = scan_ranges(client, queue, &known).await?;
        let is_known = |place: &PlaceMark| known.iter().any(|known| (known.0, known.1) == (place.0, place.1));
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

async fn scan_ranges(client: &impl GenericClient, queue: WorkQueue, known: &[PlaceMark]) -> Result<Vec<PlaceMark>> {
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
    Ok(rows.iter().map(read_place).collect())
}

fn read_place(row: &Row) -> PlaceMark {
    (row.get(0), OrganizationId(row.get(1)), (row.get(2), row.get(3)))
}

/// The marks that were stored last. They are hints: what came back before them since is found by a scan that looks everywhere.
pub(super) async fn load_marks(client: &impl GenericClient, queue: WorkQueue) -> Result<Vec<PlaceMark>> {
    let sql = "SELECT priority, organization, runnable_at, id FROM queue_marks WHERE queue = $1 ORDER BY 1, 2 LIMIT $2";
    let rows = query(client, "claim", sql, &[&queue.code(), &(RING_SIZE as i64)]).await?;
    Ok(rows.iter().map(read_place).collect())
}

/// Stores marks, all of one queue and in their order, so that nobody waits in a ring. The commit need not be durable.
pub(super) async fn store_marks(client: &impl GenericClient, queue: WorkQueue, marks: &[PlaceMark]) -> Result<()> {
    execute(
        client,
        "store marks",
        "INSERT INTO queue_marks (queue, priority, organization, runnable_at, id) \
         SELECT $1, priority, organization, runnable_at, id \
         FROM unnest($2::smallint[], $3::uuid[], $4::bigint[], $5::bigint[]) AS given (priority, organization, runnable_at, id) \
         WHERE (SELECT set_config('synchronous_commit', 'off', true) IS NOT NULL) ORDER BY priority, organization \
         ON CONFLICT (queue, priority, organization) DO UPDATE SET runnable_at = excluded.runnable_at, id = excluded.id",
        &[
            &queue.code(),
            &marks.iter().map(|mark| mark.0).collect::<Vec<_>>(),
            &marks.iter().map(|mark| mark.1.0).collect::<Vec<_>>(),
            &marks.iter().map(|mark| mark.2.0).collect::<Vec<_>>(),
            &marks.iter().map(|mark| mark.2.1).collect::<Vec<_>>(),
        ],
    )
    .await?;
    Ok(())
}
