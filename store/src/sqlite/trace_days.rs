//! The current day indexes of traces: one row each, replaced by compare-and-set.

use rusqlite::{Connection, OptionalExtension, Row, params};
use tidemill_types::{Day, ErrorKind, OrganizationId, Signal};
use uuid::Uuid;

use super::connection::{failed, unreadable};
use super::finish::DoomedList;
use crate::encoding::{decode_segment_ids, encode_segment_ids};
use crate::metastore::{DoomedObject, TraceDay, TraceDayChange};
use crate::{Error, MetastoreOptions, Result};

const COLUMNS: &str = "organization, day, instance_num, bucket, object_key, bytes, tail_bytes, segments";

pub(super) fn list(
    connection: &Connection,
    organization: OrganizationId,
    first: Day,
    last: Day,
) -> Result<Vec<TraceDay>> {
    let fail = failed("list day indexes");
    let mut statement = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM trace_days WHERE organization = ?1 AND day BETWEEN ?2 AND ?3 ORDER BY day, instance_num"
        ))
        .map_err(&fail)?;
    let rows =
        statement.query_map(params![organization.0.into_bytes(), first.0, last.0], read_trace_day).map_err(&fail)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fail)
}

fn read_trace_day(row: &Row<'_>) -> rusqlite::Result<TraceDay> {
    Ok(TraceDay {
        organization: OrganizationId(Uuid::from_bytes(row.get(0)?)),
        day: Day(row.get(1)?),
        instance_num: row.get(2)?,
        bucket: row.get(3)?,
        object_key: row.get(4)?,
        bytes: row.get::<_, i64>(5)?.cast_unsigned(),
        tail_bytes: row.get::<_, i64>(6)?.cast_unsigned(),
        segments: decode_segment_ids(row.get_ref(7)?.as_blob()?).ok_or_else(|| unreadable("trace_days.segments"))?,
    })
}

/// Makes day indexes current in place of those that they name, whose objects are doomed.
pub(super) fn replace(
    connection: &Connection,
    changes: &[TraceDayChange],
    now: i64,
    options: &MetastoreOptions,
) -> Result<()> {
    let fail = failed("publish");
    for TraceDayChange { index, replaces } in changes {
        let organization = index.organization.0.into_bytes();
        let before: Option<DoomedObject> = connection
            .prepare_cached(
                "DELETE FROM trace_days WHERE organization = ?1 AND day = ?2 AND instance_num = ?3 RETURNING bucket, object_key",
            )
            .and_then(|mut statement| {
                let key = params![organization, index.day.0, index.instance_num];
                statement.query_row(key, read_object).optional()
            })
            .map_err(&fail)?;
        if before.as_ref().map(|object| &object.object_key) != replaces.as_ref() {
            let problem = "a day index to be replaced is not the current one";
            return Err(Error::new("publish", &index.object_key, ErrorKind::Conflict, problem));
        }
        doomed(organization, now, options).insert(connection, before.as_slice())?;
        connection
            .prepare_cached(&format!("INSERT INTO trace_days ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"))
            .and_then(|mut statement| {
                statement.execute(params![
                    organization,
                    index.day.0,
                    index.instance_num,
                    index.bucket,
                    index.object_key,
                    i64::try_from(index.bytes).unwrap_or(i64::MAX),
                    i64::try_from(index.tail_bytes).unwrap_or(i64::MAX),
                    encode_segment_ids(&index.segments),
                ])
            })
            .map_err(&fail)?;
    }
    Ok(())
}

/// Forgets the day indexes of days without live traces and dooms their objects.
pub(super) fn prune(connection: &Connection, now: i64, options: &MetastoreOptions) -> Result<()> {
    let fail = failed("prune");
    let gone: Vec<([u8; 16], DoomedObject)> = {
        let mut statement = connection
            .prepare_cached(
                "DELETE FROM trace_days WHERE NOT EXISTS (SELECT 1 FROM segments s \
                   WHERE s.organization = trace_days.organization AND s.signal = ?1 AND s.day = trace_days.day \
                   AND s.instance_num = trace_days.instance_num) \
                 RETURNING bucket, object_key, organization",
            )
            .map_err(&fail)?;
        let rows =
            statement.query_map([Signal::Traces.code()], |row| Ok((row.get(2)?, read_object(row)?))).map_err(&fail)?;
        rows.collect::<rusqlite::Result<_>>().map_err(&fail)?
    };
    for (organization, object) in gone {
        doomed(organization, now, options).insert(connection, &[object])?;
    }
    Ok(())
}

/// Forgets all of an organization's, whose objects are doomed at once.
pub(super) fn delete_all(connection: &Connection, organization: [u8; 16], now: i64) -> Result<()> {
    let fail = failed("delete organization");
    let objects: Vec<DoomedObject> = {
        let mut statement = connection
            .prepare_cached("DELETE FROM trace_days WHERE organization = ?1 RETURNING bucket, object_key")
            .map_err(&fail)?;
        let rows = statement.query_map([organization], read_object).map_err(&fail)?;
        rows.collect::<rusqlite::Result<_>>().map_err(&fail)?
    };
    DoomedList { organization, delete_at: now }.insert(connection, &objects)
}

fn read_object(row: &Row<'_>) -> rusqlite::Result<DoomedObject> {
    Ok(DoomedObject { bucket: row.get(0)?, object_key: row.get(1)? })
}

/// Running queries may still read what is replaced, as with segments.
fn doomed(organization: [u8; 16], now: i64, options: &MetastoreOptions) -> DoomedList {
    let grace = i64::try_from(options.replaced_grace.as_nanos()).unwrap_or(i64::MAX);
    DoomedList { organization, delete_at: now.saturating_add(grace) }
}
