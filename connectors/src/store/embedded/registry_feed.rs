//! The registry as the running engine follows it.
//!
//! While the engine applies one page, the next is already being read on a blocking thread: a start with a whole city is a
//! matter of seconds. A page read ahead is only used when it is full; the end of the feed is always looked up afresh, so
//! that an empty answer is the truth at the time of the call. How far the engine has come goes into a file of its own: an
//! import, one long transaction on the registry, must not hold the engine up.

use async_trait::async_trait;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::registry_feed::RegistryFeed;
use gatebell_engine::registry::RegistryChange;
use gatebell_engine::time::Timestamp;
use tokio::task::JoinHandle;

use super::registry::PORT;
use super::registry_progress::ProgressFile;
use super::registry_rows::{self as rows, REGISTRY};
use crate::data_dir::DataDir;
use crate::sqlite::{DatabaseFile, Readers};

/// Changes in one answer.
const PAGE_CHANGES_MAX: usize = 8_192;
/// The page read ahead and the one asked for.
const READERS_MAX: usize = 2;

/// Follows the registry for the engine of this process, which holds the lock on the data directory.
#[derive(Debug)]
pub struct EmbeddedRegistryFeed {
    readers: Readers,
    progress: ProgressFile,
    ahead: Option<Ahead>,
}

/// The page after `version`, being read.
#[derive(Debug)]
struct Ahead {
    version: u64,
    horizon: Timestamp,
    task: JoinHandle<Result<Vec<RegistryChange>, PortError>>,
}

impl EmbeddedRegistryFeed {
    /// Follows the registry in `directory`, making it where it is missing. What an engine before this one had reported
    /// counts no more.
    pub fn open(directory: &DataDir) -> Result<Self, PortError> {
        let file = DatabaseFile::open(&directory.registry(), PORT, &REGISTRY)?;
        let progress = ProgressFile::open(directory)?;
        progress.write(0)?;
        Ok(Self { readers: Readers::new(file, READERS_MAX), progress, ahead: None })
    }

    fn read_ahead(&mut self, version: u64, horizon: Timestamp) {
        let readers = self.readers.clone();
        let task = tokio::task::spawn_blocking(move || {
            readers
                .read_blocking(|connection| rows::changes_for(connection, version, horizon, PAGE_CHANGES_MAX))
        });
        self.ahead = Some(Ahead { version, horizon, task });
    }

    /// The page after `version` if it was read ahead and is full.
    async fn page_read_ahead(&mut self, version: u64, horizon: Timestamp) -> Option<Vec<RegistryChange>> {
        let ahead = self.ahead.as_mut()?;
        if (ahead.version, ahead.horizon) != (version, horizon) {
            self.ahead = None;
            return None;
        }
        let page = (&mut ahead.task).await;
        self.ahead = None;
        // An error shows again when the page is read afresh.
        page.ok()?.ok().filter(|changes| changes.len() == PAGE_CHANGES_MAX)
    }
}

#[async_trait]
impl RegistryFeed for EmbeddedRegistryFeed {
    async fn read(&mut self, version: u64, horizon: Timestamp) -> Result<Vec<RegistryChange>, PortError> {
        let changes = match self.page_read_ahead(version, horizon).await {
            Some(changes) => changes,
            None => {
                let page =
                    move |connection: &_| rows::changes_for(connection, version, horizon, PAGE_CHANGES_MAX);
                self.readers.read(page).await?
            }
        };
        if changes.len() == PAGE_CHANGES_MAX
            && let Some(last) = changes.last()
        {
            self.read_ahead(last.version, horizon);
        }
        Ok(changes)
    }

    async fn report_applied(&mut self, version: u64) -> Result<(), PortError> {
        self.progress.write(version)
    }
}
