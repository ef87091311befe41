//! The registry: what stands, what changed, and which processes have it.
//!
//! [`RegistryStore`] is how commands see it, wherever it lies: in the embedded store's file
//! ([`EmbeddedRegistry`](crate::store::embedded::registry::EmbeddedRegistry)) or in a compacted topic ([`KafkaRegistry`](kafka::KafkaRegistry)). The
//! engine follows it through its own port, the registry feed.

pub(crate) mod entry_json;
pub mod kafka;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use gatebell_engine::ports::PortError;
use gatebell_engine::registry::{Entry, EntryKey, RegistryChange};
use gatebell_engine::time::Timestamp;

/// The port, as errors name it.
pub(crate) const PORT: &str = "registry";

/// What kind of command brought a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeOrigin {
    /// An import: it stands so in the city's directory.
    Import,
    /// A command that changes one thing: the city's directory may not know of it.
    SingleCommand,
}

/// A change with its circumstances.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordedChange {
    /// The change.
    pub change: RegistryChange,
    /// When it was written, by the clock of the machine or broker that keeps the registry.
    pub written_at: Timestamp,
    /// Who made it, as the command or import names itself.
    pub who: String,
}

/// Whether a change is in effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// The running engine has applied it; where several processes run, every live one.
    ByTheEngine,
    /// No engine runs; the next one reads it before it sends anything.
    NoEngineRuns,
    /// A running engine had not applied it when the time was over.
    NotInTime {
        /// The version that the engine had come to; of several, the one that is furthest behind.
        reached: u64,
    },
}

/// The registry as commands read and write it. Every call blocks, and must not be made on a thread that runs async tasks.
pub trait RegistryStore: Send + Sync {
    /// Every entry that stands, removed ones (with the instant of removal) included. A whole city is a few gigabytes this
    /// way; [`for_each`](Self::for_each) reads one kind at a time.
    fn current(&self) -> Result<BTreeMap<EntryKey, Entry>, PortError>;

    /// Hands every entry of `kind` (as [`EntryKey::kind`] names it) that stands to `each`, sorted by key.
    fn for_each(&self, kind: &str, each: &mut dyn FnMut(Entry)) -> Result<(), PortError>;

    /// What `key` holds; `None` when nothing was ever written under it.
    fn entry(&self, key: &EntryKey) -> Result<Option<Entry>, PortError>;

    /// Whether nothing was ever written.
    fn is_empty(&self) -> Result<bool, PortError> {
        Ok(self.version()? == 0)
    }

    /// The version of the last change; 0 when nothing was ever written.
    fn version(&self) -> Result<u64, PortError>;

    /// Imports `entries`, in force since `applied` ([`Timestamp::MIN`] for the first import), on behalf of `who`; the
    /// version of the last change. All or nothing, and durable on return. Does not wait for engines: see
    /// [`wait_applied`](Self::wait_applied).
    fn apply(&self, entries: Vec<Entry>, applied: Timestamp, who: &str) -> Result<u64, PortError>;

    /// As [`apply`](Self::apply), for entries of any origin that follow from what was read at `version`: when something was
    /// written since, nothing is, and the answer is `None`.
    fn apply_to_version(
        &self,
        version: u64,
        entries: Vec<Entry>,
        applied: Timestamp,
        who: &str,
        origin: ChangeOrigin,
    ) -> Result<Option<u64>, PortError>;

    /// Every change by a single command that still stands, in order. An import that takes such an entry over writes it
    /// again, as its own.
    fn standing_by_single_commands(&self) -> Result<Vec<RecordedChange>, PortError>;

    /// At most `changes_max` changes after `version`, in order, with who made them when.
    fn changes(&self, version: u64, changes_max: usize) -> Result<Vec<RecordedChange>, PortError>;

    /// Marks the city as a made-up one (demo, load), for good: a gateway that is not on loopback then refuses its notices.
    fn mark_made_up(&self) -> Result<(), PortError>;

    /// Whether the city is a made-up one.
    fn is_made_up(&self) -> Result<bool, PortError>;

    /// Waits until every live engine has applied everything up to `version`, for at most `timeout`.
    fn wait_applied(&self, version: u64, timeout: Duration) -> Result<Applied, PortError>;
}

/// How long a process's report counts, in the store that keeps it: longer than a process goes on sending without a
/// confirmed feed, so that one that is not waited for has stopped.
pub const REPORT_LIVES: Duration = Duration::from_secs(7);

/// Which processes are alive, and how far each has applied the registry: for commands that wait until a change is in effect
/// everywhere.
///
/// *Promises:* a report that returned is seen by every [`live`](Self::live) call that begins within [`REPORT_LIVES`] of it,
/// in every process; one that was not renewed is gone soon after.
#[async_trait]
pub trait ProcessReports: Send + Sync {
    /// `owner` (a name that no other process has) is alive and has applied everything up to `version`. Replaces what it
    /// reported before.
    async fn report(&self, owner: &str, version: u64) -> Result<(), PortError>;

    /// Every live process with the version it last reported. A read that sees every report that returned.
    async fn live(&self) -> Result<Vec<(String, u64)>, PortError>;
}
