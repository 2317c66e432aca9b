//! Organizations, API keys, documents.

use rusqlite::{Connection, OptionalExtension, Row, params};
use tidemill_types::{ErrorKind, OrganizationId, TimestampNs};
use uuid::Uuid;

use super::connection::{failed, now_ns, unreadable};
use super::{sweep, trace_days};
use crate::metastore::{ApiKey, KeyRole, Organization};
use crate::{Error, Result};

const COLUMNS: &str = "id, name, created_at, deleting, retention_days_logs, retention_days_metrics, retention_days_traces, \
                       ingest_bytes_per_second";

pub(super) fn create(connection: &Connection, id: OrganizationId, name: &str) -> Result<Organization> {
    let now = now_ns();
    connection
        .execute(
            "INSERT INTO organizations (id, name, created_at) VALUES (?1, ?2, ?3)",
            params![id.0.into_bytes(), name, now],
        )
        .map_err(failed("create organization"))?;
    Ok(Organization {
        id,
        name: name.to_owned(),
        created_at: TimestampNs(now),
        deleting: false,
        retention_days: [None; 3],
        ingest_bytes_per_second: None,
    })
}

pub(super) fn list(connection: &Connection) -> Result<Vec<Organization>> {
    let fail = failed("list organizations");
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM organizations ORDER BY name")).map_err(&fail)?;
    let rows = statement.query_map([], read_organization).map_err(&fail)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fail)
}

fn read_organization(row: &Row<'_>) -> rusqlite::Result<Organization> {
    Ok(Organization {
        id: OrganizationId(Uuid::from_bytes(row.get(0)?)),
        name: row.get(1)?,
        created_at: TimestampNs(row.get(2)?),
        deleting: row.get(3)?,
        retention_days: [row.get(4)?, row.get(5)?, row.get(6)?],
        ingest_bytes_per_second: row.get::<_, Option<i64>>(7)?.map(i64::cast_unsigned),
    })
}

pub(super) fn update(connection: &Connection, organization: &Organization) -> Result<()> {
    let [logs, metrics, traces] = organization.retention_days;
    let limit = organization.ingest_bytes_per_second.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
    let changed = connection
        .execute(
            "UPDATE organizations SET name = ?2, retention_days_logs = ?3, retention_days_metrics = ?4, \
             retention_days_traces = ?5, ingest_bytes_per_second = ?6 WHERE id = ?1 AND NOT deleting",
            params![organization.id.0.into_bytes(), organization.name, logs, metrics, traces, limit],
        )
        .map_err(failed("update organization"))?;
    found("update organization", &organization.id.to_string(), changed)
}

/// Begins the deletion: keys, work and segments go now, objects when they are swept.
pub(super) fn delete(connection: &Connection, id: OrganizationId) -> Result<()> {
    let fail = failed("delete organization");
    let organization = id.0.into_bytes();
    let changed = connection
        .execute("UPDATE organizations SET deleting = 1 WHERE id = ?1", params![organization])
        .map_err(&fail)?;
    found("delete organization", &id.to_string(), changed)?;
    let now = now_ns();
    for table in ["work", "dead_letters"] {
        connection
            .execute(
                &format!(
                    "INSERT INTO doomed_objects (bucket, object_key, organization, delete_at) \
                     SELECT payload ->> 'bucket', object_key, organization, ?2 FROM {table} \
                     WHERE organization = ?1 AND queue / 16 = 1 AND payload ->> 'owned' \
                     ON CONFLICT DO UPDATE SET delete_at = min(delete_at, excluded.delete_at)"
                ),
                params![organization, now],
            )
            .map_err(&fail)?;
    }
    connection
        .execute("DELETE FROM work_errors WHERE work IN (SELECT id FROM work WHERE organization = ?1)", [organization])
        .map_err(&fail)?;
    for table in ["api_keys", "work", "leases", "dead_letters", "refusals", "hours"] {
        connection.execute(&format!("DELETE FROM {table} WHERE organization = ?1"), [organization]).map_err(&fail)?;
    }
    trace_days::delete_all(connection, organization, now)?;
    connection
        .execute(
            "UPDATE doomed_objects SET delete_at = min(delete_at, ?2) WHERE organization = ?1",
            params![organization, now],
        )
        .map_err(&fail)?;
    let seq = super::catalog::next_seq(connection)?;
    connection
        .execute(
            "INSERT INTO doomed_objects (bucket, object_key, organization, delete_at) \
             SELECT bucket, object_key, organization, ?2 FROM segments WHERE organization = ?1 ON CONFLICT DO NOTHING",
            params![organization, now],
        )
        .map_err(&fail)?;
    connection
        .execute(
            "INSERT INTO removed_segments (seq, id, removed_at) SELECT ?2, id, ?3 FROM segments WHERE organization = ?1",
            params![organization, seq, now],
        )
        .map_err(&fail)?;
    connection.execute("DELETE FROM segments WHERE organization = ?1", [organization]).map_err(&fail)?;
    sweep::finish_deletions(connection)
}

