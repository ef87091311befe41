//! Reading a database off the async threads, on connections that are kept ready.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use gatebell_engine::ports::PortError;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::DatabaseFile;

/// Connections for reading, kept for the next one who reads. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub(crate) struct Readers {
    shared: Arc<Shared>,
}

struct Shared {
    file: DatabaseFile,
    idle: Mutex<Vec<Connection>>,
    slots: Arc<Semaphore>,
}

impl Readers {
    /// Readers of `file`, at most `threads_max` blocking threads at once; connections are opened when first needed.
    pub(crate) fn new(file: DatabaseFile, threads_max: usize) -> Self {
        let slots = Arc::new(Semaphore::new(threads_max.max(1)));
        Self { shared: Arc::new(Shared { file, idle: Mutex::default(), slots }) }
    }

    /// Runs `query` on a blocking thread and gives its result. A caller that stops waiting loses nothing but the result.
    pub(crate) async fn read<T, F>(&self, query: F) -> Result<T, PortError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let slots = Arc::clone(&self.shared.slots);
        let slot = slots.acquire_owned().await.expect("the semaphore is never closed");
        let readers = self.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            readers.read_blocking(query)
        });
        match reading.await {
            Ok(result) => result,
            Err(error) => {
                Err(PortError::new(self.shared.file.port(), format_args!("a read was broken off: {error}")))
            }
        }
    }

    /// Runs `query` on the calling thread: for commands and for threads that may block.
    pub(crate) fn read_blocking<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, PortError> {
        let idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.shared.file.connect()?,
        };
        let result = query(&connection).map_err(|error| self.shared.file.error(&error));
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").field("file", &self.shared.file).finish_non_exhaustive()
    }
}
