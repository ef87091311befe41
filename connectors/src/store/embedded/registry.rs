//! The registry as commands see it: what stands, what changed, and whether the running engine has it.
//!
//! Everything here blocks and is meant for commands; the engine follows through
//! [`EmbeddedRegistryFeed`](super::registry_feed::EmbeddedRegistryFeed). An application of entries is one transaction: all
//! or nothing, and a reader sees it whole. Names, phones and addresses lie in this file and in no other.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gatebell_engine::ports::PortError;
use gatebell_engine::ports::clock::{Clock, SystemClock};
use gatebell_engine::registry::{Entry, EntryKey};
use gatebell_engine::time::Timestamp;
use rusqlite::{Connection, TransactionBehavior};

use super::registry_progress::ProgressFile;
use super::registry_rows::{self as rows, REGISTRY};
use crate::data_dir::DataDir;
pub(super) use crate::registry::PORT;
pub use crate::registry::{Applied, ChangeOrigin, RecordedChange, RegistryStore};
use crate::sqlite::DatabaseFile;

/// How often the engine's progress is looked at while a command waits for it.
const PROGRESS_EVERY_MS: u64 = 20;

/// The registry in a data directory.
#[derive(Debug)]
pub struct EmbeddedRegistry {
    directory: DataDir,
    file: DatabaseFile,
    connection: Mutex<Connection>,
}

impl EmbeddedRegistry {
    /// Opens the registry in `directory`, making it where it is missing.
    pub fn open(directory: &DataDir) -> Result<Self, PortError> {
        let file = DatabaseFile::open(&directory.registry(), PORT, &REGISTRY)?;
        let connection = Mutex::new(file.connect()?);
        Ok(Self { directory: directory.clone(), file, connection })
    }

    /// Every entry that stands, removed ones (with the instant of removal) included. A whole city is a few gigabytes this
    /// way; [`for_each`](Self::for_each) reads one kind at a time.
    pub fn current(&self) -> Result<BTreeMap<EntryKey, Entry>, PortError> {
        let mut entries = BTreeMap::new();
        self.run(|connection| {
            rows::for_each_current(connection, None, |entry| {
                entries.insert(entry.key(), entry);
            })
        })?;
        Ok(entries)
    }

    /// Hands every entry of `kind` (as [`EntryKey::kind`] names it) that stands to `each`, sorted by key.
    pub fn for_each(&self, kind: &str, each: impl FnMut(Entry)) -> Result<(), PortError> {
        self.run(|connection| rows::for_each_current(connection, Some(kind), each))
    }

