//! Opening the database: pragmas, our SQL functions, migrations, and what an SQLite error means.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::functions::FunctionFlags;
use rusqlite::types::Type;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};
use tidemill_types::ErrorKind;
use uuid::Uuid;

use crate::{Error, Result, migrations};

/// How long a writer waits for the other processes of this host.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);
const BUSY_PAUSE: Duration = Duration::from_millis(5);
const CACHED_STATEMENTS: usize = 128;

/// Classifies an SQLite error.
pub(super) fn failed(operation: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |source| {
        let kind = match source.sqlite_error_code() {
            // A full disk and a long queue of writers pass; the caller is told to come back.
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull) => ErrorKind::Busy,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
            Some(ErrorCode::ConstraintViolation) => ErrorKind::Conflict,
            Some(
                ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied,
            ) => ErrorKind::Unavailable,
            _ if matches!(source, rusqlite::Error::QueryReturnedNoRows) => ErrorKind::NotFound,
            _ => ErrorKind::Internal,
        };
        Error::new(operation, "the metastore", kind, source)
    }
}

/// A stored value that no version of ours wrote.
pub(super) fn unreadable(column: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, format!("{column} is unreadable").into())
}

/// The database's clock: of this host, as SQLite's own.
pub(super) fn now_ns() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
}

/// Opens the connection that writes, creating and migrating the database.
pub(super) fn open_writer(path: &Path) -> Result<Connection> {
    let mut connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    let fail = failed("open");
    use_write_ahead_log(&connection)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(&fail)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(&fail)?;
    connection.pragma_update(None, "wal_autocheckpoint", 4_000).map_err(&fail)?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// Of several processes that make a database at one time, all but one find it locked at this moment, and SQLite does not wait: who
/// reads the header and then wants to change it could wait for ever for another who does the same.
fn use_write_ahead_log(connection: &Connection) -> Result<()> {
    let begun = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL").map_err(failed("open")) {
            Err(error) if error.kind() == ErrorKind::Busy && begun.elapsed() < BUSY_TIMEOUT => {
                std::thread::sleep(BUSY_PAUSE);
            }
            result => return result,
        }
    }
}

/// Opens a connection that cannot write.
pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    // WAL readers need write access to the shared-memory file; query_only keeps them from the data.
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "query_only", true).map_err(failed("open"))?;
    Ok(connection)
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let fail = |source: rusqlite::Error| {
        let error = failed("open")(source);
        Error::new("open", path.display().to_string(), error.kind(), error)
    };
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(fail)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(fail)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    let plain = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("now", 0, plain, |_| Ok(now_ns())).map_err(fail)?;
    let fixed = plain | FunctionFlags::SQLITE_DETERMINISTIC;
    connection
        .create_scalar_function("uuid_text", 1, fixed, |context| {
            Ok(context.get::<Option<[u8; 16]>>(0)?.map(|id| Uuid::from_bytes(id).hyphenated().to_string()))
        })
        .map_err(fail)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<()> {
    let fail = failed("migrate");
    // The write lock keeps two processes from migrating at once.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&fail)?;
    transaction
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_migrations \
             (version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL)",
        )
        .map_err(&fail)?;
    let applied = {
        let mut statement =
            transaction.prepare("SELECT version, checksum FROM schema_migrations ORDER BY version").map_err(&fail)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(&fail)?;
        rows.collect::<rusqlite::Result<Vec<(i64, String)>>>().map_err(&fail)?
    };
    for migration in migrations::plan_migrations(migrations::SQLITE, &applied)? {
        transaction.execute_batch(migration.sql).map_err(&fail)?;
        transaction
            .execute(
                "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES (?1, ?2, ?3, ?4)",
                params![migration.version, migration.name, migration.checksum(), now_ns()],
            )
            .map_err(&fail)?;
    }
    transaction.commit().map_err(fail)
}

/// Refuses file systems over a network: SQLite's locks and its shared memory do not hold there.
pub(super) fn refuse_network_file_system(folder: &Path) -> Result<()> {
    // From linux/magic.h and statfs(2).
    const NETWORK: [(u32, &str); 7] = [
        (0x6969, "NFS"),
        (0x517B, "SMB"),
        (0xFF53_4D42, "CIFS"),
        (0xFE53_4D42, "SMB2"),
        (0x00C3_6400, "Ceph"),
        (0x5346_414F, "AFS"),
        (0x0BD0_0BD0, "Lustre"),
    ];
    let stat = rustix::fs::statfs(folder)
        .map_err(|errno| Error::from_io("open", folder.display().to_string(), errno.into()))?;
    let found = NETWORK.iter().find(|(magic, _)| stat.f_type as u32 == *magic);
    match found {
        None => Ok(()),
        Some((_, name)) => {
            let problem = format!("SQLite is not safe on {name}; use a local disk, or PostgreSQL");
            Err(Error::new("open", folder.display().to_string(), ErrorKind::Invalid, problem))
        }
    }
}
