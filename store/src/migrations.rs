//! The schema's history: numbered SQL files, forward only, each with its checksum.
//!
//! Owns: which migrations exist, and whether a database's history is ours. Never: runs SQL; the backends do, each under its own
//! lock. A file that was released is never edited; a change is a new file.

use tidemill_types::ErrorKind;

use crate::{Error, Result};

/// One numbered SQL file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Migration {
    pub(crate) version: i64,
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
}

impl Migration {
    /// BLAKE3 of the file, in hex.
    pub(crate) fn checksum(&self) -> String {
        blake3::hash(self.sql.as_bytes()).to_hex().to_string()
    }
}

pub(crate) const SQLITE: &[Migration] = &[
    Migration { version: 1, name: "initial", sql: include_str!("../migrations/sqlite/0001_initial.sql") },
    Migration { version: 2, name: "trace_days", sql: include_str!("../migrations/sqlite/0002_trace_days.sql") },
];

pub(crate) const POSTGRES: &[Migration] = &[
    Migration { version: 1, name: "initial", sql: include_str!("../migrations/postgres/0001_initial.sql") },
    Migration { version: 2, name: "trace_days", sql: include_str!("../migrations/postgres/0002_trace_days.sql") },
    Migration { version: 3, name: "queue_room", sql: include_str!("../migrations/postgres/0003_queue_room.sql") },
];

/// Which of `known` are still to be run on a database that has `applied` (version and checksum).
///
/// # Errors
/// `Invalid` for a history that is newer than ours, or differs from it.
pub(crate) fn plan_migrations(
    known: &'static [Migration],
    applied: &[(i64, String)],
) -> Result<Vec<&'static Migration>> {
    let fail = |version: i64, problem: String| {
        Err(Error::new("migrate", format!("schema version {version}"), ErrorKind::Invalid, problem))
    };
    let newest = known.last().map_or(0, |migration| migration.version);
    for (version, checksum) in applied {
        match known.iter().find(|migration| migration.version == *version) {
            None => {
                let problem = format!(
                    "the database was made by a newer tidemill; this one knows versions up to {newest}. \
                     Run the newer one, or restore a backup made before the upgrade"
                );
                return fail(*version, problem);
            }
            Some(migration) if migration.checksum() != *checksum => {
                return fail(*version, format!("migration {:?} was not run as this tidemill knows it", migration.name));
            }
            Some(_) => {}
        }
    }
    let is_applied = |version: i64| applied.iter().any(|(applied, _)| *applied == version);
    Ok(known.iter().filter(|migration| !is_applied(migration.version)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_or_edited_history_is_refused() {
        let applied = |version, checksum: &str| vec![(version, checksum.to_owned())];
        let ours = SQLITE[0].checksum();
        assert_eq!(plan_migrations(SQLITE, &[]).expect("is empty").len(), SQLITE.len());
        assert_eq!(plan_migrations(SQLITE, &applied(1, &ours)).expect("is ours").len(), SQLITE.len() - 1);
        let newer = plan_migrations(SQLITE, &applied(99, "x")).expect_err("is newer");
        assert!(newer.to_string().contains("newer tidemill"), "{newer}");
        assert!(plan_migrations(SQLITE, &applied(1, "edited")).is_err());
    }

    #[test]
    fn versions_count_from_one() {
        for known in [SQLITE, POSTGRES] {
            assert!(known.iter().zip(1..).all(|(migration, place)| migration.version == place));
        }
    }
}
