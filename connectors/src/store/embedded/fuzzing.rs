//! The entrances for fuzzing: what production reads rows of `store.db` with, and a ledger in memory.

use std::cell::RefCell;

use gatebell_engine::ledger::LedgerEntry;
use gatebell_engine::ports::receipts::LoggedReceipt;
use gatebell_engine::registry::Entry;
use rusqlite::{Connection, Row, params_from_iter};

pub use rusqlite::types::Value;

use super::ledger_rows::{ENTRY_COLUMNS, entry};
use super::ledger_schema::LEDGER;
use super::receipts::logged_receipt;
use super::{ledger_entries, registry_rows};
use crate::registry::entry_json::{entry_of, value_of};

thread_local! {
    static LEDGER_IN_MEMORY: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

/// The ledger's entry in a row with `columns`.
pub fn ledger_entry(columns: &[Value]) -> rusqlite::Result<LedgerEntry> {
    in_memory(|connection| row(connection, columns, entry))
}

/// The receipt in a row with `columns`.
pub fn receipt(columns: &[Value]) -> rusqlite::Result<LoggedReceipt> {
    in_memory(|connection| row(connection, columns, logged_receipt))
}

/// The change of the registry in a row with `columns`.
pub fn registry_entry(columns: &[Value]) -> rusqlite::Result<Entry> {
    in_memory(|connection| {
        row(connection, columns, |row| registry_rows::change(row).map(|change| change.entry))
    })
}

/// An entry's value as a row of the registry holds it.
pub fn registry_value(entry: &Entry) -> serde_json::Result<String> {
    value_of(entry)
}

/// The entry of `kind` whose value is `json`.
pub fn registry_entry_of(kind: &str, json: &str) -> Option<Entry> {
    entry_of(kind, json)
}

/// Writes `written` into an empty ledger, twice, and reads everything back.
pub fn ledger_round_trip(written: &LedgerEntry) -> rusqlite::Result<Vec<LedgerEntry>> {
    in_memory(|connection| {
        let transaction = connection.unchecked_transaction()?;
        for _ in 0..2 {
            ledger_entries::append(&transaction, std::slice::from_ref(written))?;
        }
        let read = transaction
            .prepare_cached(&format!("SELECT {ENTRY_COLUMNS} FROM entries"))?
            .query_map([], entry)?
            .collect();
        transaction.rollback()?;
        read
    })
}

fn row<T>(
    connection: &Connection,
    columns: &[Value],
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let places = vec!["?"; columns.len().max(1)].join(", ");
    connection
        .prepare_cached(&format!("SELECT {places}"))?
        .query_row(params_from_iter(columns.iter().chain((columns.is_empty()).then_some(&Value::Null))), read)
}

fn in_memory<T>(use_it: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    LEDGER_IN_MEMORY.with_borrow_mut(|connection| {
        let connection = match connection {
            Some(connection) => connection,
            None => {
                let made = Connection::open_in_memory()?;
                for step in LEDGER.steps {
                    made.execute_batch(step)?;
                }
                connection.insert(made)
            }
        };
        use_it(connection)
    })
}
