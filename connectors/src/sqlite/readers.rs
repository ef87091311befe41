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
    connections_max: usize,
}

impl Readers {
    /// Readers of `file`: at most `connections_max` calls of [`read`](Self::read) at once, the others wait; and
    /// as many connections are kept. They are opened when first needed.
    pub(crate) fn new(file: DatabaseFile, connections_max: usize) -> Self {
        let connections_max = connections_max.max(1);
        let slots = Arc::new(Semaphore::new(connections_max));
        Self { shared: Arc::new(Shared { file, idle: Mutex::default(), slots, connections_max }) }
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

    /// Runs `query` on the calling thread: for commands and for threads that may block. Never waits for others,
    /// so its callers must be few by themselves: what comes over the network goes through [`read`](Self::read).
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
        let mut kept = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < self.shared.connections_max {
            kept.push(connection);
        }
        result
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").field("file", &self.shared.file).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::sqlite::Schema;

    const READERS_MAX: usize = 3;
    const EMPTY: Schema = Schema { name: "nothing", steps: &[] };

    fn readers(directory: &tempfile::TempDir) -> Readers {
        let file = DatabaseFile::open(&directory.path().join("x.db"), "test store", &EMPTY).unwrap();
        Readers::new(file, READERS_MAX)
    }

    fn kept(readers: &Readers) -> usize {
        readers.shared.idle.lock().unwrap().len()
    }

    #[tokio::test]
    async fn no_more_read_at_once_than_there_may_be_connections() {
        let directory = tempfile::tempdir().unwrap();
        let readers = readers(&directory);
        // Each waits until so many read at once, so that the limit is reached for certain.
        let full = Arc::new(Barrier::new(READERS_MAX));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut reads = tokio::task::JoinSet::new();
        for _ in 0..READERS_MAX * 20 {
            let (readers, full, now, most) = (readers.clone(), full.clone(), now.clone(), most.clone());
            reads.spawn(async move {
                let query = move |_: &Connection| {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    full.wait();
                    now.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                };
                readers.read(query).await
            });
        }
        for read in reads.join_all().await {
            read.unwrap();
        }
        assert_eq!((most.load(Ordering::SeqCst), kept(&readers)), (READERS_MAX, READERS_MAX));
    }

    #[test]
    fn threads_that_read_by_themselves_leave_no_more_connections_behind() {
        let directory = tempfile::tempdir().unwrap();
        let readers = readers(&directory);
        let all = Barrier::new(READERS_MAX * 2);
        std::thread::scope(|scope| {
            for _ in 0..READERS_MAX * 2 {
                scope.spawn(|| {
                    let query = |_: &Connection| {
                        all.wait();
                        Ok(())
                    };
                    readers.read_blocking(query).unwrap();
                });
            }
        });
        assert_eq!(kept(&readers), READERS_MAX);
    }
}
