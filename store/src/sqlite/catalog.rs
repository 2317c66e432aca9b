//! The catalog: live segments, the change log, hours.

use rusqlite::{Connection, OptionalExtension, Row, params};
use tidemill_types::{
    ByteRange, CatalogSeq, Day, ErrorKind, Hour, Level, OrganizationId, SegmentId, SegmentMeta, Signal, Tier,
    TimeRange, TimestampNs,
};
use uuid::Uuid;

use super::connection::{failed, now_ns, unreadable};
use crate::encoding::{check_segment, decode_services, encode_services, touched_hours};
use crate::metastore::{CatalogDelta, SegmentFilter, SegmentTotals};
use crate::{Error, MetastoreOptions, Result};

const COLUMNS: &str = "id, organization, signal, tier, level, day, time_start, time_end, ingest_day, rows, bytes, bucket, \
                       instance_num, object_key, etag, footer_offset, footer_len, footer_hash, index_offset, index_len, \
                       services, covers_ingest_seq";

/// Raises the catalog's position; the write lock makes it follow the order of commits.
pub(super) fn next_seq(connection: &Connection) -> Result<i64> {
    connection
        .prepare_cached("UPDATE catalog_state SET seq = seq + 1 RETURNING seq")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(failed("publish"))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Inserts segments.
pub(super) fn insert(
    connection: &Connection,
    operation: &'static str,
    segments: &[SegmentMeta],
    seq: i64,
) -> Result<()> {
    let fail = failed(operation);
    let mut statement = connection
        .prepare_cached(&format!(
            "INSERT INTO segments ({COLUMNS}, added_seq) VALUES \
             (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)"
        ))
        .map_err(&fail)?;
    for segment in segments {
        let services = encode_services(&segment.services);
        check_segment(operation, segment, &services)?;
        statement
            .execute(params![
                segment.id.0.into_bytes(),
                segment.organization.0.into_bytes(),
                segment.signal.code(),
                segment.tier.0,
                segment.level.0,
                segment.day.0,
                segment.time.start.0,
                segment.time.end.0,
                segment.ingest_day.0,
                signed(segment.rows),
                signed(segment.bytes),
                segment.bucket,
                segment.instance_num,
                segment.object_key,
                segment.etag,
                signed(segment.footer.offset),
                signed(segment.footer.len),
                segment.footer_hash,
                signed(segment.index.offset),
                signed(segment.index.len),
                services,
                segment.covers_ingest_seq,
                seq,
            ])
            .map_err(&fail)?;
    }
    Ok(())
}

fn read_segment(row: &Row<'_>) -> rusqlite::Result<SegmentMeta> {
    let unsigned = |place: usize| row.get::<_, i64>(place).map(i64::cast_unsigned);
    Ok(SegmentMeta {
        id: SegmentId(Uuid::from_bytes(row.get(0)?)),
        organization: OrganizationId(Uuid::from_bytes(row.get(1)?)),
        signal: Signal::from_code(row.get(2)?).ok_or_else(|| unreadable("segments.signal"))?,
        tier: Tier(row.get(3)?),
        level: Level(row.get(4)?),
        day: Day(row.get(5)?),
        time: TimeRange { start: TimestampNs(row.get(6)?), end: TimestampNs(row.get(7)?) },
        ingest_day: Day(row.get(8)?),
        rows: unsigned(9)?,
        bytes: unsigned(10)?,
        bucket: row.get(11)?,
        instance_num: row.get(12)?,
        object_key: row.get(13)?,
        etag: row.get(14)?,
        footer: ByteRange { offset: unsigned(15)?, len: unsigned(16)? },
        footer_hash: row.get(17)?,
        index: ByteRange { offset: unsigned(18)?, len: unsigned(19)? },
        services: decode_services(row.get_ref(20)?.as_blob()?).ok_or_else(|| unreadable("segments.services"))?,
        covers_ingest_seq: row.get(21)?,
    })
}

/// Takes segments that must all be live out of the catalog.
pub(super) fn replace(
    connection: &Connection,
    ids: &[SegmentId],
    seq: i64,
    now: i64,
    options: &MetastoreOptions,
) -> Result<()> {
    for id in ids {
        if !retire(connection, *id, seq, now, options)? {
            let problem = "a segment to be replaced is no longer live";
            return Err(Error::new("publish", id.to_string(), ErrorKind::Conflict, problem));
        }
    }
    Ok(())
}

fn retire(connection: &Connection, id: SegmentId, seq: i64, now: i64, options: &MetastoreOptions) -> Result<bool> {
    let fail = failed("retire segment");
    let key = id.0.into_bytes();
    let object: Option<(String, String, [u8; 16])> = connection
        .prepare_cached("DELETE FROM segments WHERE id = ?1 RETURNING bucket, object_key, organization")
        .and_then(|mut statement| {
            statement.query_row([key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
        })
        .map_err(&fail)?;
    let Some((bucket, object_key, organization)) = object else { return Ok(false) };
    connection
        .prepare_cached("INSERT INTO removed_segments (seq, id, removed_at) VALUES (?1, ?2, ?3)")
        .and_then(|mut statement| statement.execute(params![seq, key, now]))
        .map_err(&fail)?;
    let delete_at = now.saturating_add(i64::try_from(options.replaced_grace.as_nanos()).unwrap_or(i64::MAX));
    connection
        .prepare_cached(
            "INSERT INTO doomed_objects (bucket, object_key, organization, delete_at) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT DO NOTHING",
        )
        .and_then(|mut statement| statement.execute(params![bucket, object_key, organization, delete_at]))
        .map_err(&fail)?;
    Ok(true)
}

pub(super) fn retire_segments(connection: &Connection, ids: &[SegmentId], options: &MetastoreOptions) -> Result<u64> {
    let (seq, now) = (next_seq(connection)?, now_ns());
    let mut retired = 0;
    for &id in ids {
        retired += u64::from(retire(connection, id, seq, now, options)?);
    }
    Ok(retired)
}

/// Inserts rows found in a bucket. What is live, doomed, or removed lately is left alone.
pub(super) fn adopt_segments(connection: &Connection, segments: &[SegmentMeta]) -> Result<u64> {
    let fail = failed("adopt segments");
    let seq = next_seq(connection)?;
    let mut adopted = 0;
    for segment in segments {
        let is_known: bool = connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM segments WHERE id = ?1) \
                 OR EXISTS (SELECT 1 FROM doomed_objects WHERE object_key = ?2 AND bucket = ?3)",
            )
            .and_then(|mut statement| {
                let key = params![segment.id.0.into_bytes(), segment.object_key, segment.bucket];
                statement.query_row(key, |row| row.get(0))
            })
            .map_err(&fail)?;
        if !is_known {
            insert(connection, "adopt segments", std::slice::from_ref(segment), seq)?;
            let organization = segment.organization.0.into_bytes();
            raise_hours(connection, organization, segment.signal, &touched_hours(segment), seq)?;
            adopted += 1;
        }
    }
    Ok(adopted)
}

pub(super) fn raise_hours(
    connection: &Connection,
    organization: [u8; 16],
    signal: Signal,
    hours: &[Hour],
    seq: i64,
) -> Result<()> {
    let fail = failed("raise hours");
    let mut statement = connection
        .prepare_cached(
            "INSERT INTO hours (organization, signal, hour, ingest_seq, changed_seq) VALUES (?1, ?2, ?3, 1, ?4) \
             ON CONFLICT (organization, signal, hour) DO UPDATE SET ingest_seq = ingest_seq + 1, changed_seq = ?4",
        )
        .map_err(&fail)?;
    for hour in hours {
        statement.execute(params![organization, signal.code(), hour.0, seq]).map_err(&fail)?;
    }
    Ok(())
}

pub(super) fn ingest_seqs(
    connection: &Connection,
    organization: OrganizationId,
    signal: Signal,
    hours: &[Hour],
) -> Result<Vec<i64>> {
    let fail = failed("read hours");
    let mut statement = connection
        .prepare_cached("SELECT ingest_seq FROM hours WHERE organization = ?1 AND signal = ?2 AND hour = ?3")
        .map_err(&fail)?;
    hours
        .iter()
        .map(|hour| {
            let key = params![organization.0.into_bytes(), signal.code(), hour.0];
            Ok(statement.query_row(key, |row| row.get(0)).optional().map_err(&fail)?.unwrap_or(0))
        })
        .collect()
}

pub(super) fn segments(connection: &Connection, filter: &SegmentFilter) -> Result<Vec<SegmentMeta>> {
    let fail = failed("list segments");
    let time = filter.time.unwrap_or(TimeRange::ALL);
    let mut statement = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM segments WHERE (?1 IS NULL OR organization = ?1) AND (?2 IS NULL OR signal = ?2) \
             AND (?3 IS NULL OR tier = ?3) AND (?4 IS NULL OR day = ?4) AND time_start < ?6 AND time_end > ?5 \
             AND (?7 IS NULL OR id = ?7) ORDER BY {} LIMIT ?8",
            if filter.latest.is_some() { "time_end DESC, id" } else { "organization, signal, day, time_start, id" }
        ))
        .map_err(&fail)?;
    let key = params![
        filter.organization.map(|id| id.0.into_bytes()),
        filter.signal.map(Signal::code),
        filter.tier.map(|tier| tier.0),
        filter.day.map(|day| day.0),
        time.start.0,
        time.end.0,
        filter.id.map(|id| id.0.into_bytes()),
        filter.latest.map_or(-1, |latest| i64::try_from(latest).unwrap_or(i64::MAX)),
    ];
    let rows = statement.query_map(key, read_segment).map_err(&fail)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fail)
}

