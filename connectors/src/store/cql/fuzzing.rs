//! The entrances for fuzzing: what production reads rows of the ledger with, below the driver's own frames.

use std::borrow::Cow;
use std::sync::Arc;

use gatebell_engine::ledger::LedgerEntry;
use scylla::cluster::metadata::{ColumnType, NativeType};
use scylla::deserialize::FrameSlice;
use scylla::deserialize::value::DeserializeValue;
use scylla::frame::response::result::UserDefinedType;
use scylla::serialize::writers::CellWriter;

use super::ledger_new_rows::write_line;
use super::ledger_rows::{Line, NewlyWritten, Stamps, WrittenEntry, notice_blob, position_columns};

/// The columns of an entry's row that are values of their own.
#[derive(Debug, Clone)]
pub struct Columns {
    /// Of the log.
    pub partition: i64,
    /// Of the log.
    pub offset: i64,
    /// The notice's id.
    pub notice: Vec<u8>,
    /// The word of what happened.
    pub event: String,
    /// The attempt.
    pub attempt: i64,
}

/// The ledger's entry in a row whose `line` is `bytes` on the wire, without its length.
pub fn ledger_entry(columns: Columns, bytes: &[u8]) -> Result<LedgerEntry, String> {
    let line_type = line_type();
    let cell = FrameSlice::new_borrowed(bytes);
    let line = Line::deserialize(&line_type, Some(cell)).map_err(|error| error.to_string())?;
    let Columns { partition, offset, notice, event, attempt } = columns;
    let row = (partition, offset, notice, event, attempt, line);
    WrittenEntry::from_row(row).map(|written| written.entry).map_err(|error| error.to_string())
}

/// The columns and the `line` that `entry` is written as; `None` for an offset that the store cannot hold.
pub fn written(entry: &LedgerEntry) -> Option<(Columns, Vec<u8>)> {
    let (partition, offset) = position_columns(entry.position).ok()?;
    let columns = Columns {
        partition,
        offset,
        notice: notice_blob(entry.notice).to_vec(),
        event: entry.event.name().to_owned(),
        attempt: i64::from(entry.attempt),
    };
    let mut cell = Vec::new();
    let written = NewlyWritten { written: Stamps::default().next(), entry };
    write_line(written, CellWriter::new(&mut cell)).ok()?;
    // Behind the length.
    Some((columns, cell.split_off(4)))
}

/// The type `ledger_line` of `config/cql/`.
fn line_type() -> ColumnType<'static> {
    use NativeType::{BigInt, Date, Text, Timestamp};
    let fields = [
        ("written_desc", BigInt),
        ("pupil", Text),
        ("guardian", Text),
        ("channel", Text),
        ("kind", Text),
        ("day", Date),
        ("tap_at", Timestamp),
        ("happened_at", Timestamp),
        ("order_code", Text),
        ("gateway", Text),
        ("gateway_id", Text),
        ("reason", Text),
    ];
    let field_types =
        fields.map(|(name, field)| (Cow::Borrowed(name), ColumnType::Native(field))).into_iter().collect();
    let definition = UserDefinedType { name: "ledger_line".into(), keyspace: "gatebell".into(), field_types };
    ColumnType::UserDefinedType { frozen: true, definition: Arc::new(definition) }
}
