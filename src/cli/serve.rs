//! `gatebell serve`: one process that takes taps, runs the engine, sends notices and takes receipts.
//!
//! Owns what starts and stops when. Start: check everything, lock the data directory, listen, then run. Stop
//! (Ctrl-C or SIGTERM): no more taps first, then the engine drains what is on the wire and commits what is
//! settled, while receipts are still taken; all within a bound. A second signal ends the process at once;
//! nothing is lost by that either, since whatever was acknowledged is durable.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use axum::Router;
use gatebell_connectors::data_dir::DataDir;
use gatebell_connectors::store::embedded::tokens::TokenStore;
use gatebell_connectors::tap_log::embedded::EmbeddedTapIntake;
use gatebell_engine::ports::clock::SystemClock;
use gatebell_engine::runtime::EngineError;
use gatebell_engine::runtime::status::Status;
use gatebell_engine::term::Term;
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{Globals, tokio_runtime};
use crate::config::{Configuration, LogFormat};
use crate::http::callbacks::{self, CallbackPorts, Callers};
use crate::http::operations::{self, Missing};
use crate::http::reporters::StoredReporters;
use crate::http::taps::{self, IntakeHealth, TapsLimits};
use crate::http::{Addresses, Listeners};
use crate::logs;
use crate::settling::keep_settling;
use crate::wiring::{self, Surroundings, Wired};

/// Says where a running process listens; in the data directory.
const LISTENERS_FILE: &str = "listeners.json";
/// The longest that the engine may take to stop; then the process ends without it.
const ENGINE_STOP_MAX: Duration = Duration::from_secs(20);
/// The longest that threads may hold up the end of the process.
const THREADS_STOP_MAX: Duration = Duration::from_secs(2);
/// How often figures are brought up to date, and old ones let go.
const METRICS_UPKEEP_EVERY: Duration = Duration::from_secs(1);
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
    let configuration = globals.configuration()?;
    let term = globals.load_term(args.term.as_deref())?;
    logs::start(args.log_format.unwrap_or(configuration.logs.format), &configuration.logs.level)?;
    let metrics = operations::install_recorder()?;
    let directory = DataDir::open(&globals.data_dir()?)?;
    let _lock = directory.lock_engine()?;
    let runtime = tokio_runtime()?;
    let served = runtime.block_on(serve(&configuration, term, &directory, metrics));
    runtime.shutdown_timeout(THREADS_STOP_MAX);
    served?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(
    configuration: &Configuration,
    term: Term,
    directory: &DataDir,
    metrics: PrometheusHandle,
) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let listeners = Listeners::bind(configuration).await?;
    let addresses = listeners.addresses();
    let term_name = term.name.clone();
    let billed_term = term.clone();
    let wired = wiring::wire(
        configuration,
        Surroundings { directory, term, callbacks: addresses.callbacks, clock: Arc::new(SystemClock::new()) },
    )?;
    let tokens = TokenStore::open(directory)?;
    let running = Running::start(configuration, listeners, wired, tokens, metrics, directory, billed_term);
    let listeners_file = ListenersFile::write(directory.path(), addresses)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        data = %directory.path().display(),
        term = %term_name,
        taps = %addresses.taps,
        callbacks = %addresses.callbacks,
        metrics = %addresses.metrics,
        "listening"
    );
    let ended = running.until_stopped(&mut signals).await;
    drop(listeners_file);
    ended
}

/// Everything that runs, and the ways to stop it.
struct Running {
    stop_taps: CancellationToken,
    stop_engine: CancellationToken,
    stop_rest: CancellationToken,
    /// Cancelled when anything but the engine ends, in whatever way.
    ended: CancellationToken,
    taps: JoinHandle<()>,
    engine: JoinHandle<Result<(), EngineError>>,
    rest: [JoinHandle<()>; 4],
}

