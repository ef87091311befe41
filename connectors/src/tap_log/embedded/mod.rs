//! The embedded tap log: one SQLite file in the data directory, no server.
//!
//! [`EmbeddedTapIntake`] writes, [`EmbeddedTapLog`] reads; both share one writer thread, which commits whatever gathered
//! while the disk was busy. The log has a fixed number of partitions and a random name, both chosen when the file is made:
//! a tap's partition and a notice's id depend on them. It owns all its partitions for as long as it is open; that there is
//! one engine on a data directory is the data directory's lock, not this module's business.

mod check;
mod intake;
mod intake_clock;
mod reader;
mod rejected;
mod rows;
#[cfg(test)]
mod tests;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use gatebell_engine::ports::PortError;
use gatebell_engine::ports::clock::Clock;
use rusqlite::Connection;

pub use check::{TapLogCheck, TapLogDamage};
pub use intake::EmbeddedTapIntake;
pub use reader::EmbeddedTapLog;
pub use rejected::EmbeddedRejectedLog;

use crate::data_dir::DataDir;
use crate::sqlite::{DatabaseFile, Readers, Writer};
use rows::{Identity, TAP_LOG_SCHEMA};

/// The port, as errors name it.
const PORT: &str = "tap log";
/// Appends that wait for the writer, beside the limits in taps and bytes.
const QUEUE_APPENDS_MAX: usize = 16_384;
/// Bytes of randomness in a log's name: two logs share one never.
const NAME_LEN_BYTES: usize = 16;

/// How the embedded log is set up.
#[derive(Clone, Debug)]
pub struct TapLogSettings {
    /// Partitions, each a shard; fixed when the log is made.
    pub partitions: NonZeroU32,
    /// Taps that wait for the disk; more are refused until there is room.
    pub queue_taps_max: usize,
    /// Bytes of taps that wait for the disk.
    pub queue_bytes_max: usize,
    /// Records in one batch for the engine.
    pub batch_taps_max: usize,
    /// Bytes of records in one batch; a larger record comes alone.
    pub batch_bytes_max: usize,
    /// How long settled taps are kept; `None`: for ever.
    pub keep: Option<Duration>,
    /// The name of a log that is made now, for a demo or a test that must give the same notice ids again; `None`: random.
    pub name: Option<String>,
}

impl Default for TapLogSettings {
    fn default() -> Self {
        Self {
            partitions: NonZeroU32::new(4).expect("four is not zero"),
            queue_taps_max: 200_000,
            queue_bytes_max: 64 << 20,
            batch_taps_max: 4_096,
            batch_bytes_max: 4 << 20,
            keep: Some(Duration::from_secs(40 * 86_400)),
            name: None,
        }
    }
}

/// Opens the log in `directory`, making it where it is missing. `clock` stamps what comes in.
///
/// Fails when the log was made with another number of partitions: cards would change their shard.
pub fn open(
    directory: &DataDir,
    settings: &TapLogSettings,
    clock: Arc<dyn Clock>,
) -> Result<(EmbeddedTapLog, EmbeddedTapIntake), PortError> {
    let file = DatabaseFile::open(&directory.taps(), PORT, &TAP_LOG_SCHEMA)?;
    let identity = identify(&file, settings)?;
    if identity.partitions != settings.partitions.get() {
        return Err(PortError::new(
            PORT,
            format_args!(
                "{} was made with {} partitions and is configured for {}: set {} again, or start with a new data directory",
                directory.taps().display(),
                identity.partitions,
                settings.partitions,
                identity.partitions,
            ),
        ));
    }
    let shared = Arc::new(Shared {
        writer: Writer::start(&file, QUEUE_APPENDS_MAX)?,
        readers: Readers::new(file.clone(), READERS_MAX),
        file,
        identity,
    });
    let reader = EmbeddedTapLog::new(Arc::clone(&shared), settings, Arc::clone(&clock));
    Ok((reader, EmbeddedTapIntake::new(shared, settings, clock)))
}

/// Connections for reading: the batch being read ahead, and the question being answered beside it.
const READERS_MAX: usize = 2;

/// What the two sides of the log have in common.
struct Shared {
    file: DatabaseFile,
    writer: Writer,
    readers: Readers,
    identity: Identity,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("identity", &self.identity).finish_non_exhaustive()
    }
}

fn identify(file: &DatabaseFile, settings: &TapLogSettings) -> Result<Identity, PortError> {
    let name = match &settings.name {
        Some(name) => name.clone(),
        None => random_name()?,
    };
    let fresh = Identity { name, partitions: settings.partitions.get() };
    let mut connection = file.connect()?;
    rows::identify(&mut connection, fresh).map_err(|error| file.error(&error))
}

fn random_name() -> Result<String, PortError> {
    let mut bytes = [0; NAME_LEN_BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| PortError::new(PORT, format_args!("the system gives no random bytes: {error}")))?;
    Ok(hex::encode(bytes))
}

impl Shared {
    /// Runs `query` off the async threads.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, PortError> {
        self.readers.read(query).await
    }
}
