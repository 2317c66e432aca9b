//! The catalog: live segments, the change log, hours.

use deadpool_postgres::GenericClient;
use tidemill_types::{
    ByteRange, CatalogSeq, Day, ErrorKind, Hour, Level, OrganizationId, SegmentId, SegmentMeta, Signal, Tier,
    TimeRange, TimestampNs,
};
use tokio_postgres::Row;
use uuid::Uuid;

use super::connection::{execute, query};
use crate::encoding::{check_segment, decode_services, encode_services, touched_hours};
use crate::metastore::{CatalogDelta, SegmentFilter, SegmentTotals};
use crate::{Error, Result};

const COLUMNS: &str = "id, organization, signal, tier, level, day, time_start, time_end, ingest_day, rows, bytes, bucket, \
                       instance_num, object_key, etag, footer_offset, footer_len, footer_hash, index_offset, index_len, \
                       services, covers_ingest_seq";

/// What one transaction changes in the catalog besides what it took out.
#[derive(Default)]
pub(super) struct Change<'a> {
    pub(super) added: &'a [SegmentMeta],
    pub(super) removed: &'a [Uuid],
    pub(super) raised: &'a [(Uuid, Signal, Hour)],
}

/// Raises the catalog's position and logs the change under it. Must come last in its transaction: the row that is locked here
/// makes the order of positions the order of commits.
pub(super) async fn commit_change(
    client: &impl GenericClient,
    operation: &'static str,
    change: &Change<'_>,
) -> Result<i64> {
    // Ids are known before, so that the inserts need no round trip more than the position.
    let rows = query(client, operation, "UPDATE catalog_state SET seq = seq + 1 RETURNING seq", &[]).await?;
    let seq: i64 = rows[0].get(0);
    insert(client, operation, change.added, seq).await?;
    if !change.removed.is_empty() {
        let sql = "INSERT INTO removed_segments (seq, id, removed_at) SELECT $1, id, now_ns() FROM unnest($2::uuid[]) AS given (id)";
        execute(client, operation, sql, &[&seq, &change.removed]).await?;
    }
    raise_hours(client, operation, change.raised, seq).await?;
    Ok(seq)
}

async fn raise_hours(
    client: &impl GenericClient,
    operation: &'static str,
    raised: &[(Uuid, Signal, Hour)],
    seq: i64,
) -> Result<()> {
    if raised.is_empty() {
        return Ok(());
    }
    let mut raised: Vec<(Uuid, i16, i32)> =
        raised.iter().map(|(owner, signal, hour)| (*owner, signal.code(), hour.0)).collect();
    raised.sort_unstable();
    raised.dedup();
    let organizations: Vec<Uuid> = raised.iter().map(|(organization, ..)| *organization).collect();
    let signals: Vec<i16> = raised.iter().map(|(_, signal, _)| *signal).collect();
    let hours: Vec<i32> = raised.iter().map(|(.., hour)| *hour).collect();
    execute(
        client,
        operation,
        "INSERT INTO hours (organization, signal, hour, ingest_seq, changed_seq) \
         SELECT organization, signal, hour, 1, $4 FROM unnest($1::uuid[], $2::smallint[], $3::integer[]) \
           AS given (organization, signal, hour) \
         ON CONFLICT (organization, signal, hour) DO UPDATE SET ingest_seq = hours.ingest_seq + 1, changed_seq = $4",
        &[&organizations, &signals, &hours, &seq],
    )
    .await?;
    Ok(())
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

async fn insert(
    client: &impl GenericClient,
    operation: &'static str,
    segments: &[SegmentMeta],
    seq: i64,
) -> Result<()> {
    let sql = format!(
        "INSERT INTO segments ({COLUMNS}, added_seq) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
         $16, $17, $18, $19, $20, $21, $22, $23)"
    );
    for segment in segments {
        let services = encode_services(&segment.services);
        check_segment(operation, segment, &services)?;
        execute(
            client,
            operation,
            &sql,
            &[
                &segment.id.0,
                &segment.organization.0,
                &segment.signal.code(),
                &i64::from(segment.tier.0),
                &i16::from(segment.level.0),
                &segment.day.0,
                &segment.time.start.0,
                &segment.time.end.0,
                &segment.ingest_day.0,
                &signed(segment.rows),
                &signed(segment.bytes),
                &segment.bucket,
                &segment.instance_num,
                &segment.object_key,
                &segment.etag,
                &signed(segment.footer.offset),
                &signed(segment.footer.len),
                &segment.footer_hash.as_slice(),
                &signed(segment.index.offset),
                &signed(segment.index.len),
                &services,
                &segment.covers_ingest_seq,
                &seq,
            ],
        )
        .await?;
    }
    Ok(())
}

