//! The current day indexes of traces: one row each, replaced by compare-and-set.

use deadpool_postgres::GenericClient;
use tidemill_types::{Day, ErrorKind, OrganizationId, SegmentId, Signal};
use tokio_postgres::Row;
use uuid::Uuid;

use super::connection::{execute, query};
use crate::metastore::{TraceDay, TraceDayChange};
use crate::{Error, Result};

const COLUMNS: &str = "organization, day, instance_num, bucket, object_key, bytes, tail_bytes, segments";

/// Dooms the objects of the rows that `gone` gives back, after `$1` nanoseconds, and tells their keys.
const DOOM: &str = "doomed AS (INSERT INTO doomed_objects (bucket, object_key, organization, delete_at) \
                      SELECT bucket, object_key, organization, now_ns() + $1 FROM gone ON CONFLICT DO NOTHING) \
                    SELECT object_key FROM gone";

pub(super) async fn list(
    client: &impl GenericClient,
    organization: OrganizationId,
    first: Day,
    last: Day,
) -> Result<Vec<TraceDay>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM trace_days WHERE organization = $1 AND day BETWEEN $2 AND $3 ORDER BY day, instance_num"
    );
    let rows = query(client, "list day indexes", &sql, &[&organization.0, &first.0, &last.0]).await?;
    Ok(rows.iter().map(read_trace_day).collect())
}

fn read_trace_day(row: &Row) -> TraceDay {
    TraceDay {
        organization: OrganizationId(row.get(0)),
        day: Day(row.get(1)),
        instance_num: row.get(2),
        bucket: row.get(3),
        object_key: row.get(4),
        bytes: row.get::<_, i64>(5).cast_unsigned(),
        tail_bytes: row.get::<_, i64>(6).cast_unsigned(),
        segments: row.get::<_, Vec<Uuid>>(7).into_iter().map(SegmentId).collect(),
    }
}

/// Makes day indexes current in place of those that they name, whose objects are doomed.
pub(super) async fn replace(client: &impl GenericClient, changes: &[TraceDayChange], grace_ns: i64) -> Result<()> {
    // In one order, so that two publications never wait for each other in a ring.
    let mut changes: Vec<&TraceDayChange> = changes.iter().collect();
    changes.sort_by_key(|change| (change.index.organization, change.index.day, change.index.instance_num));
    for TraceDayChange { index, replaces } in changes {
        let taken_out = take_out(client, index, grace_ns).await?;
        // Somebody else's may have become current since; it is left alone, and ours is refused.
        let is_inserted = taken_out == *replaces && insert(client, index).await?;
        if !is_inserted {
            let problem = "a day index to be replaced is not the current one";
            return Err(Error::new("publish", &index.object_key, ErrorKind::Conflict, problem));
        }
    }
    Ok(())
}

/// Takes out what is current in the place of `index`, and tells its object key.
async fn take_out(client: &impl GenericClient, index: &TraceDay, grace_ns: i64) -> Result<Option<String>> {
    let sql = format!(
        "WITH gone AS (DELETE FROM trace_days WHERE organization = $2 AND day = $3 AND instance_num = $4 \
           RETURNING bucket, object_key, organization), {DOOM}"
    );
    let place: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&grace_ns, &index.organization.0, &index.day.0, &index.instance_num];
    let rows = query(client, "publish", &sql, &place).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

async fn insert(client: &impl GenericClient, index: &TraceDay) -> Result<bool> {
    let sql = format!(
        "INSERT INTO trace_days ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
         ON CONFLICT (organization, day, instance_num) DO NOTHING"
    );
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let segments: Vec<Uuid> = index.segments.iter().map(|id| id.0).collect();
    let inserted = execute(
        client,
        "publish",
        &sql,
        &[
            &index.organization.0,
            &index.day.0,
            &index.instance_num,
            &index.bucket,
            &index.object_key,
            &signed(index.bytes),
            &signed(index.tail_bytes),
            &segments,
        ],
    )
    .await?;
    Ok(inserted == 1)
}

/// Forgets the day indexes of days without live traces and dooms their objects.
pub(super) async fn prune(client: &impl GenericClient, grace_ns: i64) -> Result<()> {
    let sql = format!(
        "WITH gone AS (DELETE FROM trace_days t WHERE NOT EXISTS (SELECT 1 FROM segments s \
             WHERE s.organization = t.organization AND s.signal = $2 AND s.day = t.day AND s.instance_num = t.instance_num) \
           RETURNING bucket, object_key, organization), {DOOM}"
    );
    query(client, "prune", &sql, &[&grace_ns, &Signal::Traces.code()]).await?;
    Ok(())
}

/// Forgets all of an organization's, whose objects are doomed at once.
pub(super) async fn delete_all(client: &impl GenericClient, organization: Uuid) -> Result<()> {
    let sql = format!(
        "WITH gone AS (DELETE FROM trace_days WHERE organization = $2 RETURNING bucket, object_key, organization), {DOOM}"
    );
    query(client, "delete organization", &sql, &[&0_i64, &organization]).await?;
    Ok(())
}
