//! Organizations, API keys, documents.

use deadpool_postgres::GenericClient;
use tidemill_types::{ErrorKind, OrganizationId, TimestampNs};
use tokio_postgres::Row;
use uuid::Uuid;

use super::connection::{execute, query};
use super::{catalog, sweep, trace_days};
use crate::metastore::{ApiKey, KeyRole, Organization};
use crate::{Error, Result};

const COLUMNS: &str = "id, name, created_at, deleting, retention_days_logs, retention_days_metrics, retention_days_traces, \
                       ingest_bytes_per_second";

fn read_organization(row: &Row) -> Organization {
    let days = |place: usize| row.get::<_, Option<i64>>(place).and_then(|days| u32::try_from(days).ok());
    Organization {
        id: OrganizationId(row.get(0)),
        name: row.get(1),
        created_at: TimestampNs(row.get(2)),
        deleting: row.get(3),
        retention_days: [days(4), days(5), days(6)],
        ingest_bytes_per_second: row.get::<_, Option<i64>>(7).map(i64::cast_unsigned),
    }
}

pub(super) async fn create(client: &impl GenericClient, id: OrganizationId, name: &str) -> Result<Organization> {
    let sql = format!("INSERT INTO organizations (id, name) VALUES ($1, $2) RETURNING {COLUMNS}");
    let rows = query(client, "create organization", &sql, &[&id.0, &name]).await?;
    Ok(read_organization(&rows[0]))
}

pub(super) async fn list(client: &impl GenericClient) -> Result<Vec<Organization>> {
    let sql = format!("SELECT {COLUMNS} FROM organizations ORDER BY name COLLATE \"C\"");
    let rows = query(client, "list organizations", &sql, &[]).await?;
    Ok(rows.iter().map(read_organization).collect())
}

pub(super) async fn update(client: &impl GenericClient, organization: &Organization) -> Result<()> {
    let [logs, metrics, traces] = organization.retention_days.map(|days| days.map(i64::from));
    let limit = organization.ingest_bytes_per_second.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
    let changed = execute(
        client,
        "update organization",
        "UPDATE organizations SET name = $2, retention_days_logs = $3, retention_days_metrics = $4, \
         retention_days_traces = $5, ingest_bytes_per_second = $6 WHERE id = $1 AND NOT deleting",
        &[&organization.id.0, &organization.name, &logs, &metrics, &traces, &limit],
    )
    .await?;
    found("update organization", &organization.id.to_string(), changed)
}

/// Begins the deletion: keys, work and segments go now, objects when they are swept.
pub(super) async fn delete(client: &impl GenericClient, id: OrganizationId) -> Result<()> {
    const OPERATION: &str = "delete organization";
    let changed =
        execute(client, OPERATION, "UPDATE organizations SET deleting = true WHERE id = $1", &[&id.0]).await?;
    found(OPERATION, &id.to_string(), changed)?;
    // Waits for publications under way; later ones find no lease.
    execute(client, OPERATION, "DELETE FROM leases WHERE organization = $1", &[&id.0]).await?;
    execute(client, OPERATION, "DELETE FROM queue_marks WHERE organization = $1", &[&id.0]).await?;
    for table in ["work", "dead_letters"] {
        let sql = format!(
            "INSERT INTO doomed_objects (bucket, object_key, organization, delete_at) \
             SELECT DISTINCT payload::json ->> 'bucket', object_key, organization, now_ns() FROM {table} \
             WHERE organization = $1 AND queue / 16 = 1 AND (payload::json ->> 'owned')::boolean \
             ON CONFLICT (bucket, object_key) DO UPDATE SET delete_at = least(doomed_objects.delete_at, excluded.delete_at)"
        );
        execute(client, OPERATION, &sql, &[&id.0]).await?;
    }
    let sql = "DELETE FROM work_errors WHERE work IN (SELECT id FROM work WHERE organization = $1)";
    execute(client, OPERATION, sql, &[&id.0]).await?;
    for table in ["api_keys", "work", "dead_letters", "refusals", "hours"] {
        execute(client, OPERATION, &format!("DELETE FROM {table} WHERE organization = $1"), &[&id.0]).await?;
    }
    trace_days::delete_all(client, id.0).await?;
    let sql = "UPDATE doomed_objects SET delete_at = least(delete_at, now_ns()) WHERE organization = $1";
    execute(client, OPERATION, sql, &[&id.0]).await?;
    let rows = query(client, OPERATION, "SELECT id FROM segments WHERE organization = $1", &[&id.0]).await?;
    let segments: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    if segments.is_empty() {
        // Where nothing has to be swept, that was all.
        return sweep::finish_deletions(client).await;
    }
    let removed = catalog::take_out(client, OPERATION, &segments, 0).await?;
    catalog::commit_change(client, OPERATION, &catalog::Change { removed: &removed, ..Default::default() }).await?;
    Ok(())
}