fn read_segment(row: &Row) -> Result<SegmentMeta> {
    let corrupt = |column| Error::new("read segment", column, ErrorKind::Corrupt, "is unreadable");
    let unsigned = |place: usize| row.get::<_, i64>(place).cast_unsigned();
    let hash: &[u8] = row.get(17);
    Ok(SegmentMeta {
        id: SegmentId(row.get(0)),
        organization: OrganizationId(row.get(1)),
        signal: Signal::from_code(row.get(2)).ok_or_else(|| corrupt("segments.signal"))?,
        tier: Tier(u32::try_from(row.get::<_, i64>(3)).map_err(|_| corrupt("segments.tier"))?),
        level: Level(u8::try_from(row.get::<_, i16>(4)).map_err(|_| corrupt("segments.level"))?),
        day: Day(row.get(5)),
        time: TimeRange { start: TimestampNs(row.get(6)), end: TimestampNs(row.get(7)) },
        ingest_day: Day(row.get(8)),
        rows: unsigned(9),
        bytes: unsigned(10),
        bucket: row.get(11),
        instance_num: row.get(12),
        object_key: row.get(13),
        etag: row.get(14),
        footer: ByteRange { offset: unsigned(15), len: unsigned(16) },
        footer_hash: hash.try_into().map_err(|_| corrupt("segments.footer_hash"))?,
        index: ByteRange { offset: unsigned(18), len: unsigned(19) },
        services: decode_services(row.get(20)).ok_or_else(|| corrupt("segments.services"))?,
        covers_ingest_seq: row.get(21),
    })
}

/// Takes segments out of the catalog, dooms their objects, and returns those that were live.
pub(super) async fn take_out(
    client: &impl GenericClient,
    operation: &'static str,
    ids: &[Uuid],
    grace_ns: i64,
) -> Result<Vec<Uuid>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    // Locked in one order, so that two publications never wait for each other in a ring.
    query(client, operation, "SELECT 1 FROM segments WHERE id = ANY($1) ORDER BY id FOR UPDATE", &[&ids]).await?;
    let rows = query(
        client,
        operation,
        "WITH removed AS (DELETE FROM segments WHERE id = ANY($1) RETURNING id, bucket, object_key, organization), \
           doomed AS (INSERT INTO doomed_objects (bucket, object_key, organization, delete_at) \
             SELECT bucket, object_key, organization, now_ns() + $2 FROM removed ON CONFLICT DO NOTHING) \
         SELECT id FROM removed",
        &[&ids, &grace_ns],
    )
    .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

pub(super) async fn retire_segments(client: &impl GenericClient, ids: &[SegmentId], grace_ns: i64) -> Result<u64> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let removed = take_out(client, "retire segments", &ids, grace_ns).await?;
    if !removed.is_empty() {
        commit_change(client, "retire segments", &Change { removed: &removed, ..Change::default() }).await?;
    }
    Ok(removed.len() as u64)
}

/// Inserts rows found in a bucket. What is live or doomed is left alone.
pub(super) async fn adopt_segments(client: &impl GenericClient, segments: &[SegmentMeta]) -> Result<u64> {
    // Everything else that changes the catalog waits, so that what is looked up stays true.
    query(client, "adopt segments", "SELECT seq FROM catalog_state FOR UPDATE", &[]).await?;
    let mut adopted = Vec::new();
    for segment in segments {
        let sql = "SELECT EXISTS (SELECT 1 FROM segments WHERE id = $1) \
                   OR EXISTS (SELECT 1 FROM doomed_objects WHERE object_key = $2 AND bucket = $3)";
        let rows = query(client, "adopt segments", sql, &[&segment.id.0, &segment.object_key, &segment.bucket]).await?;
        let is_repeated = adopted.iter().any(|known: &SegmentMeta| known.id == segment.id);
        if !rows[0].get::<_, bool>(0) && !is_repeated {
            adopted.push(segment.clone());
        }
    }
    let raised: Vec<(Uuid, Signal, Hour)> = adopted
        .iter()
        .flat_map(|segment| {
            touched_hours(segment).into_iter().map(|hour| (segment.organization.0, segment.signal, hour))
        })
        .collect();
    commit_change(client, "adopt segments", &Change { added: &adopted, raised: &raised, ..Change::default() }).await?;
    Ok(adopted.len() as u64)
}

pub(super) async fn ingest_seqs(
    client: &impl GenericClient,
    organization: OrganizationId,
    signal: Signal,
    hours: &[Hour],
) -> Result<Vec<i64>> {
    let asked: Vec<i32> = hours.iter().map(|hour| hour.0).collect();
    let sql = "SELECT hour, ingest_seq FROM hours WHERE organization = $1 AND signal = $2 AND hour = ANY($3)";
    let rows = query(client, "read hours", sql, &[&organization.0, &signal.code(), &asked]).await?;
    let known: std::collections::HashMap<i32, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    Ok(asked.iter().map(|hour| known.get(hour).copied().unwrap_or(0)).collect())
}

