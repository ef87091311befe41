//! Starting and stopping the simulator.
//!
//! Owns: the listener, the two tasks (HTTP, callbacks) and their end. What hangs is let go at once when the simulator
//! stops.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::book::Book;
use crate::config::{Mistake, SimConfig};
use crate::log::{LogFile, SimLog};
use crate::receipts::{self, Callback};
use crate::{app, mitake};

/// How long open requests may take to end when the simulator stops.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Why the simulator does not start.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The configuration cannot be.
    #[error("the simulator's configuration cannot be used: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Config(Vec<Mistake>),
    /// The address is taken or not ours.
    #[error("cannot listen on {listen}: {cause}")]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
    /// The log cannot be written.
    #[error("cannot write the log {}: {cause}", path.display())]
    Log {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
}

/// What requests share.
#[derive(Debug)]
pub(crate) struct Sim {
    pub(crate) config: SimConfig,
    book: Mutex<Book>,
    in_progress: AtomicUsize,
    planned: mpsc::UnboundedSender<Vec<Callback>>,
    open: watch::Sender<usize>,
    stop: CancellationToken,
}

impl Sim {
    /// The books. Never held across an await.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        // A panic while it was held leaves counts that are off by one, which a simulator can live with.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more request in progress: how many there are.
    pub(crate) fn enter(&self) -> usize {
        self.in_progress.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn leave(&self) {
        self.in_progress.fetch_sub(1, Ordering::SeqCst);
    }

    /// Callbacks to be made.
    pub(crate) fn plan(&self, callbacks: Vec<Callback>) {
        self.open.send_modify(|open| *open += callbacks.len());
        // The receiver ends only with the simulator.
        let _ = self.planned.send(callbacks);
    }

    /// Waits, unless the simulator stops.
    pub(crate) async fn pause(&self, time: Duration) {
        if time.is_zero() {
            return;
        }
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    /// Keeps the caller waiting.
    pub(crate) async fn hang(&self, hang_ms: u32) {
        self.pause(Duration::from_millis(u64::from(hang_ms))).await;
    }
}

/// A running simulator. Dropped, it stops by itself; [`stop`](Self::stop) waits for that.
#[derive(Debug)]
pub struct GatewaySim {
    sim: Arc<Sim>,
    address: SocketAddr,
    open: watch::Receiver<usize>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl GatewaySim {
    /// Starts a simulator on `listen` (port 0: any free one).
    pub async fn start(config: SimConfig, listen: SocketAddr) -> Result<Self, SimError> {
        Self::start_logging(config, listen, None).await
    }

    /// Starts a simulator that also appends what it sees to the file `log`, as NDJSON.
    pub async fn start_logging(
        config: SimConfig,
        listen: SocketAddr,
        log: Option<&Path>,
    ) -> Result<Self, SimError> {
        config.check().map_err(SimError::Config)?;
        let file = match log {
            Some(path) => {
                LogFile::create(path).map_err(|cause| SimError::Log { path: path.to_owned(), cause })?
            }
            None => LogFile::default(),
        };
        let bound = async {
            let listener = TcpListener::bind(listen).await?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = bound.await.map_err(|cause| SimError::Listen { listen, cause })?;
        let stop = CancellationToken::new();
        let (planned, to_tell) = mpsc::unbounded_channel();
        let (open_sender, open) = watch::channel(0);
        let sim = Arc::new(Sim {
            book: Mutex::new(Book::new(&config, file, Instant::now())),
            config,
            in_progress: AtomicUsize::new(0),
            planned,
            open: open_sender.clone(),
            stop: stop.clone(),
        });
        let router = mitake::routes().merge(app::routes()).with_state(Arc::clone(&sim));
        let stopped = stop.clone();
        let http = tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(stopped.cancelled_owned());
            if let Err(error) = served.await {
                tracing::error!(%error, "the simulator's listener has ended");
            }
        });
        let callbacks = tokio::spawn(receipts::run(Arc::clone(&sim), to_tell, open_sender, stop.clone()));
        Ok(Self { sim, address, open, stop, tasks: vec![http, callbacks] })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What comes before `/SmSend` in a gateway's configuration.
    pub fn mitake_url(&self) -> String {
        format!("http://{}{}", self.address, crate::MITAKE_PATH)
    }

    /// The app's webhook.
    pub fn app_url(&self) -> String {
        format!("http://{}{}", self.address, crate::APP_PATH)
    }

    /// Everything so far.
    pub fn log(&self) -> SimLog {
        self.sim.book().log()
    }

    /// Waits until every message taken so far has ended and been told, at most `patience`: whether that came true.
    pub async fn settled(&self, patience: Duration) -> bool {
        let mut open = self.open.clone();
        tokio::time::timeout(patience, open.wait_for(|open| *open == 0))
            .await
            .is_ok_and(|waited| waited.is_ok())
    }

    /// Stops: open requests are let go, callbacks still to come are dropped.
    pub async fn stop(mut self) -> SimLog {
        self.stop.cancel();
        for mut task in self.tasks.drain(..) {
            if tokio::time::timeout(STOP_GRACE, &mut task).await.is_err() {
                task.abort();
            }
        }
        self.log()
    }
}

impl Drop for GatewaySim {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