impl Running {
    fn start(
        configuration: &Configuration,
        listeners: Listeners,
        wired: Wired,
        tokens: TokenStore,
        metrics: PrometheusHandle,
        directory: &DataDir,
        term: Term,
    ) -> Self {
        let stop_taps = CancellationToken::new();
        let stop_engine = CancellationToken::new();
        let stop_rest = CancellationToken::new();
        let status = wired.engine.status();
        let health = Arc::new(IntakeHealth::default());
        let reporters = StoredReporters::new(tokens, wired.engine.index(), Arc::clone(&status));
        let limits = TapsLimits {
            requests_max: configuration.taps.requests_max,
            body_bytes_max: configuration.taps.body_bytes_max,
            read_timeout: configuration.taps.read_timeout,
        };
        let intake = Arc::clone(&wired.intake);
        let taps_router = taps::router(wired.intake, Arc::new(reporters), Arc::clone(&health), limits);
        let callbacks_router = callbacks::router(CallbackPorts {
            receipts: wired.receipts,
            ledger: wired.ledger,
            clock: Arc::new(SystemClock::new()),
            keys: wired.callback_keys,
            callers: Callers {
                allow: configuration.callbacks.allow.clone(),
                trusted_proxies: configuration.callbacks.trusted_proxies.clone(),
            },
        });
        let operations_router = operations_router(status, health, metrics.clone());
        let ended = CancellationToken::new();
        Self {
            taps: spawn_telling(&ended, listeners.taps.serve(taps_router, stop_taps.clone())),
            engine: tokio::spawn(wired.engine.run(stop_engine.clone())),
            rest: [
                spawn_telling(&ended, listeners.callbacks.serve(callbacks_router, stop_rest.clone())),
                spawn_telling(&ended, listeners.metrics.serve(operations_router, stop_rest.clone())),
                spawn_telling(&ended, keep_metrics(metrics, intake, stop_rest.clone())),
                spawn_telling(
                    &ended,
                    keep_settling(directory.clone(), term, Arc::new(SystemClock::new()), stop_rest.clone()),
                ),
            ],
            ended,
            stop_taps,
            stop_engine,
            stop_rest,
        }
    }

    async fn until_stopped(mut self, signals: &mut Signals) -> anyhow::Result<()> {
        let cause = tokio::select! {
            biased;
            name = signals.next() => {
                tracing::info!(signal = name, "stopping: no more taps; again to end at once");
                Cause::Asked
            }
            ended = &mut self.engine => Cause::EngineEnded(ended),
            () = self.ended.cancelled() => Cause::ListenerEnded,
        };
        tokio::select! {
            biased;
            _ = signals.next() => {
                tracing::warn!("ending at once; what is on the wire stays in doubt until the next start");
                std::process::exit(EXIT_AT_ONCE);
            }
            stopped = self.stop(cause) => stopped,
        }
    }

    async fn stop(self, cause: Cause) -> anyhow::Result<()> {
        let asked = matches!(cause, Cause::Asked);
        self.stop_taps.cancel();
        let taps = self.taps.await;
        self.stop_engine.cancel();
        let engine = match cause {
            Cause::EngineEnded(ended) => ended,
            Cause::Asked | Cause::ListenerEnded => {
                match tokio::time::timeout(ENGINE_STOP_MAX, self.engine).await {
                    Ok(ended) => ended,
                    Err(_) => bail!("the engine did not stop within {} s", ENGINE_STOP_MAX.as_secs()),
                }
            }
        };
        self.stop_rest.cancel();
        let mut rest = Vec::new();
        for task in self.rest {
            rest.push(task.await);
        }
        engine.context("the engine failed")?.context("the engine failed")?;
        taps.context("the listener for taps failed")?;
        rest.into_iter().collect::<Result<(), _>>().context("a listener failed")?;
        ensure!(asked, "something ended that nobody had told to");
        Ok(())
    }
}

/// Why everything stops.
enum Cause {
    /// A signal.
    Asked,
    /// The engine ended by itself.
    EngineEnded(Result<Result<(), EngineError>, JoinError>),
    /// Something else ended by itself.
    ListenerEnded,
}

/// Spawns `task`; `ended` is cancelled when it ends, also by a panic.
fn spawn_telling(
    ended: &CancellationToken,
    task: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let telling = ended.clone().drop_guard();
    tokio::spawn(async move {
        task.await;
        drop(telling);
    })
}

fn operations_router(engine: Arc<Status>, health: Arc<IntakeHealth>, metrics: PrometheusHandle) -> Router {
    let readiness = move || {
        let intake = health.trouble().map(|why| Missing { what: "intake", why });
        let engine =
            engine.not_ready().into_iter().map(|missing| Missing { what: missing.what, why: missing.why });
        engine.chain(intake).collect()
    };
    operations::router(Arc::new(readiness), metrics)
}

/// Keeps figures that nobody else does.
async fn keep_metrics(metrics: PrometheusHandle, intake: Arc<EmbeddedTapIntake>, stop: CancellationToken) {
    let waiting = gauge!("gatebell_intake_waiting_taps");
    let mut ticks = tokio::time::interval(METRICS_UPKEEP_EVERY);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {
                // Fewer than 2^53 taps fit into memory.
                waiting.set(intake.waiting_taps() as f64);
                metrics.run_upkeep();
            }
        }
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