/// Refuses input for organizations that are not there, or no longer; keeps them from being deleted meanwhile.
pub(super) async fn check_open(
    client: &impl GenericClient,
    operation: &'static str,
    ids: impl IntoIterator<Item = OrganizationId>,
) -> Result<()> {
    let mut ids: Vec<Uuid> = ids.into_iter().map(|id| id.0).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(());
    }
    let sql = "SELECT id, deleting FROM organizations WHERE id = ANY($1) ORDER BY id FOR SHARE";
    let rows = query(client, operation, sql, &[&ids]).await?;
    let deleting: Vec<(Uuid, bool)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for id in ids {
        let problem = match deleting.iter().find(|(known, _)| *known == id) {
            Some((_, false)) => continue,
            Some((_, true)) => "the organization is being deleted",
            None => "there is no such organization",
        };
        return Err(Error::new(operation, id.to_string(), ErrorKind::NotFound, problem));
    }
    Ok(())
}

pub(super) async fn create_key(client: &impl GenericClient, key: &ApiKey) -> Result<()> {
    check_open(client, "create key", key.organization).await?;
    let role = match key.role {
        KeyRole::Organization => "organization",
        KeyRole::Operator => "operator",
    };
    execute(
        client,
        "create key",
        "INSERT INTO api_keys (id, hash, organization, role, label, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        &[&key.id, &key.hash.as_slice(), &key.organization.map(|id| id.0), &role, &key.label, &key.created_at.0],
    )
    .await?;
    Ok(())
}

pub(super) async fn keys(client: &impl GenericClient, organization: Option<OrganizationId>) -> Result<Vec<ApiKey>> {
    let rows = query(
        client,
        "list keys",
        "SELECT id, hash, organization, role, label, created_at FROM api_keys \
         WHERE $1::uuid IS NULL OR organization = $1 ORDER BY created_at, id COLLATE \"C\"",
        &[&organization.map(|id| id.0)],
    )
    .await?;
    rows.iter()
        .map(|row| {
            let corrupt = |column| Error::new("list keys", column, ErrorKind::Corrupt, "is unreadable");
            let role = match row.get(3) {
                "organization" => KeyRole::Organization,
                "operator" => KeyRole::Operator,
                _ => return Err(corrupt("api_keys.role")),
            };
            let hash: &[u8] = row.get(1);
            Ok(ApiKey {
                id: row.get(0),
                hash: hash.try_into().map_err(|_| corrupt("api_keys.hash"))?,
                organization: row.get::<_, Option<Uuid>>(2).map(OrganizationId),
                role,
                label: row.get(4),
                created_at: TimestampNs(row.get(5)),
            })
        })
        .collect()
}

pub(super) async fn revoke_key(client: &impl GenericClient, id: &str) -> Result<()> {
    let changed = execute(client, "revoke key", "DELETE FROM api_keys WHERE id = $1", &[&id]).await?;
    found("revoke key", id, changed)
}

pub(super) async fn document(client: &impl GenericClient, name: &str) -> Result<Option<String>> {
    let rows = query(client, "read document", "SELECT body FROM documents WHERE name = $1", &[&name]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

pub(super) async fn store_document(client: &impl GenericClient, name: &str, body: &str) -> Result<()> {
    execute(
        client,
        "store document",
        "INSERT INTO documents (name, version, body) VALUES ($1, 1, $2) \
         ON CONFLICT (name) DO UPDATE SET version = documents.version + 1, body = excluded.body, stored_at = now_ns()",
        &[&name, &body],
    )
    .await?;
    Ok(())
}

fn found(operation: &'static str, key: &str, changed: u64) -> Result<()> {
    if changed == 0 {
        return Err(Error::new(operation, key, ErrorKind::NotFound, "does not exist"));
    }
    Ok(())
}