pub(super) fn segment_totals(connection: &Connection) -> Result<Vec<SegmentTotals>> {
    let fail = failed("count segments");
    let mut statement = connection
        .prepare_cached(
            "SELECT signal, tier, level, count(*), sum(rows), sum(bytes) FROM segments \
             GROUP BY signal, tier, level ORDER BY signal, tier, level",
        )
        .map_err(&fail)?;
    let rows = statement.query_map([], |row| {
        let count = |place| row.get::<_, i64>(place).map(i64::cast_unsigned);
        Ok(SegmentTotals {
            signal: Signal::from_code(row.get(0)?).ok_or(rusqlite::Error::InvalidQuery)?,
            tier: Tier(row.get(1)?),
            level: Level(row.get(2)?),
            segments: count(3)?,
            rows: count(4)?,
            bytes: count(5)?,
        })
    });
    rows.map_err(&fail)?.collect::<rusqlite::Result<_>>().map_err(fail)
}

pub(super) fn changes(connection: &Connection, since: CatalogSeq, limit: usize) -> Result<CatalogDelta> {
    let fail = failed("read catalog changes");
    let (seq, floor): (i64, i64) = connection
        .query_row("SELECT seq, log_floor FROM catalog_state", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(&fail)?;
    if since.0 != 0 && since.0 < floor {
        let problem = format!("the change log reaches back to {floor}; start from nothing (position 0)");
        return Err(Error::new("read catalog changes", since.0.to_string(), ErrorKind::Conflict, problem));
    }
    let upto = page_end(connection, since.0, limit, seq)?;
    let range = params![since.0, upto];
    let mut delta = CatalogDelta { seq: CatalogSeq(upto), more: upto < seq, ..CatalogDelta::default() };
    {
        let mut statement = connection
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM segments WHERE added_seq > ?1 AND added_seq <= ?2 ORDER BY added_seq"
            ))
            .map_err(&fail)?;
        let rows = statement.query_map(range, read_segment).map_err(&fail)?;
        delta.added = rows.collect::<rusqlite::Result<_>>().map_err(&fail)?;
    }
    if since.0 != 0 {
        let mut statement = connection
            .prepare_cached("SELECT id FROM removed_segments WHERE seq > ?1 AND seq <= ?2 ORDER BY seq")
            .map_err(&fail)?;
        let rows = statement.query_map(range, |row| Ok(SegmentId(Uuid::from_bytes(row.get(0)?)))).map_err(&fail)?;
        delta.removed = rows.collect::<rusqlite::Result<_>>().map_err(&fail)?;
    }
    let mut statement = connection
        .prepare_cached(
            "SELECT organization, signal, hour, ingest_seq FROM hours WHERE changed_seq > ?1 AND changed_seq <= ?2",
        )
        .map_err(&fail)?;
    let rows = statement
        .query_map(range, |row| {
            let organization = OrganizationId(Uuid::from_bytes(row.get(0)?));
            let signal = Signal::from_code(row.get(1)?).ok_or_else(|| unreadable("hours.signal"))?;
            Ok((organization, signal, Hour(row.get(2)?), row.get(3)?))
        })
        .map_err(&fail)?;
    delta.hours = rows.collect::<rusqlite::Result<_>>().map_err(&fail)?;
    Ok(delta)
}

/// The last position of a page: whole positions only, at most `limit` segments unless one position has more.
fn page_end(connection: &Connection, since: i64, limit: usize, seq: i64) -> Result<i64> {
    let fail = failed("read catalog changes");
    let limit = i64::try_from(limit.max(1)).unwrap_or(i64::MAX);
    let beyond: Option<i64> = connection
        .prepare_cached("SELECT added_seq FROM segments WHERE added_seq > ?1 ORDER BY added_seq LIMIT 1 OFFSET ?2")
        .and_then(|mut statement| statement.query_row(params![since, limit], |row| row.get(0)).optional())
        .map_err(&fail)?;
    let Some(beyond) = beyond else { return Ok(seq) };
    let last_whole: Option<i64> = connection
        .query_row(
            "SELECT max(added_seq) FROM segments WHERE added_seq > ?1 AND added_seq < ?2",
            params![since, beyond],
            |row| row.get(0),
        )
        .map_err(fail)?;
    Ok(last_whole.unwrap_or(beyond))
}