    /// What `key` holds; `None` when nothing was ever written under it.
    pub fn entry(&self, key: &EntryKey) -> Result<Option<Entry>, PortError> {
        self.run(|connection| rows::current(connection, key))
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> Result<bool, PortError> {
        Ok(self.version()? == 0)
    }

    /// The version of the last change; 0 when nothing was ever written.
    pub fn version(&self) -> Result<u64, PortError> {
        self.run(rows::last_version)
    }

    /// Imports `entries`, in force since `applied` ([`Timestamp::MIN`] for the first import), on behalf of `who`; the
    /// version of the last change. All or nothing, and durable on return. Does not wait for the engine: see
    /// [`wait_applied`](Self::wait_applied).
    pub fn apply(&self, entries: Vec<Entry>, applied: Timestamp, who: &str) -> Result<u64, PortError> {
        self.change(|connection| append(connection, &entries, applied, who, ChangeOrigin::Import))
    }

    /// As [`apply`](Self::apply), for entries of any origin that follow from what was read at `version`: when something was
    /// written since, nothing is, and the answer is `None`.
    pub fn apply_to_version(
        &self,
        version: u64,
        entries: Vec<Entry>,
        applied: Timestamp,
        who: &str,
        origin: ChangeOrigin,
    ) -> Result<Option<u64>, PortError> {
        self.change(|connection| {
            if rows::last_version(connection)? != version {
                return Ok(None);
            }
            append(connection, &entries, applied, who, origin).map(Some)
        })
    }

    /// Every change by a single command that still stands, in order. An import that takes such an entry over writes it
    /// again, as its own.
    pub fn standing_by_single_commands(&self) -> Result<Vec<RecordedChange>, PortError> {
        self.run(rows::standing_by_single_commands)
    }

    /// At most `changes_max` changes after `version`, in order, with who made them when.
    pub fn changes(&self, version: u64, changes_max: usize) -> Result<Vec<RecordedChange>, PortError> {
        self.run(|connection| rows::recorded_changes(connection, version, changes_max))
    }

    /// Marks the city as a made-up one (demo, load), for good: a gateway that is not on loopback then refuses its notices.
    pub fn mark_made_up(&self) -> Result<(), PortError> {
        self.change(rows::mark_made_up)
    }

    /// Whether the city is a made-up one.
    pub fn is_made_up(&self) -> Result<bool, PortError> {
        self.run(rows::is_made_up)
    }

    /// Waits until the engine that runs on this directory has applied everything up to `version`, for at most `timeout`.
    ///
    /// Whether one runs is told by its lock on the directory, which it holds from its start to its very end; so a crashed
    /// engine is not waited for, and one that hangs is.
    pub fn wait_applied(&self, version: u64, timeout: Duration) -> Result<Applied, PortError> {
        let started = Instant::now();
        let progress = ProgressFile::open(&self.directory)?;
        loop {
            let running = self.directory.engine_is_running().map_err(|error| PortError::new(PORT, error))?;
            if !running {
                return Ok(Applied::NoEngineRuns);
            }
            let reached = progress.read()?;
            if reached >= version {
                return Ok(Applied::ByTheEngine);
            }
            if started.elapsed() >= timeout {
                return Ok(Applied::NotInTime { reached });
            }
            std::thread::sleep(Duration::from_millis(PROGRESS_EVERY_MS));
        }
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, PortError> {
        query(&self.connection()).map_err(|error| self.file.error(&error))
    }

    fn change<T>(&self, change: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, PortError> {
        let mut connection = self.connection();
        let in_transaction = || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = change(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        in_transaction().map_err(|error| self.file.error(&error))
    }
}

impl RegistryStore for EmbeddedRegistry {
    fn current(&self) -> Result<BTreeMap<EntryKey, Entry>, PortError> {
        self.current()
    }

    fn for_each(&self, kind: &str, each: &mut dyn FnMut(Entry)) -> Result<(), PortError> {
        self.for_each(kind, each)
    }

    fn entry(&self, key: &EntryKey) -> Result<Option<Entry>, PortError> {
        self.entry(key)
    }

    fn version(&self) -> Result<u64, PortError> {
        self.version()
    }

    fn apply(&self, entries: Vec<Entry>, applied: Timestamp, who: &str) -> Result<u64, PortError> {
        self.apply(entries, applied, who)
    }

    fn apply_to_version(
        &self,
        version: u64,
        entries: Vec<Entry>,
        applied: Timestamp,
        who: &str,
        origin: ChangeOrigin,
    ) -> Result<Option<u64>, PortError> {
        self.apply_to_version(version, entries, applied, who, origin)
    }

    fn standing_by_single_commands(&self) -> Result<Vec<RecordedChange>, PortError> {
        self.standing_by_single_commands()
    }

    fn changes(&self, version: u64, changes_max: usize) -> Result<Vec<RecordedChange>, PortError> {
        self.changes(version, changes_max)
    }

    fn mark_made_up(&self) -> Result<(), PortError> {
        self.mark_made_up()
    }

    fn is_made_up(&self) -> Result<bool, PortError> {
        self.is_made_up()
    }

    fn wait_applied(&self, version: u64, timeout: Duration) -> Result<Applied, PortError> {
        self.wait_applied(version, timeout)
    }
}

fn append(
    connection: &Connection,
    entries: &[Entry],
    applied: Timestamp,
    who: &str,
    origin: ChangeOrigin,
) -> rusqlite::Result<u64> {
    rows::append(connection, entries, applied, SystemClock::new().now(), who, origin)
}
