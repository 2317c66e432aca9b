//! What the sweeper asks and reports: doomed objects, references, and rows past their time.

use std::collections::HashSet;

use deadpool_postgres::GenericClient;
use uuid::Uuid;

use super::connection::{execute, query};
use super::trace_days;
use crate::encoding::token_of_key;
use crate::metastore::DoomedObject;
use crate::{MetastoreOptions, Result};

/// Rows pruned by one statement, so that no transaction runs long.
const PRUNED_AT_ONCE: i64 = 20_000;

pub(super) async fn doomed_objects(client: &impl GenericClient, limit: usize) -> Result<Vec<DoomedObject>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // A raw object that was announced once more is kept while that work lives.
    let rows = query(
        client,
        "list doomed objects",
        "SELECT bucket, object_key FROM doomed_objects d WHERE delete_at <= now_ns() \
         AND NOT EXISTS (SELECT 1 FROM work w WHERE w.object_key = d.object_key) \
         AND NOT EXISTS (SELECT 1 FROM dead_letters l WHERE l.object_key = d.object_key) \
         ORDER BY delete_at LIMIT $1",
        &[&limit],
    )
    .await?;
    Ok(rows.iter().map(|row| DoomedObject { bucket: row.get(0), object_key: row.get(1) }).collect())
}

/// Dooms objects at once.
pub(super) async fn doom(
    client: &impl GenericClient,
    operation: &'static str,
    objects: &[DoomedObject],
    organization: Uuid,
) -> Result<()> {
    for object in objects {
        execute(
            client,
            operation,
            "INSERT INTO doomed_objects (bucket, object_key, organization, delete_at) VALUES ($1, $2, $3, now_ns()) \
             ON CONFLICT (bucket, object_key) DO UPDATE SET delete_at = least(doomed_objects.delete_at, excluded.delete_at)",
            &[&object.bucket, &object.object_key, &organization],
        )
        .await?;
    }
    Ok(())
}

pub(super) async fn forget_doomed(client: &impl GenericClient, objects: &[DoomedObject]) -> Result<()> {
    let buckets: Vec<&str> = objects.iter().map(|object| object.bucket.as_str()).collect();
    let keys: Vec<&str> = objects.iter().map(|object| object.object_key.as_str()).collect();
    let sql = "DELETE FROM doomed_objects d USING unnest($1::text[], $2::text[]) AS gone (bucket, object_key) \
               WHERE d.bucket = gone.bucket AND d.object_key = gone.object_key";
    execute(client, "forget doomed objects", sql, &[&buckets, &keys]).await?;
    finish_deletions(client).await
}

pub(super) async fn referenced(client: &impl GenericClient, object_keys: &[String]) -> Result<Vec<bool>> {
    let tokens: Vec<Option<Uuid>> = object_keys.iter().map(|key| token_of_key(key).map(|token| token.0)).collect();
    let rows = query(
        client,
        "look up references",
        "SELECT given.key FROM unnest($1::text[], $2::uuid[]) AS given (key, token) \
         WHERE EXISTS (SELECT 1 FROM segments s WHERE s.object_key = given.key) \
            OR EXISTS (SELECT 1 FROM doomed_objects d WHERE d.object_key = given.key) \
            OR EXISTS (SELECT 1 FROM trace_days t WHERE t.object_key = given.key) \
            OR EXISTS (SELECT 1 FROM work w WHERE w.object_key = given.key) \
            OR EXISTS (SELECT 1 FROM dead_letters l WHERE l.object_key = given.key) \
            OR EXISTS (SELECT 1 FROM leases l WHERE l.token = given.token)",
        &[&object_keys, &tokens],
    )
    .await?;
    let found: HashSet<&str> = rows.iter().map(|row| row.get(0)).collect();
    Ok(object_keys.iter().map(|key| found.contains(key.as_str())).collect())
}

/// Forgets a bounded number of rows past their time; returns whether more are left. Each statement commits on its own.
pub(super) async fn prune(client: &impl GenericClient, options: &MetastoreOptions) -> Result<bool> {
    const OPERATION: &str = "prune";
    let nanos = |memory: std::time::Duration| i64::try_from(memory.as_nanos()).unwrap_or(i64::MAX / 4);
    let mut is_more = false;
    for (sql, memory) in [
        (
            "DELETE FROM identities WHERE hash IN (SELECT hash FROM identities WHERE forget_at <= now_ns() - $1 LIMIT $2)",
            0,
        ),
        (
            "DELETE FROM refusals WHERE id IN (SELECT id FROM refusals WHERE at <= now_ns() - $1 LIMIT $2)",
            nanos(options.refusal_memory),
        ),
    ] {
        let pruned = execute(client, OPERATION, sql, &[&memory, &PRUNED_AT_ONCE]).await?;
        is_more |= pruned as i64 >= PRUNED_AT_ONCE;
    }
    let log = nanos(options.change_log_memory);
    // The floor is raised first and alone: a follower then never misses what is deleted after.
    let sql = "UPDATE catalog_state SET log_floor = pruned.seq \
               FROM (SELECT max(seq) AS seq FROM removed_segments WHERE removed_at <= now_ns() - $1) pruned \
               WHERE pruned.seq > log_floor";
    execute(client, OPERATION, sql, &[&log]).await?;
    let sql = "DELETE FROM removed_segments WHERE ctid IN \
               (SELECT ctid FROM removed_segments WHERE seq <= (SELECT log_floor FROM catalog_state) LIMIT $1)";
    is_more |= execute(client, OPERATION, sql, &[&PRUNED_AT_ONCE]).await? as i64 >= PRUNED_AT_ONCE;
    let sql = "DELETE FROM lease_outcomes WHERE day < (now_ns() / 86400000000000)::integer - 7";
    execute(client, OPERATION, sql, &[]).await?;
    trace_days::prune(client, nanos(options.replaced_grace)).await?;
    finish_deletions(client).await?;
    Ok(is_more)
}

/// Removes organizations that are being deleted and of which nothing is left.
pub(super) async fn finish_deletions(client: &impl GenericClient) -> Result<()> {
    let sql = "DELETE FROM organizations o WHERE deleting \
               AND NOT EXISTS (SELECT 1 FROM doomed_objects d WHERE d.organization = o.id)";
    execute(client, "finish deletions", sql, &[]).await?;
    Ok(())
}
