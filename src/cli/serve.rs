//! `gatebell serve`: one process that takes taps, runs the engine, sends notices and takes receipts.
//!
//! Checks everything, locks the data directory and starts the [`Service`]; Ctrl-C or SIGTERM stops it. A second signal
//! ends the process at once; nothing is lost by that either, since whatever was acknowledged is durable.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use gatebell_connectors::data_dir::DataDir;
use gatebell_engine::ports::clock::SystemClock;
use gatebell_engine::runtime::status::Status;
use gatebell_engine::term::Term;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::term_choice::{self, ServedTerm};
use super::{Globals, tokio_runtime};
use crate::config::{Configuration, LogFormat};
use crate::home::{CityClock, Home};
use crate::http::{Addresses, operations};
use crate::logs;
use crate::service::Service;

/// Says where a running process listens; in the data directory.
const LISTENERS_FILE: &str = "listeners.json";
/// The longest that threads may hold up the end of the process.
const THREADS_STOP_MAX: Duration = Duration::from_secs(2);
/// How often a process looks whether its term still means what it serves.
const TERM_LOOK_EVERY: Duration = Duration::from_secs(2);
/// What a process returns that was ended by a second signal.
const EXIT_AT_ONCE: i32 = 130;

/// How to serve.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The term, a name or a file [default: the configuration's]
    #[arg(long, value_name = "TERM")]
    term: Option<String>,
    /// How logs are written, on standard error [default: the configuration's]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> anyhow::Result<ExitCode> {
    let (configuration, read) = globals.checked_start(args.term.as_deref())?;
    logs::start(args.log_format.unwrap_or(configuration.logs.format), &configuration.logs.level)?;
    let metrics = operations::install_recorder()?;
    let directory = DataDir::open(&globals.data_dir()?)?;
    let _lock = directory.lock_engine()?;
    Home::prepare_for_start(&configuration, CityClock::Real)?;
    let home = Home::of(&configuration, directory, CityClock::Real)?;
    let term = term_choice::begin_to_serve(&home, &read)?;
    let runtime = tokio_runtime()?;
    let served = runtime.block_on(serve(&configuration, (read.term, term), &home, metrics));
    runtime.shutdown_timeout(THREADS_STOP_MAX);
    served?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(
    configuration: &Configuration,
    (term, served): (Term, ServedTerm),
    home: &Home,
    metrics: PrometheusHandle,
) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let term_name = term.name.clone();
    let today = term.day_of(super::now());
    let serves_today = term.days.contains(today);
    let clock = Arc::new(SystemClock::new());
    let service = Service::start(configuration, home, term, clock, metrics).await?;
    let addresses = service.addresses();
    let listeners_file = ListenersFile::write(home.directory().path(), addresses)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        data = %home.directory().path().display(),
        city = home.name(),
        term = %term_name,
        taps = %addresses.taps,
        callbacks = %addresses.callbacks,
        metrics = %addresses.metrics,
        "listening"
    );
    if !serves_today {
        tracing::warn!(
            term = %term_name, %today,
            "today is outside the term: every tap will be without school; --term serves another one"
        );
    }
    let other_meaning = term_loses_its_meaning(service.status(), Arc::new(served));
    let ended = until_stopped(service, &mut signals, other_meaning).await;
    drop(listeners_file);
    ended
}

/// Returns when the name of the term turns out to mean something else, which another process may have made of it while this
/// one started, or was taken for dead.
async fn term_loses_its_meaning(status: Arc<Status>, served: Arc<ServedTerm>) {
    let mut looked = tokio::time::interval(TERM_LOOK_EVERY);
    loop {
        looked.tick().await;
        if !status.is_live() {
            continue;
        }
        let served = Arc::clone(&served);
        match tokio::task::spawn_blocking(move || served.is_still_meant()).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return,
            Ok(Err(cause)) => tracing::warn!(%cause, "cannot read what the term means; trying again"),
            Err(cause) => tracing::error!(%cause, "cannot look what the term means; trying again"),
        }
    }
}

/// Runs until a signal comes, something ends by itself or the term gets an `other_meaning`; then stops.
async fn until_stopped(
    service: Service,
    signals: &mut Signals,
    other_meaning: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut agreed = Ok(());
    tokio::select! {
        biased;
        name = signals.next() => {
            tracing::info!(signal = name, "stopping: no more taps; again to end at once");
        }
        () = service.ended() => {}
        () = other_meaning => {
            agreed = Err(anyhow!("another process gave the name of the term another meaning: give one of the two a name of its own, and start again"));
        }
    }
    tokio::select! {
        biased;
        _ = signals.next() => {
            tracing::warn!("ending at once; what is on the wire stays in doubt until the next start");
            std::process::exit(EXIT_AT_ONCE);
        }
        stopped = service.stop() => agreed.and(stopped),
    }
}

/// The signals that stop a process.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// `listeners.json` in the data directory while the process listens.
struct ListenersFile(PathBuf);

impl ListenersFile {
    fn write(directory: &Path, addresses: Addresses) -> anyhow::Result<Self> {
        #[derive(Serialize)]
        struct Content {
            process: u32,
            #[serde(flatten)]
            addresses: Addresses,
        }
        let file = directory.join(LISTENERS_FILE);
        let unfinished = file.with_extension("json.unfinished");
        let content = serde_json::to_vec(&Content { process: std::process::id(), addresses })?;
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)
            .and_then(|mut open| open.write_all(&content))
            // Whoever reads it sees all of it or nothing.
            .and_then(|()| std::fs::rename(&unfinished, &file))
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self(file))
    }
}

impl Drop for ListenersFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, "cannot remove {LISTENERS_FILE}");
        }
    }
}