/// Refuses input for an organization that is not there, or no longer.
pub(super) fn check_open(connection: &Connection, operation: &'static str, id: OrganizationId) -> Result<()> {
    let deleting: Option<bool> = connection
        .prepare_cached("SELECT deleting FROM organizations WHERE id = ?1")
        .and_then(|mut statement| statement.query_row([id.0.into_bytes()], |row| row.get(0)).optional())
        .map_err(failed(operation))?;
    let problem = match deleting {
        Some(false) => return Ok(()),
        Some(true) => "the organization is being deleted",
        None => "there is no such organization",
    };
    Err(Error::new(operation, id.to_string(), ErrorKind::NotFound, problem))
}

pub(super) fn create_key(connection: &Connection, key: &ApiKey) -> Result<()> {
    if let Some(organization) = key.organization {
        check_open(connection, "create key", organization)?;
    }
    let role = match key.role {
        KeyRole::Organization => "organization",
        KeyRole::Operator => "operator",
    };
    let organization = key.organization.map(|id| id.0.into_bytes());
    connection
        .execute(
            "INSERT INTO api_keys (id, hash, organization, role, label, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![key.id, key.hash, organization, role, key.label, key.created_at.0],
        )
        .map_err(failed("create key"))?;
    Ok(())
}

pub(super) fn keys(connection: &Connection, organization: Option<OrganizationId>) -> Result<Vec<ApiKey>> {
    let fail = failed("list keys");
    let mut statement = connection
        .prepare_cached(
            "SELECT id, hash, organization, role, label, created_at FROM api_keys \
             WHERE ?1 IS NULL OR organization = ?1 ORDER BY created_at, id",
        )
        .map_err(&fail)?;
    let rows = statement
        .query_map(params![organization.map(|id| id.0.into_bytes())], |row| {
            let role = match row.get::<_, String>(3)?.as_str() {
                "organization" => KeyRole::Organization,
                "operator" => KeyRole::Operator,
                _ => return Err(unreadable("api_keys.role")),
            };
            Ok(ApiKey {
                id: row.get(0)?,
                hash: row.get(1)?,
                organization: row.get::<_, Option<[u8; 16]>>(2)?.map(|id| OrganizationId(Uuid::from_bytes(id))),
                role,
                label: row.get(4)?,
                created_at: TimestampNs(row.get(5)?),
            })
        })
        .map_err(&fail)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fail)
}

pub(super) fn revoke_key(connection: &Connection, id: &str) -> Result<()> {
    let changed = connection.execute("DELETE FROM api_keys WHERE id = ?1", [id]).map_err(failed("revoke key"))?;
    found("revoke key", id, changed)
}

pub(super) fn document(connection: &Connection, name: &str) -> Result<Option<String>> {
    connection
        .query_row("SELECT body FROM documents WHERE name = ?1", [name], |row| row.get(0))
        .optional()
        .map_err(failed("read document"))
}

pub(super) fn store_document(connection: &Connection, name: &str, body: &str) -> Result<()> {
    connection
        .execute(
            "INSERT INTO documents (name, version, body, stored_at) VALUES (?1, 1, ?2, ?3) \
             ON CONFLICT (name) DO UPDATE SET version = version + 1, body = excluded.body, stored_at = excluded.stored_at",
            params![name, body, now_ns()],
        )
        .map_err(failed("store document"))?;
    Ok(())
}

fn found(operation: &'static str, key: &str, changed: usize) -> Result<()> {
    if changed == 0 {
        return Err(Error::new(operation, key, ErrorKind::NotFound, "does not exist"));
    }
    Ok(())
}
