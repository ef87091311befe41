//! SQLite as the embedded tap log and store use it: how a file is opened, written and read.
//!
//! Every file is in write-ahead mode with `synchronous=FULL`, so what a commit has acknowledged survives a power cut, and
//! readers never wait for the writer. A process writes a file through one [`Writer`], a thread of its own that commits many
//! commands at once; it reads through [`Readers`], connections of their own off the async threads. Other processes (the
//! commands beside a running `serve`) do the same with the same file; SQLite's own lock orders the writers.
//!
//! What the tables mean is the business of the modules that bring the [`Schema`].

mod readers;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use gatebell_engine::ports::PortError;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};

pub(crate) use readers::Readers;
pub(crate) use writer::{Refused, Writer};

use crate::data_dir::open_private_file;

/// How long a writer waits for another process's transaction. A whole import is one transaction.
const BUSY_TIMEOUT_S: u64 = 30;
/// Prepared statements kept ready on a connection.
const STATEMENTS_MAX: usize = 64;

/// The tables of one part of a file, and how they came about.
#[derive(Debug)]
pub(crate) struct Schema {
    /// The part's name, under which its version is kept.
    pub(crate) name: &'static str,
    /// SQL that each takes the tables from one version to the next, the first from nothing.
    pub(crate) steps: &'static [&'static str],
}

/// A database file and the port that it serves.
#[derive(Clone, Debug)]
pub(crate) struct DatabaseFile {
    path: PathBuf,
    port: &'static str,
}

impl DatabaseFile {
    /// The file at `path`, created 0600 where it is missing, with the tables of `schema`. `port` names it in errors.
    pub(crate) fn open(path: &Path, port: &'static str, schema: &Schema) -> Result<Self, PortError> {
        open_private_file(path).map_err(|error| PortError::new(port, error))?;
        let file = Self { path: path.to_owned(), port };
        let mut connection = file.connect()?;
        file.bring_up_to(&mut connection, schema)?;
        Ok(file)
    }

    /// The port that this file serves, for errors.
    pub(crate) fn port(&self) -> &'static str {
        self.port
    }

    /// A connection of its own, ready to read and write.
    pub(crate) fn connect(&self) -> Result<Connection, PortError> {
        let connection = Connection::open(&self.path).map_err(|error| self.error(&error))?;
        prepare(&connection).map_err(|error| self.error(&error))?;
        Ok(connection)
    }

    /// What `error` means to the port's caller. Names the file; SQLite's own messages hold names of columns, no values.
    pub(crate) fn error(&self, error: &rusqlite::Error) -> PortError {
        if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) {
            return PortError::new(
                self.port,
                format_args!(
                    "{}: another gatebell process (an import?) has been writing for more than {BUSY_TIMEOUT_S} s: try again",
                    self.path.display()
                ),
            );
        }
        PortError::new(self.port, format_args!("{}: {error}", self.path.display()))
    }

    fn bring_up_to(&self, connection: &mut Connection, schema: &Schema) -> Result<(), PortError> {
        let sql = |error: rusqlite::Error| self.error(&error);
        // Without a transaction where nothing is to be done: another process may be writing just now, for long.
        if known_version(connection, schema).map_err(sql)? == Some(schema.steps.len()) {
            return Ok(());
        }
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        transaction
            .execute_batch(
                "CREATE TABLE IF NOT EXISTS schema_version (
                     part TEXT PRIMARY KEY, version INTEGER NOT NULL
                 ) STRICT, WITHOUT ROWID",
            )
            .map_err(sql)?;
        let version = known_version(&transaction, schema).map_err(sql)?.unwrap_or(0);
        let Some(steps) = schema.steps.get(version..) else {
            return Err(PortError::new(
                self.port,
                format_args!(
                    "{}: {} is of version {version}, and this gatebell knows up to {}: use the newer gatebell that wrote it",
                    self.path.display(),
                    schema.name,
                    schema.steps.len(),
                ),
            ));
        };
        for step in steps {
            transaction.execute_batch(step).map_err(sql)?;
        }
        transaction
            .execute(
                "INSERT INTO schema_version (part, version) VALUES (?1, ?2)
                 ON CONFLICT (part) DO UPDATE SET version = excluded.version",
                params![schema.name, schema.steps.len()],
            )
            .map_err(sql)?;
        transaction.commit().map_err(sql)
    }
}

