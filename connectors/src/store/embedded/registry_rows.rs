//! The tables of the registry, and how an entry lies in them.
//!
//! One row a change, never altered but for one stamp: `superseded`, the instant from which a later change of the same key
//! counts. Rows without it are the registry as it stands, one a key, which an index holds to. What is a removal is the
//! business of whoever makes the entries; here nothing is ever deleted, so that every change can be told later.

use gatebell_engine::registry::{Entry, EntryKey, RegistryChange};
use gatebell_engine::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, ffi, params};

use crate::registry::entry_json::{entry_of, value_of};
use crate::registry::{ChangeOrigin, RecordedChange};
use crate::sqlite::Schema;

pub(super) const REGISTRY: Schema = Schema {
    name: "registry",
    steps: &[
        "
        CREATE TABLE change (
            version    INTEGER PRIMARY KEY,
            applied    INTEGER NOT NULL,
            superseded INTEGER,
            written_at INTEGER NOT NULL,
            who        TEXT NOT NULL,
            kind       TEXT NOT NULL,
            key        TEXT NOT NULL,
            value      TEXT NOT NULL
        ) STRICT;
        CREATE UNIQUE INDEX change_current ON change (kind, key) WHERE superseded IS NULL;
        -- One row once the city is known to be made up.
        CREATE TABLE made_up (id INTEGER PRIMARY KEY CHECK (id = 1)) STRICT;
    ",
        "
        ALTER TABLE change ADD COLUMN by_command INTEGER NOT NULL DEFAULT 0;
        CREATE INDEX change_by_command ON change (version) WHERE by_command = 1 AND superseded IS NULL;
    ",
    ],
};

/// Columns that [`change`] reads, in its order.
macro_rules! change_columns {
    () => {
        "version, applied, kind, value"
    };
}

pub(super) fn change(row: &Row<'_>) -> rusqlite::Result<RegistryChange> {
    let version: u64 = row.get(0)?;
    let applied = Timestamp::from_millis(row.get(1)?);
    let entry =
        entry_of(row.get_ref(2)?.as_str()?, row.get_ref(3)?.as_str()?).ok_or_else(|| unreadable(version))?;
    Ok(RegistryChange { version, applied, entry })
}

fn unreadable(version: u64) -> rusqlite::Error {
    let what = format!("change {version} is damaged or of a newer gatebell: its value is none of its kind");
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(what))
}

/// Appends `entries`, each superseding what its key held; the version of the last one.
pub(super) fn append(
    connection: &Connection,
    entries: &[Entry],
    applied: Timestamp,
    written_at: Timestamp,
    who: &str,
    origin: ChangeOrigin,
) -> rusqlite::Result<u64> {
    let mut version = last_version(connection)?;
    let mut supersede = connection.prepare_cached(
        "UPDATE change SET superseded = ?3 WHERE kind = ?1 AND key = ?2 AND superseded IS NULL",
    )?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO change (version, applied, written_at, who, kind, key, value, by_command)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for entry in entries {
        let key = entry.key();
        let (kind, name) = (key.kind(), key.expose());
        supersede.execute(params![kind, name.as_str(), applied.as_millis()])?;
        version += 1;
        let value =
            value_of(entry).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        insert.execute(params![
            version,
            applied.as_millis(),
            written_at.as_millis(),
            who,
            kind,
            name.as_str(),
            value,
            origin == ChangeOrigin::SingleCommand
        ])?;
    }
    Ok(version)
}

/// The version of the last change; 0 when there is none.
pub(super) fn last_version(connection: &Connection) -> rusqlite::Result<u64> {
    connection.prepare_cached("SELECT coalesce(max(version), 0) FROM change")?.query_row([], |row| row.get(0))
}

/// At most `changes_max` changes after `version`, without those superseded at or before `horizon`.
pub(super) fn changes_for(
    connection: &Connection,
    version: u64,
    horizon: Timestamp,
    changes_max: usize,
) -> rusqlite::Result<Vec<RegistryChange>> {
    connection
        .prepare_cached(concat!(
            "SELECT ",
            change_columns!(),
            " FROM change WHERE version > ?1 AND (superseded IS NULL OR superseded > ?2)
             ORDER BY version LIMIT ?3"
        ))?
        .query_map(params![version, horizon.as_millis(), changes_max], change)?
        .collect()
}

/// At most `changes_max` changes after `version`, superseded or not, with who made them when.
pub(super) fn recorded_changes(
    connection: &Connection,
    version: u64,
    changes_max: usize,
) -> rusqlite::Result<Vec<RecordedChange>> {
    connection
        .prepare_cached(concat!(
            "SELECT ",
            change_columns!(),
            ", written_at, who FROM change WHERE version > ?1 ORDER BY version LIMIT ?2"
        ))?
        .query_map(params![version, changes_max], recorded_change)?
        .collect()
}

/// Every change by a single command that still stands.
pub(super) fn standing_by_single_commands(connection: &Connection) -> rusqlite::Result<Vec<RecordedChange>> {
    connection
        .prepare_cached(concat!(
            "SELECT ",
            change_columns!(),
            ", written_at, who FROM change WHERE by_command = 1 AND superseded IS NULL ORDER BY version"
        ))?
        .query_map([], recorded_change)?
        .collect()
}

/// Of the columns that [`change`] reads, then `written_at` and `who`.
fn recorded_change(row: &Row<'_>) -> rusqlite::Result<RecordedChange> {
    Ok(RecordedChange {
        change: change(row)?,
        written_at: Timestamp::from_millis(row.get(4)?),
        who: row.get(5)?,
    })
}

/// Hands every entry that stands to `each`: of all kinds, or of one.
pub(super) fn for_each_current(
    connection: &Connection,
    kind: Option<&str>,
    mut each: impl FnMut(Entry),
) -> rusqlite::Result<()> {
    let (order, kinds) = match kind {
        // By version it is one pass over the table.
        None => ("ORDER BY version", ""),
        Some(_) => ("ORDER BY key", "AND kind = ?1"),
    };
    let columns = change_columns!();
    let mut statement = connection
        .prepare_cached(&format!("SELECT {columns} FROM change WHERE superseded IS NULL {kinds} {order}"))?;
    let mut rows = match kind {
        None => statement.query([])?,
        Some(kind) => statement.query([kind])?,
    };
    while let Some(row) = rows.next()? {
        each(change(row)?.entry);
    }
    Ok(())
}

/// What `key` holds.
pub(super) fn current(connection: &Connection, key: &EntryKey) -> rusqlite::Result<Option<Entry>> {
    connection
        .prepare_cached(concat!(
            "SELECT ",
            change_columns!(),
            " FROM change WHERE kind = ?1 AND key = ?2 AND superseded IS NULL"
        ))?
        .query_row(params![key.kind(), key.expose().as_str()], |row| change(row).map(|change| change.entry))
        .optional()
}

/// Whether the city is a made-up one.
pub(super) fn is_made_up(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM made_up)")?.query_row([], |row| row.get(0))
}

/// Marks the city as a made-up one, for good.
pub(super) fn mark_made_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("INSERT OR IGNORE INTO made_up (id) VALUES (1)")?.execute([])?;
    Ok(())
}
