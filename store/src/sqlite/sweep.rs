//! What the sweeper asks and reports: doomed objects, references, and rows past their time.

use rusqlite::{Connection, params};

use super::connection::{failed, now_ns};
use super::trace_days;
use crate::encoding::token_of_key;
use crate::metastore::DoomedObject;
use crate::{MetastoreOptions, Result};

/// Rows pruned by one statement, so that no write holds the others up for long.
const PRUNED_AT_ONCE: i64 = 20_000;

pub(super) fn doomed_objects(connection: &Connection, limit: usize) -> Result<Vec<DoomedObject>> {
    let fail = failed("list doomed objects");
    // A raw object that was announced once more is kept while that work lives.
    let mut statement = connection
        .prepare_cached(
            "SELECT bucket, object_key FROM doomed_objects d WHERE delete_at <= ?1 \
             AND NOT EXISTS (SELECT 1 FROM work w WHERE w.object_key = d.object_key) \
             AND NOT EXISTS (SELECT 1 FROM dead_letters l WHERE l.object_key = d.object_key) \
             ORDER BY delete_at LIMIT ?2",
        )
        .map_err(&fail)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement
        .query_map(params![now_ns(), limit], |row| Ok(DoomedObject { bucket: row.get(0)?, object_key: row.get(1)? }))
        .map_err(&fail)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fail)
}

pub(super) fn forget_doomed(connection: &Connection, objects: &[DoomedObject]) -> Result<()> {
    let fail = failed("forget doomed objects");
    let mut statement =
        connection.prepare_cached("DELETE FROM doomed_objects WHERE bucket = ?1 AND object_key = ?2").map_err(&fail)?;
    for object in objects {
        statement.execute(params![object.bucket, object.object_key]).map_err(&fail)?;
    }
    finish_deletions(connection)
}

pub(super) fn referenced(connection: &Connection, object_keys: &[String]) -> Result<Vec<bool>> {
    let fail = failed("look up references");
    let mut statement = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM segments WHERE object_key = ?1) \
               OR EXISTS (SELECT 1 FROM doomed_objects WHERE object_key = ?1) \
               OR EXISTS (SELECT 1 FROM trace_days WHERE object_key = ?1) \
               OR EXISTS (SELECT 1 FROM work WHERE object_key = ?1) \
               OR EXISTS (SELECT 1 FROM dead_letters WHERE object_key = ?1) \
               OR EXISTS (SELECT 1 FROM leases WHERE token = ?2)",
        )
        .map_err(&fail)?;
    object_keys
        .iter()
        .map(|object_key| {
            let token = token_of_key(object_key).map(|token| token.0.into_bytes());
            statement.query_row(params![object_key, token], |row| row.get(0)).map_err(&fail)
        })
        .collect()
}

/// Forgets a bounded number of rows past their time; returns whether more are left.
pub(super) fn prune(connection: &Connection, options: &MetastoreOptions) -> Result<bool> {
    let fail = failed("prune");
    let now = now_ns();
    let before = |memory: std::time::Duration| now.saturating_sub(i64::try_from(memory.as_nanos()).unwrap_or(i64::MAX));
    let mut is_more = false;
    let mut run = |sql: &str, before: i64| -> Result<()> {
        let pruned = connection.execute(sql, params![before, PRUNED_AT_ONCE]).map_err(&fail)?;
        is_more |= pruned as i64 >= PRUNED_AT_ONCE;
        Ok(())
    };
    run("DELETE FROM identities WHERE hash IN (SELECT hash FROM identities WHERE forget_at <= ?1 LIMIT ?2)", now)?;
    run(
        "DELETE FROM refusals WHERE id IN (SELECT id FROM refusals WHERE at <= ?1 LIMIT ?2)",
        before(options.refusal_memory),
    )?;
    let log = before(options.change_log_memory);
    connection
        .execute(
            "UPDATE catalog_state SET log_floor = \
             max(log_floor, coalesce((SELECT max(seq) FROM removed_segments WHERE removed_at <= ?1), 0))",
            [log],
        )
        .map_err(&fail)?;
    run(
        "DELETE FROM removed_segments WHERE (seq, id) IN \
         (SELECT seq, id FROM removed_segments WHERE removed_at <= ?1 LIMIT ?2)",
        log,
    )?;
    let day = tidemill_types::TimestampNs(now).day().0;
    connection.execute("DELETE FROM lease_outcomes WHERE day < ?1", [day - 7]).map_err(&fail)?;
    trace_days::prune(connection, now, options)?;
    finish_deletions(connection)?;
    Ok(is_more)
}

/// Removes organizations that are being deleted and of which nothing is left.
pub(super) fn finish_deletions(connection: &Connection) -> Result<()> {
    connection
        .execute(
            "DELETE FROM organizations WHERE deleting AND NOT EXISTS \
             (SELECT 1 FROM doomed_objects d WHERE d.organization = organizations.id)",
            [],
        )
        .map_err(failed("finish deletions"))?;
    Ok(())
}
