//! The tasks of one engine: everything that runs beside [`Engine::run`](super::Engine::run) is spawned here.
//!
//! They belong to whoever holds the set: when it is dropped they end at once. What wraps them stands between tokio and the
//! process as a whole, so that a simulation can put a process to sleep and wake it up, as a paused virtual machine is.

use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::task::{JoinError, JoinSet};

/// What a task runs inside of.
pub type TaskWrap = Arc<dyn Fn(BoxFuture<'static, ()>) -> BoxFuture<'static, ()> + Send + Sync>;

/// See the module.
pub(crate) struct Tasks {
    running: JoinSet<()>,
    wrap: Option<TaskWrap>,
}

impl Tasks {
    /// None yet; each will run inside of what `wrap` makes of it.
    pub(crate) fn inside(wrap: Option<TaskWrap>) -> Self {
        Self { running: JoinSet::new(), wrap }
    }

    /// Starts a task.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        match &self.wrap {
            Some(wrap) => self.running.spawn(wrap(Box::pin(task))),
            None => self.running.spawn(task),
        };
    }

    /// Waits for the next one to end; `None` when none is left. Cancel-safe.
    pub(crate) async fn join_next(&mut self) -> Option<Result<(), JoinError>> {
        self.running.join_next().await
    }

    /// Whether none is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Ends those that are left, at once.
    pub(crate) async fn shutdown(&mut self) {
        self.running.shutdown().await;
    }
}
