//! Looking through a data directory for damage: what a failing disk, or a hand that wrote into a file, has left there.
//!
//! Taps and ledger entries carry checksums of their own; of the rest SQLite knows whether its structure holds and whether
//! indexes agree with their tables. A changed value in another table is found by that only where an index has it too.

use std::path::PathBuf;

use gatebell_engine::ids::LogPosition;
use gatebell_engine::ports::PortError;

use crate::data_dir::DataDir;
use crate::sqlite::structure_faults;
use crate::store::embedded::ledger_check;
use crate::tap_log::embedded::TapLogCheck;

/// Something that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// The tap that is concerned, if it is one in the log.
    pub tap: Option<LogPosition>,
    /// What is wrong and where.
    pub what: String,
}

/// Reads everything in `directory` and says what is damaged. It takes a while: as long as reading the files. Other processes
/// may work on them meanwhile.
/// A file that cannot be read at all is damage, too.
pub fn look_for(directory: &DataDir) -> Vec<Damage> {
    let mut found = Vec::new();
    for file in [directory.taps(), directory.rejected(), directory.registry(), directory.store()] {
        if file.exists() {
            let faults = structure_faults(&file).into_iter();
            found.extend(faults.map(|what| Damage { file: file.clone(), tap: None, what }));
        }
    }
    let broken = |file: PathBuf, error: PortError| Damage { file, tap: None, what: error.cause };
    match TapLogCheck::open(directory).and_then(|log| log.map_or(Ok(Vec::new()), |log| log.damages())) {
        Ok(damages) => found.extend(damages.into_iter().map(|damage| Damage {
            file: directory.taps(),
            tap: damage.tap,
            what: damage.what,
        })),
        Err(error) => found.push(broken(directory.taps(), error)),
    }
    match ledger_check::damages(directory) {
        Ok(damages) => {
            let file = directory.store();
            found.extend(damages.into_iter().map(|what| Damage { file: file.clone(), tap: None, what }));
        }
        Err(error) => found.push(broken(directory.store(), error)),
    }
    found
}