/// What SQLite finds wrong in the file at `path`: in its structure, or between a table and its indexes. Reads all of it.
pub(crate) fn structure_faults(path: &Path) -> Vec<String> {
    let checked =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(|connection| {
            connection.busy_timeout(Duration::from_secs(BUSY_TIMEOUT_S))?;
            let mut statement = connection.prepare("PRAGMA integrity_check")?;
            let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
            lines.collect::<rusqlite::Result<Vec<String>>>()
        });
    match checked {
        Ok(lines) => lines.into_iter().filter(|line| line != "ok").collect(),
        Err(error) => vec![error.to_string()],
    }
}

/// The version of the tables of `schema`; `None` when they were never made.
fn known_version(connection: &Connection, schema: &Schema) -> rusqlite::Result<Option<usize>> {
    if !connection.table_exists(None, "schema_version")? {
        return Ok(None);
    }
    connection
        .query_row("SELECT version FROM schema_version WHERE part = ?1", [schema.name], |row| row.get(0))
        .optional()
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(BUSY_TIMEOUT_S))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Personal data that was overwritten must not linger in free pages.
    connection.pragma_update(None, "secure_delete", "FAST")?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const FIRST: Schema = Schema { name: "notes", steps: &["CREATE TABLE note (text TEXT NOT NULL) STRICT"] };
    const SECOND: Schema = Schema {
        name: "notes",
        steps: &[
            "CREATE TABLE note (text TEXT NOT NULL) STRICT",
            "ALTER TABLE note ADD COLUMN day INTEGER NOT NULL DEFAULT 0",
        ],
    };

    #[test]
    fn the_file_and_its_companions_are_their_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = DatabaseFile::open(&directory.path().join("x.db"), "test store", &FIRST).unwrap();
        let connection = file.connect().unwrap();
        connection.execute("INSERT INTO note VALUES ('one')", []).unwrap();
        let mut seen = 0;
        for entry in std::fs::read_dir(directory.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", entry.path().display());
            seen += 1;
        }
        assert_eq!(seen, 3, "the database, its log and its index");
    }

    #[test]
    fn a_schema_moves_on_and_a_newer_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.db");
        DatabaseFile::open(&path, "test store", &FIRST).unwrap();
        let file = DatabaseFile::open(&path, "test store", &SECOND).unwrap();
        file.connect().unwrap().execute("INSERT INTO note VALUES ('one', 7)", []).unwrap();
        let refusal = DatabaseFile::open(&path, "test store", &FIRST).unwrap_err().to_string();
        assert!(refusal.contains("newer gatebell"), "{refusal}");
    }

    #[test]
    fn commits_reach_the_disk_before_they_are_acknowledged() {
        let directory = tempfile::tempdir().unwrap();
        let file = DatabaseFile::open(&directory.path().join("x.db"), "test store", &FIRST).unwrap();
        let connection = file.connect().unwrap();
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
        let secure_delete: i64 =
            connection.pragma_query_value(None, "secure_delete", |row| row.get(0)).unwrap();
        assert_eq!((mode.as_str(), synchronous, secure_delete), ("wal", 2, 2));
    }

    #[test]
    fn a_file_opens_while_another_process_writes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.db");
        let file = DatabaseFile::open(&path, "test store", &FIRST).unwrap();
        let mut writing = file.connect().unwrap();
        let transaction = writing.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        transaction.execute("INSERT INTO note VALUES ('one')", []).unwrap();
        let reading = DatabaseFile::open(&path, "test store", &FIRST).unwrap().connect().unwrap();
        let count: i64 = reading.query_row("SELECT count(*) FROM note", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0, "what is not committed is not seen");
    }
}
