//! Looking for damage in the embedded log, and setting damaged taps aside. Works beside a running engine.

use gatebell_engine::ids::LogPosition;
use gatebell_engine::ports::PortError;
use rusqlite::TransactionBehavior;

use super::PORT;
use super::rows::{self, Damage, Identity, TAP_LOG_SCHEMA};
use crate::data_dir::DataDir;
use crate::sqlite::DatabaseFile;

/// Something in the log that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapLogDamage {
    /// The tap that is concerned, if it is one.
    pub tap: Option<LogPosition>,
    /// What is wrong and where.
    pub what: String,
}

/// The log of a data directory, opened to be checked.
#[derive(Debug)]
pub struct TapLogCheck {
    file: DatabaseFile,
    identity: Identity,
}

impl TapLogCheck {
    /// Opens the log in `directory`; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be opened, or is so damaged that its partitions are unknown.
    pub fn open(directory: &DataDir) -> Result<Option<Self>, PortError> {
        if !directory.taps().exists() {
            return Ok(None);
        }
        let file = DatabaseFile::open(&directory.taps(), PORT, &TAP_LOG_SCHEMA)?;
        let identity = rows::identity(&file.connect()?).map_err(|error| file.error(&error))?;
        Ok(identity.map(|identity| Self { file, identity }))
    }

    /// Reads every tap that is kept and gives every place that is damaged.
    ///
    /// # Errors
    /// When the file cannot be read at all.
    pub fn damages(&self) -> Result<Vec<TapLogDamage>, PortError> {
        let connection = self.file.connect()?;
        let mut found = Vec::new();
        for partition in 0..self.identity.partitions {
            let damages = rows::damages(&connection, partition).map_err(|error| self.file.error(&error))?;
            found.extend(
                damages
                    .into_iter()
                    .map(|damage| TapLogDamage { tap: damage.tap(), what: damage.to_string() }),
            );
        }
        Ok(found)
    }

    /// Puts a record that is no tap in the place of the damaged or missing one at `position`, so that its partition goes on.
    /// The engine rejects it as malformed; whatever was left of the tap is kept with the rejected records. `false`, and
    /// nothing is changed, where no tap is damaged.
    ///
    /// # Errors
    /// When the log cannot be read or written.
    pub fn set_aside(&self, position: LogPosition) -> Result<bool, PortError> {
        if position.partition >= self.identity.partitions {
            return Ok(false);
        }
        let sql = |error: rusqlite::Error| self.file.error(&error);
        let mut connection = self.file.connect()?;
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        let is_set_aside = rows::set_aside(&transaction, position.partition, position.offset).map_err(sql)?;
        transaction.commit().map_err(sql)?;
        Ok(is_set_aside)
    }
}

impl Damage {
    fn tap(self) -> Option<LogPosition> {
        match self {
            Self::Altered { partition, offset } | Self::Missing { partition, offset } => {
                Some(LogPosition { partition, offset })
            }
            Self::Gap { .. } | Self::Committed { .. } | Self::CutOff { .. } | Self::Identity => None,
        }
    }
}
