//! Admission: identities, inbox rows, refusals.

use rusqlite::{Connection, OptionalExtension, params};
use tidemill_types::{OrganizationId, Signal, TimestampNs, WorkId};
use uuid::Uuid;

use super::connection::{failed, now_ns};
use super::organizations::check_open;
use crate::encoding::{InputPayload, bounded_reason, to_json};
use crate::metastore::{Admission, InboxEntry, InputIdentity, NewInput, Refusal, RememberedInput};
use crate::{MetastoreOptions, Result};

pub(super) fn known_identities(connection: &Connection, identities: &[InputIdentity]) -> Result<Vec<bool>> {
    let now = now_ns();
    identities.iter().map(|identity| is_known(connection, identity, now)).collect()
}

fn is_known(connection: &Connection, identity: &InputIdentity, now: i64) -> Result<bool> {
    let found: Option<i64> = connection
        .prepare_cached("SELECT 1 FROM identities WHERE hash = ?1 AND forget_at > ?2")
        .and_then(|mut statement| statement.query_row(params![identity.0, now], |row| row.get(0)).optional())
        .map_err(failed("look up identity"))?;
    Ok(found.is_some())
}

pub(super) fn remember_inputs(
    connection: &Connection,
    inputs: &[RememberedInput],
    options: &MetastoreOptions,
) -> Result<()> {
    let fail = failed("remember inputs");
    let now = now_ns();
    let mut remember = connection
        .prepare_cached(
            "INSERT INTO identities (hash, forget_at) VALUES (?1, ?2) \
             ON CONFLICT (hash) DO UPDATE SET forget_at = max(forget_at, excluded.forget_at)",
        )
        .map_err(&fail)?;
    for input in inputs {
        let forget_at = options.forget_at(input);
        if forget_at > now {
            remember.execute(params![input.identity.0, forget_at]).map_err(&fail)?;
        }
    }
    Ok(())
}

pub(super) fn admit(
    connection: &Connection,
    inputs: &[NewInput],
    options: &MetastoreOptions,
) -> Result<Vec<Admission>> {
    inputs.iter().map(|input| admit_one(connection, input, options)).collect()
}

fn admit_one(connection: &Connection, input: &NewInput, options: &MetastoreOptions) -> Result<Admission> {
    check_open(connection, "admit", input.organization)?;
    let fail = failed("admit");
    let now = now_ns();
    let mut known = Vec::new();
    for (place, identity) in input.identities.iter().enumerate() {
        if input.identities[..place].contains(identity) || is_known(connection, identity, now)? {
            known.push(place);
        }
    }
    if !known.is_empty() {
        return Ok(Admission::Known(known));
    }
    let memory = if input.owned { options.push_memory } else { options.object_memory };
    let forget_at = now.saturating_add(i64::try_from(memory.as_nanos()).unwrap_or(i64::MAX));
    let mut remember = connection
        .prepare_cached(
            "INSERT INTO identities (hash, forget_at) VALUES (?1, ?2) \
             ON CONFLICT (hash) DO UPDATE SET forget_at = excluded.forget_at",
        )
        .map_err(&fail)?;
    for identity in &input.identities {
        remember.execute(params![identity.0, forget_at]).map_err(&fail)?;
    }
    let queue = input.queue();
    connection
        .prepare_cached(
            "INSERT INTO work (queue, organization, instance_num, priority, runnable_at, size_bytes, created_at, object_key, \
             payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?5, ?7, ?8)",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                queue.code(),
                input.organization.0.into_bytes(),
                input.instance_num,
                input.priority,
                now,
                i64::try_from(input.size_bytes).unwrap_or(i64::MAX),
                input.object_key,
                to_json("admit", &InputPayload::of(input)).map_err(|_| super::connection::unreadable("payload"))?,
            ])
        })
        .map_err(fail)?;
    Ok(Admission::Admitted(WorkId(connection.last_insert_rowid())))
}

pub(super) fn record_refusals(connection: &Connection, refusals: &[Refusal]) -> Result<()> {
    let fail = failed("record refusals");
    let mut statement = connection
        .prepare_cached(
            "INSERT INTO refusals (organization, signal, bucket, object_key, records_refused, records_kept, reason, at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )
        .map_err(&fail)?;
    for refusal in refusals {
        statement
            .execute(params![
                refusal.organization.map(|id| id.0.into_bytes()),
                refusal.signal.map(Signal::code),
                refusal.bucket,
                refusal.object_key,
                i64::try_from(refusal.records_refused).unwrap_or(i64::MAX),
                i64::try_from(refusal.records_kept).unwrap_or(i64::MAX),
                bounded_reason(&refusal.reason),
                refusal.at.0,
            ])
            .map_err(&fail)?;
    }
    Ok(())
}

/// One statement per source, merged; each reads at most `limit` rows.
const INBOX: &str = "
    SELECT w.id, CASE WHEN l.token IS NULL THEN 'waiting' ELSE 'leased' END, w.organization, w.queue % 16,
           w.payload ->> 'bucket', w.object_key, w.size_bytes, w.created_at, w.failures, w.crashes, e.reason
    FROM (SELECT * FROM work WHERE queue / 16 = 1 AND (?1 IS NULL OR organization = ?1) ORDER BY id DESC LIMIT ?2) w
    LEFT JOIN leases l ON l.token = w.token AND l.lease_until > ?3
    LEFT JOIN work_errors e ON e.work = w.id
    UNION ALL
    SELECT * FROM (
      SELECT id, 'dead', organization, queue % 16, payload ->> 'bucket', object_key, size_bytes, died_at, failures, crashes, reason
      FROM dead_letters WHERE queue / 16 = 1 AND (?1 IS NULL OR organization = ?1) ORDER BY died_at DESC LIMIT ?2)
    UNION ALL
    SELECT * FROM (
      SELECT NULL, 'refused', organization, signal, bucket, object_key, 0, at, 0, 0,
             CASE WHEN records_refused > 0
               THEN records_refused || ' records refused, ' || records_kept || ' kept: ' || reason ELSE reason END
      FROM refusals WHERE ?1 IS NULL OR organization = ?1 ORDER BY at DESC LIMIT ?2)
    ORDER BY 8 DESC LIMIT ?2";

pub(super) fn inbox(
    connection: &Connection,
    organization: Option<OrganizationId>,
    limit: usize,
) -> Result<Vec<InboxEntry>> {
    let fail = failed("list inbox");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(INBOX).map_err(&fail)?;
    let rows = statement
        .query_map(params![organization.map(|id| id.0.into_bytes()), limit, now_ns()], |row| {
            Ok(InboxEntry {
                work: row.get::<_, Option<i64>>(0)?.map(WorkId),
                state: row.get(1)?,
                organization: row.get::<_, Option<[u8; 16]>>(2)?.map(|id| OrganizationId(Uuid::from_bytes(id))),
                signal: row.get::<_, Option<i16>>(3)?.and_then(Signal::from_code),
                bucket: row.get(4)?,
                object_key: row.get(5)?,
                size_bytes: row.get::<_, i64>(6)?.cast_unsigned(),
                at: TimestampNs(row.get(7)?),
                failures: row.get(8)?,
                crashes: row.get(9)?,
                reason: row.get(10)?,
            })
        })
        .map_err(&fail)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fail)
}