pub(super) async fn segments(client: &impl GenericClient, filter: &SegmentFilter) -> Result<Vec<SegmentMeta>> {
    let time = filter.time.unwrap_or(TimeRange::ALL);
    let sql = format!(
        "SELECT {COLUMNS} FROM segments WHERE ($1::uuid IS NULL OR organization = $1) AND ($2::smallint IS NULL OR signal = $2) \
         AND ($3::bigint IS NULL OR tier = $3) AND ($4::integer IS NULL OR day = $4) AND time_start < $6 AND time_end > $5 \
         AND ($7::uuid IS NULL OR id = $7) ORDER BY {} LIMIT $8",
        if filter.latest.is_some() { "time_end DESC, id" } else { "organization, signal, day, time_start, id" }
    );
    let rows = query(
        client,
        "list segments",
        &sql,
        &[
            &filter.organization.map(|id| id.0),
            &filter.signal.map(Signal::code),
            &filter.tier.map(|tier| i64::from(tier.0)),
            &filter.day.map(|day| day.0),
            &time.start.0,
            &time.end.0,
            &filter.id.map(|id| id.0),
            &filter.latest.map(|latest| i64::try_from(latest).unwrap_or(i64::MAX)),
        ],
    )
    .await?;
    rows.iter().map(read_segment).collect()
}

pub(super) async fn segment_totals(client: &impl GenericClient) -> Result<Vec<SegmentTotals>> {
    let sql = "SELECT signal, tier, level, count(*), sum(rows)::bigint, sum(bytes)::bigint FROM segments \
               GROUP BY signal, tier, level ORDER BY signal, tier, level";
    let rows = query(client, "count segments", sql, &[]).await?;
    rows.iter()
        .map(|row| {
            let corrupt = |problem: &'static str| Error::new("count segments", "segments", ErrorKind::Corrupt, problem);
            let count = |place: usize| row.get::<_, i64>(place).cast_unsigned();
            Ok(SegmentTotals {
                signal: Signal::from_code(row.get(0)).ok_or_else(|| corrupt("an unknown signal"))?,
                tier: u32::try_from(row.get::<_, i64>(1)).map(Tier).map_err(|_| corrupt("a tier out of range"))?,
                level: u8::try_from(row.get::<_, i16>(2)).map(Level).map_err(|_| corrupt("a level out of range"))?,
                segments: count(3),
                rows: count(4),
                bytes: count(5),
            })
        })
        .collect()
}

/// Reads a page of changes; `client` must be a transaction that reads one snapshot.
pub(super) async fn changes(client: &impl GenericClient, since: CatalogSeq, limit: usize) -> Result<CatalogDelta> {
    const OPERATION: &str = "read catalog changes";
    let rows = query(client, OPERATION, "SELECT seq, log_floor FROM catalog_state", &[]).await?;
    let (seq, floor): (i64, i64) = (rows[0].get(0), rows[0].get(1));
    if since.0 != 0 && since.0 < floor {
        let problem = format!("the change log reaches back to {floor}; start from nothing (position 0)");
        return Err(Error::new(OPERATION, since.0.to_string(), ErrorKind::Conflict, problem));
    }
    let upto = page_end(client, since.0, limit, seq).await?;
    let mut delta = CatalogDelta { seq: CatalogSeq(upto), more: upto < seq, ..CatalogDelta::default() };
    let sql = format!("SELECT {COLUMNS} FROM segments WHERE added_seq > $1 AND added_seq <= $2 ORDER BY added_seq");
    let rows = query(client, OPERATION, &sql, &[&since.0, &upto]).await?;
    delta.added = rows.iter().map(read_segment).collect::<Result<_>>()?;
    if since.0 != 0 {
        let sql = "SELECT id FROM removed_segments WHERE seq > $1 AND seq <= $2 ORDER BY seq";
        let rows = query(client, OPERATION, sql, &[&since.0, &upto]).await?;
        delta.removed = rows.iter().map(|row| SegmentId(row.get(0))).collect();
    }
    let sql = "SELECT organization, signal, hour, ingest_seq FROM hours WHERE changed_seq > $1 AND changed_seq <= $2";
    let rows = query(client, OPERATION, sql, &[&since.0, &upto]).await?;
    delta.hours = rows
        .iter()
        .filter_map(|row| {
            let signal = Signal::from_code(row.get(1))?;
            Some((OrganizationId(row.get(0)), signal, Hour(row.get(2)), row.get(3)))
        })
        .collect();
    Ok(delta)
}

/// The last position of a page: whole positions only, at most `limit` segments unless one position has more.
async fn page_end(client: &impl GenericClient, since: i64, limit: usize, seq: i64) -> Result<i64> {
    const OPERATION: &str = "read catalog changes";
    let limit = i64::try_from(limit.max(1)).unwrap_or(i64::MAX);
    let sql = "SELECT added_seq FROM segments WHERE added_seq > $1 ORDER BY added_seq LIMIT 1 OFFSET $2";
    let rows = query(client, OPERATION, sql, &[&since, &limit]).await?;
    let Some(beyond) = rows.first().map(|row| row.get::<_, i64>(0)) else { return Ok(seq) };
    let sql = "SELECT max(added_seq) FROM segments WHERE added_seq > $1 AND added_seq < $2";
    let rows = query(client, OPERATION, sql, &[&since, &beyond]).await?;
    Ok(rows[0].get::<_, Option<i64>>(0).unwrap_or(beyond))
}
