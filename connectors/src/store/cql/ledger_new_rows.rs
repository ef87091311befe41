//! Rows of the ledger on their way into a request.
//!
//! There is a row of each kind for every notice, and to bind them as the driver offers it, each value with a look at the type
//! that the server expects, costs more than to decide the notice. So their cells are written here, one after the other as the
//! statement names them. Their types are those of the schema, whose version the session has checked; a cell of another length
//! than its type has, the store refuses.

use gatebell_engine::ledger::LedgerEntry;
use gatebell_engine::ports::PortError;
use scylla::serialize::SerializationError;
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::{CellValueBuilder, CellWriter, RowWriter};

use super::ledger_entries::{bucket_column, bucket_of};
use super::ledger_rows::{NewlyWritten, date, instant, notice_blob, position_columns};

/// Columns of `ledger_entries`, in the order in which [`NewEntry`] writes them.
pub(super) const NEW_ENTRY_COLUMNS: &str =
    "log, log_partition, bucket, log_offset, notice, event, attempt, line";
/// Columns of `notices_by_day`, in the order in which [`NewPlace`] writes them.
pub(super) const NEW_PLACE_COLUMNS: &str = "day, pupil_group, pupil, log, log_partition, log_offset, notice";

/// An entry: [`NEW_ENTRY_COLUMNS`], and the write timestamp.
pub(super) struct NewEntry<'row> {
    log: &'row str,
    partition: i64,
    offset: i64,
    written: NewlyWritten<'row>,
}

impl<'row> NewEntry<'row> {
    pub(super) fn of(log: &'row str, written: NewlyWritten<'row>) -> Result<Self, PortError> {
        let (partition, offset) = position_columns(written.entry.position)?;
        Ok(Self { log, partition, offset, written })
    }
}

impl SerializeRow for NewEntry<'_> {
    fn serialize(
        &self,
        _: &RowSerializationContext<'_>,
        row: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        let NewlyWritten { written, entry } = self.written;
        row.text(self.log)?;
        row.bigint(self.partition)?;
        row.bigint(bucket_column(bucket_of(entry.position.offset)))?;
        row.bigint(self.offset)?;
        row.bytes(&notice_blob(entry.notice))?;
        row.text(entry.event.name())?;
        row.bigint(i64::from(entry.attempt))?;
        write_line(self.written, row.cell())?;
        row.bigint(written.first_wins())
    }

    fn is_empty(&self) -> bool {
        false
    }
}

/// Where a notice is: [`NEW_PLACE_COLUMNS`].
pub(super) struct NewPlace<'row> {
    group: i32,
    log: &'row str,
    partition: i64,
    offset: i64,
    entry: &'row LedgerEntry,
}

impl<'row> NewPlace<'row> {
    /// Of the notice of `entry`, whose pupil is in `group`.
    pub(super) fn of(log: &'row str, group: i32, entry: &'row LedgerEntry) -> Result<Self, PortError> {
        let (partition, offset) = position_columns(entry.position)?;
        Ok(Self { group, log, partition, offset, entry })
    }
}

impl SerializeRow for NewPlace<'_> {
    fn serialize(
        &self,
        _: &RowSerializationContext<'_>,
        row: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        row.bytes(&date(self.entry.day).0.to_be_bytes())?;
        row.bytes(&self.group.to_be_bytes())?;
        row.text(self.entry.pupil.as_str())?;
        row.text(self.log)?;
        row.bigint(self.partition)?;
        row.bigint(self.offset)?;
        row.bytes(&notice_blob(self.entry.notice))
    }

    fn is_empty(&self) -> bool {
        false
    }
}

/// Writes the `line` of an entry, in the order of the schema's type.
pub(super) fn write_line(
    NewlyWritten { written, entry }: NewlyWritten<'_>,
    cell: CellWriter<'_>,
) -> Result<(), SerializationError> {
    let mut line = cell.into_value_builder();
    line.bigint(i64::MAX - written.us)?;
    line.text(entry.pupil.as_str())?;
    line.text(entry.guardian.as_str())?;
    line.text(entry.channel.name())?;
    line.text(entry.kind.name())?;
    line.bytes(&date(entry.day).0.to_be_bytes())?;
    line.bigint(instant(entry.at).0)?;
    line.bigint(instant(entry.time).0)?;
    line.text_or_null(entry.order.as_ref().map(|order| order.as_str()))?;
    line.text_or_null(entry.gateway.as_ref().map(|lane| lane.as_str()))?;
    line.text_or_null(entry.gateway_id.as_deref())?;
    line.text_or_null(entry.reason.as_deref())?;
    line.finish().map(drop).map_err(SerializationError::new)
}

/// What takes cells one after the other.
trait Cells {
    /// The next cell.
    fn cell(&mut self) -> CellWriter<'_>;

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), SerializationError> {
        self.cell().set_value(bytes).map(drop).map_err(SerializationError::new)
    }

    fn bigint(&mut self, number: i64) -> Result<(), SerializationError> {
        self.bytes(&number.to_be_bytes())
    }

    fn text(&mut self, text: &str) -> Result<(), SerializationError> {
        self.bytes(text.as_bytes())
    }

    fn text_or_null(&mut self, text: Option<&str>) -> Result<(), SerializationError> {
        if let Some(text) = text {
            return self.text(text);
        }
        self.cell().set_null();
        Ok(())
    }
}

impl Cells for RowWriter<'_> {
    fn cell(&mut self) -> CellWriter<'_> {
        self.make_cell_writer()
    }
}

impl Cells for CellValueBuilder<'_> {
    fn cell(&mut self) -> CellWriter<'_> {
        self.make_sub_writer()
    }
}
