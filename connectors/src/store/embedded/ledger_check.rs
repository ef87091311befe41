//! Looking for damaged entries in the embedded ledger. Works beside a running engine.

use gatebell_engine::ports::PortError;

use super::ledger_rows;
use super::ledger_schema::LEDGER;
use crate::data_dir::DataDir;
use crate::sqlite::DatabaseFile;

/// Reads every entry and says which ones do not match their checksum; none where there is no ledger.
///
/// # Errors
/// When the file cannot be read at all.
pub fn damages(directory: &DataDir) -> Result<Vec<String>, PortError> {
    if !directory.store().exists() {
        return Ok(Vec::new());
    }
    let file = DatabaseFile::open(&directory.store(), "ledger", &LEDGER)?;
    ledger_rows::damaged_entries(&file.connect()?).map_err(|error| file.error(&error))
}
