//! The file: `objects`, `states`, `records`, and how far the changes have come.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::Value;

use super::{KEPT_RECORDS, Write};
use crate::error::{Error, Result};
use crate::objects::Object;

/// What each version adds to the one before it.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE objects (
        kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (kind, namespace, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE states (uid TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE records (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT, uid TEXT NOT NULL, at_ms INTEGER NOT NULL, record TEXT NOT NULL
    ) STRICT;
    CREATE INDEX records_of ON records (uid, sequence);
    CREATE TABLE progress (only INTEGER PRIMARY KEY CHECK (only = 0), sequence INTEGER NOT NULL) STRICT;
    INSERT INTO progress VALUES (0, 0);
"];

#[derive(Debug)]
pub(super) struct Database {
    connection: Connection,
}

fn on(what: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |source| Error::Storage { what, source }
}

impl Database {
    pub(super) fn open(file: &Path) -> Result<Self> {
        let connection = Connection::open(file).map_err(on("opening it"))?;
        let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;";
        connection.execute_batch(settings).map_err(on("setting it up"))?;
        let mut database = Self { connection };
        database.migrate()?;
        Ok(database)
    }

    fn migrate(&mut self) -> Result<()> {
        let version = self
            .connection
            .query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
            .map_err(on("reading its version"))?;
        let version = usize::try_from(version).unwrap_or(usize::MAX);
        if version > MIGRATIONS.len() {
            return Err(Error::Internal(format!(
                "the fleet's database has version {version}, this tidemill knows {}; use a newer one",
                MIGRATIONS.len()
            )));
        }
        for (index, migration) in MIGRATIONS.iter().enumerate().skip(version) {
            let transaction = self.connection.transaction().map_err(on("migrating it"))?;
            transaction.execute_batch(migration).map_err(on("migrating it"))?;
            transaction.pragma_update(None, "user_version", index as i64 + 1).map_err(on("migrating it"))?;
            transaction.commit().map_err(on("migrating it"))?;
        }
        Ok(())
    }

    /// Every object, and the last change.
    pub(super) fn load(&mut self) -> Result<(Vec<Object>, u64)> {
        let sequence: i64 = self
            .connection
            .query_row("SELECT sequence FROM progress", [], |row| row.get::<_, i64>(0))
            .map_err(on("reading how far it is"))?;
        let mut statement = self.connection.prepare("SELECT body FROM objects").map_err(on("reading objects"))?;
        let bodies = statement
            .query_map([], |row| row.get::<_, String>(0))
            .and_then(Iterator::collect::<rusqlite::Result<Vec<String>>>)
            .map_err(on("reading objects"))?;
        let objects = bodies
            .iter()
            .map(|body| {
                serde_json::from_str(body)
                    .map_err(|error| Error::Internal(format!("a stored object cannot be read: {error}")))
            })
            .collect::<Result<Vec<Object>>>()?;
        Ok((objects, u64::try_from(sequence).unwrap_or_default()))
    }

    pub(super) fn write(&mut self, writes: &[Write], sequence: u64) -> Result<()> {
        let failed = on("writing");
        let transaction = self.connection.transaction().map_err(&failed)?;
        for write in writes {
            match write {
                Write::Put { object, .. } => {
                    let body = serde_json::to_string(object).map_err(|error| Error::Internal(error.to_string()))?;
                    transaction
                        .prepare_cached("INSERT OR REPLACE INTO objects VALUES (?1, ?2, ?3, ?4)")
                        .and_then(|mut put| {
                            put.execute(params![object.kind, object.metadata.namespace, object.metadata.name, body])
                        })
                        .map_err(&failed)?;
                }
                Write::Delete(key) => {
                    transaction
                        .prepare_cached("DELETE FROM objects WHERE kind = ?1 AND namespace = ?2 AND name = ?3")
                        .and_then(|mut delete| delete.execute(params![key.kind, key.namespace, key.name]))
                        .map_err(&failed)?;
                }
                Write::State { uid, state } => {
                    transaction
                        .prepare_cached("INSERT OR REPLACE INTO states VALUES (?1, ?2)")
                        .and_then(|mut put| put.execute(params![uid, state]))
                        .map_err(&failed)?;
                }
                Write::Record { uid, at_ms, record } => {
                    transaction
                        .prepare_cached("INSERT INTO records (uid, at_ms, record) VALUES (?1, ?2, ?3)")
                        .and_then(|mut put| put.execute(params![uid, at_ms, record]))
                        .map_err(&failed)?;
                    transaction
                        .prepare_cached(
                            "DELETE FROM records WHERE uid = ?1 AND sequence <= \
                             (SELECT sequence FROM records WHERE uid = ?1 ORDER BY sequence DESC LIMIT 1 OFFSET ?2)",
                        )
                        .and_then(|mut trim| trim.execute(params![uid, KEPT_RECORDS as i64]))
                        .map_err(&failed)?;
                }
                Write::Forget { uid } => {
                    for statement in ["DELETE FROM states WHERE uid = ?1", "DELETE FROM records WHERE uid = ?1"] {
                        transaction.execute(statement, [uid]).map_err(&failed)?;
                    }
                }
            }
        }
        let sequence = i64::try_from(sequence).unwrap_or(i64::MAX);
        transaction.execute("UPDATE progress SET sequence = ?1", [sequence]).map_err(&failed)?;
        transaction.commit().map_err(failed)
    }

    pub(super) fn state(&self, uid: &str) -> Result<Option<String>> {
        self.connection
            .query_row("SELECT state FROM states WHERE uid = ?1", [uid], |row| row.get(0))
            .optional()
            .map_err(on("reading what a policy remembers"))
    }

    pub(super) fn records(&self, uid: &str, limit: usize) -> Result<Vec<Value>> {
        let failed = on("reading decisions");
        let mut statement = self
            .connection
            .prepare_cached("SELECT record FROM records WHERE uid = ?1 ORDER BY sequence DESC LIMIT ?2")
            .map_err(&failed)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let texts = statement
            .query_map(params![uid, limit], |row| row.get::<_, String>(0))
            .and_then(Iterator::collect::<rusqlite::Result<Vec<String>>>)
            .map_err(&failed)?;
        let parse = |text: &String| {
            serde_json::from_str(text)
                .map_err(|error| Error::Internal(format!("a stored decision cannot be read: {error}")))
        };
        texts.iter().rev().map(parse).collect()
    }
}
