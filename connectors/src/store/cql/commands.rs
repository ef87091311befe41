//! A session for commands, which block, and for what is shared with them.
//!
//! Owns a runtime of its own, on which the driver's tasks live: a command may wait for an answer on whatever thread it
//! runs on, and an async task elsewhere may wait without blocking.

use std::sync::{Arc, mpsc};

use gatebell_engine::ports::PortError;
use tokio::runtime::{Builder, Runtime};

use super::error::store_error;
use super::session::CqlSession;
use super::settings::CqlSettings;

/// A session, and the runtime that it lives on.
#[derive(Debug)]
pub struct CqlCommands {
    /// There until it is dropped.
    runtime: Option<Runtime>,
    session: Arc<CqlSession>,
}

impl CqlCommands {
    /// Connects to the keyspace of `settings`, whose schema must be the one that this program was built with.
    pub fn open(settings: &CqlSettings) -> Result<Arc<Self>, PortError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("gatebell-store")
            .enable_all()
            .build()
            .map_err(|error| store_error(format_args!("no thread for it: {}", error.kind())))?;
        let settings = settings.clone();
        let session = wait_for(&runtime, async move { CqlSession::open(&settings).await })?;
        Ok(Arc::new(Self { runtime: Some(runtime), session }))
    }

    /// The session.
    pub(super) fn session(&self) -> Arc<CqlSession> {
        Arc::clone(&self.session)
    }

    /// Blocks until `work` is done.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, PortError>> + Send + 'static,
    ) -> Result<T, PortError> {
        wait_for(self.runtime(), work)
    }

    /// Has `work` done, for a task of another runtime.
    pub(super) async fn done<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, PortError>> + Send + 'static,
    ) -> Result<T, PortError> {
        self.runtime().spawn(work).await.unwrap_or_else(|_| Err(broken_off()))
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for CqlCommands {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not by dropping it, which may not be done among async tasks.
            runtime.shutdown_background();
        }
    }
}

fn wait_for<T: Send + 'static>(
    runtime: &Runtime,
    work: impl Future<Output = Result<T, PortError>> + Send + 'static,
) -> Result<T, PortError> {
    let (done, answer) = mpsc::sync_channel(1);
    runtime.spawn(async move {
        // Nobody waits any more only where the waiting thread is gone.
        drop(done.send(work.await));
    });
    answer.recv().unwrap_or_else(|_| Err(broken_off()))
}

fn broken_off() -> PortError {
    store_error("what was asked of it was broken off")
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[tokio::test]
    async fn it_is_opened_asked_and_dropped_also_among_async_tasks() {
        let commands = CqlCommands::open(&fixture::shared_settings()).expect("the store opens");
        assert_eq!(commands.wait(async { Ok(7) }).ok(), Some(7));
        assert_eq!(commands.done(async { Ok(8) }).await.ok(), Some(8));
        let failed = commands.wait::<()>(async { Err(store_error("no")) });
        assert!(failed.is_err());
    }
}
